#!/usr/bin/env python3
"""Wakes an agent of the OpenAI Agents SDK from a checkpoint: the resume command for any such agent.

    checkpointfs --resume='python scripts/agents/openai_agents.py --agent mymodule:agent' MOUNT

It loads the saved state, applies the decisions by call id and goes on with the run. Exit status:

    0   the run is final; its output is printed
    10  it stopped for approval again and took a child checkpoint in CHECKPOINT_NEXT_DIR
    75  nothing was done: no model and no tool was called, so the decision can be made again
    1   the run failed on its way
"""
import argparse
import asyncio
import importlib
import importlib.metadata
import inspect
import json
import logging
import os
import re
import sys
import tempfile
import traceback

FINAL, FAILED, INTERRUPTED, NOTHING_DONE = 0, 1, 10, 75
NAME_MAX = 255
# Without one of these the SDK only says "Error details are redacted."
REQUIRED_KEYS = ("current_turn", "current_agent", "original_input", "context", "max_turns")


class NothingDone(Exception):
    """What is wrong, found before any model or tool was called."""


def one_line(error):
    return " ".join(str(error).split()) or type(error).__name__


def redact(text):
    """Takes passwords of URIs and the values of secret variables out of an error message, which ends up in `output`."""
    text = re.sub(r"(://[^\s:/@]*):[^\s@]*@", r"\1:***@", text)
    for name, value in os.environ.items():
        if len(value) >= 8 and re.search(r"KEY|TOKEN|SECRET|PASSW|DATABASE_URL|PGPASS", name, re.IGNORECASE):
            text = text.replace(value, f"${name}")
    return text


def complain(text):
    print(f"{os.path.basename(sys.argv[0])}: {redact(text)}", file=sys.stderr, flush=True)


# --- what the mount hands over ---------------------------------------------------------------------------------------------

def from_environment(name):
    if value := os.environ.get(name):
        return value
    raise NothingDone(f"{name} is not set: this is a resume command, started by checkpointfs --resume=… when someone decides")


def read_json(path, what):
    try:
        with open(path, encoding="utf-8", errors="surrogatepass") as file:
            return json.load(file)
    except OSError as error:
        raise NothingDone(f"cannot read {what} {path}: {error.strerror}") from error
    except ValueError as error:
        raise NothingDone(f"{what} {path} is not JSON: {one_line(error)}") from error


def read_facts(directory, name):
    """checkpoint.json or meta.json beside the state; they help, but the run can go on without."""
    try:
        with open(os.path.join(directory, name), encoding="utf-8") as file:
            facts = json.load(file)
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def unwrapped(state, path):
    """The RunState itself: in the guide's checkpoint.json it is inside {snapshot_id, agent_state}, at times as a string."""
    if isinstance(state, dict) and "agent_state" in state and "$schemaVersion" not in state:
        state = state["agent_state"]
        if isinstance(state, str):
            try:
                state = json.loads(state)
            except ValueError as error:
                raise NothingDone(f"agent_state in {path} is not JSON: {one_line(error)}") from error
    if not isinstance(state, dict) or "$schemaVersion" not in state:
        raise NothingDone(f"{path} is not a RunState of the OpenAI Agents SDK: it has no $schemaVersion")
    if "currentAgent" in state:
        raise NothingDone(f"{path} was written by the JavaScript SDK, which alone can resume it")
    if lacking := [key for key in REQUIRED_KEYS if key not in state]:
        raise NothingDone(f"{path} cannot be resumed: it lacks {', '.join(lacking)}")
    return state


def read_decisions(path):
    """({call id: decision}, input or None)."""
    content = read_json(path, "the decisions")
    decisions = {}
    try:
        for decision in content.get("decisions") or []:
            if decisions.setdefault(decision["id"], decision) is not decision:
                raise NothingDone(f"two decisions for call {decision['id']}")
            if decision["decision"] in ("edit", "respond"):
                raise NothingDone(f"call {decision['id']}: the OpenAI Agents SDK knows approve and reject, not "
                                  f"{decision['decision']}; reject it with a message that says what to do instead")
            if decision["decision"] not in ("approve", "reject"):
                raise NothingDone(f"call {decision['id']}: unknown decision {decision['decision']!r}")
        return decisions, content.get("input")
    except (AttributeError, KeyError, TypeError) as error:
        raise NothingDone(f"{path} does not hold decisions: {type(error).__name__}: {one_line(error)}") from error


# --- what the user's program holds -----------------------------------------------------------------------------------------

def import_object(reference, what):
    """MODULE:OBJECT; the object may have dots."""
    module, colon, attributes = reference.partition(":")
    if not (module and colon and attributes):
        raise NothingDone(f"{what} {reference!r}: write it as MODULE:OBJECT")
    try:
        found = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise NothingDone(f"cannot import {module}: {type(error).__name__}: {one_line(error)} "
                          f"(looked in {', '.join(path or '.' for path in sys.path[:3])}, …)") from error
    for attribute in attributes.split("."):
        try:
            found = getattr(found, attribute)
        except AttributeError as error:
            raise NothingDone(f"{module} has no {attributes}") from error
    return found


async def called(thing, what):
    """The thing itself, or what it returns when it can be called (and awaited)."""
    if not callable(thing):
        return thing
    try:
        result = thing()
        return await result if inspect.isawaitable(result) else result
    except (Exception, SystemExit) as error:
        raise NothingDone(f"{what} failed: {type(error).__name__}: {one_line(error)}") from error


async def load_agent(reference):
    from agents import Agent
    thing = import_object(reference, "agent")
    agent = thing if isinstance(thing, Agent) else await called(thing, reference)
    if not isinstance(agent, Agent):
        raise NothingDone(f"{reference} is no Agent, and returns none, but {type(agent).__name__}")
    return agent


async def load_options(reference):
    """Keyword arguments for Runner.run; `context_deserializer` and `context_serializer` among them are for RunState."""
    options = await called(import_object(reference, "run options"), reference) if reference else {}
    if not isinstance(options, dict):
        raise NothingDone(f"{reference} is no dict, and returns none, but {type(options).__name__}")
    return dict(options)


# --- the run ---------------------------------------------------------------------------------------------------------------

def call_id(item):
    """A hosted MCP approval has an id and no call_id."""
    raw = item.raw_item
    get = raw.get if isinstance(raw, dict) else lambda key: getattr(raw, key, None)
    return get("call_id") or get("id")


def by_id(items):
    """{id: item}. Inner agents whose models count their calls from 0 give the same id twice: the later ones are ID~2, ID~3, …, as
    checkpointfs names them under pending/."""
    ids = [call_id(item) for item in items]
    named = {}
    for wanted, item in zip(ids, items):
        name, number = wanted, 1
        while name in named or (number > 1 and name in ids):
            number += 1
            name = f"{wanted}~{number}"
        named[name] = item
    return named


def describe(item):
    raw = item.raw_item if isinstance(item.raw_item, dict) else vars(item.raw_item)
    arguments = raw.get("arguments") or raw.get("action") or raw.get("operation") or ""
    name = getattr(item, "tool_name", None) or raw.get("name") or raw.get("type")
    return f"{call_id(item)}  {name}({arguments})"


def made_by_chat_completions(state):
    """The two APIs name output items differently, and a run has to go on over the one that it began with."""
    return any(item.get("id") == "__fake_id__" for response in state.get("model_responses") or []
               for item in response.get("output") or [] if isinstance(item, dict))


async def load_state(agent, content, deserializer):
    from agents import RunState
    extra = {"context_deserializer": deserializer} if deserializer else {}
    try:
        return await RunState.from_json(agent, content, **extra)
    except Exception as error:
        raise NothingDone(f"openai-agents {importlib.metadata.version('openai-agents')} cannot load this state of schema "
                          f"{content['$schemaVersion']}: {one_line(error)}") from error


def apply_decisions(state, decisions, message):
    pending = by_id(state.get_interruptions())
    if unknown := [wanted for wanted in decisions if wanted not in pending]:
        raise NothingDone(f"no pending call has the id {', '.join(unknown)}; pending: {', '.join(pending) or 'none'}")
    carries = "rejection_message" in inspect.signature(state.reject).parameters
    if not carries and any(decision.get("message") for decision in decisions.values() if decision["decision"] == "reject"):
        raise NothingDone("this openai-agents cannot hand a message to the agent: "
                          "reject without one, or install openai-agents 0.12.1 or newer")
    try:
        for wanted, decision in decisions.items():
            if decision["decision"] == "approve":
                state.approve(pending[wanted])
            elif text := decision.get("message"):
                state.reject(pending[wanted], rejection_message=text)
            else:
                state.reject(pending[wanted])
        if message is not None:
            if not hasattr(state, "add_input"):
                raise NothingDone("this openai-agents cannot take an answer: install openai-agents 0.20.0 or newer")
            state.add_input(message)
    except NothingDone:
        raise
    except Exception as error:
        raise NothingDone(f"the decision does not fit this state: {one_line(error)}") from error


# --- the state of a run that has stopped ------------------------------------------------------------------------------------

def to_json(state, serializer):
    return state.to_json(**({"context_serializer": serializer} if serializer else {}))


def omitted_context(saved):
    """What the SDK left out, storing an empty context in its place; None when it left out nothing."""
    meta = (saved.get("context") or {}).get("context_meta") or {}
    if meta.get("omitted"):
        return (f"its context ({meta.get('class_path') or meta.get('original_type')}) can't be saved: give context_serializer, which makes a "
                "dict of it, beside context_deserializer in --run-options")


def check_that_it_can_be_saved(state, serializer):
    """Before anything is done, since the state of a run that has gone on is nowhere else."""
    silenced = logging.root.manager.disable
    logging.disable(logging.WARNING)  # the SDK's own word on it; ours says what to do
    try:
        saved = to_json(state, serializer)
        json.dumps(saved)
    except Exception as error:
        raise NothingDone(f"if this run stops again it can't be saved: {one_line(error)}"
                          f"{f' ({one_line(error.__cause__)})' if error.__cause__ else ''}") from error
    finally:
        logging.disable(silenced)
    if problem := omitted_context(saved):
        raise NothingDone(f"if this run stops again {problem}")


def saved_state(state, serializer):
    """(what to_json gives, what is lost of it or None)."""
    try:
        saved = to_json(state, serializer)
        return saved, omitted_context(saved)
    except Exception as error:
        return (state.to_json(context_serializer=lambda context: {"repr": repr(context)}),
                f"its context can't be saved: {one_line(error.__cause__ or error)}")


# --- a child checkpoint ----------------------------------------------------------------------------------------------------

def child_names(parent, is_child):
    """NAME.2, NAME.3, …; the child of NAME.2 is NAME.3 if NAME.2 is a child itself."""
    stem, number = parent, 1
    if is_child and (found := re.fullmatch(r"(.+)\.(\d+)", parent)):
        stem, number = found[1], int(found[2])
    while True:
        number += 1
        suffix = f".{number}"
        yield stem.encode()[:NAME_MAX - len(suffix)].decode(errors="ignore") + suffix


def make_directory(parent_directory, names):
    for name in names:
        try:
            os.mkdir(os.path.join(parent_directory, name))
            return name
        except FileExistsError:
            continue


def next_step(before, turn):
    """turn-N; after a partial decision the run stops again in the same turn, which is turn-N.2 and so on."""
    step = f"turn-{turn}"
    found = re.fullmatch(re.escape(step) + r"(?:\.(\d+))?", before or "")
    return f"{step}.{int(found[1] or 1) + 1}" if found else step


def child_meta(state):
    here = os.environ.get("CHECKPOINT_DIR") or os.path.dirname(os.environ["CHECKPOINT_STATE"])
    parent, parent_meta = read_facts(here, "checkpoint.json"), read_facts(here, "meta.json")
    meta = {
        "parent": os.environ["CHECKPOINT_ID"],
        "run_id": parent.get("run_id") or parent_meta.get("run_id"),
        "step_id": next_step(parent.get("step_id") or parent_meta.get("step_id"), state["current_turn"]),
        "framework_version": importlib.metadata.version("openai-agents"),
        "reason": "needs approval",
        "traceparent": os.environ.get("TRACEPARENT") or parent_meta.get("traceparent"),
    }
    return {key: value for key, value in meta.items() if value}, bool(parent.get("parent"))


def keep_aside(name, text):
    """The run has gone on and its state exists nowhere else: it must not be lost because no checkpoint could be taken."""
    descriptor, path = tempfile.mkstemp(prefix=f"{name[:100].replace('/', '_')}.", suffix=".state.json")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def written(state):
    """(its text, what is wrong with it or None): of what JSON can't hold, only how it reads."""
    try:
        return json.dumps(state, indent=2), None
    except Exception as error:
        problem = f"its state isn't JSON: {one_line(error)}"
    try:
        return json.dumps(state, indent=2, default=str, skipkeys=True), problem
    except Exception:
        return repr(state), problem


def take_child_checkpoint(state, problem):
    text, no_json = written(state)
    parent, target = os.environ["CHECKPOINT_NAME"], os.environ["CHECKPOINT_NEXT_DIR"]
    name = parent
    if problem := problem or no_json:
        raise RuntimeError(f"the run stopped for approval again, but no checkpoint was taken: {problem}; what could be written of the state is "
                           f"kept in {keep_aside(name, text)}")
    try:
        meta, is_child = child_meta(state)
        name = make_directory(target, child_names(parent, is_child))
        directory = os.path.join(target, name)
        with open(os.path.join(directory, "meta.json"), "w", encoding="utf-8") as file:
            json.dump(meta, file, indent=2)
        with open(os.path.join(directory, "state.json"), "w", encoding="utf-8") as file:
            file.write(text)
        return name
    except Exception as error:
        try:
            with open(os.path.join(target, name, "status"), encoding="utf-8") as file:
                status = f" (status: {file.read().strip()})"
        except OSError:
            status = ""
        what = f"{error.strerror}: {error.filename or name}" if isinstance(error, OSError) else one_line(error)
        raise RuntimeError(f"the run stopped for approval again, but no checkpoint could be taken in {target}: {what}{status}; the state is "
                           f"kept in {keep_aside(name, text)}") from error


# --- all of it -------------------------------------------------------------------------------------------------------------

async def resume(options):
    path = from_environment("CHECKPOINT_STATE")
    for name in ("CHECKPOINT_ID", "CHECKPOINT_NAME", "CHECKPOINT_NEXT_DIR"):
        from_environment(name)
    content = unwrapped(read_json(path, "the state"), path)
    decisions, message = read_decisions(from_environment("CHECKPOINT_DECISIONS"))
    if content.get("current_step") is None:
        raise NothingDone("this run is finished: there is nothing to resume")

    try:
        from agents import Runner, set_default_openai_api
    except ImportError as error:
        raise NothingDone(f"the OpenAI Agents SDK cannot be imported by {sys.executable}: {one_line(error)}") from error
    if (options.api or ("chat_completions" if made_by_chat_completions(content) else "responses")) == "chat_completions":
        set_default_openai_api("chat_completions")
    # In place of this script's own directory, whose modules are nobody's business.
    sys.path[:1] = [os.path.abspath(directory) for directory in options.path] + [os.getcwd()]
    agent = await load_agent(options.agent)
    run_options = await load_options(options.run_options)
    serializer = run_options.pop("context_serializer", None)
    state = await load_state(agent, content, run_options.pop("context_deserializer", None))
    check_that_it_can_be_saved(state, serializer)
    apply_decisions(state, decisions, message)
    before = {call_id(item) for item in state.get_interruptions()}

    result = await Runner.run(agent, state, **run_options)
    if not result.interruptions:
        print(result.final_output, flush=True)
        return FINAL
    if not decisions and before == {call_id(item) for item in result.interruptions}:
        # The SDK calls neither model nor tool then. A state that was saved after a decision does go on, though.
        raise NothingDone(f"nothing was decided; pending: {', '.join(before)}")
    child = take_child_checkpoint(*saved_state(result.to_state(), serializer))
    print(f"Stopped for approval again; took checkpoint {child}. Pending:")
    for item in result.interruptions:
        print(f"  {describe(item)}")
    sys.stdout.flush()
    return INTERRUPTED


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--agent", required=True, metavar="MODULE:OBJECT",
                        help="the agent the run was started with: an Agent, or a function (async or not) that returns one")
    parser.add_argument("--path", action="append", default=[], metavar="DIR",
                        help="where to look for modules, before the current directory; may be repeated")
    parser.add_argument("--run-options", metavar="MODULE:OBJECT",
                        help="a dict, or a function that returns one: keyword arguments for Runner.run (session, run_config, "
                             "hooks, …), and for a context of your own context_serializer, which makes a dict of it, and "
                             "context_deserializer, which rebuilds it")
    parser.add_argument("--api", choices=("responses", "chat_completions"),
                        help="the API to use; without it, the one that the state was made with")
    options = parser.parse_args()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # an answer that no terminal can show is no failure of the run
    try:
        return asyncio.run(resume(options))
    except NothingDone as reason:
        complain(f"nothing was done: {reason}")
        return NOTHING_DONE
    except SystemExit as error:  # of a tool, a hook, a guardrail: its number would be taken for one of ours
        complain(f"the run failed: something in it called sys.exit({error.code!r})")
        return FAILED
    except Exception as error:
        complain("the run failed: " + " ".join("".join(traceback.format_exception_only(error)).split()))
        return FAILED


if __name__ == "__main__":
    sys.exit(main())

"""scripts/agents/openai_agents.py with the real SDK: states of several SDK versions, woken by call id, without a mount."""
import importlib.metadata
import json
import os
import stat
import subprocess

import pytest

import sample_agents
from llm import DEADLINE, DENIED, PYTHON, SAMPLES, SCRIPTS, load, pending_ids

ADAPTER = SCRIPTS / "agents" / "openai_agents.py"
SEEDS = ["py_seed_interrupted", "py_seed_chat_interrupted", "py_seed_v0.12.1", "py_seed_v0.19.4", "py_turns_20"]


class Wake:
    """One checkpoint in a plain directory that looks like the mount's, and the adapter run on it."""

    def __init__(self, root, llm):
        self.mount = root / "mount"
        self.directory = self.mount / "pre_drop"
        self.directory.mkdir(parents=True)
        self.log = root / "tools.log"
        self.decisions = root / "decisions.json"
        self.llm = llm
        self.output = self.errors = ""

    def checkpoint(self, state, **facts):
        text = state if isinstance(state, (str, bytes)) else json.dumps(state, indent=2)
        (self.directory / "state.json").write_bytes(text if isinstance(text, bytes) else text.encode())
        facts = {"id": "ck_parent", "run_id": "run_7", "step_id": "turn-1", "parent": None, **facts}
        (self.directory / "checkpoint.json").write_text(json.dumps(facts))
        return self

    def decide(self, *decisions, message=None):
        self.decisions.write_text(json.dumps({"decisions": list(decisions), "input": message}))
        return self

    def run(self, *arguments, agent="sample_agents:agent", name="pre_drop", path=os.path.dirname(__file__), **env):
        env = {"CHECKPOINT_ID": "ck_parent", "CHECKPOINT_NAME": name, "CHECKPOINT_DIR": str(self.directory),
               "CHECKPOINT_STATE": str(self.directory / "state.json"), "CHECKPOINT_DECISIONS": str(self.decisions),
               "CHECKPOINT_NEXT_DIR": str(self.mount), "TOOL_LOG": str(self.log),
               "DATABASE_URL": "postgresql://me:hunter2@db/x", **env}
        done = subprocess.run([PYTHON, ADAPTER, "--agent", agent, "--path", path, *arguments], cwd=self.mount.parent,
                              env={k: v for k, v in self.llm.env(**env).items() if v is not None},
                              capture_output=True, text=True, timeout=DEADLINE)
        self.output, self.errors = done.stdout, done.stderr
        return done.returncode

    @property
    def tools(self):
        return self.log.read_text().splitlines() if self.log.exists() else []

    def children(self):
        return sorted(entry.name for entry in self.mount.iterdir() if entry.name != "pre_drop")

    def refused(self, *words, arguments=(), **run):
        """Runs it and checks that nothing was done and that one line says why."""
        assert self.run(*arguments, **run) == 75, self.errors
        assert self.tools == [] and self.children() == [] and self.output == ""
        lines = self.errors.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("openai_agents.py: nothing was done: "), self.errors
        for word in words:
            assert word in lines[0]


@pytest.fixture
def wake(tmp_path, fake_llm):
    return Wake(tmp_path, fake_llm)


def approve(call_id):
    return {"id": call_id, "tool": "drop_users_table", "decision": "approve", "message": None}


def reject(call_id, message=None):
    return {"id": call_id, "tool": "drop_users_table", "decision": "reject", "message": message}


# --- the two paths ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("sample", SEEDS)
def test_approve_runs_the_tool_once(wake, sample):
    state = load(SAMPLES / f"{sample}.json")
    assert wake.checkpoint(state).decide(approve(pending_ids(state)[0])).run() == 0, wake.errors
    assert wake.tools == ["drop"]
    assert wake.output == "Added Charlie and dropped the users table.\n"
    assert wake.children() == [] and wake.errors == ""


@pytest.mark.parametrize("sample", ["py_seed_interrupted", "py_seed_chat_interrupted", "py_seed_v0.12.1"])
def test_reject_hands_over_the_message(wake, sample):
    state = load(SAMPLES / f"{sample}.json")
    assert wake.checkpoint(state).decide(reject(pending_ids(state)[0], DENIED)).run() == 0, wake.errors
    assert wake.tools == ["list"]
    assert wake.output == "The users table was not dropped, as the admin decided. Users: Alice, Bob, Charlie\n"


def test_the_model_sees_the_very_words(wake):
    state = sample_state(wake, "STEPS " + json.dumps([[["drop_users_table", {}]]]))
    message = 'Nein, „so“ nicht.\nSay "why"; \U0001f4a5'
    assert wake.checkpoint(state).decide(reject(pending_ids(state)[0], message)).run() == 0, wake.errors
    assert wake.output == f"Done. The last word was: {message}\n"
    assert wake.tools == []


@pytest.mark.parametrize("as_text", [False, True])
def test_the_guides_wrapper_is_unwrapped(wake, as_text):
    content = load(SAMPLES / "seed_checkpoint.json")
    call = pending_ids(content["agent_state"])[0]
    if as_text:
        content["agent_state"] = json.dumps(content["agent_state"], indent=2)
    assert wake.checkpoint(content).decide(approve(call)).run() == 0, wake.errors
    assert wake.tools == ["drop"]


@pytest.mark.parametrize("agent", ["sample_agents:Holder.agent", "sample_agents:factory", "sample_agents:async_factory"])
def test_an_agent_or_what_returns_one(wake, agent):
    state = load(SAMPLES / "py_seed_interrupted.json")
    assert wake.checkpoint(state).decide(approve(pending_ids(state)[0])).run(agent=agent) == 0, wake.errors
    assert wake.tools == ["drop"]


def test_the_agent_is_found_in_the_current_directory(wake):
    wake.mount.with_name("mine.py").write_text("from sample_agents import agent\n")
    state = load(SAMPLES / "py_seed_interrupted.json")
    wake.checkpoint(state).decide(approve(pending_ids(state)[0]))
    assert wake.run(agent="mine:agent") == 0, wake.errors
    assert wake.tools == ["drop"]


def test_an_agent_inside_a_tool(wake):
    inner = "STEPS " + json.dumps([[["drop_users_table", {}]], "Inner done."])
    prompt = "STEPS " + json.dumps([[["ask_dropper", {"input": inner}]], "Outer done."])
    state = sample_state(wake, prompt, sample_agents.outer)
    assert state["current_agent"]["name"] == "Boss" and len(pending_ids(state)) == 1
    wake.checkpoint(state).decide(approve(pending_ids(state)[0]))
    assert wake.run(agent="sample_agents:outer") == 0, wake.errors
    assert wake.tools == ["drop"] and wake.output == "Outer done.\n"


def test_a_state_saved_after_a_decision_goes_on_without_a_word(wake):
    assert wake.checkpoint(load(SAMPLES / "py_seed_after_reject.decided.json")).decide().run() == 0, wake.errors
    assert wake.tools == ["list"]


def test_a_later_word_wins_over_a_saved_one(wake):
    state = load(SAMPLES / "py_seed_after_reject.decided.json")
    assert wake.checkpoint(state).decide(approve(pending_ids(state)[0])).run() == 0, wake.errors
    assert wake.tools == ["drop"]


def test_an_answer_reaches_the_model(wake):
    state = sample_state(wake, "STEPS " + json.dumps([[["drop_users_table", {}]]]))
    wake.checkpoint(state).decide(approve(pending_ids(state)[0]), message="Take the blue one.")
    assert wake.run() == 0, wake.errors
    assert wake.output == "Done. The last word was: Take the blue one.\n"


# --- stopped again ---------------------------------------------------------------------------------------------------------

def test_a_partial_decision_leaves_a_child_with_the_others(wake):
    state = load(SAMPLES / "py_parallel3_interrupted.json")
    first, second, third = pending_ids(state)
    wake.checkpoint(state, step_id="turn-2").decide(reject(second, DENIED))
    assert wake.run() == 10, wake.errors
    assert wake.tools == [] and wake.children() == ["pre_drop.2"]
    assert load(wake.mount / "pre_drop.2" / "meta.json") == {
        "parent": "ck_parent", "run_id": "run_7", "step_id": "turn-2.2", "reason": "needs approval",
        "framework_version": importlib.metadata.version("openai-agents")}
    child = load(wake.mount / "pre_drop.2" / "state.json")
    assert pending_ids(child) == [first, third]
    assert wake.output.splitlines() == [
        "Stopped for approval again; took checkpoint pre_drop.2. Pending:",
        f"  {first}  drop_users_table({{}})", f"  {third}  drop_users_table({{}})"]

    # The child is a checkpoint like any other: decide on the rest of it.
    wake.checkpoint(child, parent="ck_grandparent", step_id="turn-2.2").decide(approve(first), approve(third))
    assert wake.run(name="pre_drop.2") == 0, wake.errors
    assert wake.tools == ["drop", "drop"]
    assert wake.output == "Added Charlie and dropped the users table; 1 of 3 calls were denied.\n"


def test_nothing_decided_is_left_open(wake):
    state = load(SAMPLES / "py_parallel3_interrupted.json")
    first, second, third = pending_ids(state)
    assert wake.checkpoint(state).decide(approve(first), reject(third, "no")).run() == 10, wake.errors
    assert wake.tools == ["drop"]
    assert pending_ids(load(wake.mount / "pre_drop.2" / "state.json")) == [second]


def test_a_run_that_stops_twice(wake):
    steps = [[["drop_users_table", {}]], [["add_user", {"name": "Dora"}]], [["drop_users_table", {}]], "All done."]
    state = sample_state(wake, "STEPS " + json.dumps(steps))
    assert wake.checkpoint(state).decide(approve(pending_ids(state)[0])).run() == 10, wake.errors
    assert wake.tools == ["drop", "add Dora"]
    child = load(wake.mount / "pre_drop.2" / "state.json")
    assert load(wake.mount / "pre_drop.2" / "meta.json")["step_id"] == "turn-3"
    wake.checkpoint(child, parent="x").decide(approve(pending_ids(child)[0]))
    assert wake.run(name="pre_drop.2") == 0, wake.errors
    assert wake.tools == ["drop", "add Dora", "drop"] and wake.output == "All done.\n"


@pytest.mark.parametrize("name, parent, taken, wanted", [
    ("pre_drop", None, ["pre_drop.2", "pre_drop.3"], "pre_drop.4"),
    ("pre_drop.2", "ck_0", [], "pre_drop.3"),
    ("release-1.5", None, [], "release-1.5.2"),
    ("ü" * 127, None, [], "ü" * 126 + ".2"),
])
def test_the_childs_name_is_new(wake, name, parent, taken, wanted):
    state = load(SAMPLES / "py_parallel3_interrupted.json")
    for other in taken:
        (wake.mount / other).mkdir()
    wake.checkpoint(state, parent=parent).decide(reject(pending_ids(state)[0]))
    assert wake.run(name=name) == 10, wake.errors
    assert set(wake.children()) == {wanted, *taken}


def test_the_trace_goes_on_in_the_child(wake):
    state = load(SAMPLES / "py_parallel3_interrupted.json")
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    wake.checkpoint(state).decide(reject(pending_ids(state)[0]))
    (wake.directory / "meta.json").write_text(json.dumps({"traceparent": traceparent}))
    assert wake.run() == 10, wake.errors
    assert load(wake.mount / "pre_drop.2" / "meta.json")["traceparent"] == traceparent


def test_a_state_that_has_no_checkpoint_to_go_to_is_kept(wake, tmp_path):
    state = load(SAMPLES / "py_parallel3_interrupted.json")
    first, second, _third = pending_ids(state)
    wake.checkpoint(state).decide(approve(first))
    missing = tmp_path / "gone"
    assert wake.run(CHECKPOINT_NEXT_DIR=str(missing), TMPDIR=str(tmp_path)) == 1
    assert str(missing) in wake.errors and "No such file or directory" in wake.errors
    kept = next(tmp_path.glob("*.state.json"))
    assert str(kept) in wake.errors and stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert second in pending_ids(load(kept)) and first not in pending_ids(load(kept))


# --- nothing done: 75 ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("change, words", [
    (lambda state: state.pop("$schemaVersion"), ["no $schemaVersion"]),
    (lambda state: state.update({"$schemaVersion": "9.9"}), ["9.9"]),
    (lambda state: state.pop("max_turns"), ["lacks max_turns"]),
    (lambda state: state.update(current_step=None), ["finished"]),
])
def test_a_state_that_cannot_be_resumed(wake, change, words):
    state = load(SAMPLES / "py_seed_interrupted.json")
    call = pending_ids(state)[0]
    change(state)
    wake.checkpoint(state).decide(approve(call)).refused(*words)


@pytest.mark.parametrize("text, word", [
    ("", "not JSON"), ('{"a"', "not JSON"), ("[1]", "not a RunState"), (b"\xff\xfe", "not JSON")])
def test_a_state_that_is_no_state(wake, text, word):
    wake.checkpoint(text).decide(approve("x")).refused(word)


def test_a_javascript_state(wake):
    wake.checkpoint(load(SAMPLES / "js_seed_interrupted.json")).decide(approve("x")).refused("JavaScript")


def test_a_finished_run(wake):
    wake.checkpoint(load(SAMPLES / "py_seed_after_approve.json")).decide(message="hello").refused("finished")


@pytest.mark.parametrize("agent, word", [
    ("nowhere:agent", "cannot import nowhere: ModuleNotFoundError"),
    ("sample_agents:nobody", "has no nobody"),
    ("sample_agents", "MODULE:OBJECT"),
    ("sample_agents:broken_factory", "no such thing"),
    ("sample_agents:number", "no Agent"),
    ("sample_agents:renamed", "cannot load this state"),
])
def test_an_agent_that_cannot_be_had(wake, agent, word):
    state = load(SAMPLES / "py_seed_interrupted.json")
    wake.checkpoint(state).decide(approve(pending_ids(state)[0])).refused(word, agent=agent)


@pytest.mark.parametrize("decision, words", [
    (approve("call_unknown"), ["no pending call has the id call_unknown", "call_00000000000000000001"]),
    ({"id": "call_00000000000000000001", "decision": "edit", "arguments": {}}, ["approve and reject, not edit"]),
    ({"id": "call_00000000000000000001", "decision": "respond", "value": 1}, ["approve and reject, not respond"]),
    ({"id": "call_00000000000000000001", "decision": "maybe"}, ["unknown decision 'maybe'"]),
    ({"decision": "approve"}, ["does not hold decisions"]),
])
def test_decisions_that_do_not_fit(wake, decision, words):
    wake.checkpoint(load(SAMPLES / "py_seed_interrupted.json")).decide(decision).refused(*words)


def test_two_words_for_one_call(wake):
    call = "call_00000000000000000001"
    wake.checkpoint(load(SAMPLES / "py_seed_interrupted.json")).decide(approve(call), reject(call)).refused("two decisions")


def test_no_decision_at_all(wake):
    wake.checkpoint(load(SAMPLES / "py_seed_interrupted.json")).decide()
    wake.refused("nothing was decided", "call_00000000000000000001")


def test_not_started_by_the_mount(wake):
    wake.checkpoint(load(SAMPLES / "py_seed_interrupted.json")).decide()
    wake.refused("CHECKPOINT_STATE is not set", CHECKPOINT_STATE=None)
    wake.refused("CHECKPOINT_NEXT_DIR is not set", CHECKPOINT_NEXT_DIR=None)


def test_an_sdk_without_rejection_messages(wake, tmp_path):
    # 0.8.0 to 0.12.0 have reject(item, always_reject=False); the words must not get lost in silence.
    (tmp_path / "old_sdk.py").write_text(
        "import agents\nfrom sample_agents import agent\n"
        "new = agents.RunState.reject\n"
        "def reject(self, approval_item, always_reject=False):\n    new(self, approval_item, always_reject)\n"
        "agents.RunState.reject = reject\n")
    state = load(SAMPLES / "py_seed_interrupted.json")
    call = pending_ids(state)[0]
    wake.checkpoint(state).decide(reject(call, DENIED)).refused("0.12.1", agent="old_sdk:agent")
    assert wake.decide(reject(call)).run(agent="old_sdk:agent") == 0, wake.errors
    assert wake.tools == ["list"]


# --- failures on the way: 1 ------------------------------------------------------------------------------------------------

def test_a_failing_model_is_a_failure(wake):
    state = load(SAMPLES / "py_seed_interrupted.json")
    wake.checkpoint(state).decide(approve(pending_ids(state)[0]))
    assert wake.run(OPENAI_BASE_URL=wake.llm.base_url.replace("/v1", "/nowhere")) == 1
    assert wake.tools == ["drop"], "the tool had run: this may not be called nothing done"
    assert "the run failed" in wake.errors and "404" in wake.errors


def test_an_error_shows_no_secret(wake):
    state = load(SAMPLES / "py_seed_interrupted.json")
    wake.checkpoint(state).decide(approve(pending_ids(state)[0]))
    assert wake.run("--run-options", "sample_agents:exploding_options", SOME_API_KEY="sk-very-secret") == 1
    line, = [line for line in wake.errors.splitlines() if "the run failed" in line]
    assert "hunter2" not in wake.errors and "sk-very-secret" not in wake.errors
    assert "ConnectionError: cannot reach postgresql://me:***@db/x with $SOME_API_KEY second line" in line


# --- contexts and options --------------------------------------------------------------------------------------------------

DROPS_TWICE = "STEPS " + json.dumps([[["drop_users_table", {}]], [["drop_users_table", {}]], "All done."])


def of_a_tenant(wake, tmp_path, prompt=DROPS_TWICE):
    """Decides on a state with a context of a class of its own; what it needs is in module `tenant`."""
    state = sample_state(wake, prompt)
    state["context"]["context"] = {"name": "acme"}
    (tmp_path / "tenant.py").write_text(
        "from agents import Agent, RunContextWrapper, function_tool\n"
        "import sample_agents\n"
        "@function_tool(needs_approval=True)\n"
        "def drop_users_table(wrapper: RunContextWrapper[sample_agents.Tenant]) -> str:\n"
        "    sample_agents.log(f'drop for {wrapper.context.name}')\n"
        "    return 'Dropped the users table.'\n"
        "agent = Agent(name='DB Admin', tools=[sample_agents.add_user, drop_users_table, sample_agents.list_users])\n"
        "one_way = {'context_deserializer': lambda saved: sample_agents.Tenant(saved['name'])}\n"
        "options = one_way | {'context_serializer': vars}\n"
        "failing = one_way | {'context_serializer': lambda tenant: {'name': tenant.nme}}\n"
        "def once(tenant, times=[]):\n"
        "    times.append(1)\n"
        "    return {'name': tenant.name} if len(times) == 1 else 1 / 0\n"
        "later = one_way | {'context_serializer': once}\n")
    wake.checkpoint(state).decide(approve(pending_ids(state)[0]))


def test_a_context_of_ones_own(wake, tmp_path):
    of_a_tenant(wake, tmp_path)
    assert wake.run("--run-options", "tenant:options", agent="tenant:agent") == 10, wake.errors
    child = load(wake.mount / "pre_drop.2" / "state.json")
    assert child["context"]["context"] == {"name": "acme"} and wake.tools == ["drop for acme"]
    wake.checkpoint(child).decide(approve(pending_ids(child)[0]))
    assert wake.run("--run-options", "tenant:options", agent="tenant:agent") == 0, wake.errors
    assert wake.tools == ["drop for acme"] * 2


@pytest.mark.parametrize("options, word", [("one_way", "give context_serializer"), ("failing", "no attribute 'nme'")])
def test_a_context_that_could_not_be_saved_again(wake, tmp_path, options, word):
    of_a_tenant(wake, tmp_path)
    wake.refused(word, arguments=["--run-options", f"tenant:{options}"], agent="tenant:agent")


def kept(wake, tmp_path):
    """What was kept aside of a state that no child checkpoint has."""
    path, = tmp_path.glob("*.state.json")
    assert str(path) in wake.errors and wake.children() == []
    return load(path)


def test_a_context_that_can_no_longer_be_saved(wake, tmp_path):
    of_a_tenant(wake, tmp_path)
    assert wake.run("--run-options", "tenant:later", agent="tenant:agent", TMPDIR=str(tmp_path)) == 1, wake.errors
    assert "division by zero" in wake.errors and wake.tools == ["drop for acme"]
    assert "Tenant" in kept(wake, tmp_path)["context"]["context"]["repr"]


def test_a_context_that_is_no_longer_json(wake, tmp_path):
    state = sample_state(wake, DROPS_TWICE)
    state["context"]["context"] = {"name": "acme"}
    (tmp_path / "dated.py").write_text(
        "import datetime\n"
        "from agents import Agent, RunContextWrapper, function_tool\n"
        "@function_tool(needs_approval=True)\n"
        "def drop_users_table(wrapper: RunContextWrapper[dict]) -> str:\n"
        "    wrapper.context['at'] = datetime.datetime(2026, 11, 28)\n"
        "    return 'Dropped the users table.'\n"
        "agent = Agent(name='DB Admin', tools=[drop_users_table])\n")
    wake.checkpoint(state).decide(approve(pending_ids(state)[0]))
    assert wake.run(agent="dated:agent", TMPDIR=str(tmp_path)) == 1, wake.errors
    assert "datetime is not JSON serializable" in wake.errors
    assert kept(wake, tmp_path)["context"]["context"] == {"name": "acme", "at": "2026-11-28 00:00:00"}


@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize("code", [0, 10, 75])
def test_a_tool_that_exits_has_no_say_in_the_verdict(wake, tmp_path, kind, code):
    (tmp_path / "leaving.py").write_text(
        "import sys\nimport sample_agents\nfrom agents import Agent, function_tool\n"
        "@function_tool(needs_approval=True)\n"
        f"{kind} drop_users_table() -> str:\n"
        f"    sample_agents.log('drop')\n    sys.exit({code})\n"
        "agent = Agent(name='DB Admin', tools=[drop_users_table])\n")
    state = load(SAMPLES / "py_seed_interrupted.json")
    wake.checkpoint(state).decide(approve(pending_ids(state)[0]))
    assert wake.run(agent="leaving:agent") == 1, wake.errors
    assert wake.tools == ["drop"] and f"the run failed: something in it called sys.exit({code})" in wake.errors


def test_run_options_that_are_none(wake):
    state = load(SAMPLES / "py_seed_interrupted.json")
    wake.checkpoint(state).decide(approve(pending_ids(state)[0]))
    wake.refused("sample_agents:number is no dict", arguments=["--run-options", "sample_agents:number"])


def sample_state(wake, prompt, agent=sample_agents.agent):
    """A state made just now, by a run of the real SDK in a process of its own against the fake model."""
    name = "outer" if agent is sample_agents.outer else "agent"
    code = f"import json, sys, sample_agents as s; json.dump(s.interrupted_state(s.{name}, sys.argv[1]), sys.stdout)"
    made = subprocess.run([PYTHON, "-c", code, prompt], capture_output=True, text=True, timeout=DEADLINE, check=True,
                          env=wake.llm.env(PYTHONPATH=os.path.dirname(__file__), TOOL_LOG=os.devnull))
    return json.loads(made.stdout)

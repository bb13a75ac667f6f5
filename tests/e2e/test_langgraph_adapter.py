"""The README's resume command for LangGraph, with real graphs: only what is decided now decides, whatever the state already holds."""

import os
import re
import sys

import pytest
from langgraph.types import Command
from llm import ROOT
from mount import Mount

# In place of the README's graph. What a person sees executed is what `output` says.
GRAPH = '''
import operator
import sys
from typing import Annotated, TypedDict

class State(TypedDict):
    case: str
    done: Annotated[list, operator.add]

def ask(*tools):
    decided = interrupt({"action_requests": [{"name": tool, "args": {}} for tool in tools],
                         "review_configs": [{"action_name": tool, "allowed_decisions": ["approve", "reject"]} for tool in tools]})
    print("DECIDED", *(f"{tool}:{decision['type']}" for tool, decision in zip(tools, decided["decisions"], strict=True)))

def fail_once(state):
    if "fails" in state["case"] and not failures:
        failures.append(state["case"])
        raise RuntimeError("the database is gone")

def work(state):
    if "twice" in state["case"]:
        ask("read_rows")
        fail_once(state)
    ask("drop_users", "send_mail")
    fail_once(state)
    if "exits" in state["case"]:
        sys.exit(75)
    if "thrice" in state["case"]:
        ask("drop_backups")
    return {"done": ["work"]}

def other(state):
    ask("drop_logs")

failures = ["woken"] if "CHECKPOINT_STATE" in os.environ else []
saver = InMemorySaver()
graph = StateGraph(State).add_node("work", work).add_node("other", other)
graph.add_conditional_edges(START, lambda state: ["work", "other"] if state["case"] == "beside" else ["work"], ["work", "other"])
app = graph.compile(saver)
'''
APPROVE = {"type": "approve"}


@pytest.fixture(scope="module")
def m(tmp_path_factory):
    place = tmp_path_factory.mktemp("langgraph")
    blocks = dict(re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE))
    agent, graphs = re.subn(r"^def drop\(.*?^app = [^\n]*\n", lambda _: GRAPH, blocks["langgraph_agent.py"], flags=re.DOTALL | re.MULTILINE)
    assert graphs == 1
    (place / "checkpoint.py").write_text(blocks["checkpoint.py"])
    (place / "agent.py").write_text(agent)
    with Mount(resume=f"exec {sys.executable} {place}/agent.py", emulator=("--snapshots=1000",)) as mount:
        yield mount


class Run:
    """A thread of that graph in this process."""

    def __init__(self, case):
        self.names = {"os": os}
        exec("from langgraph.checkpoint.memory import InMemorySaver\nfrom langgraph.graph import START, StateGraph\n"  # noqa: S102
             "from langgraph.types import interrupt\n" + GRAPH, self.names)
        self.app, self.saver = self.names["app"], self.names["saver"]
        self.thread = {"configurable": {"thread_id": f"thread-{case}"}}
        self.app.invoke({"case": case, "done": []}, self.thread)
        self.first = self.saver.get_tuple(self.thread).config

    def answer(self, *decisions):
        [question] = self.app.get_state(self.thread).interrupts
        return self.app.invoke(Command(resume={question.id: {"decisions": list(decisions)}}), self.thread)

    def fail(self, *decisions):
        with pytest.raises(RuntimeError):
            self.answer(*decisions)

    def state(self, config=None):
        return self.saver.serde.dumps_typed(self.saver.get_tuple(config or self.thread)._asdict())[1]


def decided(m, name):
    return [line for line in m.read(f"{name}/output").splitlines() if line.startswith("DECIDED")]


def child(m, name):
    """The checkpoint that its run took when it stopped again, once it shows what waits in it."""
    taken = m.status(name).removeprefix("stopped again -> ")
    m.wait_status(taken, "waiting")
    return taken


def ids(m, name):
    return {call["tool"]: call["id"] for call in m.json(f"{name}/checkpoint.json")["pending"]}


def test_a_node_that_failed_is_asked_again(m):
    """It had been approved. What it is told now is what happens."""
    run = Run("fails")
    run.fail(APPROVE, APPROVE)
    m.take("failed", run.state())
    assert m.status("failed") == "waiting (2 calls)"
    transcript = m.read("failed/transcript.md")
    assert "Already" not in transcript and "LangGraph re-uses that answer unless the resume command leaves out the task's __resume__" in transcript
    assert m.echo("failed/resume", f"approve {ids(m, 'failed')['send_mail']}") == "EINVAL"
    assert m.echo("failed/resume", "reject KEEP THEM") is None
    assert m.status("failed") == "finished" and decided(m, "failed") == ["DECIDED drop_users:reject send_mail:reject"]


def test_an_old_checkpoint_is_asked_again(m):
    """Its run went on, with the approval that is in it."""
    run = Run("plain")
    assert "__interrupt__" not in run.answer(APPROVE, APPROVE)
    m.take("old", run.state(run.first))
    transcript = m.read("old/transcript.md")
    assert "Already approved in the state. LangGraph re-uses this answer unless the resume command leaves out the task's `__resume__`." in transcript
    assert m.echo("old/resume", f"reject id={ids(m, 'old')['drop_users']} no") == "EINVAL", "the other's approval doesn't fill its place"
    assert m.echo("old/resume", "reject KEEP THEM") is None
    assert m.status("old") == "finished" and decided(m, "old") == ["DECIDED drop_users:reject send_mail:reject"]


def test_the_answer_to_an_earlier_question_stays(m):
    run = Run("twice")
    run.answer(APPROVE)
    m.take("twice", run.state())
    assert list(ids(m, "twice")) == ["drop_users", "send_mail"]
    assert m.echo("twice/resume", "reject KEEP THEM") is None
    assert decided(m, "twice") == ["DECIDED read_rows:approve", "DECIDED drop_users:reject send_mail:reject"]


def test_an_answer_for_no_task_answers_nothing_more(m):
    """Command(resume=ANSWER) leaves it in the state: LangGraph would take it for whatever is asked next."""
    run = Run("twice, thrice")
    run.app.invoke(Command(resume={"decisions": [APPROVE]}), run.thread)
    assert any(task.startswith("00000000-") for task, _, _ in run.saver.get_tuple(run.thread).pending_writes)
    m.take("thrice", run.state())
    assert m.echo("thrice/resume", "reject KEEP THEM") is None
    assert decided(m, "thrice") == ["DECIDED read_rows:approve", "DECIDED drop_users:reject send_mail:reject"]
    assert list(ids(m, child(m, "thrice"))) == ["drop_backups"]


def test_a_decision_is_not_taken_for_an_earlier_question(m):
    """A node that failed, was run again and asks for the second time looks like one that failed behind that question."""
    run = Run("fails twice")
    run.fail(APPROVE)
    assert "__interrupt__" in run.app.invoke(None, run.thread)
    m.take("earlier", run.state())
    assert list(ids(m, "earlier")) == ["drop_users", "send_mail"]
    assert m.echo("earlier/resume", "reject KEEP THEM") is None
    first = child(m, "earlier")
    assert decided(m, "earlier") == [] and list(ids(m, first)) == ["read_rows"], "it is asked from its beginning"
    assert m.echo(f"{first}/resume", "approve") is None
    second = child(m, first)
    assert m.echo(f"{second}/resume", "reject KEEP THEM") is None
    assert decided(m, second) == ["DECIDED read_rows:approve", "DECIDED drop_users:reject send_mail:reject"]


def test_what_is_done_beside_a_question_stays_done(m):
    m.take("beside", Run("beside").state())
    assert m.status("beside") == "waiting (3 calls)"
    assert m.echo("beside/resume", f"approve {ids(m, 'beside')['drop_logs']}") is None
    assert decided(m, "beside") == ["DECIDED drop_logs:approve"]
    first = child(m, "beside")
    assert list(ids(m, first)) == ["drop_users", "send_mail"]
    assert m.echo(f"{first}/resume", "reject KEEP THEM") is None
    assert m.status(first) == "finished" and decided(m, first) == ["DECIDED drop_users:reject send_mail:reject"]


def test_the_exit_of_a_node_is_no_verdict(m):
    """75 would say that nothing was done, and free the decision."""
    m.take("exits", Run("exits").state())
    assert m.echo("exits/resume", "approve") == "EIO"
    assert m.status("exits").startswith("failed resume: ")
    assert "a node ended the process with 75" in m.read("exits/output")
    assert m.echo("exits/resume", "approve") == "EALREADY"

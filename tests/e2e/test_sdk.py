"""The guide's agent with the real OpenAI Agents SDK over a real mount and database; only the language model is a fake."""

import importlib.metadata
import json
import os
import subprocess

import pytest

from llm import DENIED, GUIDE_PROMPT, PYTHON, SCRIPTS, fake_llm, resume_command  # noqa: F401
from mount import DEADLINE, SAMPLES, Mount
from test_resume import pending

DEMO = SCRIPTS / "demo"


@pytest.fixture(scope="module")
def m(fake_llm):  # noqa: F811
    model = {"OPENAI_API_KEY": "not-a-key", "OPENAI_BASE_URL": fake_llm.base_url, "OPENAI_AGENTS_DISABLE_TRACING": "1"}
    with Mount(resume=resume_command("agent:agent", "--path", str(DEMO)), env=model) as mount:
        mount.sql("CREATE TABLE users (id serial, name text)")
        yield mount


def run_agent(m, name, prompt=GUIDE_PROMPT):
    """Sets the table back, and runs the agent until it has taken the checkpoint `name`."""
    m.sql("DROP TABLE IF EXISTS users; CREATE TABLE users (id serial, name text); INSERT INTO users (name) VALUES ('Alice'), ('Bob')")
    env = m.environ() | {"DATABASE_URL": m.uri()}
    done = subprocess.run([PYTHON, DEMO / "run_agent.py", m.root, name, prompt], env=env, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stderr
    assert f"Took checkpoint {name}" in done.stdout
    m.wait_status(name, "waiting")
    return pending(m, name)


def users(m):
    return [name for (name,) in m.sql("SELECT name FROM users ORDER BY id")]


def table_exists(m):
    return m.sql("SELECT to_regclass('users') IS NOT NULL")[0][0]


def test_approve_restore_and_replay_on_another_path(m):
    """The guide, end to end."""
    run_agent(m, "guide")
    assert users(m) == ["Alice", "Bob", "Charlie"]
    about = m.json("guide/checkpoint.json")
    assert about["framework"] == "openai-agents-python" and about["agent"] == "DB Admin"
    assert m.json("guide/meta.json")["framework_version"] == importlib.metadata.version("openai-agents")
    assert m.echo("guide/resume", "approve") is None
    assert not table_exists(m)
    assert m.read("guide/output") == "Added Charlie and dropped the users table.\n"
    assert m.status("guide") == "finished"

    assert m.echo("guide/replay", f"in-place reject {DENIED}") is None
    assert users(m) == ["Alice", "Bob", "Charlie"]
    assert m.read("guide/output") == "The users table was not dropped, as the admin decided. Users: Alice, Bob, Charlie\n"
    assert m.status("guide") == "finished"


def test_several_calls_decided_one_by_one(m):
    """What is left undecided comes back in a child checkpoint, which is decided like any other."""
    first, second, third = run_agent(m, "calls", "PARALLEL 3")
    assert m.status("calls") == "waiting (3 calls)"
    assert m.echo("calls/resume", f"reject id={second} {DENIED}") is None
    assert m.status("calls") == "stopped again -> calls.2"
    assert "Stopped for approval again; took checkpoint calls.2" in m.read("calls/output")
    m.wait_status("calls.2", "waiting")
    assert table_exists(m)
    child, parent = m.json("calls.2/checkpoint.json"), m.json("calls/checkpoint.json")
    assert child["parent"] == parent["id"] and child["run_id"] == parent["run_id"]
    assert sorted(pending(m, "calls.2")) == sorted([first, third])
    assert os.readlink(m / ".pending/calls.2") == "../calls.2" and not os.path.islink(m / ".pending/calls")
    assert m.echo("calls.2/resume", f"approve {first} {second}") == "EINVAL", "the second was decided in the parent"
    decisions = {"decisions": [{"id": first, "decision": "approve"}, {"id": third, "decision": "reject", "message": DENIED}]}
    assert m.echo("calls.2/resume", json.dumps(decisions)) is None
    assert not table_exists(m)
    assert m.read("calls.2/output") == "Added Charlie and dropped the users table; 2 of 3 calls were denied.\n"
    assert os.readlink(m / "latest") == "calls.2"


def test_stopped_twice_and_gone_back(m):
    """A run that stops again later on; then the first stop is replayed, and its child belongs to a database that is gone."""
    steps = [[["drop_users_table", {}]], [["list_users", {}]], [["drop_users_table", {}]], "All done."]
    run_agent(m, "long", "STEPS " + json.dumps(steps))
    m.sql("CREATE TABLE spare (LIKE users)")
    assert m.echo("long/resume", "reject not yet") is None
    assert m.status("long") == "stopped again -> long.2"
    m.wait_status("long.2", "waiting")
    assert m.echo("long/replay", "in-place reject not this time either") is None
    assert m.status("long") == "stopped again -> long.3"
    m.wait_status("long.3", "waiting")
    assert m.status("long.2") == "off-line"
    assert m.echo("long.2/resume", "approve") == "ESTALE"
    assert m.sql("SELECT to_regclass('spare')") == [(None,)], "that came after the checkpoint"
    assert m.echo("long.3/resume", "approve") is None
    assert m.read("long.3/output") == "All done.\n" and not table_exists(m)


def test_states_that_only_others_can_resume(m):
    """Exit 75 says why; the decision stays free."""
    for name, sample, words in (("js", "js_seed_interrupted.json", "JavaScript SDK"), ("langgraph", "langgraph_js_interrupted.json", "not a RunState")):
        m.take(name, SAMPLES / sample)
        assert m.echo(f"{name}/resume", "approve") == "EAGAIN"
        assert words in m.result(name)["message"], m.result(name)
        assert m.status(name) == "waiting (1 call)"


def test_decisions_that_the_sdk_does_not_know(m):
    call, = run_agent(m, "edited")
    edit = {"decisions": [{"id": call, "decision": "edit", "arguments": {"table": "other"}}]}
    assert m.echo("edited/resume", json.dumps(edit)) == "EINVAL"
    assert "it takes: approve, reject" in m.result("edited")["message"]
    assert m.status("edited") == "waiting (1 call)"


def test_a_model_that_is_away(m, fake_llm):  # noqa: F811
    """The tool ran before the model was asked: that is a failure, and no `nothing was done`."""
    run_agent(m, "modelless", "STEPS " + json.dumps([[["drop_users_table", {}]], ["no such step"]]))
    assert m.echo("modelless/resume", "approve") == "EIO"
    assert m.status("modelless").startswith("failed resume: the resume command ended with exit 1: ")
    assert not table_exists(m)
    assert m.echo("modelless/resume", "approve") == "EALREADY"

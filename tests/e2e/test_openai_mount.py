"""The real SDK woken by the real mount: partial decisions, children, what the SDK cannot do, an agent ended while it thinks."""
import json
import os
from pathlib import Path

import pytest

from emulator import wait_until
from llm import DENIED, SAMPLES, load, pending_ids, resume_command
from mount import DEADLINE, Mount

HERE = os.path.dirname(__file__)
PARALLEL = SAMPLES / "py_parallel3_interrupted.json"
SEED = SAMPLES / "py_seed_interrupted.json"
FIRST, SECOND, THIRD = pending_ids(load(PARALLEL))


@pytest.fixture(scope="module")
def waker(fake_llm, tmp_path_factory):
    """A mount that wakes sample_agents; `waker.tools()` is what the agents' tools have done."""
    log = tmp_path_factory.mktemp("waker") / "tools.log"
    log.touch()
    with Mount(resume=resume_command("sample_agents:agent", "--path", HERE), env=fake_llm.env(TOOL_LOG=str(log))) as mount:
        mount.tools = lambda: log.read_text().splitlines()
        yield mount


def test_a_partial_decision_leaves_the_rest_in_a_child(waker):
    done = len(waker.tools())
    waker.take("three", PARALLEL, meta={"run_id": "run_three", "step_id": "turn-2", "labels": {"team": "db"}})
    assert waker.status("three") == "waiting (3 calls)"
    assert waker.echo("three/resume", f"reject id={SECOND} {DENIED}") is None, waker.read("three/result")
    assert waker.status("three") == "stopped again -> three.2"
    assert "three.2" in waker.read("three/result")
    assert waker.wait_status("three.2", "waiting") == "waiting (2 calls)"
    assert sorted(os.listdir(waker / "three.2/pending")) == [f"{FIRST}.json", f"{THIRD}.json"]
    parent, child = waker.json("three/checkpoint.json"), waker.json("three.2/checkpoint.json")
    assert (child["parent"], child["run_id"], child["step_id"]) == (parent["id"], "run_three", "turn-2.2")
    assert child["framework_version"] and "framework_version" not in child["derived"]
    assert waker.tools()[done:] == []

    assert waker.echo("three/resume", "approve") == "EALREADY"
    assert waker.echo("three.2/resume", f"approve {FIRST}") is None, waker.read("three.2/result")
    assert waker.status("three.2") == "stopped again -> three.3"
    waker.wait_status("three.3", "waiting")
    assert waker.echo("three.3/resume", "approve") is None, waker.read("three.3/result")
    assert waker.status("three.3") == "finished"
    assert waker.read("three.3/output") == "Added Charlie and dropped the users table; 1 of 3 calls were denied.\n"
    assert waker.tools()[done:] == ["drop", "drop"]


def test_what_the_sdk_cannot_do_is_refused(waker):
    waker.take("edited", SEED)
    call, = pending_ids(load(SEED))
    edit = {"id": call, "decision": "edit", "arguments": {}}
    assert waker.write("edited/resume", json.dumps({"decisions": [edit]})) == "EINVAL"
    assert "edit" in waker.read("edited/result")
    assert waker.status("edited") == "waiting (1 call)"


def test_a_state_the_sdk_cannot_load_releases_the_decision(waker):
    """The adapter says 75, the mount gives the decision back: it can be made again, in plain words, as often as one likes."""
    done = len(waker.tools())
    state = load(SEED) | {"$schemaVersion": "9.9"}
    waker.take("tomorrow", json.dumps(state))
    for words in ("approve", f"reject {DENIED}"):
        assert waker.echo("tomorrow/resume", words) not in (None, "EALREADY", "EBUSY")
        assert "cannot load this state of schema 9.9" in waker.read("tomorrow/output")
        assert waker.tools()[done:] == []


@pytest.mark.parametrize("sample", ["seed_checkpoint", "py_seed_v0.12.1", "py_seed_chat_interrupted"])
def test_states_of_other_days_are_woken(waker, sample):
    done = len(waker.tools())
    name = waker.take(f"old-{sample}", SAMPLES / f"{sample}.json")
    assert waker.echo(f"{name}/resume", "approve") is None, waker.read(f"{name}/output")
    assert waker.status(name) == "finished" and waker.tools()[done:] == ["drop"]


def test_an_agent_is_ended_while_its_model_thinks(waker):
    waker.take("slow", SEED)
    wait_until(lambda: not waker.agents(), DEADLINE)  # the last one may not have left yet
    assert waker.echo("slow/resume", f"nowait reject THINK {10 * DEADLINE}") is None
    wait_until(lambda: waker.agents() and "agent running" in waker.status("slow"), DEADLINE)
    supervisor, = waker.agents()
    assert waker.echo("slow/cancel", "cancel") is None
    wait_until(lambda: not Path(f"/proc/{supervisor}").exists(), DEADLINE)
    assert not waker.wait("slow").startswith(("agent running", "finished")), waker.status("slow")

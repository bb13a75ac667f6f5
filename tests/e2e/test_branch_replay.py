"""replay on an isolated branch: made, decided, woken there, as one entry of the journal; and killed at its steps (design.md §2, §7.5)."""

import json
import os

import pytest

from emulator import wait_until
from mount import DEADLINE, Second
from restoring import World, active, held, hold, recovered, tidy, unbranch
from woken import Woken

NOTE = 'cat "$CHECKPOINT_DECISIONS" > "$AGENTS/$CHECKPOINT_NAME.decisions"; echo "$CHECKPOINT_BRANCH"'
BRANCHES, BRANCH = "GET:/projects/*/branches", "GET:/projects/*/branches/*"
RESTORE = "POST:/projects/*/snapshots/*/restore"
OPERATIONS, OPERATION = "GET:/projects/*/operations", "GET:/projects/*/operations/*"
ENDPOINTS, URI = "GET:/projects/*/branches/*/endpoints", "GET:/projects/*/connection_uri"
HOLD = 1500


@pytest.fixture(scope="module")
def m():
    with Woken() as mount:
        yield mount


@pytest.fixture(autouse=True)
def room(request):
    yield
    if "m" not in request.fixturenames:
        return
    m = request.getfixturevalue("m")
    recovered(m)
    unbranch(m)
    tidy(m)


def test_one_entry(m):
    m.waits("whole", NOTE)
    before = active(m)
    assert m.echo("whole/replay", "branch fix-1 reject Not this time: list them") is None
    path = "whole/branches/fix-1"
    assert m.read(f"{path}/status") == "finished\n"
    assert m.read(f"{path}/output").strip() == m.json(f"{path}/branch.json")["branch_id"] != before
    assert json.loads(m.left("whole", "decisions"))["decisions"][0]["message"] == "Not this time: list them"
    assert active(m) == before and m.status("whole") == "waiting (1 call)"
    told = m.events_of("whole")[-5:]
    assert [e["event"] for e in told] == ["restore.started", "branch.ready", "approval.decided", "resume.started", "resume.finished"]
    assert len({e["action"] for e in told}) == 1, "one action"
    assert m.json(f"{path}/result")["file"] == "replay"
    assert m.read("whole/result") == m.read(f"{path}/result"), "beside the file that it was written to"
    assert m.echo(f"{path}/resume", "approve") == "EALREADY"
    assert m.echo("whole/resume", "approve") is None


def test_words(m):
    m.waits("words", NOTE)
    for words in ("branch", "branch x", "branch .x approve", "branch x approve nobody", "branch x answer y",
                  '{"verb":"branch","decisions":[]}', '{"verb":"in-place","branch":"x","decisions":[{"decision":"approve"}]}'):
        assert m.echo("words/replay", words) == "EINVAL", words
    assert os.listdir(m / "words/branches") == []
    assert m.echo("words/replay", '{"verb":"branch","branch":"a b","decisions":[{"decision":"approve"}]}') is None
    assert m.read("words/branches/a b/status") == "finished\n"


def test_failed_restore(m):
    m.waits("half", "echo ran > $AGENTS/half.ran")
    before = {b["id"] for b in m.emulator.branches()}
    m.emulator.fault(f"{RESTORE}=op:failed:disk full")
    assert m.echo("half/replay", "branch b approve") == "EIO"
    assert m.read("half/branches/b/status").startswith("failed restore: ")
    assert not (m.scripts / "half.ran").exists() and {b["id"] for b in m.emulator.branches()} == before
    os.rmdir(m / "half/branches/b")
    assert m.echo("half/replay", "branch b approve") is None


def test_failed_agent(m):
    m.waits("second-half", "exit 4")
    assert m.echo("second-half/replay", "branch b approve") == "EIO"
    path = "second-half/branches/b"
    assert m.read(f"{path}/status").startswith("failed resume: the resume command ended with exit 4")
    m.agent("second-half", "exit 75")
    assert m.echo(f"{path}/resume", "again approve") == "EAGAIN"
    assert m.read(f"{path}/status").startswith("failed resume: the resume command ended with exit 4"), "what was known before is known still"
    m.agent("second-half", "exit 0")
    assert m.echo(f"{path}/resume", "approve") == "EALREADY"
    assert m.echo(f"{path}/resume", "again approve") is None


KILLED = {
    "while the record is checked": (BRANCHES, [], 1),
    "with the restore request on its way": (RESTORE, [], 2),
    "after its answer was lost": (OPERATIONS, [f"{RESTORE}=drop-after"], 2),
    "while its operations run": (OPERATION, [], 3),
    "while the new branch is verified": (BRANCH, [], 3),
    "while its compute is looked for": (ENDPOINTS, [], 4),
    "before the connection is tried": (URI, [], 5),
}


@pytest.mark.parametrize("verb", ["restore", "replay"])
@pytest.mark.parametrize("where", KILLED)
def test_killed(m, where, verb):
    """The next mount makes the branch, once, and a replay goes on to its agent."""
    route, faults, step = KILLED[where]
    name = f"killed {step} {list(KILLED).index(where)} {verb}"
    m.waits(name, "echo ran >> \"$AGENTS/$CHECKPOINT_NAME.ran\"")
    before = World(m)
    for fault in faults:
        m.emulator.fault(fault)
    hold(m, route, HOLD)
    words = "nowait branch b approve" if verb == "replay" else "nowait branch b"
    assert m.echo(f"{name}/{verb}", words) is None
    wait_until(lambda: held(m, route))
    m.kill()
    m.emulator.control("DELETE", "faults")
    m.mount()
    path = f"{name}/branches/b"
    m.read(f"{path}/wait")
    assert m.read(f"{path}/status") == ("finished\n" if verb == "replay" else "waiting (1 call)\n"), m.json(f"{path}/result")
    made = {b["id"] for b in m.emulator.branches()} - set(before.branches)
    assert made == {m.json(f"{path}/branch.json")["branch_id"]} and active(m) == before.default
    if verb == "replay":
        assert m.left(name, "ran") == "ran\n"
    wait_until((m / path / "connection_uri").exists, DEADLINE)


def test_seen_on_another_mount(m):
    m.waits("both", "exit 0")
    with Second(m) as other:
        assert m.echo("both/restore", "branch b") is None
        path = "both/branches/b"
        wait_until(lambda: (other / path).exists() and other.read(f"{path}/status") == "waiting (1 call)\n", DEADLINE)
        wait_until(lambda: other.read(f"{path}/branch.json") == m.read(f"{path}/branch.json"))
        wait_until((other / path / "connection_uri").exists, DEADLINE)
        assert other.echo(f"{path}/resume", "approve") is None, other.json(f"{path}/result")
        wait_until(lambda: m.read(f"{path}/status") == "finished\n", DEADLINE)
        assert m.echo(f"{path}/resume", "approve") == "EALREADY"

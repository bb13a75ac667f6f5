"""Replay in place: restore, decide, resume as one action; its failures in each half, and how it goes on (design.md §2, §6)."""

import errno
import json
import os

import pytest

from emulator import wait_until
from mount import CALL, DEADLINE
from restoring import FINALIZE, SNAPSHOT
from test_resume import LANGGRAPH, refused
from woken import Woken, Writing

NOTE = 'cat "$CHECKPOINT_DECISIONS" > "$AGENTS/$CHECKPOINT_NAME.decisions"; echo "$CHECKPOINT_BRANCH $DATABASE_URL"'


@pytest.fixture(scope="module")
def m():
    with Woken() as mount:
        mount.sql("CREATE TABLE replayed (name text)")
        yield mount


def branch(m):
    return m.read(".control/active_branch").strip()


def restoring(m, name, command="in-place approve"):
    """A replay in the middle of its restore: Neon is held at the request to finalize."""
    replay = Writing(m, f"{name}/replay", command)
    m.wait_status(name, "restoring 4/5")
    return replay


def test_in_place(m):
    m.sql("INSERT INTO replayed VALUES ('before')")
    m.waits("whole", NOTE)
    m.sql("DROP TABLE replayed")
    before, uri = branch(m), m.uri()
    assert m.echo("whole/replay", "in-place reject Not this time: list them") is None
    after = branch(m)
    assert after != before and m.uri() == uri
    assert m.read("whole/output").split() == [after, uri], "the agent works on the restored branch"
    assert m.sql("SELECT name FROM replayed") == [("before",)]
    assert json.loads(m.left("whole", "decisions"))["decisions"][0]["message"] == "Not this time: list them"
    assert m.status("whole") == "finished"
    result = m.result("whole")
    assert result["file"] == "replay" and result["state"] == "done" and "command" in result
    told = m.events_of("whole")[-5:]
    assert [e["event"] for e in told] == ["restore.started", "restore.finished", "approval.decided", "resume.started", "resume.finished"]
    assert len({e["action"] for e in told}) == 1, "one action"


def test_again_and_again(m):
    """Each replay is an attempt of its own: a decision made before doesn't stand in its way."""
    m.waits("often", "echo $CHECKPOINT_BRANCH")
    assert m.echo("often/resume", "approve") is None
    assert m.echo("often/resume", "approve") == "EALREADY"
    seen = set()
    for words in ("approve", f"approve {CALL}", '{"verb":"in-place","decisions":[{"id":"%s","decision":"reject","message":"x"}]}' % CALL):
        words = words if words.startswith("{") else f"in-place {words}"
        assert m.echo("often/replay", words) is None
        seen.add(m.read("often/output").strip())
    assert len(seen) == 3
    attempts = [e["attempt"] for e in m.events_of("often", "approval.decided")]
    assert len(set(attempts)) == 4
    assert m.echo("often/resume", "approve") == "EALREADY", "the replay's attempt is decided, too"
    assert m.echo("often/restore", "in-place") is None
    assert m.status("often") == "waiting (1 call)"
    assert m.echo("often/resume", "approve") is None


def test_of_a_checkpoint_that_is_off_line(m):
    m.waits("older", "exit 0")
    m.waits("newer", "exit 0")
    assert m.echo("older/replay", "in-place approve") is None
    assert m.status("newer") == "off-line"
    assert m.echo("newer/resume", "approve") == "ESTALE"
    assert m.echo("newer/replay", "in-place approve") is None
    assert m.status("newer") == "finished"


def test_refused_before_anything_happens(m):
    m.waits("wrong", "exit 0")
    before = branch(m)
    for words in ("in-place", "in-place approve nobody", "approve", "in-place aprove", "in-place answer x", "branch"):
        refused(m, "wrong", words, "EINVAL", file="replay")
    assert branch(m) == before


ODD = '{"wei":10000000000000000001,"far":-1.0e400,"deep":%s}' % ("[" * 500 + "]" * 500)


def edited(m, name, arguments, **more):
    """A checkpoint whose calls may be edited, and the command that edits the first one so."""
    m.waits(name, 'cat "$CHECKPOINT_DECISIONS" > "$AGENTS/$CHECKPOINT_NAME.decisions"', state=LANGGRAPH)
    first, *others = [m.json(f"{name}/pending/{p}")["id"] for p in sorted(os.listdir(m / f"{name}/pending"))]
    rest = "".join(',{"id":"%s","decision":"approve"}' % other for other in others)
    head = "".join(f'"{key}":"{value}",' for key, value in more.items())
    return '{%s"decisions":[{"id":"%s","decision":"edit","arguments":%s}%s]}' % (head, first, arguments, rest)


@pytest.mark.parametrize("name, more", [("resume", {}), ("in-place", {"verb": "in-place"}), ("branch", {"verb": "branch", "branch": "x"})])
def test_what_no_number_holds_arrives_as_it_was_written(m, name, more):
    """The record of a restore that Neon has done doesn't depend on what the decision says."""
    name = f"odd-{name}"
    command = edited(m, name, ODD, **more)
    before = branch(m)
    assert m.echo(f"{name}/{'replay' if more else 'resume'}", command) is None, m.result(name)
    assert (branch(m) != before) == (more.get("verb") == "in-place")
    assert ODD in "".join(m.left(name, "decisions").split())
    told, = [line for line in m.read(f"{name}/history.jsonl").splitlines() if '"approval.decided"' in line]
    assert ODD in told and json.loads(told)["decisions"][0]["arguments_sha256"]
    m.tidy()


@pytest.mark.parametrize("arguments, word", [("[" * 2040 + "]" * 2040, "too deep"), ('{"n":1e9999}', "1e9999"),
                                             ('{"n":%s}' % ("1" * 1001), "as a string")])
def test_what_could_not_arrive_is_refused(m, arguments, word):
    name = "odd-" + word.replace(" ", "-")
    command = edited(m, name, arguments, verb="in-place")
    before = branch(m)
    assert m.echo(f"{name}/replay", command) == "EINVAL"
    assert word in m.result(name)["message"]
    assert branch(m) == before and m.status(name).startswith("waiting")


def test_failed_restore(m):
    """Nothing was replaced, no agent ran, and the decision is not used up."""
    m.waits("half", "echo ran > $AGENTS/half.ran")
    before = branch(m)
    m.emulator.fault("POST:/projects/*/snapshots/*/restore=op:failed:disk full")
    assert m.echo("half/replay", "in-place approve") == "EIO"
    assert m.status("half").startswith("failed restore: ")
    assert m.result("half")["state"] == "failed"
    assert branch(m) == before and not (m.scripts / "half.ran").exists()
    assert m.events_of("half")[-1]["event"] == "restore.failed"
    assert m.echo("half/resume", "approve") is None, "the attempt before is still open"
    assert m.left("half", "ran") == "ran\n"


def test_failed_agent(m):
    """The restore stands; the attempt that it opened is used up."""
    m.waits("second-half", "echo no model; exit 4")
    before = branch(m)
    assert m.echo("second-half/replay", "in-place approve") == "EIO"
    assert branch(m) != before
    assert m.status("second-half") == "failed resume: the resume command ended with exit 4: no model"
    assert [e["event"] for e in m.events_of("second-half")][-5:] == ["restore.started", "restore.finished", "approval.decided",
                                                                    "resume.started", "resume.failed"]
    assert m.echo("second-half/resume", "approve") == "EALREADY"
    m.agent("second-half", "exit 0")
    assert m.echo("second-half/resume", "again approve") is None


def test_nothing_done(m):
    """Exit 75 after the restore: the new attempt is open."""
    m.waits("declined", "exit 75")
    assert m.echo("declined/replay", "in-place approve") == "EAGAIN"
    assert m.status("declined") == "waiting (1 call)"
    m.agent("declined", "exit 0")
    assert m.echo("declined/resume", "approve") is None


def test_stopped_again(m):
    m.waits("twice", "child twice.2; exit 10")
    assert m.echo("twice/replay", "in-place approve") is None
    assert m.status("twice") == "stopped again -> twice.2"
    assert m.json("twice.2/snapshot.json")["branch_id"] == branch(m)


def test_cancel_during_the_restore(m):
    """The restore is finished, since Neon can't stop one; the agent is not started, and its decision is free."""
    m.waits("early", "echo ran > $AGENTS/early.ran")
    before = branch(m)
    with m.held(FINALIZE):
        replay = restoring(m, "early")
        assert m.echo("early/cancel", "cancel") is None
        assert replay.is_alive(), "answered at once"
    assert replay.answer() == "ECANCELED"
    assert branch(m) != before and not (m.scripts / "early.ran").exists()
    assert m.status("early") == "waiting (1 call)"
    assert "restored" in m.result("early")["message"]
    assert m.echo("early/resume", "approve") is None


def test_cancel_before_the_restore(m):
    """While it waits for its turn nothing has to be finished."""
    m.waits("queued", "echo ran > $AGENTS/queued.ran")
    before, status = branch(m), m.status("queued")
    with m.held(SNAPSHOT):
        os.mkdir(m / "holds-the-turn")
        wait_until(lambda: m.emulator.control("GET", "faults").json["met"])
        replay = Writing(m, "queued/replay", "in-place approve")
        wait_until(lambda: m.result("queued")["file"] == "replay")
        assert m.echo("queued/cancel", "cancel") is None
        assert replay.answer() == "ECANCELED"
        assert m.status("holds-the-turn") == "writing", "it was not the take that ended it"
    assert m.status("queued") == status and branch(m) == before
    assert "before anything was done" in m.events_of("queued", "restore.failed")[-1]["message"]
    m.wait_status("holds-the-turn", "saved")
    assert m.echo("queued/resume", "approve") is None and m.left("queued", "ran") == "ran\n"


def test_cancel_of_the_agent(m):
    replay = m.hold("late", file="replay", command="in-place approve")
    assert m.status("late").startswith("agent running")
    assert m.echo("late/cancel", "cancel") is None
    assert replay.answer() == "ECANCELED"
    assert m.status("late") == "failed resume: cancelled"


def test_busy_both_ways(m):
    m.waits("two", "exit 0")
    m.waits("one", "hold")
    os.mkfifo(m.scripts / "one.go")
    with m.held(FINALIZE):
        replay = restoring(m, "one")
        for path, words in (("two/resume", "approve"), ("two/replay", "in-place approve"), ("two/restore", "in-place"),
                            ("one/resume", "approve"), ("one/restore", "in-place")):
            assert m.echo(path, words) == "EBUSY"
        assert "one" in m.result("two")["message"]
        with pytest.raises(OSError) as caught:
            os.mkdir(m / "three")
        assert caught.value.errno == errno.EBUSY, "no take while a restore is under way"
    m.ready("one")
    for path, words in (("two/resume", "approve"), ("two/replay", "in-place approve"), ("two/restore", "in-place")):
        assert m.echo(path, words) == "EBUSY"
    m.take("three")  # while an agent runs takes pass
    m.release("one")
    assert replay.answer() is None


def test_restore_while_a_restore_runs(m):
    m.waits("slow", "exit 0")
    with m.held(FINALIZE):
        restore = Writing(m, "slow/restore", "in-place")
        m.wait_status("slow", "restoring 4/5")
        assert m.echo("slow/resume", "approve") == "EBUSY"
        assert m.echo("slow/replay", "in-place approve") == "EBUSY"
        assert m.echo("slow/cancel", "cancel") == "ESRCH", "a restore can't be cancelled"
    assert restore.answer() is None
    assert m.echo("slow/resume", "approve") is None


def test_nowait(m):
    m.waits("unhurried", "exit 0")
    with m.held(FINALIZE):
        assert m.echo("unhurried/replay", "nowait in-place approve") is None
        assert m.status("unhurried").startswith("restoring")
    assert m.wait("unhurried") == "finished"


@pytest.mark.parametrize("when", ["restore", "agent"])
def test_mount_killed(when):
    """In the restore: the next mount goes on with it, and wakes the agent. Later: unknown."""
    with Woken() as m:
        m.waits("a", 'echo x >> "$AGENTS/a.runs"; hold' if when == "agent" else 'echo x >> "$AGENTS/a.runs"')
        before = branch(m)
        if when == "restore":
            m.emulator.fault(f"{FINALIZE}=423*inf")
            replay = restoring(m, "a", command="in-place reject no")
        else:
            replay = m.wake_held("a", "in-place reject no", "replay")
        m.kill()
        m.emulator.control("DELETE", "faults")
        assert replay.answer() in ("ENOTCONN", "ECONNABORTED")
        m.mount()
        if when == "restore":
            assert m.wait("a") == "finished"
            assert m.events_of("a", "approval.decided")[0]["decisions"][0]["message"] == "no"
        else:
            m.wait_status("a", "unknown")
            assert m.echo("a/resume", "approve") == "EALREADY"
            m.agent("a", "exit 0")
            assert m.echo("a/replay", "in-place approve") is None, "a replay goes on"
        assert branch(m) != before
        assert m.left("a", "runs") == "x\n"
        assert len([b for b in m.emulator.branches()]) <= 3


def test_mount_ended_in_the_restore():
    """SIGTERM hands the restore over; the next mount finishes it and wakes the agent."""
    with Woken() as m:
        m.waits("a", "echo ran")
        with m.held(FINALIZE):
            replay = m.bash("a", "in-place approve", "replay")
            m.wait_status("a", "restoring 4/5")
            assert m.terminate() == 0
        assert "Interrupted system call" in replay.communicate(timeout=DEADLINE)[1]
        m.mount()
        assert m.wait("a") == "finished"
        assert m.read("a/output") == "ran\n"

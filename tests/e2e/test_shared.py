"""Several mounts on one store: what one does the others show, work for another, and never do twice."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.parse

import psycopg
import pytest

import restoring
from emulator import wait_until
from frozen import Frozen
from mount import CALL, STATE, Mount, Second, shell
from woken import Woken, Writing, alive


@pytest.fixture(scope="module")
def pair():
    """Two mounts: `a` has the resume command, `b` has none."""
    with Woken() as a, Second(a) as b:
        b.resume = None
        b.remount()
        yield a, b


def shows(mount, path, text):
    """Waits until it is there; the bound is generous, latency is measured by `make bench`."""
    return wait_until(lambda: (mount.root / path).exists() and text in mount.read(path) and mount.read(path))


def test_what_one_takes_the_other_shows(pair):
    a, b = pair
    a.take("told")
    assert shows(b, "told/status", "waiting (1 call)")
    for name in ("state.json", "checkpoint.json", "snapshot.json", "transcript.md", f"pending/{CALL}.json"):
        assert b.read(f"told/{name}") == a.read(f"told/{name}"), name
    assert os.readlink(b.root / "latest") == "told"
    assert os.readlink(b.root / ".pending" / "told") == "../told"
    assert os.stat(b.root / "told").st_ino == os.stat(a.root / "told").st_ino


def test_a_rename_and_a_delete_are_seen_and_no_cache_keeps_the_old(pair):
    a, b = pair
    a.take("before")
    assert shows(b, "before/status", "waiting")
    b.read("before/state.json")  # now the kernel knows it, for ever if nobody tells it
    os.rename(a.root / "before", a.root / "after")
    assert wait_until(lambda: not (b.root / "before").exists() and (b.root / "after").exists())
    assert "before" not in os.listdir(b.root) and "after" in os.listdir(b.root)
    assert a.echo(".control/prune", "delete after") is None
    assert wait_until(lambda: not (b.root / "after").exists())
    assert "after" not in os.listdir(b.root)


def test_a_restore_there_moves_the_active_branch_here(pair):
    a, b = pair
    a.take("point")
    a.take("later")
    before = b.read(".control/active_branch")
    assert a.echo("point/restore", "in-place") is None
    assert shows(b, "later/status", "off-line")
    assert wait_until(lambda: b.read(".control/active_branch") == a.read(".control/active_branch") != before)
    # and this one goes on from there
    os.mkdir(b.root / "there")
    (b.root / "there/state.json").write_text("{}")
    b.wait("there")
    assert b.json("there/snapshot.json")["branch_id"] == b.read(".control/active_branch").strip()
    a.tidy()


def connects(uri):
    try:
        psycopg.connect(uri.strip(), connect_timeout=5).close()
        return True
    except psycopg.OperationalError:
        return False


def test_a_changed_password_is_known_to_every_mount(pair):
    """Somebody resets it, and a restore brings the old one back: the string shown, and the one an agent gets, connect."""
    a, b = pair
    a.take("old-password")
    role, branch = urllib.parse.urlsplit(a.uri()).username, a.read(".control/active_branch").strip()
    reset = a.emulator.ok("POST", f"/projects/{{p}}/branches/{branch}/roles/{role}/reset_password")
    a.emulator.settle(reset["operations"])
    assert not connects(a.uri())
    b.remount()
    a.waits("connects", 'psql "$DATABASE_URL" -Atc "SELECT 1" > /dev/null')
    assert a.echo("connects/resume", "approve") is None, a.read("connects/output")
    assert connects(a.uri()), "it was asked for"
    assert a.echo("old-password/restore", "in-place") is None
    assert connects(a.uri())
    wait_until(lambda: connects(b.uri()))
    a.tidy()


def test_the_first_write_waits_for_another_mounts_take(pair):
    a, b = pair
    os.mkdir(a.root / "halves")
    wait_until(lambda: (b.root / "halves").exists())
    (b.root / "halves/state.json").write_text('{"from": "b"}')  # waits for the snapshot that a takes
    wait_until(lambda: (a.root / "halves/transcript.md").exists())
    assert a.json("halves/state.json") == {"from": "b"}


def size_of(path):
    return path.stat().st_size if path.exists() else None


def test_a_state_under_way_is_seen_and_gone_on_with_on_another_mount(pair):
    """Its status, its size, and an append adds to what was written there."""
    a, b = pair
    text = STATE.read_bytes()
    os.mkdir(a.root / "handed")
    wait_until(lambda: (b.root / "handed").exists())
    with open(a.root / "handed/state.json", "wb", buffering=0) as f:
        for end in (500, 1000, 1006):  # the later ones come within a second of the first
            f.write(text[f.tell():end])
            wait_until(lambda: size_of(b.root / "handed/state.json") == end and b.status("handed") == "writing")
    wait_until(lambda: "cut short" in b.status("handed"))
    assert b.read("handed/state.json").encode() == text[:1006]
    with open(b.root / "handed/state.json", "ab") as f:
        f.write(text[1006:])
    assert shows(a, "handed/status", "waiting (1 call)")
    assert a.read("handed/state.json").encode() == text


def test_what_vanishes_is_in_no_cache(pair):
    """A copy that is found out after its seal on one mount: the other one's kernel knew its files for ever."""
    a, b = pair
    copy = shell(f"""cd {a.root}; mkdir found-out && exec 3> found-out/state.json && printf '{{}}' >&3 && exec 3>&- || exit 1
        until [ -e found-out/transcript.md ]; do sleep 0.05; done
        until [ -e {b.root}/found-out/transcript.md ]; do sleep 0.05; done
        cat {b.root}/found-out/state.json {b.root}/found-out/transcript.md > /dev/null || exit 2
        : > found-out/checkpoint.json""")
    assert copy.returncode == 1 and "Operation not permitted" in copy.stderr, copy
    assert shows(b, "found-out/status", "failed take: a copy")
    wait_until(lambda: not (b.root / "found-out/transcript.md").exists() and not (b.root / "found-out/state.json").exists())


WORKS_THERE = """
import os, sys, time
os.chdir(sys.argv[1])
def stays(until):
    while not os.path.exists(until):
        os.getcwd()
    for _ in range(50):  # the kernel hears of it a moment later
        os.getcwd()
        time.sleep(0.01)
with open("state.json", "wb") as f:
    f.write(open(sys.argv[2], "rb").read())
stays("transcript.md")
with open("resume", "w") as f:
    f.write("approve")
stays("output")
"""


def test_a_working_directory_stays_one_when_files_appear_there(pair):
    """Nothing in it looks the directory up by its path, which would find it again."""
    a, _ = pair
    a.agent("cwd", "echo done")
    os.mkdir(a.root / "cwd")
    done = subprocess.run([sys.executable, "-c", WORKS_THERE, a.root / "cwd", STATE], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert a.status("cwd") == "finished"


@pytest.mark.parametrize("closed", [True, False])
def test_an_append_there_at_once_loses_nothing(pair, closed):
    """Before anybody has told that mount, and perhaps before it has heard that there is a file."""
    a, b = pair
    name = "at-once-closed" if closed else "at-once"
    os.mkdir(a.root / name)
    assert a.wait(name) == "saved (database only)"
    wait_until(lambda: (b.root / name).exists())
    with open(a.root / name / "state.json", "wb", buffering=0) as f:
        f.write(b'{"a": "' + b"x" * 999)
        if closed:
            f.close()
        with open(b.root / name / "state.json", "ab") as g:
            g.write(b'"}')
        wait_until(lambda: (b.root / name / "transcript.md").exists())
    assert b.read(f"{name}/state.json") == '{"a": "' + "x" * 999 + '"}'


def test_wait_waits_for_the_other_mount(pair):
    a, b = pair
    writing = a.hold("held", "hold; echo done")
    wait_until(lambda: "agent running" in b.status("held"))
    waiting = Writing(b, "held/resume", "approve")  # somebody else decides too
    assert waiting.answer() in ("EBUSY", "EALREADY")
    a.release("held")
    assert b.wait("held") == "finished"
    assert writing.answer() is None
    assert b.read("held/output") == "done\n"


# ---- workers ----------------------------------------------------------------------------------------------------------------


def test_a_decision_runs_on_the_mount_that_can(pair):
    a, b = pair
    a.waits("worked", 'hold; echo "on $CHECKPOINT_MOUNT"; cat "$CHECKPOINT_DECISIONS"')
    os.mkfifo(a.scripts / "worked.go")
    wait_until(lambda: (b.root / "worked" / "resume").exists())
    writing = Writing(b, "worked/resume", "reject Not on Fridays")
    a.ready("worked")
    assert wait_until(lambda: b.status("worked").startswith("agent running on "))
    a.release("worked")
    assert writing.answer() is None
    assert b.status("worked") == "finished"
    output = b.read("worked/output")
    assert output.startswith(f"on {a.root}\n") and "Not on Fridays" in output


def test_a_replay_runs_there_too(pair):
    a, b = pair
    a.waits("replayed", "echo again")
    wait_until(lambda: (b.root / "replayed" / "replay").exists())
    assert b.echo("replayed/replay", "in-place approve") is None
    assert b.status("replayed") == "finished"
    a.tidy()


def test_a_worker_that_fails_says_why_to_who_asked(pair):
    a, b = pair
    a.waits("broken", "echo oh dear; exit 3")
    wait_until(lambda: (b.root / "broken" / "resume").exists())
    assert b.echo("broken/resume", "approve") == "EIO"
    assert "exit 3: oh dear" in b.result("broken")["message"]


def test_cancel_reaches_the_other_mount(pair):
    a, b = pair
    writing = a.hold("ended")
    wait_until(lambda: "agent running" in b.status("ended"))
    assert b.echo("ended/cancel", "cancel") is None
    assert writing.answer() == "ECANCELED"
    b.wait_status("ended", "failed resume")
    assert b.echo("ended/cancel", "cancel") == "ESRCH"


def test_without_a_worker_it_is_refused(pair):
    a, b = pair
    a.take("nobody")
    wait_until(lambda: (b.root / "nobody" / "resume").exists())
    a.unmount()
    try:
        assert b.echo("nobody/resume", "approve") == "EOPNOTSUPP"
        assert "--resume" in b.result("nobody")["message"]
    finally:
        a.mount()


def test_run_on_names_the_host(pair, tmp_path):
    a, b = pair
    ini = tmp_path / "ckpt.ini"
    a.waits("placed", "echo placed")
    for where, answer in (("here", "EOPNOTSUPP"), ("no-such-host", "EOPNOTSUPP"), (os.uname().nodename, None)):
        ini.write_text(f"[resume]\nrun-on = {where}\n")
        b.remount(f"--config={ini}")
        assert f"resume_run_on: {where}\n" in b.read(".control/config")
        assert b.echo("placed/resume", "approve") == answer, where
    b.remount()


def test_a_replay_whose_worker_cannot_run_it_leaves_nothing_behind(tmp_path):
    program = tmp_path / "wake"
    program.write_text("#!/bin/sh\necho woken\n")
    program.chmod(0o755)
    with Mount(resume=str(program)) as a, Second(a) as b:
        b.resume = None
        b.remount()
        b.take("one")
        assert b.echo("one/resume", "approve") is None
        gone, before = program.rename(tmp_path / "gone"), b.read(".control/active_branch")
        assert b.echo("one/replay", "in-place approve") == "ENOENT"
        assert b.status("one") == "finished" and b.read(".control/active_branch") == before
        assert "nothing was done" in b.result("one")["message"] and "free again" not in b.result("one")["message"]
        assert b.echo("one/replay", "branch x approve") == "ENOENT"
        assert b.wait("one/branches/x").startswith("failed restore: nothing was done, ")
        os.rmdir(b.root / "one/branches/x")
        gone.rename(program)
        assert b.echo("one/replay", "branch x approve") is None
        assert b.read("one/branches/x/output") == "woken\n"


def test_a_replay_that_no_worker_is_left_for_leaves_nothing_behind():
    with Woken() as a, Second(a) as worker:
        a.resume = None
        a.remount()
        a.waits("left")
        with stopped(worker):
            assert a.echo("left/replay", "nowait branch x approve") is None
            worker.kill()
        assert a.wait("left/branches/x").startswith("failed restore: nothing was done, ")
        assert a.status("left") == "waiting (1 call)"
        os.rmdir(a.root / "left/branches/x")


def test_no_agent_runs_where_it_could_take_no_checkpoint():
    with Woken() as a, Second(a, "-o", "role=viewer") as viewer:
        a.resume = None
        a.remount()
        a.waits("seen", 'child seen.2 && exit 10')
        assert a.echo("seen/resume", "approve") == "EOPNOTSUPP"
        viewer.options = [*a.options, "-o", "role=agent"]
        viewer.remount()
        assert a.echo("seen/resume", "approve") is None
        assert a.status("seen") == "stopped again -> seen.2"


@contextlib.contextmanager
def stopped(m):
    """Its lease holds for a while, and it takes nothing over."""
    m.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        m.process.send_signal(signal.SIGCONT)


@pytest.fixture
def workers():
    """A mount without a resume command, and two with one: `first` is given what is to be woken."""
    with Woken() as a, Second(a) as first, Second(a, root="mnt3") as second:
        a.resume = None
        a.remount()
        yield a, first, second


def test_what_a_dead_worker_was_given_goes_to_another(workers):
    a, first, second = workers
    a.waits("given", 'echo "on $CHECKPOINT_MOUNT"')
    with stopped(second):
        with stopped(first):
            assert a.echo("given/resume", "nowait reject No") is None
            first.kill()
        assert wait_until(lambda: a.events_of("given", "action.taken_over"))
    assert a.wait("given") == "finished"
    assert a.read("given/output") == f"on {second.root}\n"


def test_a_replay_whose_worker_died_goes_on_at_another(workers):
    a, first, second = workers
    a.waits("half", 'echo "on $CHECKPOINT_MOUNT"')
    before = a.read(".control/active_branch")
    restoring.hold(a, restoring.RESTORE, 3000)
    assert first.echo("half/replay", "nowait in-place approve") is None
    wait_until(lambda: a.status("half") in restoring.steps_held(restoring.RESTORE, 2))
    with stopped(second):
        first.kill()
        a.emulator.control("DELETE", "faults")
        assert wait_until(lambda: a.events_of("half", "action.taken_over"))
    assert a.wait("half") == "finished"
    assert a.read("half/output") == f"on {second.root}\n"
    restored = [b for b in a.emulator.branches() if b["name"].startswith(("half-", "replaced-half"))]
    assert a.read(".control/active_branch") != before and len(restored) <= 2, "asked for once"


# ---- leases -----------------------------------------------------------------------------------------------------------------


def test_a_stopped_mount_is_taken_over_and_does_nothing_more(pair):
    """SIGSTOP: nothing tells it from a machine that is cut off, until it goes on."""
    a, b = pair
    restoring.hold(a, restoring.SNAPSHOT, 3000)
    os.mkdir(a.root / "stopped")
    wait_until(lambda: "snapshot_name" in json.dumps(action_of(a, "stopped")))
    a.process.send_signal(signal.SIGSTOP)
    a.emulator.control("DELETE", "faults")
    try:
        assert wait_until(lambda: b.events_of("stopped", "action.taken_over"))
        assert wait_until(lambda: b.status("stopped").startswith(("saved", "failed take")))
    finally:
        a.process.send_signal(signal.SIGCONT)
    b.wait("stopped")
    assert wait_until(lambda: a.status("stopped") == b.status("stopped"))
    wait_until(lambda: sum("stopped" in s["name"] for s in a.emulator.snapshots()) <= 1, 60)
    # it lives on, under a new number
    a.take("revived")
    assert shows(b, "revived/status", "waiting")


def test_a_stopped_mounts_agent_is_ended(pair):
    a, b = pair
    writing = a.hold("frozen", 'hold; echo never > "$AGENTS/frozen.done"')
    supervisors = a.agents()
    a.process.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: b.status("frozen") == "unknown", 60)
        assert not any(alive(pid) for pid in supervisors)
    finally:
        a.process.send_signal(signal.SIGCONT)
    assert writing.answer() == "EIO"
    assert not (a.scripts / "frozen.done").exists()
    assert wait_until(lambda: a.status("frozen") == "unknown")


def action_of(mount, name):
    rows = [json.loads((mount.root / ".control/actions" / f).read_text()) for f in os.listdir(mount.root / ".control/actions")]
    rows = [r for r in rows if r.get("name") == name]
    return rows[-1] if rows else {}


# ---- the store is away --------------------------------------------------------------------------------------------------------


def test_a_lost_store_is_said_everywhere_and_comes_back(pair):
    a, b = pair
    a.take("kept")
    assert a.echo("kept/restore", "branch b") is None
    shows(b, "kept/branches/b/status", "waiting")
    b.read("kept/state.json")
    with Frozen(a):
        wait_until(lambda: "store: lost" in b.read(".control/health"))
        assert "store lost since" in b.status("kept", lost=True)
        status = b.read("kept/branches/b/status")
        assert status.startswith("waiting (1 call), store lost since") and os.stat(b / "kept/branches/b/status").st_size == len(status)
        assert "kept" in os.listdir(b.root)
        assert b.read("kept/state.json")  # what the kernel holds of a sealed state
        with pytest.raises(OSError, match="Input/output error"):
            os.mkdir(b.root / "not-now")
    wait_until(lambda: "store: ok" in b.read(".control/health"))
    assert b.status("kept") == "waiting (1 call)"
    wait_until(lambda: b.read("kept/branches/b/status") == "waiting (1 call)\n")
    b.take("now")
    assert shows(a, "now/status", "waiting")

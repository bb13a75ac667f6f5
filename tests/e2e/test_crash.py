"""kill -9 at every step of take, restore and delete: the next mount settles what was under way, nothing is done twice, nothing is lost
(design.md §7.5). And random sequences of all of it, against a model of what has to be there."""

import contextlib
import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
from emulator import wait_until
import restoring
from mount import DEADLINE, Mount, STATE
from restoring import (DELETE, FINALIZE, OPERATION, RESTORE, SNAPSHOT, World, active, bare, held, put, quiet, restore, restored_once, rows,
                       steps_held, tidy)

BRANCHES, BRANCH = "GET:/projects/*/branches", "GET:/projects/*/branches/*"
SNAPSHOTS, OPERATIONS = "GET:/projects/*/snapshots", "GET:/projects/*/operations"
URI = "GET:/projects/*/connection_uri"
HOLD = 1500  # ms that a change is held up, in which the mount is killed
SEED = int(os.environ.get("CHECKPOINTFS_TEST_SEED", "0")) or random.SystemRandom().randrange(1 << 32)


@pytest.fixture(scope="module")
def m():
    with Mount() as mount:
        put(mount, 1)
        bare(mount, "source")
        yield mount


@pytest.fixture(autouse=True)
def clean(request):
    yield
    if "m" in request.fixturenames:
        m = request.getfixturevalue("m")
        if m.process.poll() is not None:
            m.mount()
        m.emulator.control("DELETE", "faults")
        quiet(m)
        tidy(m)


def hold(m, route):
    restoring.hold(m, route, HOLD)


def kill_when_held(m, route):
    wait_until(lambda: held(m, route))
    m.kill()
    m.emulator.control("DELETE", "faults")


def settled(m, name):
    """Mounts again and waits until what was under way is over."""
    m.mount()
    m.wait(name)
    quiet(m)
    return m.status(name)


# -- restore. What is held up, after which fault, and where the journal is then

RESTORING = {
    "while the record is checked": (BRANCHES, [], 1),
    "with the restore request on its way": (RESTORE, [], 2),
    "after its answer was lost": (OPERATIONS, [f"{RESTORE}=drop-after"], 2),
    "while its operations run": (OPERATION, [], 3),
    "while the new branch is verified": (BRANCH, [], 3),
    "with the finalize request on its way": (FINALIZE, [], 4),
    "after finalize's answer was lost": (OPERATIONS, [f"{FINALIZE}=drop-after"], 4),
    "before the connection is tried": (URI, [], 5),
}


@pytest.mark.parametrize("where", RESTORING)
def test_a_killed_restore_is_done_once(m, where):
    route, faults, step = RESTORING[where]
    put(m, 2)
    before = World(m)
    for fault in faults:
        m.emulator.fault(fault)
    hold(m, route)
    assert m.echo("source/restore", "nowait in-place") is None
    wait_until(lambda: m.status("source") in steps_held(route, step))
    action = m.result("source")["action"]
    kill_when_held(m, route)
    assert settled(m, "source") == "saved (database only)"
    assert m.result("source")["action"] == action
    restored_once(m, before, "source")
    assert rows(m) == [1]
    assert [e["what"] if "what" in e else e["event"] for e in m.events()
            if e.get("action") == action and "restore.finished" in e.values()] == ["restore.finished"]
    put(m, 3)
    tidy(m)
    restore(m, "source")


def test_a_restore_killed_again_and_again(m):
    put(m, 2)
    before = World(m)
    m.emulator.fault(f"{OPERATION}=delay:150*inf")
    assert m.echo("source/restore", "nowait in-place") is None
    for step in (3, 4, 5):
        wait_until(lambda: m.status("source") >= f"restoring {step}/5" or not m.status("source").startswith("restoring"))
        m.kill()
        m.mount()
    m.emulator.control("DELETE", "faults")
    assert m.wait("source") == "saved (database only)"
    restored_once(m, before, "source")
    assert rows(m) == [1]


def test_a_restore_killed_right_after_its_record(m):
    put(m, 2)
    before = World(m)
    old = active(m)
    assert m.echo("source/restore", "nowait in-place") is None
    wait_until(lambda: active(m) != old, interval=0)
    m.kill()
    assert settled(m, "source") == "saved (database only)"
    restored_once(m, before, "source")


def test_leaving_hands_a_restore_over(m):
    put(m, 2)
    before = World(m)
    hold(m, OPERATION)
    assert m.echo("source/restore", "nowait in-place") is None
    wait_until(lambda: held(m, OPERATION))
    assert m.terminate() == 0
    m.emulator.control("DELETE", "faults")
    assert settled(m, "source") == "saved (database only)"
    restored_once(m, before, "source")


def test_a_restore_that_fails_after_the_kill_leaves_nothing(m):
    put(m, 2)
    before = World(m)
    hold(m, BRANCH)
    assert m.echo("source/restore", "nowait in-place") is None
    kill_when_held(m, BRANCH)
    m.emulator.fault(f"{FINALIZE}=op:error:disk on fire")
    status = settled(m, "source")
    assert status.startswith("failed restore: ") and "disk on fire" in status
    assert World(m) == before and rows(m) == [2]
    restore(m, "source")


def test_neon_is_away_when_the_next_mount_comes(m):
    """It waits for Neon rather than declare failed what may have happened."""
    put(m, 2)
    before = World(m)
    m.emulator.fault(f"{FINALIZE}=drop-after")
    hold(m, OPERATIONS)
    assert m.echo("source/restore", "nowait in-place") is None
    kill_when_held(m, OPERATIONS)
    quiet(m)
    m.emulator.stop()
    m.mount()
    assert m.status("source") == "restoring 4/5"
    assert (m / "source/snapshot.json").read_text()
    wait_until(lambda: "reachable" not in m.read(".control/health"))
    assert m.status("source") == "restoring 4/5"
    m.emulator.start()
    assert m.wait("source") == "saved (database only)"
    restored_once(m, before, "source")
    assert rows(m) == [1]


@pytest.mark.parametrize("where", ["with the restore request on its way", "while its operations run", "after finalize's answer was lost"])
def test_a_killed_replay_goes_on_to_its_agent(where):
    """The decision came with the command: it is not lost, and the agent is woken once."""
    route, faults, step = RESTORING[where]
    with Mount(resume='echo "$CHECKPOINT_NAME $CHECKPOINT_BRANCH" >> "$CHECKPOINT_LOG"') as m:
        log = m.base / "woken"
        m.env["CHECKPOINT_LOG"] = str(log)
        m.remount()
        put(m, 1)
        m.take("replayed")
        put(m, 2)
        before = World(m)
        for fault in faults:
            m.emulator.fault(fault)
        hold(m, route)
        assert m.echo("replayed/replay", "nowait in-place reject No") is None
        wait_until(lambda: m.status("replayed") in steps_held(route, step))
        kill_when_held(m, route)
        assert settled(m, "replayed") == "finished"
        restored_once(m, before, "replayed")
        assert rows(m) == [1]
        assert log.read_text() == f"replayed {active(m)}\n"
        assert m.echo("replayed/resume", "approve") == "EALREADY"


def test_a_killed_replay_without_a_worker_keeps_its_decision_free():
    with Mount(resume="echo woken") as m:
        put(m, 1)
        m.take("replayed")
        put(m, 2)
        hold(m, OPERATION)
        assert m.echo("replayed/replay", "nowait in-place approve") is None
        kill_when_held(m, OPERATION)
        m.resume = None
        settled(m, "replayed")
        assert rows(m) == [1]
        assert m.status("replayed") == "waiting (1 call)", "the restore is done, nothing was woken"
        assert m.result("replayed")["errno"] == "EOPNOTSUPP" and "--resume" in m.result("replayed")["message"]
        m.resume = "echo woken"
        m.remount()
        assert m.echo("replayed/resume", "approve") is None
        assert m.status("replayed") == "finished"


# -- take

TAKING = {
    "while the record is checked": (BRANCHES, [], False),
    "with the request on its way": (SNAPSHOT, [], None),
    "after its answer was lost": (OPERATIONS, [f"{SNAPSHOT}=drop-after"], True),
    "while its operations run": (OPERATION, [], True),
    "while it is read again": (SNAPSHOTS, [], True),
}


@pytest.mark.parametrize("where", TAKING)
def test_a_killed_take_is_kept_or_failed(m, where):
    route, faults, kept = TAKING[where]
    name = "killed-" + where.replace(" ", "-").replace("'", "")
    before = World(m)
    for fault in faults:
        m.emulator.fault(fault)
    hold(m, route)
    os.mkdir(m / name)
    kill_when_held(m, route)
    status = settled(m, name)
    if kept is not None:
        assert status.startswith("saved (database only)" if kept else "failed take: the mount ended"), status
    if status.startswith("failed"):
        wait_until(lambda: World(m) == before)  # a request that arrived late is found and taken back
        os.rmdir(m / name)
    else:
        new = set(World(m).snapshots) - set(before.snapshots)
        assert new == {m.json(f"{name}/snapshot.json")["id"]}
        (m / name / "state.json").write_bytes(STATE.read_bytes())
        m.wait_status(name, "waiting (1 call)")
        assert m.echo(".control/prune", f"delete {name}") is None
    assert World(m) == before


def test_killed_with_takes_in_the_queue(m):
    before = World(m)
    hold(m, OPERATION)
    for k in range(4):
        os.mkdir(m / f"queued-{k}")
    kill_when_held(m, OPERATION)
    m.mount()
    for k in range(4):
        m.wait(f"queued-{k}")
        status = m.status(f"queued-{k}")
        if k == 0:
            assert status == "saved (database only)"
            assert m.echo(".control/prune", "delete queued-0") is None
        else:
            assert status.startswith("failed take: the mount ended before the snapshot was asked for")
            os.rmdir(m / f"queued-{k}")
    assert World(m) == before


# -- delete

DELETING = {
    "with the request on its way": (DELETE, []),
    "after its answer was lost": (OPERATIONS, [f"{DELETE}=drop-after"]),
    "while its operation runs": (OPERATION, []),
}


@pytest.mark.parametrize("where", DELETING)
def test_a_killed_delete_is_done(m, where):
    route, faults = DELETING[where]
    before = World(m)
    bare(m, "doomed")
    for fault in faults:
        m.emulator.fault(fault)
    hold(m, route)
    assert m.echo(".control/prune", "nowait delete doomed") is None
    kill_when_held(m, route)
    m.mount()
    wait_until(lambda: not (m / "doomed").exists())
    quiet(m)
    assert World(m) == before


def test_killed_with_a_delete_in_the_queue(m):
    bare(m, "first")
    before = World(m)
    hold(m, OPERATION)
    os.mkdir(m / "ahead")
    wait_until(lambda: held(m, OPERATION))
    assert m.echo(".control/prune", "nowait delete first") is None
    m.kill()
    m.emulator.control("DELETE", "faults")
    m.mount()
    wait_until(lambda: not (m / "first").exists())
    m.wait("ahead")
    assert m.status("ahead") == "saved (database only)"
    assert m.echo(".control/prune", "delete ahead") is None
    assert len(World(m).snapshots) == len(before.snapshots) - 1


def test_a_mount_dies_though_a_create_waits_in_a_directory_that_changes():
    """The kernel holds the directory's lock for the create, and lets nobody who would invalidate a name there be killed: both would hang
    until somebody aborts the connection."""
    with Mount() as m, psycopg.connect(json.loads((m.dir / "env.json").read_text())["store_owner"]) as store:
        m.emulator.fault(f"{SNAPSHOT}=delay:1000")
        os.mkdir(m / "one")
        status = os.open(m / "one/status", os.O_RDONLY)
        store.execute("LOCK TABLE checkpointfs.state_parts IN EXCLUSIVE MODE")
        writer = subprocess.Popen([sys.executable, "-c", "import sys; open(sys.argv[1], 'x')", m / "one/state.json"], stderr=subprocess.PIPE)
        wait_until(lambda: os.pread(status, 100, 0).startswith(b"saved"), DEADLINE, 0.005)  # it has other files than before
        time.sleep(0.2)  # what was wrong showed once the invalidation had begun, which nothing tells
        m.kill()
        with contextlib.suppress(OSError):  # of a dead mount
            os.close(status)
        assert writer.wait(DEADLINE) != 0
        store.close()
        m.mount()
        assert m.wait("one") == "saved (database only)"


# -- the store

def store_postmaster(m):
    for pid in m.servers():
        line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
        if b"postgres" in line.split(b" ")[0] and b"-D" in line:
            return pid
    raise AssertionError("the store's PostgreSQL isn't there")


def test_the_store_is_killed_in_the_middle_of_a_restore(m):
    """Its keeper brings it back; the mount goes on with what it was doing, and meanwhile everything can be read."""
    put(m, 2)
    before = World(m)
    with m.held(OPERATION):
        assert m.echo("source/restore", "nowait in-place") is None
        m.wait_status("source", "restoring 3/5")
        killed = store_postmaster(m)
        os.kill(killed, signal.SIGKILL)
        assert m.status("source", lost=True).startswith("restoring 3/5") and "source" in os.listdir(m.root)
    assert m.wait("source") == "saved (database only)"
    assert store_postmaster(m) != killed
    restored_once(m, before, "source")
    assert rows(m) == [1]
    bare(m, "after-the-store")
    assert m.echo(".control/prune", "delete after-the-store") is None


def test_a_store_that_freezes_refuses_a_take_in_time(m):
    """Two seconds, then EIO: mkdir holds a lock of the kernel's (design.md §7.4)."""
    postmaster = store_postmaster(m)
    frozen = [postmaster, *map(int, Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split())]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(OSError) as caught:
            os.mkdir(m / "refused")
        assert caught.value.errno == errno.EIO
        assert m.status("source") and (m / "source/snapshot.json").stat().st_size > 0, "from memory"
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    assert not (m / "refused").exists()
    wait_until(lambda: "store: ok" in m.read(".control/health"))
    bare(m, "refused")
    assert m.echo(".control/prune", "delete refused") is None


# -- all of it, at random


class Model:
    """Which rows the table must hold, and which checkpoints are on line."""

    def __init__(self):
        self.rows = set()
        self.past = frozenset()  # the checkpoints that the database went through
        self.taken = {}          # name → rows, and the past
        self.offline = set()
        self.gone = set()        # snapshot deleted in the console

    def take(self, name):
        self.taken[name] = set(self.rows), self.past
        self.past |= {name}

    def restore(self, name):
        """What was taken before it stays on line only if it was taken of its database: restores there and back leave branches of the line."""
        rows, past = self.taken[name]
        self.rows, self.past = set(rows), past | {name}
        self.offline |= set(self.taken) - self.past
        self.offline.discard(name)

    def delete(self, name):
        del self.taken[name]
        self.offline.discard(name)
        self.gone.discard(name)


class Walk:
    def __init__(self, m, seed):
        self.m, self.model, self.random, self.n = m, Model(), random.Random(seed), 0
        m.sql("create table if not exists t (n int primary key)")
        m.sql("delete from t")

    def pick(self, names):
        return self.random.choice(sorted(names)) if names else None

    def restorable(self):
        return set(self.model.taken) - self.model.gone

    def insert(self):
        self.n += 1
        self.m.sql(f"insert into t values ({self.n})")
        self.model.rows.add(self.n)

    def take(self):
        self.n += 1
        bare(self.m, f"w-{self.n}")
        self.model.take(f"w-{self.n}")

    def restore(self):
        name = self.pick(self.restorable())
        if name:
            restore(self.m, name)
            self.model.restore(name)

    def killed_restore(self):
        name = self.pick(self.restorable())
        if not name:
            return
        assert self.m.echo(f"{name}/restore", "nowait in-place") is None
        time.sleep(self.random.random() * 0.5)
        self.m.kill()
        self.m.mount()
        self.m.wait(name)
        assert self.m.result(name)["state"] == "done", self.m.read(f"{name}/result")
        self.model.restore(name)

    def killed_take(self):
        self.n += 1
        name = f"w-{self.n}"
        os.mkdir(self.m / name)
        time.sleep(self.random.random() * 0.3)
        self.m.kill()
        self.m.mount()
        self.m.wait(name)
        if self.m.status(name).startswith("failed take"):
            os.rmdir(self.m / name)
        else:
            self.model.take(name)

    def delete(self):
        name = self.pick(set(self.model.taken))
        if name:
            assert self.m.echo(".control/prune", f"delete {name}") is None
            self.model.delete(name)

    def killed_delete(self):
        name = self.pick(set(self.model.taken))
        if not name:
            return
        assert self.m.echo(".control/prune", f"nowait delete {name}") is None
        time.sleep(self.random.random() * 0.2)
        self.m.kill()
        self.m.mount()
        wait_until(lambda: not (self.m / name).exists())
        self.model.delete(name)

    def leave(self):
        self.m.remount()

    def console_deletes_a_snapshot(self):
        name = self.pick(self.restorable())
        if not name or len(self.restorable()) < 3:
            return
        answer = self.m.emulator.console("delete_snapshot", snapshot_id=self.m.json(f"{name}/snapshot.json")["id"])
        assert answer.status < 300
        self.model.gone.add(name)
        assert self.m.echo(f"{name}/restore", "in-place") == "ENODATA"

    def console_tidies(self):
        tidy(self.m)

    def check(self):
        m, model = self.m, self.model
        assert set(rows(m)) == model.rows
        names = {n for n in os.listdir(m.root) if n.startswith("w-")}
        assert names == set(model.taken)
        for name in names:
            status = m.status(name)
            assert status.startswith("off-line") == (name in model.offline), (name, status)
            assert status.endswith("snapshot missing") == (name in model.gone), (name, status)
        quiet(m)
        now = World(m)
        wanted = {m.json(f"{n}/snapshot.json")["id"] for n in names - model.gone}
        assert set(now.snapshots) == wanted or wait_until(lambda: set(World(m).snapshots) == wanted)
        assert now.default == active(m)
        assert all(b == now.default or now.branches[b].startswith("replaced-w-") for b in now.branches)


def test_random_sequences_keep_to_the_model():
    """CHECKPOINTFS_TEST_SEED repeats a run."""
    print(f"CHECKPOINTFS_TEST_SEED={SEED}")
    with Mount(emulator=("--root-branches=1000", "--branches=1000", "--snapshots=1000")) as m:
        walk = Walk(m, SEED)
        steps = [walk.insert] * 3 + [walk.take] * 3 + [walk.restore] * 2 + [walk.killed_restore] * 3 + [walk.killed_take] * 2 + [
            walk.delete, walk.killed_delete, walk.leave, walk.console_deletes_a_snapshot, walk.console_tidies]
        end = time.monotonic() + float(os.environ.get("CHECKPOINTFS_TEST_SECONDS", "12"))
        done = []
        while time.monotonic() < end:
            step = walk.random.choice(steps)
            done.append(step.__name__)
            print(" ".join(done[-1:]), end=" ")
            step()
            walk.check()

"""mv of a large copy out of .import/ holds nobody up: it waits two seconds at most, and what it began goes on without it (design.md §7.4).

The store's table of states is locked where a test wants storing to last: then it ends when the test says so."""

import contextlib
import errno
import json
import os
import statistics
import threading
import time

import psycopg
import pytest

from emulator import wait_until
from mount import STATE, Mount, Second, shell
from test_staging import raises

LARGE = 5 << 20  # more than a rename registers by itself


def owner(m):
    return json.loads((m.dir / "env.json").read_text())["store_owner"]


def sql(m, statement):
    with psycopg.connect(owner(m), autocommit=True) as c:
        return c.execute(statement).fetchone()[0]


@contextlib.contextmanager
def storing_lasts(m):
    """Yields a function that lets it end."""
    with psycopg.connect(owner(m)) as c:
        c.execute("LOCK TABLE checkpointfs.state_chunks IN EXCLUSIVE MODE")
        yield c.rollback


def being_stored(m):
    return sql(m, "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'checkpointfs.state_chunks'::regclass") > 0


def large(text="x"):
    return json.dumps({"text": text * LARGE})


def stage(m, name, text=None):
    os.mkdir(m / ".import" / name)
    (m / ".import" / name / "state.json").write_text(text or large())
    return m / ".import" / name


def last(m):
    return m.json(".control/result")


def told(m, message):
    """Waits until .control/result says that: who has waited long enough is answered before it is written."""
    wait_until(lambda: message in m.read(".control/result"))
    return last(m)


def arrives(m, name):
    wait_until(lambda: (m / name).exists() and not (m / ".import" / name).exists(), 60)


def register(m, staged, name):
    """Where the machine is too busy for two seconds to be enough, it goes on by itself."""
    began = time.monotonic()
    try:
        os.rename(staged, m / name)
    except OSError as e:
        assert e.errno == errno.EINPROGRESS and time.monotonic() - began >= 2, e
        wait_until(lambda: (m / name).exists() and not staged.exists(), 60)


@pytest.fixture(scope="module")
def m():
    with Mount(emulator=("--snapshots=1000",)) as mount:
        yield mount


@contextlib.contextmanager
def listing(m):
    """Yields the seconds that each listing of the root takes, again and again."""
    times, stop = [], threading.Event()

    def look():
        while not stop.is_set():
            start = time.monotonic()
            os.listdir(m.root)
            times.append(time.monotonic() - start)
            time.sleep(0.01)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield times
    finally:
        stop.set()
        looking.join()


def test_nobody_else_waits_for_it(m):
    """Who lists the root meanwhile waits for the rename at most, which the kernel holds it for, and not for what is stored."""
    staged = stage(m, "slow")
    with storing_lasts(m) as end:
        with listing(m) as times:
            began = time.monotonic()
            raises(errno.EINPROGRESS, os.rename, staged, m / "slow")
            took = time.monotonic() - began
            during = len(times)
            wait_until(lambda: len(times) > during + 40)
            after = times[during + 1:]
        assert being_stored(m)
        end()
    assert max(times) < 1.5 * took and statistics.median(after) < took / 10, (took, max(times), after)
    arrives(m, "slow")


def test_it_goes_on_after_the_rename(m):
    text = large()
    staged = stage(m, "big", text)
    chunks = sql(m, "SELECT count(*) FROM checkpointfs.state_chunks")
    fd = os.open(staged / "state.json", os.O_RDONLY)
    with storing_lasts(m) as end, Second(m) as other:
        done = shell(f"mv {staged} {m.root}/")
        assert done.returncode == 1 and "Operation now in progress" in done.stderr, done
        assert told(m, "big is large and is still being stored; that goes on by itself")["errno"] == "EINPROGRESS"
        # until all is stored there is nothing, and what was copied stays as it is
        for mount in (m, other):
            assert "big" not in os.listdir(mount.root) and not mount.events_of("big")
        assert sql(m, "SELECT count(*) FROM checkpointfs.state_chunks") == chunks
        assert (staged / "state.json").read_text() == text
        raises(errno.EBUSY, os.open, staged / "state.json", os.O_WRONLY)
        raises(errno.EBUSY, os.truncate, staged / "state.json", 0)
        raises(errno.EBUSY, os.unlink, staged / "state.json")
        raises(errno.EBUSY, os.rename, staged, m / ".import/other")
        raises(errno.EBUSY, os.rename, staged, m / "other")
        assert told(m, "big is being registered as big")["errno"] == "EBUSY"
        raises(errno.EINPROGRESS, os.rename, staged, m / "big")  # the same again waits for the same
        # everything else goes on
        os.mkdir(m / "taken")
        m.wait("taken")
        copy = m / ".import/bare"
        os.mkdir(copy)
        (copy / "checkpoint.json").write_text('{"id": "ck-00000000000000000001"}')
        os.rename(copy, m / "bare")
        end()
        arrives(m, "big")
        wait_until(lambda: (other / "big").exists())
        assert (other / "big/state.json").read_text() == text
    assert (m / "big/state.json").read_text() == text and os.pread(fd, 20, 0).decode() == text[:20]
    os.close(fd)
    assert m.status("big") == "off-line" and m.result("big")["state"] == "done"
    assert len(m.events_of("big", "checkpoint.imported")) == 1
    assert os.listdir(m / ".import") == []


def test_a_rename_that_is_soon_done_says_nothing(m):
    """Soon is within two seconds: on a busy machine it may take some to come to one."""
    def moved(name):
        """Whether it was soon done."""
        answers, staged = [], stage(m, name)

        def move():
            began = time.monotonic()
            try:
                answers.append(os.rename(staged, m / name))
            except OSError as e:
                answers.append(e.errno)
            answers.append(time.monotonic() - began)

        with storing_lasts(m) as end:
            moving = threading.Thread(target=move)
            moving.start()
            wait_until(lambda: being_stored(m))
            end()
            moving.join()
        answer, took = answers
        assert answer is None or (answer == errno.EINPROGRESS and took >= 2)
        if answer:
            arrives(m, name)
        assert (m / name / "state.json").exists() and os.listdir(m / ".import") == []
        return answer is None

    assert any(moved(f"soon{i}") for i in range(20))


def test_several_come_one_after_another(m):
    for name in "abc":
        stage(m, name, large(name))
    with storing_lasts(m) as end:
        for name in "abc":
            raises(errno.EINPROGRESS, os.rename, m / ".import" / name, m / name)
        end()
    for name in "abc":
        arrives(m, name)
        assert m.json(f"{name}/state.json")["text"][:2] == 2 * name
    order = [e["name"] for e in m.events() if e["event"] == "checkpoint.imported" and e["name"] in "abc"]
    assert order == ["a", "b", "c"]


def test_what_fails_later_is_told_and_stays(m):
    staged = stage(m, "late")
    chunks = sql(m, "SELECT count(*) FROM checkpointfs.state_chunks")
    with storing_lasts(m) as end:
        raises(errno.EINPROGRESS, os.rename, staged, m / "late")
        os.mkdir(m / "late")
        m.wait("late")
        end()
    result = told(m, "there is a checkpoint called late already")
    assert result["errno"] == "EEXIST" and result["command"] == "mv .import/late late"
    assert sql(m, "SELECT count(*) FROM checkpointfs.state_chunks") == chunks
    with open(staged / "state.json", "a") as f:  # it can be changed again
        f.write("\n")
    register(m, staged, "in time")
    assert (m / "in time/state.json").read_text() == large() + "\n"


def test_a_killed_mount_leaves_nothing(tmp_path):
    with Mount(env={"TMPDIR": str(tmp_path)}) as mount, Second(mount) as other:
        with storing_lasts(mount) as end:
            raises(errno.EINPROGRESS, os.rename, stage(mount, "big"), mount / "big")
            mount.kill()
            end()
        wait_until(lambda: sql(mount, "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%' OR wait_event_type = 'Lock'") == 0)
        mount.mount()
        for where in (mount, other):
            assert [n for n in os.listdir(where.root) if n[0] != "."] == []
        assert os.listdir(mount / ".import") == os.listdir(tmp_path) == []
        assert sql(mount, "SELECT count(*) FROM checkpointfs.state_chunks") == 0
        register(mount, stage(mount, "big"), "big")
        assert (mount / "big/state.json").read_text() == large()


def test_who_unmounts_waits_for_it():
    with Mount() as mount:
        with storing_lasts(mount) as end:
            raises(errno.EINPROGRESS, os.rename, stage(mount, "first"), mount / "first")
            raises(errno.EINPROGRESS, os.rename, stage(mount, "second"), mount / "second")
            mount.process.terminate()
            time.sleep(0.5)
            assert mount.process.poll() is None
            end()
        mount.process.wait(60)
        mount.mount()
        assert (mount / "first/state.json").read_text() == large()
        assert not (mount / "second").exists() and last(mount)["command"] == "mv .import/second second"
        assert last(mount)["message"] == "the mount is being unmounted"


def talk(n):
    """A state whose transcript is as long as itself."""
    state = json.loads(STATE.read_text())
    said = [{"type": "message_output_item", "agent": {"name": "a"},
             "raw_item": {"id": f"m{i}", "role": "assistant", "status": "completed", "type": "message",
                          "content": [{"type": "output_text", "text": f"line {i} " + "word " * 300, "annotations": []}]}} for i in range(n)]
    state["generated_items"][:0] = said
    return json.dumps(state)


@pytest.mark.parametrize("how", ["taken", "registered"])
def test_a_long_transcript(m, how):
    """It is chunks in the store, as the state is; the checkpoint takes them with it."""
    before = sql(m, "SELECT count(*) FROM checkpointfs.state_chunks")
    name = f"talk {how}"
    if how == "taken":
        m.take(name, talk(2000))
    else:
        register(m, stage(m, name, talk(2000)), name)
    said = m.read(f"{name}/transcript.md")
    assert len(said) > 2000 * 1500 and len(said.encode()) == os.stat(m / name / "transcript.md").st_size
    assert [said.count(f"line {i} word") for i in range(2000)] == [1] * 2000
    assert sql(m, "SELECT count(*) FROM checkpointfs.state_chunks WHERE checkpoint_id < 0") > 10
    m.remount()
    assert m.read(f"{name}/transcript.md") == said
    assert m.echo(".control/prune", f"delete {name}") is None
    assert sql(m, "SELECT count(*) FROM checkpointfs.state_chunks") == before

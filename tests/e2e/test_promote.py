"""promote: an isolated branch becomes the active one, under the same connection string (design.md §2, §5)."""

import json
import os

import psycopg
import pytest

from emulator import wait_until
from mount import DEADLINE
from restoring import FINALIZE, OPERATION, RESTORE, SNAPSHOT, World, active, bare, put, quiet, recovered, rows, tidy, unbranch
from woken import Woken


@pytest.fixture(scope="module")
def m():
    with Woken() as mount:
        put(mount, 1)
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


def on(m, path, statement):
    with psycopg.connect(m.read(f"{path}/connection_uri").strip(), autocommit=True) as connection:
        connection.execute(statement)


def branched(m, name, number):
    """A checkpoint of row 1 with a branch `b`, on which that row has another number."""
    put(m, 1)
    bare(m, name)
    assert m.echo(f"{name}/restore", "branch b") is None, m.result(name)
    on(m, f"{name}/branches/b", f"UPDATE t SET n = {number}")
    return f"{name}/branches/b"


def test_of_the_branch_that_is_still_active(m):
    path = branched(m, "one", 10)
    put(m, 2)
    uri, before, world = m.uri(), active(m), World(m)
    branch = m.json(f"{path}/branch.json")["branch_id"]
    bare(m, "one.later")
    os.mkdir(m / path / "checkpoints/one.on-it")
    m.wait_status("one.on-it", "saved (database only)")
    assert m.echo(f"{path}/promote", "promote") is None, m.json(f"{path}/result")
    assert active(m) == branch and m.uri() == uri and rows(m) == [10]
    assert m.emulator.branch(branch)["default"] and m.emulator.branch(before)["name"].startswith("replaced-one-")
    assert {b["id"] for b in m.emulator.branches()} == set(world.branches), "nothing was made"
    assert m.read(f"{path}/status") == "promoted\n" and not (m / path / "connection_uri").exists()
    assert m.json(f"{path}/result")["state"] == "done"
    assert m.status("one.later") == "off-line"
    assert m.status("one.on-it") == "saved (database only)", "it came onto the line"
    assert os.listdir(m / path / "checkpoints") == ["one.on-it"]
    assert m.echo(f"{path}/promote", "promote") == "ESTALE"
    assert [e["event"] for e in m.events_of("one")][-2:] == ["promote.started", "promote.finished"] or \
        "promote.finished" in [e["event"] for e in m.events_of("one")]
    put(m, 3)
    assert m.echo("one.on-it/restore", "in-place") is None, "as any of the line"
    assert rows(m) == [10]
    assert m.echo(".control/prune", f"delete {path}") is None
    assert m.uri() == uri and rows(m) == [10], "only the row goes: its database is a branch of the line's"


def test_after_another_restore(m):
    """Neon would put it in the place of a branch that is no longer active: a snapshot of it is restored in place instead."""
    path = branched(m, "two", 20)
    assert m.echo("two/restore", "in-place") is None
    put(m, 5)
    uri, before = m.uri(), active(m)
    branch = m.json(f"{path}/branch.json")["branch_id"]
    snapshots = {s["id"] for s in m.emulator.snapshots()}
    assert m.echo(f"{path}/promote", "promote") is None, m.json(f"{path}/result")
    assert active(m) not in (before, branch) and m.uri() == uri and rows(m) == [20]
    assert {s["id"] for s in m.emulator.snapshots()} == snapshots, "the snapshot between them is gone again"
    assert m.read(f"{path}/status") == "promoted\n"
    assert m.echo(".control/prune", f"delete {path}") is None
    assert branch not in [b["id"] for b in m.emulator.branches()]


def test_the_attempt_goes_with_it(m):
    """What was decided on the branch is decided for the line now."""
    m.waits("three", "child three.2; exit 10")
    assert m.echo("three/restore", "branch b") is None
    path = "three/branches/b"
    assert m.echo(f"{path}/resume", "approve") is None
    assert m.status("three") == "waiting (1 call)"
    assert m.echo("three.2/restore", "in-place") == "EXDEV"
    assert m.echo(f"{path}/promote", "promote") is None
    assert m.status("three") == "stopped again -> three.2"
    assert m.echo("three/resume", "approve") == "EALREADY"
    assert os.readlink(m / "latest") == "three.2"
    m.agent("three.2", 'echo "$CHECKPOINT_BRANCH $CHECKPOINT_NEXT_DIR"')
    assert m.echo("three.2/resume", "approve") is None
    assert m.read("three.2/output").split() == [active(m), str(m.root)]
    assert m.echo("three.2/restore", "in-place") is None


def test_a_branch_of_a_branch(m):
    """What the database went through comes onto the line, no more."""
    put(m, 1)
    bare(m, "four")
    assert m.echo("four/restore", "branch a") is None
    for name in ("four.1", "four.2"):
        os.mkdir(m / "four/branches/a/checkpoints" / name)
        m.wait_status(name, "saved (database only)")
    assert m.echo("four.1/restore", "branch b") is None
    on(m, "four.1/branches/b", "UPDATE t SET n = 44")
    bare(m, "four.line")
    assert m.echo("four.1/branches/b/promote", "promote") is None
    assert rows(m) == [44]
    assert m.status("four.line") == "off-line"
    assert m.echo("four.2/restore", "in-place") == "EXDEV", "that was taken on the other branch after the point"
    assert m.echo("four.1/restore", "in-place") is None
    assert rows(m) == [1]


def test_nothing_is_behind_a_fork_of_what_was_taken_on_the_branch(m):
    """As behind any checkpoint that came in through .import/: whether others came before or after, nobody knows."""
    path = branched(m, "forked", 51)
    m.take(f"{path}/checkpoints/forked.on-it")
    staged = m / ".import/forked.fork"
    staged.mkdir()
    for file in ("snapshot.json", "checkpoint.json"):
        wait_until(lambda: (m / "forked.on-it" / file).exists())
        (staged / file).write_bytes((m / "forked.on-it" / file).read_bytes())
    (staged / "state.json").write_text(json.dumps(m.json("forked.on-it/state.json") | {"max_turns": 77}))
    os.rename(staged, m / "forked.fork")
    assert m.echo(f"{path}/promote", "promote") is None
    assert m.status("forked") == "saved (database only)" and m.status("forked.fork") == "off-line"
    assert m.echo("forked.fork/restore", "dry-run") is None
    assert {"forked", "forked.on-it"} <= set(m.result("forked.fork")["would"]["off_line"])
    assert m.echo("forked.fork/restore", "in-place") is None and rows(m) == [51]
    assert m.status("forked") == m.status("forked.on-it") == "off-line"


def test_what_a_deleted_branch_had_behind_it_is_still_known(m):
    """What was taken on it is restored after it is gone: what was taken on the line meanwhile isn't behind that."""
    path = branched(m, "origin", 50)
    bare(m, "origin.line")
    os.mkdir(m / path / "checkpoints/origin.on-it")
    m.wait_status("origin.on-it", "saved (database only)")
    assert m.echo(f"{path}/promote", "promote") is None
    assert m.echo(".control/prune", f"delete {path}") is None
    assert m.status("origin.line") == "off-line"
    assert m.echo("origin.line/restore", "in-place") is None
    assert m.echo("origin.on-it/restore", "in-place") is None
    assert rows(m) == [50]
    assert m.status("origin.line") == "off-line" and m.status("origin") == "saved (database only)"


def test_takes_wait_for_it(m):
    path = branched(m, "five", 50)
    with m.held(FINALIZE):
        assert m.echo(f"{path}/promote", "nowait promote") is None
        wait_until(lambda: m.read(f"{path}/status").startswith("promoting"), DEADLINE)
        for where in (m.root / "five.x", m / path / "checkpoints/five.x"):
            with pytest.raises(OSError, match="busy"):
                os.mkdir(where)
        assert m.echo("five/restore", "in-place") == "EBUSY"
        assert m.echo(f"{path}/resume", "approve") in ("EBUSY", "ENODATA")
    m.read(f"{path}/wait")
    assert m.read(f"{path}/status") == "promoted\n" and rows(m) == [50]


def test_failed(m):
    path = branched(m, "six", 60)
    before = World(m)
    m.emulator.fault("POST:/projects/*/branches/*/finalize_restore=op:failed:no room")
    assert m.echo(f"{path}/promote", "promote") == "EIO"
    assert m.read(f"{path}/status").startswith("failed promote: ")
    assert active(m) == before.default and rows(m) == [1]
    assert m.echo(f"{path}/promote", "promote") is None, "it is still there"
    assert rows(m) == [60]


def test_gone(m):
    path = branched(m, "seven", 70)
    assert m.emulator.console("delete_branch", branch_id=m.json(f"{path}/branch.json")["branch_id"]).status < 300
    assert m.echo(f"{path}/promote", "promote") == "ESTALE"
    assert rows(m) == [1]


def test_words(m):
    path = branched(m, "eight", 80)
    for words in ("in-place", "promote now", "again promote", ""):
        assert m.echo(f"{path}/promote", words) == "EINVAL" or not words
    assert m.json(f"{path}/result")["state"] == "refused"
    assert m.read(f"{path}/status") == "ready\n"


def test_undone(m):
    """Undo goes back behind a promote: what it brought onto the line goes off, what it took off comes back."""
    path = branched(m, "nine", 90)
    bare(m, "nine.later")
    os.mkdir(m / path / "checkpoints/nine.on-it")
    m.wait_status("nine.on-it", "saved (database only)")
    assert m.echo(f"{path}/promote", "promote") is None
    assert rows(m) == [90] and m.status("nine.later") == "off-line"
    assert m.echo(".control/undo", "undo") is None, m.json(".control/result")
    assert rows(m) == [1]
    assert m.status("nine.later") == "saved (database only)" and m.status("nine.on-it") == "off-line"


def test_dry_run(m):
    path = branched(m, "ten", 100)
    bare(m, "ten.later")
    os.mkdir(m / path / "checkpoints/ten.on-it")
    m.wait_status("ten.on-it", "saved (database only)")
    before, status = World(m), m.read(f"{path}/status")
    assert m.echo(f"{path}/promote", "dry-run") is None, m.json(f"{path}/result")
    result = m.json(f"{path}/result")
    assert before.default in result["message"] and m.json(f"{path}/branch.json")["branch_id"] in result["message"]
    assert result["file"] == "promote" and result["would"]["on_line"] == ["ten.on-it"]
    assert result["would"]["isolated_branches"] == [] and "stay" not in result["message"].replace("the connection string stays", "")
    assert "ten.on-it would come on line with it" in result["message"]
    assert "ten.later would go off line" in result["message"] and f"ten/branches/b/promote" in result["message"]
    assert World(m) == before and m.read(f"{path}/status") == status and rows(m) == [1]


def test_dry_run_of_what_was_taken_there(m):
    """It is refused as the restore itself is."""
    path = branched(m, "twelve", 120)
    os.mkdir(m / path / "checkpoints/twelve.on-it")
    m.wait_status("twelve.on-it", "saved (database only)")
    for words in ("dry-run", "in-place"):
        assert m.echo("twelve.on-it/restore", words) == "EXDEV", words
        assert "promote that branch" in m.result("twelve.on-it")["message"]


def test_without_the_snapshot_that_it_was_made_of(m):
    """Nor does its dry-run need it."""
    path = branched(m, "thirteen", 130)
    assert m.emulator.console("delete_snapshot", snapshot_id=m.json("thirteen/snapshot.json")["id"]).status < 300
    assert m.echo("thirteen/restore", "in-place") == "ENODATA", "and the record knows it"
    assert m.echo(f"{path}/promote", "dry-run") is None, m.json(f"{path}/result")
    assert m.json(f"{path}/branch.json")["branch_id"] in m.json(f"{path}/result")["message"]
    assert rows(m) == [1]
    assert m.echo(f"{path}/promote", "promote") is None, m.json(f"{path}/result")
    assert rows(m) == [130]
    assert m.echo(f"{path}/promote", "dry-run") == "ESTALE"


def test_an_old_snapshot_asks_twice(m, tmp_path):
    config = tmp_path / "config"
    config.write_text("[restore]\nunconfirmed = never\n")
    with Woken(f"--config={config}") as asks:
        path = branched(asks, "old", 5)
        before = active(asks)
        assert asks.echo(f"{path}/promote", "promote") == "ECANCELED"
        assert f"promote confirm={before}" in asks.json(f"{path}/result")["message"]
        assert f"old/branches/b/promote" in asks.json(f"{path}/result")["message"]
        assert active(asks) == before
        assert asks.echo(f"{path}/promote", f"promote confirm={before}") is None
        assert rows(asks) == [5]


# What is held up when the mount is killed, after which fault, and whether the active branch was restored before
KILLED = {
    "while the record is checked": ("GET:/projects/*/branches", [], False),
    "with finalize on its way": (FINALIZE, [], False),
    "after finalize's answer was lost": ("GET:/projects/*/operations", [f"{FINALIZE}=drop-after"], False),
    "while its operations run": (OPERATION, [], False),
    "before the connection is tried": ("GET:/projects/*/connection_uri", [], False),
    "with the snapshot's request on its way": (SNAPSHOT, [], True),
    "after the snapshot's answer was lost": ("GET:/projects/*/operations", [f"{SNAPSHOT}=drop-after"], True),
    "with the restore of it on its way": (RESTORE, [], True),
    "with that one's finalize on its way": (FINALIZE, [], True),
}


@pytest.mark.parametrize("where", KILLED)
def test_killed(m, where):
    """The next mount promotes it, once, and leaves nothing over in Neon."""
    route, faults, restored = KILLED[where]
    name = f"killed {list(KILLED).index(where)}"
    path = branched(m, name, 7)
    if restored:
        assert m.echo(f"{name}/restore", "in-place") is None
        put(m, 2)
    uri, before, world = m.uri(), active(m), World(m)
    for fault in faults:
        m.emulator.fault(fault)
    m.emulator.fault(f"{route}=delay:1500")
    assert m.echo(f"{path}/promote", "nowait promote") is None
    wait_until(lambda: not any(f["rule"].startswith(route + "=delay") for f in m.emulator.control("GET", "faults").json["faults"]))
    m.kill()
    m.emulator.control("DELETE", "faults")
    m.mount()
    m.read(f"{path}/wait")
    assert m.read(f"{path}/status") == "promoted\n", m.json(f"{path}/result")
    assert rows(m) == [7] and m.uri() == uri and active(m) != before
    assert (active(m) == m.json(f"{path}/branch.json")["branch_id"]) != restored
    quiet(m)
    assert len(m.emulator.branches()) == len(world.branches) + restored
    wait_until(lambda: {s["id"] for s in m.emulator.snapshots()} == set(world.snapshots), DEADLINE)
    assert len([e for e in m.events_of(name) if e["event"] == "promote.finished"]) == 1

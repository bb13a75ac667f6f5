"""undo: back to what the last restore in place replaced, again and again (design.md §5, §6)."""

import os

import pytest
from emulator import wait_until
from mount import Mount, Second, STATE
from restoring import (DELETE, FINALIZE, OPERATION, RESTORE, SNAPSHOT, World, active, bare, put, quiet, restore, rows, sealed, tidy)

BRANCHES, BRANCH = "GET:/projects/*/branches", "GET:/projects/*/branches/*"
OPERATIONS, URI = "GET:/projects/*/operations", "GET:/projects/*/connection_uri"
HOLD = 1500  # ms that a call is held up, in which the mount is killed


@pytest.fixture(scope="module")
def m():
    with Mount(resume="echo woken") as mount:
        yield mount


@pytest.fixture(autouse=True)
def clean(request):
    yield
    if "m" in request.fixturenames:
        m = request.getfixturevalue("m")
        if m.process.poll() is not None:
            m.mount()
        quiet(m)
        m.emulator.control("DELETE", "faults")
        while undo(m) is None:
            pass
        tidy(m)


def undo(m):
    return m.echo(".control/undo", "undo")


def said(m):
    return m.json(".control/result")


def undone_once(m, before, name):
    """Exactly one undo happened since `before`: a new active branch, what it replaced is kept, no snapshot is left."""
    now = World(m)
    new = set(now.branches) - set(before.branches)
    assert len(new) == 1, (before, now)
    assert now.default == new.pop() == active(m)
    assert now.branches[before.default].startswith(f"replaced-undo-{name}-"), now.branches
    assert now.branches[now.default] == before.branches[before.default], "the name moves"
    assert now.endpoints == {e: now.default if b == before.default else b for e, b in before.endpoints.items()}
    assert now.snapshots == before.snapshots
    assert said(m)["state"] == "done" and said(m)["file"] == "undo"
    return now


# -- what comes back


def test_what_the_restore_replaced_comes_back(m):
    put(m, 1)
    sealed(m, "back")
    put(m, 1, 2)
    sealed(m, "lost")
    put(m, 1, 2, 3)
    uri = m.uri()
    restore(m, "back")
    assert rows(m) == [1] and m.status("lost") == "off-line"
    before = World(m)
    assert undo(m) is None, said(m)
    assert rows(m) == [1, 2, 3] and m.uri() == uri
    undone_once(m, before, "back")
    assert m.status("lost") == m.status("back") == "waiting (1 call)"
    assert {"back", "lost"} <= set(os.listdir(m / ".pending"))
    assert os.readlink(m / "latest") == "lost"
    result = said(m)
    assert "back" in result["message"] and result["journal"]["undoes_action"] == m.result("back")["action"]
    finished = m.events_of("back", "undo.finished")[-1]
    assert finished["undone"] == m.result("back")["action"] and finished["branch"] == active(m)
    assert undo(m) == "ENODATA" and "nothing to undo" in said(m)["message"]


def test_twice_goes_back_twice(m):
    put(m, 1)
    sealed(m, "one")
    put(m, 2)
    sealed(m, "two")
    put(m, 3)
    restore(m, "two")          # replaces {3}
    put(m, 4)
    restore(m, "one")          # replaces {4}
    assert rows(m) == [1] and m.status("two") == "off-line"
    assert undo(m) is None, said(m)
    assert rows(m) == [4] and m.status("two") == "waiting (1 call)"
    assert "one" in said(m)["message"]
    assert undo(m) is None, said(m)
    assert rows(m) == [3] and m.status("one") == m.status("two") == "waiting (1 call)"
    assert "the restore of two" in said(m)["message"]
    assert undo(m) == "ENODATA"


def test_what_was_taken_since_goes_off_line_and_what_was_before_comes_back(m):
    put(m, 1)
    sealed(m, "base")
    put(m, 2)
    sealed(m, "above")
    bare(m, "above-bare")
    restore(m, "base")
    put(m, 5)
    sealed(m, "since")
    os.mkdir(m / "since-bare")
    m.wait("since-bare")
    assert undo(m) is None, said(m)
    assert rows(m) == [2]
    assert [m.status(n) for n in ("since", "since-bare")] == ["off-line", "off-line"]
    assert [m.status(n) for n in ("base", "above")] == ["waiting (1 call)"] * 2
    assert m.status("above-bare") == "saved (database only)"
    assert m.echo("since/resume", "approve") == "ESTALE"
    restore(m, "since")
    assert rows(m) == [5] and m.status("since") == "waiting (1 call)"
    assert m.status("base") == "waiting (1 call)"
    assert m.status("above") == "off-line", "it was taken before, but on what that restore of base replaced"
    assert undo(m) is None and m.status("since") == "off-line" and rows(m) == [2]
    assert m.status("above") == "waiting (1 call)"


def test_a_checkpoint_that_was_off_line_goes_off_line_again(m):
    put(m, 1)
    sealed(m, "lower")
    put(m, 2)
    sealed(m, "upper")
    restore(m, "lower")
    restore(m, "upper")
    assert m.status("upper") == "waiting (1 call)" and rows(m) == [2]
    assert undo(m) is None
    assert m.status("upper") == "off-line" and rows(m) == [1]
    assert undo(m) is None
    assert m.status("upper") == "waiting (1 call)" and rows(m) == [2]


def test_a_database_only_checkpoint_is_open_again(m):
    bare(m, "reopened")
    restore(m, "reopened")
    assert undo(m) is None
    with pytest.raises(OSError, match="Stale"):  # it belongs to the branch of which it was taken
        (m / "reopened/state.json").write_bytes(STATE.read_bytes())


# -- decisions


def test_a_decision_that_was_given_stays_given(m):
    put(m, 1)
    sealed(m, "decided")
    assert m.echo("decided/resume", "approve") is None
    assert m.status("decided") == "finished"
    restore(m, "decided")
    assert m.status("decided") == "waiting (1 call)"
    assert m.echo("decided/resume", "reject no") is None
    assert undo(m) is None
    assert m.status("decided") == "finished"
    assert "decided" not in os.listdir(m / ".pending")
    assert m.echo("decided/resume", "approve") == "EALREADY"
    restore(m, "decided")
    assert m.echo("decided/resume", "approve") is None, "a new attempt"


def test_an_open_attempt_is_open_again_after_a_replay(m):
    put(m, 1)
    sealed(m, "replayed")
    put(m, 2)
    assert m.echo("replayed/replay", "in-place approve") is None
    assert m.status("replayed") == "finished" and rows(m) == [1]
    assert undo(m) is None
    assert m.status("replayed") == "waiting (1 call)" and rows(m) == [2]
    assert m.echo("replayed/resume", "approve") is None


# -- what is refused


def test_the_replaced_branch_is_gone(m):
    put(m, 1)
    bare(m, "gone")
    old = active(m)
    restore(m, "gone")
    assert m.emulator.console("delete_branch", branch_id=old).status < 300
    before = World(m)
    assert undo(m) == "ENODATA"
    assert old in said(m)["message"] and "gone from Neon" in said(m)["message"]
    assert World(m) == before and rows(m) == [1]
    sealed(m, "goes-on")


def test_busy(m):
    put(m, 1)
    sealed(m, "busy")
    restore(m, "busy")
    with m.held(RESTORE):
        assert m.echo(".control/undo", "nowait undo") is None
        assert m.echo("busy/restore", "in-place") == "EBUSY" and "undo act-" in m.result("busy")["message"]
        assert m.echo("busy/resume", "approve") == "EBUSY"
        assert m.echo(".control/adopt", f"adopt {active(m)}") == "EBUSY"
        with pytest.raises(OSError, match="busy"):
            os.mkdir(m / "refused")
        assert undo(m) == "EBUSY"
    wait_until(lambda: not [f for f in os.listdir(m / ".control/actions") if m.json(f".control/actions/{f}")["state"] == "running"])
    restore(m, "busy")
    with m.held(RESTORE):
        assert m.echo("busy/restore", "nowait in-place") is None
        assert undo(m) == "EBUSY" and "restore of busy" in said(m)["message"]
    m.wait("busy")


def test_takes_in_the_queue_fail(m):
    put(m, 1)
    bare(m, "first-in-line")
    restore(m, "first-in-line")
    with m.held(OPERATION):
        os.mkdir(m / "runs")
        wait_until(lambda: "snapshot_name" in (m / "runs/result").read_text() if (m / "runs/result").exists() else False)  # it has the turn
        os.mkdir(m / "queued")
        assert m.echo(".control/undo", "nowait undo") is None
        action = said(m)["action"]
    ended = wait_until(lambda: (d := m.json(f".control/actions/{action}.json"))["state"] not in ("queued", "running") and d)
    assert ended["state"] == "done", ended
    assert m.status("runs") == "off-line", "it was taken of what is gone now"
    assert m.status("queued").startswith("failed take: the undo act-")
    os.rmdir(m / "queued")


def test_words(m):
    assert m.echo(".control/undo", "undo everything") == "EINVAL" and "undo takes: undo" in said(m)["message"]
    assert m.write(".control/undo", '{"verb": "undo"}') in (None, "ENODATA")
    assert m.read(".control/undo") == ""


@pytest.mark.parametrize("limit, wanted", [("--root-branches=2", "2 root branches"), ("--snapshots=1", "1 snapshots")])
def test_a_plan_that_leaves_no_room(limit, wanted):
    with Mount(emulator=[limit]) as m:
        put(m, 1)
        bare(m, "only")
        put(m, 2)
        restore(m, "only")
        before = World(m)
        assert undo(m) == "EDQUOT"
        message = said(m)["message"]
        assert wanted in message and "nothing was changed" in message
        assert World(m) == before and rows(m) == [1]
        if "snapshots" in limit:
            assert "echo 'delete only' > .control/prune" in message
            assert m.echo(".control/prune", "delete only") is None
            assert undo(m) is None and rows(m) == [2], "the checkpoint need not be there any more"
        else:
            assert "to free one" not in message, "only what is to come back could go"


def test_two_mounts():
    with Mount(resume="echo woken") as m, Second(m) as other:
        put(m, 1)
        sealed(m, "seen")
        put(m, 2)
        sealed(m, "hidden")
        restore(m, "seen")
        wait_until(lambda: active(other) == active(m))
        assert undo(other) is None, said(other)
        assert rows(m) == [2]
        assert other.status("hidden") == "waiting (1 call)" and active(other) == World(m).default
        wait_until(lambda: m.status("hidden") == "waiting (1 call)" and active(m) == World(m).default)
        assert undo(m) == "ENODATA"
        restore(m, "seen")
        assert rows(m) == [1] and active(m) == World(m).default
        wait_until(lambda: other.status("hidden") == "off-line" and active(other) == World(m).default)


def test_a_killed_mount_s_undo_is_finished_by_the_other_one():
    with Mount(resume="echo woken") as m, Second(m) as other:
        put(m, 1)
        sealed(m, "seen")
        put(m, 2)
        restore(m, "seen")
        before = World(m)
        wait_until(lambda: active(other) == active(m))
        m.emulator.fault(f"{FINALIZE}=delay:{HOLD}")
        assert other.echo(".control/undo", "nowait undo") is None
        action = said(other)["action"]
        wait_until(lambda: held(m, FINALIZE))
        other.kill()
        m.emulator.control("DELETE", "faults")
        wait_until(lambda: m.json(f".control/actions/{action}.json")["state"] == "done", 90)
        quiet(m)
        wait_until(lambda: World(m).snapshots == before.snapshots and active(m) == World(m).default)
        undone_once(m, before, "seen")
        assert rows(m) == [2]


# -- failures and kills


FAILING = {
    "the snapshot is refused": f"{SNAPSHOT}=500",
    "the snapshot fails": f"{SNAPSHOT}=op:error:disk on fire",
    "the restore is refused": f"{RESTORE}=500",
    "the restore fails": f"{RESTORE}=op:error:disk on fire",
    "finalizing fails": f"{FINALIZE}=op:error:disk on fire",
}


@pytest.mark.parametrize("where", FAILING)
def test_a_failure_changes_nothing_or_is_overcome(m, where):
    put(m, 1)
    bare(m, "failing-" + where.replace(" ", "-"))
    put(m, 2)
    restore(m, "failing-" + where.replace(" ", "-"))
    before = World(m)
    m.emulator.fault(FAILING[where])
    answer = undo(m)
    if "refused" in where:  # nothing was done: asked for again under the same name
        assert answer is None and rows(m) == [2]
        return
    assert answer == "EIO" and "disk on fire" in said(m)["message"]
    assert World(m) == before and rows(m) == [1]
    assert undo(m) is None and rows(m) == [2]


def test_a_snapshot_that_can_not_be_deleted_is_swept_later(m):
    put(m, 1)
    bare(m, "sweeping")
    put(m, 2)
    restore(m, "sweeping")
    before = World(m)
    m.emulator.fault(f"{DELETE}=500*inf")
    assert undo(m) is None, said(m)
    assert rows(m) == [2]
    left = set(World(m).snapshots) - set(before.snapshots)
    assert [World(m).snapshots[s] for s in left] == [said(m)["journal"]["snapshot_name"]]
    m.emulator.control("DELETE", "faults")
    wait_until(lambda: World(m).snapshots == before.snapshots)
    undone_once(m, before, "sweeping")


def test_the_next_mount_sweeps_it_too(m):
    put(m, 1)
    bare(m, "sweeping.again")
    restore(m, "sweeping.again")
    before = World(m)
    m.emulator.fault(f"{DELETE}=500*inf")
    assert undo(m) is None, said(m)
    m.kill()
    m.emulator.control("DELETE", "faults")
    assert World(m).snapshots != before.snapshots
    m.mount()
    wait_until(lambda: World(m).snapshots == before.snapshots)


def held(m, route):
    return not any(f["rule"].startswith(route + "=delay") for f in m.emulator.control("GET", "faults").json["faults"])


UNDOING = {
    "while the record is checked": (BRANCHES, []),
    "with the snapshot's request on its way": (SNAPSHOT, []),
    "after the snapshot's answer was lost": (OPERATIONS, [f"{SNAPSHOT}=drop-after"]),
    "while the snapshot is made": (OPERATION, []),
    "with the restore request on its way": (RESTORE, []),
    "after the restore's answer was lost": (OPERATIONS, [f"{RESTORE}=drop-after"]),
    "while the new branch is verified": (BRANCH, []),
    "with the finalize request on its way": (FINALIZE, []),
    "after finalize's answer was lost": (OPERATIONS, [f"{FINALIZE}=drop-after"]),
    "before the connection is tried": (URI, []),
    "with the snapshot's deletion on its way": (DELETE, []),
    "after the deletion's answer was lost": (OPERATIONS, [f"{DELETE}=drop-after"]),
}


@pytest.mark.parametrize("where", UNDOING)
def test_a_killed_undo_is_done_once(m, where):
    route, faults = UNDOING[where]
    name = "killed-" + where.replace(" ", "-").replace("'", "")
    put(m, 1)
    sealed(m, name)
    put(m, 2)
    restore(m, name)
    before = World(m)
    for fault in faults:
        m.emulator.fault(fault)
    m.emulator.fault(f"{route}=delay:{HOLD}")
    assert m.echo(".control/undo", "nowait undo") is None
    action = said(m)["action"]
    wait_until(lambda: held(m, route))
    m.kill()
    m.emulator.control("DELETE", "faults")
    m.mount()
    wait_until(lambda: m.json(f".control/actions/{action}.json")["state"] not in ("running", "queued"), 60)
    quiet(m)
    assert said(m)["action"] == action
    wait_until(lambda: World(m).snapshots == before.snapshots)  # a request that arrived late is found and taken back
    undone_once(m, before, name)
    assert rows(m) == [2] and m.status(name) == "waiting (1 call)"
    assert [e["event"] for e in m.events() if e.get("action") == action and e["event"].startswith("undo.")] == ["undo.started",
                                                                                                              "undo.finished"]
    assert undo(m) == "ENODATA"


def test_killed_in_the_queue(m):
    put(m, 1)
    bare(m, "waits")
    put(m, 2)
    restore(m, "waits")
    m.emulator.fault(f"{OPERATION}=delay:{HOLD}")
    os.mkdir(m / "ahead")
    wait_until(lambda: held(m, OPERATION))
    assert m.echo(".control/undo", "nowait undo") is None
    action = said(m)["action"]
    m.kill()
    m.mount()
    wait_until(lambda: m.json(f".control/actions/{action}.json")["state"] == "done", 60)
    assert rows(m) == [2]


def test_the_time_line_says_that_the_undo_is_over():
    with Mount(resume="echo woken") as m:
        put(m, 1)
        m.take("told", meta={"run_id": "told"})
        restore(m, "told")
        assert undo(m) is None, said(m)
        path = ".runs/told/timeline.txt"
        now = wait_until(lambda: "undid" in (text := m.read(path)) and text)
        m.remount()
        assert m.read(path) == now

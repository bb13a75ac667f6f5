"""Restore in place: the data, the branches, what goes off-line, what is refused (design.md §5)."""

import errno
import json
import os
import threading
import time

import psycopg
import pytest
from emulator import wait_until
from mount import Mount, STATE
from restoring import (FINALIZE, OPERATION, SNAPSHOT, World, active, bare, put, quiet, restore, restored_once, rows, sealed, tidy)

SLEEPER = 'echo "$CHECKPOINT_DECISIONS"; exec sleep 600'


@pytest.fixture(scope="module")
def m():
    with Mount(resume=SLEEPER) as mount:
        yield mount


@pytest.fixture(autouse=True)
def clean(request):
    yield
    if "m" in request.fixturenames:
        tidy(request.getfixturevalue("m"))


def at_step(m, name, step):
    return m.wait_status(name, f"restoring {step}/5")


def agent_runs(m, name):
    """Until it has printed its action: a cancel of one that is announced and not yet started leaves the decision free."""
    m.wait_status(name, "agent running")
    wait_until(lambda: (m / name / "output").exists() and m.result(name)["action"] in m.read(f"{name}/output"))


def in_background(function, *args):
    """Runs it in a thread; `.answer` is what it returned, once joined."""
    class Call(threading.Thread):
        answer = "unanswered"

        def run(self):
            self.answer = function(*args)

        def done(self):
            self.join(60)
            return self.answer

    call = Call(daemon=True)
    call.start()
    return call


# -- what comes back


def test_the_data_comes_back_under_the_same_connection_string(m):
    put(m, 1, 2)
    sealed(m, "back")
    uri, before = m.uri(), World(m)
    put(m, 3)
    restore(m, "back")
    assert m.uri() == uri and rows(m) == [1, 2]
    now = restored_once(m, before, "back")
    assert active(m) == now.default != before.default
    assert now.default in now.finalized
    result = m.result("back")
    assert result["command"] == "in-place" and result["name"] == "back" and result["action"]
    assert now.branches[before.default].endswith(result["action"])
    assert m.status("back") == "waiting (1 call)"
    assert m.json("back/snapshot.json")["branch_id"] == before.default, "as it was captured"


def test_all_databases_and_roles_come_back(m):
    m.sql("drop database if exists second")
    m.sql("create database second")
    m.sql("drop role if exists helper")
    m.sql("create role helper nologin")
    bare(m, "whole")
    m.sql("drop database second")
    m.sql("drop role helper")
    m.sql("create role intruder nologin")
    restore(m, "whole")
    assert m.sql("select datname from pg_database where datname = 'second'")
    assert m.sql("select rolname from pg_roles where rolname in ('helper', 'intruder')") == [("helper",)]
    m.sql("drop database second")
    m.sql("drop role helper")


def test_the_replaced_branch_still_holds_what_was_replaced(m):
    put(m, 1)
    bare(m, "kept")
    put(m, 2)
    old = active(m)
    restore(m, "kept")
    assert m.emulator.branch(old)["name"] == f"replaced-kept-{m.result('kept')['action']}"
    m.emulator.ok("POST", "/projects/{p}/endpoints", {"endpoint": {"branch_id": old, "type": "read_write"}})
    assert m.emulator.sql("select n from t", m.emulator.uri(old)) == "2"


def test_the_same_checkpoint_can_be_restored_again_and_again(m):
    put(m, 1)
    sealed(m, "again")
    branches = {active(m)}
    for n in (2, 3):
        put(m, n)
        before = World(m)
        restore(m, "again")
        restored_once(m, before, "again")
        assert rows(m) == [1]
        branches.add(active(m))
    assert len(branches) == 3


def test_open_connections_are_cut_and_new_ones_see_the_new_data(m):
    put(m, 1)
    bare(m, "cut")
    with psycopg.connect(m.uri(), autocommit=True) as held:
        held.execute("insert into t values (2)")
        restore(m, "cut")
        with pytest.raises(psycopg.OperationalError):
            held.execute("select 1")
    assert rows(m) == [1]


def test_progress_is_seen_while_it_runs(m):
    put(m, 1)
    bare(m, "progress")
    seen = set()
    for step, rule in ((3, OPERATION), (5, f"{FINALIZE}>{OPERATION}")):
        with m.held(rule):
            call = in_background(m.echo, "progress/restore", "in-place")
            at_step(m, "progress", step)
        while call.is_alive():
            status = m.status("progress")
            if status.startswith("restoring"):
                seen.add(status)
        assert call.done() is None
    assert seen <= {f"restoring {k}/5" for k in range(1, 6)}
    assert m.status("progress") == "saved (database only)"


# -- what goes off-line


def test_what_was_taken_after_the_point_goes_off_line_and_comes_back_when_restored(m):
    put(m, 1)
    sealed(m, "first-line")
    put(m, 2)
    sealed(m, "second-line")
    put(m, 3)
    bare(m, "third-line")
    assert os.readlink(m / "latest") == "second-line"
    restore(m, "first-line")
    assert [m.status(n) for n in ("second-line", "third-line")] == ["off-line", "off-line"]
    assert m.status("first-line") == "waiting (1 call)"
    assert "first-line" in os.listdir(m / ".pending") and "second-line" not in os.listdir(m / ".pending")
    assert os.readlink(m / "latest") == "first-line"
    assert m.echo("second-line/resume", "approve") == "ESTALE"
    assert "restore" in m.result("second-line")["message"]
    assert (m / "second-line/state.json").read_bytes() == STATE.read_bytes(), "still readable"

    sealed(m, "fourth-line")
    restore(m, "second-line")
    assert rows(m) == [2]
    assert m.status("second-line") == "waiting (1 call)" and m.status("first-line") == "waiting (1 call)"
    assert m.status("fourth-line") == "off-line"
    assert os.readlink(m / "latest") == "second-line" and "second-line" in os.listdir(m / ".pending")


def test_only_what_the_restored_database_has_behind_it_stays_on_line(m):
    put(m, 1)
    sealed(m, "zig")
    put(m, 2)
    sealed(m, "side")
    restore(m, "zig")
    put(m, 3)
    sealed(m, "zag")
    restore(m, "side")
    restore(m, "zag")
    assert rows(m) == [3]
    assert [m.status(n) for n in ("zig", "side", "zag")] == ["waiting (1 call)", "off-line", "waiting (1 call)"]
    assert m.echo("side/resume", "approve") == "ESTALE"
    assert m.echo(".control/undo", "undo") is None
    assert [m.status(n) for n in ("zig", "side", "zag")] == ["waiting (1 call)", "waiting (1 call)", "off-line"]


@pytest.mark.parametrize("goes", [(), ("up",), ("up", "base")], ids=["nothing", "one", "two"])
def test_what_a_deleted_checkpoint_had_behind_it_is_still_known(m, goes):
    """`down` came out of `up`, and `up` out of `base`: what was taken beside them isn't behind it, whatever is deleted meanwhile."""
    names = [f"{n}-{len(goes)}" for n in ("base", "beside", "up", "down")]
    base, beside, up, down = names
    for name, before, row in ((base, None, 1), (beside, None, 2), (up, base, 3), (down, up, 4)):
        if before:
            restore(m, before)
        put(m, row)
        bare(m, name)
    for name in goes:
        assert m.echo(".control/prune", f"delete {name}-{len(goes)}") is None
    left = [n for n in names if (m / n).exists()]

    def off_line():
        return [n for n in left if m.status(n) == "off-line"]

    restore(m, beside)
    assert rows(m) == [2] and off_line() == [n for n in left if n in (up, down)]
    restore(m, down)
    assert rows(m) == [4] and off_line() == [n for n in left if n in (beside, up)], "what is off line waits for its own restore"
    assert m.echo(".control/undo", "undo") is None
    assert rows(m) == [2] and off_line() == [n for n in left if n in (up, down)]


def test_a_state_can_not_be_written_to_a_take_whose_database_was_replaced(m):
    put(m, 1)
    bare(m, "ground")
    bare(m, "orphan")
    restore(m, "ground")
    with pytest.raises(OSError) as caught:
        (m / "orphan/state.json").write_bytes(STATE.read_bytes())
    assert caught.value.errno == errno.ESTALE
    assert m.status("orphan") == "off-line"


def test_a_database_only_checkpoint_is_closed_by_its_restore(m):
    bare(m, "closed")
    restore(m, "closed")
    with pytest.raises(OSError) as caught:
        (m / "closed/state.json").write_bytes(STATE.read_bytes())
    assert caught.value.errno == errno.EPERM
    assert m.status("closed") == "saved (database only)"
    restore(m, "closed")


# -- what is refused


def test_without_a_snapshot_there_is_nothing_to_restore(m):
    before = World(m)
    m.emulator.fault(f"{SNAPSHOT}=op:error:disk on fire")
    os.mkdir(m / "none")
    m.wait_status("none", "failed take")
    assert "disk on fire" in m.status("none")
    assert m.echo("none/restore", "in-place") == "ENODATA"
    assert "no snapshot" in m.result("none")["message"]
    assert World(m) == before
    os.rmdir(m / "none")


def test_a_snapshot_that_was_deleted_in_the_console(m):
    put(m, 1)
    sealed(m, "deleted")
    snapshot = m.json("deleted/snapshot.json")["id"]
    assert m.emulator.console("delete_snapshot", snapshot_id=snapshot).status < 300
    before = World(m)
    assert m.echo("deleted/restore", "in-place") == "ENODATA"
    message = m.result("deleted")["message"]
    assert snapshot in message and "deleted" in message
    assert m.status("deleted").endswith(", snapshot missing"), "known from then on"
    assert m.echo("deleted/restore", "in-place") == "ENODATA"
    assert World(m) == before
    assert (m / "deleted/state.json").read_bytes() == STATE.read_bytes()


def test_a_snapshot_that_is_gone_is_noticed_without_being_asked(m):
    sealed(m, "noticed")
    assert m.emulator.console("delete_snapshot", snapshot_id=m.json("noticed/snapshot.json")["id"]).status < 300
    wait_until(lambda: m.status("noticed").endswith(", snapshot missing"))
    assert m.status("noticed") == "waiting (1 call), snapshot missing"


def test_an_expired_snapshot(m):
    put(m, 1)
    sealed(m, "expired")
    snapshot = m.json("expired/snapshot.json")["id"]

    def soon():  # and not past, which Neon refuses, when it comes there
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2))
        return m.emulator.api("PATCH", f"/projects/{{p}}/snapshots/{snapshot}", {"snapshot": {"expires_at": when}}).status < 300

    wait_until(soon)
    wait_until(lambda: snapshot not in [s["id"] for s in m.emulator.snapshots()])
    assert m.echo("expired/restore", "in-place") == "ENODATA"
    assert "expired or" in m.result("expired")["message"]
    assert m.status("expired").endswith(", snapshot missing") and "expired" in os.listdir(m / ".pending")


def test_a_second_restore_is_busy_and_so_is_a_take(m):
    put(m, 1)
    sealed(m, "busy-a")
    sealed(m, "busy-b")
    before = World(m)
    with m.held(OPERATION):
        call = in_background(m.echo, "busy-a/restore", "in-place")
        at_step(m, "busy-a", 3)
        assert m.echo("busy-a/restore", "in-place") == "EBUSY", "while its first writer waits"
        assert m.echo("busy-b/restore", "in-place") == "EBUSY"
        assert "busy-a" in m.result("busy-b")["message"] or "under way" in m.result("busy-b")["message"]
        assert m.echo("busy-b/resume", "approve") == "EBUSY"
        assert m.echo("busy-b/replay", "in-place approve") == "EBUSY"
        with pytest.raises(OSError) as caught:
            os.mkdir(m / "busy-c")
        assert caught.value.errno == errno.EBUSY
        assert not (m / "busy-c").exists()
    assert call.done() is None
    restored_once(m, before, "busy-a")
    bare(m, "busy-c")


def test_a_restore_while_an_agent_runs_is_busy_and_takes_pass(m):
    put(m, 1)
    sealed(m, "woken")
    sealed(m, "other")
    before = World(m)
    assert m.echo("woken/resume", "nowait approve") is None
    agent_runs(m, "woken")
    assert m.echo("other/restore", "in-place") == "EBUSY"
    assert "woken" in m.result("other")["message"] or "resume" in m.result("other")["message"]
    assert World(m) == before
    bare(m, "meanwhile")
    assert m.echo("woken/cancel", "cancel") is None
    m.wait("woken")
    restore(m, "woken")


def test_after_a_restore_plain_words_decide_again(m):
    sealed(m, "decided")
    assert m.echo("decided/resume", "nowait approve") is None
    agent_runs(m, "decided")
    assert m.echo("decided/cancel", "cancel") is None
    m.wait("decided")
    assert m.echo("decided/resume", "approve") == "EALREADY"
    restore(m, "decided")
    assert m.status("decided") == "waiting (1 call)"
    assert m.echo("decided/resume", "nowait approve") is None
    agent_runs(m, "decided")
    assert m.echo("decided/cancel", "cancel") is None
    m.wait("decided")


def test_an_interrupted_writer_leaves_the_restore_going_on(m):
    put(m, 1)
    bare(m, "left")
    put(m, 2)
    before = World(m)
    with m.held(OPERATION):
        assert m.echo("left/restore", "nowait in-place") is None
        at_step(m, "left", 3)
        assert m.result("left")["state"] == "running" and m.result("left")["journal"]["restored_name"].startswith("left-act-")
    assert m.wait("left") == "saved (database only)"
    restored_once(m, before, "left")
    assert rows(m) == [1]


def test_queued_takes_of_a_branch_being_replaced_fail_and_the_restore_passes_them(m):
    put(m, 1)
    bare(m, "point")
    put(m, 2)
    with m.held(SNAPSHOT):
        os.mkdir(m / "running-take")
        wait_until(lambda: "snapshot_name" in journal(m, "running-take"))
        for k in range(3):
            os.mkdir(m / f"queued-{k}")
        assert m.echo("point/restore", "nowait in-place") is None
    assert m.wait("point") == "saved (database only)"
    assert rows(m) == [1]
    assert m.status("running-take") == "off-line", "its turn had come; it is of the replaced database"
    for k in range(3):
        status = m.status(f"queued-{k}")
        assert status.startswith("failed take: ") and "restore" in status and "point" in status
    before = World(m)
    fd = os.open(m / "queued-0/state.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for _ in range(2):  # whoever made the directory before the restore must not get a pair by luck
        with pytest.raises(OSError) as caught:
            os.write(fd, b"{}")
        assert caught.value.errno == errno.ESTALE
    os.close(fd)
    assert m.status("queued-0").startswith("failed take: ") and World(m) == before
    (m / "queued-0/state.json").write_text("{}")
    m.wait_status("queued-0", "saved")
    assert m.json("queued-0/snapshot.json")["branch_id"] == active(m)
    for k in (1, 2):
        os.rmdir(m / f"queued-{k}")


def journal(m, name):
    """What the journal says of the take of that name, as text."""
    docs = [json.loads(f.read_text()) for f in (m / ".control/actions").iterdir()]
    return json.dumps([d.get("journal") for d in docs if d.get("command") == f"mkdir {name}"])


def test_a_restore_waits_for_a_take_under_way(m):
    put(m, 1)
    bare(m, "early")
    put(m, 2)
    m.emulator.fault(f"{OPERATION}=delay:500")
    os.mkdir(m / "under-way")
    wait_until(lambda: "operations" in journal(m, "under-way"))
    restore(m, "early")
    assert rows(m) == [1] and m.status("under-way") == "off-line"
    restore(m, "under-way")
    assert rows(m) == [2]


# -- changed from outside


def console_restore(m, name):
    """Somebody restores the checkpoint's snapshot in the console, finalized at once."""
    snapshot, branch = m.json(f"{name}/snapshot.json")["id"], m.emulator.default_branch()["id"]
    answer = m.emulator.ok("POST", f"/projects/{{p}}/snapshots/{snapshot}/restore",
                           {"target_branch_id": branch, "finalize_restore": True})
    return answer["branch"]["id"]


def refused_naming(m, name, *ids):
    before = World(m)
    branch = active(m)
    assert m.echo(f"{name}/restore", "in-place") == "ESTALE"
    for an_id in ids:
        assert an_id in m.result(name)["message"], m.result(name)
    os.mkdir(m / f"{name}-take")
    status = m.wait_status(f"{name}-take", "failed take")
    for an_id in ids:
        assert an_id in status
    with pytest.raises(OSError):
        (m / f"{name}-take/state.json").write_text("{}")
    os.rmdir(m / f"{name}-take")
    assert World(m) == before and active(m) == branch


def test_a_restore_in_the_console_is_noticed():
    with Mount() as m:
        put(m, 1)
        sealed(m, "outside")
        old = active(m)
        new = console_restore(m, "outside")
        refused_naming(m, "outside", old, new)
        m.remount()
        assert m.status("outside").startswith("failed restore: the active branch")
        refused_naming(m, "outside", old, new)
        del m.emulator.env["NEON_BRANCH_ID"]
        m.remount()
        assert (m / "outside").is_dir(), "the line is known by its endpoint"
        refused_naming(m, "outside", old, new)


def test_a_default_branch_that_moved_and_a_branch_that_is_gone():
    with Mount(emulator=("--plan", "paid")) as m:
        del m.emulator.env["NEON_BRANCH_ID"]
        m.remount()
        put(m, 1)
        sealed(m, "moved")
        old = active(m)
        snapshot = m.json("moved/snapshot.json")["id"]
        other = m.emulator.ok("POST", f"/projects/{{p}}/snapshots/{snapshot}/restore", {"name": "another"})["branch"]["id"]
        assert m.emulator.console("set_default", branch_id=other).status < 300
        refused_naming(m, "moved", old, other)
        assert m.emulator.console("set_default", branch_id=old).status < 300
        restore(m, "moved")
        now = active(m)
        assert m.emulator.console("set_default", branch_id=other).status < 300
        assert m.emulator.console("delete_branch", branch_id=now).status < 300
        refused_naming(m, "moved", now, other)


def test_the_endpoint_changes_hands_while_a_restore_is_under_way():
    """What Neon says is looked at again right before the swap."""
    with Mount() as m:
        endpoint_changes_hands(m)


def endpoint_changes_hands(m):
    put(m, 1)
    bare(m, "race")
    before = World(m)
    with m.held("GET:/projects/*/branches/*"):
        call = in_background(m.echo, "race/restore", "in-place")
        at_step(m, "race", 3)
        quiet(m)
        new = console_restore(m, "race")
    assert call.done() == "ESTALE"
    message = m.result("race")["message"]
    assert before.default in message and new in message
    assert m.status("race").startswith("failed restore: ")
    assert active(m) == before.default
    now = World(m)
    assert set(now.branches) == set(before.branches) | {new}, "the branch made for it is deleted"


# -- quota


def test_the_free_plan_has_room_for_two_restores():
    with Mount(emulator=("--plan", "free")) as m:
        put(m, 1)
        bare(m, "only")
        restore(m, "only")
        restore(m, "only")
        put(m, 2)
        before = World(m)
        assert m.echo("only/restore", "in-place") == "EDQUOT"
        message = m.result("only")["message"]
        assert "root branches limit exceeded" in message and "ROOT_BRANCHES_LIMIT_EXCEEDED" in message
        for branch, name in before.branches.items():
            assert branch == before.default or (branch in message and name in message), "what to delete"
        assert before.default not in message.split("delete")[-1]
        assert m.status("only").startswith("failed restore: ") and "limit" in m.status("only")
        assert World(m) == before and rows(m) == [2]
        os.mkdir(m / "second")
        status = m.wait_status("second", "failed take")
        assert "snapshots limit exceeded" in status and m.json("only/snapshot.json")["id"] in status
        replaced = next(b for b in before.branches if b != before.default)
        assert m.emulator.console("delete_branch", branch_id=replaced).status < 300
        restore(m, "only")
        assert rows(m) == [1]

"""Isolated branches: a checkpoint replayed beside the active branch, which nobody notices there (design.md §1, §2, §5)."""

import json
import os
import re
import shutil
import stat
import threading
import time

import psycopg
import pytest

from emulator import wait_until
from mount import CALL, DEADLINE, Fresh, Second
from restoring import active, bare
from woken import Woken

NOTE = 'cat "$CHECKPOINT_DECISIONS" > "$AGENTS/$CHECKPOINT_NAME.decisions"; echo "$CHECKPOINT_BRANCH $DATABASE_URL $CHECKPOINT_NEXT_DIR"'


@pytest.fixture(scope="module")
def m():
    with Woken("--config=/dev/null") as mount:
        mount.sql("CREATE TABLE t (n int)")
        yield mount


@pytest.fixture(autouse=True)
def room(request):
    """A project has only so many root branches: each test deletes what it made."""
    yield
    if "m" not in request.fixturenames:
        return
    m = request.getfixturevalue("m")
    for name in os.listdir(m.root):
        if not (m / name / "branches").is_dir() or name == "latest":
            continue
        for branch in os.listdir(m / name / "branches"):
            m.read(f"{name}/branches/{branch}/wait")
            if m.read(f"{name}/branches/{branch}/status").startswith("failed restore"):
                os.rmdir(m / name / "branches" / branch)
            else:
                assert m.echo(".control/prune", f"delete {name}/branches/{branch}") is None


def on(m, path, statement):
    """Runs SQL on a branch, by the connection string that the mount shows."""
    with psycopg.connect(m.read(f"{path}/connection_uri").strip(), autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def ready(m, path):
    wait_until(lambda: not m.read(f"{path}/status").startswith("restoring"), DEADLINE)
    return m.read(f"{path}/status").rstrip("\n")


def test_made_by_a_write(m):
    m.sql("INSERT INTO t VALUES (1)")
    m.waits("first", NOTE)
    m.sql("INSERT INTO t VALUES (2)")
    before = active(m)
    assert m.echo("first/restore", "branch fix-1") is None, m.result("first")
    path = "first/branches/fix-1"
    assert os.listdir(m / "first/branches") == ["fix-1"]
    assert ready(m, path) == "waiting (1 call)"
    assert on(m, path, "SELECT count(*) FROM t") == [(1,)]
    assert m.sql("SELECT count(*) FROM t") == [(2,)] and active(m) == before
    branch = m.json(f"{path}/branch.json")
    neon = m.emulator.branch(branch["branch_id"])
    assert neon["restored_from"] == branch["snapshot_id"] and neon["name"] == branch["branch_name"]
    assert branch["endpoint_id"] in [e["id"] for e in m.emulator.endpoints() if e["branch_id"] == branch["branch_id"]]
    assert m.json(f"{path}/result")["state"] == "done"
    assert m.read("first/result") == m.read(f"{path}/result"), "beside the file that it was written to"
    assert sorted(os.listdir(m / path)) == sorted(["branch.json", "status", "result", "resume", "cancel", "promote", "checkpoints"])
    assert stat.S_IMODE(os.stat(m / path / "connection_uri").st_mode) == 0o400


def test_made_by_mkdir(m):
    m.sql("DELETE FROM t")
    m.waits("second", NOTE)
    os.mkdir(m / "second/branches/try")
    assert m.read("second/branches/try/wait") == "waiting (1 call)\n"
    assert on(m, "second/branches/try", "SELECT count(*) FROM t") == [(0,)]
    with pytest.raises(FileExistsError):
        os.mkdir(m / "second/branches/try")
    with pytest.raises(OSError, match="Directory not empty"):
        os.rmdir(m / "second/branches/try")


def test_another_mount_asks_where_to_connect_to(m):
    """At once, not when it looks at everything again, which may be minutes later. A machine that stood still for a moment says nothing."""
    with Second(m) as other:
        wait_until(lambda: "reachable" in other.read(".control/health"))
        time.sleep(4)  # its first looks are over
        bare(m, "seen")
        for n in range(5):
            assert m.echo("seen/restore", f"branch b{n}") is None
            path, began = f"seen/branches/b{n}", time.monotonic()
            wait_until((other / path / "connection_uri").exists, 10 * DEADLINE)
            took = time.monotonic() - began
            assert other.read(f"{path}/connection_uri") == m.read(f"{path}/connection_uri")
            if took < 2:
                break
        assert took < 2


def test_resume_on_a_branch(m):
    m.waits("third", NOTE)
    assert m.echo("third/restore", "branch fix") is None
    path = "third/branches/fix"
    assert m.echo(f"{path}/resume", "reject Not now") is None
    assert m.read(f"{path}/status") == "finished\n"
    assert m.status("third") == "waiting (1 call)", "the line's attempt is untouched"
    branch, uri, next_dir = m.read(f"{path}/output").split()
    assert branch == m.json(f"{path}/branch.json")["branch_id"] and uri == m.read(f"{path}/connection_uri").strip()
    assert next_dir == str(m / path / "checkpoints")
    assert json.loads(m.left("third", "decisions"))["decisions"][0]["message"] == "Not now"
    assert not (m / "third/output").exists()
    assert m.echo(f"{path}/resume", "approve") == "EALREADY"
    assert m.json(f"{path}/result")["message"]
    assert m.echo("third/resume", "approve") is None
    assert m.read("third/output").split()[0] == active(m)


def test_stopped_again_on_a_branch(m):
    m.sql("DELETE FROM t")
    m.waits("fourth", 'psql -qc "INSERT INTO t VALUES (7)" "$DATABASE_URL"; child fourth.2; exit 10')
    assert m.echo("fourth/restore", "branch b") is None
    path = "fourth/branches/b"
    assert m.echo(f"{path}/resume", "approve") is None, m.json(f"{path}/result")
    assert m.read(f"{path}/status") == "stopped again -> fourth.2\n"
    assert os.readlink(m / path / "checkpoints/fourth.2") == "../../../../fourth.2"
    assert os.listdir(m / path / "checkpoints") == ["fourth.2"]
    assert m.json("fourth.2/snapshot.json")["branch_id"] == m.json(f"{path}/branch.json")["branch_id"]
    assert os.path.lexists(m / ".pending/fourth.2")
    assert os.readlink(m / "latest") == "fourth", "it is not of the active line"
    assert m.echo("fourth.2/restore", "in-place") == "EXDEV"
    assert m.echo("fourth.2/replay", "in-place approve") == "EXDEV"
    m.agent("fourth.2", NOTE)
    assert m.echo("fourth.2/resume", "approve") is None, m.result("fourth.2")
    assert m.read("fourth.2/output").split()[0] == m.json(f"{path}/branch.json")["branch_id"]
    assert m.sql("SELECT * FROM t") == [] and on(m, path, "SELECT * FROM t") == [(7,)]


def imported(m, copy, to, edit=False):
    """mv of a copy out of .import/; `edit`: with another state, so that it is a fork."""
    shutil.copytree(copy, m / ".import" / to, symlinks=True)
    if edit:
        state = m / ".import" / to / "state.json"
        text = json.loads(state.read_text()) | {"max_turns": 33}
        state.unlink()
        state.write_text(json.dumps(text))
    os.rename(m / ".import" / to, m / to)
    return to


def test_a_copy_is_no_way_round(tmp_path):
    """What was taken on an isolated branch is no more fit for production when it was copied, edited and registered."""
    with Woken() as m:
        m.waits("origin", "child inner; exit 10")
        assert m.echo("origin/restore", "branch b") is None
        assert m.echo("origin/branches/b/resume", "approve") is None, m.json("origin/branches/b/result")
        m.waits("outer", NOTE)
        m.settled()
        for name in ("inner", "outer"):
            shutil.copytree(m / name, tmp_path / name, symlinks=True)
        before = active(m)
        for to in (imported(m, tmp_path / "inner", "fork", edit=True), "unnamed"):
            if to == "unnamed":  # which branch its snapshot is of isn't said: another one stands on it
                snapshot = json.loads((tmp_path / "inner/snapshot.json").read_text())
                del snapshot["branch_id"]
                (tmp_path / "inner/snapshot.json").unlink()
                (tmp_path / "inner/snapshot.json").write_text(json.dumps(snapshot))
                imported(m, tmp_path / "inner", to, edit=True)
            told = m.result(to)["message"]
            assert "in-place" not in told and f"echo 'branch NAME' > {to}/restore" in told
            assert m.echo(f"{to}/restore", "in-place") == "EXDEV" and "the isolated branch b of origin" in m.result(to)["message"]
            assert m.echo(f"{to}/restore", f"in-place confirm={before}") == "EXDEV"
            assert m.echo(f"{to}/replay", "in-place approve") == "EXDEV"
            assert to in os.listdir(m / "origin/branches/b/checkpoints")
        assert active(m) == before
        # the same copy of what was taken on the active branch is fit
        assert m.echo(imported(m, tmp_path / "outer", "outer fork", edit=True) + "/restore", "in-place") is None
        now = active(m)
        with Fresh(m) as other:  # a store that knows no such branch: it asks, however young the snapshot is
            for name in ("inner", "outer"):
                imported(other, tmp_path / name, name)
                assert other.echo(f"{name}/restore", "in-place") == "ECANCELED" and active(other) == now
            message = other.result("outer")["message"]
            assert f"and of the branch {before}, never the active one here" in message and f"confirm={now}" in message
            assert "of the branch that nobody named" in other.result("inner")["message"]
            assert other.echo("outer/restore", "dry-run") is None and "It has to be confirmed" in other.result("outer")["message"]
            assert other.echo("outer/restore", f"in-place confirm={now}") is None and active(other) != now
            assert other.echo("outer/restore", "in-place") is not None, "that is for each time"


def test_branch_of_what_was_taken_on_a_branch(m):
    bare(m, "fifth")
    assert m.echo("fifth/restore", "branch a") is None
    on(m, "fifth/branches/a", "INSERT INTO t VALUES (55)")
    os.mkdir(m / "fifth/branches/a/checkpoints/on-a")
    m.wait_status("on-a", "saved (database only)")
    assert m.echo("on-a/restore", "branch b") is None
    assert on(m, "on-a/branches/b", "SELECT count(*) FROM t WHERE n = 55") == [(1,)]


def test_a_checkpoint_by_the_shell_through_the_link(m):
    """mkdir and a write at once, as the design promises: the directory is made at the root (traps.md 16)."""
    bare(m, "sixth")
    assert m.echo("sixth/restore", "branch a") is None
    directory = m / "sixth/branches/a/checkpoints/written"
    os.makedirs(directory)
    (directory / "state.json").write_bytes(b'{"n": 1}')
    wait_until((m / "written/transcript.md").exists, DEADLINE)
    assert (directory / "state.json").read_bytes() == b'{"n": 1}'
    assert m.json("written/snapshot.json")["branch_id"] == m.json("sixth/branches/a/branch.json")["branch_id"]


def test_production_is_untouched(m):
    """Rows are written to the active branch all the while; not one is missing, and no connection was cut."""
    m.sql("CREATE TABLE production (n int PRIMARY KEY)")
    m.waits("seventh", 'psql -qc "DELETE FROM production" "$DATABASE_URL"; child seventh.2; exit 10')
    stop, wrote, errors = threading.Event(), [], []

    def write():
        try:
            with psycopg.connect(m.uri(), autocommit=True) as connection:
                while not stop.is_set():
                    connection.execute("INSERT INTO production VALUES (%s)", (len(wrote),))
                    wrote.append(len(wrote))
        except psycopg.Error as e:
            errors.append(e)

    before = active(m)
    writer = threading.Thread(target=write)
    writer.start()
    wait_until(lambda: len(wrote) > 10 or errors)
    assert m.echo("seventh/restore", "branch replay") is None
    assert m.echo("seventh/branches/replay/resume", "approve") is None
    os.mkdir(m / "seventh/branches/replay/checkpoints/later")
    m.wait_status("later", "saved (database only)")
    so_far = len(wrote)
    wait_until(lambda: len(wrote) > so_far or errors)
    stop.set()
    writer.join()
    assert not errors
    assert m.sql("SELECT count(*) FROM production") == [(len(wrote),)] and active(m) == before
    assert on(m, "seventh/branches/replay", "SELECT count(*) FROM production") == [(0,)]


def test_deleted(m):
    bare(m, "eighth")
    assert m.echo("eighth/restore", "branch gone") is None
    branch = m.json("eighth/branches/gone/branch.json")["branch_id"]
    os.mkdir(m / "eighth/branches/gone/checkpoints/kept")
    m.wait_status("kept", "saved (database only)")
    assert m.echo(".control/prune", "delete eighth") == "EBUSY"
    assert m.echo(".control/prune", "delete eighth/branches/gone") is None
    assert os.listdir(m / "eighth/branches") == []
    assert branch not in [b["id"] for b in m.emulator.branches()]
    assert m.status("kept") == "off-line"
    assert m.echo("kept/restore", "in-place") == "EXDEV"
    assert m.echo("kept/restore", "branch again") is None
    assert m.echo(".control/prune", "delete eighth/branches/nobody") == "ENOENT"
    assert m.echo(".control/prune", "delete kept/branches/again") is None
    assert m.echo(".control/prune", "delete eighth") is None


def test_gone_from_the_console(m):
    m.waits("ninth", NOTE)
    assert m.echo("ninth/restore", "branch lost") is None
    branch = m.json("ninth/branches/lost/branch.json")["branch_id"]
    assert m.emulator.console("delete_branch", branch_id=branch).status < 300
    bare(m, "ninth.wake")  # an action's end: Neon is looked at soon
    wait_until(lambda: m.read("ninth/branches/lost/status") == "gone\n", DEADLINE)
    assert not (m / "ninth/branches/lost/connection_uri").exists()
    assert m.echo("ninth/branches/lost/resume", "approve") == "ESTALE"
    with pytest.raises(OSError, match="Stale"):
        os.mkdir(m / "ninth/branches/lost/checkpoints/x")


def test_an_answer_is_lost(m):
    bare(m, "tenth")
    m.emulator.fault("POST:/projects/*/snapshots/*/restore=drop-after")
    assert m.echo("tenth/restore", "branch found") is None
    assert on(m, "tenth/branches/found", "SELECT 1") == [(1,)]
    assert len([b for b in m.emulator.branches() if b["name"] == m.json("tenth/branches/found/branch.json")["branch_name"]]) == 1


def test_no_compute_comes_with_it(m):
    """Neon may give none (neon-api.md §2.7): one is made. Here it is taken away before it is looked for."""
    bare(m, "computeless")
    known = {e["id"] for e in m.emulator.endpoints()}
    with m.held("GET:/projects/*/branches/*"):
        assert m.echo("computeless/restore", "nowait branch own") is None
        wait_until(lambda: m.read("computeless/branches/own/status") == "restoring 3/5\n", DEADLINE)
        new = wait_until(lambda: [e for e in m.emulator.endpoints() if e["id"] not in known and e["current_state"] == "active"], DEADLINE)
        path = f"/projects/{{p}}/endpoints/{new[0]['id']}"
        gone = wait_until(lambda: (a := m.emulator.api("DELETE", path)).status != 423 and a)
        assert gone.status < 300
        m.emulator.settle(gone.json["operations"])
    m.read("computeless/branches/own/wait")
    assert m.read("computeless/branches/own/status") == "ready\n", m.json("computeless/branches/own/result")
    assert m.json("computeless/branches/own/branch.json")["endpoint_id"] != new[0]["id"]
    assert on(m, "computeless/branches/own", "SELECT 1") == [(1,)]


def test_failed(m):
    bare(m, "eleventh")
    m.emulator.fault("POST:/projects/*/snapshots/*/restore=op:failed:disk full")
    before = {b["id"] for b in m.emulator.branches()}
    assert m.echo("eleventh/restore", "branch bad") == "EIO"
    assert m.read("eleventh/branches/bad/status").startswith("failed restore: ")
    assert m.status("eleventh") == "saved (database only)"
    assert m.echo("eleventh/branches/bad/resume", "approve") == "ENODATA"
    assert {b["id"] for b in m.emulator.branches()} == before, "what was made is taken away"
    os.rmdir(m / "eleventh/branches/bad")
    assert os.listdir(m / "eleventh/branches") == []
    assert m.echo("eleventh/restore", "branch bad") is None


def test_names(m):
    bare(m, "twelfth")
    for name in (".hidden", "latest", "a/b"):
        assert m.echo("twelfth/restore", f"branch {name}") == "EINVAL"
    assert m.echo("twelfth/restore", "branch") == "EINVAL"
    assert m.echo("twelfth/restore", '{"verb":"branch","branch":"two words"}') is None
    assert m.echo("twelfth/restore", "branch two words") == "EEXIST"
    assert m.read("twelfth/branches/two words/status") == "ready\n"


def test_on_a_remount(m):
    m.waits("thirteenth", NOTE)
    assert m.echo("thirteenth/restore", "branch stays") is None
    path = "thirteenth/branches/stays"
    inode, text = os.stat(m / path / "branch.json").st_ino, m.read(f"{path}/branch.json")
    m.remount()
    assert os.stat(m / path / "branch.json").st_ino == inode and m.read(f"{path}/branch.json") == text
    wait_until((m / path / "connection_uri").exists, DEADLINE)
    assert on(m, path, "SELECT 1") == [(1,)]
    assert m.echo(f"{path}/resume", f"approve {CALL}") is None


def test_an_agent_makes_no_branch(m):
    m.waits("fourteenth", 'mkdir "$CHECKPOINT_DIR/branches/mine" && exit 0; exit 3')
    assert m.echo("fourteenth/resume", "approve") == "EIO"
    assert os.listdir(m / "fourteenth/branches") == []


def test_one_agent_on_a_branch_others_elsewhere(m):
    m.waits("fifteenth", "[ $CHECKPOINT_BRANCH = %s ] && exit 0; hold" % active(m))
    assert m.echo("fifteenth/restore", "branch one") is None
    held = m.wake_held("fifteenth", file="branches/one/resume")
    try:
        assert m.read("fifteenth/branches/one/status").startswith("agent running on ")
        assert m.echo("fifteenth/branches/one/resume", "approve") == "EBUSY"
        assert m.echo(".control/prune", "delete fifteenth/branches/one") == "EBUSY"
        assert m.echo("fifteenth/branches/one/promote", "promote") == "EBUSY"
        os.mkdir(m / "fifteenth/branches/one/checkpoints/meanwhile")
        m.wait_status("meanwhile", "saved (database only)")
        assert m.echo("fifteenth/resume", "approve") is None, "the line isn't busy"
        assert m.echo("fifteenth/restore", "in-place") is None, "nor for a restore in place"
        assert m.echo("fifteenth/branches/one/cancel", "cancel") is None
        assert held.answer() == "ECANCELED"
    finally:
        m.release("fifteenth") if not getattr(held, "got", None) else None
    m.tidy()


def test_no_room():
    """The plan's limit is told before anything is asked for, and what could go."""
    with Woken(emulator=("--root-branches=2",)) as m:
        bare(m, "one")
        assert m.echo("one/restore", "branch a") is None
        before = {b["id"] for b in m.emulator.branches()}
        assert m.echo("one/restore", "branch b") == "EDQUOT"
        assert "delete one/branches/a" in m.json("one/branches/b/result")["message"]
        assert m.read("one/result") == m.read("one/branches/b/result"), "beside the file that it was written to"
        assert m.read("one/branches/b/status").startswith("failed restore: ")
        assert {b["id"] for b in m.emulator.branches()} == before
        os.rmdir(m / "one/branches/b")
        assert m.echo(".control/prune", "delete one/branches/a") is None
        assert m.echo("one/restore", "branch b") is None


def test_what_is_offered_frees_one():
    """Not a branch that a promote made the active one: of that only the row would go."""
    with Woken(emulator=("--root-branches=2",)) as m:
        bare(m, "one")
        before = m.emulator.default_branch()["id"]
        assert m.echo("one/restore", "branch a") is None and m.echo("one/branches/a/promote", "promote") is None
        assert m.echo(".control/prune", f"delete {before}") is None
        assert m.echo("one/restore", "branch b") is None and m.echo("one/restore", "branch c") == "EDQUOT"
        (offered,) = re.findall("to free one: echo '(.*?)' > ", m.json("one/branches/c/result")["message"])
        assert m.echo(".control/prune", offered) is None and len(m.emulator.branches()) == 1


def test_expiry_is_shown(m):
    bare(m, "sixteenth")
    assert m.echo("sixteenth/restore", "branch short") is None
    branch = m.json("sixteenth/branches/short/branch.json")["branch_id"]
    m.emulator.ok("PATCH", f"/projects/{{p}}/branches/{branch}", body={"branch": {"expires_at": "2099-03-04T00:00:00Z"}})
    bare(m, "sixteenth.wake")
    wait_until(lambda: m.read("sixteenth/branches/short/status") == "ready, branch expires 2099-03-04\n", DEADLINE)
    assert m.json("sixteenth/branches/short/branch.json")["expires_at"].startswith("2099-03-04")


def test_a_plan_keeps_what_has_branches(m):
    bare(m, "seventeenth")
    assert m.echo("seventeenth/restore", "branch a") is None
    for i in range(2):
        bare(m, f"seventeenth.{i}")
    assert m.echo(".control/prune", "keep-last=1") is None
    plan = m.json(".control/result")
    assert {i["name"]: i["why"] for i in plan["kept"]}["seventeenth"] == "isolated branches were made of it"
    assert m.echo("seventeenth.0/restore", "branch since") is None
    assert m.echo(".control/prune", plan["apply"]) is None, m.json(".control/result")
    assert (m / "seventeenth").is_dir() and (m / "seventeenth.0").is_dir(), "checked again: it has a branch since"

"""neon-emulator: snapshots, restore, finalize, over real data (reference/neon-api.md §2)."""

import os
import re
import subprocess
import threading

import pytest
from emulator import LOCKED, Emulator, wait_until

USERS = "create table users(name text); insert into users values ('Alice'), ('Bob'), ('Charlie')"


@pytest.fixture(scope="module")
def neon():
    with Emulator() as e:
        yield e


@pytest.fixture
def users(neon):
    """A table that every test begins with, in the branch that is active now."""
    neon.sql("drop owned by current_user cascade")
    neon.sql(USERS)
    yield neon
    for snapshot in neon.snapshots():
        neon.ok("DELETE", f"/projects/{{p}}/snapshots/{snapshot['id']}")
    for branch in neon.branches():
        if branch.get("protected"):
            neon.ok("PATCH", f"/projects/{{p}}/branches/{branch['id']}", {"branch": {"protected": False}})
    for branch in sorted(neon.branches(), key=lambda b: "parent_id" not in b):
        if not branch["default"]:
            neon.ok("DELETE", f"/projects/{{p}}/branches/{branch['id']}")


def restore(neon, snapshot, **body):
    return neon.ok("POST", f"/projects/{{p}}/snapshots/{snapshot['id']}/restore", body)


def test_in_place_restore_keeps_the_connection_string(users):
    neon = users
    before, endpoint, uri = neon.default_branch(), neon.endpoints()[0], neon.uri()
    snapshot = neon.snapshot("pre drop")
    neon.sql("drop table users")
    answer = restore(neon, snapshot, target_branch_id=before["id"], finalize_restore=True)
    assert neon.sql("select name from users") == "Alice\nBob\nCharlie"

    now = neon.default_branch()
    assert now["id"] == answer["branch"]["id"] != before["id"]
    assert now["name"] == before["name"] and now["default"] and now["primary"]
    assert now["restore_status"] == "finalized"
    assert (now["restored_from"], now["restored_as"]) == (snapshot["id"], before["id"])
    assert "parent_id" not in now and "pending_state" not in now and now["current_state"] == "ready"
    old = neon.branch(before["id"])
    assert old["name"] == before["name"] + " (old)" and not old["default"]
    (kept,) = neon.endpoints()
    assert (kept["id"], kept["host"]) == (endpoint["id"], endpoint["host"])
    assert kept["branch_id"] == now["id"]
    assert neon.uri() == uri == neon.url


def test_restore_in_two_calls(users):
    neon = users
    target = neon.default_branch()["id"]
    snapshot = neon.snapshot("two calls")
    neon.sql("drop table users")
    answer = restore(neon, snapshot, target_branch_id=target, name="preview-1", finalize_restore=False)
    new = answer["branch"]["id"]
    assert [o["action"] for o in answer["operations"]] == ["timeline_unarchive", "create_branch", "start_compute"]
    assert answer["branch"]["restore_status"] == "restored" and answer["branch"]["name"] == "preview-1"
    (preview,) = answer["endpoints"]
    assert preview["branch_id"] == new
    assert neon.sql("select count(*) from users", neon.uri(new)) == "3"
    assert neon.psql("select 1 from users").returncode != 0, "the active branch is untouched"
    assert neon.default_branch()["id"] == target

    done = neon.ok("POST", f"/projects/{{p}}/branches/{new}/finalize_restore", {"name": "replaced-1"})
    assert len(done["operations"]) >= 1
    assert neon.sql("select count(*) from users") == "3"
    assert neon.default_branch()["id"] == new
    assert neon.branch(target)["name"] == "replaced-1"
    assert preview["id"] not in [e["id"] for e in neon.endpoints()], "the preview's own endpoint is gone"

    again = neon.api("POST", f"/projects/{{p}}/branches/{new}/finalize_restore")
    assert again.status == 422 and "finalized already" in again.message


def test_a_second_restore_needs_the_fresh_branch_id(users):
    """The guide keeps the first branch id; the one that counts is the default branch of the moment."""
    neon = users
    first = neon.default_branch()["id"]
    snapshot = neon.snapshot("twice")
    neon.sql("drop table users")
    second = restore(neon, snapshot, target_branch_id=first, finalize_restore=True)["branch"]["id"]
    neon.sql("delete from users")
    third = restore(neon, snapshot, target_branch_id=second, finalize_restore=True)["branch"]["id"]
    assert neon.sql("select count(*) from users") == "3"
    assert neon.default_branch()["id"] == third
    names = {b["id"]: b["name"] for b in neon.branches()}
    assert names[first] == "main (old)" and names[second].startswith("main (old)") and names[second] != names[first]
    # Without a target it goes to the snapshot's source, which is an (old) branch by now: the active one stays.
    neon.sql("delete from users")
    restore(neon, snapshot, finalize_restore=True)
    assert neon.default_branch()["id"] == third
    assert neon.sql("select count(*) from users") == "0"


def test_the_old_data_is_there_until_the_last_operation_has_finished():
    with Emulator(operation_ms=5) as neon:
        neon.sql(USERS)
        target = neon.default_branch()["id"]
        snapshot = neon.snapshot("slow")
        neon.sql("delete from users where name = 'Charlie'")
        neon.restart("--operation-ms=600000")  # a stop cuts it short
        answer = neon.api(
            "POST", f"/projects/{{p}}/snapshots/{snapshot['id']}/restore", {"target_branch_id": target, "finalize_restore": True}
        )
        operations = answer.json["operations"]
        assert neon.sql("select count(*) from users") == "2"
        busy = neon.api("POST", f"/projects/{{p}}/branches/{target}/snapshot")
        assert busy.status == 423 and busy.message == LOCKED and busy.json["code"] == ""
        assert neon.api("GET", f"/projects/{{p}}/operations/{operations[-1]['id']}").json["operation"]["status"] == "scheduling"
        neon.restart()
        neon.settle(operations)
        assert neon.sql("select count(*) from users") == "3"


def test_the_old_data_is_there_until_the_last_operation_begins_to_end():
    """Looked at all the time; it is the last operation whose end changes the data under the connection string."""
    with Emulator(operation_ms=400) as neon:
        neon.sql(USERS)
        snapshot = neon.snapshot("slow")
        neon.sql("delete from users where name = 'Charlie'")
        answer = neon.api(
            "POST",
            f"/projects/{{p}}/snapshots/{snapshot['id']}/restore",
            {"target_branch_id": neon.default_branch()["id"], "finalize_restore": True},
        )
        last = f"/projects/{{p}}/operations/{answer.json['operations'][-1]['id']}"

        def finished():
            count = neon.psql("select count(*) from users").stdout.strip()
            status = neon.api("GET", last).json["operation"]["status"]
            assert count in {"scheduling": ("2",), "running": ("2", "", "3"), "finished": ("2", "", "3")}[status], status
            return status == "finished"

        wait_until(finished)
        assert neon.sql("select count(*) from users") == "3"


def test_whole_branch_rolls_back(users):
    """All databases and all roles go back together, passwords included."""
    neon = users
    branch = neon.default_branch()["id"]
    neon.ok("POST", f"/projects/{{p}}/branches/{branch}/roles", {"role": {"name": "early"}})
    neon.ok("POST", f"/projects/{{p}}/branches/{branch}/databases", {"database": {"name": "shop", "owner_name": "early"}})
    neon.sql("create table stock as select 7 as n", neon.uri(role="early", database="shop"))
    password = neon.ok("GET", f"/projects/{{p}}/branches/{branch}/roles/early/reveal_password")["password"]
    snapshot = neon.snapshot("content")
    neon.ok("POST", f"/projects/{{p}}/branches/{branch}/roles", {"role": {"name": "late"}})
    neon.ok("POST", f"/projects/{{p}}/branches/{branch}/databases", {"database": {"name": "later", "owner_name": "late"}})
    neon.ok("POST", f"/projects/{{p}}/branches/{branch}/roles/early/reset_password")
    neon.sql("drop table stock", neon.uri(role="early", database="shop"))
    neon.sql("drop table users")
    new = restore(neon, snapshot, target_branch_id=branch, finalize_restore=True)["branch"]["id"]
    assert neon.sql("select n from stock", neon.uri(role="early", database="shop")) == "7"
    assert neon.sql("select count(*) from users") == "3"
    roles = neon.ok("GET", f"/projects/{{p}}/branches/{new}/roles")["roles"]
    databases = neon.ok("GET", f"/projects/{{p}}/branches/{new}/databases")["databases"]
    assert {r["name"] for r in roles} == {"neondb_owner", "early"}
    assert {d["name"] for d in databases} == {"neondb", "shop"}
    assert neon.ok("GET", f"/projects/{{p}}/branches/{new}/roles/early/reveal_password")["password"] == password
    assert neon.sql("select count(*) from pg_roles where rolname = 'late'") == "0"


def test_connections_are_cut_at_finalize(users):
    neon = users
    snapshot = neon.snapshot("cut")
    environ = os.environ | {"PGCONNECT_TIMEOUT": "60"}
    client = subprocess.Popen(
        ["psql", "-XAtq", neon.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ
    )
    try:
        client.stdin.write("select 'connected';\n")
        client.stdin.flush()
        assert client.stdout.readline() == "connected\n"
        restore(neon, snapshot, target_branch_id=neon.default_branch()["id"], finalize_restore=True)
        _, errors = client.communicate("select 'still here';\n", timeout=60)
        assert client.returncode != 0 and "terminating connection" in errors
    finally:
        client.kill()
        client.wait()
    assert neon.sql("select 1") == "1"


def test_protection_and_schedule_move(users):
    neon = users
    target = neon.default_branch()["id"]
    snapshot = neon.snapshot("moves")
    schedule = {"schedule": [{"frequency": "daily", "hour": 3, "retention_seconds": 604800}]}
    neon.ok("PATCH", f"/projects/{{p}}/branches/{target}", {"branch": {"protected": True}})
    neon.ok("PUT", f"/projects/{{p}}/branches/{target}/backup_schedule", schedule)
    new = restore(neon, snapshot, target_branch_id=target, finalize_restore=True)["branch"]["id"]
    assert neon.branch(new)["protected"] and not neon.branch(target)["protected"]
    assert neon.ok("GET", f"/projects/{{p}}/branches/{new}/backup_schedule") == schedule
    assert neon.ok("GET", f"/projects/{{p}}/branches/{target}/backup_schedule") == {"schedule": []}
    assert neon.snapshots()[0]["source_branch_id"] == target, "a snapshot stays with the branch it was taken of"


def test_restore_onto_a_child_gives_a_root(users):
    neon = users
    snapshot = neon.snapshot("for the child")
    child = neon.ok("POST", "/projects/{p}/branches", {"branch": {"name": "child"}, "endpoints": [{"type": "read_write"}]})
    child_id, host = child["branch"]["id"], child["endpoints"][0]["host"]
    assert child["branch"]["parent_id"] == neon.default_branch()["id"]
    refused = neon.api("POST", f"/projects/{{p}}/branches/{child_id}/snapshot", query={"name": "of a child"})
    assert refused.status == 422 and "root branches" in refused.message
    neon.sql("drop table users", neon.uri(child_id))
    new = restore(neon, snapshot, target_branch_id=child_id, finalize_restore=True)["branch"]["id"]
    now = neon.branch(new)
    assert now["name"] == "child" and "parent_id" not in now and not now["default"]
    assert host in neon.uri(new)
    assert neon.sql("select count(*) from users", neon.uri(new)) == "3"


def test_a_snapshot_under_load_is_consistent(users):
    """Rows are written in pairs all the time; no copy may hold half a pair."""
    neon = users
    neon.sql("create table a(n int); create table b(n int)")
    stop = threading.Event()
    writer_errors = []

    def write():
        n = 0
        while not stop.is_set():
            done = neon.psql(
                "; ".join(f"begin; insert into a values ({n + i}); insert into b values ({n + i}); commit" for i in range(50))
            )
            n += 50
            if done.returncode:
                writer_errors.append(done.stderr)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        wait_until(lambda: int(neon.sql("select count(*) from a")) > 100)
        snapshot = neon.snapshot("busy")
        after = int(neon.sql("select count(*) from b"))
    finally:
        stop.set()
        thread.join()
    assert not writer_errors
    new = restore(neon, snapshot, finalize_restore=False)["branch"]["id"]
    a, b = neon.sql("select (select count(*) from a) || ' ' || (select count(*) from b)", neon.uri(new)).split()
    assert a == b and 100 < int(a) <= after


def test_a_suspended_branch_is_copied_too(users):
    neon = users
    endpoint = neon.endpoints()[0]["id"]
    neon.ok("POST", f"/projects/{{p}}/endpoints/{endpoint}/suspend")
    snapshot = neon.snapshot("asleep")
    new = restore(neon, snapshot, finalize_restore=False)["branch"]["id"]
    assert neon.sql("select count(*) from users", neon.uri(new)) == "3"
    assert neon.psql("select 1").returncode != 0, "copying woke nobody"
    # A finalized restore leaves a suspended compute suspended, on the new data.
    neon.ok("POST", f"/projects/{{p}}/branches/{new}/finalize_restore")
    assert [e["current_state"] for e in neon.endpoints()] == ["idle"]
    neon.ok("POST", f"/projects/{{p}}/endpoints/{endpoint}/start")
    assert neon.sql("select count(*) from users") == "3"


def test_snapshots_outlive_their_branch(users):
    neon = users
    source = neon.default_branch()["id"]
    snapshot = neon.snapshot("survivor")
    neon.sql("drop table users")
    new = restore(neon, snapshot, target_branch_id=source, finalize_restore=True)["branch"]["id"]
    neon.ok("DELETE", f"/projects/{{p}}/branches/{source}")
    assert [s["id"] for s in neon.snapshots()] == [snapshot["id"]]
    refused = neon.api("POST", f"/projects/{{p}}/snapshots/{snapshot['id']}/restore")
    assert refused.status == 422 and "target_branch_id" in refused.message
    neon.sql("drop table users")
    restore(neon, snapshot, target_branch_id=new, finalize_restore=True)
    assert neon.sql("select count(*) from users") == "3"


def test_what_a_snapshot_tells(users):
    neon = users
    branch = neon.default_branch()["id"]
    lsn = neon.sql("select pg_current_wal_lsn()")
    answer = neon.ok(
        "POST",
        f"/projects/{{p}}/branches/{branch}/snapshot",
        {"snapshot": {"name": "ignored"}},
        {"name": "told", "expires_at": "2099-01-01T00:00:00.000Z"},
    )
    assert [o["action"] for o in answer["operations"]] == ["create_branch", "timeline_archive"]
    assert {o["branch_id"] for o in answer["operations"]}.isdisjoint(b["id"] for b in neon.branches())
    assert [o["status"] for o in answer["operations"]] == ["running", "scheduling"]
    told = answer["snapshot"]
    assert told["name"] == "told" and told["manual"] is True and told["source_branch_id"] == branch
    assert told["expires_at"] == "2099-01-01T00:00:00Z"
    assert re.fullmatch(r"snap-[a-z0-9]+-[a-z0-9]+-[a-z0-9]{8}", told["id"])
    assert "full_size" not in told
    listed = neon.snapshots()[0]
    assert (
        neon.sql(f"select '{listed['lsn']}'::pg_lsn > '{lsn}'::pg_lsn") == "t"
    ), "the point that the copy has, not that of the request"
    size = wait_until(lambda: neon.snapshots()[0].get("full_size"))
    assert size > 10_000_000
    # A body is ignored: without a query the name is generated.
    unnamed = neon.ok("POST", f"/projects/{{p}}/branches/{branch}/snapshot", {"name": "in the body"})["snapshot"]
    assert unnamed["name"] not in ("in the body", "told", "")


def test_a_wrong_password_is_refused(users):
    neon = users
    password = neon.url.split(":")[2].split("@")[0]
    assert "password authentication failed" in neon.psql("select 1", neon.url.replace(password, "wrong")).stderr
    assert neon.sql("select rolsuper from pg_roles where rolname = current_user") == "f"

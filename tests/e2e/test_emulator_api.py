"""neon-emulator: transport, branches, endpoints, roles, databases, operations, projects, and what bad input gets."""

import concurrent.futures
import datetime
import json
import re
import socket
import time

import pytest
from emulator import Emulator, wait_until


@pytest.fixture(scope="module")
def neon():
    with Emulator(operation_ms=5) as e:
        yield e


@pytest.fixture(scope="module")
def branch(neon):
    return neon.default_branch()["id"]


def drop(neon, branch_id):
    neon.ok("DELETE", f"/projects/{{p}}/branches/{branch_id}")


# -- transport


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": None},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic x"},
        {"Authorization": None, "Cookie": "zenith=secret"},
    ],
)
def test_the_key_is_needed(neon, headers):
    answer = neon.api("GET", "/projects/{p}", headers=headers)
    assert answer.status == 401
    assert answer.json["code"] == "" and answer.message == "supplied credentials do not pass authentication"
    assert neon.control("GET", "faults").status == 200
    assert neon.raw("GET", neon.host.removesuffix("/api/v2") + "/emulator/faults", headers=headers).status == 401


@pytest.mark.parametrize(
    "method, path",
    [
        ("GET", "/nothing"),
        ("GET", "/projects/{p}/snapshots/snap-a-b-12345678"),
        ("PUT", "/projects/{p}"),
        ("POST", "/projects/{p}/branches/{b}/snapshots"),
        ("GET", "/projects/{p}/"),
        ("GET", "/projects/{p}/branches/{b}/snapshot"),
    ],
)
def test_an_unknown_route_is_404(neon, branch, method, path):
    answer = neon.api(method, path.replace("{b}", branch))
    assert answer.status == 404
    assert set(answer.json) == {"request_id", "code", "message"}


def test_outside_of_the_prefix(neon):
    root = neon.host.removesuffix("/api/v2")
    assert neon.raw("GET", f"{root}/projects/{neon.project}").status == 404
    assert neon.raw("GET", root + "/").status == 404


def test_request_ids(neon):
    given = neon.api("GET", "/projects/none-such", headers={"X-Request-ID": "my-id-1"})
    assert given.json["request_id"] == given.headers["X-Neon-Ret-Request-ID"] == "my-id-1"
    made = neon.api("GET", "/projects/none-such", headers={"X-Request-ID": "bad\tid"})
    assert re.fullmatch(r"[0-9a-f-]{36}", made.json["request_id"])


def test_an_empty_id_is_redirected(neon):
    answer = neon.api("GET", "/projects//branches")
    assert answer.status == 301 and answer.headers["Location"] == "/api/v2/projects/branches"


def test_bodies_that_clients_really_send(neon, branch):
    """axios sends an empty form, the CLI content-length 0 and no type; create-snapshot ignores any body."""
    for headers in ({"Content-Type": "application/x-www-form-urlencoded", "Content-Length": "0"}, {"Content-Type": None}):
        answer = neon.api("POST", f"/projects/{{p}}/branches/{branch}/snapshot", b"", headers=headers)
        assert answer.status == 200, answer
        neon.settle(answer.json["operations"])
    answer = neon.api("POST", f"/projects/{{p}}/branches/{branch}/snapshot", b"this is { no json")
    assert answer.status == 200
    neon.settle(answer.json["operations"])


def test_both_encodings_of_a_space(neon, branch):
    for n, encoded in enumerate(("two%20words%20{}", "two+words+{}")):
        query = f"name={encoded.format(n)}&expires_at=2099-01-01T00%3A00%3A00Z"
        url = f"{neon.host}/projects/{neon.project}/branches/{branch}/snapshot?{query}"
        answer = neon.raw("POST", url)
        assert answer.json["snapshot"]["name"] == f"two words {n}"
        neon.settle(answer.json["operations"])


def test_a_large_request_is_refused(neon):
    big = {"branch": {"name": "x" * (1 << 20)}}
    assert neon.api("POST", "/projects/{p}/branches", big).status == 413
    assert neon.api("GET", "/projects/{p}/branches?search=" + "x" * 9000).status == 414
    assert neon.api("GET", "/projects/{p}").status == 200


def test_garbage_on_the_wire(neon):
    host, port = neon.host.split("/")[2].split(":")
    for garbage in (
        b"\x00\xff\xfe\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + b"A: b\r\n" * 5000,
    ):
        with socket.create_connection((host, int(port)), timeout=10) as s:
            try:
                s.sendall(garbage)
                s.shutdown(socket.SHUT_WR)
                first = s.recv(100)
            except OSError:  # it has hung up already
                first = b""
            assert b" 500" not in first
    assert neon.api("GET", "/projects/{p}").status == 200


def test_it_listens_on_loopback_only(neon):
    port = int(neon.host.split(":")[2].split("/")[0])
    table = open("/proc/net/tcp").read().splitlines()[1:]
    listeners = [line.split()[1] for line in table if line.split()[3] == "0A" and int(line.split()[1].split(":")[1], 16) == port]
    assert listeners == [f"0100007F:{port:04X}"]


# -- branches


def test_branch_list_pages(neon):
    made = []
    for i in range(5):
        made.append(neon.ok("POST", "/projects/{p}/branches", {"branch": {"name": f"page {i}"}})["branch"]["id"])
    try:
        for order in ("asc", "desc"):
            got, cursor = [], None
            while True:
                query = {"limit": 2, "sort_by": "name", "sort_order": order, "search": "PAGE"} | (
                    {"cursor": cursor} if cursor else {}
                )
                page = neon.ok("GET", "/projects/{p}/branches", query=query)
                assert page["pagination"]["sort_order"] == order.upper() and page["annotations"] == {}
                got += [b["name"] for b in page["branches"]]
                cursor = page["pagination"].get("next")
                if not cursor:
                    break
                assert len(page["branches"]) == 2
            assert got == sorted((f"page {i}" for i in range(5)), reverse=order == "desc")
        assert neon.ok("GET", "/projects/{p}/branches/count")["count"] == 6
        assert neon.ok("GET", "/projects/{p}/branches/count", query={"search": "page 3"})["count"] == 1
        newest = neon.branches()
        assert [b["updated_at"] for b in newest] == sorted((b["updated_at"] for b in newest), reverse=True)
    finally:
        for branch_id in made:
            drop(neon, branch_id)


def test_branch_life(neon, branch):
    neon.sql("create table if not exists t as select 1 as n")
    body = {
        "branch": {"name": "life", "protected": True},
        "endpoints": [{"type": "read_write"}],
        "annotation_value": {"team": "blue"},
    }
    made = neon.api("POST", "/projects/{p}/branches", body)
    assert made.status == 201
    made = made.json
    assert [o["action"] for o in made["operations"]] == ["create_branch", "timeline_update_protected_config", "start_compute"]
    assert {"branch", "endpoints", "operations", "roles", "databases", "connection_uris"} <= set(made)
    neon.settle(made["operations"])
    life = made["branch"]["id"]
    assert re.fullmatch(r"br-[a-z0-9]+-[a-z0-9]+-[a-z0-9]{8}", life)
    assert neon.sql("select n from t", made["connection_uris"][0]["connection_uri"]) == "1"
    neon.sql("drop table t", neon.uri(life))
    assert neon.sql("select n from t") == "1", "branches are separate"
    got = neon.ok("GET", f"/projects/{{p}}/branches/{life}")
    assert got["branch"]["parent_id"] == branch and got["annotation"]["value"] == {"team": "blue"}
    assert life in neon.ok("GET", "/projects/{p}/branches")["annotations"]

    renamed = neon.ok("PATCH", f"/projects/{{p}}/branches/{life}", {"branch": {"name": "renamed"}})
    assert renamed["branch"]["name"] == "renamed" and renamed["operations"] == []
    assert neon.api("DELETE", f"/projects/{{p}}/branches/{life}").status == 422, "protected"
    neon.ok("PATCH", f"/projects/{{p}}/branches/{life}", {"branch": {"protected": False}})
    child = neon.ok("POST", "/projects/{p}/branches", {"branch": {"parent_id": life}})["branch"]["id"]
    assert neon.api("DELETE", f"/projects/{{p}}/branches/{life}").status == 422, "has a child"
    drop(neon, child)
    gone = neon.ok("DELETE", f"/projects/{{p}}/branches/{life}")
    assert [o["action"] for o in gone["operations"]] == ["suspend_compute", "delete_timeline"]
    assert neon.api("DELETE", f"/projects/{{p}}/branches/{life}").status == 204
    assert neon.api("GET", f"/projects/{{p}}/branches/{life}").message == "branch not found"
    wait_until(lambda: not (neon.data / "branches" / life).exists())


def test_the_default_moves(neon, branch):
    other = neon.ok("POST", "/projects/{p}/branches", {"branch": {"name": "other"}})["branch"]["id"]
    answer = neon.ok("POST", f"/projects/{{p}}/branches/{other}/set_as_default")
    assert answer["branch"]["default"] and answer["operations"] == []
    assert [b["id"] for b in neon.branches() if b["default"]] == [other]
    assert neon.api("DELETE", f"/projects/{{p}}/branches/{other}").status == 422
    neon.ok("POST", f"/projects/{{p}}/branches/{branch}/set_as_default")
    drop(neon, other)


def moment(seconds):
    """So many seconds from now, as Neon writes it; never later."""
    at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")


def with_a_moment(ask):
    """The answer to a request with a time that is soon to come: a later one, where it was over before a busy machine had told of it."""
    for seconds in (2, 20, 200):
        answer = ask(moment(seconds))
        if answer.status != 400:
            return answer
    raise AssertionError(answer)


def idle(neon):
    operations = "/projects/{p}/operations"
    wait_until(lambda: not {"running", "scheduling"} & {o["status"] for o in neon.api("GET", operations).json["operations"]})


def taken_back(neon):
    """A branch that was to expire soon, until that was taken back: one that has longer, where that came too late on a busy machine."""
    for seconds in (2, 20, 200):
        made = neon.ok("POST", "/projects/{p}/branches", {"branch": {"name": f"kept {seconds}"}})["branch"]["id"]
        path = f"/projects/{{p}}/branches/{made}"
        if neon.api("PATCH", path, {"branch": {"expires_at": moment(seconds)}}).status == 200:
            cleared = neon.api("PATCH", path, {"branch": {"expires_at": None}})
            if cleared.status == 200:
                assert "expires_at" not in cleared.json["branch"]
                return path, seconds
        idle(neon)
    raise AssertionError(cleared)


def test_branches_and_snapshots_expire(neon, branch):
    kept, seconds = taken_back(neon)
    over = time.monotonic() + seconds + 1
    short = with_a_moment(lambda at: neon.api("POST", "/projects/{p}/branches", {"branch": {"name": "short", "expires_at": at}}))
    assert short.status == 201 and short.json["branch"]["expires_at"]
    wait_until(lambda: neon.api("GET", f"/projects/{{p}}/branches/{short.json['branch']['id']}").status == 404, 300)
    idle(neon)
    path = f"/projects/{{p}}/branches/{branch}/snapshot"
    snapshot = with_a_moment(lambda at: neon.api("POST", path, query={"name": "short", "expires_at": at}))
    assert snapshot.status == 200
    wait_until(lambda: snapshot.json["snapshot"]["id"] not in [s["id"] for s in neon.snapshots()], 300)
    wait_until(lambda: time.monotonic() > over, 300)
    assert neon.api("GET", kept).status == 200
    assert (
        neon.api("PATCH", f"/projects/{{p}}/branches/{branch}", {"branch": {"expires_at": "2099-01-01T00:00:00Z"}}).status == 422
    )
    wait_until(lambda: neon.api("DELETE", kept).status == 200)
    idle(neon)


# -- endpoints


def test_endpoint_life(neon):
    made = neon.ok("POST", "/projects/{p}/branches", {"branch": {"name": "with endpoint"}})["branch"]["id"]
    assert neon.ok("GET", f"/projects/{{p}}/branches/{made}/endpoints") == {"endpoints": []}
    assert (
        neon.api(
            "GET",
            "/projects/{p}/connection_uri",
            query={"branch_id": made, "role_name": "neondb_owner", "database_name": "neondb"},
        ).message
        == "endpoint not found"
    )
    body = {"endpoint": {"branch_id": made, "type": "read_write", "autoscaling_limit_max_cu": 2}}
    answer = neon.api("POST", "/projects/{p}/endpoints", body)
    assert answer.status == 201 and answer.json["endpoint"]["pending_state"] == "active"
    neon.settle(answer.json["operations"])
    endpoint = answer.json["endpoint"]["id"]
    again = neon.api("POST", "/projects/{p}/endpoints", body)
    assert again.status == 409 and again.message == "read-write endpoint already exists"
    uri = neon.uri(made)
    assert neon.sql("select 1", uri) == "1"

    path = f"/projects/{{p}}/endpoints/{endpoint}"
    assert neon.ok("POST", path + "/suspend")["endpoint"]["pending_state"] == "idle"
    assert neon.ok("GET", path)["endpoint"]["current_state"] == "idle"
    assert neon.psql("select 1", uri).returncode != 0
    assert neon.ok("POST", path + "/suspend")["operations"] == []
    neon.ok("POST", path + "/start")
    assert neon.ok("GET", path)["endpoint"]["current_state"] == "active"
    started = neon.sql("select pg_postmaster_start_time()", uri)
    assert [o["action"] for o in neon.ok("POST", path + "/restart")["operations"]] == ["suspend_compute", "start_compute"]
    assert neon.sql("select pg_postmaster_start_time()", uri) != started
    assert neon.ok("PATCH", path, {"endpoint": {"autoscaling_limit_min_cu": 0.5}})["endpoint"]["autoscaling_limit_min_cu"] == 0.5
    neon.ok("DELETE", path)
    assert neon.api("DELETE", path).status == 204
    assert neon.psql("select 1", uri).returncode != 0
    drop(neon, made)


def test_a_compute_that_dies_comes_back(neon):
    import os
    import signal

    parents = neon.of_postgres(lambda pid: open(f"/proc/{pid}/stat").read().rsplit(")")[1].split()[1])
    pids = [pid for pid, parent in parents.items() if parent == str(neon.process.pid)]
    os.kill(pids[0], signal.SIGKILL)
    wait_until(lambda: neon.psql("select 1").stdout.strip() == "1")
    wait_until(lambda: neon.endpoints()[0]["current_state"] == "active")


# -- roles and databases


def test_roles_and_databases(neon, branch):
    roles, databases = f"/projects/{{p}}/branches/{branch}/roles", f"/projects/{{p}}/branches/{branch}/databases"
    name, odd = "r\"o'le; drop", "da/ta\"b'ase %"
    made = neon.api("POST", roles, {"role": {"name": name}})
    assert made.status == 201 and made.json["role"]["password"].startswith("npg_")
    neon.settle(made.json["operations"])
    assert neon.api("POST", roles, {"role": {"name": name}}).message == "role already exists"
    made = neon.api("POST", databases, {"database": {"name": odd, "owner_name": name}})
    assert made.status == 201
    neon.settle(made.json["operations"])
    assert made.json["database"]["id"] in [d["id"] for d in neon.ok("GET", databases)["databases"]]
    assert neon.api("POST", databases, {"database": {"name": odd, "owner_name": name}}).message == "database already exists"
    uri = neon.uri(role=name, database=odd)
    assert neon.sql("select current_user || ' ' || current_database()", uri) == f"{name} {odd}"

    from urllib.parse import quote

    role_path, database_path = f"{roles}/{quote(name, safe='')}", f"{databases}/{quote(odd, safe='')}"
    assert neon.ok("GET", role_path)["role"]["name"] == name
    assert "password" not in neon.ok("GET", role_path)["role"]
    assert neon.ok("GET", database_path)["database"]["owner_name"] == name
    password = neon.ok("GET", role_path + "/reveal_password")["password"]
    new = neon.ok("POST", role_path + "/reset_password")["role"]["password"]
    assert new != password
    assert "password authentication failed" in neon.psql("select 1", uri).stderr
    assert neon.sql("select 1", neon.uri(role=name, database=odd)) == "1"
    assert neon.ok("PATCH", database_path, {"database": {"name": "plain"}})["database"]["name"] == odd
    assert neon.sql("select 1", neon.uri(role=name, database="plain")) == "1"
    assert neon.api("DELETE", role_path).status == 422, "owns a database"
    neon.ok("DELETE", f"{databases}/plain")
    assert neon.api("DELETE", f"{databases}/plain").status == 204
    neon.ok("DELETE", role_path)
    assert neon.api("DELETE", role_path).status == 204
    assert neon.sql("select count(*) from pg_roles where rolname like 'r\"o%'") == "0"

    no_login = neon.ok("POST", roles, {"role": {"name": "group", "no_login": True}})["role"]
    assert no_login["authentication_method"] == "no_login" and "password" not in no_login
    assert neon.api("GET", f"{roles}/group/reveal_password").status == 404
    neon.ok("DELETE", f"{roles}/group")


def test_what_sql_makes_is_seen(neon, branch):
    """As Neon's sync_dbs_and_roles_from_compute does it."""
    neon.sql("create database by_sql")
    neon.sql("create role sql_role login password 'x'")
    try:
        databases = neon.ok("GET", f"/projects/{{p}}/branches/{branch}/databases")["databases"]
        assert {"name": "by_sql", "owner_name": "neondb_owner"}.items() <= next(
            d for d in databases if d["name"] == "by_sql"
        ).items()
        assert "sql_role" in [r["name"] for r in neon.ok("GET", f"/projects/{{p}}/branches/{branch}/roles")["roles"]]
        assert neon.sql("select current_database()", neon.uri(database="by_sql")) == "by_sql"
    finally:
        wait_until(lambda: neon.psql("drop database by_sql").returncode == 0)  # a session that has left may be there for a moment still
        neon.sql("drop role sql_role")
    assert "by_sql" not in [d["name"] for d in neon.ok("GET", f"/projects/{{p}}/branches/{branch}/databases")["databases"]]


def test_passwords_that_are_not_stored(neon):
    project = neon.ok("POST", "/projects", {"project": {"name": "forgetful", "store_passwords": False}})
    p, b = project["project"]["id"], project["branch"]["id"]
    assert neon.api("GET", f"/projects/{p}/branches/{b}/roles/neondb_owner/reveal_password").status == 412
    neon.ok("DELETE", f"/projects/{p}", settle=False)
    wait_until(lambda: neon.api("GET", f"/projects/{p}").status == 404)


# -- operations and projects


def test_operation_list_pages(neon):
    for i in range(2):
        drop(neon, neon.ok("POST", "/projects/{p}/branches")["branch"]["id"])
    everything = neon.ok("GET", "/projects/{p}/operations")["operations"]
    got, cursor = [], None
    while True:
        page = neon.ok("GET", "/projects/{p}/operations", query={"limit": 3} | ({"cursor": cursor} if cursor else {}))
        if not page["operations"]:
            assert page["pagination"]["cursor"] == cursor
            break
        cursor = page["pagination"]["cursor"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", cursor)
        got += page["operations"]
    assert [o["id"] for o in got] == [o["id"] for o in everything]
    assert len(got) > 5
    one = neon.ok("GET", f"/projects/{{p}}/operations/{got[0]['id']}")
    assert one == {"operation": got[0]}
    assert neon.api("GET", "/projects/{p}/operations/00000000-0000-4000-8000-000000000000").status == 404
    assert neon.api("GET", "/projects/{p}/operations/x").status == 400


def test_two_projects(neon):
    org = neon.ok("GET", "/users/me/organizations")["organizations"][0]["id"]
    answer = neon.api(
        "POST",
        "/projects",
        {"project": {"name": "second", "branch": {"name": "prod", "role_name": "me", "database_name": "mine"}}},
    )
    assert answer.status == 201
    second = answer.json
    assert {"project", "connection_uris", "roles", "databases", "operations", "branch", "endpoints"} == set(second)
    neon.settle(second["operations"])
    p = second["project"]["id"]
    try:
        assert neon.sql("select current_user || current_database()", second["connection_uris"][0]["connection_uri"]) == "memine"
        listed = neon.ok("GET", "/projects", query={"org_id": org})
        assert [x["name"] for x in listed["projects"]] == ["local", "second"]
        page = neon.ok("GET", "/projects", query={"org_id": org, "limit": 1})
        page = neon.ok("GET", "/projects", query={"org_id": org, "limit": 1, "cursor": page["pagination"]["cursor"]})
        assert [x["name"] for x in page["projects"]] == ["second"]
        missing = neon.api("GET", "/projects")
        assert missing.status == 400 and missing.message.startswith("org_id is required")
        assert neon.ok("PATCH", f"/projects/{p}", {"project": {"name": "2nd"}})["project"]["name"] == "2nd"
        # Nothing of one project is found in the other, and a change in one doesn't lock the other.
        branch = second["branch"]["id"]
        assert neon.api("GET", f"/projects/{{p}}/branches/{branch}").status == 404
        snapshot = neon.snapshot("of the first")
        foreign = neon.api("POST", f"/projects/{{p}}/snapshots/{snapshot['id']}/restore", {"target_branch_id": branch})
        assert foreign.status == 404 and foreign.message == "branch not found"
        assert neon.api("POST", f"/projects/{p}/snapshots/{snapshot['id']}/restore").status == 404
    finally:
        neon.ok("DELETE", f"/projects/{p}")
        wait_until(lambda: neon.api("GET", f"/projects/{p}").status == 404)
    wait_until(lambda: branch not in [d.name for d in (neon.data / "branches").iterdir()])


def test_who_am_i(neon):
    me, auth = neon.ok("GET", "/users/me"), neon.ok("GET", "/auth")
    assert auth["account_id"] == me["id"] and auth["auth_method"] == "api_key_user"
    org = neon.ok("GET", "/users/me/organizations")["organizations"][0]
    assert neon.ok("GET", f"/organizations/{org['id']}") == org
    assert neon.api("GET", "/organizations/org-x-y-00000000").status == 404
    assert neon.ok("GET", "/projects/{p}/limits")["limits"]["max_branches"] == 25


# -- bad input

BAD = [
    ("POST", "/projects/{p}/branches/{b}/snapshot?timestamp=2026-01-01T00:00:00Z&lsn=0/1", None, 400, "exclude"),
    ("POST", "/projects/{p}/branches/{b}/snapshot?timestamp=yesterday", None, 400, "timestamp"),
    ("POST", "/projects/{p}/branches/{b}/snapshot?lsn=zzz", None, 400, "lsn"),
    ("POST", "/projects/{p}/branches/{b}/snapshot?lsn=0/3000000", None, 422, "history window"),
    ("POST", "/projects/{p}/branches/{b}/snapshot?timestamp=2026-01-01T00:00:00Z", None, 422, "history window"),
    ("POST", "/projects/{p}/branches/{b}/snapshot?expires_at=2001-01-01T00:00:00Z", None, 400, "expires_at"),
    ("POST", "/projects/{p}/branches/{b}/snapshot?expires_at=soon", None, 400, "expires_at"),
    ("POST", "/projects/{p}/branches/{b}/snapshot?name=", None, 400, "name"),
    ("POST", "/projects/{p}/branches/{b}/snapshot?name=" + "x" * 300, None, 400, "name"),
    ("POST", "/projects/{p}/branches/{b}/snapshot?name=%ff", None, 400, "query"),
    ("POST", "/projects/{p}/branches/{b}/snapshot?slug=-bad-", None, 400, "slug"),
    ("POST", "/projects/{p}/branches/br-no-such-branch000/snapshot", None, 404, "branch not found"),
    ("PATCH", "/projects/{p}/snapshots/{s}", None, 400, "body"),
    ("PATCH", "/projects/{p}/snapshots/{s}", [], 400, "object"),
    ("PATCH", "/projects/{p}/snapshots/{s}", b'{"snapshot":', 400, "JSON"),
    ("PATCH", "/projects/{p}/snapshots/{s}", b"\xff\xfe", 400, "JSON"),
    ("PATCH", "/projects/{p}/snapshots/{s}", b"[" * 5000, 400, "JSON"),
    ("PATCH", "/projects/{p}/snapshots/{s}", {"name": "x"}, 400, "snapshot: is required"),
    ("PATCH", "/projects/{p}/snapshots/{s}", {"snapshot": {"name": 7}}, 400, "snapshot.name"),
    ("PATCH", "/projects/{p}/snapshots/{s}", {"snapshot": {"name": None}}, 400, "snapshot.name"),
    ("PATCH", "/projects/{p}/snapshots/{s}", {"snapshot": {"expires_at": 1}}, 400, "snapshot.expires_at"),
    ("PATCH", "/projects/{p}/snapshots/snap-no-such-00000000", {"snapshot": {"name": "x"}}, 404, "snapshot not found"),
    ("DELETE", "/projects/{p}/snapshots/snap-no-such-00000000", None, 404, "snapshot not found"),
    ("DELETE", "/projects/{p}/snapshots/..%2f..%2fbranches%2f{b}", None, 404, "snapshot not found"),
    ("POST", "/projects/{p}/snapshots/{s}/restore", {"target_branch_id": "br-no-such-00000000"}, 404, "branch not found"),
    ("POST", "/projects/{p}/snapshots/{s}/restore", {"target_branch_id": 7}, 400, "target_branch_id"),
    ("POST", "/projects/{p}/snapshots/{s}/restore", {"finalize_restore": "yes"}, 400, "finalize_restore"),
    ("POST", "/projects/{p}/snapshots/{s}/restore", {"name": ""}, 400, "name"),
    ("POST", "/projects/{p}/snapshots/{s}/restore", {"name": "main"}, 409, "branch already exists"),
    ("POST", "/projects/{p}/snapshots/snap-no-such-00000000/restore", None, 404, "snapshot not found"),
    ("POST", "/projects/{p}/branches/{b}/finalize_restore", None, 422, "not created by restoring"),
    ("POST", "/projects/{p}/branches/br-no-such-00000000/finalize_restore", None, 404, "branch not found"),
    ("POST", "/projects/{p}/branches/{b}/restore", {}, 400, "source_branch_id"),
    ("POST", "/projects/{p}/branches/{b}/restore", {"source_branch_id": "{b}"}, 400, "source_lsn"),
    ("POST", "/projects/{p}/branches/{b}/restore", {"source_branch_id": "{b}", "source_lsn": "0/1"}, 400, "preserve_under_name"),
    ("POST", "/projects/{p}/branches/{b}/restore", {"source_branch_id": "{c}"}, 422, "head of another branch"),
    (
        "POST",
        "/projects/{p}/branches/{b}/restore",
        {"source_branch_id": "{b}", "source_lsn": "0/1", "preserve_under_name": "x"},
        422,
        "history window",
    ),
    ("POST", "/projects/{p}/branches", {"branch": {"name": "main"}}, 409, "branch already exists"),
    ("POST", "/projects/{p}/branches", {"branch": {"name": ""}}, 400, "branch.name"),
    ("POST", "/projects/{p}/branches", {"branch": {"parent_id": "br-no-such-00000000"}}, 404, "branch not found"),
    ("POST", "/projects/{p}/branches", {"branch": {"parent_lsn": "0/1"}}, 422, "parent_lsn"),
    ("POST", "/projects/{p}/branches", {"branch": {"parent_timestamp": "2026-01-01T00:00:00Z"}}, 422, "parent_timestamp"),
    ("POST", "/projects/{p}/branches", {"branch": {"init_source": "schema-only"}}, 422, "init_source"),
    ("POST", "/projects/{p}/branches", {"branch": 7}, 400, "branch"),
    ("POST", "/projects/{p}/branches", {"annotation_value": {"n": 1}}, 400, "annotation_value.n"),
    ("POST", "/projects/{p}/branches", {"annotation_value": {str(n): "" for n in range(51)}}, 400, "annotation_value"),
    ("POST", "/projects/{p}/branches", {"endpoints": [{}]}, 400, "endpoints[0].type"),
    ("POST", "/projects/{p}/branches", {"endpoints": [{"type": "read_only"}]}, 422, "read-only"),
    ("POST", "/projects/{p}/branches", {"endpoints": {}}, 400, "endpoints"),
    ("PATCH", "/projects/{p}/branches/{b}", {"branch": {"protected": "yes"}}, 400, "branch.protected"),
    ("DELETE", "/projects/{p}/branches/{b}", None, 422, "default"),
    ("GET", "/projects/{p}/branches?limit=0", None, 400, "limit"),
    ("GET", "/projects/{p}/branches?limit=many", None, 400, "limit"),
    ("GET", "/projects/{p}/branches?sort_by=size", None, 400, "sort_by"),
    ("GET", "/projects/{p}/branches?sort_order=up", None, 400, "sort_order"),
    ("GET", "/projects/{p}/branches?cursor=zz", None, 400, "cursor"),
    ("GET", "/projects/{p}/operations?limit=1001", None, 400, "limit"),
    ("GET", "/projects/{p}/operations?cursor=zz", None, 400, "cursor"),
    ("GET", "/projects/{p}/connection_uri?database_name=neondb", None, 400, "role_name"),
    ("GET", "/projects/{p}/connection_uri?role_name=neondb_owner", None, 400, "database_name"),
    ("GET", "/projects/{p}/connection_uri?role_name=x&database_name=neondb", None, 404, "role not found"),
    ("GET", "/projects/{p}/connection_uri?role_name=neondb_owner&database_name=x", None, 404, "database not found"),
    ("GET", "/projects/{p}/connection_uri?role_name=neondb_owner&database_name=neondb&pooled=7", None, 400, "pooled"),
    (
        "GET",
        "/projects/{p}/connection_uri?role_name=neondb_owner&database_name=neondb&branch_id=br-x",
        None,
        404,
        "branch not found",
    ),
    ("POST", "/projects/{p}/branches/{b}/roles", {"role": {}}, 400, "role.name"),
    ("POST", "/projects/{p}/branches/{b}/roles", {"role": {"name": "x" * 64}}, 400, "role.name"),
    ("POST", "/projects/{p}/branches/{b}/roles", {"role": {"name": "cloud_admin"}}, 400, "reserved"),
    ("POST", "/projects/{p}/branches/{b}/roles", {"role": {"name": "pg_x"}}, 400, "reserved"),
    ("POST", "/projects/{p}/branches/{b}/roles", {"role": {"name": "a\nb"}}, 400, "control"),
    ("POST", "/projects/{p}/branches/{b}/databases", {"database": {"name": "x"}}, 400, "owner_name"),
    ("POST", "/projects/{p}/branches/{b}/databases", {"database": {"name": "x", "owner_name": "nobody"}}, 404, "role not found"),
    (
        "POST",
        "/projects/{p}/branches/{b}/databases",
        {"database": {"name": "template0", "owner_name": "neondb_owner"}},
        400,
        "reserved",
    ),
    ("GET", "/projects/{p}/branches/{b}/roles/nobody", None, 404, "role not found"),
    ("GET", "/projects/{p}/branches/{b}/databases/nothing", None, 404, "database not found"),
    ("POST", "/projects/{p}/endpoints", {"endpoint": {"branch_id": "{b}"}}, 400, "endpoint.type"),
    ("POST", "/projects/{p}/endpoints", {"endpoint": {"branch_id": "{b}", "type": "odd"}}, 400, "endpoint.type"),
    ("POST", "/projects/{p}/endpoints", {"endpoint": {"branch_id": "{b}", "type": "read_write"}}, 409, "already exists"),
    ("POST", "/projects/{p}/endpoints/ep-no-such-00000000/start", None, 404, "endpoint not found"),
    ("PATCH", "/projects/{p}/endpoints/{e}", {"endpoint": {"autoscaling_limit_min_cu": "big"}}, 400, "autoscaling_limit_min_cu"),
    ("PUT", "/projects/{p}/branches/{b}/backup_schedule", {}, 400, "schedule"),
    ("PUT", "/projects/{p}/branches/{b}/backup_schedule", {"schedule": [7]}, 400, "schedule"),
    ("PUT", "/projects/{p}/branches/{b}/backup_schedule", {"schedule": [{"frequency": "hourly", "hour": 1}]}, 400, "frequency"),
    (
        "PUT",
        "/projects/{p}/branches/{b}/backup_schedule",
        {"schedule": [{"frequency": "daily"}]},
        400,
        "daily schedules must specify the hour of the day",
    ),
    ("PUT", "/projects/{p}/branches/{b}/backup_schedule", {"schedule": [{"frequency": "weekly", "hour": 1}]}, 400, "day"),
    (
        "PUT",
        "/projects/{p}/branches/{b}/backup_schedule",
        {"schedule": [{"frequency": "weekly", "hour": 1, "day": 8}]},
        400,
        "day",
    ),
    (
        "PUT",
        "/projects/{p}/branches/{b}/backup_schedule",
        {"schedule": [{"frequency": "daily", "hour": 1, "retention_seconds": 60}]},
        400,
        "retention_seconds",
    ),
    ("POST", "/projects", {"project": {"pg_version": 9}}, 400, "pg_version"),
    ("POST", "/projects", {}, 400, "project"),
    ("GET", "/projects/no-such-project", None, 404, "project not found"),
    ("GET", "/projects/..%2f..", None, 404, "project not found"),
    ("GET", "/projects?org_id=org-x", None, 404, "organization not found"),
]


def test_bad_input_changes_nothing(neon, branch):
    snapshot = neon.snapshot("for bad input")["id"]
    endpoint = neon.endpoints()[0]["id"]
    child = neon.ok("POST", "/projects/{p}/branches", {"branch": {"name": "of bad input"}})["branch"]["id"]
    wait_until(lambda: all("full_size" in s for s in neon.snapshots()))

    def fill(value):
        text = value if isinstance(value, str) else json.dumps(value)
        text = text.replace("{b}", branch).replace("{s}", snapshot).replace("{e}", endpoint).replace("{c}", child)
        return text if isinstance(value, str) else json.loads(text)

    def everything():
        return [
            neon.api("GET", f"/projects/{{p}}{path}").text
            for path in (
                "",
                "/branches",
                "/snapshots",
                "/endpoints",
                "/operations",
                f"/branches/{branch}/roles",
                f"/branches/{branch}/databases",
                f"/branches/{branch}/backup_schedule",
            )
        ]

    before = everything()
    wrong = []
    for method, path, body, status, words in BAD:
        answer = neon.api(method, fill(path), body if isinstance(body, (bytes, type(None))) else fill(body))
        if answer.status != status or words not in answer.message:
            wrong.append((method, path, body, answer))
    assert not wrong
    assert everything() == before
    neon.ok("DELETE", f"/projects/{{p}}/snapshots/{snapshot}")
    drop(neon, child)


def test_odd_ids_never_find_anything(neon):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        ids = ["%00", "..", "%2e%2e", "a" * 300, "A", "'; drop table x;--", "%c3%28", "{}", "*", " ", "-", "br_1"]
        from urllib.parse import quote

        paths = [f"/projects/{{p}}/{kind}/{quote(i, safe='%')}" for kind in ("branches", "endpoints", "operations") for i in ids]
        for answer in pool.map(lambda path: neon.api("GET", path), paths):
            assert answer.status in (400, 404), answer

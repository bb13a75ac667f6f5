"""neon-emulator: failures on request, and what somebody else does in the console."""

import http.client
import json
import time
import urllib.error

import pytest
from emulator import Emulator, wait_until

SNAPSHOT = "POST:/projects/*/branches/*/snapshot"
RESTORE = "POST:/projects/*/snapshots/*/restore"


@pytest.fixture(scope="module")
def emulator():
    with Emulator(operation_ms=5) as e:
        yield e


@pytest.fixture
def neon(emulator):
    yield emulator
    emulator.control("DELETE", "faults")
    for snapshot in emulator.snapshots():
        emulator.ok("DELETE", f"/projects/{{p}}/snapshots/{snapshot['id']}")
    for branch in emulator.branches():
        if not branch["default"]:
            emulator.ok("DELETE", f"/projects/{{p}}/branches/{branch['id']}")


def create(neon, name, **kwargs):
    return neon.api("POST", f"/projects/{{p}}/branches/{neon.default_branch()['id']}/snapshot", query={"name": name}, **kwargs)


@pytest.mark.parametrize("status", [423, 429, 500, 503, 524])
def test_statuses(neon, status):
    neon.fault(f"{SNAPSHOT}={status}*2")
    for _ in range(2):
        answer = create(neon, "s")
        assert answer.status == status
        if status == 524:
            assert answer.text.startswith("<html>") and "text/html" in answer.headers["Content-Type"]
        else:
            assert answer.message
    assert neon.snapshots() == [], "nothing was done"
    answer = create(neon, "s")
    assert answer.status == 200
    neon.settle(answer.json["operations"])


def test_delay_and_its_combination(neon):
    def took(status):
        begin = time.monotonic()
        assert neon.api("GET", "/projects/{p}").status == status
        return time.monotonic() - begin

    neon.fault("GET:/projects/*=delay:300,GET:/projects/{project_id}=503")
    slow = took(503)
    assert neon.control("GET", "faults").json["faults"] == [], "once"
    assert slow > 0.29 and slow > 3 * min(took(200) for _ in range(20))  # the machine may be busy during some of them


@pytest.mark.parametrize("when, left", [("drop-before", 0), ("drop-after", 1)])
def test_dropped_connections(neon, when, left):
    neon.fault(f"{SNAPSHOT}={when}")
    with pytest.raises((urllib.error.URLError, http.client.HTTPException, ConnectionError)):
        create(neon, "lost answer")
    wait_until(lambda: all(o["status"] == "finished" for o in neon.api("GET", "/projects/{p}/operations").json["operations"]))
    assert [s["name"] for s in neon.snapshots()] == ["lost answer"] * left


@pytest.mark.parametrize("status", ["failed", "error", "cancelled"])
def test_a_snapshot_operation_that_fails(neon, status):
    neon.fault(f"{SNAPSHOT}=op:{status}:disk on fire")
    answer = create(neon, "doomed")
    assert answer.status == 200
    last = neon.outcome(answer.json["operations"])
    assert [o["status"] for o in last] == ["finished", status] and last[-1]["error"] == "disk on fire"
    assert neon.snapshots() == []
    wait_until(lambda: not list((neon.data / "snapshots").iterdir()))  # what nobody has any more is swept up afterwards


def test_a_restore_operation_that_fails_changes_nothing(neon):
    neon.sql("drop table if exists t; create table t as select 1 as n")
    snapshot = neon.snapshot("good")
    neon.sql("update t set n = 2")
    branch, endpoint = neon.default_branch(), neon.endpoints()
    for finalize in (True, False):
        neon.fault(f"{RESTORE}=op:failed:no room")
        answer = neon.api(
            "POST",
            f"/projects/{{p}}/snapshots/{snapshot['id']}/restore",
            {"finalize_restore": finalize, "target_branch_id": branch["id"]},
        ).json
        assert neon.outcome(answer["operations"])[-1]["status"] == "failed"
        assert neon.branches() == [branch] and neon.endpoints() == endpoint
    new = neon.ok("POST", f"/projects/{{p}}/snapshots/{snapshot['id']}/restore", {"target_branch_id": branch["id"]})["branch"][
        "id"
    ]
    neon.fault("POST:/projects/*/branches/*/finalize_restore=op:error:again")
    answer = neon.api("POST", f"/projects/{{p}}/branches/{new}/finalize_restore").json
    assert neon.outcome(answer["operations"])[-1]["status"] == "error"
    assert neon.default_branch()["id"] == branch["id"] and neon.branch(new)["restore_status"] == "restored"
    assert neon.sql("select n from t") == "2" and neon.sql("select n from t", neon.uri(new)) == "1"
    neon.ok("POST", f"/projects/{{p}}/branches/{new}/finalize_restore")
    assert neon.sql("select n from t") == "1"


def test_skipped_operations_count_as_done(neon):
    neon.fault(f"{SNAPSHOT}=op:skipped")
    answer = create(neon, "skipped")
    assert {o["status"] for o in neon.settle(answer.json["operations"])} == {"skipped"}
    assert [s["name"] for s in neon.snapshots()] == ["skipped"]


def unseen(neon, rule, make, look):
    """What `make` makes late, looked for by `look` while nobody can see it: longer, where the machine was too busy to look in that time."""
    for late in (700, 7000, 70000):
        neon.fault(f"{rule}=late:{late}")
        begin = time.monotonic()
        answer = make(f"late {late}").json
        found = look(answer)
        in_time = time.monotonic() - begin < late / 1000
        neon.settle(answer["operations"])
        if in_time:
            return answer, found
    raise AssertionError("never looked in time")


def test_late_visibility(neon):
    snapshot = neon.snapshot("seen")

    def restore(name):
        return neon.api("POST", f"/projects/{{p}}/snapshots/{snapshot['id']}/restore", {"name": name})

    def look(answer):
        branch, endpoint = answer["branch"]["id"], answer["endpoints"][0]["id"]
        return [
            neon.api("GET", f"/projects/{{p}}/branches/{branch}"),
            branch in [b["id"] for b in neon.branches()],
            neon.api("GET", f"/projects/{{p}}/endpoints/{endpoint}").status,
        ]

    answer, (missing, *others) = unseen(neon, RESTORE, restore, look)
    assert missing.status == 404 and missing.message == "branch not found" and others == [False, 404]
    branch = answer["branch"]["id"]
    wait_until(lambda: neon.api("GET", f"/projects/{{p}}/branches/{branch}").status == 200)
    assert branch in [b["id"] for b in neon.branches()]
    late, names = unseen(neon, SNAPSHOT, lambda name: create(neon, name), lambda _: {s["name"] for s in neon.snapshots()})
    assert "seen" in names and late["snapshot"]["name"] not in names
    wait_until(lambda: late["snapshot"]["id"] in {s["id"] for s in neon.snapshots()})


def test_broken_answers(neon):
    neon.fault("GET:/projects/*/snapshots=malformed,GET:/projects/*/branches=truncate")
    malformed = neon.api("GET", "/projects/{p}/snapshots", judge=False)
    assert malformed.status == 200
    with pytest.raises(json.JSONDecodeError):
        malformed.json
    with pytest.raises(http.client.IncompleteRead):
        neon.api("GET", "/projects/{p}/branches")
    assert neon.branches()


def test_only_after_another_request(neon):
    neon.fault("GET:/projects/*@2>GET:/projects/*/branches=503@2")
    neon.fault("GET:/projects/*/limits>GET:/projects/*/branches=500")
    get = lambda path="": neon.api("GET", "/projects/{p}" + path).status  # noqa: E731
    assert [get("/branches"), get(), get("/branches"), get("/branches"), get()] == [200] * 5
    assert [get("/branches"), get("/branches"), get("/branches")] == [200, 503, 200]
    assert get("/limits") == 200 and [get("/branches"), get("/branches")] == [500, 200]
    assert neon.control("GET", "faults").json == {"faults": [], "met": [f"GET:/projects/{neon.project}/branches"] * 2}
    neon.control("DELETE", "faults")


def test_the_list_of_faults(neon):
    neon.fault("GET:*=503*inf")
    neon.fault("POST:*=500*3")
    assert [neon.api("GET", "/projects/{p}").status for _ in range(3)] == [503] * 3
    listed = neon.control("POST", "faults", {"spec": "DELETE:*=500"})
    assert listed.json["faults"] == [
        {"rule": "GET:*=503*inf", "left": -1},
        {"rule": "POST:*=500*3", "left": 3},
        {"rule": "DELETE:*=500", "left": 1},
    ]
    assert listed.json["met"] == [f"GET:/projects/{neon.project}"] * 3
    assert neon.control("DELETE", "faults").json == {"faults": [], "met": []}
    assert neon.api("GET", "/projects/{p}").status == 200


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "GET",
        "GET:/x",
        "GET:/x=",
        "GET:/x=200",
        "GET:/x=423*0",
        "GET:/x=423*x",
        "GET:x=423",
        "=423",
        "GET:/x=delay:",
        "GET:/x=op:melted",
        "GET:/x=423,bad",
        ">GET:/x=423",
        "GET>GET:/x=423",
        "GET:/x@0>GET:/x=423",
        "GET:/x>=423",
    ],
)
def test_a_bad_specification_is_refused_whole(neon, spec):
    assert neon.control("POST", "faults", {"spec": spec}).status == 400
    assert neon.control("GET", "faults").json["faults"] == []


def test_a_fault_from_the_command_line(tmp_path):
    with Emulator("--fault=GET:/projects/*/snapshots=423*1") as neon:
        assert [neon.api("GET", "/projects/{p}/snapshots").status for _ in range(2)] == [423, 200]


def test_somebody_else_in_the_console(neon):
    snapshot = neon.snapshot("theirs")
    first = neon.default_branch()["id"]
    other = neon.ok("POST", "/projects/{p}/branches", {"branch": {"name": "other"}})["branch"]["id"]
    assert neon.console("set_default", branch_id=other).status == 200
    assert neon.default_branch()["id"] == other
    assert neon.console("set_default", branch_id=first).status == 200
    # It waits its turn behind what runs, and is done when it answers.
    running = neon.api("POST", f"/projects/{{p}}/snapshots/{snapshot['id']}/restore").json
    assert neon.console("delete_branch", branch_id=other).status == 200
    assert [o["status"] for o in neon.outcome(running["operations"])] == ["finished"] * 3
    assert other not in [b["id"] for b in neon.branches()]
    assert neon.console("delete_branch", branch_id=first).status == 422, "not even there"
    assert neon.console("delete_snapshot", snapshot_id=snapshot["id"]).status == 202
    assert neon.snapshots() == []
    for body in (
        {"action": "melt", "project_id": neon.project},
        {"action": "set_default"},
        {"action": "set_default", "project_id": neon.project},
    ):
        assert neon.control("POST", "console", body).status == 400


def test_from_the_nth_request_on(emulator):
    emulator.fault("GET:/projects/*/branches=500*2@3")
    assert [emulator.api("GET", "/projects/{p}/branches").status for _ in range(5)] == [200, 200, 500, 500, 200]
    assert emulator.control("POST", "faults", {"spec": "*:*=500@0"}).status == 400
    emulator.control("DELETE", "faults")

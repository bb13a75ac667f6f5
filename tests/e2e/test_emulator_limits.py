"""neon-emulator: limits, names, the rate limit, one change at a time."""

import concurrent.futures

import pytest
from emulator import LOCKED, Emulator, wait_until


def test_the_free_plan():
    with Emulator("--plan=free", operation_ms=5) as neon:
        branch = neon.default_branch()["id"]
        first = neon.snapshot("first")
        second = neon.api("POST", f"/projects/{{p}}/branches/{branch}/snapshot", query={"name": "second"})
        assert second.status == 422 and second.message == "snapshots limit exceeded"
        for _ in range(2):
            neon.ok("POST", f"/projects/{{p}}/snapshots/{first['id']}/restore", {"finalize_restore": False})
        for finalize in (False, True):
            third = neon.api("POST", f"/projects/{{p}}/snapshots/{first['id']}/restore", {"finalize_restore": finalize})
            assert third.status == 422
            assert third.json["code"] == "ROOT_BRANCHES_LIMIT_EXCEEDED" and third.message == "root branches limit exceeded"
        # Children count as branches, not as roots.
        for _ in range(7):
            neon.ok("POST", "/projects/{p}/branches")
        eleventh = neon.api("POST", "/projects/{p}/branches")
        assert eleventh.status == 422 and eleventh.json["code"] == "BRANCHES_LIMIT_EXCEEDED"
        schedule = {"schedule": [{"frequency": "daily", "hour": 3}]}
        refused = neon.api("PUT", f"/projects/{{p}}/branches/{branch}/backup_schedule", schedule)
        assert refused.status == 412 and refused.message == "backup schedule creation is not enabled for this project"
        # Rotation: what is deleted makes room at once.
        neon.ok("DELETE", f"/projects/{{p}}/snapshots/{first['id']}")
        neon.snapshot("second")


def test_explicit_limits():
    with Emulator("--snapshots=2", "--root-branches=2", "--branches=3", operation_ms=5) as neon:
        neon.snapshot("a")
        b = neon.snapshot("b")
        branch = neon.default_branch()["id"]
        assert neon.api("POST", f"/projects/{{p}}/branches/{branch}/snapshot").status == 422
        neon.ok("POST", f"/projects/{{p}}/snapshots/{b['id']}/restore")
        assert neon.api("POST", f"/projects/{{p}}/snapshots/{b['id']}/restore").json["code"] == "ROOT_BRANCHES_LIMIT_EXCEEDED"
        neon.ok("POST", "/projects/{p}/branches")
        assert neon.api("POST", "/projects/{p}/branches").json["code"] == "BRANCHES_LIMIT_EXCEEDED"


@pytest.fixture(scope="module")
def neon():
    with Emulator(operation_ms=100) as e:
        yield e


def test_names_are_unique(neon):
    branch = neon.default_branch()["id"]
    snapshot, other = neon.snapshot("same"), neon.snapshot("other")
    again = neon.api("POST", f"/projects/{{p}}/branches/{branch}/snapshot", query={"name": "same"})
    assert again.status == 409 and "already exists" in again.message
    renamed = neon.api("PATCH", f"/projects/{{p}}/snapshots/{other['id']}", {"snapshot": {"name": "same"}})
    assert renamed.status == 409
    assert sorted(s["name"] for s in neon.snapshots()) == ["other", "same"]
    neon.ok("PATCH", f"/projects/{{p}}/snapshots/{snapshot['id']}", {"snapshot": {"name": "same"}})
    assert neon.api("PATCH", f"/projects/{{p}}/branches/{branch}", {"branch": {"name": "main"}}).status == 200
    taken = neon.ok("POST", f"/projects/{{p}}/snapshots/{snapshot['id']}/restore", {"name": "taken"})["branch"]["id"]
    for body in ({"name": "taken"}, {"name": "main"}):
        assert neon.api("POST", f"/projects/{{p}}/snapshots/{snapshot['id']}/restore", body).message == "branch already exists"
        assert neon.api("POST", f"/projects/{{p}}/branches/{taken}/finalize_restore", body).message == "branch already exists"


def test_lenient_names():
    with Emulator("--lenient-names", operation_ms=5) as neon:
        a, b = neon.snapshot("same"), neon.snapshot("same")
        assert a["id"] != b["id"] and [s["name"] for s in neon.snapshots()] == ["same", "same"]
        for _ in range(2):
            neon.ok("POST", f"/projects/{{p}}/snapshots/{a['id']}/restore", {"name": "twin"})
        assert sorted(b["name"] for b in neon.branches()) == ["main", "twin", "twin"]


def test_any_other_change_is_locked_out():
    with Emulator(operation_ms=600000) as neon:  # a stop cuts it short
        locked_out(neon)


def locked_out(neon):
    branch, endpoint = neon.default_branch()["id"], neon.endpoints()[0]["id"]
    running = neon.api("POST", f"/projects/{{p}}/branches/{branch}/snapshot", query={"name": "lock"}).json
    snapshot = running["snapshot"]["id"]
    changes = [
        ("POST", f"/branches/{branch}/snapshot", None),
        ("PATCH", f"/snapshots/{snapshot}", {"snapshot": {"name": "x"}}),
        ("DELETE", f"/snapshots/{snapshot}", None),
        ("POST", f"/snapshots/{snapshot}/restore", None),
        ("POST", "/branches", None),
        ("PATCH", f"/branches/{branch}", {"branch": {"name": "x"}}),
        ("DELETE", f"/branches/{branch}", None),
        ("POST", f"/branches/{branch}/set_as_default", None),
        ("POST", f"/endpoints/{endpoint}/restart", None),
        ("POST", f"/branches/{branch}/roles", {"role": {"name": "x"}}),
        ("PUT", f"/branches/{branch}/backup_schedule", {"schedule": []}),
    ]
    with concurrent.futures.ThreadPoolExecutor(len(changes)) as pool:
        answers = list(pool.map(lambda c: neon.api(c[0], "/projects/{p}" + c[1], c[2]), changes))
    assert {a.status for a in answers} == {423}
    assert {(a.json["code"], a.message) for a in answers} == {("", LOCKED)}
    for path in ("", "/branches", "/snapshots", "/operations", "/endpoints", f"/branches/{branch}/roles"):
        assert neon.api("GET", "/projects/{p}" + path).status == 200
    neon.stop()
    neon.options = ["--operation-ms=0"]
    neon.start()
    neon.settle(running["operations"])
    neon.ok("DELETE", f"/projects/{{p}}/snapshots/{snapshot}")


def test_one_of_many_wins(neon):
    """Twenty requests for the same at once: one is accepted, the others are told to wait; never two at a time."""
    branch = neon.default_branch()["id"]
    before = len(neon.snapshots())
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = list(
            pool.map(
                lambda i: neon.api("POST", f"/projects/{{p}}/branches/{branch}/snapshot", query={"name": f"race {i}"}), range(20)
            )
        )
    good = [a for a in answers if a.status == 200]
    assert len(good) >= 1 and {a.status for a in answers} <= {200, 423}
    for a in good:
        neon.outcome(a.json["operations"])
    assert len(neon.snapshots()) == before + len(good)


def test_the_rate_limit():
    with Emulator("--rate-limit=1") as neon:  # so that a busy machine asks more often than it may, too
        statuses = []
        for wanted in (200, 429, 200):
            wait_until(lambda: statuses.append(neon.api("GET", "/projects/{p}").status) or statuses[-1] == wanted, interval=0)
        assert statuses[0] == 200 and set(statuses) == {200, 429}

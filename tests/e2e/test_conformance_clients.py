"""neon-emulator judged by @neon/sdk 6.1.2 and @neondatabase/api-client 2.7.3, and by Neon's OpenAPI document."""

import json
import os
import shutil
import subprocess

import pytest
from emulator import Emulator, wait_until
from openapi import CONFORMANCE, ROOT, JudgingProxy, install

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def neon():
    install()
    for script in (ROOT / "tests" / "conformance").glob("*.mjs"):
        shutil.copy(script, CONFORMANCE)  # where its imports are found
    with Emulator(operation_ms=5) as e, JudgingProxy(e) as proxy:
        e.proxy = proxy
        yield e
        assert not proxy.problems


@pytest.fixture
def fresh(neon):
    yield neon
    neon.control("DELETE", "faults")
    operations = "/projects/{p}/operations"  # a client may leave one under way
    wait_until(lambda: not {"running", "scheduling"} & {o["status"] for o in neon.api("GET", operations).json["operations"]})
    for snapshot in neon.snapshots():
        neon.ok("DELETE", f"/projects/{{p}}/snapshots/{snapshot['id']}")
    for branch in neon.branches():
        if not branch["default"]:
            neon.ok("DELETE", f"/projects/{{p}}/branches/{branch['id']}")


def node(neon, script, *arguments):
    """The script's lines by step, in order; a step's last line counts."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("NEON_")}
    environ |= {"NEON_API_KEY": neon.key, "NEON_API_HOST": neon.proxy.host, "NEON_PROJECT_ID": neon.project}
    done = subprocess.run(
        [CONFORMANCE / "node", CONFORMANCE / script, *arguments], capture_output=True, text=True, env=environ, timeout=300
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    return {line["step"]: line for line in map(json.loads, done.stdout.splitlines())}


def test_sdk_snapshots(fresh):
    neon = fresh
    neon.sql("create table if not exists t as select 1 as n")
    first = neon.default_branch()["id"]
    steps = node(neon, "sdk.mjs", "snapshots")
    assert not [s for s in steps.values() if "error" in s], steps
    data = {name: s["data"] for name, s in steps.items()}
    assert data["list-empty"] == [] and data["list-after-delete"] == []
    assert (
        data["create"]["name"] == "by sdk" and data["create"]["slug"] == "by-sdk" and data["create"]["source_branch_id"] == first
    )
    assert [s["name"] for s in data["list"]] == ["by sdk"]
    assert data["update"]["name"] == "renamed" and "expires_at" not in data["update"]
    assert data["default-after-commit"]["id"] == data["callback-commit"]["id"]
    assert data["default-after-commit"]["restore_status"] == "finalized"
    assert "aborted" not in [b["name"] for b in data["branches-after-abort"]]
    assert data["schedule-get"]["schedule"] == [{"frequency": "weekly", "day": 2, "hour": 4, "retention_seconds": 3024000}]
    assert neon.sql("select n from t") == "1"
    restores = [json.loads(r["body"]) for r in neon.proxy.said("POST", "/restore") if "finalize" not in r["path"]]
    assert restores[0] == {"finalize_restore": True}, "finalizes by default when there is no target"
    assert restores[1]["finalize_restore"] is False


def test_sdk_branches(fresh):
    steps = node(fresh, "sdk.mjs", "branches")
    assert steps["not-found"]["error"]["kind"] == "not_found" and steps["not-found"]["error"]["requestId"]
    assert not [s for name, s in steps.items() if "error" in s and name != "not-found"], steps
    assert "sdk renamed" in [b["name"] for b in steps["list"]["data"]]


def test_sdk_create_and_connect(fresh):
    steps = node(fresh, "sdk.mjs", "connect")
    uri = steps["connect"]["data"]["connectionString"]
    assert fresh.sql("select 1", uri) == "1"


def test_sdk_finalize_and_wait(fresh):
    steps = node(fresh, "sdk.mjs", "finalize")
    assert not [s for s in steps.values() if s.get("error")], steps
    assert steps["default"]["data"]["id"] == steps["restore"]["data"]["id"]


@pytest.mark.parametrize(
    "status, requests, kind", [(423, 3, None), (429, 3, None), (503, 3, None), (500, 1, "api"), (409, 1, "api")]
)
def test_sdk_retries(fresh, status, requests, kind):
    fresh.fault(f"GET:/projects/*/snapshots={status}*2")
    steps = node(fresh, "sdk.mjs", "list")
    assert steps["requests"]["data"] == requests
    if kind:
        assert steps["list"]["error"]["kind"] == kind and steps["list"]["error"]["status"] == status
    else:
        assert steps["list"]["data"] == []


@pytest.mark.parametrize("status", ["failed", "error", "cancelled"])
def test_sdk_sees_an_operation_fail(fresh, status):
    fresh.fault(f"POST:/projects/*/branches/*/snapshot=op:{status}:out of luck")
    error = node(fresh, "sdk.mjs", "create", "doomed")["create"]["error"]
    assert error["kind"] == "operation" and error["status"] == status and "out of luck" in error["message"]
    assert fresh.snapshots() == []


def test_sdk_and_a_skipped_operation(fresh):
    fresh.fault("POST:/projects/*/branches/*/snapshot=op:skipped")
    assert node(fresh, "sdk.mjs", "create", "skipped")["create"]["data"]["name"] == "skipped"


def test_sdk_and_a_dropped_answer(fresh):
    fresh.fault("POST:/projects/*/branches/*/snapshot=drop-after")
    assert node(fresh, "sdk.mjs", "create", "lost")["create"]["error"]["kind"] == "network"
    assert [s["name"] for s in fresh.snapshots()] == ["lost"]
    fresh.outcome(fresh.api("GET", "/projects/{p}/operations").json["operations"][:2])


def test_api_client(fresh):
    neon = fresh
    neon.sql("drop table if exists t; create table t as select 2 as n")
    steps = node(neon, "api-client.mjs")
    expected = {
        "create-branch": 201,
        "create-role": 201,
        "create-database": 201,
        "delete-snapshot": 202,
        "delete-branch-again": 204,
        "not-found": 404,
    }
    assert {name: s["status"] for name, s in steps.items() if s["status"] != expected.get(name, 200)} == {}
    data = {name: s["data"] for name, s in steps.items()}
    assert data["create-snapshot"]["snapshot"]["name"] == "by axios now", "axios writes a space as +"
    assert data["restore-finalized"]["branch"]["restored_from"] == data["create-snapshot"]["snapshot"]["id"]
    assert data["branch"]["branch"]["default"] and data["branch"]["branch"]["restore_status"] == "finalized"
    assert data["not-found"]["message"] == "branch not found"
    assert data["reveal"]["password"] == data["create-role"]["role"]["password"]
    assert neon.sql("select n from t") == "2"
    # An empty axios body arrives as a form.
    assert any(r["headers"].get("Content-Type", "").startswith("application/x-www-form-urlencoded") for r in neon.proxy.requests)

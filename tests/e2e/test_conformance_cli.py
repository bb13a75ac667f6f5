"""neon-emulator judged by Neon's own command line, neon 6.2.3; every answer is held against Neon's OpenAPI document."""

import json
import os
import subprocess

import pytest
from emulator import Emulator, wait_until
from openapi import CONFORMANCE, JudgingProxy, install

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def neon():
    install()
    with Emulator(operation_ms=0) as e, JudgingProxy(e) as proxy:
        e.proxy = proxy
        yield e
        assert not proxy.problems


@pytest.fixture
def cli(neon, tmp_path):
    def run(*arguments, fails=False, project=True, output="json"):
        environ = {k: v for k, v in os.environ.items() if not k.startswith("NEON_")}
        environ |= {
            "NEON_API_KEY": neon.key,
            "NEON_API_HOST": neon.proxy.host,
            "CI": "1",
            "NO_UPDATE_NOTIFIER": "1",
            "HOME": str(tmp_path),
            "XDG_CONFIG_HOME": str(tmp_path),
        }
        command = [CONFORMANCE / "node", CONFORMANCE / "node_modules" / ".bin" / "neon"]
        more = (["--project-id", neon.project] if project else []) + (["-o", output] if output else [])
        done = subprocess.run(
            [*command, "--no-analytics", *arguments, *more], capture_output=True, text=True, env=environ, cwd=tmp_path, timeout=300
        )
        assert (done.returncode != 0) == fails, (arguments, done.stdout, done.stderr)
        idle(neon)
        if fails:
            return done.stderr
        return json.loads(done.stdout) if output == "json" else done.stdout

    return run


def idle(neon):
    """The command line accepts and doesn't wait."""
    wait_until(
        lambda: all(
            o["status"] not in ("running", "scheduling") for o in neon.api("GET", "/projects/{p}/operations").json["operations"]
        )
    )


def test_snapshots(neon, cli):
    neon.sql("create table users as select 'Charlie' as name")
    made = cli("snapshots", "create", "--branch", "main", "--name", "pre drop", "--expires-at", "2099-01-01T00:00:00Z")
    created = made.get("snapshot", made)
    assert created["name"] == "pre drop" and created["expires_at"] == "2099-01-01T00:00:00Z"
    sent = neon.proxy.said("POST", "/snapshot?")[-1]
    assert "name=pre%20drop" in sent["path"] and sent["body"] == "" and "Content-Type" not in sent["headers"]
    listed = cli("snapshots", "list")
    assert [s["id"] for s in listed] == [created["id"]]
    for wanted in (created["id"], "pre drop", created["slug"]):
        assert cli("snapshots", "get", wanted)["id"] == created["id"]
    renamed = cli("snapshots", "update", created["id"], "--name", "renamed")
    assert renamed.get("snapshot", renamed)["name"] == "renamed"
    cli("snapshots", "update", "renamed", "--clear-expiration")
    assert "expires_at" not in neon.snapshots()[0]

    neon.sql("drop table users")
    restored = cli("snapshots", "restore", created["id"], "--target-branch", "main", "--finalize")
    assert restored["restored_branch"]["id"] == neon.default_branch()["id"]
    assert neon.sql("select name from users") == "Charlie"

    neon.sql("drop table users")
    preview = cli("snapshots", "restore", "renamed", "--target-branch", "main", "--name", "preview")["restored_branch"]
    assert neon.sql("select name from users", neon.uri(preview["id"])) == "Charlie"
    cli("snapshots", "finalize", "preview", "--name", "before preview")
    assert neon.default_branch()["id"] == preview["id"] and neon.sql("select name from users") == "Charlie"
    assert "before preview" in [b["name"] for b in neon.branches()]

    cli("snapshots", "schedule", "set", "--branch", "main", "--frequency", "daily", "--hour", "3", output=None)
    schedule = cli("snapshots", "schedule", "get", "--branch", "main")
    entries = schedule.get("schedule", schedule) if isinstance(schedule, dict) else schedule
    assert entries[0]["frequency"] == "daily" and entries[0]["hour"] == 3
    cli("snapshots", "delete", "renamed", output=None)
    assert neon.snapshots() == []


def test_branches(neon, cli):
    made = cli("branches", "create", "--name", "by cli")
    branch = made["branch"]["id"]
    assert "by cli" in [b["name"] for b in cli("branches", "list")]
    assert cli("branches", "get", "by cli")["id"] == branch
    cli("branches", "rename", "by cli", "renamed", output=None)
    assert neon.branch(branch)["name"] == "renamed"
    first = neon.default_branch()["id"]
    cli("branches", "set-default", "renamed", output=None)
    assert neon.default_branch()["id"] == branch
    cli("branches", "set-default", first, output=None)
    cli("branches", "delete", "renamed", output=None)
    assert branch not in [b["id"] for b in neon.branches()]


def test_operations(neon, cli):
    listed = cli("operations", "list")
    assert [o["id"] for o in listed] == [o["id"] for o in neon.api("GET", "/projects/{p}/operations").json["operations"]][
        : len(listed)
    ]


def test_databases_and_roles(neon, cli):
    cli("roles", "create", "--branch", "main", "--name", "cli_role", output=None)
    cli("databases", "create", "--branch", "main", "--name", "cli_db", "--owner-name", "cli_role", output=None)
    assert "cli_role" in [r["name"] for r in cli("roles", "list", "--branch", "main")]
    assert "cli_db" in [d["name"] for d in cli("databases", "list", "--branch", "main")]
    uri = cli(
        "connection-string", "main", "--role-name", "cli_role", "--database-name", "cli_db", "--ssl", "omit", output=None
    ).strip()
    assert neon.sql("select current_user || ' ' || current_database()", uri) == "cli_role cli_db"
    cli("databases", "delete", "cli_db", "--branch", "main", output=None)
    cli("roles", "delete", "cli_role", "--branch", "main", output=None)
    assert [r["name"] for r in cli("roles", "list", "--branch", "main")] == ["neondb_owner"]


def test_projects(neon, cli):
    assert cli("projects", "get", neon.project, project=False)["id"] == neon.project
    org = neon.ok("GET", "/users/me/organizations")["organizations"][0]["id"]
    listed = cli("projects", "list", "--org-id", org, project=False)
    assert neon.project in [p["id"] for p in listed]
    assert "org_id is required" in cli("projects", "list", project=False, fails=True), "as Neon has it for personal keys"


def test_connection_string(neon, cli):
    uri = cli("connection-string", "main", "--ssl", "omit", output=None).strip()
    assert neon.sql("select current_user", uri) == "neondb_owner"


def test_api(neon, cli):
    # The raw passthrough puts no project in by itself.
    assert cli("api", f"/projects/{neon.project}/snapshots", project=False, output=None).strip().startswith("{")
    body = cli("api", f"/projects/{neon.project}/branches", "-F", "branch.name=raw", project=False, output=None)
    idle(neon)
    made = json.loads(body)["branch"]
    assert made["name"] == "raw"
    cli("api", f"/projects/{neon.project}/branches/{made['id']}", "-X", "DELETE", project=False, output=None)


def test_errors_in_neons_words(neon, cli):
    neon.snapshot("taken")
    assert "already exists" in cli("snapshots", "create", "--branch", "main", "--name", "taken", fails=True)
    branch = neon.ok("POST", "/projects/{p}/branches", {"branch": {"name": "leaf"}})["branch"]["id"]
    assert "root branches" in cli("snapshots", "create", "--branch", branch, "--name", "no", fails=True)
    assert "default branch" in cli("branches", "delete", "main", fails=True)
    for spec, words in (("503", "service unavailable"), ("500", "internal server error")):
        neon.fault(f"GET:/projects/*/snapshots={spec}*inf")
        assert words in cli("snapshots", "list", fails=True)
        neon.control("DELETE", "faults")


def test_it_retries_on_423(neon, cli):
    neon.fault("POST:/projects/*/branches/*/snapshot=423")
    before = len(neon.proxy.said("POST", "/snapshot?"))
    cli("snapshots", "create", "--branch", "main", "--name", "after a lock")
    assert [r["status"] for r in neon.proxy.said("POST", "/snapshot?")[before:]] == [423, 200]

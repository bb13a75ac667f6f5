"""neon-emulator against Neon's OpenAPI document: generated requests over every served path, and the guide's own helpers."""

import copy
import json
import re
import subprocess
import time
import urllib.request

import openapi
import pytest
from emulator import Emulator, wait_until

pytestmark = pytest.mark.timeout(900)

# What neon-emulator serves, as the document writes it. The README's table names the same.
SERVED = {
    "/auth": "get",
    "/users/me": "get",
    "/users/me/organizations": "get",
    "/organizations/{org_id}": "get",
    "/projects": "get post",
    "/projects/{project_id}": "get patch delete",
    "/projects/{project_id}/connection_uri": "get",
    "/projects/{project_id}/operations": "get",
    "/projects/{project_id}/operations/{operation_id}": "get",
    "/projects/{project_id}/branches": "get post",
    "/projects/{project_id}/branches/count": "get",
    "/projects/{project_id}/branches/{branch_id}": "get patch delete",
    "/projects/{project_id}/branches/{branch_id}/restore": "post",
    "/projects/{project_id}/branches/{branch_id}/set_as_default": "post",
    "/projects/{project_id}/branches/{branch_id}/finalize_restore": "post",
    "/projects/{project_id}/branches/{branch_id}/endpoints": "get",
    "/projects/{project_id}/branches/{branch_id}/backup_schedule": "get put",
    "/projects/{project_id}/branches/{branch_id}/snapshot": "post",
    "/projects/{project_id}/snapshots": "get",
    "/projects/{project_id}/snapshots/{snapshot_id}": "patch delete",
    "/projects/{project_id}/snapshots/{snapshot_id}/restore": "post",
    "/projects/{project_id}/endpoints": "get post",
    "/projects/{project_id}/endpoints/{endpoint_id}": "get patch delete",
    "/projects/{project_id}/endpoints/{endpoint_id}/start": "post",
    "/projects/{project_id}/endpoints/{endpoint_id}/suspend": "post",
    "/projects/{project_id}/endpoints/{endpoint_id}/restart": "post",
    "/projects/{project_id}/branches/{branch_id}/roles": "get post",
    "/projects/{project_id}/branches/{branch_id}/roles/{role_name}": "get delete",
    "/projects/{project_id}/branches/{branch_id}/roles/{role_name}/reveal_password": "get",
    "/projects/{project_id}/branches/{branch_id}/roles/{role_name}/reset_password": "post",
    "/projects/{project_id}/branches/{branch_id}/databases": "get post",
    "/projects/{project_id}/branches/{branch_id}/databases/{database_name}": "get patch delete",
}


@pytest.fixture
def neon():
    openapi.install()
    with Emulator("--branches=8", "--root-branches=4", "--snapshots=3", operation_ms=0) as e:
        yield e


def pick(document, wanted):
    """The document with the wanted paths only."""
    out = copy.deepcopy(document)
    out["paths"] = {}
    for path, methods in wanted.items():
        item = document["paths"][path]
        out["paths"][path] = {k: v for k, v in item.items() if k == "parameters" or k in methods.split()}
        assert len(out["paths"][path]) >= len(methods.split()), path
    return out


def schemathesis(neon, tmp_path, wanted, parameters, examples=6, more=""):
    document = json.loads((openapi.CONFORMANCE / "openapi.json").read_text())
    (tmp_path / "served.json").write_text(json.dumps(pick(document, wanted)))
    values = "".join(f'"path.{k}" = "{v}"\n' for k, v in parameters.items())
    (tmp_path / "schemathesis.toml").write_text(
        f"[parameters]\n{values}\n[phases.stateful]\nenabled = false\n[phases.coverage]\nunexpected-methods = []\n"
        "[checks]\nenabled = false\nnot_a_server_error = {enabled = true}\nresponse_schema_conformance = {enabled = true}\n"
        "status_code_conformance = {enabled = true}\ncontent_type_conformance = {enabled = true}\n"
    )
    done = subprocess.run(
        [
            openapi.CONFORMANCE / "venv" / "bin" / "schemathesis",
            "--config-file",
            "schemathesis.toml",
            "run",
            "served.json",
            "--url",
            neon.host,
            "--header",
            f"Authorization: Bearer {neon.key}",
            "--max-examples",
            str(examples),
            "--seed",
            "7",
            "--workers",
            "1",
            "--no-color",
            "--generation-database",
            "none",
            "--suppress-health-check",
            "all",
            *more.split(),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def test_generated_requests(neon, tmp_path):
    """Every served path, with ids that exist, so that the requests go deep."""
    snapshot = neon.snapshot("target")["id"]
    child = neon.ok("POST", "/projects/{p}/branches", {"branch": {"name": "child"}, "endpoints": [{"type": "read_write"}]})
    branch, endpoint = child["branch"]["id"], child["endpoints"][0]["id"]
    # Deleting the project would end the run; making them without end would end the machine. Both come below.
    wanted = SERVED | {"/projects": "get", "/projects/{project_id}": "get patch"}
    out = schemathesis(
        neon,
        tmp_path,
        wanted,
        {
            "project_id": neon.project,
            "branch_id": branch,
            "snapshot_id": snapshot,
            "endpoint_id": endpoint,
            "role_name": "neondb_owner",
            "database_name": "neondb",
        },
    )
    assert re.search(r"(\d+) generated, \1 passed", out)
    assert neon.process.poll() is None
    wait_until(
        lambda: all(
            o["status"] not in ("running", "scheduling") for o in neon.api("GET", "/projects/{p}/operations").json["operations"]
        )
    )
    assert neon.sql("select 1") == "1"


def test_generated_ids(neon, tmp_path):
    """The same paths with ids that nobody has."""
    wanted = {p: m for p, m in SERVED.items() if "{" in p}
    schemathesis(neon, tmp_path, wanted, {}, examples=4)
    wanted = {p: m for p, m in SERVED.items() if "{branch_id}" in p or "{snapshot_id}" in p}
    schemathesis(neon, tmp_path, wanted, {"project_id": neon.project}, examples=4)


def test_every_route_has_been_judged(neon):
    """What the suite has seen up to here was held against the document; and the judge does find what is wrong."""
    judge = openapi.document()
    branch = neon.default_branch()["id"]
    for path in (f"/projects/{neon.project}", f"/projects/{neon.project}/branches/{branch}", "/users/me", "/auth"):
        assert neon.raw("GET", neon.host + path).status == 200
    neon.branch(branch)
    assert {("GET", "/projects/{project_id}", 200), ("GET", "/projects/{project_id}/branches/{branch_id}", 200)} <= judge.checked
    good = neon.api("GET", f"/projects/{{p}}/branches/{branch}").json
    for break_it in (
        lambda b: b["branch"].pop("name"),
        lambda b: b["branch"].update(created_at="yesterday"),
        lambda b: b["branch"].update(default="yes"),
        lambda b: b.pop("annotation"),
    ):
        bad = copy.deepcopy(good)
        break_it(bad)
        with pytest.raises(AssertionError):
            judge.check("GET", f"/projects/p/branches/{branch}", 200, json.dumps(bad))
    with pytest.raises(AssertionError):
        judge.check("DELETE", "/projects/p/snapshots/s", 200, "{}")


# -- the guide's own helpers, written afresh: create snapshot, restore with finalize, poll


class Guide:
    def __init__(self, env):
        self.base, self.key = env["NEON_API_HOST"], env["NEON_API_KEY"]
        self.project = env["NEON_PROJECT_ID"]

    def request(self, method, path, body=None):
        request = urllib.request.Request(
            f"{self.base}/projects/{self.project}{path}",
            json.dumps(body).encode() if body is not None else None,
            {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json", "Accept": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=60) as response:  # the guide's client gives up after 5 s; a busy machine may need more
            return json.load(response)

    def create_snapshot(self, branch_id, name):
        answer = self.request("POST", f"/branches/{branch_id}/snapshot?name={name}")
        self.poll(answer["operations"])
        return answer["snapshot"]["id"]

    def restore_snapshot(self, snapshot_id, target_branch_id):
        answer = self.request(
            "POST", f"/snapshots/{snapshot_id}/restore", {"finalize_restore": True, "target_branch_id": target_branch_id}
        )
        self.poll(answer["operations"])
        return answer["branch"]["id"]

    def poll(self, operations):
        pending = [o["id"] for o in operations]
        end = time.monotonic() + 60
        while pending:
            assert time.monotonic() < end
            states = {i: self.request("GET", f"/operations/{i}")["operation"]["status"] for i in pending}
            assert not {"failed", "error"} & set(states.values()), states
            pending = [i for i, s in states.items() if s not in ("finished", "skipped", "cancelled")]
            time.sleep(0.02)


def test_the_guides_helpers(neon):
    guide = Guide(neon.env)
    uri = neon.uri()
    neon.sql("drop table if exists users; create table users as select unnest(array['Alice', 'Bob', 'Charlie']) as name", uri)
    branch = neon.default_branch()["id"]
    snapshot = guide.create_snapshot(branch, "pre_drop_table")
    for _ in range(2):  # the second time with the fresh branch id
        neon.sql("drop table users", uri)
        branch = guide.restore_snapshot(snapshot, branch)
        assert neon.sql("select count(*) from users", uri) == "3"
        assert neon.default_branch()["id"] == branch

"""What .control/actions/ID.json tells of each sort of action (issue 5: who asked, Neon's operation and request ids, branch ids before and
after, timings), compared with what really went between the mount and Neon."""

import getpass
import http.client
import json
import os
import shutil
import socket
import threading
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from emulator import wait_until
from mount import Mount, shell
from restoring import OPERATION, SNAPSHOT, World, active, bare, put, quiet, sealed, tidy

SWAP = ["check", "restore", "restored", "finalize", "finalized"]


class Wire(ThreadingHTTPServer):
    """Stands between the mount and Neon and keeps what was asked: (method, request id, operation ids) of each change that Neon made."""

    daemon_threads = True

    def __init__(self, emulator):
        super().__init__(("127.0.0.1", 0), Passing)
        self.neon, self.seen = urlsplit(emulator.host).netloc, []
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Passing(BaseHTTPRequestHandler):
    def do_GET(self):
        wire, neon = self.server, http.client.HTTPConnection(self.server.neon)
        try:
            neon.request(self.command, self.path, self.rfile.read(int(self.headers["Content-Length"] or 0)), dict(self.headers))
            answer = neon.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):  # dropped on request: so it is here
            self.close_connection = True
            return
        if self.command != "GET" and answer.status < 300:
            operations = json.loads(body or "{}").get("operations", [])
            wire.seen.append((self.command, answer.headers["X-Neon-Ret-Request-ID"], [o["id"] for o in operations]))
        self.send_response(answer.status)
        for key in ("Content-Type", "X-Neon-Ret-Request-ID", "Retry-After"):
            if answer.headers[key]:
                self.send_header(key, answer.headers[key])
        if answer.status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PATCH = do_DELETE = do_GET

    def log_message(self, *args):
        pass


class Watched(Mount):
    """A mount with a wire to Neon."""

    wire = None

    def mount(self, *more):
        if not self.wire:
            self.wire = Wire(self.emulator)
            self.env |= {"NEON_API_HOST": f"http://127.0.0.1:{self.wire.server_port}{urlsplit(self.emulator.host).path}"}
        return super().mount(*more)

    def close(self):
        super().close()
        if self.wire:
            self.wire.shutdown()
            self.wire.server_close()


@pytest.fixture(scope="module")
def m():
    with Watched(resume="exit 0", emulator=("--plan=paid",), env={"NEON_BRANCH_ID": ""}) as mount:
        put(mount, 1)
        yield mount


@pytest.fixture(autouse=True)
def fresh(m):
    if m.process.poll() is not None:
        m.mount()
    quiet(m)
    tidy(m)
    m.wire.seen.clear()


def action(m, result):
    return by_id(m, m.json(result)["action"])


def by_id(m, uid):
    """The action's file, once it is settled, with what is true of every one."""
    path = f".control/actions/{uid}.json"
    wait_until(lambda: m.json(path)["state"] not in ("queued", "running"))
    doc = m.json(path)
    by = doc["by"]
    assert {k: by[k] for k in by if k != "command"} == {"uid": 0, "gid": 0, "user": getpass.getuser(), "pid": os.getpid(),
                                                        "host": socket.gethostname()}
    assert by["command"]
    times = [doc["started_at"], *(s["at"] for s in steps(doc)), doc["ended_at"]]
    assert times == sorted(times) and all(datetime.fromisoformat(t.replace("Z", "+00:00")) for t in times)
    return doc


def steps(doc):
    return doc.get("journal", doc).get("steps", [])


def names(doc):
    return [s["step"] for s in steps(doc)]


def requests(doc):
    """All of them, in order, as the wire has seen them."""
    every = [r for s in steps(doc) for r in s.get("requests", [])]
    assert all(r["request"] and r["at"] and r["ms"] >= 0 for r in every)
    return [(r["request_id"], r["operations"]) for r in every]


def seen(m, *methods):
    assert [s[0] for s in m.wire.seen] == list(methods)
    return [s[1:] for s in m.wire.seen]


def branches(doc):
    journal = doc.get("journal", doc)
    return journal.get("branch_before"), journal.get("branch_after")


def told(m, doc, event):
    """The same requests in the log, in the one event that tells of their effect."""
    events = [e for e in m.events() if e.get("action") == doc["action"] and "requests" in e]
    assert [e["event"] for e in events] == [event]
    return [(r["request_id"], r["operations"]) for r in events[0]["requests"]]


def only(doc, step):
    """Requests were made in that step and no other."""
    return [s["step"] for s in steps(doc) if "requests" in s] == [step]


def test_take(m):
    bare(m, "taken")
    doc = action(m, "taken/result")
    assert names(doc) == ["request", "settle"] and only(doc, "request")
    assert requests(doc) == seen(m, "POST") == told(m, doc, "checkpoint.created")
    assert requests(doc)[0][1] == doc["journal"]["operations"]
    assert branches(doc) == (active(m), active(m))


def test_restore(m):
    before = active(m)
    sealed(m, "restored")
    m.wire.seen.clear()
    assert m.echo("restored/restore", "in-place") is None
    doc = action(m, "restored/result")
    assert names(doc) == ["requested", *SWAP]
    assert requests(doc) == seen(m, "POST", "POST") == told(m, doc, "restore.finished")
    assert branches(doc) == (before, active(m)) and before != active(m)


def test_resume(m):
    sealed(m, "resumed")
    m.wire.seen.clear()
    assert m.echo("resumed/resume", "approve") is None
    doc = action(m, "resumed/result")
    assert names(doc) == ["requested", "agent"] and requests(doc) == seen(m) == []
    assert branches(doc) == (active(m), active(m))


@pytest.mark.parametrize("where", ["in-place", "branch r"])
def test_replay(m, where):
    before = active(m)
    name = sealed(m, f"replayed-{where[:2]}")
    m.wire.seen.clear()
    assert m.echo(f"{name}/replay", f"{where} approve") is None
    if where == "in-place":
        doc = action(m, f"{name}/result")
        assert names(doc) == ["requested", *SWAP, "agent"] and branches(doc) == (before, active(m))
        assert requests(doc) == seen(m, "POST", "POST") == told(m, doc, "restore.finished")
    else:
        doc = action(m, f"{name}/branches/r/result")
        assert names(doc)[:3] == ["requested", "check", "restore"] and names(doc)[-1] == "agent"
        assert branches(doc) == (None, m.json(f"{name}/branches/r/branch.json")["branch_id"]) and active(m) == before
        assert requests(doc) == [s[1:] for s in m.wire.seen] == told(m, doc, "branch.ready")


def test_branch_and_its_delete(m):
    name = bare(m, "branched")
    m.wire.seen.clear()
    assert m.echo(f"{name}/restore", "branch b") is None
    doc, branch = action(m, f"{name}/branches/b/result"), m.json(f"{name}/branches/b/branch.json")["branch_id"]
    assert names(doc) == ["requested", "check", "restore", "restored", "compute", "connect"]
    assert requests(doc) == [s[1:] for s in m.wire.seen] == told(m, doc, "branch.ready") and len(requests(doc)) >= 1
    assert branches(doc) == (None, branch)
    m.wire.seen.clear()
    assert m.echo(".control/prune", f"delete {name}/branches/b") is None
    doc = by_id(m, m.events_of(name, "branch.deleted")[-1]["action"])
    assert names(doc) == ["requested", "delete"] and branches(doc) == (branch, None)
    assert requests(doc) == seen(m, "DELETE") == told(m, doc, "branch.deleted")


@pytest.mark.parametrize("active_since", ["the same", "another"])
def test_promote(m, active_since):
    name = bare(m, f"promoted-{active_since.split()[-1]}")
    assert m.echo(f"{name}/restore", "branch b") is None
    branch = m.json(f"{name}/branches/b/branch.json")["branch_id"]
    if active_since == "another":
        assert m.echo(f"{name}/restore", "in-place") is None
    before = active(m)
    m.wire.seen.clear()
    assert m.echo(f"{name}/branches/b/promote", "promote") is None
    doc = action(m, f"{name}/branches/b/result")
    assert branches(doc) == (before, active(m)) and before != active(m)
    if active_since == "the same":
        assert names(doc) == ["requested", "finalize", "finalized"] and active(m) == branch
        assert requests(doc) == seen(m, "POST") == told(m, doc, "promote.finished")
    else:  # the snapshot that was the way there is deleted after it was told
        assert names(doc) == ["requested", "snapshot", "snapshot taken", *SWAP[1:]]
        assert requests(doc) == seen(m, "POST", "POST", "POST", "DELETE")
        assert told(m, doc, "promote.finished") == requests(doc)[:3]


def test_undo(m):
    name = bare(m, "undone")
    old = active(m)
    assert m.echo(f"{name}/restore", "in-place") is None
    before = active(m)
    m.wire.seen.clear()
    assert m.echo(".control/undo", "undo") is None
    doc = action(m, ".control/result")
    assert names(doc) == ["requested", "snapshot", "settle", *SWAP[1:], "tidy"]
    assert requests(doc) == seen(m, "POST", "POST", "POST", "DELETE")
    assert told(m, doc, "undo.finished") == requests(doc)[:3]
    assert branches(doc) == (before, active(m)) and active(m) not in (before, old)


def test_delete(m):
    name = bare(m, "deleted")
    m.wire.seen.clear()
    assert m.echo(".control/prune", f"delete {name}") is None
    doc = action(m, ".control/result")
    assert names(doc) == ["requested", "delete"] and only(doc, "delete")
    assert requests(doc) == seen(m, "DELETE") == told(m, doc, "checkpoint.deleted")
    assert doc["journal"]["snapshot_id"] and branches(doc) == (None, None), "no branch changes"


def test_prune(m):
    """A plan may have many items: each has its own."""
    for name in ("prune-1", "prune-2"):
        (m / name).exists() or bare(m, name)
    sealed(m, "prune-3")
    assert m.echo(".control/prune", "keep-last=1") is None
    plan = action(m, ".control/result")
    assert names(plan) == ["requested"]
    m.wire.seen.clear()
    assert m.echo(".control/prune", f"apply {plan['plan']}") is None
    doc = action(m, ".control/result")
    assert names(doc) == ["requested", "items"] and requests(doc) == []
    asked = [(r["request_id"], r["operations"]) for d in doc["deleted"] for r in d.get("requests", [])]
    assert {"prune-1", "prune-2"} <= {d["name"] for d in doc["deleted"]}
    assert asked == [s[1:] for s in m.wire.seen] and len(asked) >= 2
    events = [e for e in m.events() if e.get("action") == doc["action"] and "requests" in e]
    assert {e["event"] for e in events} == {"checkpoint.deleted"}
    assert [(r["request_id"], r["operations"]) for e in events for r in e["requests"]] == asked


def test_prune_of_a_replaced_branch(m):
    name = bare(m, "replaces")
    old = active(m)
    assert m.echo(f"{name}/restore", "in-place") is None
    m.wire.seen.clear()
    assert m.echo(".control/prune", f"delete {old}") is None
    doc = action(m, ".control/result")
    assert names(doc) == ["requested", "delete"] and branches(doc) == (old, None)
    assert requests(doc) == seen(m, "DELETE") == told(m, doc, "prune.finished")


def test_adopt(m):
    name = bare(m, "adopted")
    before = active(m)
    answer = m.emulator.ok("POST", f"/projects/{{p}}/snapshots/{m.json(f'{name}/snapshot.json')['id']}/restore",
                           {"target_branch_id": World(m).default, "finalize_restore": True})
    m.emulator.settle(answer["operations"])
    m.wire.seen.clear()
    assert m.echo(".control/adopt", f"adopt {answer['branch']['id']}") is None
    doc = action(m, ".control/result")
    assert names(doc) == ["requested"] and requests(doc) == seen(m) == []
    assert branches(doc) == (before, active(m)) == (before, answer["branch"]["id"])


def test_import(m, tmp_path):
    sealed(m, "imported")
    shutil.copytree(m / "imported", tmp_path / "imported", symlinks=True)
    assert m.echo(".control/prune", "delete imported") is None
    m.wire.seen.clear()
    assert shell(f"cp -a {tmp_path}/imported {m.root}/.import/").returncode == 0
    os.rename(m / ".import/imported", m / "imported")
    doc = action(m, "imported/result")
    assert doc["file"] == "import" and seen(m) == [] and doc["journal"]["checkpoint"] == m.json("imported/checkpoint.json")["id"]
    assert doc["started_at"] <= doc["ended_at"] and branches(doc) == (None, None), "no branch changes"


def test_what_a_failed_take_made_is_taken_back_under_a_request_too(m):
    with m.held(OPERATION):
        os.mkdir(m / "copied")
        wait_until(lambda: m.wire.seen)
        with pytest.raises(PermissionError):
            open(m / "copied/transcript.md", "w")  # a backup is being copied in
    wait_until(lambda: len(m.wire.seen) > 1)
    doc = action(m, "copied/result")
    assert doc["state"] == "failed" and requests(doc) == seen(m, "POST", "DELETE") == told(m, doc, "checkpoint.failed")
    assert branches(doc) == (active(m), active(m))
    os.rmdir(m / "copied")


def test_of_a_lost_answer_nothing_is_told(m):
    m.emulator.fault(f"{SNAPSHOT}=drop-after")
    bare(m, "lost")
    doc = action(m, "lost/result")
    assert doc["state"] == "done" and doc["journal"]["snapshot_id"] == m.json("lost/snapshot.json")["id"]
    assert requests(doc) == seen(m) == [], "it was found by its name"
    assert not any("requests" in e for e in m.events_of("lost"))


def test_whoever_asked_is_told_also_by_the_mount_that_took_it_over(m):
    """And what its own requests were, beside those that the dead one had journalled."""
    name = sealed(m, "handed-over")
    before = active(m)
    m.wire.seen.clear()
    m.emulator.fault(f"{OPERATION}=500*inf")  # the restore is asked for, and doesn't settle
    assert m.echo(f"{name}/restore", "nowait in-place") is None
    wait_until(lambda: names(m.result(name))[-1:] == ["restored"])
    m.kill()
    m.emulator.control("DELETE", "faults")
    m.mount()
    m.wait(name)
    doc = action(m, f"{name}/result")
    assert doc["state"] == "done" and branches(doc) == (before, active(m))
    assert requests(doc) == seen(m, "POST", "POST") == told(m, doc, "restore.finished")

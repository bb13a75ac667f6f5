"""The policy of [retention] makes room for a take that the plan's limit would refuse; and snapshots expire when meta.json says so."""

import json
import os
import re
import time

import pytest
from emulator import wait_until
from mount import BINARY, Mount, shell
from restoring import DELETE, bare, sealed

PATCH = "PATCH:/projects/*/snapshots/*"


class Kept(Mount):
    """A mount with a policy, and a plan that allows so many snapshots."""

    def __init__(self, policy, *emulator):
        super().__init__(emulator=emulator)
        config = self.base / "config.ini"
        config.write_text("[retention]\n" + policy)
        self.options.append(f"--config={config}")


def names(m):
    return {n for n in os.listdir(m.root) if not n.startswith(".") and n != "latest"}


def failed(m, name):
    """Takes it, and waits for its failure."""
    os.mkdir(m / name)
    return m.wait_status(name, "failed take")


def policy_actions(m):
    docs = [m.json(f".control/actions/{n}") for n in os.listdir(m / ".control/actions")]
    return [d for d in docs if d["file"] == "prune"]


def test_the_free_plan_keeps_the_newest_snapshot():
    """One snapshot is all that this plan has: each take gets the place of the one before, whose state stays."""
    with Kept("snapshots = 1\n", "--plan=free") as m:
        sealed(m, "a")
        state = (m / "a/state.json").read_bytes()
        sealed(m, "b")
        assert m.status("a").endswith(", snapshot missing") and (m / "a/state.json").read_bytes() == state
        assert [s["id"] for s in m.emulator.snapshots()] == [m.json("b/snapshot.json")["id"]]
        sealed(m, "c")
        assert [s["id"] for s in m.emulator.snapshots()] == [m.json("c/snapshot.json")["id"]]
        actions = policy_actions(m)
        assert len(actions) == 2
        for action in actions:
            assert action["state"] == "done" and action["command"] == "retention: snapshots=1"
            assert action["by"]["pid"] == m.process.pid and action["by"]["command"] == "checkpointfs"
        assert {i["name"] for a in actions for i in a["deleted"]} == {"a", "b"}
        events = [e for e in m.events() if e["event"] == "snapshot.deleted"]
        assert {(e["name"], e["by"]["pid"]) for e in events} == {("a", m.process.pid), ("b", m.process.pid)}


def test_what_the_policy_keeps_is_never_deleted():
    with Kept("keep-last = 2\nkeep-pending = no\n", "--snapshots=4") as m:
        m.take("pinned", meta={"pin": True})
        for name in ("a", "b", "c", "d"):
            sealed(m, name)
        assert names(m) == {"pinned", "b", "c", "d"}
        (m / "b/meta.json").write_text(json.dumps({"pin": True}))
        status = failed(m, "e")
        assert "snapshots limit exceeded" in status and "to free one" in status
        os.rmdir(m / "e")
        (m / "pinned/meta.json").write_text("{}")
        sealed(m, "e")
        assert names(m) == {"b", "c", "d", "e"}


def test_without_a_policy_nothing_is_deleted():
    with Mount(emulator=["--plan=free"]) as m:
        sealed(m, "a")
        assert "snapshots limit exceeded" in failed(m, "b")
        assert m.status("a").startswith("waiting") and not policy_actions(m)


def test_what_is_offered_frees_a_snapshot():
    """Neither what came in without one, nor what is pinned, nor what has branches."""
    with Mount(emulator=["--snapshots=4"]) as m:
        os.mkdir(m / ".import/came")
        (m / ".import/came/state.json").write_text('{"messages": []}')
        os.rename(m / ".import/came", m / "came")
        m.take("pinned", meta={"pin": True})
        for name in ("branched", "goes", "stays"):
            sealed(m, name)
        assert m.echo("branched/restore", "branch b") is None
        (offered,) = re.findall("to free one: echo '(.*?)' > ", failed(m, "full"))
        assert offered == "delete goes"
        assert m.echo(".control/prune", offered) is None and len(m.emulator.snapshots()) == 3


def test_database_only_checkpoints_go_whole():
    with Kept("snapshots = 2\n", "--snapshots=2") as m:
        for name in ("a", "b", "c"):
            bare(m, name)
        assert names(m) == {"b", "c"}


def test_what_is_being_written_stays():
    """By the policy, and by a plan that was made before the first write."""
    with Kept("snapshots = 1\n", "--plan=free") as m:
        bare(m, "x")
        assert m.echo(".control/prune", "older-than=0d keep-last=0") is None
        plan = m.json(".control/result")["plan"]
        writer = os.open(m / "x/state.json", os.O_WRONLY | os.O_CREAT)
        os.write(writer, b'{"kept": true}')
        assert "snapshots limit exceeded" in failed(m, "y")
        assert m.echo(".control/prune", f"apply {plan}") is None
        assert m.json(".control/result")["skipped"][0]["why"] == "something is under way on it"
        os.fsync(writer)
        os.close(writer)
        m.wait_status("x", "saved")
        assert m.read("x/state.json") == '{"kept": true}' and len(m.emulator.snapshots()) == 1


def test_who_wrote_what_was_deleted_is_told():
    with Mount() as m:
        bare(m, "x")
        writer = os.open(m / "x/state.json", os.O_WRONLY | os.O_CREAT)
        os.write(writer, b'{"kept": true}')
        assert m.echo(".control/prune", "delete x") is None
        for told in (os.fsync, os.close):
            with pytest.raises(FileNotFoundError):
                told(writer)


def test_killed_in_the_middle_of_it():
    with Kept("snapshots = 1\n", "--plan=free") as m:
        sealed(m, "a")
        m.emulator.fault(f"{DELETE}=423*inf")
        os.mkdir(m / "b")
        wait_until(lambda: m.status("a") == "deleting 1/1")
        m.kill()
        m.emulator.control("DELETE", "faults")
        m.mount()
        m.wait_status("b", "failed take")
        assert wait_until(lambda: m.status("a").endswith(", snapshot missing"))
        wait_until(lambda: policy_actions(m)[0]["state"] == "done")
        assert m.emulator.snapshots() == []
        assert len([e for e in m.events() if e["event"] == "snapshot.deleted"]) == 1
        (m / "b/state.json").write_bytes((m / "a/state.json").read_bytes())
        m.wait_status("b", "waiting")


@pytest.mark.parametrize("setting, says", [("keep-last = many", "keep-last=N"), ("keep-pending = yes", "let nothing go"),
                                           ("keep-pending = perhaps", "yes or no"), ("keep-first = 3", "there is no setting"),
                                           ("snapshots = 1\nsnapshots = 2", "twice")])
def test_a_wrong_policy_is_refused_at_the_start(tmp_path, setting, says):
    config = tmp_path / "config.ini"
    config.write_text(f"[retention]\n{setting}\n")
    done = shell(f"{BINARY} --local={tmp_path}/local --config={config} {tmp_path}")
    assert done.returncode == 1 and says in done.stderr


def test_the_configuration_shows_it():
    with Kept("snapshots = 20\nstates = 90d\nkeep-pinned = yes\n") as m:
        assert "retention: snapshots=20 states=90d keep-pinned\n" in m.read(".control/config")


# -- expires_at

WHEN = "2031-12-01T00:00:00Z"


@pytest.fixture(scope="module")
def m():
    with Mount() as mount:
        yield mount


def expiry(m, name):
    snapshot = m.json(f"{name}/snapshot.json")["id"]
    return next(s for s in m.emulator.snapshots() if s["id"] == snapshot).get("expires_at")


def meta(m, name, **fields):
    (m / name / "meta.json").write_text(json.dumps(fields))


def test_a_snapshot_expires_when_meta_says_so(m):
    sealed(m, "later")
    meta(m, "later", expires_at=WHEN)
    wait_until(lambda: expiry(m, "later") == WHEN)
    wait_until(lambda: m.status("later").endswith(", snapshot expires 2031-12-01"))
    assert m.json("later/snapshot.json")["expires_at"].startswith("2031-12-01T00:00:00")
    told, = m.events_of("later", "snapshot.expiry_set")
    assert told["expires_at"] == WHEN
    assert [set(r) for r in told["requests"]] == [{"request", "at", "ms", "request_id", "operations"}] and told["requests"][0]["request_id"]
    meta(m, "later", reason="keep it")
    wait_until(lambda: expiry(m, "later") is None)
    wait_until(lambda: "expires" not in m.status("later"))
    assert "expires_at" not in m.json("later/snapshot.json")


def test_said_before_the_snapshot_was_taken(m):
    m.take("before", meta={"expires_at": WHEN})
    wait_until(lambda: m.status("before").endswith(", snapshot expires 2031-12-01"))
    assert expiry(m, "before") == WHEN


def test_it_outlives_a_kill_and_an_outage(m):
    sealed(m, "away")
    m.emulator.fault(f"{PATCH}=503*inf")
    meta(m, "away", expires_at=WHEN)
    assert (m / "away/meta.json").read_text() and "expires" not in m.status("away")
    m.kill()
    m.mount()
    m.emulator.control("DELETE", "faults")
    wait_until(lambda: expiry(m, "away") == WHEN, 60)
    wait_until(lambda: m.status("away").endswith(", snapshot expires 2031-12-01"))


def test_a_time_that_neon_refuses_is_said_once(m):
    sealed(m, "no-time")
    m.emulator.fault(f"{PATCH}=400*inf")
    meta(m, "no-time", expires_at="2099-01-01T00:00:00Z")
    refused = wait_until(lambda: m.events_of("no-time", "snapshot.expiry_refused"))
    assert len(refused) == 1 and refused[0]["expires_at"] == "2099-01-01T00:00:00Z" and refused[0]["message"]
    m.emulator.control("DELETE", "faults")
    meta(m, "no-time", expires_at=WHEN)
    wait_until(lambda: expiry(m, "no-time") == WHEN)
    assert len(m.events_of("no-time", "snapshot.expiry_refused")) == 1


def test_a_time_that_is_past_is_refused_by_the_write(m):
    for name in (sealed(m, "past"), bare(m, "past-bare")):
        with pytest.raises(OSError, match="Invalid argument"):
            meta(m, name, expires_at="2020-01-01T00:00:00Z")
        assert '"expires_at" is past (2020-01-01' in m.result(name)["message"]
        assert not m.events_of(name, "snapshot.expiry_refused")
    soon = wait_until(lambda: expires_soon(m, "past"))
    wait_until(lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()) > soon)
    meta(m, "past", expires_at=soon, reason="what was written before may stay")


def expires_soon(m, name):
    """When; None if that was past already when the mount read it."""
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3))
    try:
        meta(m, name, expires_at=when)
    except OSError:
        return None
    return when


def test_what_the_console_changes_is_followed(m):
    sealed(m, "console")
    meta(m, "console", expires_at=WHEN)
    wait_until(lambda: m.status("console").endswith("2031-12-01"))
    snapshot = m.json("console/snapshot.json")["id"]
    m.emulator.ok("PATCH", f"/projects/{{p}}/snapshots/{snapshot}", {"snapshot": {"expires_at": "2032-01-01T00:00:00Z"}})
    bare(m, "ended")  # an action's end: Neon is looked at
    wait_until(lambda: m.status("console").endswith(", snapshot expires 2032-01-01"))
    assert m.json("console/meta.json")["expires_at"] == WHEN

""".control/replaced/: the branches that restores replaced, as Neon said last; deleted only by name."""

import json
import os

import pytest
from emulator import wait_until
from mount import Mount, Second
from restoring import DELETE_BRANCH, active, bare, put, quiet, restore

REPLACED = ".control/replaced"


@pytest.fixture(scope="module")
def m():
    with Mount() as mount:
        put(mount, 1)
        bare(mount, "source")
        yield mount


@pytest.fixture(autouse=True)
def room(m):
    """A project may have only so many root branches."""
    yield
    quiet(m)
    for branch in m.emulator.branches():
        if not branch["default"]:
            assert m.emulator.console("delete_branch", branch_id=branch["id"]).status < 300


def listed(m):
    return {n.removesuffix(".json") for n in os.listdir(m / REPLACED)}


def known(m, branch):
    """Its file, once Neon has told what it is."""
    return wait_until(lambda: (d := m.json(f"{REPLACED}/{branch}.json")).get("created_at") and d)


def test_a_replaced_branch_is_listed_at_once(m):
    old = active(m)
    restore(m, "source")
    assert old in listed(m) and active(m) not in listed(m)
    action = m.result("source")["action"]
    first = m.json(f"{REPLACED}/{old}.json")
    assert first["branch_id"] == old and first["made_here"] is True and first["action"] == action and first["replaced_at"]
    assert (first["checkpoint"], first["checkpoint_name"]) == (m.json("source/checkpoint.json")["id"], "source")
    doc = known(m, old)
    branch = m.emulator.branch(old)
    assert doc["name"] == branch["name"] and doc["name"].startswith("replaced-source-")
    assert doc["created_at"] == branch["created_at"] and doc["size"] == branch["logical_size"] > 1 << 20


def test_its_bytes_stay(m):
    old = active(m)
    restore(m, "source")
    known(m, old)
    path = m / REPLACED / f"{old}.json"
    text, stat = path.read_bytes(), os.stat(path)
    assert stat.st_size == len(text)
    os.rename(m / "source", m / "renamed")
    m.remount()
    again = os.stat(path)
    assert path.read_bytes() == text and (again.st_ino, again.st_mtime_ns, again.st_size) == (stat.st_ino, stat.st_mtime_ns, stat.st_size)
    os.rename(m / "renamed", m / "source")
    quiet(m)
    m.emulator.stop()
    assert path.read_bytes() == text, "reads never call Neon"
    m.emulator.start()


def test_one_that_is_gone_from_neon_disappears(m):
    old = active(m)
    restore(m, "source")
    known(m, old)
    assert m.emulator.console("delete_branch", branch_id=old).status < 300
    new = active(m)
    restore(m, "source")
    wait_until(lambda: old not in listed(m))
    assert new in listed(m)
    with pytest.raises(FileNotFoundError):
        os.stat(m / REPLACED / f"{old}.json")
    assert m.echo(".control/prune", f"delete {old}") == "ENOENT"


def test_one_is_deleted_by_its_id(m):
    old = active(m)
    restore(m, "source")
    assert m.echo(".control/prune", f"delete {old}") is None
    assert old not in listed(m) and old not in {b["id"] for b in m.emulator.branches()}
    assert [e["branch"] for e in m.events() if e["event"] == "branch.deleted"][-1] == old
    assert m.json(".control/result")["state"] == "done" and m.json(".control/result")["branch"] == old
    assert m.echo(".control/prune", f"delete {old}") == "ENOENT"
    assert m.echo(".control/undo", "undo") == "ENODATA"
    assert old in m.json(".control/result")["message"]


def test_no_other_branch_is_deleted(m):
    stranger = m.emulator.ok("POST", "/projects/{p}/branches", {"branch": {"name": "theirs"}})["branch"]["id"]
    for branch in (active(m), stranger, "br-no-such-12345678"):
        assert m.echo(".control/prune", f"delete {branch}") == "EPERM"
    assert {active(m), stranger} <= {b["id"] for b in m.emulator.branches()}


def test_killed_while_it_is_deleted(m):
    old = active(m)
    restore(m, "source")
    quiet(m)
    with m.held(DELETE_BRANCH):
        assert m.echo(".control/prune", f"nowait delete {old}") is None
        wait_until(lambda: m.emulator.control("GET", "faults").json["met"])
        assert m.echo(".control/prune", f"delete {old}") == "EBUSY"
    m.emulator.fault(f"{DELETE_BRANCH}=delay:1500")
    wait_until(lambda: m.emulator.control("GET", "faults").json["met"] or old not in listed(m))  # it may have been asked for before that
    m.kill()
    m.mount()
    wait_until(lambda: old not in listed(m))
    assert old not in {b["id"] for b in m.emulator.branches()}
    assert len([e for e in m.events() if e["event"] == "branch.deleted" and e["branch"] == old]) == 1


def test_another_mount_sees_the_same(m):
    with Second(m) as other:
        old = active(m)
        restore(m, "source")
        wait_until(lambda: old in listed(other))
        known(m, old)
        wait_until(lambda: other.read(f"{REPLACED}/{old}.json") == m.read(f"{REPLACED}/{old}.json"))
        assert other.echo(".control/prune", f"delete {old}") is None
        wait_until(lambda: old not in listed(m))


def test_a_read_only_mount_shows_them(m):
    old = active(m)
    restore(m, "source")
    text = json.dumps(known(m, old))
    m.remount("-o", "ro")
    assert json.dumps(m.json(f"{REPLACED}/{old}.json")) == text
    m.remount()

"""One change per project at a time, in order, across all mounts; restores before takes (design.md §5)."""

import errno
import json
import os
import re
import threading

import pytest
from emulator import wait_until
from mount import DEADLINE, Mount, Second
from restoring import DELETE, OPERATION, RESTORE, SNAPSHOT, World, active, bare, hold, put, restore, restored_once, rows, tidy


@pytest.fixture(scope="module")
def m():
    with Mount() as mount:
        put(mount, 1)
        bare(mount, "source")
        yield mount


@pytest.fixture(autouse=True)
def clean(request):
    yield
    if "m" in request.fixturenames:
        tidy(request.getfixturevalue("m"))


@pytest.fixture
def other(m):
    with Second(m) as second:
        yield second


def in_thread(function, *args):
    result = []
    thread = threading.Thread(target=lambda: result.append(function(*args)), daemon=True)
    thread.start()
    thread.result = lambda: (thread.join(DEADLINE), result[0])[1]
    return thread


def locked(m):
    """What the log says of Neon's 423."""
    return [line for line in m.log.read_text().splitlines() if re.search(r"\b423\b", line)]


def newest(m, count=1):
    files = sorted((m / ".control/actions").iterdir(), key=lambda f: f.stat().st_ino)
    return [json.loads(f.read_text()) for f in files[-count:]]


def test_takes_are_made_one_after_the_other_in_order(m):
    before = World(m)
    names = [f"turn-{k}" for k in range(6)]
    threads = [in_thread(os.mkdir, m / n) for n in names]
    for thread in threads:
        thread.result()
    for name in names:
        m.wait_status(name, "saved (database only)")
    assert len(World(m).snapshots) - len(before.snapshots) == len(names)
    assert not locked(m), "the turn keeps the mount from running into its own operations"
    for name in names:
        assert m.echo(".control/prune", f"delete {name}") is None


def test_a_restore_passes_takes_that_wait(m):
    put(m, 2)
    with m.held(SNAPSHOT):
        os.mkdir(m / "ahead")
        for k in range(5):
            os.mkdir(m / f"waiting-{k}")
        call = in_thread(m.echo, "source/restore", "in-place")
        m.wait_status("source", "restoring 1/5")
    assert call.result() is None, m.read("source/result")
    assert rows(m) == [1]
    assert m.status("ahead") == "off-line"
    for k in range(5):
        assert m.status(f"waiting-{k}").startswith("failed take: the restore act-")
        assert m.result(f"waiting-{k}")["errno"] == "ESTALE"
        os.rmdir(m / f"waiting-{k}")
    assert m.echo(".control/prune", "delete ahead") is None


def test_a_delete_waits_for_its_turn(m):
    bare(m, "to-delete")
    m.emulator.fault(f"{OPERATION}=delay:500")
    os.mkdir(m / "slow")
    delete = in_thread(m.echo, ".control/prune", "delete to-delete")
    assert delete.result() is None
    assert m.status("slow") == "saved (database only)", "it was before"
    assert m.echo(".control/prune", "delete slow") is None


def test_somebody_elses_operations_are_waited_for(m):
    """423 says that nothing was done: whoever runs into operations of the console's waits."""
    put(m, 2)
    before = World(m)
    snapshot = m.json("source/snapshot.json")["id"]
    by_hand = m.emulator.api("POST", f"/projects/{{p}}/snapshots/{snapshot}/restore",
                             {"name": "by-hand", "target_branch_id": before.default}).json
    restore(m, "source")
    m.emulator.settle(by_hand["operations"])
    made = by_hand["branch"]["id"]
    assert m.emulator.console("delete_branch", branch_id=made).status < 300
    restored_once(m, before, "source")


def test_a_checkpoint_that_is_being_deleted_is_busy(m):
    bare(m, "leaving")
    with m.held(DELETE):
        delete = in_thread(m.echo, ".control/prune", "delete leaving")
        wait_until(lambda: any(a["file"] == "prune" and a["state"] == "running" and a.get("name") == "leaving" for a in newest(m, 3)))
        assert m.echo("leaving/restore", "in-place") == "EBUSY"
        assert m.echo(".control/prune", "delete leaving") == "EBUSY"
    assert delete.result() is None


def test_a_checkpoint_that_is_being_restored_can_not_be_deleted(m):
    with m.held(RESTORE):
        call = in_thread(m.echo, "source/restore", "in-place")
        m.wait_status("source", "restoring 2/5")
        assert m.echo(".control/prune", "delete source") == "EBUSY"
    assert call.result() is None and m.status("source") == "saved (database only)"


# -- two mounts, one store


def test_two_mounts_take_turns(m, other):
    before = World(m)
    names = [(mount, f"both-{mount.root.name}-{k}") for k in range(3) for mount in (m, other)]
    for mount, name in names:
        os.mkdir(mount / name)
    for mount, name in names:
        mount.wait_status(name, "saved (database only)")
    assert len(World(m).snapshots) - len(before.snapshots) == len(names)
    assert not [*locked(m), *locked(other)]
    for mount, name in names:
        assert mount.echo(".control/prune", f"delete {name}") is None


def test_a_restore_on_one_mount_is_busy_on_the_other(m, other):
    put(m, 2)
    before = World(m)
    with m.held(RESTORE):
        call = in_thread(m.echo, "source/restore", "in-place")
        m.wait_status("source", "restoring 2/5")
        assert other.echo("source/restore", "in-place") == "EBUSY"
        with pytest.raises(OSError) as caught:
            os.mkdir(other / "no")
        assert caught.value.errno == errno.EBUSY
        assert other.echo(".control/prune", "delete source") == "EBUSY"
    assert call.result() is None
    restored_once(m, before, "source")
    bare(other, "yes")
    assert other.json("yes/snapshot.json")["branch_id"] == active(m), "what it decides on is in the store, not in its memory"
    assert other.echo(".control/prune", "delete yes") is None


def test_a_restore_by_another_mount_makes_a_take_stale(m, other):
    bare(m, "stale")
    restore(other, "source")
    with pytest.raises(OSError) as caught:
        (m / "stale/state.json").write_text("{}")
    assert caught.value.errno == errno.ESTALE
    assert m.echo(".control/prune", "delete stale") is None


def test_a_mount_that_dies_with_the_turn_is_taken_over(m):
    """By the next mount that comes, at once: its process is gone."""
    put(m, 2)
    before = World(m)
    with Second(m) as other:
        hold(m, OPERATION, 0)
        assert other.echo("source/restore", "nowait in-place") is None
        other.wait_status("source", "restoring 3/5")
        other.kill()
    m.emulator.control("DELETE", "faults")
    m.remount()
    assert m.wait("source") == "saved (database only)"
    restored_once(m, before, "source")
    assert rows(m) == [1]


def test_a_queued_take_of_a_dead_mount_is_settled_by_the_next(m):
    put(m, 2)
    with Second(m) as other:
        with m.held(SNAPSHOT):
            os.mkdir(m / "holds")
            os.mkdir(other / "dead")
            other.kill()
    m.wait_status("holds", "saved (database only)")
    m.remount()
    m.wait("dead")
    assert m.status("dead").startswith("failed take: the mount ended before the snapshot was asked for")
    os.rmdir(m / "dead")
    bare(m, "behind")
    for name in ("holds", "behind"):
        assert m.echo(".control/prune", f"delete {name}") is None


def test_a_dead_mount_of_another_line_does_not_keep_the_turn():
    """Nobody takes over what it left while no mount of its own line is there: the project goes on once its lease is over."""
    with Mount() as a:
        bare(a, "seed")
        made = a.emulator.api("POST", f"/projects/{{p}}/snapshots/{a.json('seed/snapshot.json')['id']}/restore", {"name": "other-line"}).json
        a.emulator.settle(made["operations"])
        b = Second(a)
        b.env = {"NEON_BRANCH_ID": made["branch"]["id"]}
        with b:
            assert b.read(".control/active_branch") != a.read(".control/active_branch")
            a.emulator.fault("POST:/projects/*/branches/*/snapshot=delay:1500")
            os.mkdir(a / "dies")
            wait_until(lambda: newest(a)[0].get("name") == "dies" and "snapshot_name" in json.dumps(newest(a)))
            a.kill()
            a.emulator.control("DELETE", "faults")
            os.mkdir(b / "goes-on")
            b.wait_status("goes-on", "saved (database only)")
        a.mount()
        a.wait_status("dies", "saved (database only)")

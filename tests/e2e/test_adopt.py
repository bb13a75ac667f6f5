"""adopt: somebody else made another branch the active one; the record follows (design.md §5)."""

import os

import pytest
from emulator import wait_until
from mount import Mount, Second
from restoring import (OPERATION, SNAPSHOT, World, active, bare, console_restore, put, quiet, restore, rows, sealed, snapshot_of,
                       tidy)


@pytest.fixture
def m():
    """A mount that follows the project's default branch."""
    with Mount(resume="echo woken", env={"NEON_BRANCH_ID": ""}) as mount:
        yield mount


@pytest.fixture
def named():
    """A mount of the branch that NEON_BRANCH_ID names."""
    with Mount(resume="echo woken") as mount:
        yield mount


def adopt(m, branch):
    return m.echo(".control/adopt", f"adopt {branch}")


def said(m):
    return m.json(".control/result")


def test_a_checkpoint_that_was_restored_in_the_console(m):
    put(m, 1)
    sealed(m, "known")
    put(m, 2)
    sealed(m, "after")
    old = active(m)
    new = console_restore(m, snapshot_of(m, "known"))
    assert m.echo("after/restore", "in-place") == "ESTALE"
    message = m.result("after")["message"]
    assert old in message and f"echo 'adopt {new}' > .control/adopt" in message
    before = World(m)
    assert adopt(m, new) is None, said(m)
    assert World(m) == before, "nothing changes in Neon"
    assert active(m) == new and "known" in said(m)["message"]
    assert m.status("known") == "waiting (1 call)" and m.status("after") == "off-line"
    assert m.echo("known/resume", "approve") is None
    finished = m.events_of("known", "adopt.finished")[-1]
    assert finished["branch"] == new and finished["replaced"] == old
    restore(m, "after")
    assert rows(m) == [2]


def test_a_database_that_nobody_knows(m):
    put(m, 1)
    sealed(m, "ours")
    answer = m.emulator.ok("POST", f"/projects/{{p}}/branches/{active(m)}/snapshot?name=theirs")
    m.emulator.settle(answer["operations"])
    old = active(m)
    new = console_restore(m, answer["snapshot"]["id"])
    assert adopt(m, new) is None, said(m)
    assert active(m) == new and "off line" in said(m)["message"]
    assert m.status("ours") == "off-line" and m.echo("ours/resume", "approve") == "ESTALE"
    sealed(m, "newer")
    assert m.status("newer") == "waiting (1 call)"
    assert m.echo(".control/undo", "undo") is None, said(m)
    assert m.status("ours") == "waiting (1 call)" and m.status("newer") == "off-line", "back to what was replaced there"
    assert World(m).branches[new].startswith("replaced-undo-") and World(m).branches[old]
    assert m.echo(".control/undo", "undo") == "ENODATA"


def test_the_decision_of_a_known_one_is_asked_anew(m):
    put(m, 1)
    sealed(m, "decided")
    assert m.echo("decided/resume", "approve") is None
    new = console_restore(m, snapshot_of(m, "decided"))
    assert adopt(m, new) is None
    assert m.status("decided") == "waiting (1 call)"
    assert m.echo(".control/undo", "undo") is None
    assert m.status("decided") == "finished" and m.echo("decided/resume", "approve") == "EALREADY"


def test_what_is_active_already_stays_as_it_is(m):
    put(m, 1)
    sealed(m, "same")
    before = World(m)
    assert adopt(m, active(m)) is None
    assert "active already" in said(m)["message"]
    assert World(m) == before and m.status("same") == "waiting (1 call)"
    assert m.echo(".control/undo", "undo") == "ENODATA"


def test_what_is_refused(m):
    put(m, 1)
    sealed(m, "there")
    assert adopt(m, "br-not-there-12345678") == "ENOENT" and "no branch br-not-there-12345678" in said(m)["message"]
    other = console_restore(m, snapshot_of(m, "there"), finalize=False)
    assert adopt(m, other) == "EINVAL" and "isn't the default branch" in said(m)["message"]
    child = m.emulator.ok("POST", "/projects/{p}/branches", {"branch": {"name": "child", "parent_id": active(m)}})
    m.emulator.settle(child["operations"])
    assert adopt(m, child["branch"]["id"]) == "EINVAL" and "child of" in said(m)["message"]
    for words in ("adopt", "adopt Br_1", "adopt br-a-b-12345678 now", "br-a-b-12345678"):
        assert m.echo(".control/adopt", words) == "EINVAL", words
    assert m.write(".control/adopt", '{"verb": "adopt"}') == "EINVAL" and "branch" in said(m)["message"]
    assert m.write(".control/adopt", '{"verb": "adopt", "branch": "%s"}' % active(m)) is None


def test_busy(m):
    put(m, 1)
    bare(m, "busy")
    with m.held(OPERATION):
        assert m.echo("busy/restore", "nowait in-place") is None
        assert adopt(m, active(m)) == "EBUSY" and "restore of busy" in said(m)["message"]
    m.wait("busy")


def test_the_default_was_moved_to_another_branch(m):
    put(m, 1)
    sealed(m, "moved")
    other = console_restore(m, snapshot_of(m, "moved"), finalize=False)
    assert m.emulator.console("set_default", branch_id=other).status < 300
    assert m.echo("moved/restore", "in-place") == "ESTALE"
    uri = m.uri()
    assert adopt(m, other) is None, said(m)
    assert active(m) == other and m.uri() != uri, "another endpoint"
    assert rows(m) == [1]
    restore(m, "moved")
    m.remount()
    assert active(m) == World(m).default and m.status("moved") == "waiting (1 call)"


def test_a_named_branch_goes_on_wherever_the_user_says(named):
    m = named
    put(m, 1)
    sealed(m, "point")
    put(m, 2)
    new = console_restore(m, snapshot_of(m, "point"))
    assert m.echo("point/restore", "in-place") == "ESTALE" and f"adopt {new}" in m.result("point")["message"]
    assert adopt(m, new) is None and rows(m) == [1]
    other = console_restore(m, snapshot_of(m, "point"), finalize=False)
    assert adopt(m, other) is None, "any root branch, also one that isn't the default"
    assert active(m) == other and active(m) != World(m).default
    restore(m, "point")
    assert active(m) != other and rows(m) == [1]


def test_a_branch_of_another_line(named):
    m = named
    put(m, 1)
    bare(m, "mine")
    theirs = console_restore(m, snapshot_of(m, "mine"), finalize=False)
    other = Second(m)
    other.env = m.env | {"NEON_BRANCH_ID": theirs}
    with other:
        assert active(other) == theirs and not (other / "mine").exists()
        assert adopt(m, theirs) == "EEXIST" and "another line" in said(m)["message"]
        assert active(m) != theirs


def test_killed_while_it_waits(m):
    put(m, 1)
    sealed(m, "point")
    new = console_restore(m, snapshot_of(m, "point"))
    m.emulator.fault("GET:/projects/*/branches=delay:1500")
    assert m.echo(".control/adopt", f"nowait adopt {new}") is None
    action = said(m)["action"]
    m.kill()
    m.emulator.control("DELETE", "faults")
    m.mount()
    wait_until(lambda: m.json(f".control/actions/{action}.json")["state"] == "done", 60)
    assert active(m) == new
    quiet(m)
    tidy(m)


# -- isolated branches


def isolated(m, name):
    """A checkpoint of row 1 with an isolated branch, on which another checkpoint was taken; its id in Neon."""
    put(m, 1)
    sealed(m, name)
    assert m.echo(f"{name}/restore", "branch b") is None, m.result(name)
    os.mkdir(m / name / "branches/b/checkpoints" / f"{name}.on-it")
    m.wait_status(f"{name}.on-it", "saved (database only)")
    put(m, 2)
    return m.json(f"{name}/branches/b/branch.json")["branch_id"]


def test_an_isolated_branch_that_was_finalized_in_the_console_is_promoted(m):
    branch, old = isolated(m, "one"), active(m)
    bare(m, "one.later")
    finalize(m, branch)
    assert m.echo("one/branches/b/promote", "promote") == "ESTALE"
    assert f"adopt {branch}" in m.json("one/branches/b/result")["message"]
    assert adopt(m, branch) is None, said(m)
    assert active(m) == branch and rows(m) == [1] and m.read("one/branches/b/status") == "promoted\n"
    assert m.status("one.on-it") == "saved (database only)" and m.status("one.later") == "off-line"
    assert m.echo(".control/undo", "undo") is None, said(m)
    assert rows(m) == [2] and m.status("one.later") == "saved (database only)" and m.status("one.on-it") == "off-line"
    assert old in World(m).branches


def test_an_isolated_branch_is_promoted_and_not_adopted(named):
    m = named
    branch, before = isolated(m, "two"), active(m)
    assert adopt(m, branch) == "EXDEV"
    assert "echo promote > two/branches/b/promote" in said(m)["message"]
    assert active(m) == before and rows(m) == [2]
    restore(m, "two")


def finalize(m, branch):
    """In Neon's console; it takes the place of what it was restored for."""
    m.emulator.ok("POST", f"/projects/{{p}}/branches/{branch}/finalize_restore")


@pytest.fixture
def beside(named):
    """The line's branch isn't the default one, which Neon would not delete."""
    put(named, 1)
    bare(named, "ground")
    other = console_restore(named, snapshot_of(named, "ground"), finalize=False)
    assert adopt(named, other) is None and active(named) != World(named).default
    return named


def test_a_branch_that_was_finalized_in_the_console_is_not_deleted(beside):
    m = beside
    branch = isolated(m, "three")
    finalize(m, branch)
    assert m.echo(".control/prune", "delete three/branches/b") == "ESTALE"
    assert f"adopt {branch}" in said(m)["message"]
    assert adopt(m, branch) is None, said(m)
    assert active(m) == branch and rows(m) == [1]
    assert m.echo(".control/prune", "delete three/branches/b") is None, said(m)
    assert branch in World(m).branches and rows(m) == [1], "only the entry goes"


def test_nor_while_the_deletion_waits(beside):
    m = beside
    branch = isolated(m, "four")
    m.emulator.fault("DELETE:/projects/*/branches/*=423*inf")
    assert m.echo(".control/prune", "nowait delete four/branches/b") is None
    action = said(m)["action"]
    wait_until(lambda: m.emulator.control("GET", "faults").json["met"])
    finalize(m, branch)
    m.emulator.control("DELETE", "faults")
    wait_until(lambda: m.json(f".control/actions/{action}.json").get("errno") == "ESTALE")
    assert branch in World(m).branches
    assert adopt(m, branch) is None and rows(m) == [1]


def test_nor_in_the_place_of_another_branch(beside):
    m = beside
    branch = isolated(m, "five")
    restore(m, "five")
    finalize(m, branch)
    assert m.echo(".control/prune", "delete five/branches/b") == "ESTALE"
    assert "delete it in Neon's console" in said(m)["message"] and branch in World(m).branches
    quiet(m)
    assert m.emulator.console("delete_branch", branch_id=branch).status < 300
    assert m.echo(".control/prune", "delete five/branches/b") is None, said(m)
    assert not os.path.exists(m / "five/branches/b")


def test_a_branch_that_is_to_be_deleted_is_not_adopted(named):
    m = named
    put(m, 1)
    sealed(m, "kept")
    old = active(m)
    restore(m, "kept")
    new = active(m)
    made = m.emulator.ok("POST", "/projects/{p}/endpoints", {"endpoint": {"branch_id": old, "type": "read_write"}})
    m.emulator.settle(made["operations"])
    m.emulator.fault(f"{SNAPSHOT}=delay:2000")
    os.mkdir(m / "slow")
    assert m.echo(".control/prune", f"nowait delete {old}") is None
    assert adopt(m, old) == "EBUSY"
    m.wait("slow")
    wait_until(lambda: old not in {b["id"] for b in m.emulator.branches()})
    assert active(m) == new and rows(m) == [1]

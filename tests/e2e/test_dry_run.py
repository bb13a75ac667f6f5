"""dry-run: what a restore in place would do, said and not done (design.md §2)."""

import os

import pytest
from emulator import wait_until
from mount import Mount
from restoring import OPERATION, World, active, bare, put, quiet, restore, rows, sealed, tidy


@pytest.fixture(scope="module")
def m():
    with Mount() as mount:
        yield mount


@pytest.fixture(autouse=True)
def clean(request):
    yield
    if "m" in request.fixturenames:
        quiet(request.getfixturevalue("m"))
        tidy(request.getfixturevalue("m"))


def dry(m, name):
    answer = m.echo(f"{name}/restore", "dry-run")
    return answer or m.result(name)


def test_everything_is_named_and_nothing_changes(m):
    put(m, 1)
    sealed(m, "first")
    put(m, 2)
    sealed(m, "second")
    bare(m, "third")
    m.settled(["first"])
    before, statuses = World(m), [m.status(n) for n in ("first", "second", "third")]
    result = dry(m, "first")
    snapshot = m.json("first/snapshot.json")
    would = result["would"]
    assert result["state"] == "done" and result["command"] == "dry-run"
    assert would["branch_replaced"] == active(m)
    assert would["snapshot"]["id"] == snapshot["id"] and would["snapshot"]["captured_at"] == snapshot["captured_at"]
    assert would["snapshot"]["full_size"] == snapshot["full_size"] > 0 and would["snapshot"]["age_seconds"] >= 0
    assert would["off_line"][-2:] == ["second", "third"] and not would["comes_on_line"]
    assert would["limits"] == {"branches": {"used": 1, "allowed": 25}, "root_branches": {"used": 1, "allowed": 25},
                               "snapshots": {"used": len(before.snapshots), "allowed": 100}}
    assert would["room"] is True and would["isolated_branches"] == []
    assert would["confirm"] == {"needed": False, "line": f"in-place confirm={active(m)}"}
    for word in (active(m), snapshot["id"], "second", "third", "1 of 25", "echo in-place > first/restore"):
        assert word in result["message"], word
    assert World(m) == before and [m.status(n) for n in ("first", "second", "third")] == statuses and rows(m) == [2]
    assert [e["event"] for e in m.events_of("first")][-2:] == ["dry-run.requested", "dry-run.finished"]


def test_of_a_checkpoint_that_is_off_line(m):
    put(m, 1)
    bare(m, "ground")
    bare(m, "above")
    restore(m, "ground")
    assert m.status("above") == "off-line"
    result = dry(m, "above")
    assert result["would"]["comes_on_line"] and result["would"]["off_line"] == []
    assert "above would come back on line" in result["message"]


def test_after_restores_there_and_back(m):
    """What goes off line is what the database hasn't behind it, also if it was taken before."""
    put(m, 1)
    for name in ("zig", "zag", "lost"):
        bare(m, name)
    restore(m, "zig")
    bare(m, "other way")
    restore(m, "zag")
    bare(m, "newest")
    told = dry(m, "other way")["would"]["off_line"]
    assert told == ["zag", "newest"]
    on_line = {n for n in os.listdir(m.root) if n[0] != "." and n != "latest" and m.status(n) != "off-line"}
    restore(m, "other way")
    assert {n for n in on_line if m.status(n) == "off-line"} == set(told)


def test_it_waits_for_nobody(m):
    put(m, 1)
    bare(m, "busy-one")
    bare(m, "idle-one")
    with m.held(OPERATION):
        assert m.echo("busy-one/restore", "nowait in-place") is None
        m.wait_status("busy-one", "restoring 3/5")
        assert dry(m, "idle-one")["state"] == "done"
        assert dry(m, "busy-one")["would"]["off_line"] == ["idle-one"]
        assert m.status("busy-one") == "restoring 3/5", "it is still under way, and its status says so"
    assert m.wait("busy-one") == "saved (database only)"
    assert m.result("busy-one")["command"] == "nowait in-place"


def test_isolated_branches_of_the_branch_that_goes(m):
    put(m, 1)
    bare(m, "with-branch")
    m.emulator.settle(m.emulator.ok("POST", f"/projects/{{p}}/snapshots/{m.json('with-branch/snapshot.json')['id']}/restore",
                                    {"name": "look-at-it", "finalize_restore": False, "target_branch_id": active(m)})["operations"])
    result = dry(m, "with-branch")
    assert result["would"]["isolated_branches"] == ["look-at-it"] and "look-at-it" in result["message"]


def test_without_a_snapshot(m):
    bare(m, "gone")
    assert m.emulator.console("delete_snapshot", snapshot_id=m.json("gone/snapshot.json")["id"]).status < 300
    assert dry(m, "gone") == "ENODATA" and "gone from Neon" in m.result("gone")["message"]


def test_json_and_what_it_does_not_take(m):
    bare(m, "words")
    assert m.write("words/restore", '{"verb": "dry-run"}') is None
    assert "would" in m.result("words")
    assert m.echo("words/restore", "dry-run now") == "EINVAL"
    assert m.write("words/restore", '{"verb": "dry-run", "confirm": "br-a-b-12345678"}') == "EINVAL"


def test_a_plan_that_leaves_no_room():
    with Mount(emulator=["--root-branches=1"]) as m:
        put(m, 1)
        bare(m, "full")
        result = dry(m, "full")
        assert result["would"]["room"] is False and "1 of 1 are used, so it would be refused" in result["message"]
        assert m.echo("full/restore", "in-place") == "EDQUOT"
        assert m.echo(".control/undo", "undo") == "ENODATA"


def test_with_neon_down():
    with Mount() as m:
        bare(m, "cut-off")
        m.emulator.stop()
        assert dry(m, "cut-off") in ("ECONNREFUSED", "ETIMEDOUT")
        assert m.status("cut-off") == "saved (database only)"
        m.emulator.start()
        wait_until(lambda: not isinstance(dry(m, "cut-off"), str))


def test_a_backup_that_is_written_to_it_is_no_command(m):
    bare(m, "inert")
    assert (m / "inert/restore").read_bytes() == b"" and os.stat(m / "inert/restore").st_size == 0

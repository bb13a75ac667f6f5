"""The second question: an old snapshot replaces the active branch only once that was confirmed (design.md §5)."""

import json
import os
import urllib.parse

import pytest
from emulator import wait_until
from mount import Mount
from restoring import World, active, bare, put, quiet, restore, rows, sealed, tidy


def configured(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("config") / "checkpointfs.ini"
    path.write_text(text)
    return {"CHECKPOINTFS_CONFIG": str(path)}


@pytest.fixture(scope="module")
def m(tmp_path_factory):
    """A mount that always asks."""
    with Mount(resume='cat "$CHECKPOINT_DECISIONS"', env=configured(tmp_path_factory, "[restore]\nunconfirmed = 0s\n")) as mount:
        yield mount


@pytest.fixture(autouse=True)
def clean(request):
    yield
    if "m" in request.fixturenames:
        quiet(request.getfixturevalue("m"))
        tidy(request.getfixturevalue("m"))


def test_what_would_be_lost_and_the_line_to_write(m):
    put(m, 1)
    sealed(m, "asked")
    put(m, 2)
    sealed(m, "later-one")
    bare(m, "later-two")
    before, old, status = World(m), active(m), m.status("asked")
    assert m.echo("asked/restore", "in-place") == "ECANCELED"
    result = m.result("asked")
    assert result["errno"] == "ECANCELED" and result["state"] == "refused"
    line = f"in-place confirm={old}"
    assert f"echo '{line}' > asked/restore" in result["message"] and "later-one and later-two" in result["message"]
    would = result["would"]
    assert would["branch_replaced"] == old and would["off_line"] == ["later-one", "later-two"]
    assert would["confirm"] == {"needed": True, "line": line}
    assert would["snapshot"]["id"] == m.json("asked/snapshot.json")["id"] and would["snapshot"]["age_seconds"] >= 0
    assert World(m) == before and m.status("asked") == status and rows(m) == [2], "nothing was done"

    assert m.echo("asked/restore", line) is None, m.result("asked")
    assert rows(m) == [1] and m.status("later-one") == "off-line"

    assert m.echo("asked/restore", line) == "ECANCELED", "the branch that was confirmed is no longer the active one"
    assert f"confirm={active(m)}" in m.result("asked")["message"] and old in m.result("asked")["message"]
    assert m.result("asked")["would"]["confirm"]["line"] == f"in-place confirm={active(m)}"
    assert m.echo("asked/restore", f"nowait in-place confirm={active(m)}") is None
    m.wait("asked")
    assert m.result("asked")["state"] == "done"
    refusal = m.events_of("asked", "command.refused")[-1]
    assert refusal["errno"] == "ECANCELED"


def test_replay_asks_with_its_whole_line(m):
    put(m, 1)
    sealed(m, "replayed")
    text = "in-place reject Don't drop it"
    assert m.echo("replayed/replay", text) == "ECANCELED"
    assert m.status("replayed") == "waiting (1 call)", "the decision is free"
    would = m.result("replayed")["would"]
    line = f"in-place confirm={active(m)} reject Don't drop it"
    assert would["confirm"]["line"] == line
    assert f"write <{line}> to the file <replayed/replay>" in m.result("replayed")["message"], "a shell's quote isn't the same in JSON"
    assert m.echo("replayed/replay", line) is None
    assert json.loads(m.read("replayed/output"))["decisions"][0]["message"] == "Don't drop it"


def test_replay_as_json(m):
    put(m, 1)
    sealed(m, "as-json")
    command = {"verb": "in-place", "decisions": [{"decision": "reject", "message": "No"}]}
    assert m.write("as-json/replay", json.dumps(command)) == "ECANCELED"
    line = json.loads(m.result("as-json")["would"]["confirm"]["line"])
    assert line == command | {"confirm": active(m)}
    assert m.write("as-json/replay", json.dumps(command | {"confirm": "br-wrong-one-12345678"})) == "ECANCELED"
    assert m.write("as-json/replay", json.dumps(line)) is None
    assert m.status("as-json") == "finished"


def test_a_confirmation_is_void_once_the_branch_has_changed(m):
    """Two who asked at the same time: the second one's answer is about a database that is gone."""
    put(m, 1)
    sealed(m, "both")
    line = f"in-place confirm={active(m)}"
    assert m.echo("both/restore", line) is None
    before = World(m)
    assert m.echo("both/restore", line) == "ECANCELED"
    assert World(m) == before


def test_what_is_refused_anyway_is_not_asked_about(m):
    """No confirmation makes what was taken on an isolated branch fit for in-place."""
    sealed(m, "origin")
    assert m.echo("origin/restore", "branch b") is None
    os.mkdir(m / "origin/branches/b/checkpoints/inner")
    m.wait_status("inner", "saved (database only)")
    before = World(m)
    assert m.echo("inner/restore", "in-place") == "EXDEV"
    assert m.echo("inner/restore", f"in-place confirm={active(m)}") == "EXDEV"
    assert m.echo("inner/restore", "in-place confirm=br-some-other-12345678") == "EXDEV"
    assert "the isolated branch b of origin" in m.result("inner")["message"] and World(m) == before
    assert m.echo("origin/branches/b/promote", "promote") == "ECANCELED", "that is done once it was confirmed"
    assert m.echo(".control/prune", "delete inner") is None
    assert m.echo(".control/prune", "delete origin/branches/b") is None


def test_undo_does_not_ask(m):
    put(m, 1)
    bare(m, "taken-back")
    put(m, 2)
    assert m.echo("taken-back/restore", f"in-place confirm={active(m)}") is None
    assert m.echo(".control/undo", "undo") is None
    assert rows(m) == [2]


# -- what counts as old

def test_by_default_a_fresh_snapshot_is_restored_at_once_and_a_right_confirmation_is_fine():
    with Mount() as m:
        put(m, 1)
        bare(m, "fresh")
        restore(m, "fresh")
        assert m.echo("fresh/restore", f"in-place confirm={active(m)}") is None
        before = World(m)
        assert m.echo("fresh/restore", "in-place confirm=br-some-other-12345678") == "ECANCELED"
        assert active(m) in m.result("fresh")["message"] and World(m) == before
        assert "restore_unconfirmed_ms: 3600000" in m.read(".control/config")


@pytest.mark.parametrize("value, asks", [("always", False), ("never", True), ("1s", True), ("2d", False)])
def test_the_setting(tmp_path_factory, value, asks):
    with Mount(env=configured(tmp_path_factory, f"[restore]\nunconfirmed = {value}\n")) as m:
        put(m, 1)
        bare(m, "old")
        if value == "1s":
            wait_until(lambda: m.echo("old/restore", "dry-run") is None and m.result("old")["would"]["snapshot"]["age_seconds"] >= 2)
        answer = m.echo("old/restore", "in-place")
        assert answer == ("ECANCELED" if asks else None)


def test_a_wrong_setting_is_refused(tmp_path_factory):
    with pytest.raises(AssertionError, match="no duration"):
        with Mount(env=configured(tmp_path_factory, "[restore]\nunconfirmed = soon\n")):
            pass


def test_no_line_is_offered_with_something_masked_in_it(m):
    """Who pastes it would have the agent work with the mask."""
    sealed(m, "masked")
    password = urllib.parse.urlsplit(m.uri()).password
    assert m.echo("masked/replay", f"in-place reject never with {password}") == "ECANCELED"
    result = m.result("masked")
    assert password not in json.dumps(result) and "line" not in result["would"]["confirm"]
    assert f'write the same with "confirm": "{active(m)}" to masked/replay' in result["message"]
    assert m.echo("masked/replay", f"in-place confirm={active(m)} reject never with {password}") is None
    assert f"never with {password}" in m.read("masked/output")

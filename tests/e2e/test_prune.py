"""Prune: rules plan and delete nothing, `apply` deletes what the plan named and only that, each item checked again (design.md §2)."""

import json
import os
import shutil

import pytest
from emulator import wait_until
from mount import Mount, Second
from restoring import DELETE, bare, put, quiet, restore

PRUNE = ".control/prune"


@pytest.fixture
def m():
    with Mount() as mount:
        yield mount


def plan(m, rules):
    """Writes the rules; the plan that `result` then holds."""
    assert m.echo(PRUNE, rules) is None, m.read(".control/result")
    return m.json(".control/result")


def named(items):
    return {i["name"] for i in items}


def names(m):
    return {n for n in os.listdir(m.root) if not n.startswith(".") and n != "latest"}


def snapshots(m):
    return {s["id"] for s in m.emulator.snapshots()}


def deletion(m, name):
    """The call that deletes its snapshot."""
    return DELETE.removesuffix("*") + m.json(f"{name}/snapshot.json")["id"]


def takes(m, *wanted, **meta):
    for name in wanted:
        m.take(name, meta=meta or None)
    return wanted


def test_rules_only_plan(m):
    takes(m, "a", "b", "c", "d")
    before = snapshots(m)
    result = plan(m, "keep-last=2 keep-pinned")
    assert result["state"] == "done" and result["plan"].startswith("plan-") and result["rules"] == "keep-last=2 keep-pinned"
    assert result["apply"] == f"apply {result['plan']}" and f"echo '{result['apply']}' > .control/prune" in result["message"]
    assert [i["name"] for i in result["delete"]] == ["b", "a"]
    for item in result["delete"]:
        assert item["id"] == m.json(f"{item['name']}/checkpoint.json")["id"]
        assert item["what"] == "checkpoint" and item["why"] == "no rule keeps it"
        assert item["frees"] == {"snapshots": 1, "state_bytes": os.stat(m / f"{item['name']}/state.json").st_size}
    assert result["frees"]["snapshots"] == 2 and {i["name"]: i["why"] for i in result["kept"]} == {"c": "among the last", "d": "among the last"}
    assert names(m) == {"a", "b", "c", "d"} and snapshots(m) == before
    assert [e["plan"] for e in m.events() if e["event"] == "prune.planned"] == [result["plan"]]


def test_apply_deletes_what_was_named_once(m):
    takes(m, "a", "b", "c")
    gone = {m.json(f"{n}/snapshot.json")["id"] for n in ("a", "b")}
    p = plan(m, "keep-last=1")["plan"]
    takes(m, "later")
    assert m.echo(PRUNE, f"apply {p}") is None
    result = m.json(".control/result")
    assert result["state"] == "done" and named(result["deleted"]) == {"a", "b"} and result["skipped"] == []
    assert "deleted: 2 checkpoints, 2 snapshots; skipped: 0" == result["message"]
    assert names(m) == {"c", "later"} and not gone & snapshots(m)
    assert {e["name"] for e in m.events() if e["event"] == "checkpoint.deleted" and e["action"] == result["action"]} == {"a", "b"}
    assert m.echo(PRUNE, f"apply {p}") == "EALREADY"
    assert result["action"] in m.json(".control/result")["message"]
    assert m.echo(PRUNE, "apply plan-000000000000") == "ENOENT"


def test_what_changed_since_the_plan_is_skipped_and_said_so(m):
    takes(m, "pinned", "restored", "renamed", "parent", "gone", "plain", "newest")
    put(m, 1)
    p = plan(m, "keep-last=1")
    assert named(p["delete"]) == {"pinned", "restored", "renamed", "parent", "gone", "plain"}
    (m / "pinned/meta.json").write_text(json.dumps({"pin": True}))
    os.rename(m / "renamed", m / "other")
    m.take("child", meta={"parent": m.json("parent/checkpoint.json")["id"]})
    restore(m, "restored")
    assert m.echo(PRUNE, "delete gone") is None
    assert m.echo(PRUNE, p["apply"]) is None
    result = m.json(".control/result")
    assert {i["name"]: i["why"] for i in result["skipped"]} == {
        "pinned": "it is pinned now", "restored": "it was restored since the plan was made",
        "parent": "it is the parent of one that is kept", "gone": "it is gone already"}
    assert named(result["deleted"]) == {"renamed", "plain"}
    assert names(m) == {"pinned", "restored", "parent", "child", "newest"}


def test_what_is_always_kept(m):
    takes(m, "root")
    m.take("leaf", meta={"parent": m.json("root/checkpoint.json")["id"], "pin": True})
    takes(m, "plain", "newest")
    p = plan(m, "keep-last=0")
    assert named(p["delete"]) == {"plain"}
    assert {i["name"]: i["why"] for i in p["kept"]} == {"root": "the parent of leaf, which is kept", "leaf": "pinned", "newest": "the latest"}
    p = plan(m, "keep-last=0 keep-pending")
    assert p["delete"] == [] and "nothing go" in p["message"]
    p = plan(m, "older-than=1h")
    assert p["delete"] == [] and {i["why"] for i in p["kept"]} == {"pinned", "not old enough"}


def test_snapshots_go_before_states(m):
    takes(m, "a", "b", "c")
    bare(m, "empty")
    before = snapshots(m)
    kept = {m.json(f"{n}/snapshot.json")["id"] for n in ("c", "empty")}
    state = (m / "a/state.json").read_bytes()
    text = m.read("a/snapshot.json")
    p = plan(m, "snapshots=2 states=90d")
    assert {i["name"]: i["what"] for i in p["delete"]} == {"a": "snapshot", "b": "snapshot"}
    assert p["frees"] == {"snapshots": 2, "state_bytes": 0}
    assert m.echo(PRUNE, p["apply"]) is None
    assert snapshots(m) == kept and len(before) == 4
    for name in ("a", "b"):
        assert m.status(name).endswith(", snapshot missing")
    assert (m / "a/state.json").read_bytes() == state and m.read("a/snapshot.json") == text
    assert m.echo("a/restore", "in-place") == "ENODATA"
    assert len(m.events_of("a", "snapshot.deleted")) == 1 and not m.events_of("a", "snapshot.missing")
    assert plan(m, "snapshots=2 states=90d")["delete"] == []
    m.remount()
    assert m.status("a").endswith(", snapshot missing")


def test_what_has_branches_is_kept(m):
    takes(m, "a", "b", "c")
    assert m.echo("a/restore", "branch fix-1") is None
    p = plan(m, "keep-last=0")
    assert named(p["delete"]) == {"b"}
    assert {i["name"]: i["why"] for i in p["kept"]} == {"a": "isolated branches were made of it", "c": "the latest"}
    assert m.echo("b/restore", "branch fix-2") is None
    assert m.echo(PRUNE, p["apply"]) is None
    assert {i["name"]: i["why"] for i in m.json(".control/result")["skipped"]} == {"b": "isolated branches were made of it"}
    assert m.echo(PRUNE, "delete a/branches/fix-1") is None
    assert named(plan(m, "keep-last=0")["delete"]) == {"a"}


def test_forks_go_before_what_they_were_made_of(m):
    takes(m, "original")
    state = json.loads(m.read("original/state.json"))
    parent = "original"
    for i in range(2):
        shutil.copytree(m / parent, m / f".import/fork{i}")
        os.unlink(m / f".import/fork{i}/state.json")
        (m / f".import/fork{i}/state.json").write_text(json.dumps(state | {"max_turns": 70 + i}))
        os.rename(m / f".import/fork{i}", m / f"fork{i}")
        parent = f"fork{i}"
    takes(m, "newest")
    p = plan(m, "keep-last=1")
    assert [i["name"] for i in p["delete"]] == ["fork1", "fork0", "original"]
    assert m.echo(PRUNE, p["apply"]) is None
    assert m.json(".control/result")["skipped"] == [] and names(m) == {"newest"}


def test_a_snapshot_that_a_fork_stands_on_stays(m, tmp_path):
    takes(m, "original", "newest")
    snapshot = m.json("original/snapshot.json")["id"]
    shutil.copytree(m / "original", tmp_path / "fork")
    state = json.loads((tmp_path / "fork/state.json").read_text())
    (tmp_path / "fork/state.json").write_text(json.dumps(state | {"max_turns": 77}))
    shutil.copytree(tmp_path / "fork", m / ".import/fork")
    os.rename(m / ".import/fork", m / "fork")
    assert plan(m, "snapshots=0")["delete"] == []
    (m / "original/meta.json").write_text(json.dumps({"pin": True}))
    p = plan(m, "keep-last=0")
    assert [(i["name"], i["frees"]["snapshots"]) for i in p["delete"]] == [("fork", 0)]
    assert m.echo(PRUNE, p["apply"]) is None
    assert names(m) == {"original", "newest"} and snapshot in snapshots(m)
    assert {i["name"] for i in plan(m, "snapshots=0 older-than=0s")["delete"]} == set(), "one is pinned, the other the latest"
    (m / "original/meta.json").write_text("{}")
    p = plan(m, "snapshots=0")
    assert named(p["delete"]) == {"original"}
    assert m.echo(PRUNE, p["apply"]) is None
    assert snapshot not in snapshots(m)


@pytest.mark.parametrize("text", ["keep-last=x", "keep-last=1 keep-last=2", "keep-pending", "older-than=3y", "snapshots=", "keep-all", "apply",
                                  "apply a b", "plan", '{"verb":"plan"}', '{"verb":"plan","rules":"keep-last"}', '{"verb":"apply","name":"x"}'])
def test_what_is_no_rule_is_refused(m_shared, text):
    assert m_shared.echo(PRUNE, text) == "EINVAL"
    assert "keep-last=N keep-pending keep-pinned older-than=TIME snapshots=N|TIME states=N|TIME" in m_shared.json(".control/result")["message"]


@pytest.fixture(scope="module")
def m_shared():
    with Mount() as mount:
        yield mount


def test_json_says_the_same(m):
    takes(m, "a", "b")
    p = plan(m, json.dumps({"verb": "plan", "rules": "keep-last=1"}))
    assert named(p["delete"]) == {"a"}
    assert m.echo(PRUNE, json.dumps({"verb": "apply", "plan": p["plan"]})) is None
    assert names(m) == {"b"}


def test_progress_and_the_checkpoint_under_way(m):
    takes(m, "a", "b", "c")
    p = plan(m, "keep-last=1")
    with m.held(deletion(m, "b")):
        assert m.echo(PRUNE, f"nowait {p['apply']}") is None
        wait_until(lambda: m.status("b") == "deleting 1/2")
        wait_until(lambda: m.json(".control/result").get("message") == "deleting 1/2: b")
        result = m.json(".control/result")
        assert result["state"] == "running"
        assert m.echo("b/restore", "in-place") == "EBUSY"
        assert m.echo(PRUNE, "delete b") == "EBUSY"
    wait_until(lambda: m.json(f".control/actions/{result['action']}.json")["state"] == "done")
    assert names(m) == {"c"}
    takes(m, "d", "e")
    p = plan(m, "keep-last=1")
    with m.held(deletion(m, "c")):
        assert m.echo(PRUNE, f"nowait {p['apply']}") is None
        wait_until(lambda: m.status("c") == "deleting 2/2")
    wait_until(lambda: names(m) == {"e"})


def test_what_neon_refuses_is_skipped(m):
    takes(m, "a", "b", "c")
    p = plan(m, "keep-last=1")
    m.emulator.fault(f"{DELETE}=400")
    assert m.echo(PRUNE, p["apply"]) is None
    result = m.json(".control/result")
    assert named(result["deleted"]) == {"a"} and named(result["skipped"]) == {"b"}
    assert m.status("b").startswith("waiting")
    restore(m, "b")


def test_an_answer_that_is_lost(m):
    takes(m, "a", "b", "c")
    p = plan(m, "keep-last=1")
    m.emulator.fault(f"{DELETE}=drop-after")
    assert m.echo(PRUNE, p["apply"]) is None
    result = m.json(".control/result")
    assert named(result["deleted"]) == {"a", "b"} and result["skipped"] == []
    assert names(m) == {"c"} and len(snapshots(m)) == 1


def test_neon_goes_away_in_the_middle(m):
    """What was begun waits for Neon, and goes on."""
    takes(m, "a", "b", "c")
    p = plan(m, "keep-last=1")
    quiet(m)
    m.emulator.fault(f"{deletion(m, 'a')}=423*inf")
    assert m.echo(PRUNE, f"nowait {p['apply']}") is None
    wait_until(lambda: names(m) == {"a", "c"} or m.status("a").startswith("deleting"))
    m.emulator.stop()
    assert "a" in names(m)
    m.emulator.start()
    wait_until(lambda: names(m) == {"c"})
    wait_until(lambda: m.json(".control/result")["state"] == "done")
    assert len(snapshots(m)) == 1


def test_another_mount_applies_the_plan(m):
    takes(m, "a", "b", "c")
    p = plan(m, "keep-last=1")
    with Second(m) as other:
        with m.held(deletion(m, "b")):
            assert other.echo(PRUNE, f"nowait {p['apply']}") is None
            wait_until(lambda: m.status("b") == "deleting 1/2")
            assert m.echo("b/restore", "in-place") == "EBUSY" and m.echo(PRUNE, p["apply"]) == "EALREADY"
        wait_until(lambda: names(m) == {"c"} == names(other))
        takes(m, "d", "e")
        p = plan(m, "keep-last=1")
        wait_until(lambda: {"d", "e"} <= names(other))
        with m.held(deletion(m, "c")):
            assert other.echo(PRUNE, f"nowait {p['apply']}") is None
            wait_until(lambda: m.status("c") == "deleting 2/2")
        wait_until(lambda: names(m) == {"e"} == names(other))


def test_one_mount_dies_and_the_other_goes_on(m):
    takes(m, "a", "b", "c")
    p = plan(m, "keep-last=1")
    quiet(m)
    with Second(m) as other:
        m.emulator.fault(f"{DELETE}=423*inf")
        assert m.echo(PRUNE, f"nowait {p['apply']}") is None
        wait_until(lambda: other.status("b") == "deleting 1/2")
        m.kill()
        m.emulator.control("DELETE", "faults")
        wait_until(lambda: names(other) == {"c"}, 60)
        assert len([e for e in other.events() if e["event"] == "checkpoint.deleted"]) == 2
        m.mount()


def test_with_neon_away_the_plan_can_be_applied_later(m):
    takes(m, "a", "b")
    p = plan(m, "keep-last=1")
    quiet(m)
    m.emulator.stop()
    assert m.echo(PRUNE, p["apply"]) == "ECONNREFUSED"
    assert names(m) == {"a", "b"} and m.status("a").startswith("waiting")
    m.emulator.start()
    assert m.echo(PRUNE, p["apply"]) is None
    assert names(m) == {"b"}


@pytest.mark.parametrize("killed", [1, 2, 3])
def test_killed_in_the_middle_the_rest_goes_on(m, killed):
    takes(m, "a", "b", "c", "d", "e")
    p = plan(m, "keep-last=1")
    quiet(m)
    if killed > 1:
        m.emulator.fault(f"{DELETE}=delay:0*{killed - 1}")
    m.emulator.fault(f"{DELETE}=delay:1501")
    before = snapshots(m)
    assert m.echo(PRUNE, f"nowait {p['apply']}") is None
    action = m.json(".control/result")["action"]
    wait_until(lambda: not any("1501" in f["rule"] for f in m.emulator.control("GET", "faults").json["faults"]))
    m.kill()
    m.mount()
    wait_until(lambda: names(m) == {"e"})
    wait_until(lambda: m.json(f".control/actions/{action}.json")["state"] == "done")
    result = m.json(f".control/actions/{action}.json")
    assert named(result["deleted"]) == {"a", "b", "c", "d"} and result["skipped"] == []
    deleted = [e["name"] for e in m.events() if e["event"] == "checkpoint.deleted"]
    assert sorted(deleted) == ["a", "b", "c", "d"]
    assert len(snapshots(m)) == len(before) - 4
    assert m.echo(PRUNE, p["apply"]) == "EALREADY"

"""mv .import/NAME . : a copy is registered with its id, times and parent, a changed state as a fork, anything else is refused (design.md §2, §5)."""

import errno
import json
import os
import re
import secrets
import shutil
import stat
import subprocess
import threading
import time

import pytest

from emulator import wait_until
from mount import CALL, SAMPLES, STATE, Fresh, Mount, shell
from restoring import active, bare
from test_import_large import register as register_large
from test_staging import raises

KEPT = ("state.json", "checkpoint.json", "snapshot.json", "meta.json", "transcript.md")


@pytest.fixture(scope="module")
def first():
    """Where the backups come from; its Neon is the one of every other mount here."""
    with Mount(emulator=("--snapshots=1000", "--branches=100")) as mount:
        mount.take("plain")
        mount.take("child", SAMPLES / "py_parallel3_interrupted.json",
                   meta={"run_id": "run/1", "parent": mount.json("plain/checkpoint.json")["id"], "labels": ["a", "b"]})
        mount.take("raw", b"raw \x00\xff bytes")
        os.mkdir(mount / "bare")
        mount.wait("bare")
        mount.take("before")
        os.rename(mount / "before", mount / "after")
        mount.settled()
        yield mount


@pytest.fixture(scope="module")
def backup(first, tmp_path_factory):
    where = tmp_path_factory.mktemp("backup")
    assert shell(f"cp -a {first.root}/. {where}/").returncode == 0
    return where


@pytest.fixture(scope="module")
def m(first, backup):
    """A mount over a fresh store."""
    with Fresh(first) as mount:
        yield mount


@pytest.fixture(scope="module")
def copies(first, backup):
    """One more, where nothing is restored."""
    with Fresh(first) as mount:
        yield mount


@pytest.fixture(autouse=True)
def clean(request):
    """What a test left in .import/ is removed."""
    mounts = [request.getfixturevalue(name) for name in ("m", "copies") if name in request.fixturenames]
    yield
    for m in mounts:
        for name in os.listdir(m / ".import"):
            path = m / ".import" / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def stage(m, backup, name, to=None, **texts):
    """Copies a checkpoint of the backup in; `texts`: what else stands in a file of it (meta="{}"); None removes one."""
    to = to or name
    assert shell(f"cp -a '{backup / name}' '{m.root}/.import/{to}'").returncode == 0
    for file, text in texts.items():
        path = m / ".import" / to / f"{file}.json"
        path.exists() and path.unlink()
        if text is not None:
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return f".import/{to}"


def register(m, staged, name):
    os.rename(m / staged, m / name)
    return name


def have(m, backup, *names):
    """They are here: another process may have run the tests that registered them."""
    for name in names:
        if not (m / name).exists():
            register(m, stage(m, backup, name), name)


def put_back(m, name):
    """Another mount here may have replaced the branch before this one's line began: then it asks, whatever the snapshot's age."""
    assert m.echo(f"{name}/restore", f"in-place confirm={active(m)}") is None, m.result(name)


def last(m):
    return m.json(".control/result")


# -- the same again


@pytest.mark.parametrize("name", ["plain", "child", "raw", "bare", "after"])
def test_a_copy_is_what_it_was(copies, first, backup, name):
    m = copies
    done = shell(f"cp -a {backup}/{name} {m.root}/.import/ && mv {m.root}/.import/{name} {m.root}/")
    assert (done.returncode, done.stderr) == (0, ""), done
    assert os.listdir(m / ".import") == []
    for file in KEPT:
        was, now = backup / name / file, m / name / file
        assert was.exists() == now.exists(), file
        if was.exists():
            assert now.read_bytes() == was.read_bytes(), file
            assert os.stat(now).st_mtime_ns == os.stat(was).st_mtime_ns and stat.S_IMODE(os.stat(now).st_mode) == stat.S_IMODE(os.stat(was).st_mode), file
    assert os.stat(m / name / "restore").st_mtime_ns == os.stat(backup / name / "restore").st_mtime_ns
    if name != "bare":
        assert sorted(os.listdir(m / name / "pending")) == sorted(os.listdir(backup / name / "pending"))
        for call in os.listdir(backup / name / "pending"):
            assert (m / name / "pending" / call).read_bytes() == (backup / name / "pending" / call).read_bytes()
    assert m.status(name) == "off-line"
    assert name not in os.listdir(m / ".pending") and not os.path.lexists(m / "latest")
    (event,) = m.events_of(name, "checkpoint.imported")
    assert event["checkpoint"] == m.json(f"{name}/checkpoint.json")["id"] and "fork" not in event
    result = m.result(name)
    assert result["state"] == "done" and result["file"] == "import" and result["command"] == f"mv .import/{name} {name}"
    assert "off-line until it is restored: echo in-place > " + name in result["message"]
    assert not shell(f"rsync -an --itemize-changes --include={name}/ --include='{name}/*.json' --include='{name}/transcript.md' --exclude='*' {m.root}/ {backup}/ "
                     "| grep -v '^.d'").stdout
    # again: it is here
    stage(m, backup, name, "again")
    raises(errno.EEXIST, register, m, ".import/again", "again")
    assert f"is already here as {name}" in last(m)["message"] and (m / ".import/again").exists()


def test_long_texts(tmp_path):
    """Longer than what an index of the store takes: they are the writer's, and nothing else is wrong with them."""
    def text():
        return secrets.token_urlsafe(5000)

    call = {"id": text(), "tool": text(), "agent": text(), "arguments": {"x": text()}}
    meta = {"run_id": text(), "step_id": text(), "parent": text(), "agent": text(), "framework_version": text(), "pending": [call]}
    with Mount(resume='cat "$CHECKPOINT_DECISIONS"') as m:
        m.take("long", b"a state that no reader knows", meta=meta)
        assert m.status("long") == "waiting (1 call)"
        m.settled()
        shutil.copytree(m / "long", tmp_path / "long", symlinks=True)
        assert m.echo("long/resume", "approve") is None and m.status("long") == "finished"
        assert json.loads(m.read("long/output"))["decisions"][0]["id"] == call["id"]
        assert m.echo(".control/prune", "delete long") is None
        register(m, stage(m, tmp_path, "long"), "long")
        assert m.read("long/checkpoint.json") == (tmp_path / "long/checkpoint.json").read_text()
        assert len(os.listdir(m / "long/pending")) == 1 and len(os.listdir(m / ".runs")) == 1


# -- in the database


def test_restore_decide_undo(m, first, backup):
    """Off line until it is restored; then it waits for its decision, and everything else is off the line."""
    m.take("here")
    have(m, backup, "plain")
    assert m.echo("plain/resume", "approve") in ("ESTALE", "EOPNOTSUPP")
    put_back(m, "plain")
    assert m.status("plain") == "waiting (1 call)" and "plain" in os.listdir(m / ".pending")
    assert m.status("here") == "off-line" and os.readlink(m / "latest") == "plain"
    assert m.echo(".control/undo", "undo") is None
    assert m.status("plain") == "off-line" and m.status("here") == "waiting (1 call)" and os.readlink(m / "latest") == "here"
    put_back(m, "plain")
    assert m.status("here") == "off-line"
    m.take("next")
    assert os.readlink(m / "latest") == "next"
    put_back(m, "here")
    assert m.status("plain") == "off-line"  # whether it came before or after, nobody knows
    assert m.status("next") == "off-line" and os.readlink(m / "latest") == "here"
    m.remount()
    assert m.status("plain") == "off-line" and m.status("here") == "waiting (1 call)"


def test_a_changed_state_is_a_fork(m, backup):
    have(m, backup, "child", "raw")
    before = m.json("child/checkpoint.json")
    state = json.loads((backup / "child/state.json").read_text())
    state["max_turns"] = 77
    staged = stage(m, backup, "child", "edited", state=json.dumps(state))
    register(m, staged, "edited")
    now = m.json("edited/checkpoint.json")
    assert now["id"] != before["id"] and now["parent"] == before["id"] and now["run_id"] == "run/1" and now["name"] == "edited"
    assert now["max_turns"] == 77 and json.loads(m.read("edited/state.json")) == state
    assert m.json("edited/meta.json") == {"run_id": "run/1", "parent": before["id"], "labels": ["a", "b"]}
    assert m.json("child/checkpoint.json") == before
    assert m.json("edited/snapshot.json")["id"] == m.json("child/snapshot.json")["id"]
    (event,) = m.events_of("edited", "checkpoint.imported")
    assert event["fork"] is True and event["parent"] == before["id"]
    assert f"registered as a fork, {now['id']}, of {before['id']}" in m.result("edited")["message"]
    # meta.json alone is no other state
    stage(m, backup, "raw", "relabelled", meta='{"note": "new"}')
    raises(errno.EEXIST, register, m, ".import/relabelled", "relabelled")
    # deleting one leaves the other its snapshot
    snapshot = now and m.json("edited/snapshot.json")["id"]
    assert m.echo(".control/prune", "delete edited") is None
    assert snapshot in {s["id"] for s in m.emulator.snapshots()}


def guide(first, **more):
    return json.dumps({"snapshot_id": first.json("plain/snapshot.json")["id"],
                       "agent_state": json.loads(STATE.read_text())} | more)


@pytest.mark.parametrize("form", ["object", "text", "directory", "state"])
def test_the_guides_own_checkpoint(m, first, form, tmp_path):
    text = guide(first) if form != "text" else guide(first, agent_state=STATE.read_text())
    name = f"guide {form}"
    if form in ("directory", "state"):
        os.mkdir(m / ".import/x")
        (m / ".import/x" / ("checkpoint.json" if form == "directory" else "state.json")).write_text(text)
        os.rename(m / ".import/x", m / name)
    else:
        (tmp_path / "checkpoint.json").write_text(text)
        done = shell(f"cp {tmp_path}/checkpoint.json {m.root}/.import/old.json && mv {m.root}/.import/old.json '{m.root}/{name}'")
        assert (done.returncode, done.stderr) == (0, ""), done
    assert os.listdir(m / ".import") == [] and (m / name).is_dir()
    assert m.read(f"{name}/state.json") == text and m.status(name).startswith("off-line")
    assert os.listdir(m / name / "pending") == [f"{CALL}.json"]
    assert m.json(f"{name}/snapshot.json")["id"] == first.json("plain/snapshot.json")["id"]
    # what Neon knows of it is filled in
    wait_until(lambda: m.json(f"{name}/snapshot.json").get("captured_at"))
    assert m.json(f"{name}/snapshot.json")["name"] == first.json("plain/snapshot.json")["name"]
    put_back(m, name)
    assert m.status(name) == "waiting (1 call)"


def test_the_guides_agent_state_is_as_free_as_any(m, first):
    """What Python's json writes and strict parsers refuse."""
    state = '{"a": "\\u0000 \\ud800", "b": NaN, "c": 123456789012345678901234567890, "d": 1, "d": 2}'
    text = guide(first, agent_state="HERE").replace('"HERE"', state)
    (m / ".import/odd.json").write_text(text)
    register(m, ".import/odd.json", "guide odd")
    assert m.read("guide odd/state.json") == text
    assert m.json("guide odd/snapshot.json")["id"] == first.json("plain/snapshot.json")["id"]


def test_a_file_alone_has_its_own_time_while_neon_is_away():
    with Mount() as m:
        m.take("plain")
        text = guide(m)
        m.emulator.stop()
        (m / ".import/old.json").write_text(text)
        os.utime(m / ".import/old.json", ns=(1700000000123456789,) * 2)
        register(m, ".import/old.json", "alone")
        assert m.json("alone/checkpoint.json")["created_at"] == "2023-11-14T22:13:20.123Z"
        times = {f.name: f.lstat().st_mtime_ns for f in (m / "alone").rglob("*")}
        assert min(times.values()) >= 1700000000123456789, times
        assert m.echo("alone/restore", "in-place") == "ECANCELED"
        assert "is of an age not known yet:" in m.result("alone")["message"]
        assert m.result("alone")["would"]["snapshot"]["captured_at"] is None
        assert "1970" not in shell(f"grep -rh . {m.root}/alone").stdout


def test_a_run_without_steps_is_in_order_of_time(tmp_path):
    with Mount() as m:
        for name in ("one", "two", "three"):
            m.take(name, meta={"run_id": "run"})
        m.settled()
        assert shell(f"cp -a {m.root}/one {m.root}/two {m.root}/three {tmp_path}/").returncode == 0
        for name in ("two", "three"):
            assert m.echo(".control/prune", f"delete {name}") is None
        m.take("four", meta={"run_id": "run"})
        stage(m, tmp_path, "one", "changed", state=m.read("one/state.json") + " ")
        for staged in (".import/changed", stage(m, tmp_path, "three"), stage(m, tmp_path, "two")):
            register(m, staged, os.path.basename(staged))
        run = [name for name in os.listdir(m / ".runs/run") if "." not in name]
        assert run == ["one", "two", "three", "four", "changed"]
        assert os.readlink(m / ".by-snapshot" / m.json("one/snapshot.json")["id"]) == "../one"


def test_another_projects_snapshot_is_none_here(m, first, backup):
    snapshot = json.loads((backup / "plain/snapshot.json").read_text()) | {"project_id": "other-project-1"}
    meta = json.loads((backup / "plain/checkpoint.json").read_text()) | {"id": "ck-" + "0" * 20}
    register(m, stage(m, backup, "plain", "foreign", snapshot=json.dumps(snapshot), checkpoint=json.dumps(meta)), "foreign")
    assert m.status("foreign") == "off-line, snapshot missing"
    assert "is of the project other-project-1, not of" in m.result("foreign")["message"]
    assert m.echo("foreign/restore", "in-place") == "ENODATA"
    assert m.read("foreign/state.json") == (backup / "plain/state.json").read_text()


def test_a_snapshot_that_is_gone_from_neon(m, first, backup):
    snapshot = json.loads((backup / "plain/snapshot.json").read_text()) | {"id": "snap-never-was-1"}
    meta = json.loads((backup / "plain/checkpoint.json").read_text()) | {"id": "ck-" + "1" * 20}
    register(m, stage(m, backup, "plain", "gone", snapshot=json.dumps(snapshot), checkpoint=json.dumps(meta)), "gone")
    assert m.status("gone") in ("off-line", "off-line, snapshot missing")  # Neon is asked at once
    m.wait_status("gone", "off-line, snapshot missing")
    assert m.echo("gone/restore", "in-place") == "ENODATA"


def test_a_state_alone(m):
    os.mkdir(m / ".import/new")
    shutil.copy(STATE, m / ".import/new/state.json")
    os.utime(m / ".import/new/state.json", ns=(10**18, 1700000000123456789))
    os.rename(m / ".import/new", m / "alone")
    facts = m.json("alone/checkpoint.json")
    assert facts["id"].startswith("ck-") and facts["created_at"] == "2023-11-14T22:13:20.123Z" and "parent" not in facts
    assert os.stat(m / "alone/state.json").st_mtime_ns == 1700000000123456789
    assert not (m / "alone/snapshot.json").exists() and m.json("alone/meta.json") == {}
    assert m.echo("alone/restore", "in-place") == "ENODATA"


# -- what meta.json supplied at the seal, and doesn't say any more

SUPPLIED = {"pending": [{"id": "c1", "tool": "drop_users", "arguments": {"really": 1.10, "n\u202e": [True]}, "agent": "Bob"},
                        {"id": "c 2", "arguments": "now?", "kind": "input"}],
            "traceparent": "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"}


@pytest.fixture
def pinned(m, tmp_path, request):
    """A copy of a checkpoint that isn't here any more, whose meta.json was replaced after the seal as the README pins one."""
    name = f"supplied {request.node.name}"
    m.take(name, b"a state that no reader knows", meta=SUPPLIED)
    assert m.status(name) == "waiting (2 calls)"
    assert m.write(f"{name}/meta.json", '{"pin": false, "note": "n"}\n') is None
    m.settled([name])
    assert shell(f"cp -a '{m.root}/{name}' {tmp_path}/").returncode == 0
    assert m.echo(".control/prune", f"delete {name}") is None and not (m / name).exists()
    return tmp_path, name


def same_calls(m, backup, name):
    assert m.read(f"{name}/checkpoint.json") == (backup / name / "checkpoint.json").read_text()
    assert sorted(os.listdir(m / name / "pending")) == ["c%202.json", "c1.json"]
    for call in os.listdir(m / name / "pending"):
        assert m.read(f"{name}/pending/{call}") == (backup / name / "pending" / call).read_text()


def test_what_was_supplied_survives_another_meta(m, pinned):
    backup, name = pinned
    register(m, stage(m, backup, name), name)
    same_calls(m, backup, name)
    assert m.read(f"{name}/meta.json") == '{"pin": false, "note": "n"}\n'
    assert os.listdir(m / ".by-trace/0123456789abcdef0123456789abcdef") == [name]
    # a fork has the same calls, unless its meta.json names others
    for to, meta, calls in (("fork a", None, ["c 2", "c1"]), ("fork b", '{"pending": [{"id": "c9"}]}', ["c9"])):
        register(m, stage(m, backup, name, f"{name} {to}", state="another state", **({"meta": meta} if meta else {})), f"{name} {to}")
        facts = m.json(f"{name} {to}/checkpoint.json")
        assert sorted(c["id"] for c in facts["pending"]) == calls and facts["trace"]["traceparent"] == SUPPLIED["traceparent"]


def test_what_waits_is_fixed_at_the_seal(m, pinned):
    """A meta.json that was written later names another tool for the same id."""
    backup, name = pinned
    register(m, stage(m, backup, name, meta='{"pending": [{"id": "c1", "tool": "drop_all", "arguments": {"a": 2}}]}'), name)
    same_calls(m, backup, name)
    # and where nothing waited, nothing does
    m.take(f"{name} none", b"a state that no reader knows")
    assert m.write(f"{name} none/meta.json", json.dumps(SUPPLIED)) is None and m.status(f"{name} none") == "saved"
    m.settled([f"{name} none"])
    assert shell(f"cp -a '{m.root}/{name} none' {backup}/").returncode == 0
    assert m.echo(".control/prune", f"delete {name} none") is None
    register(m, stage(m, backup, f"{name} none"), f"{name} none")
    assert m.json(f"{name} none/checkpoint.json")["pending"] == [] and os.listdir(m / f"{name} none/pending") == []


def test_the_calls_of_a_copy_are_those_it_names(m, pinned):
    backup, name = pinned
    staged = stage(m, backup, name)
    call = m / staged / "pending/c1.json"
    whole = call.read_text()
    call.chmod(0o600)
    for text, code, message in ((whole.replace("drop_users", "list"), errno.EBADMSG, 'the call c1 isn\'t the one that checkpoint.json names, its "tool"'),
                                (whole.replace("true", "false"), errno.EBADMSG, 'its "arguments_sha256" differs'),
                                (whole.replace('"c1"', '"c7"'), errno.EBADMSG, 'its "id" differs'),
                                ("[]", errno.EBADMSG, "pending/c1.json isn't a JSON object"),
                                ('{"id": 5}', errno.EBADMSG, "can't have been in meta.json"),
                                (None, errno.ENODATA, "pending/c1.json is missing")):
        call.write_text(text) if text is not None else call.unlink()
        raises(code, register, m, staged, name)
        assert message in last(m)["message"], last(m)
    (m / staged / "meta.json").chmod(0o600)
    (m / staged / "meta.json").write_text(json.dumps(SUPPLIED))  # where pending/ wasn't copied, it still has them
    shutil.rmtree(m / staged / "pending")
    register(m, staged, name)
    same_calls(m, backup, name)


# -- what is refused


BROKEN = {
    "nothing": (dict(state=None, checkpoint=None), "neither checkpoint.json nor state.json"),
    "no state": (dict(state=None), "state.json is missing"),
    "empty state": (dict(state=""), "state.json is empty"),
    "cut state": (dict(state='{"a": [1'), "state.json: cut short"),
    "broken checkpoint": (dict(checkpoint="{"), "checkpoint.json isn't valid JSON"),
    "no object": (dict(checkpoint="[]"), "checkpoint.json isn't a JSON object"),
    "no id": (dict(checkpoint="{}"), 'checkpoint.json: "id" must be'),
    "odd id": (dict(checkpoint='{"id": "ck-../../../etc/passwd00"}'), 'checkpoint.json: "id" must be'),
    "number id": (dict(checkpoint='{"id": 5}'), 'checkpoint.json: "id" must be'),
    "odd time": (dict(checkpoint='{"id": "ck-00000000000000000002", "created_at": "yesterday"}'), 'checkpoint.json: "created_at" must be'),
    "odd name": (dict(checkpoint='{"id": "ck-00000000000000000002", "name": "../x"}'), 'checkpoint.json: "name" can\'t be'),
    "odd hash": (dict(checkpoint='{"id": "ck-00000000000000000002", "state": {"sha256": "x"}}'), 'checkpoint.json: "state.sha256"'),
    "odd calls": (dict(checkpoint='{"id": "ck-00000000000000000002", "pending": {}}'), 'checkpoint.json: "pending" must be a list'),
    "odd call": (dict(checkpoint='{"id": "ck-00000000000000000002", "pending": [{"id": 1}]}'), 'checkpoint.json: "pending[0].id" must be'),
    "twice": (dict(checkpoint='{"id": "ck-00000000000000000002", "id": "ck-00000000000000000003"}'), "checkpoint.json isn't valid JSON"),
    "broken snapshot": (dict(snapshot="no"), "snapshot.json isn't valid JSON"),
    "no snapshot id": (dict(snapshot='{"project_id": "p"}'), 'snapshot.json: "id" is missing'),
    "no project": (dict(snapshot='{"id": "snap-x"}'), 'snapshot.json: "project_id" is missing'),
    "odd snapshot id": (dict(snapshot='{"id": "../x", "project_id": "p"}'), 'snapshot.json: "id" is no id'),
    "broken meta": (dict(meta="{,"), "meta.json isn't valid JSON"),
    "odd meta": (dict(meta='{"pin": []}'), 'meta.json: "pin"'),
    "other run": (dict(meta='{"run_id": "another"}'), 'meta.json: "run_id" is fixed since the seal'),
    "two states": (dict(checkpoint='{"snapshot_id": "snap-x", "agent_state": {}}'), "which of them is it?"),
    "two snapshots": (dict(state=None, checkpoint='{"snapshot_id": "snap-x", "agent_state": {}}'), "checkpoint.json names the snapshot snap-x"),
    "odd snapshot of the guide's": (dict(state=None, checkpoint='{"snapshot_id": 5, "agent_state": {}}'), '"snapshot_id" must be a text'),
    "guide without snapshot": (dict(state=None, checkpoint='{"agent_state": {}}'), 'checkpoint.json: "snapshot_id" is missing'),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_checkpoint(m, backup, case):
    texts, message = BROKEN[case]
    before = sorted(os.listdir(m.root))
    staged = stage(m, backup, "after" if case != "other run" else "child", "broken", **texts)
    held = sorted(os.listdir(m / staged))
    raises(errno.ENODATA if case in ("nothing", "no state", "empty state") else errno.EBADMSG, register, m, staged, "broken")
    assert message in last(m)["message"] and last(m)["state"] == "refused" and last(m)["file"] == "import", last(m)
    assert sorted(os.listdir(m.root)) == before and sorted(os.listdir(m / staged)) == held, "nothing has changed"


def test_other_refusals(m, backup):
    have(m, backup, "after")
    bare(m, "in the way")
    staged = stage(m, backup, "after", "x")
    for name in (".hidden", "a\nb"):
        raises(errno.EINVAL, register, m, staged, name)
    raises(errno.EEXIST, register, m, staged, "in the way")
    assert "is already here as after" in last(m)["message"]
    (m / staged / "checkpoint.json").unlink()
    raises(errno.EEXIST, register, m, staged, "in the way")
    assert "there is a checkpoint called in the way already" in last(m)["message"]
    (m / ".import/alone").write_text('{"a": 1}')
    raises(errno.EBADMSG, register, m, ".import/alone", "alone file")
    os.symlink("/etc", m / ".import/link")
    raises(errno.EBADMSG, register, m, ".import/link", "linked")
    os.unlink(m / ".import/link")
    (m / staged / "state.json").unlink()
    os.symlink("/etc/hostname", m / staged / "state.json")
    raises(errno.EBADMSG, register, m, staged, "linked")
    assert "state.json is no regular file" in last(m)["message"]
    with open(m / staged / "meta.json", "a"):
        raises(errno.EBUSY, register, m, staged, "open")
    assert "is still being written" in last(m)["message"]


def test_a_rename_that_overtakes_a_close(m):
    """`cp` and `mv`: the kernel tells the close by itself, and here it comes later for sure. Where this process stands still too long for
    that, it is still being written."""
    through = 0
    for i in range(40):
        os.mkdir(m / f".import/late {i}")
        (m / f".import/late {i}/state.json").write_text(f"state {i}")
        fd, begins, answers = os.open(m / f".import/late {i}/state.json", os.O_WRONLY), threading.Event(), []

        def move():
            begins.set()
            try:
                answers.append(os.rename(m / f".import/late {i}", m / f"late {i}"))
            except OSError as e:
                answers.append(errno.errorcode[e.errno])
        thread = threading.Thread(target=move)
        thread.start()
        begins.wait()
        time.sleep(0.01)
        os.close(fd)
        thread.join()
        assert answers[0] in (None, "EBUSY")
        through += answers == [None]
        if through == 5:
            break
    assert through == 5


def test_an_agent_registers_nothing(m, first, backup, tmp_path):
    with Fresh(first, resume=f"mv \"$CHECKPOINT_MOUNT/.import/x\" \"$CHECKPOINT_MOUNT/sneaky\"; echo $? > {tmp_path}/out") as other:
        other.take("whole")
        stage(other, backup, "plain", "x")
        assert other.echo("whole/resume", "approve") is None
        assert (tmp_path / "out").read_text() == "1\n" and "not permitted" in other.read("whole/output")
        assert not (other / "sneaky").exists() and "can't decide" in other.json(".control/result")["message"]
        assert os.listdir(other / ".import") == ["x"]


# -- what the kernel knows afterwards (reference/traps.md 14, 16)


def test_whoever_is_in_it_is_in_the_checkpoint(m, first, backup):
    with Fresh(first) as other:
        staged = stage(other, backup, "child", "c")
        listed = sorted(os.listdir(other / staged))
        here, state = os.open(other / staged, os.O_RDONLY), os.open(other / staged / "state.json", os.O_RDONLY)
        (other / staged / "transcript.md").chmod(0o600)
        (other / staged / "transcript.md").write_text("edited: derived anew\n")
        assert (other / staged / "transcript.md").read_text() == "edited: derived anew\n"  # in the kernel's pages
        shown = subprocess.Popen(["sh", "-c", "read x; ls; cat status; cat meta.json; read x; pwd -P; echo in-place confirm=%s > restore; cat status" % active(other)],
                                 cwd=other / staged, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        shown.stdin.write("\n")
        os.rename(other / staged, other / "child")
        shown.stdin.write("\n\n")
        shown.stdin.flush()
        assert sorted(n for n in os.listdir(here) if n != "branches") == sorted(n for n in os.listdir(other / "child") if n != "branches")
        assert os.fstat(here).st_ino == os.stat(other / "child").st_ino
        assert os.pread(state, 1 << 20, 0) == (backup / "child/state.json").read_bytes()
        for file in ("state.json", "transcript.md", "meta.json", "checkpoint.json"):
            assert (other / "child" / file).read_bytes() == (backup / "child" / file).read_bytes(), file
            with open(file, opener=lambda p, f: os.open(p, f, dir_fd=here)) as f:
                assert f.read() == (backup / "child" / file).read_text(), file
        raises(errno.EPERM, os.open, "state.json", os.O_WRONLY, dir_fd=here)
        raises(errno.EPERM, os.open, "new", os.O_WRONLY | os.O_CREAT, dir_fd=here)
        assert (other / "child/meta.json").read_text() and other.write("child/meta.json", '{"run_id": "run/1", "parent": %s, "x": 1}'
                                                                       % json.dumps(json.loads((backup / "child/meta.json").read_text())["parent"])) is None
        out = shown.communicate(timeout=60)[0]
        assert "off-line" in out and out.endswith("waiting (3 calls)\n"), out
        os.close(here), os.close(state)
        assert os.listdir(other / ".import") == [] and listed


def test_a_hundred_in_a_row(m, first, backup, tmp_path):
    """Each by its name at once, also where something was looked up before."""
    with Fresh(first) as other:
        facts = json.loads((backup / "plain/checkpoint.json").read_text())
        for i in range(100):
            name = f"c{i}"
            assert not (other / name).exists()
            facts["id"] = f"ck-{i:020x}"
            shutil.copytree(backup / "plain", other / ".import" / name)
            (other / ".import" / name / "checkpoint.json").unlink()
            (other / ".import" / name / "checkpoint.json").write_text(json.dumps(facts))
            os.rename(other / ".import" / name, other / name)
            assert other.json(f"{name}/checkpoint.json")["id"] == facts["id"] and other.status(name) == "off-line"
            assert not (other / ".import" / name).exists()
        assert len([n for n in os.listdir(other.root) if n[0] == "c"]) == 100 and os.listdir(other / ".import") == []
        other.remount()
        assert len([n for n in os.listdir(other.root) if n[0] == "c"]) == 100


def test_a_large_state(m, first, tmp_path):
    state = json.dumps({"text": "x" * (24 << 20)})
    with Fresh(first) as other:
        os.mkdir(other / ".import/big")
        (other / ".import/big/state.json").write_text(state)
        register_large(other, other / ".import/big", "big")
        assert (other / "big/state.json").stat().st_size == len(state) and other.read("big/state.json") == state

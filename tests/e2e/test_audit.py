"""The audit log (design.md §7.8): who, what, when, with what outcome; sizes exact, numbered without a gap, refusals included."""

import getpass
import json
import os
import socket
import subprocess
import sys
from datetime import datetime

import pytest

from emulator import wait_until
from mount import CALL, Mount, shell

WHO = {"uid", "gid", "user", "pid", "command", "host"}


@pytest.fixture(scope="module")
def m(tmp_path_factory):
    """Its agent does what the file agent.sh of the test says."""
    where = tmp_path_factory.mktemp("agent")
    with Mount(resume='sh agent.sh "$CHECKPOINT_NAME"', cwd=where) as mount:
        mount.where = where
        (where / "agent.sh").write_text("exit 0\n")
        yield mount


def since(m, before):
    return m.events()[before:]


def of(m, name):
    return [e["event"] for e in m.events_of(name)]


def test_each_line_is_json_numbered_and_in_order(m):
    m.take("lines")
    m.echo("lines/restore", "in-place")
    m.echo("lines/restore", "nonsense")
    raw = (m / ".control/events.jsonl").read_bytes()
    assert raw.endswith(b"\n") and b"\n\n" not in raw
    events = [json.loads(line) for line in raw.splitlines()]
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
    times = [datetime.fromisoformat(e["at"].replace("Z", "+00:00")) for e in events]
    assert times == sorted(times)
    assert os.stat(m / ".control/events.jsonl").st_size == len(raw)


def test_a_life_of_a_checkpoint(m):
    m.take("life", meta={"pin": True})
    assert m.echo("life/restore", "in-place") is None
    assert m.echo("life/resume", "reject no") is None
    os.rename(m / "life", m / "life2")
    (m / "life2/meta.json").write_text("{}")
    assert m.echo("life2/replay", "in-place approve") is None
    assert m.echo(".control/prune", "delete life2") is None
    uid = next(e["checkpoint"] for e in m.events() if e.get("name") == "life")
    mine = [e for e in m.events() if e.get("checkpoint") == uid]
    what = [e["event"] for e in mine]
    order = ["checkpoint.requested", "checkpoint.created", "checkpoint.sealed", "approval.requested", "restore.started", "restore.finished",
             "approval.decided", "resume.finished", "checkpoint.renamed", "meta.changed", "restore.started", "restore.finished",
             "approval.decided", "resume.finished", "checkpoint.deleted"]
    at = 0
    for w in order:  # in that order, whatever else there is
        assert w in what[at:], (w, what)
        at = what.index(w, at) + 1
    for e in mine:
        assert set(e["by"]) == WHO
        assert (e["by"]["uid"], e["by"]["user"], e["by"]["pid"], e["by"]["host"]) == (0, getpass.getuser(), os.getpid(), socket.gethostname())
        assert e["by"]["command"] and " ".join(sys.orig_argv).startswith(e["by"]["command"])


def test_a_decision_says_what_was_decided_on(m):
    m.take("decision")
    m.echo("decision/resume", "reject too dangerous")
    [asked] = m.events_of("decision", "approval.requested")
    [decided] = m.events_of("decision", "approval.decided")
    call = m.json(f"decision/pending/{CALL}.json")
    assert asked["calls"][0]["arguments_sha256"] == call["arguments_sha256"]
    text = json.dumps(decided)
    assert CALL in text and "reject" in text and "too dangerous" in text and call["arguments_sha256"] in text
    assert decided["action"] == m.result("decision")["action"]


@pytest.mark.parametrize("who", ["bash", "dash", "python3"])
def test_the_program_that_asked_is_named(m, who):
    m.take(f"by-{who}")
    line = "echo nonsense > restore" if who != "python3" else "open('restore', 'w').write('nonsense')"
    subprocess.run([who, "-c", line], cwd=m / f"by-{who}", capture_output=True)
    by = m.events_of(f"by-{who}", "command.refused")[-1]["by"]
    assert by["command"].split("/")[-1].startswith(who if who != "python3" else "python") and "nonsense" in by["command"]
    assert by == m.result(f"by-{who}")["by"]


def test_no_password_of_a_command_line(m):
    m.take("secret")
    shell("echo nonsense > restore # postgresql://me:hunter2@host/db password=hunter3", cwd=m / "secret")
    line = (m / ".control/events.jsonl").read_text().splitlines()[-1]
    assert "hunter" not in line and "***" in line
    assert "hunter" not in m.read("secret/result")


@pytest.mark.parametrize("path, text, name", [
    ("refusals/restore", "nonsense", "EINVAL"), ("refusals/restore", "two\nlines", "EINVAL"), ("refusals/resume", "approve nobody", "EINVAL"),
    ("refusals/cancel", "cancel", "ESRCH"), (".control/prune", "delete nobody", "ENOENT"), ("refusals/resume", '{"a"}', "EINVAL"),
])
def test_a_refusal_is_told_with_its_reason(m, path, text, name):
    if not (m / "refusals").exists():
        m.take("refusals")
    before = len(m.events())
    assert m.write(path, text) == name
    [e] = since(m, before)
    assert (e["event"], e["errno"]) == ("command.refused", name)
    result = m.json(".control/result" if path.startswith(".") else "refusals/result")
    assert (e["action"], e["message"]) == (result["action"], result["message"]) and e["message"]
    assert e["command"] == result["command"]


def test_an_agent_that_tries_to_decide_is_told_on(m):
    m.take("self")
    (m.where / "agent.sh").write_text('echo approve > "$CHECKPOINT_DIR/resume"; echo "delete self" > "$CHECKPOINT_MOUNT/.control/prune"; exit 0\n')
    assert m.echo("self/resume", "approve") is None
    (m.where / "agent.sh").write_text("exit 0\n")
    refused = [e for e in m.events() if e["event"] == "command.refused"][-2:]
    assert [e["errno"] for e in refused] == ["EPERM", "EPERM"]
    assert refused[0]["name"] == "self" and "agent.sh" in refused[0]["by"]["command"]


@pytest.mark.parametrize("code, event, status", [(0, "resume.finished", "finished"), (3, "resume.failed", "failed resume"),
                                                 (75, "resume.failed", "waiting"), (10, "resume.failed", "failed resume")])
def test_how_an_agent_ended(m, code, event, status):
    name = f"exit-{code}"
    m.take(name)
    (m.where / "agent.sh").write_text(f"exit {code}\n")
    got = m.echo(f"{name}/resume", "approve")
    (m.where / "agent.sh").write_text("exit 0\n")
    last = m.events_of(name)[-1]
    assert last["event"] == event and m.status(name).startswith(status)
    assert last.get("errno") == got
    if code:
        assert last["message"] == m.result(name)["message"]


def test_a_restore_that_fails_and_a_take_that_fails(m):
    m.take("fails")
    m.emulator.fault("POST:/projects/*/snapshots/*/restore=op:error")
    assert m.echo("fails/restore", "in-place") == "EIO"
    last = m.events_of("fails")[-1]
    assert (last["event"], last["errno"]) == ("restore.failed", "EIO") and last["message"] == m.result("fails")["message"]
    m.emulator.fault("POST:/projects/*/branches/*/snapshot=op:error")
    os.mkdir(m / "no-take")
    wait_until(lambda: m.status("no-take").startswith("failed take"))
    last = m.events_of("no-take")[-1]
    assert (last["event"], last["errno"]) == ("checkpoint.failed", "EIO")
    os.rmdir(m / "no-take")
    assert of(m, "no-take")[-1] == "checkpoint.deleted"


def test_cancel_is_told(m):
    m.take("cancelled")
    (m.where / "agent.sh").write_text(": > begun; while :; do sleep 0.05; done\n")
    assert m.echo("cancelled/resume", "nowait approve") is None
    wait_until((m.where / "begun").exists)  # before, no agent is started at all
    assert m.echo("cancelled/cancel", "cancel") is None
    m.wait("cancelled")
    (m.where / "agent.sh").write_text("exit 0\n")
    wait_until(lambda: m.events_of("cancelled", "cancel.finished"))
    events = m.events_of("cancelled")
    assert [e["event"] for e in events if e["event"].startswith("cancel")] == ["cancel.requested", "cancel.finished"]
    assert [e["errno"] for e in events if e["event"] == "resume.failed"] == ["ECANCELED"]


def test_history_is_the_checkpoints_part(m):
    m.take("part")
    m.take("other-part")
    m.echo("part/restore", "in-place")
    m.echo("part/restore", "nonsense")
    uid = m.json("part/checkpoint.json")["id"]
    raw = (m / "part/history.jsonl").read_bytes()
    lines = [line for line in (m / ".control/events.jsonl").read_bytes().splitlines(keepends=True) if json.loads(line).get("checkpoint") == uid]
    assert raw == b"".join(lines)  # the very bytes
    assert os.stat(m / "part/history.jsonl").st_size == len(raw)
    os.rename(m / "part", m / "part-2")
    assert (m / "part-2/history.jsonl").read_bytes().startswith(raw)


def test_sizes_are_exact_while_events_come(m):
    """A reader that was told a size gets at least that, and whole lines."""
    m.take("sizes")
    for i in range(30):
        m.echo("sizes/restore", f"nonsense-{i}")
        for path in (".control/events.jsonl", "sizes/history.jsonl", "sizes/result", "sizes/status"):
            size = os.stat(m / path).st_size
            data = (m / path).read_bytes()
            assert len(data) == size and data.endswith(b"\n"), path
        assert f"nonsense-{i}" in m.read("sizes/result")


def test_actions_are_files_that_last(m):
    m.take("action")
    m.echo("action/restore", "in-place")
    done = m.result("action")["action"]
    text = m.read(f".control/actions/{done}.json")
    m.echo("action/restore", "nonsense")
    assert m.read(f".control/actions/{done}.json") == text
    refused = m.result("action")
    assert refused["action"] != done
    for name in os.listdir(m / ".control/actions"):
        data = (m / f".control/actions/{name}").read_bytes()
        doc = json.loads(data)
        assert doc["action"] == name.removesuffix(".json")
        assert os.stat(m / f".control/actions/{name}").st_size == len(data)
        assert doc["state"] in ("done", "failed", "refused") and set(doc["by"]) == WHO
    assert {e["action"] for e in m.events() if "action" in e} <= {n.removesuffix(".json") for n in os.listdir(m / ".control/actions")}


def test_the_log_is_the_same_after_a_remount_and_nobody_rewrites_it(m):
    before = (m / ".control/events.jsonl").read_bytes()
    inode = os.stat(m / ".control/events.jsonl").st_ino
    m.remount()
    assert (m / ".control/events.jsonl").read_bytes().startswith(before)
    assert os.stat(m / ".control/events.jsonl").st_ino == inode
    for line in ("echo x >> .control/events.jsonl", ": > .control/events.jsonl", "rm -f .control/events.jsonl",
                 "mv .control/events.jsonl .control/e", "truncate -s 0 .control/events.jsonl", "rm -f .control/actions/*"):
        assert shell(line, cwd=m.root).returncode != 0, line
    assert (m / ".control/events.jsonl").read_bytes().startswith(before)

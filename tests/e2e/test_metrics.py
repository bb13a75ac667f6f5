"""`.control/metrics`: Prometheus's text format 0.0.4 as `promtool check metrics` wants it, never listed, true when it is opened, and there
when store and Neon are away (design.md §1)."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from emulator import wait_until
from mount import DEADLINE, Mount, Second
from test_crash import store_postmaster

SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (-?[0-9.]+(?:e[+-]?[0-9]+)?|NaN|[+-]Inf)')
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')
SUFFIXES = {"summary": ("_sum", "_count"), "counter": ("",), "gauge": ("",)}


def parse(text):
    """{family: (type, {labels: value})}, with what the format and promtool's lint ask for asserted. Labels are a frozenset of pairs; a
    summary's sum and count have the label `of`."""
    assert text.endswith("\n") and "\r" not in text
    families, name, help_ = {}, None, None
    for line in text.split("\n")[:-1]:
        if line.startswith("# HELP "):
            _, _, help_, words = line.split(" ", 3)
            assert words.strip() and help_ not in families, "once per family, and the family in one piece"
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == help_ and kind in SUFFIXES, line
            families[name] = kind, {}
        else:
            found = SAMPLE.fullmatch(line)
            assert found, line
            full, labels, value = found.groups()
            kind, samples = families[name]
            suffix = full.removeprefix(name)
            assert full.startswith(name) and suffix in SUFFIXES[kind], f"{line} is not of the family {name}"
            pairs = LABEL.findall(labels or "")
            assert LABEL.sub("", labels or "") == "", line
            pairs = [(k, re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], v)) for k, v in pairs]
            assert len(dict(pairs)) == len(pairs), line
            key = frozenset(pairs + [("of", suffix)] * (kind == "summary"))
            assert key not in samples, f"twice: {line}"
            samples[key] = float(value)
    for name, (kind, samples) in families.items():
        assert name.startswith("checkpointfs_") and name == name.lower() and (kind == "counter") == name.endswith("_total")
        assert not re.search(r"_(count|sum|bucket)$|counter|gauge|_ms$|_bytes_|millis", name), name
        assert kind != "info" and ("_info" not in name or all(v == 1 for v in samples.values()))
    return families


def value(families, name, **labels):
    return families[f"checkpointfs_{name}"][1].get(frozenset(labels.items()))


def metrics(m):
    return parse(m.read(".control/metrics"))


@pytest.fixture(scope="module")
def m(tmp_path_factory):
    where = tmp_path_factory.mktemp("agent")
    with Mount(resume='until [ -e "$AGENTS/go" ]; do sleep 0.02; done', env={"AGENTS": str(where)}) as mount:
        mount.where = where
        yield mount


def test_a_mount_that_nothing_happened_on(m):
    got = metrics(m)
    [(labels, one)] = got["checkpointfs_info"][1].items()
    assert one == 1 and dict(labels)["project"] == m.emulator.project and dict(labels)["version"] in m.read(".control/version")
    assert value(got, "store_up") == value(got, "neon_up") == 1
    assert [value(got, "checkpoints", phase=p) for p in ("taking", "saved", "sealed", "failed")] == [0] * 4
    assert value(got, "audit_head_info", log="events.jsonl", seq="0", hash="0" * 64) == 1


def test_it_is_not_listed_and_can_not_be_written(m):
    assert "metrics" not in os.listdir(m / ".control")
    path = m / ".control/metrics"
    assert path.stat().st_mode == 0o100400
    for command in (["cat", path], ["dd", f"if={path}", "bs=7", "status=none"], ["cp", path, "/dev/stdout"], ["grep", "", path]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0 and parse(done.stdout), command
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
        with pytest.raises(OSError):
            os.open(path, flags)
    with pytest.raises(OSError):
        os.unlink(path)


def test_what_is_counted(m):
    before = metrics(m)
    m.take("one")
    os.mkdir(m / "two")
    m.wait("two")
    got = metrics(m)
    assert value(got, "checkpoints", phase="sealed") == value(before, "checkpoints", phase="sealed") + 1
    assert value(got, "checkpoints", phase="saved") == value(before, "checkpoints", phase="saved") + 1
    assert value(got, "checkpoints_waiting") == len(os.listdir(m / ".pending"))
    assert value(got, "actions_total", kind="take", state="done") == (value(before, "actions_total", kind="take", state="done") or 0) + 2
    assert m.echo("one/restore", "nonsense") == "EINVAL"
    assert m.echo("one/restore", "in-place") is None
    got = metrics(m)
    assert value(got, "actions_total", kind="restore", state="refused") >= 1 and value(got, "actions_total", kind="restore", state="done") >= 1
    assert value(got, "action_duration_seconds", kind="restore", state="done", of="_sum") > 0
    assert value(got, "action_duration_seconds", kind="restore", state="done", of="_count") == \
        value(got, "actions_total", kind="restore", state="done")
    assert value(got, "checkpoints_off_line") >= 1, "two was taken after one"
    m.echo("one/resume", "nowait approve")
    m.wait_status("one", "agent running")
    wait_until(lambda: value(metrics(m), "agents_running") == 1)  # announced first, then started
    with Second(m) as other:
        for where, here in ((m, 1), (other, 0)):
            got = metrics(where)
            assert value(got, "actions_under_way", kind="resume", state="running") == 1, "of the line"
            assert (value(got, "mount_actions"), value(got, "agents_running")) == (here, here), "of the mount"
            assert value(got, "actions_total", kind="resume", state="running") is None
    (m.where / "go").touch()
    assert m.wait("one") == "finished"
    got = wait_until(lambda: (now := metrics(m)) and value(now, "agents_running") == value(now, "mount_actions") == 0 and now)
    assert value(got, "actions_total", kind="resume", state="done") == 1
    assert value(got, "uptime_seconds") > value(before, "uptime_seconds") >= 0


def heads(m):
    return {dict(labels)["log"]: dict(labels) for labels in metrics(m)["checkpointfs_audit_head_info"][1]}


def test_the_heads_are_the_last_lines(m):
    name = 'q"uote \\ n\\n é \u2028'
    m.take(name)
    got = heads(m)
    assert set(got) == {"events.jsonl"} | {f"{n}/history.jsonl" for n in os.listdir(m.root) if n[0] != "." and n != "latest"}
    for log, head in got.items():
        lines = m.read(f".control/{log}" if log == "events.jsonl" else log).split("\n")[:-1]
        last = json.loads(lines[-1])
        assert (head["seq"], head["hash"]) == (str(len(lines)), last["hash"])
        assert head.get("checkpoint") == (None if log == "events.jsonl" else last["checkpoint"])
    with open(m / ".control/metrics") as file:
        first = file.read(10)
        os.rename(m / name, m / "renamed")
        assert parse(first + file.read())["checkpointfs_audit_head_info"], "one open, one version"
    assert m.echo(".control/prune", "delete renamed") is None
    after = heads(m)
    assert "renamed/history.jsonl" not in after and after["events.jsonl"] != got["events.jsonl"]


def test_neon_is_away(m):
    m.take("away")
    m.emulator.fault("*:*=503*inf")
    try:
        m.echo("away/restore", "nowait in-place")
        wait_until(lambda: value(metrics(m), "neon_up") == 0)
    finally:
        m.emulator.control("DELETE", "faults")
    m.wait("away")
    wait_until(lambda: value(metrics(m), "neon_up") == 1)


@pytest.mark.parametrize("how", ["frozen", "killed"])
def test_the_store_is_away(m, how):
    """It tells what memory knows."""
    before = metrics(m)
    frozen = [store_postmaster(m)]
    keepers = [int(Path(f"/proc/{frozen[0]}/stat").read_text().rsplit(")", 1)[1].split()[1])] if how == "killed" else []
    if how == "frozen":
        frozen += map(int, Path(f"/proc/{frozen[0]}/task/{frozen[0]}/children").read_text().split())
    try:
        for pid in keepers:  # so that it isn't started again at once
            os.kill(pid, signal.SIGSTOP)
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP if how == "frozen" else signal.SIGKILL)
        got = wait_until(lambda: (now := metrics(m)) and value(now, "store_up") == 0 and now)  # a killed server's children see it soon
        assert value(got, "checkpoints", phase="sealed") == value(before, "checkpoints", phase="sealed")
        assert "checkpointfs_actions_total" not in got and "checkpointfs_audit_head_info" not in got
    finally:
        for pid in [*keepers, *frozen] if how == "frozen" else keepers:
            os.kill(pid, signal.SIGCONT)
    wait_until(lambda: value(metrics(m), "store_up") == 1, DEADLINE)
    assert value(metrics(m), "actions_total", kind="take", state="done") == value(before, "actions_total", kind="take", state="done")

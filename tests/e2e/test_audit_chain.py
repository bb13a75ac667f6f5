"""The hash chains of the audit log: they hold whatever happened, and scripts/verify-audit finds whatever was done to a copy (design.md
§7.8). tests/e2e/audit.py verifies a mount's log; other tests call it after what they did."""

import hashlib
import io
import json
import os
import random
import subprocess
import threading

import pytest
from audit import SCRIPT, copies, script, verify_audit, wrong_with
from emulator import wait_until
from hypothesis import given, settings, strategies as st
from mount import CALL, DEADLINE, NAMES, Mount, Second

NOTHING = "0" * 64


@pytest.fixture(scope="module")
def m(tmp_path_factory):
    """Its agent does what the file agent.sh says."""
    where = tmp_path_factory.mktemp("agent")
    with Mount(resume="sh agent.sh", cwd=where) as mount:
        mount.where = where
        (where / "agent.sh").write_text("exit 0\n")
        yield mount


# -- it holds


def test_after_every_verb(m):
    seen = [verify_audit(m, last=True)]
    assert seen == [0]

    def holds(said=None):
        assert said is None, said
        m.settled()
        seen.append(verify_audit(m, last=True))
        assert seen[-1] > seen[-2], "and it was told"

    m.take("a", meta={"reason": "naïve “quotes” \\ and \u2028 line separators", "pin": False})
    holds()
    os.mkdir(m / "bare")
    m.wait("bare")
    holds(m.echo("bare/restore", "in-place"))
    holds(m.echo("a/restore", "in-place"))
    holds(m.echo("a/resume", f"reject id={CALL} não, “never”"))
    holds(m.echo("a/replay", "in-place approve"))
    (m.where / "agent.sh").write_text("exit 3\n")
    assert m.echo("a/replay", "in-place approve") == "EIO"
    (m.where / "agent.sh").write_text("exit 0\n")
    holds()
    assert m.write("a/resume", "two\nlines") == "EINVAL"
    holds()
    os.rename(m / "a", m / 'b "quoted" \\ é')
    holds()
    (m / 'b "quoted" \\ é/meta.json').write_text('{"label": "ü"}')
    holds()
    m.take("gone")
    holds(m.echo(".control/prune", "delete gone"))
    m.take("gone")  # the name again, with a history of its own
    holds()
    assert json.loads((m / "gone/history.jsonl").read_text().splitlines()[0])["checkpoint_seq"] == 1


def test_a_line_says_its_place(m):
    m.take("place")
    before = {None: (0, NOTHING)}
    for raw in (m / ".control/events.jsonl").read_bytes().splitlines():
        e = json.loads(raw)
        text, own = raw[:-75] + b"}", raw[-75:]
        assert own == b',"hash":"%s"}' % hashlib.sha256(text).hexdigest().encode()
        assert list(e)[-1] == "hash" and (e["seq"], e["prev"]) == (before[None][0] + 1, before[None][1])
        assert ("checkpoint" in e) == ("checkpoint_seq" in e)
        if "checkpoint" in e:
            n, prev = before.get(e["checkpoint"], (0, NOTHING))
            assert (e["checkpoint_seq"], e["checkpoint_prev"]) == (n + 1, prev)
            before[e["checkpoint"]] = (n + 1, e["hash"])
        before[None] = (e["seq"], e["hash"])


def test_after_a_kill_and_a_take_over(m):
    m.take("killed")
    m.emulator.fault("GET:/projects/*/operations/*=delay:1500")
    assert m.echo("killed/restore", "nowait in-place") is None
    verify_audit(m)
    m.kill()
    m.emulator.control("DELETE", "faults")
    m.mount()
    m.wait("killed")
    verify_audit(m, last=True)
    m.emulator.fault("GET:/projects/*/operations/*=delay:1500")
    assert m.echo("killed/restore", "nowait in-place") is None
    m.kill()
    m.emulator.control("DELETE", "faults")
    with Second(m) as other:
        other.wait("killed")
        assert len(other.events_of("killed", "restore.finished")) == 2
        verify_audit(other, last=True)
    m.mount()
    verify_audit(m, last=True)


def test_eight_writers_on_two_mounts(m):
    m.take("shared")
    with Second(m) as other:
        def write(n):
            mount, rng = (m, other)[n % 2], random.Random(n)
            try:
                for i in range(25):
                    if rng.random() < 0.1:
                        os.mkdir(mount / f"w{n}-{i}")
                    said = f"nonsense {n} {i} “é”"
                    if mount.echo(rng.choice(["shared/restore", "shared/resume", ".control/prune"]), said) == "EINVAL":
                        refused.add(said)  # and not EBUSY, as an open is while another command is answered
            except OSError as e:
                failed.append(NAMES[e.errno])

        failed, refused, threads = [], set(), [threading.Thread(target=write, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            verify_audit(m)
            verify_audit(other)
        for thread in threads:
            thread.join()
        assert not failed
        m.settled()
        assert verify_audit(m, last=True) == verify_audit(other, last=True)
        told = [e["command"] for e in m.events() if "nonsense" in e.get("command", "")]
        assert len(refused) > 40 and refused <= set(told) and len(told) == len(set(told))


# -- what is done to a copy is found: a log with everything in it, as written by the store itself


@pytest.fixture(scope="module")
def log(m):
    """events.jsonl, one history and the metrics, which tell the heads of both."""
    if not (m / "shared").exists():
        m.take("shared")
    while len(m.events_of("shared")) < 12:
        m.echo("shared/restore", "nonsense “é”")
    m.take("last")
    m.settled()
    metrics, logs = copies(m)
    return {"events": logs[".control/events.jsonl"], "history": logs["shared/history.jsonl"], "heads": script.heads_in(metrics)}


def head(data):
    return json.loads(data.splitlines()[-1])["hash"].encode()


def forged(line, **changes):
    """A line with other members, and the hash that it then has."""
    e = json.loads(line) | changes
    place = {k: e.pop(k) for k in ("seq", "prev", "checkpoint_seq", "checkpoint_prev", "hash") if k in e}
    del place["hash"]
    e |= place
    text = json.dumps(e, ensure_ascii=False, separators=(",", ":")).encode()
    return text[:-1] + b',"hash":"%s"}\n' % hashlib.sha256(text).hexdigest().encode()


def chained_anew(lines, kind):
    """What somebody makes who can write the whole copy."""
    number, prev = ("seq", "prev") if kind == "events" else ("checkpoint_seq", "checkpoint_prev")
    out, last = [], NOTHING
    for i, line in enumerate(lines):
        out.append(forged(line, **{number: i + 1, prev: last}))
        last = json.loads(out[-1])["hash"]
    return out


def test_of_each_line_that_is_changed_dropped_repeated_or_moved(log):
    for kind in ("events", "history"):
        lines = log[kind].splitlines(keepends=True)
        wanted = head(log[kind])
        assert len(lines) > 10 and wrong_with(log[kind], kind, head=wanted, last=True) is None
        for i, line in enumerate(lines):
            rest = lines[:i], lines[i + 1:]
            tampered = {
                "dropped": rest[0] + rest[1], "repeated": lines[:i + 1] + lines[i:], "empty": rest[0] + [b"\n"] + rest[1],
                "inserted": lines[:i] + [forged(line, event="forged")] + lines[i:],
                "replaced": rest[0] + [forged(line, event="forged")] + rest[1],
                "without a hash": rest[0] + [line[:-76] + b"}\n"] + rest[1],
                "as from before": rest[0] + [line[:line.rindex(b',"prev"')] + b"}\n"] + rest[1],
                "joined": rest[0] + [line[:-1]] + rest[1], "in two": rest[0] + [line[:50] + b"\n" + line[50:]] + rest[1],
                "to the end": rest[0] + rest[1] + [line], "to the front": [line] + rest[0] + rest[1],
                "swapped": rest[0] + rest[1][:1] + [line] + rest[1][1:], "white space": rest[0] + [line[:-1] + b" \n"] + rest[1],
                "reversed": lines[:i] + lines[i:][::-1],
            }
            for how, copy in tampered.items():
                copy = b"".join(copy)
                if copy == log[kind]:
                    continue
                said = wrong_with(copy, kind, head=wanted)
                assert said, f"line {i + 1} of {kind}: {how}"
                at = lines_in(said)
                # the change shows in that line or in the next one; what comes after it is no longer looked at
                assert not at or min(at) <= i + 2 or how in ("to the end", "reversed"), (how, i, said)
                if at and i < len(lines) - 2 and how != "joined":
                    assert wrong_with(copy, kind), f"{kind} {i + 1} {how}: also without the head"
            for cut in (b"".join(lines[:i]), b"".join(lines[:i + 1])[:-1], b"".join(lines[:i]) + line[:len(line) // 2]):
                assert wrong_with(cut, kind, head=wanted), f"cut at line {i + 1}"
            again = b"".join(chained_anew(rest[0] + rest[1], kind))
            assert wrong_with(again, kind) is None, "whoever writes it anew makes one that holds"
            assert wrong_with(again, kind, head=wanted) and wrong_with(again, kind, heads=log["heads"]), "but not with that head"


def lines_in(said):
    return [int(said.split()[1])] if said.startswith("line ") else []


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_of_any_bytes(log, data):
    """Any change of any bytes, anywhere, is found when the head is known; without it, all but a whole last part that is gone."""
    kind = data.draw(st.sampled_from(["events", "history"]))
    original = log[kind]
    copy = bytearray(original)
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(copy)))
        end = data.draw(st.integers(start, min(len(copy), start + data.draw(st.sampled_from([0, 1, 1, 2, 80, 3000])))))
        put = data.draw(st.one_of(st.binary(max_size=3), st.sampled_from([b"\n", b" ", b"}", b"0", b'"', b'","hash":"', original[start:end]])))
        copy[start:end] = put
    copy = bytes(copy)
    if copy == original:
        assert wrong_with(copy, kind, heads=log["heads"], last=True) is None
        return
    assert wrong_with(copy, kind, heads=log["heads"])
    if not (original.startswith(copy) and copy.endswith(b"\n") or not copy):
        assert wrong_with(copy, kind)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_of_any_other_order(log, data):
    """Lines in any other order, some of them left out or repeated."""
    kind = data.draw(st.sampled_from(["events", "history"]))
    lines = log[kind].splitlines(keepends=True)[:20]
    which = data.draw(st.lists(st.integers(0, len(lines) - 1), min_size=1, max_size=25))
    said = wrong_with(b"".join(lines[i] for i in which), kind, head=head(b"".join(lines)))
    assert (said is None) == (which == list(range(len(lines))))


def test_what_is_wrong_is_said_in_a_line(log):
    lines = log["events"].splitlines(keepends=True)
    changed = lines[:3] + [lines[3].replace(b'"event"', b'"Event"')] + lines[4:]
    for copy, said in ((changed, "line 4 was changed: it says that its hash is "),
                       (lines[:3] + lines[5:], "line 4 comes after 2 lines that are missing: its seq is 6 instead of 4"),
                       (lines[2:], "line 1 comes after 2 lines that are missing: its seq is 3 instead of 1"),
                       (lines[:5] + lines[4:], "line 6 was repeated, inserted or moved: its seq is 5 instead of 6"),
                       (lines[:3] + [forged(lines[3], event="x")] + lines[4:], "line 5 doesn't follow the line before: that one's hash is "),
                       (lines[:3] + [b"{}\n"], "line 4 is no line of an audit log, or its end was changed"),
                       (lines[:4] + [lines[4][:-1]], "line 5 is cut short")):
        got = wrong_with(b"".join(copy), "events.jsonl")
        assert got.startswith(said) and "\n" not in got, got
    [known] = [h for h in log["heads"] if h["log"] == "events.jsonl"]
    assert wrong_with(b"".join(lines[:-1]), "events.jsonl", heads=log["heads"]) == \
        f"the end is missing: it has {len(lines) - 1} lines, and the head is line {known['seq']}"
    assert wrong_with(b"", "events.jsonl", heads=log["heads"])
    more = lines + [forged(lines[-1], seq=len(lines) + 1, prev=head(log["events"]).decode())]
    assert wrong_with(b"".join(more), "events.jsonl", heads=log["heads"]) is None, "what comes later isn't told by an earlier head"
    assert wrong_with(b"".join(more), "events.jsonl", heads=log["heads"], last=True).startswith("something comes after the head")


def test_which_log_it_is_shows_in_what_is_in_it(log):
    def kind_of(data, name="copy.txt"):
        log = script.check(io.BytesIO(data), name)[0]
        return log.kind if log.certain else None

    assert kind_of(log["events"]) == "events" and kind_of(log["history"]) == "history"
    assert wrong_with(log["events"], "history.jsonl.1") and wrong_with(log["history"], "events-2026.jsonl"), "a name that says otherwise"
    assert wrong_with(log["events"], "x", kind="history") and wrong_with(log["history"], "x", kind="events")
    assert kind_of(b"") is None


def test_of_another_checkpoints_history(m, log):
    """Whole, but in the place of this one's: the heads are known by checkpoint."""
    assert wrong_with(log["history"], "elsewhere/history.jsonl", heads=log["heads"], last=True) is None
    others = [h for h in log["heads"] if h.get("log") != "shared/history.jsonl"]
    assert "the metrics know no head" in wrong_with(log["history"], "shared/history.jsonl", heads=others)
    assert wrong_with(b"", "shared/history.jsonl", heads=log["heads"]).startswith("the end is missing: it has 0 lines, and the head is line")


# -- lines from before there were chains


def older(n, events=True):
    return b'{"event":"old","checkpoint":"ck-1","seq":%d}\n' % (n if events else 3 * n)


def upgraded(old, lines, kind):
    """Lines of both times: the first with a hash names the last one without."""
    number, prev = ("seq", "prev") if kind == "events" else ("checkpoint_seq", "checkpoint_prev")
    last, out = hashlib.sha256(old[-1][:-1]).hexdigest(), list(old)
    for line in lines:
        out.append(forged(line, **{number: len(out) + 1, prev: last}))
        last = json.loads(out[-1])["hash"]
    return out


@pytest.mark.parametrize("kind", ["events", "history"])
def test_of_an_older_store(log, kind):
    old = [older(i, kind == "events") for i in range(1, 6)]
    lines = upgraded(old, log[kind].splitlines(keepends=True)[:6], kind)
    whole = b"".join(lines)
    done = subprocess.run([SCRIPT, f"--{kind}", "-"], input=whole, capture_output=True)
    assert done.returncode == 0 and b"11 lines, 5 of them from before there were chains" in done.stdout, done.stdout
    assert wrong_with(b"".join(old), kind) is None
    for i in range(4, 11):  # the last of the old ones is held by the chain
        assert wrong_with(b"".join(lines[:i] + lines[i + 1:]), kind, head=head(whole)), i
    assert wrong_with(b"".join(lines[:4] + [old[4].replace(b"old", b"new")] + lines[5:]), kind)
    assert wrong_with(b"".join(lines + [older(12)]), kind) == "line 12 has no hash, and the line before has one"
    assert wrong_with(b"".join(lines[:2] + lines[1:]), kind)
    if kind == "events":
        assert wrong_with(b"".join(lines[:1] + lines[2:]), kind)


# -- the program


def run(*arguments, **kw):
    return subprocess.run([SCRIPT, *map(str, arguments)], capture_output=True, text=True, timeout=DEADLINE, **kw)


def test_the_program(m, log, tmp_path):
    m.settled()
    (tmp_path / "metrics").write_bytes((m / ".control/metrics").read_bytes())
    files = []
    for path, data in copies(m)[1].items():
        copy = tmp_path / path.replace("/", "-").lstrip(".")
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(data)
        files.append(copy)
    done = run("--metrics", tmp_path / "metrics", "--last", *files)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == len(files) and not done.stderr, done
    assert "the last is the known head" in done.stdout
    done = run(m / ".control/events.jsonl")
    data = (m / ".control/events.jsonl").read_bytes()
    assert done.stdout == f"{m / '.control/events.jsonl'}: events holds, {data.count(10)} lines; head {head(data).decode()}\n"
    assert run("--head", head(data).decode(), files[0]).returncode == 0
    assert "2 lines after the known head" in run("--head", json.loads(data.splitlines()[-3])["hash"], files[0]).stdout
    files[0].write_bytes(data.replace(b'"uid":0', b'"uid":1', 1))
    done = run(*files)
    assert done.returncode == 1 and "line 1 was changed" in done.stdout.splitlines()[0] and len(done.stdout.splitlines()) == len(files)
    for wrong in ([], ["--head", "abc", files[0]], ["--head", NOTHING, *files[:2]], ["--last", files[0]], [tmp_path / "none"], [tmp_path],
                  ["--metrics", tmp_path / "none", files[0]], ["--events", "--history", files[0]]):
        done = run(*wrong)
        assert done.returncode == 2 and done.stderr and "Traceback" not in done.stderr, done
    assert "Copy metrics first" in run("--help").stdout


def test_a_long_log_needs_little_memory(log, tmp_path):
    lines = chained_anew([log["events"].splitlines(keepends=True)[0]] * 3, "events")
    path, last = tmp_path / "events.jsonl", NOTHING
    filler = "é" * 40_000
    with open(path, "wb") as file:
        for i in range(1500):
            line = forged(lines[0], seq=i + 1, prev=last, message=filler)
            last = line[-67:-3].decode()
            file.write(line)
    assert path.stat().st_size > 100_000_000
    done = subprocess.run(["python3", "-c", "import resource, subprocess, sys\nr = subprocess.run(sys.argv[1:]).returncode\n"
                           "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\nsys.exit(r)", SCRIPT, path],
                          capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0 and f"1500 lines; head {last}" in done.stdout, done
    assert int(done.stdout.split()[-1]) < 40_000  # KiB

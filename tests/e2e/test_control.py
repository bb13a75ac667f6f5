"""Control files: what a write means (design.md §2, §3; traps.md 2-4, 6, 7)."""

import contextlib
import errno
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from emulator import wait_until
from mount import CALL, DEADLINE, Mount, shell
from restoring import RESTORE

REJECT = json.dumps({"decisions": [{"id": CALL, "decision": "reject", "message": "no,\nnot this"}]}, indent=2)


@pytest.fixture(scope="module")
def m(tmp_path_factory):
    """Its agent leaves a line in agents.log and the decisions in decisions.json."""
    where = tmp_path_factory.mktemp("agent")
    with Mount(resume=f"echo $CHECKPOINT_NAME >> {where}/agents.log; cat $CHECKPOINT_DECISIONS > {where}/decisions.json") as mount:
        mount.where = where
        yield mount


@pytest.fixture(autouse=True)
def room(m):
    """For another restore."""
    if len(m.emulator.branches()) > 5:
        m.tidy()


@pytest.fixture(scope="module")
def kept(m):
    """A checkpoint that tests restore or send nonsense to, and never resume."""
    return m.take("kept")


def ran(m, name):
    """How often an agent was woken for that checkpoint."""
    log = m.where / "agents.log"
    return log.read_text().splitlines().count(name) if log.exists() else 0


def decided(m):
    return json.loads((m.where / "decisions.json").read_text())["decisions"][0]


def restores(m, name):
    return sum('"restore.started"' in line for line in m.read(f"{name}/history.jsonl").splitlines())


def actions(m):
    return os.listdir(m / ".control/actions")


def opened(m, path):
    return os.open(m / path, os.O_WRONLY)


def refused(call, *args):
    """The name of the errno that it fails with."""
    with pytest.raises(OSError) as e:
        call(*args)
    return errno.errorcode[e.value.errno]


# -- 1: it tells the truth


@pytest.mark.parametrize("line", [
    "bash -c 'echo in-place > restore'",
    "dash -c 'echo in-place > restore'",
    "sh -c 'printf in-place > restore'",
    "bash -c 'echo in-place >> restore'",
    "bash -c 'set -o noclobber; echo in-place >| restore'",
    "echo in-place | tee restore",
    "echo in-place > /tmp/command.$$; cp /tmp/command.$$ restore; s=$?; rm /tmp/command.$$; exit $s",
    "echo in-place | dd of=restore conv=notrunc",
    "cat > restore <<< in-place",
    "python3 -c 'open(\"restore\", \"w\").write(\"in-place\")'",
    "node -e 'require(\"fs\").writeFileSync(\"restore\", \"in-place\\n\")'",
])
def test_a_command_from_any_program_ends_when_the_action_is_done(m, kept, line):
    before, branch = restores(m, kept), m.read(".control/active_branch")
    done = shell(line, cwd=m / kept)
    assert done.returncode == 0, done.stderr
    # At once, without waiting: the write has returned after all of it was recorded.
    assert m.result(kept)["state"] == "done"
    assert m.read(".control/active_branch") != branch
    assert m.read(".control/active_branch").strip() == m.emulator.default_branch()["id"]
    assert restores(m, kept) == before + 1


@pytest.mark.parametrize("line", [
    "bash -c 'echo out-of-place > restore'",
    "dash -c 'echo out-of-place > restore'",
    "echo out-of-place | tee restore",
    "python3 -c 'with open(\"restore\", \"w\") as f: f.write(\"out-of-place\")'",
    "node -e 'require(\"fs\").writeFileSync(\"restore\", \"out-of-place\\n\")'",
])
def test_a_refusal_is_the_exit_status_of_the_write_and_says_what_to_type(m, kept, line):
    before = len(actions(m))
    done = shell(line, cwd=m / kept)
    assert done.returncode != 0
    result = m.result(kept)
    assert (result["state"], result["errno"]) == ("refused", "EINVAL")
    assert 'unknown verb "out-of-place"' in result["message"] and "in-place" in result["message"]
    assert len(actions(m)) == before + 1  # programs that wrote it twice were refused once


def test_bash_names_the_errno(m, kept):
    assert "Invalid argument" in shell("echo nonsense > restore", cwd=m / kept).stderr


def test_noclobber_refuses_before_anything_is_opened(m, kept):
    before = m.read(f"{kept}/history.jsonl")
    assert "cannot overwrite" in shell("set -o noclobber; echo in-place > restore", cwd=m / kept).stderr
    assert m.read(f"{kept}/history.jsonl") == before


def test_result_of_a_done_action(m, kept):
    assert m.echo(f"{kept}/restore", "in-place") is None
    result = m.result(kept)
    assert (result["file"], result["command"], result["name"]) == ("restore", "in-place", kept)
    assert (result["by"]["uid"], result["by"]["pid"]) == (0, os.getpid())
    assert result["started_at"] <= result["ended_at"]
    assert m.json(f".control/actions/{result['action']}.json") == result


# -- grammar


@pytest.mark.parametrize("control, text, says", [
    ("restore", "in-place now", "in-place"),
    ("restore", "again in-place", "again"),
    ("restore", "nowait", "no verb"),
    ("restore", "nowait nowait in-place", "nowait"),
    ("restore", "in-place confirm=", "confirm"),
    ("restore", "approve", "unknown verb"),
    ("restore", "IN-PLACE", "unknown verb"),
    ("restore", "in-place\0", "NUL"),
    ("restore", b"in-place \xff\xfe", "UTF-8"),
    ("restore", "in-\nplace", "several lines"),
    ("resume", "reject id=", "id"),
    ("resume", "answer", "text"),
    ("resume", "answer forty-two", "approv"),
    ("resume", "approve call_other", CALL),
    ("resume", "in-place", "unknown verb"),
    ("replay", "in-place", "decision"),
    ("replay", "approve", "unknown verb"),
    ("cancel", "cancel all", "cancel"),
    ("resume", '{"decisions":"all"}', "decisions"),
    ("resume", '{"decisions":[{"decision":"maybe"}]}', "must be approve"),
    ("resume", '{"decisions":[]}', ""),
    ("restore", '{"verb":"in-place","colour":"red"}', "colour"),
    ("restore", '{"verb":1}', "verb"),
])
def test_what_is_no_command_is_einval_with_the_reason_and_the_verbs(m, kept, control, text, says):
    before = len(actions(m))
    assert m.write(f"{kept}/{control}", text) == "EINVAL"
    result = m.result(kept)
    assert (result["state"], result["errno"], result["file"]) == ("refused", "EINVAL", control)
    assert says in result["message"]
    assert len(actions(m)) == before + 1
    assert ran(m, kept) == 0


def test_the_longest_line(m):
    text = "reject " + "x" * 4088
    m.take("long")
    assert len(text) == 4095
    assert m.write("long/resume", text + "y") == "EINVAL"
    assert "4095" in m.result("long")["message"] and "JSON" in m.result("long")["message"]
    assert m.write("long/resume", text) is None
    assert decided(m)["message"] == "x" * 4088


def test_a_text_that_the_kernel_splits_is_refused_whole(m, kept):
    assert "Invalid argument" in shell("printf 'in-place %5000s' > restore", cwd=m / kept).stderr
    assert m.result(kept)["state"] == "refused"


def test_the_final_newline_and_spaces_do_not_matter(m):
    m.take("spaces")
    assert m.write("spaces/restore", "in-place") is None
    assert m.write("spaces/restore", "  in-place  \n") is None
    assert m.write("spaces/resume", "reject  two  words \n") is None
    assert "two  words" in decided(m)["message"]


# -- nowait


def test_nowait_returns_before_the_action_is_done_and_wait_after(m):
    m.take("later")
    with m.held(RESTORE):
        assert m.echo("later/restore", "nowait in-place") is None
        assert m.result("later")["state"] == "running"
        assert m.result("later")["command"] == "nowait in-place"
        assert m.status("later").startswith("restoring")
    assert m.wait("later") == "waiting (1 call)"
    assert m.result("later")["state"] == "done"


def test_nowait_of_what_is_refused_at_once(m, kept):
    assert m.echo(f"{kept}/restore", "nowait backwards") == "EINVAL"


# -- 2: one open, one command


def test_two_lines_from_bash_are_cut_at_the_first(m, kept):
    before = restores(m, kept)
    done = shell(r"printf 'in-place\nin-place confirm=x\n' > restore", cwd=m / kept)
    assert done.returncode != 0 and "Invalid argument" in done.stderr
    result = m.result(kept)
    assert (result["state"], result["errno"]) == ("refused", "EINVAL")
    assert "cut at its first line; send JSON" in result["message"]
    assert restores(m, kept) == before + 1


def test_two_lines_in_one_write_do_nothing(m, kept):
    before = restores(m, kept)
    assert shell(r"printf 'in-place\nin-place\n' > restore", shell="dash", cwd=m / kept).returncode != 0
    assert "send JSON" in m.result(kept)["message"]
    assert restores(m, kept) == before


def test_json_in_several_writes_with_a_newline_of_its_own(m):
    m.take("json")
    fd = opened(m, "json/resume")
    for i in range(0, len(REJECT), 7):
        assert ran(m, "json") == 0
        os.write(fd, REJECT[i:i + 7].encode())
    assert ran(m, "json") == 1
    os.write(fd, b"\n")
    os.write(fd, b" \t\n")
    os.close(fd)
    assert ran(m, "json") == 1
    assert decided(m)["message"] == "no,\nnot this"
    assert m.result("json")["state"] == "done"
    # The journal has what was sent, in one line.
    assert json.loads(m.result("json")["command"]) == json.loads(REJECT)


def test_json_from_bash(m):
    m.take("bash-json")
    done = shell('{ printf "%s" "$JSON"; echo; } > resume', cwd=m / "bash-json", env=os.environ | {"JSON": REJECT})
    assert done.returncode == 0, done.stderr
    assert ran(m, "bash-json") == 1 and decided(m)["decision"] == "reject"


def test_json_that_is_not_complete_at_close(m, kept):
    fd = opened(m, f"{kept}/resume")
    os.write(fd, b'{"decisions": [')
    os.close(fd)
    wait_until(lambda: "incomplete command" in m.result(kept).get("message", ""))
    assert m.result(kept)["errno"] == "EINVAL"
    assert m.result(kept)["by"]["pid"] == os.getpid()
    assert ran(m, kept) == 0
    assert m.echo(f"{kept}/restore", "in-place") is None


def test_json_that_can_never_become_valid_is_refused_by_that_write(m, kept):
    fd = opened(m, f"{kept}/resume")
    os.write(fd, b'{"decisions": [')
    assert refused(os.write, fd, b'}') == "EINVAL"
    assert "wrong at byte" in m.result(kept)["message"]
    assert refused(os.write, fd, b']}') == "EINVAL"
    os.close(fd)
    assert ran(m, kept) == 0


def test_more_after_complete_json_is_refused(m, kept):
    fd = opened(m, f"{kept}/restore")
    os.write(fd, b'{"verb":"in-place"}')
    assert refused(os.write, fd, b'{"verb":"in-place"} ') == "EINVAL"
    assert "one open, one command" in m.result(kept)["message"]
    os.close(fd)


def test_the_same_bytes_again_get_the_same_answer_and_do_nothing(m, kept):
    before, count = restores(m, kept), len(actions(m))
    fd = opened(m, f"{kept}/restore")
    assert os.write(fd, b"in-place\n") == 9
    assert os.write(fd, b"in-place\n") == 9
    assert refused(os.write, fd, b"in-place  \n") == "EINVAL"
    assert refused(os.write, fd, b"in-place  \n") == "EINVAL"
    assert os.write(fd, b"in-place\n") == 9
    os.close(fd)
    assert restores(m, kept) == before + 1
    assert len(actions(m)) == count + 2  # the restore and one refusal


def test_a_refused_command_is_refused_again_and_journalled_once(m, kept):
    count = len(actions(m))
    for text in (b"nonsense\n", b'{"verb": nonsense}'):
        fd = opened(m, f"{kept}/restore")
        assert [refused(os.write, fd, text) for _ in range(3)] == ["EINVAL"] * 3
        os.close(fd)
    assert len(actions(m)) == count + 2


PYTHON_WRITES = {
    "open().write()": "open(path, 'w').write(text)",
    "with open()": "with open(path, 'w') as f:\n        f.write(text)",
    "write, flush, close": "f = open(path, 'w')\n    try:\n        f.write(text); f.flush()\n    finally:\n        f.close()",
    "write_text": "pathlib.Path(path).write_text(text)",
    "unbuffered": "with open(path, 'wb', buffering=0) as f:\n        f.write(text.encode())",
}


@pytest.mark.parametrize("how", PYTHON_WRITES)
def test_python_that_got_an_error_has_had_one_effect(m, kept, how):
    """A failed small write is sent two or three times on one handle (traps.md 2)."""
    before, count = restores(m, kept), len(actions(m))
    m.emulator.fault("POST:/projects/*/snapshots/*/restore=op:error")
    program = f"import pathlib, sys\npath, text = sys.argv[1:]\ntry:\n    {PYTHON_WRITES[how]}\nexcept OSError as e:\n    sys.exit(str(e.errno))"
    done = subprocess.run([sys.executable, "-c", program, m / f"{kept}/restore", "in-place"], capture_output=True, text=True)
    # An object that is never closed takes the error along: Python 3.11 says nothing then.
    assert done.stderr.splitlines()[-1:] == ([] if how == "open().write()" else [str(errno.EIO)])
    assert m.result(kept)["state"] == "failed"
    assert restores(m, kept) == before + 1
    assert len(actions(m)) == count + 1


def test_node_writing_twice_on_one_handle_has_one_effect(m):
    m.take("node")
    program = """const fs = require('fs'), fd = fs.openSync('resume', 'w');
                 console.log(fs.writeSync(fd, 'reject from node'), fs.writeSync(fd, 'reject from node')); fs.closeSync(fd)"""
    done = subprocess.run(["node", "-e", program], cwd=m / "node", capture_output=True, text=True)
    assert done.stdout.split() == ["16", "16"], done.stderr
    assert ran(m, "node") == 1


def test_a_decided_checkpoint_is_ealready(m):
    m.take("twice")
    assert m.echo("twice/resume", "reject once") is None
    assert m.status("twice") == "finished"
    assert m.echo("twice/resume", "approve") == "EALREADY"
    assert "restore" in m.result("twice")["message"]
    assert (ran(m, "twice"), m.status("twice")) == (1, "finished")


# -- 4: inert to file tools


@pytest.mark.parametrize("line", [
    ": > {f}", "touch {f}", "touch -d 2001-01-01 {f}", "truncate -s 0 {f}", "truncate -s 100 {f}", "chmod 600 {f}", "chmod u+x {f}",
    "chown root:root {f}", "cp -a {empty} {f}", "cp {empty} {f}", "printf '' > {f}", "echo > {f}", "printf '\\n\\n' > {f}", "cat {f}",
    "dd status=none if=/dev/null of={f}", "rsync --inplace -a {empty} {f}", "python3 -c 'import os; os.utime(\"{f}\", (1, 1))'",
    "python3 -c 'open(\"{f}\", \"w\").write(\"\")'", "test ! -s {f}", "exec 3> {f}",
])
def test_what_file_tools_do_to_a_control_file_is_accepted_and_does_nothing(m, kept, line, tmp_path):
    (tmp_path / "empty").touch()
    before = m.read(".control/events.jsonl")
    for name in ("restore", "resume", "replay", "cancel"):
        done = shell(line.format(f=m / kept / name, empty=tmp_path / "empty"))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert os.stat(m / kept / name).st_size == 0
    assert m.read(".control/events.jsonl") == before


def test_a_copied_backup_of_a_checkpoint_is_no_command(m, kept, tmp_path):
    assert shell(f"cp -a {m / kept} {tmp_path}/backup").returncode == 0
    before = m.read(".control/events.jsonl")
    for name in ("restore", "resume", "replay", "cancel"):
        assert shell(f"cp -a {tmp_path}/backup/{name} {m / kept}/{name}").returncode == 0
    assert m.read(".control/events.jsonl") == before
    for name in ("status", "result", "history.jsonl", "meta.json", "checkpoint.json", "snapshot.json", "transcript.md", "state.json"):
        for control in ("restore", "resume", "replay", "cancel"):
            shell(f"cp {tmp_path}/backup/{name} {m / kept}/{control}")
    events = [json.loads(line) for line in m.read(".control/events.jsonl")[len(before):].splitlines()]
    assert {e["event"] for e in events} == {"command.refused"}


def test_reading_a_control_file_gives_nothing(m, kept):
    for path in (f"{kept}/restore", f"{kept}/cancel", ".control/prune"):
        assert m.read(path) == ""
    fd = os.open(m / kept / "restore", os.O_RDWR)
    assert os.write(fd, b"in-place") == 8
    assert os.pread(fd, 100, 0) == b""
    os.close(fd)


# -- 5: busy


def test_a_second_writer_is_ebusy_at_open_while_a_command_is_unanswered(m):
    m.take("busy")
    with m.held(RESTORE):
        first = subprocess.Popen(["bash", "-c", "echo in-place > restore"], cwd=m / "busy")
        m.wait_status("busy", "restoring")
        assert refused(opened, m, "busy/restore") == "EBUSY"
        assert "Device or resource busy" in shell("echo in-place > restore", cwd=m / "busy").stderr
        assert m.read("busy/restore") == ""  # reading is not writing
        assert m.echo("busy/resume", "approve") == "EBUSY"  # another file: the verb is refused by the journal, and says by what
        assert m.result("busy")["errno"] == "EBUSY"
    assert m.wait("busy")
    assert first.wait(DEADLINE) == 0
    assert m.echo("busy/restore", "in-place") is None


def test_an_open_that_overtakes_a_close_without_a_write(m, kept):
    """`: > restore` and the next open: the kernel tells the close by itself, and here it comes later for sure. Where this process or the
    mount stands still too long for that, the second one is busy: those rounds say nothing."""
    through = 0
    for _ in range(100):
        first, begins, got = wait_until(lambda: opens(m, f"{kept}/restore")), threading.Event(), []

        def second():
            begins.set()
            with contextlib.suppress(OSError):
                got.append(opened(m, f"{kept}/restore"))
        thread = threading.Thread(target=second)
        thread.start()
        begins.wait()
        time.sleep(0.01)
        os.close(first)
        thread.join()
        [os.close(fd) for fd in got]
        through += len(got)
        if through == 20:
            break
    assert through == 20


def test_two_opens_at_once_let_one_through(m, kept):
    """A second writer that got through would hang where not even kill reaches it. Two may be open at once if the first has been so, without a
    write, for 5 s, and none is opened while the close of the round before is still to come: those rounds say nothing."""
    rounds = 0
    while rounds < 20:
        wait_until(lambda: not_busy(m, f"{kept}/restore"))  # RELEASE comes after close has returned
        got, start, began = [], threading.Barrier(4), time.monotonic()

        def race():
            start.wait()
            try:
                got.append(opened(m, f"{kept}/restore"))
            except OSError as e:
                assert e.errno == errno.EBUSY
        threads = [threading.Thread(target=race) for _ in range(4)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        took = time.monotonic() - began
        [os.close(fd) for fd in got]
        assert len(got) < 2 or took > IDLE
        rounds += len(got) == 1


IDLE = 5  # s that an open counts without a write


def opens(m, path):
    """Its descriptor; None while it is busy."""
    try:
        return opened(m, path)
    except OSError as e:
        assert e.errno == errno.EBUSY, e
        return None


def not_busy(m, path):
    fd = opens(m, path)
    if fd is not None:
        os.close(fd)
    return fd is not None


def test_an_answered_handle_is_not_busy(m, kept):
    fd = opened(m, f"{kept}/restore")
    os.write(fd, b"in-place")
    assert m.echo(f"{kept}/restore", "in-place") is None
    os.close(fd)
    fd = opened(m, f"{kept}/restore")
    assert refused(os.write, fd, b'{"verb": oh}') == "EINVAL"
    assert m.echo(f"{kept}/restore", "in-place") is None
    os.close(fd)


def test_a_child_that_inherited_the_descriptor_keeps_nothing_busy(m, kept):
    done = shell("exec 3> restore; sleep 60 & echo in-place >&3; exec 3>&-; echo in-place > restore; s=$?; kill $!; exit $s", cwd=m / kept)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_idle_open_counts_only_for_a_while(m, kept):
    """`exec 3> resume` in a shell somebody left open."""
    def busy():
        """Of both; None when that took so long that it says nothing."""
        began = time.monotonic()
        held.append(wait_until(lambda: opens(m, f"{kept}/resume")))
        held.append(wait_until(lambda: opens(m, f"{kept}/replay")))
        os.write(held[-1], b'{"verb":"in-place",')
        got = [opens(m, f"{kept}/resume"), opens(m, f"{kept}/replay")]
        held.extend(fd for fd in got if fd is not None)
        return got if time.monotonic() - began < IDLE else None

    held = []
    assert wait_until(busy) == [None, None]
    wait_until(lambda: not_busy(m, f"{kept}/resume"), DEADLINE, 0.2)
    wait_until(lambda: not_busy(m, f"{kept}/replay"), DEADLINE, 0.2)
    [os.close(fd) for fd in held]


def test_cancel_is_never_busy_and_says_when_there_is_nothing(m, kept):
    fd = opened(m, f"{kept}/cancel")
    assert m.echo(f"{kept}/cancel", "cancel") == "ESRCH"
    assert "no agent is running" in m.result(kept)["message"]
    os.close(fd)


# -- prune


def test_delete_takes_the_snapshot_along(m):
    m.take("gone")
    snapshot = m.json("gone/snapshot.json")["id"]
    assert snapshot in {s["id"] for s in m.emulator.snapshots()}
    assert m.echo(".control/prune", "delete gone") is None
    assert not (m / "gone").exists() and "gone" not in os.listdir(m.root)
    assert snapshot not in {s["id"] for s in m.emulator.snapshots()}
    result = m.json(".control/result")
    assert (result["file"], result["command"], result["state"]) == ("prune", "delete gone", "done")
    assert [e["event"] for e in m.events() if e.get("name") == "gone"][-1] == "checkpoint.deleted"
    m.take("gone")  # the name is free
    assert m.status("gone") == "waiting (1 call)"


def test_delete_of_what_is_not_there(m):
    assert m.echo(".control/prune", "delete nobody") == "ENOENT"
    assert "nobody" in m.json(".control/result")["message"]
    assert m.json(".control/result")["errno"] == "ENOENT"


def test_delete_of_a_pinned_checkpoint(m):
    m.take("pinned", meta={"pin": True})
    assert m.echo(".control/prune", "delete pinned") == "EPERM"
    assert "meta.json" in m.json(".control/result")["message"]
    (m / "pinned/meta.json").write_text('{"pin": false}')
    assert m.echo(".control/prune", "delete pinned") is None
    assert not (m / "pinned").exists()


def test_delete_of_a_busy_checkpoint(m):
    m.take("in-use")
    with m.held(RESTORE):
        assert m.echo("in-use/restore", "nowait in-place") is None
        assert m.echo(".control/prune", "delete in-use") == "EBUSY"
        assert "restore" in m.json(".control/result")["message"]
    assert m.wait("in-use")
    assert m.result("in-use")["state"] == "done"


@pytest.mark.parametrize("text", ["delete", "delete a/b", "keep-last=many", "apply", "delete .hidden", "delete latest"])
def test_what_prune_does_not_take(m, text):
    assert m.echo(".control/prune", text) == "EINVAL"
    assert "delete NAME" in m.json(".control/result")["message"]

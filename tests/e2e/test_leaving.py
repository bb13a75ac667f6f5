"""Leaving is orderly (design.md §7.9; traps.md 5): who waits is answered, agents end, the program exits 0, nothing is left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from emulator import wait_until
from mount import BINARY, DEADLINE, Mount, Second, shell
from restoring import RESTORE, SNAPSHOT, held, hold
from test_waits import Frozen, waits

AGENT = 'trap "echo $CHECKPOINT_NAME >> ended; exit 1" TERM; echo $CHECKPOINT_NAME >> begun; while :; do sleep 0.05; done'

# Writes, and prints the name of the errno. Python writes again after EINTR, until it gets something else.
WRITER = """
import errno, os, sys
fd = os.open(sys.argv[1], os.O_WRONLY)
try:
    os.write(fd, sys.argv[2].encode())
    print("written")
except OSError as e:
    print(errno.errorcode[e.errno])
"""


def writer(path, text):
    return subprocess.Popen([sys.executable, "-c", WRITER, path, text], stdout=subprocess.PIPE, text=True)


# Reads once, as C programs do, and prints the name of the errno: Python's own read goes on after EINTR.
READER = """
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
fd = os.open(sys.argv[1], os.O_RDONLY)
n = libc.read(fd, ctypes.create_string_buffer(100), 100)
print("read" if n >= 0 else errno.errorcode[ctypes.get_errno()])
"""


def reader(path):
    return subprocess.Popen([sys.executable, "-c", READER, path], stdout=subprocess.PIPE, text=True)


def said(process):
    return process.communicate(timeout=DEADLINE)[0].strip()


def processes(directory):
    """Those that work in the directory."""
    found = []
    for cwd in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if os.readlink(cwd) == str(directory):
                found.append(int(cwd.parent.name))
        except OSError:
            pass
    return found


def test_sigterm_answers_who_waits_ends_the_agents_and_unmounts(tmp_path):
    with Mount(resume=AGENT, cwd=tmp_path) as m:
        for name in ("agent", "restore", "take"):
            m.take(name)
        agent = writer(m / "agent/resume", "approve")
        wait_until(lambda: (tmp_path / "begun").exists())
        busy = m.echo("restore/restore", "in-place")  # an agent works on that branch
        cats = [subprocess.Popen(["cat", m / "agent/wait"], stdout=subprocess.PIPE) for _ in range(3)]
        hold(m, SNAPSHOT, 2000)
        os.mkdir(m / "slow")
        (m / "slow/meta.json").write_text("{}")
        state = subprocess.Popen(["bash", "-c", "echo '{}' > slow/state.json"], cwd=m.root, stderr=subprocess.PIPE, text=True)
        for p in (agent, state, *cats):
            wait_until(lambda: waits(p.pid))
        assert m.terminate() == 0
        assert busy == "EBUSY"
        # An interrupted system call, and not a connection that was aborted; something else for whoever writes again.
        assert said(agent) == "ESHUTDOWN"
        assert "Interrupted system call" in state.communicate(timeout=DEADLINE)[1]
        [c.wait(DEADLINE) for c in cats]
        assert (tmp_path / "ended").read_text() == "agent\n"
        assert processes(tmp_path) == []
        assert not os.path.ismount(m.root)
        m.emulator.control("DELETE", "faults")
        m.mount()
        # The agent's end is known; the take has gone on, or failed for want of a snapshot and left none behind.
        assert m.status("agent").startswith("failed resume: ") and "unmounted" in m.status("agent")
        m.wait("slow")
        status = m.status("slow")
        assert status.startswith(("saved (database only)", "failed take: the mount ended"))
        wait_until(lambda: len([s for s in m.emulator.snapshots() if s["name"].startswith("slow")]) == status.startswith("saved"))


def test_a_restore_under_way_is_left_to_the_next_mount():
    with Mount() as m:
        m.take("here")
        branch = m.read(".control/active_branch")
        hold(m, RESTORE, 1500)
        w = subprocess.Popen(["bash", "-c", "echo in-place > restore"], cwd=m / "here", stderr=subprocess.PIPE, text=True)
        wait_until(lambda: held(m, RESTORE))
        assert m.terminate() == 0
        assert "Interrupted system call" in w.communicate(timeout=DEADLINE)[1]
        m.emulator.control("DELETE", "faults")
        m.mount()
        assert m.wait("here") == "waiting (1 call)"
        assert m.result("here")["state"] == "done"
        assert m.read(".control/active_branch") != branch
        restored = [b for b in m.emulator.branches() if b["name"].startswith(("here-", "replaced-here"))]
        assert len(restored) <= 2  # asked for once


def left_within(m):
    """The seconds that it takes to leave."""
    began = time.monotonic()
    assert m.terminate() == 0
    return time.monotonic() - began


def test_readers_of_wait_are_answered_and_do_not_delay_the_leaving():
    with Mount() as m:
        m.take("here")
        m.emulator.fault(f"{RESTORE}=delay:20000")
        assert m.echo("here/restore", "nowait in-place") is None
        m.wait_status("here", "restoring 2")
        alone = left_within(m)
        m.mount()
        readers = [reader(m / "here/wait") for _ in range(20)]
        cats = [subprocess.Popen(["cat", m / "here/wait"], stderr=subprocess.PIPE, text=True) for _ in range(5)]
        for p in readers + cats:
            wait_until(lambda: waits(p.pid))
        assert left_within(m) < 3 * alone + 1
        assert [said(r) for r in readers] == ["EINTR"] * 20
        # It reads again after EINTR.
        assert all("transport endpoint shutdown" in c.communicate(timeout=DEADLINE)[1] for c in cats)
        m.emulator.control("DELETE", "faults")
        m.mount()
        assert m.wait("here") == "waiting (1 call)"


def test_fusermount_is_busy_while_an_echo_waits(tmp_path):
    with Mount(resume=AGENT, cwd=tmp_path) as m:
        m.take("a")
        w = writer(m / "a/resume", "approve")
        wait_until(lambda: (tmp_path / "begun").exists() and waits(w.pid))
        done = subprocess.run(["fusermount3", "-u", m.root], capture_output=True, text=True)
        assert done.returncode != 0 and "busy" in done.stderr.lower()
        assert m.status("a").startswith("agent running")
        assert m.echo("a/cancel", "cancel") is None
        assert said(w) == "ECANCELED"
        assert m.unmount() == 0


def test_fusermount_while_an_agent_runs_for_nobody(tmp_path):
    """Nobody waits, so the kernel lets go: the agent is ended all the same."""
    with Mount(resume=AGENT, cwd=tmp_path) as m:
        m.take("a")
        assert m.echo("a/resume", "nowait approve") is None
        wait_until(lambda: (tmp_path / "begun").exists())
        assert m.unmount() == 0
        assert (tmp_path / "ended").read_text() == "a\n"
        assert processes(tmp_path) == []


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGHUP])
def test_ctrl_c_and_a_closed_terminal_do_the_same_under_f(tmp_path, sig):
    with Mount(resume=AGENT, cwd=tmp_path) as m:
        m.take("a")
        w = writer(m / "a/resume", "approve")
        wait_until(lambda: (tmp_path / "begun").exists() and waits(w.pid))
        assert m.terminate(sig) == 0
        assert said(w) == "ESHUTDOWN"
        assert (tmp_path / "ended").read_text() == "a\n"
        assert not os.path.ismount(m.root)


def test_unmounting_lazily_and_two_signals():
    with Mount() as m:
        m.take("a")
        subprocess.run(["fusermount3", "-uz", m.root], check=True)
        assert m.process.wait(DEADLINE) == 0
        m.mount()
        assert m.status("a") == "waiting (1 call)"
        m.process.send_signal(signal.SIGTERM)
        m.process.send_signal(signal.SIGINT)
        assert m.terminate() == 0


def test_a_store_that_does_not_answer_does_not_keep_the_mount(tmp_path):
    with Mount(resume=AGENT, cwd=tmp_path) as m:
        m.take("a")
        m.take("b")
        m.emulator.fault(f"{SNAPSHOT}=delay:500")
        os.mkdir(m / "c")
        w = writer(m / "a/resume", "approve")
        wait_until(lambda: (tmp_path / "begun").exists())
        with Frozen(m):
            readers = [subprocess.Popen(["cat", m / "b/history.jsonl"], stderr=subprocess.DEVNULL) for _ in range(3)]
            m.process.terminate()
            # Unmounted while the store still says nothing; its server is stopped when it can be.
            wait_until(lambda: not os.path.ismount(m.root), DEADLINE)
            assert said(w) == "ESHUTDOWN"
            [r.wait(DEADLINE) for r in readers]
            assert [pid for pid in processes(tmp_path) if pid != m.process.pid] == []
        assert m.process.wait(DEADLINE) == 0
        m.mount()
        assert m.wait("a").startswith(("failed resume", "unknown"))
        m.wait("c")
        assert m.status("c").startswith(("saved (database only)", "failed take: the mount ended"))
        assert m.echo("b/restore", "in-place") is None


def test_a_thread_that_hangs_does_not_keep_the_mount(tmp_path):
    """The file of decisions is to be made in a file system that doesn't answer. Nothing is freed under the thread (which ASan would tell)."""
    config = tmp_path / "ini"
    config.write_text("[resume]\ngrace = 1s\n")
    with Mount() as deaf, Mount(f"--config={config}", resume=AGENT, cwd=tmp_path, env={"TMPDIR": str(deaf.root)}) as m:
        m.take("a")
        deaf.process.send_signal(signal.SIGSTOP)
        try:
            w = writer(m / "a/resume", "approve")
            threads = Path(f"/proc/{m.process.pid}/task")
            wait_until(lambda: any("request_wait_answer" in (t / "stack").read_text() for t in threads.iterdir()))
            m.process.terminate()
            assert m.process.wait(DEADLINE) == 0
            assert said(w) == "ESHUTDOWN"
        finally:
            deaf.process.send_signal(signal.SIGCONT)
        assert "leaving with actions under way" in m.log.read_text()
        m.env = {}
        m.mount()
        assert m.wait("a") == "waiting (1 call)"


def daemon(m):
    """Pids of the programs that serve the mountpoint."""
    found = []
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = cmdline.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0] == str(BINARY).encode() and str(m.root).encode() in words:
            found.append(int(cmdline.parent.name))
    return found


def test_without_f_it_daemonizes_once_the_mount_answers():
    with Mount() as m:
        m.take("a")
        assert m.unmount() == 0
        command = [word for word in m.command() if word != "-f"]
        done = subprocess.run(command, env=m.environ(), capture_output=True, text=True, timeout=DEADLINE, stdin=subprocess.DEVNULL)
        assert (done.returncode, done.stdout) == (0, "")
        assert "no other machine sees these checkpoints" in done.stderr
        assert m.status("a") == "waiting (1 call)"  # without waiting
        [pid] = daemon(m)
        assert os.getsid(pid) == pid and os.readlink(f"/proc/{pid}/cwd") == "/"
        assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1)} == {"/dev/null"}
        assert m.echo("a/restore", "in-place") is None
        assert subprocess.run(["fusermount3", "-u", m.root]).returncode == 0
        wait_until(lambda: not daemon(m))
        subprocess.run(command, env=m.environ(), capture_output=True, timeout=DEADLINE, check=True)
        os.kill(daemon(m)[0], signal.SIGTERM)
        wait_until(lambda: not daemon(m))
        assert not os.path.ismount(m.root)


def test_a_daemon_that_cannot_start_says_why_and_exits_1():
    with Mount() as m:
        m.unmount()
        (m / "something").touch()
        command = [word for word in m.command() if word != "-f"]
        done = subprocess.run(command, env=m.environ(), capture_output=True, text=True, timeout=DEADLINE)
        assert done.returncode == 1 and "not empty" in done.stderr and done.stderr.count("\n") == 1
        (m / "something").unlink()


def test_the_shell_that_started_it_can_end():
    """`checkpointfs …; exit` over ssh: no descriptor of the caller stays open."""
    with Mount() as m:
        m.unmount()
        command = " ".join(word for word in m.command() if word != "-f")
        done = shell(f"{command} 2>&1 | cat; echo over", env=m.environ())
        assert done.stdout.splitlines()[-1] == "over"
        m.read(".control/version")
        os.kill(daemon(m)[0], signal.SIGTERM)
        wait_until(lambda: not daemon(m))


def stop_before_the_agent(m, name):
    """A resume whose mount stops itself right before it starts the agent; an agent has run before, to number the points up to there."""
    m.take("first")
    m.env = {"CHECKPOINTFS_KILL_AT": "stop:0"}  # numbers the points as they are for one that stops, and stops at none
    m.remount()
    at = m.log.stat().st_size
    assert m.echo("first/resume", "approve") is None
    points = [line.partition(": ")[2] for line in m.log.read_text()[at:].splitlines() if "point " in line]
    m.env = {}
    m.remount()
    m.take(name)
    point = next(i for i, what in enumerate(points, 1) if what.endswith("before the agent starts"))
    m.env = {"CHECKPOINTFS_KILL_AT": f"stop:{point}"}
    m.remount()
    process = writer(m / name / "resume", "approve")
    wait_until(lambda: Path(f"/proc/{m.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T", DEADLINE)
    return process


def test_who_cancels_before_the_agent_starts_ends_none(tmp_path):
    """On another mount, while this one is about to start it."""
    ran = tmp_path / "ran"
    with Mount(resume=f"echo ran >> {ran}") as m, Second(m) as other:
        process = stop_before_the_agent(m, "second")
        wait_until(lambda: (other / "second").exists() and other.status("second").startswith("agent"))
        assert other.echo("second/cancel", "cancel") is None
        m.process.send_signal(signal.SIGCONT)
        assert said(process) == "ECANCELED"
        assert ran.read_text() == "ran\n", "only that of the first checkpoint"
        assert m.status("second") == "waiting (1 call)"
        assert m.echo("second/resume", "approve") is None and ran.read_text() == "ran\nran\n"


def test_nobody_wonders_whether_an_agent_ran(tmp_path):
    """The mount leaves between the announcement and the start: it wasn't started, and the decision is free again, or it was ended, unless
    it had come to its end by then."""
    ran = tmp_path / "ran"
    with Mount(resume=f"echo ran >> {ran}") as m:
        process = stop_before_the_agent(m, "second")
        m.process.send_signal(signal.SIGTERM)
        m.process.send_signal(signal.SIGCONT)
        assert m.process.wait(DEADLINE) == 0
        answer = said(process)
        m.env = {}
        m.mount()
        status = m.wait("second")
        if status == "waiting (1 call)":
            assert ran.read_text() == "ran\n"
            assert m.echo("second/resume", "approve") is None and ran.read_text() == "ran\nran\n"
        elif status == "finished":
            assert ran.read_text() == "ran\nran\n"
        else:
            assert status == "failed resume: the agent was ended because the mount was unmounted", m.result("second")
        assert answer in ("EINTR", "ESHUTDOWN") or (answer, status) == ("written", "finished")

"""Leaving is orderly (design.md §7.9; traps.md 5): who waits is answered, agents end, the program exits 0, nothing is left."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from emulator import wait_until
from mount import BINARY, DEADLINE, Mount, shell
from test_waits import Frozen, waits

NEON_RESTORE = "POST:/projects/*/snapshots/*/restore"
NEON_SNAPSHOT = "POST:/projects/*/branches/*/snapshot"
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
        m.emulator.fault(f"{NEON_SNAPSHOT}=delay:2000")
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
        m.emulator.fault(f"{NEON_RESTORE}=delay:1500")
        w = subprocess.Popen(["bash", "-c", "echo in-place > restore"], cwd=m / "here", stderr=subprocess.PIPE, text=True)
        m.wait_status("here", "restoring 2")
        assert m.terminate() == 0
        assert "Interrupted system call" in w.communicate(timeout=DEADLINE)[1]
        m.mount()
        assert m.wait("here") == "waiting (1 call)"
        assert m.result("here")["state"] == "done"
        assert m.read(".control/active_branch") != branch
        restored = [b for b in m.emulator.branches() if b["name"].startswith(("here-", "replaced-here"))]
        assert len(restored) <= 2  # asked for once


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
        m.emulator.fault(f"{NEON_SNAPSHOT}=delay:500")
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

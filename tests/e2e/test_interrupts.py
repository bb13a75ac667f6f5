"""Signals to whoever waits in a write (design.md §3.3; traps.md 1, 2): what ends it, what doesn't, and that the action goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from emulator import wait_until
from mount import DEADLINE, Mount

NEON_RESTORE = "POST:/projects/*/snapshots/*/restore"


@pytest.fixture(scope="module")
def m(tmp_path_factory):
    """Its agent waits for a file that the test makes, so that a write waits as long as the test wants."""
    where = tmp_path_factory.mktemp("agent")
    with Mount(resume='echo $CHECKPOINT_NAME >> agents.log; while [ ! -e "$CHECKPOINT_NAME.go" ]; do sleep 0.02; done', cwd=where) as mount:
        mount.where = where
        yield mount


def ran(m, name):
    return (m.where / "agents.log").read_text().splitlines().count(name)


def go(m, name):
    (m.where / f"{name}.go").touch()


class Waiting:
    """A program that writes to NAME/resume and waits, its agent running."""

    def __init__(self, m, name, *command):
        m.take(name)
        self.m, self.name = m, name
        self.process = subprocess.Popen([str(c) for c in command], cwd=m / name, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE)
        m.wait_status(name, "agent running")
        wait_until(lambda: "request_wait_answer" in self.stack())

    def stack(self):
        return Path(f"/proc/{self.process.pid}/stack").read_text()

    def signal(self, sig):
        self.process.send_signal(sig)

    def pending(self, sig):
        """Whether the signal is still to be delivered: the write hasn't returned."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        mask = sum(int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigPnd:", "ShdPnd:")))
        return bool(mask & 1 << (sig - 1))

    def end(self):
        """Exit status, output and errors, all within the time that a write takes to be interrupted."""
        out, err = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, out, err

    def goes_on(self):
        """The action is under way although nobody waits any more; then lets it end."""
        assert self.m.status(self.name).startswith("agent running")
        assert self.m.result(self.name)["state"] == "running"
        go(self.m, self.name)
        assert self.m.wait(self.name) == "finished"
        assert self.m.result(self.name)["state"] == "done"
        assert ran(self.m, self.name) == 1


ECHO = "echo approve > resume"
SHELLS = ["bash", "dash"]


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
@pytest.mark.parametrize("shell", SHELLS)
def test_a_signal_that_ends_the_shell_ends_its_wait_and_not_the_action(m, shell, sig):
    w = Waiting(m, f"{shell}-{sig.name}", shell, "-c", ECHO)
    w.signal(sig)
    assert w.end()[0] == -sig
    w.goes_on()


def test_a_program_is_told_eintr(m):
    w = Waiting(m, "eintr", sys.executable, "-c", """
import os, signal
class Interrupted(Exception): pass
def handler(*_): raise Interrupted
signal.signal(signal.SIGINT, handler)
fd = os.open("resume", os.O_WRONLY)
try:
    os.write(fd, b"approve")
except Interrupted:
    print("interrupted", flush=True)
print(os.write(fd, b"approve"))""")
    w.signal(signal.SIGINT)
    # The same bytes on that handle wait for the same action.
    assert w.process.stdout.readline() == "interrupted\n"
    wait_until(lambda: "request_wait_answer" in w.stack())
    wait_until(lambda: ran(m, "eintr"))
    go(m, "eintr")
    assert w.end() == (0, "7\n", "")
    assert ran(m, "eintr") == 1 and m.status("eintr") == "finished"


def test_bash_with_a_trap_says_interrupted(m):
    w = Waiting(m, "trap", "bash", "-c", f"trap 'echo trapped' INT; {ECHO}; echo $?")
    w.signal(signal.SIGINT)
    status, out, err = w.end()
    assert (status, out) == (0, "trapped\n1\n") and "Interrupted system call" in err
    w.goes_on()


def test_a_program_that_writes_again_after_each_signal_has_one_effect(m):
    """Python sends the bytes again after EINTR, as often as a signal comes."""
    w = Waiting(m, "alarms", sys.executable, "-c", """
import os, signal, sys
alarms = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
signal.signal(signal.SIGALRM, lambda *_: os.write(alarms, b"x"))
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
with open("resume", "w") as f:
    f.write("approve")
signal.setitimer(signal.ITIMER_REAL, 0)""", m.where / "alarms")
    gone_by = (m.where / "alarms").stat().st_size
    actions = len(os.listdir(m / ".control/actions"))
    wait_until(lambda: (m.where / "alarms").stat().st_size > gone_by + 5)
    go(m, "alarms")
    status, out, err = w.end()
    assert (status, out, err) == (0, "", "")
    assert ran(m, "alarms") == 1 and m.status("alarms") == "finished"
    assert len(os.listdir(m / ".control/actions")) == actions


def test_the_answer_is_kept_for_whoever_writes_again_when_the_action_has_ended(m):
    w = Waiting(m, "late", "bash", "-c", "exec 3> resume; trap 'echo trapped' INT; echo approve >&3; echo $?; read; echo approve >&3; echo $?")
    w.signal(signal.SIGINT)
    assert [w.process.stdout.readline() for _ in range(2)] == ["trapped\n", "1\n"]
    go(m, "late")
    assert m.wait("late") == "finished"
    w.process.stdin.write("\n")
    assert w.end()[1] == "0\n"
    assert ran(m, "late") == 1


def test_other_bytes_after_an_interruption_are_refused(m):
    w = Waiting(m, "other", sys.executable, "-c", """
import os, signal
class Interrupted(Exception): pass
def handler(*_): raise Interrupted
signal.signal(signal.SIGINT, handler)
fd = os.open("resume", os.O_WRONLY)
try:
    os.write(fd, b"approve")
except Interrupted:
    pass
try:
    os.write(fd, b"reject no")
except OSError as e:
    print(e.errno)""")
    w.signal(signal.SIGINT)
    assert w.end() == (0, "22\n", "")
    assert "one open, one command" in m.result("other")["message"]
    go(m, "other")
    assert m.wait("other") == "finished"


# -- signals that end nobody


@pytest.mark.parametrize("shell", SHELLS)
def test_a_child_that_ends_does_not_interrupt(m, shell):
    name = f"child-{shell}"
    end = m.where / f"{name}.end"
    w = Waiting(m, name, shell, "-c", f"while [ ! -e {end} ]; do sleep 0.02; done & {ECHO}; echo $?")
    end.touch()
    wait_until(lambda: w.pending(signal.SIGCHLD))
    go(m, name)
    assert w.end() == (0, "0\n", "")
    assert m.status(name) == "finished" and ran(m, name) == 1


HANDLES = """
import os, signal, sys
def handler(sig, _):
    print(signal.Signals(sig).name, os.path.exists(sys.argv[1]), flush=True)
for s in (signal.SIGWINCH, signal.SIGCONT, signal.SIGCHLD, signal.SIGURG):
    signal.signal(s, handler)
if len(sys.argv) > 2:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
with open("resume", "w") as f:
    f.write("approve")
"""


@pytest.mark.parametrize("sig", [signal.SIGWINCH, signal.SIGCONT, signal.SIGCHLD, signal.SIGURG])
def test_a_signal_that_ends_nobody_is_delivered_when_the_action_is_done(m, sig):
    name = f"harmless-{sig.name}"
    w = Waiting(m, name, sys.executable, "-c", HANDLES, m.where / f"{name}.go")
    w.signal(sig)
    time.sleep(0.1)  # ten looks of the mount
    assert w.pending(sig)
    go(m, name)
    assert w.end() == (0, f"{sig.name} True\n", "")
    assert m.status(name) == "finished" and ran(m, name) == 1


@pytest.mark.parametrize("shell", SHELLS)
def test_stop_and_continue_do_not_interrupt(m, shell):
    name = f"stop-{shell}"
    w = Waiting(m, name, shell, "-c", f"{ECHO}; echo $?")
    w.signal(signal.SIGSTOP)
    time.sleep(0.1)  # ten looks of the mount
    assert w.pending(signal.SIGSTOP)
    w.signal(signal.SIGCONT)
    go(m, name)
    assert w.end() == (0, "0\n", "")
    assert m.status(name) == "finished"


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("before", [signal.SIGWINCH, signal.SIGSTOP])
def test_what_comes_after_a_harmless_signal_still_ends_the_wait(m, before, sig):
    """The kernel sends no second INTERRUPT."""
    name = f"after-{before.name}-{sig.name}"
    w = Waiting(m, name, "bash", "-c", f"trap : WINCH; {ECHO}")
    w.signal(before)
    wait_until(lambda: w.pending(before))
    w.signal(sig)
    if before == signal.SIGSTOP and sig != signal.SIGKILL:
        w.signal(signal.SIGCONT)
    assert w.end()[0] == -sig
    w.goes_on()


def test_blocked_signals_do_not_interrupt(m):
    w = Waiting(m, "blocked", sys.executable, "-c", """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
with open("resume", "w") as f:
    f.write("approve")""")
    w.signal(signal.SIGTERM)
    assert w.pending(signal.SIGTERM)
    go(m, "blocked")
    assert w.end() == (0, "", "")


# -- the same for a restore, for the first write of a state, and for `wait`


def test_an_interrupted_restore_goes_on(m):
    m.take("restore")
    branch = m.read(".control/active_branch")
    with m.held(NEON_RESTORE):
        w = subprocess.Popen(["bash", "-c", "echo in-place > restore"], cwd=m / "restore")
        m.wait_status("restore", "restoring")
        w.send_signal(signal.SIGINT)
        assert w.wait(DEADLINE) == -signal.SIGINT
        assert m.status("restore").startswith("restoring") and m.result("restore")["state"] == "running"
    assert m.wait("restore") == "waiting (1 call)"
    assert m.result("restore")["state"] == "done" and m.read(".control/active_branch") != branch


def test_the_first_write_of_a_state_can_be_killed_and_the_take_goes_on(m):
    with m.held("POST:/projects/*/branches/*/snapshot"):
        os.mkdir(m / "state")
        w = subprocess.Popen(["bash", "-c", "sleep 0.2 & echo '{}' > state/state.json"], cwd=m.root)
        wait_until(lambda: "request_wait_answer" in Path(f"/proc/{w.pid}/stack").read_text())
        w.send_signal(signal.SIGTERM)
        assert w.wait(DEADLINE) == -signal.SIGTERM
    m.wait("state")
    wait_until(lambda: m.status("state") == "saved (database only)")


def test_a_child_that_ends_does_not_interrupt_the_first_write_of_a_state(m):
    m.emulator.fault("POST:/projects/*/branches/*/snapshot=delay:1000")
    w = subprocess.Popen(["bash", "-c", "mkdir chld; sleep 0.2 & echo '{\"a\": 1}' > chld/state.json"], cwd=m.root, stderr=subprocess.PIPE)
    assert (w.wait(DEADLINE), w.stderr.read()) == (0, b"")
    wait_until(lambda: m.status("chld") == "saved")
    assert m.read("chld/state.json") == '{"a": 1}\n'


def test_many_may_wait_and_each_can_be_killed(m):
    w = Waiting(m, "many", "bash", "-c", ECHO)
    cats = [subprocess.Popen(["cat", "wait"], cwd=m / "many", stdout=subprocess.PIPE, text=True) for _ in range(12)]
    for c in cats:
        wait_until(lambda: "request_wait_answer" in Path(f"/proc/{c.pid}/stack").read_text())
    cats[0].send_signal(signal.SIGWINCH)
    for i, sig in enumerate([signal.SIGTERM, signal.SIGINT, signal.SIGKILL]):
        cats[i].send_signal(sig)
        assert cats[i].wait(DEADLINE) == -sig
    assert [c.poll() for c in cats[3:]] == [None] * 9
    go(m, "many")
    assert [c.communicate(timeout=DEADLINE)[0] for c in cats[3:]] == ["finished\n"] * 9
    assert w.end()[0] == 0
    assert m.wait("many") == "finished"

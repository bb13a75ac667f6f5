"""scripts/ckpt-wait: how far an action is, on a terminal and elsewhere, and how it ended."""

import errno
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from fcntl import ioctl

import pytest

from emulator import wait_until
from mount import DEADLINE, ROOT, Mount
from restoring import tidy

SCRIPT = ROOT / "scripts" / "ckpt-wait"
AGENT = '. "$AGENTS/$CHECKPOINT_NAME"'


@pytest.fixture(scope="module")
def m(tmp_path_factory):
    agents = tmp_path_factory.mktemp("agents")
    with Mount(resume=AGENT, env={"AGENTS": str(agents)}) as mount:
        mount.agents_dir = agents
        yield mount


def agent(m, name, script):
    (m.agents_dir / name).write_text(script)
    m.take(name)


class Terminal:
    """ckpt-wait on a pseudo-terminal of `columns`; `text` is what it has drawn."""

    def __init__(self, path, columns=80):
        self.master, slave = pty.openpty()
        ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        env = os.environ | {"TERM": "xterm"}
        env.pop("COLUMNS", None)
        self.process = subprocess.Popen([sys.executable, SCRIPT, path], stdin=slave, stdout=slave, stderr=slave, env=env,
                                        start_new_session=True, preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0))
        os.close(slave)
        self.data = b""
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        while True:
            try:
                more = os.read(self.master, 4096)
            except OSError as e:
                assert e.errno == errno.EIO
                return
            self.data += more

    @property
    def text(self):
        return self.data.decode()

    def shows(self, pattern):
        return wait_until(lambda: re.search(pattern, self.text), DEADLINE)

    def end(self):
        code = self.process.wait(DEADLINE)
        self.reader.join(DEADLINE)
        os.close(self.master)
        return code, self.text

    def lines(self):
        """What stood on the line, each time it was drawn."""
        return [line.removesuffix("\x1b[K") for line in self.text.split("\r") if line]


def plain(path, **kw):
    return subprocess.run([sys.executable, SCRIPT, path], capture_output=True, text=True, timeout=DEADLINE, **kw)


def test_a_running_agent_on_a_terminal(m):
    agent(m, "talks", 'printf "first line\\n\\033[31mred \\007line\\n"; while [ ! -e "$AGENTS/go" ]; do sleep 0.05; done; echo "the last"')
    assert m.echo("talks/resume", "nowait approve") is None
    t = Terminal(m / "talks")
    t.shows(r"agent running on \S+ since \S+  *\[31mred  line")
    (m.agents_dir / "go").touch()
    code, text = t.end()
    assert code == 0 and text.endswith("\r\x1b[Kfinished\r\n") and "\x1b[31m" not in text
    assert re.search(r"[|/\\-] \d+:\d\d agent running on ", text)


def test_it_never_takes_more_than_a_line(m):
    agent(m, "wide", 'printf "%0200d 漢字漢字漢字\\n" 1; while [ ! -e "$AGENTS/narrow" ]; do sleep 0.05; done')
    assert m.echo("wide/resume", "nowait approve") is None
    t = Terminal(m / "wide", columns=30)
    t.shows("…")
    (m.agents_dir / "narrow").touch()
    code, _ = t.end()
    assert code == 0 and max(map(len, t.lines())) <= 29


def test_a_restore_shows_its_steps(m):
    m.take("back")
    with m.held("POST:/projects/*/snapshots/*/restore"):
        assert m.echo("back/restore", "nowait in-place") is None
        t = Terminal(m / "back")
        t.shows(r"restoring \d/5")
    code, text = t.end()
    assert code == 0 and re.search(r"\[#+\.+\] restoring \d/5", text) and not text.rstrip().endswith("/5")
    assert text.splitlines()[-1].endswith(m.status("back"))
    tidy(m)


def test_a_failure_and_no_terminal(m):
    agent(m, "fails", 'while [ ! -e "$AGENTS/fail" ]; do sleep 0.05; done; exit 3')
    assert m.echo("fails/resume", "nowait approve") is None
    m.wait_status("fails", "agent running")
    process = subprocess.Popen([sys.executable, SCRIPT, m / "fails"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    first = process.stdout.readline()
    (m.agents_dir / "fail").touch()
    rest, err = process.communicate(timeout=DEADLINE)
    text = (first + rest).decode()
    lines = text.splitlines()
    assert process.returncode == 1 and not err and "\x1b" not in text and "\r" not in text
    assert lines[0].startswith("agent running on ") and lines[-1].startswith("failed resume") and len(lines) == 2
    assert plain(m / "fails").stdout == lines[-1] + "\n", "nothing is under way: at once"


def test_an_agent_that_did_nothing(m):
    """The decision is free again, and the status what it was before."""
    agent(m, "declines", 'while [ ! -e "$AGENTS/decline" ]; do sleep 0.05; done; exit 75')
    assert m.echo("declines/resume", "nowait approve") is None
    process = subprocess.Popen([sys.executable, SCRIPT, m / "declines"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith(("agent is to run", "agent running"))
    (m.agents_dir / "decline").touch()
    out, err = process.communicate(timeout=DEADLINE)
    result = m.result("declines")
    assert out.endswith("waiting (1 call)\n") and result["state"] == "failed"
    assert (process.returncode, err) == (1, f"ckpt-wait: failed: {result['message']}\n")
    assert plain(m / "declines").returncode == 0, "nothing is under way any more"


def test_ctrl_c_leaves_the_action_alone(m):
    agent(m, "goes on", 'while [ ! -e "$AGENTS/on" ]; do sleep 0.05; done')
    assert m.echo("goes on/resume", "nowait approve") is None
    t = Terminal(m / "goes on")
    t.shows("agent running")
    os.write(t.master, b"\x03")
    code, text = t.end()
    assert code == 130 and "goes on" in text and "Traceback" not in text
    process = subprocess.Popen([sys.executable, SCRIPT, m / "goes on"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith(("agent is to run", "agent running"))
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE) == 130
    process.stdout.close()
    assert m.status("goes on").startswith("agent running")
    (m.agents_dir / "on").touch()
    assert m.wait("goes on") == "finished"


def test_nothing_under_way(m):
    m.take("calm")
    done = plain(m / "calm")
    assert (done.returncode, done.stdout, done.stderr) == (0, "waiting (1 call)\n", "")
    code, text = Terminal(m / "calm").end()
    assert code == 0 and text.endswith("waiting (1 call)\r\n")


@pytest.mark.parametrize("words", [[], ["a", "b"], ["--what"], ["/nowhere"], ["/tmp"], [str(SCRIPT)]])
def test_what_is_no_checkpoint(words):
    done = subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and not done.stdout and "Traceback" not in done.stderr


def test_help():
    done = subprocess.run([SCRIPT, "--help"], capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0 and "Usage: ckpt-wait" in done.stdout and not done.stderr


def test_the_mount_goes_away(tmp_path):
    (tmp_path / "agent").write_text("sleep 600")
    with Mount(resume=f". {tmp_path}/agent") as m:
        m.take("left")
        assert m.echo("left/resume", "nowait approve") is None
        process = subprocess.Popen([sys.executable, SCRIPT, m / "left"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout.readline().startswith(("agent is to run", "agent running"))
        m.kill()
        out, err = process.communicate(timeout=DEADLINE)
        assert process.returncode == 2 and "can't be read" in err and "Traceback" not in err, (out, err)

"""A mount whose resume command is a small script of each test's own, and writes that wait in the background."""

import os
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

from emulator import wait_until
from mount import DEADLINE, NAMES, Mount

# What a script may call: `hold` waits until the test lets it go, `child NAME` takes a checkpoint as an agent does.
PRELUDE = """
hold() {
    echo ready > "$AGENTS/$CHECKPOINT_NAME.ready"
    word=
    until [ "$word" ]; do read -r word < "$AGENTS/$CHECKPOINT_NAME.go"; done  # the last writer may not have closed it yet
}
child() {
    mkdir "$CHECKPOINT_NEXT_DIR/$1" &&
    printf '{"parent": "%s"}' "$CHECKPOINT_ID" > "$CHECKPOINT_NEXT_DIR/$1/meta.json" &&
    cat "$CHECKPOINT_STATE" > "$CHECKPOINT_NEXT_DIR/$1/state.json"
}
"""


class Writing(threading.Thread):
    """A write to a control file that waits; `answer()` is the errno's name or None, as of Mount.write."""

    def __init__(self, mount, path, text):
        super().__init__(daemon=True)
        self.mount, self.path, self.text = mount, path, text
        self.start()

    def run(self):
        try:
            self.got = self.mount.echo(self.path, self.text)
        except OSError as e:  # from close, when the mount is gone
            self.got = NAMES[e.errno]

    def answer(self, timeout=DEADLINE):
        self.join(timeout)
        assert not self.is_alive(), f"no answer to `{self.text}` in {self.path}"
        return self.got


class Woken(Mount):
    """The agent of a checkpoint is the script that `agent(NAME, TEXT)` wrote; files go to `scripts`, $AGENTS for the agent."""

    def __init__(self, *options, env=None, **kw):
        self.scripts = Path(tempfile.mkdtemp(prefix="ckpt-agents-"))
        super().__init__(*options, resume='. "$AGENTS/$CHECKPOINT_NAME"', env={"AGENTS": str(self.scripts)} | (env or {}), **kw)

    def close(self):
        try:
            super().close()
        finally:
            shutil.rmtree(self.scripts, ignore_errors=True)

    def agent(self, name, script):
        (self.scripts / name).write_text(PRELUDE + script)

    def waits(self, name, script="exit 0", state=None, meta=None):
        """A checkpoint with an agent of its own, ready to be decided."""
        self.agent(name, script)
        self.take(name, *([state] if state else []), meta=meta)
        return name

    def left(self, name, what):
        """What the agent left in $AGENTS/NAME.what."""
        return (self.scripts / f"{name}.{what}").read_text()

    def bash(self, name, command="approve", file="resume"):
        """The same by a shell, which unlike Python doesn't write again after EINTR."""
        return subprocess.Popen(["bash", "-c", 'echo "$0" > "$1"', command, self.root / name / file], stderr=subprocess.PIPE, text=True)

    # -- agents that hold

    def hold(self, name, script="hold", command="approve", file="resume", **kw):
        """Wakes an agent in the background and returns once it is in `hold`."""
        self.waits(name, script, **kw)
        return self.wake_held(name, command, file)

    def wake_held(self, name, command="approve", file="resume"):
        os.mkfifo(self.scripts / f"{name}.go")
        writing = Writing(self, f"{name}/{file}", command)
        self.ready(name)
        return writing

    def ready(self, name):
        wait_until((self.scripts / f"{name}.ready").exists, DEADLINE)

    def release(self, name, word="go"):
        fd = wait_until(lambda: self._reader(name), DEADLINE)
        os.write(fd, word.encode() + b"\n")
        os.close(fd)

    def _reader(self, name):
        """The agent's fifo, once the agent reads: one that was killed never does."""
        try:
            return os.open(self.scripts / f"{name}.go", os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return None


def alive(pid):
    try:
        return "Z" != Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False

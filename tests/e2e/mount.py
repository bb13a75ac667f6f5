"""A real mount for a test: checkpointfs over a private store and a neon-emulator of its own, with the words people type."""

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

from emulator import BUILD, Emulator, wait_until

BINARY = Path(os.environ.get("CHECKPOINTFS", BUILD / "checkpointfs"))
DEADLINE = 60
NAMES = errno.errorcode | {errno.EOPNOTSUPP: "EOPNOTSUPP"}  # the same number as ENOTSUP
ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "tests" / "data"
STATE = SAMPLES / "py_seed_interrupted.json"
CALL = "call_00000000000000000001"  # the pending call of STATE


class Mount:
    """`root` is the mountpoint. Options go to checkpointfs; `emulator` options to neon-emulator. `with Mount() as m:` unmounts and checks
    that nothing is left behind."""

    def __init__(self, *options, resume=None, env=None, emulator=(), operation_ms=10, local=False, cwd=None, store=None, binary=BINARY):
        self.binary = binary
        self.base = Path(tempfile.mkdtemp(prefix="ckpt-"))
        self.base.chmod(0o755)  # the user postgres has to get in
        self.root = self.base / "mnt"
        self.root.mkdir()
        self.dir = self.base / "dir"
        self.options, self.resume, self.env, self.local, self.cwd = list(options), resume, env or {}, local, cwd
        self.store = store or self.dir  # a connection string, else private
        self.emulator = None if local else Emulator(*emulator, operation_ms=operation_ms)
        self.process = None
        self.log = self.base / "log"

    def __enter__(self):
        try:
            if self.emulator:
                self.emulator.start()
            return self.mount()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *exc):
        try:
            if exc[0] is None:
                self.verify_audit()
            elif self.log.exists():
                print(self.log.read_text()[-4000:])
        finally:
            self.close()

    def verify_audit(self):
        """Whatever a test did, the audit log holds in the end. Where the test has left the mount without its store, or gone, nothing is read."""
        from audit import verify_audit  # which needs this file
        if self.process and self.process.poll() is None:
            with contextlib.suppress(OSError):
                verify_audit(self, most=300)

    # -- the process

    def environ(self):
        env = {k: v for k, v in os.environ.items() if not k.startswith(("NEON_", "PG", "CHECKPOINT")) and k != "DATABASE_URL"}
        reports = f"log_path={self.base}/sanitizer"  # of every process that comes of the mount, if it was built so
        return env | {"ASAN_OPTIONS": reports, "UBSAN_OPTIONS": reports} | (self.emulator.env if self.emulator else {}) | self.env

    def command(self, *more):
        where = f"--local={self.dir}" if self.local else f"--store={self.store}"
        resume = [f"--resume={self.resume}"] if self.resume else []
        return [str(self.binary), "-f", where, *resume, *self.options, *more, str(self.root)]

    def mount(self, *more):
        """Starts it in the foreground and waits until it answers."""
        self.process = subprocess.Popen(self.command(*more), stdin=subprocess.DEVNULL, stdout=open(self.log, "ab"),
                                        stderr=subprocess.STDOUT, env=self.environ(), cwd=self.cwd)
        wait_until(lambda: self.process.poll() is not None or os.path.ismount(self.root), DEADLINE)
        if self.process.poll() is not None:
            raise AssertionError(f"checkpointfs exited {self.process.returncode}: {self.log.read_text()[-2000:]}")
        return self

    def unmount(self):
        """fusermount3 -u, and the exit status of the program."""
        subprocess.run(["fusermount3", "-u", self.root], check=True)
        return self.process.wait(DEADLINE)

    def terminate(self, sig=signal.SIGTERM):
        self.process.send_signal(sig)
        return self.process.wait(DEADLINE)

    def kill(self):
        """kill -9: what is left is a dead mountpoint, which the next mount detaches."""
        self.process.kill()
        try:
            self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            subprocess.run(["umount", "-f", self.root])  # else it, and whoever asked it for something, would hang for good
            raise

    def remount(self, *more):
        self.unmount()
        return self.mount(*more)

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                subprocess.run(["fusermount3", "-uz", self.root])
                raise AssertionError(f"checkpointfs did not leave: {self.log.read_text()[-2000:]}")
        subprocess.run(["fusermount3", "-uzq", self.root], stderr=subprocess.DEVNULL)
        if self.emulator:
            self.emulator.close()
        wait_until(lambda: not self.servers(), DEADLINE)
        reports = [p.read_text(errors="replace") for p in self.base.glob("sanitizer*")]
        shutil.rmtree(self.base, ignore_errors=True)
        assert not reports, reports[0][:6000]

    def servers(self):
        """Processes of this mount's private servers that still run."""
        found = []
        for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if str(self.dir).encode() in cmdline.read_bytes():
                    found.append(int(cmdline.parent.name))
            except OSError:
                pass
        return found

    # -- the tree

    def __truediv__(self, path):
        return self.root / path

    def read(self, path):
        return (self.root / path).read_text()

    def json(self, path):
        return json.loads(self.read(path))

    def status(self, name, lost=False):
        """A machine that kept the mount from its store for three seconds has it say so beside the status, until it hears of it again: `lost`
        is for those who want to see that."""
        end = time.monotonic() + 10
        while ", store lost since " in (said := self.read(f"{name}/status")) and not lost and time.monotonic() < end:
            time.sleep(0.02)
        return said.rstrip("\n")

    def result(self, name):
        return self.json(f"{name}/result")

    def wait(self, name):
        """cat NAME/wait"""
        return self.read(f"{name}/wait").rstrip("\n")

    def wait_status(self, name, wanted, timeout=DEADLINE):
        """Polls until the status begins with `wanted`."""
        return wait_until(lambda: self.status(name) if self.status(name).startswith(wanted) else None, timeout)

    def events(self):
        return [json.loads(line) for line in self.read(".control/events.jsonl").splitlines()]

    def events_of(self, name, what=None):
        return [e for e in self.events() if e.get("name") == name and what in (None, e["event"])]

    def settled(self, names=None):
        """Waits until all sizes have come late and nothing is under way: from then on no file changes by itself."""
        names = names or [n for n in os.listdir(self.root) if n != "latest" and not n.startswith(".")]
        for name in names:
            self.wait(name)
            path = self.root / name / "snapshot.json"
            wait_until(lambda: not path.exists() or json.loads(path.read_text()).get("full_size") is not None, DEADLINE)
            wait_until(lambda: not path.exists() or path.stat().st_size == len(path.read_bytes()))  # the store has it a moment before

    # -- verbs

    def write(self, path, text):
        """One open, one write, one close, as echo does. Returns the name of the errno, or None when it was accepted."""
        data = text.encode() if isinstance(text, str) else text
        try:
            fd = os.open(self.root / path, os.O_WRONLY | os.O_TRUNC)
        except OSError as e:
            return NAMES[e.errno]
        try:
            os.write(fd, data)
        except OSError as e:
            return NAMES[e.errno]
        finally:
            os.close(fd)
        return None

    def echo(self, path, text):
        """The same with a newline."""
        return self.write(path, text + "\n")

    def take(self, name, state=STATE, meta=None):
        """mkdir, meta.json, state.json, and waits for the seal."""
        os.mkdir(self.root / name)
        if meta is not None:
            (self.root / name / "meta.json").write_text(json.dumps(meta))
        data = state.read_bytes() if isinstance(state, Path) else state if isinstance(state, bytes) else state.encode()
        (self.root / name / "state.json").write_bytes(data)
        wait_until(lambda: (self.root / name / "transcript.md").exists(), DEADLINE)
        return name

    # -- the database

    def uri(self):
        return self.read(".control/connection_uri").strip()

    def sql(self, statement):
        """Runs a statement on the active branch; rows as a list of tuples."""
        with psycopg.connect(self.uri(), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def tidy(self):
        """Deletes the branches that restores replaced, as a person in Neon's console does: a project may have only so many."""
        for branch in self.emulator.branches():
            if branch["name"].startswith("replaced-") and not branch["default"]:
                path = f"/projects/{{p}}/branches/{branch['id']}"
                answer = wait_until(lambda: (a := self.emulator.api("DELETE", path)).status != 423 and a)
                self.emulator.settle(answer.json["operations"])

    @contextlib.contextmanager
    def held(self, call):
        """Until the block ends, Neon answers that call by saying that the project is locked, so that the mount asks again and again: what it
        belongs to stays under way for as long as a test needs."""
        self.emulator.fault(f"{call}=423*inf")
        try:
            yield
        finally:
            self.emulator.control("DELETE", "faults")

    def agents(self):
        """Pids of supervisors of this mount's agents."""
        found = []
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            with contextlib.suppress(OSError):  # a thread may end while it is looked at, and so may a child
                for pid in (task / "children").read_text().split():
                    with contextlib.suppress(OSError):
                        if b"checkpointfs-agent" in Path(f"/proc/{pid}/cmdline").read_bytes():
                            found.append(int(pid))
        return found


class Second(Mount):
    """Another mount over the same store and the same Neon."""

    def __init__(self, first, *options, root="mnt2"):
        self.__dict__.update(first.__dict__)
        self.options = [*first.options, *options]
        self.root = self.base / root
        self.root.mkdir(exist_ok=True)
        self.log = self.base / f"log-{root}"
        self.process = None

    def __enter__(self):
        return self.mount()

    def __exit__(self, *exc):
        if exc[0] is not None:
            print(self.log.read_text()[-4000:])
        if self.process.poll() is None:
            self.terminate()
        subprocess.run(["fusermount3", "-uzq", self.root], stderr=subprocess.DEVNULL)


def shell(command, shell="bash", timeout=2 * DEADLINE, **kw):
    """Runs a command line in a shell; returns the finished process with its output as text."""
    return subprocess.run([shell, "-c", command], capture_output=True, text=True, timeout=timeout, **kw)


class Fresh(Mount):
    """A mount over a new, empty store of its own, and the same Neon as `first`."""

    def __init__(self, first, *options, resume=None, env=None):
        super().__init__(*options, resume=resume, env=env, local=True)
        self.local, self.shared = False, first.emulator

    def __enter__(self):
        self.emulator = self.shared
        try:
            return self.mount()
        except BaseException:
            self.close()
            raise

    def environ(self):
        env = super().environ()
        env.pop("NEON_BRANCH_ID")  # the default branch, wherever a restore has put it
        return env

    def close(self):
        self.emulator = None  # it is the other's
        super().close()

"""The private servers of --local=DIR and --store=DIR: they belong to DIR, serve all its mounts, and stop after the last one."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest
from emulator import BUILD, Emulator, wait_until

PROGRAM = BUILD / "checkpointfs"
FOREIGN = ("NEON_", "PG", "CHECKPOINTFS_STORE", "CHECKPOINTFS_CONFIG", "DATABASE_URL")


def environment(**more):
    """Ours, without what would configure a mount."""
    return {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)} | more


def processes(*words):
    """Command lines of the live processes that hold all the words, by pid."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if command and all(str(word) in command for word in words):
            found[int(entry.name)] = command
    return found


class Place:
    """A directory that PostgreSQL's account can enter, with `local` for the servers, and mountpoints, by name."""

    def __init__(self):
        self.base = Path(tempfile.mkdtemp(prefix="ckpt-local-"))
        self.base.chmod(0o755)
        self.local = self.base / "local"
        self.mountpoints = set()

    def mountpoint(self, name):
        path = self.base / name
        path.mkdir(exist_ok=True)
        self.mountpoints.add(path)
        return path

    def run(self, *options, name="m", env=None, program=PROGRAM, cwd=None):
        reports = f"log_path={self.base}/sanitizer"  # of the mount and all that comes of it, if it was built so
        env = {"ASAN_OPTIONS": reports, "UBSAN_OPTIONS": reports} | (env or environment())
        return subprocess.run([program, *options, self.mountpoint(name)], env=env, text=True, timeout=120,
                              stdin=subprocess.DEVNULL, capture_output=True, cwd=cwd)

    def mount(self, *options, name="m", **kwargs):
        done = self.run(*(options or (f"--local={self.local}",)), name=name, **kwargs)
        assert done.returncode == 0, done.stderr
        return self.base / name

    def unmount(self, path):
        subprocess.run(["fusermount3", "-u", path], check=True)

    def mount_pid(self, name):
        return self.pid(PROGRAM.name, self.base / name)

    def pid(self, *words):
        """Of the one process that has all these words, once it is alone: what it starts has its command line at first."""
        wait_until(lambda: len(processes(*words)) == 1)
        (pid,) = processes(*words)
        return pid

    def env(self):
        return json.loads((self.local / "env.json").read_text())

    def servers(self):
        """The keeper, the store's PostgreSQL, neon-emulator and its computes: all name DIR."""
        return {pid: command for pid, command in processes(self.local).items()
                if command.startswith(("checkpointfs-keeper", "neon-emulator", "postgres"))}

    def wait_joined(self, servers):
        """Waits until there are no servers but those that were there, all of them. What they start is another process of their name at first."""
        wait_until(lambda: self.servers().keys() <= servers.keys())
        for kind in ("checkpointfs-keeper", "neon-emulator", "postgres"):
            assert {pid for pid in servers if servers[pid].startswith(kind)} & self.servers().keys(), f"{kind} is another one"

    def wait_stopped(self):
        wait_until(lambda: not self.servers(), timeout=60)

    def close(self):
        for path in self.mountpoints:
            subprocess.run(["fusermount3", "-quz", path], stderr=subprocess.DEVNULL)
        wait_until(lambda: not processes(self.base), timeout=60)
        reports = [p.read_text(errors="replace") for p in self.base.glob("sanitizer*")]
        shutil.rmtree(self.base)
        assert not reports, reports[0]


@pytest.fixture
def place():
    place = Place()
    yield place
    place.close()


def psql(conninfo, sql):
    return subprocess.run(["psql", conninfo, "-XAtqc", sql], check=True, text=True, capture_output=True, env=environment()).stdout


def test_servers_stop_after_the_last_mount(place):
    first = place.mount(name="first")
    servers = place.servers()
    second = place.mount(name="second")
    place.wait_joined(servers)
    place.unmount(first)
    wait_until(lambda: not processes(PROGRAM.name, first))
    place.wait_joined(servers)
    (second / "kept").mkdir()
    place.unmount(second)
    place.wait_stopped()
    assert not (place.local / "env.json").exists()
    again = place.mount(name="first")
    assert "kept" in os.listdir(again)


def test_unmounting_returns_when_servers_are_being_stopped_and_a_new_mount_waits_for_them(place):
    path = place.mount()
    for name in ("one", "two"):
        (path / name).mkdir()
        place.unmount(path)
        path = place.mount()
        assert name in os.listdir(path)


def test_mounts_that_start_at_once_share_one_keeper(place):
    names = ["a", "b", "c"]
    running = [subprocess.Popen([PROGRAM, f"--local={place.local}", place.mountpoint(name)], env=environment(),
                                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
               for name in names]
    for process, name in zip(running, names):
        _, text = process.communicate(timeout=120)
        assert process.returncode == 0, text
    for words in ("checkpointfs-keeper", "neon-emulator --data"):  # one that came second may still be on its way out
        wait_until(lambda: len(processes(words, place.local)) == 1)


def test_killed_mount_takes_its_servers_along(place):
    path = place.mount()
    (path / "kept").mkdir()
    os.kill(place.mount_pid("m"), signal.SIGKILL)
    place.wait_stopped()
    subprocess.run(["fusermount3", "-uz", path], check=True)
    assert "kept" in os.listdir(place.mount())


def test_killed_keeper_is_replaced_and_leaves_nothing(place):
    first = place.mount(name="first")
    keeper = place.pid("checkpointfs-keeper", place.local)
    store = place.env()["store"]
    os.kill(keeper, signal.SIGKILL)
    wait_until(lambda: keeper not in processes("checkpointfs-keeper"))
    (first / "without_keeper").mkdir()
    second = place.mount(name="second")
    assert "without_keeper" in os.listdir(second)
    assert place.env()["store"] == store, "at the same address, so that the first mount finds it again"
    wait_until(lambda: "connected" in subprocess.run(
        ["psql", store, "-XAtqc", "select 'connected'"], text=True, capture_output=True).stdout)
    keeper = place.pid("checkpointfs-keeper", place.local)
    os.kill(keeper, signal.SIGKILL)
    place.unmount(second)
    place.unmount(first)
    place.wait_stopped()


def test_interrupt_at_the_terminal_is_orderly(place):
    """Ctrl-C goes to the whole foreground group: the servers are in sessions of their own (reference/traps.md 22)."""
    path = place.mountpoint("m")
    with subprocess.Popen([PROGRAM, "-f", f"--local={place.local}", path], env=environment(), stdin=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        wait_until(lambda: os.path.ismount(path), timeout=60)
        (path / "kept").mkdir()
        os.killpg(process.pid, signal.SIGINT)
        _, text = process.communicate(timeout=60)
    assert process.returncode == 0, text
    assert not os.path.ismount(path)
    place.wait_stopped()
    log = (place.local / "store.log").read_text()
    assert "database system was interrupted" not in log
    assert "kept" in os.listdir(place.mount())


def test_secrets_stay_inside(place):
    place.mount()
    env = place.env()
    for name in ("env.json", "store.json", "keeper.log", "store.log", "neon.log"):
        assert (place.local / name).stat().st_mode & 0o077 == 0, name
    password = psql(env["store_owner"], "select current_user").strip() and env["store"].rpartition("password=")[2]
    for command in processes().values():
        assert env["NEON_API_KEY"] not in command
        assert password not in command
    logs = "".join((place.local / name).read_text() for name in ("keeper.log", "store.log", "neon.log"))
    assert env["NEON_API_KEY"] not in logs
    assert password not in logs


def test_store_is_private(place):
    """Only who knows the password gets in, and the mount's role owns nothing."""
    place.mount()
    env = place.env()
    host = env["store"].split()[0]
    refused = subprocess.run(["psql", f"{host} dbname=checkpointfs user=checkpointfs", "-w", "-c", "select 1"], text=True,
                             capture_output=True, env=environment(PGPASSFILE="/dev/null"))
    assert refused.returncode != 0
    assert psql(env["store"], "select count(*) from pg_class where relowner = current_user::regrole") == "0\n"
    assert psql(env["store"], "show listen_addresses") == "\n"


def test_relative_dir(place):
    path = place.mount("--local=local", cwd=place.base)
    assert place.servers()
    place.unmount(path)
    place.wait_stopped()


def test_store_dir_with_neon_elsewhere(place):
    with Emulator() as emulator:
        env = environment(**{k: v for k, v in emulator.env.items() if k.startswith("NEON_")})
        path = place.mountpoint("m")
        done = place.run(f"--store={place.local}", env=env)
        assert done.returncode == 0, done.stderr
        assert "private to this machine" in done.stderr and done.stderr.count("\n") == 1
        assert "NEON_API_HOST" not in place.env()
        assert not processes("neon-emulator", place.local)
        refused = place.run(f"--local={place.local}", name="other")
        assert refused.returncode == 1
        assert "unmount" in refused.stderr
        place.unmount(path)
        place.wait_stopped()


def assert_refused(done, *words):
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert str(word) in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root drops to another account")
def test_dir_that_postgres_cannot_enter(place):
    private = place.base / "private"
    private.mkdir(mode=0o700)
    assert_refused(place.run(f"--local={private / 'data'}"), private)
    assert not processes(private)


def test_another_major_is_asked_for_by_package(place):
    path = place.mount()
    place.unmount(path)
    place.wait_stopped()
    version = place.local / "store/data/PG_VERSION"
    remembered = version.read_text()
    version.write_text("13\n")
    assert_refused(place.run(f"--local={place.local}"), "postgresql-13", place.local)
    version.write_text(remembered)
    place.mount()


def test_missing_emulator(place):
    lonely = place.base / "checkpointfs"
    shutil.copy(PROGRAM, lonely)
    done = place.run(f"--local={place.local}", program=lonely, env=environment(PATH="/usr/bin:/bin"))
    assert_refused(done, "neon-emulator")

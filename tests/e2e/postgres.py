"""A plain PostgreSQL server of a test's own, as somebody's metadata store: reached by TCP with passwords."""

import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import psycopg

from emulator import BUILD, scratch, wait_until

SUPERUSER, PASSWORD = "admin", "store-owner-pw-7Kd2"


def end_with_the_test():
    """In the child: PR_SET_PDEATHSIG, so that a test run that is killed leaves no server."""
    ctypes.CDLL(None).prctl(1, signal.SIGINT)


def programs():
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: float(p.parts[-3]))
    return found[-1].parent if found else Path(shutil.which("initdb")).parent


def free_port():
    """Outside ip_local_port_range: a client that tries again while the server is down would else, by chance, connect to itself from the very
    port, and keep the server from coming back."""
    while True:
        port = random.SystemRandom().randrange(20000, 32000)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Postgres:
    """`conninfo()` is the superuser's, `conninfo(database, user, password)` anybody's."""

    def __init__(self):
        self.base = Path(tempfile.mkdtemp(prefix="ckpt-pg-", dir=scratch()))
        self.data = self.base / "data"
        self.log = self.base / "log"
        self.process = None
        self.port = free_port()
        self.account = {} if os.geteuid() else {"user": "postgres", "group": "postgres", "extra_groups": []}

    def __enter__(self):
        if self.account:
            shutil.chown(self.base, "postgres", "postgres")
        password = self.base / "pw"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        subprocess.run([programs() / "initdb", "-D", self.data, "-U", SUPERUSER, "-A", "scram-sha-256", f"--pwfile={password}",
                        "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"], check=True, stdout=subprocess.DEVNULL, cwd="/", **self.account)
        self.port = free_port()  # another test may have taken the first one meanwhile
        return self.start()

    def __exit__(self, *exc):
        self.stop()
        shutil.rmtree(self.base, ignore_errors=True)

    def start(self):
        self.process = subprocess.Popen(
            [programs() / "postgres", "-D", self.data, "-p", str(self.port), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off",
             "-c", "unix_socket_directories="], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=open(self.log, "ab"), cwd="/",
            start_new_session=True, preexec_fn=end_with_the_test, **self.account)
        wait_until(lambda: self.process.poll() is not None or self.answers())
        assert self.process.poll() is None, f"PostgreSQL ended: {self.log.read_text()[-2000:]}"
        return self

    def processes(self):
        """The server and those it started, each of which leads a group of its own: they work in its directory."""
        found = []
        for cwd in Path("/proc").glob("[0-9]*/cwd"):
            try:
                if os.readlink(cwd) == str(self.data):
                    found.append(int(cwd.parent.name))
            except OSError:
                pass
        return found

    def kill9(self):
        """All of them at once, as when the power fails: one that lived on would keep the next server from its memory, or write to its files."""
        self.process.kill()
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()
        wait_until(lambda: not self.processes())

    def answers(self):
        try:
            psycopg.connect(self.conninfo(), connect_timeout=60).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)  # fast: clients are cut off
            self.process.wait(60)

    def conninfo(self, database="postgres", user=SUPERUSER, password=PASSWORD):
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def psql(self, statement, conninfo=None):
        env = {k: v for k, v in os.environ.items() if not k.startswith("PG")} | {"PGCONNECT_TIMEOUT": "60"}
        return subprocess.run(["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement, conninfo or self.conninfo()], env=env,
                              capture_output=True, text=True)

    def sql(self, statement, conninfo=None):
        done = self.psql(statement, conninfo)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def database(self, name, encoding="UTF8"):
        """A new database with an owner of its own, who can make roles; returns the owner's conninfo."""
        owner = f"{name}_owner"
        locale = "C.UTF-8" if encoding == "UTF8" else "C"
        self.sql(f"CREATE ROLE {owner} LOGIN CREATEROLE PASSWORD '{PASSWORD}'")
        self.sql(f"CREATE DATABASE {name} OWNER {owner} TEMPLATE template0 ENCODING '{encoding}' LOCALE '{locale}'")
        return self.conninfo(name, owner)

    def store(self, name):
        """A migrated store in a database of that name; returns its owner's conninfo, and that of the role a mount uses."""
        owner, role = self.database(name), f"{name}_mount"
        subprocess.run([BUILD / "checkpointfs", "migrate", f"--store={owner}", f"--mount-role={role}"], check=True, capture_output=True)
        self.sql(f"ALTER ROLE {role} PASSWORD '{PASSWORD}'")
        return owner, self.conninfo(name, role)

"""A plain PostgreSQL server of a test's own, as somebody's metadata store: reached by TCP with passwords."""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from emulator import scratch, wait_until

SUPERUSER, PASSWORD = "admin", "store-owner-pw-7Kd2"


def end_with_the_test():
    """In the child: PR_SET_PDEATHSIG, so that a test run that is killed leaves no server."""
    ctypes.CDLL(None).prctl(1, signal.SIGINT)


def programs():
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: float(p.parts[-3]))
    return found[-1].parent if found else Path(shutil.which("initdb")).parent


class Postgres:
    """`conninfo()` is the superuser's, `conninfo(database, user, password)` anybody's."""

    def __init__(self):
        self.base = Path(tempfile.mkdtemp(prefix="ckpt-pg-", dir=scratch()))
        self.data = self.base / "data"
        self.log = self.base / "log"
        self.process = None
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.account = {} if os.geteuid() else {"user": "postgres", "group": "postgres", "extra_groups": []}

    def __enter__(self):
        if self.account:
            shutil.chown(self.base, "postgres", "postgres")
        password = self.base / "pw"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        subprocess.run([programs() / "initdb", "-D", self.data, "-U", SUPERUSER, "-A", "scram-sha-256", f"--pwfile={password}",
                        "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"], check=True, stdout=subprocess.DEVNULL, cwd="/", **self.account)
        return self.start()

    def __exit__(self, *exc):
        self.stop()
        shutil.rmtree(self.base, ignore_errors=True)

    def start(self):
        self.process = subprocess.Popen(
            [programs() / "postgres", "-D", self.data, "-p", str(self.port), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off",
             "-c", "unix_socket_directories="], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=open(self.log, "ab"), cwd="/",
            start_new_session=True, preexec_fn=end_with_the_test, **self.account)
        wait_until(lambda: self.psql("SELECT 1").returncode == 0)
        return self

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)  # fast: clients are cut off
            self.process.wait(30)

    def conninfo(self, database="postgres", user=SUPERUSER, password=PASSWORD):
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def psql(self, statement, conninfo=None):
        env = {k: v for k, v in os.environ.items() if not k.startswith("PG")} | {"PGCONNECT_TIMEOUT": "10"}
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

"""The API key, the database's password and the store's appear in no file but connection_uri, no log, no error, no process list
(design.md §7.7)."""

import os
import subprocess
import urllib.parse
from pathlib import Path

import pytest
from emulator import Emulator, wait_until
from mount import STATE
from postgres import Postgres, programs
from test_local import Place, environment, processes
from test_startup import PROGRAM, migrate

API_KEY = "napi_k3y" + "Zq7" * 12
STORE_PASSWORD = "st0re-pw-Vx81"
TYPED = "typed-pw-Gh55"


class Run:
    """A mount on a store and a Neon whose secrets are known, after everything a day brings."""

    def __init__(self):
        self.place = Place()
        self.neon = Emulator(operation_ms=10, environ={"NEON_API_KEY": API_KEY})
        self.postgres = Postgres()
        self.log = self.place.base / "log"
        self.seen = self.place.base / "seen"

    def __enter__(self):
        self.neon.start()
        self.postgres.__enter__()
        owner = self.postgres.database("secrets")
        assert migrate(owner).returncode == 0
        self.postgres.sql(f"ALTER ROLE checkpointfs PASSWORD '{STORE_PASSWORD}'")
        self.owner = owner
        self.secrets = {
            "the API key": API_KEY, "the store's password": STORE_PASSWORD, "a password on a command line": TYPED,
            "the database's password": urllib.parse.unquote(urllib.parse.urlsplit(self.neon.url).password),
        }
        self.m = self.place.mountpoint("m")
        self.start()
        return self

    def __exit__(self, *exc):
        self.process.terminate()
        self.process.wait(60)
        self.place.close()
        self.neon.close()
        self.postgres.__exit__(*exc)

    def start(self):
        wake = self.place.base / "wake"
        wake.write_text(f'#!/bin/sh\nenv >{self.seen}.env\ncat /proc/[0-9]*/cmdline 2>/dev/null | tr "\\0" " " >{self.seen}.ps\n'
                        f'cp "$CHECKPOINT_DECISIONS" {self.seen}.decisions\nstat -c %a "$CHECKPOINT_DECISIONS"\n')
        wake.chmod(0o755)
        env = environment(NEON_API_KEY=API_KEY, NEON_API_HOST=self.neon.host, NEON_PROJECT_ID=self.neon.project, PGPASSWORD="unused-pw",
                          TMPDIR=str(self.place.base))
        store = self.postgres.conninfo("secrets", "checkpointfs", STORE_PASSWORD)
        self.process = subprocess.Popen([PROGRAM, "-f", f"--store={store}", f"--resume={wake}", self.m], env=env, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=open(self.log, "wb"))
        wait_until(lambda: os.path.ismount(self.m) or self.process.poll() is not None, 60)
        assert self.process.poll() is None, self.log.read_text()

    def write(self, path, text):
        try:
            (self.m / path).write_text(text)
            return True
        except OSError:
            return False

    def take(self, name):
        (self.m / name).mkdir()
        (self.m / name / "state.json").write_bytes(STATE.read_bytes())
        wait_until(lambda: (self.m / name / "transcript.md").exists())

    def a_day(self):
        self.take("one")
        (self.m / "one" / "meta.json").write_text('{"reason": "testing"}')
        assert self.write("one/resume", "approve\n")
        assert self.write("one/restore", "in-place\n")
        assert self.write("one/replay", "in-place reject No.\n")
        assert not self.write("one/resume", "frobnicate\n")
        assert not self.write("one/resume", "approve\n")
        self.neon.fault("POST:/projects/*/snapshots/*/restore=op:failed")
        assert not self.write("one/restore", "in-place\n")
        self.neon.fault("GET:*=drop-before*2")
        self.write("one/restore", "in-place\n")
        self.neon.fault("POST:/projects/*/branches/*/snapshot=op:failed")
        (self.m / "two").mkdir()
        assert not self.write("two/state.json", "{}")
        with pytest.raises(OSError):
            self.take("one")
        typed = f"postgresql://someone:{TYPED}@host/db"
        for words in (["--password", TYPED], ["--api-key", TYPED], [typed], [f"password={TYPED}"], [f"MY_TOKEN={TYPED}"]):
            subprocess.run(["sh", "-c", f"echo bogus 2>/dev/null >{self.m}/one/resume", *words], stderr=subprocess.DEVNULL)
        self.write(".control/prune", "delete two\n")

    def store_moves(self):
        """The store goes and comes back: what is said of it names no password."""
        self.postgres.stop()
        with pytest.raises(OSError):
            (self.m / "three").mkdir()
        self.postgres.start()
        wait_until(lambda: not self.mkdir_fails("three"))

    def mkdir_fails(self, name):
        try:
            (self.m / name).mkdir()
        except OSError:
            return True
        return False


@pytest.fixture(scope="module")
def day():
    with Run() as run:
        run.a_day()
        run.store_moves()
        yield run


def leaks(text, secrets):
    if isinstance(text, str):
        text = text.encode()
    return [what for what, secret in secrets.items() if secret.encode() in text or urllib.parse.quote(secret).encode() in text]


def test_no_file_of_the_mount_but_connection_uri(day):
    uri = (day.m / ".control" / "connection_uri").read_text()
    assert leaks(uri, day.secrets) == ["the database's password"]
    files = [Path(top) / name for top, _, names in os.walk(day.m) for name in names]
    assert len(files) > 40
    assert not any("connection_uri" in str(f) for f in files), "not listed"
    for file in files:
        assert not leaks(file.read_bytes(), day.secrets), file


def test_no_log(day):
    log = day.log.read_text()
    assert log, "something was said"
    assert not leaks(log, day.secrets)


def test_no_process_list(day):
    ours = processes(PROGRAM.name)
    assert any(str(day.m) in command for command in ours.values())
    assert not leaks("\n".join(ours.values()), day.secrets)
    assert str(day.m) in (day.seen.with_suffix(".ps")).read_text()
    assert not leaks(day.seen.with_suffix(".ps").read_text(), {k: v for k, v in day.secrets.items() if k != "a password on a command line"})


def test_no_table_of_the_store(day):
    dump = subprocess.run([programs() / "pg_dump", "-a", "-d", day.owner], capture_output=True, check=True, env=environment()).stdout
    assert b"COPY checkpointfs.actions" in dump and b"COPY checkpointfs.events" in dump
    texts = b"".join(bytes.fromhex(part.decode()) if len(part) % 2 == 0 else part
                     for word in dump.replace(b"\\\\x", b"\0").split(b"\0")[1:]
                     if (part := word.split(b"\t")[0].split(b"\n")[0]) and all(c in b"0123456789abcdef" for c in part))
    assert b"checkpoint.created" in texts, "bytea columns were decoded"
    assert not leaks(dump, day.secrets)
    assert not leaks(texts, day.secrets)


def test_the_agent_gets_a_connection_string_and_no_other_secret(day):
    env = dict(line.split("=", 1) for line in day.seen.with_suffix(".env").read_text().splitlines() if "=" in line)
    assert leaks(env.pop("DATABASE_URL"), day.secrets) == ["the database's password"]
    assert not leaks("\n".join(env.values()), day.secrets)
    assert not any(name.startswith("PG") or name in ("NEON_API_KEY", "CHECKPOINTFS_STORE") for name in env)
    assert "NEON_PROJECT_ID" in env, "the rest is the mount's own"
    assert (day.m / "one" / "output").read_text() == "600\n", "the file of decisions is the user's alone"
    assert not list(day.place.base.glob("checkpointfs-act-*")), "and is gone afterwards"


def test_modes(day):
    for path, mode in {".control/connection_uri": 0o400, "one/state.json": 0o400, "one/transcript.md": 0o400, "one/output": 0o400,
                       "one/resume": 0o600, ".control/prune": 0o600}.items():
        assert os.stat(day.m / path).st_mode & 0o777 == mode, path

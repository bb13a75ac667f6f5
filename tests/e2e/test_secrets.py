"""The API key, the database's password and the store's appear in no file but connection_uri, no log, no error, no process list
(design.md §7.7)."""

import json
import os
import re
import secrets
import subprocess
import urllib.parse
from pathlib import Path

import pytest
from emulator import Emulator, wait_until
from mount import STATE, Mount
from postgres import Postgres, programs
from test_local import Place, environment, processes
from test_startup import PROGRAM, migrate

OURS = secrets.token_hex(4)  # tests that run beside these give others to programs, some of which stand in the list of processes for a moment
API_KEY = "napi_k3y" + "Zq7" * 12 + OURS
STORE_PASSWORD = f"st0re-pw-Vx81{OURS}"
TYPED = f"typed-pw-Gh55{OURS}"
UNUSED = f"unused-pw-Kq29{OURS}"
OF_A_MODEL = f"sk-live-Tm40{OURS}"
OF_A_HOOK = f"hook-pw-Dn71{OURS}"
TWO_WORDS = f"token-Wb16{OURS} of-two-words"
OF_THE_COMMAND = {"a model's key": OF_A_MODEL, "a hook's password": OF_A_HOOK, "a secret with a blank": TWO_WORDS}


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
            "the API key": API_KEY, "the store's password": STORE_PASSWORD, "a password on a command line": TYPED, "PGPASSWORD": UNUSED,
            "the database's password": urllib.parse.unquote(urllib.parse.urlsplit(self.neon.url).password),
        } | OF_THE_COMMAND
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
        words = f"OPENAI_API_KEY={OF_A_MODEL} HOOK=https://u:{OF_A_HOOK}@host ANOTHER_TOKEN='{TWO_WORDS}' {wake}"
        self.mount(wake, self.postgres.conninfo("secrets", "checkpointfs", STORE_PASSWORD), words, PGPASSWORD=UNUSED)

    def mount(self, wake, store, words=None, **more):
        wake.chmod(0o755)
        env = environment(NEON_API_KEY=API_KEY, NEON_API_HOST=self.neon.host, NEON_PROJECT_ID=self.neon.project,
                          TMPDIR=str(self.place.base), **more)
        self.process = subprocess.Popen([PROGRAM, "-f", f"--store={store}", f"--resume={words or wake}", self.m], env=env, stdin=subprocess.DEVNULL,
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
        for words in (["--password", TYPED], ["--api-key", TYPED], [typed], [f"password={TYPED}"], [f"MY_TOKEN={TYPED}"], [*self.secrets.values()][:2],
                      [self.secrets["the database's password"], UNUSED]):
            subprocess.run(["sh", "-c", f"echo bogus 2>/dev/null >{self.m}/one/resume", *words], stderr=subprocess.DEVNULL)
        for line in (f"NEON_API_KEY={API_KEY}", f"OPENAI_API_KEY={OF_A_MODEL}", f'TOKEN="{TWO_WORDS}"', f"HOOK=https://u:{OF_A_HOOK}@host",
                     "x" * (4095 - 10) + f" HOOK=https://u:{OF_A_HOOK}@host", f'{{"OPENAI_API_KEY": "{API_KEY}"}}'):
            assert not self.write("one/resume", line + "\n"), "a .env that was copied onto it"
        assert not self.write("one/resume", "approve " + self.secrets["the database's password"] + "\n")
        assert not self.write("one/resume", f"approve again\nNEON_API_KEY={API_KEY}\n")
        with (self.m / "one/resume").open("wb", buffering=0) as file:
            for line in ("frobnicate\n", "x" * 195 + API_KEY + "\n"):
                with pytest.raises(OSError):
                    file.write(line.encode())
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


def test_what_was_refused_is_quoted_without_secrets(day):
    refused = [event for event in map(json.loads, (day.m / ".control/events.jsonl").read_text().splitlines()) if event["event"] == "command.refused"]
    assert {"NEON_API_KEY=***", "OPENAI_API_KEY=***", "TOKEN=***", "HOOK=https://u:***@host"} <= {event["command"] for event in refused}
    assert 'unknown verb "NEON_API_KEY=***' in " ".join(event["message"] for event in refused)


def test_the_resume_command_is_shown_without_secrets(day):
    shown = (day.m / ".control/config").read_text()
    assert f"resume_command: OPENAI_API_KEY=*** HOOK=https://u:***@host ANOTHER_TOKEN=*** {day.place.base}/wake\n" in shown


def test_no_log(day):
    log = day.log.read_text()
    assert log, "something was said"
    assert not leaks(log, day.secrets)


def test_no_process_list(day):
    ours = processes(PROGRAM.name)
    assert any(str(day.m) in command for command in ours.values())
    assert not leaks("\n".join(ours.values()), day.secrets)
    assert str(day.m) in (day.seen.with_suffix(".ps")).read_text()
    seen = day.seen.with_suffix(".ps").read_text()
    assert leaks(seen, {k: v for k, v in day.secrets.items() if k != "a password on a command line"}) in ([], [*OF_THE_COMMAND]), "sh -c has them"
    assert re.search(r"checkpointfs-agent \d+ \d+ \*+ ", seen) and re.search(r" --resume=\*+ ", seen), "the supervisor and the mount have not"


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
    assert leaks("\n".join(env.values()), day.secrets) == [*OF_THE_COMMAND], "but for what its own command gives it"
    assert not any(name.startswith("PG") or name in ("NEON_API_KEY", "CHECKPOINTFS_STORE") for name in env)
    assert "NEON_PROJECT_ID" in env, "the rest is the mount's own"
    assert (day.m / "one" / "output").read_text() == "600\n", "the file of decisions is the user's alone"
    assert not list(day.place.base.glob("checkpointfs-act-*")), "and is gone afterwards"


def test_modes(day):
    for path, mode in {".control/connection_uri": 0o400, "one/state.json": 0o400, "one/transcript.md": 0o400, "one/output": 0o400,
                       "one/resume": 0o600, ".control/prune": 0o600}.items():
        assert os.stat(day.m / path).st_mode & 0o777 == mode, path


def test_an_agent_that_fails_and_prints_its_connection_string_is_quoted_without_the_password():
    """And without what steers a terminal; `output` is the agent's own."""
    with Mount(resume=r'printf "\302\2331m\342\200\256could not connect to $DATABASE_URL"; exit 3') as m:
        m.take("one")
        password = urllib.parse.urlsplit(m.uri()).password
        assert m.echo("one/resume", "approve") == "EIO"
        for file in ("one/status", "one/result", ".control/events.jsonl"):
            text = m.read(file)
            assert not leaks(text, {"the password": urllib.parse.unquote(password)}), file
            assert not set(text) & {"\x9b", "\u202e"} and "202e" not in text, file
        assert "could not connect to postgres" in m.status("one") and ":***@" in m.status("one")
        assert password in m.read("one/output")


class FromElsewhere(Run):
    """The store's password is in no connection string, and the agent has found it."""

    def start(self):
        wake = self.place.base / "wake"
        wake.write_text(f"#!/bin/sh\necho it is {STORE_PASSWORD}\nexit 3\n")
        self.mount(wake, f"postgresql://checkpointfs@127.0.0.1:{self.postgres.port}/secrets", **self.given())


class FromPassfile(FromElsewhere):
    def given(self):
        file = self.place.base / "passfile"
        file.write_text(f"*:*:*:*:{STORE_PASSWORD}\n")
        file.chmod(0o600)
        return {"PGPASSFILE": str(file)}


class FromEnvironment(FromElsewhere):
    def given(self):
        return {"PGPASSWORD": STORE_PASSWORD}


@pytest.mark.parametrize("run", [FromPassfile, FromEnvironment])
def test_a_password_from_elsewhere(run):
    with run() as run:
        run.take("one")
        subprocess.run(["sh", "-c", f"echo bogus 2>/dev/null >{run.m}/one/resume", STORE_PASSWORD], stderr=subprocess.DEVNULL)
        assert not run.write("one/resume", "approve\n")
        assert "it is ***" in (run.m / "one/result").read_text() and STORE_PASSWORD in (run.m / "one/output").read_text()
        files = [Path(top) / name for top, _, names in os.walk(run.m) for name in names if name != "output"]
        assert [f for f in files if leaks(f.read_bytes(), {"it": STORE_PASSWORD})] == []
        assert not leaks(run.log.read_text(), {"it": STORE_PASSWORD})


def test_the_log_tells_a_decision_without_secrets():
    """The agent gets it as it was written."""
    with Mount(resume='cat "$CHECKPOINT_DECISIONS"') as m:
        m.take("said")
        password = urllib.parse.urlsplit(m.uri()).password
        assert m.echo("said/resume", f"reject never log in with {password}") is None
        assert f"never log in with {password}" in m.read("said/output")
        [told] = m.events_of("said", "approval.decided")
        assert told["decisions"][0]["message"] == "never log in with ***" and told["decisions"][0]["tool"]
        for log in ("said/history.jsonl", ".control/events.jsonl", "said/result"):
            assert password not in m.read(log)
        m.verify_audit()


def test_a_secret_that_is_a_part_of_json_spoils_no_log():
    with Mount(resume='cat "$CHECKPOINT_DECISIONS"', env={"PGPASSWORD": "1"}) as m:
        call = {"id": "c", "tool": "pay", "arguments": {"n": 2}, "allowed": ["edit"]}
        m.take("paid", state='{"own": true}', meta={"pending": [call]})
        decided = {"decisions": [{"id": "c", "decision": "edit", "arguments": {"n": 1}}]}
        assert m.echo("paid/resume", json.dumps(decided)) is None
        assert json.loads(m.read("paid/output"))["decisions"][0]["arguments"] == {"n": 1}
        [told] = m.events_of("paid", "approval.decided")
        assert told["decisions"] == "***"
        m.verify_audit()

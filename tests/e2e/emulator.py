"""One neon-emulator of a test's own: start, stop, kill, restart, and its API in one call each."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import openapi

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("CHECKPOINTFS_BUILD", ROOT / "build"))
BINARY = Path(os.environ.get("NEON_EMULATOR", BUILD / "neon-emulator"))
SETTLED = {"finished", "skipped"}
FAILED = {"failed", "error", "cancelled"}
LOCKED = "project already has running conflicting operations, scheduling of new ones is prohibited"


def scratch():
    """Where test data goes: memory where there is plenty, else /tmp. ext4 makes new files slowly for a minute after many were
    deleted (fs/ext4/ialloc.c, recently_deleted), and tests delete whole clusters all the time."""
    chosen = os.environ.get("CHECKPOINTFS_TEST_TMP")
    if chosen:
        return chosen
    try:
        space = os.statvfs("/dev/shm")
        return "/dev/shm" if space.f_bavail * space.f_frsize > 4 << 30 else "/tmp"
    except OSError:
        return "/tmp"


class Answer:
    """An HTTP answer: status, headers, text, and the JSON in it."""

    def __init__(self, status, headers, text):
        self.status, self.headers, self.text = status, headers, text

    @property
    def json(self):
        return json.loads(self.text)

    @property
    def message(self):
        return self.json["message"]

    def __repr__(self):
        return f"<{self.status} {self.text[:300]}>"


def wait_until(condition, timeout=60.0, interval=0.02):
    """Polls until `condition()` is true and returns what it returned."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not so within {timeout} s: {condition}")
        time.sleep(interval)


class Emulator:
    """`env` holds what the program printed: NEON_API_HOST, NEON_API_KEY, NEON_PROJECT_ID, NEON_BRANCH_ID, DATABASE_URL."""

    def __init__(self, *options, data=None, operation_ms=30, environ=None):
        self.base = Path(data) if data else Path(tempfile.mkdtemp(prefix="ckpt-", dir=scratch()))
        self.own = data is None
        if self.own:
            self.base.chmod(0o755)  # the user postgres has to get in
        self.data = self.base / "neon"
        self.options = [f"--operation-ms={operation_ms}", *options]
        self.environ = environ or {}
        self.process = None
        self.env = {}

    def __enter__(self):
        return self.start()

    def __exit__(self, *exc):
        self.close()

    # -- the process

    def start(self, *more):
        port_file = self.base / "port"
        port_file.unlink(missing_ok=True)
        self.log = open(self.base / "emulator.log", "ab")
        environ = {k: v for k, v in os.environ.items() if not k.startswith("NEON_")} | self.environ
        self.process = subprocess.Popen(
            [BINARY, f"--data={self.data}", f"--port-file={port_file}", *self.options, *more],
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=environ,
            text=True,
        )
        self.env = {}
        for line in self.process.stdout:
            key, _, value = line.strip().partition("=")
            self.env[key] = value.strip("'")
            if key == "DATABASE_URL":
                break
        if "NEON_API_HOST" not in self.env:
            raise AssertionError(f"neon-emulator didn't start ({self.process.wait()}): {self.errors()}")
        return self

    def errors(self):
        return (self.base / "emulator.log").read_text(errors="replace")

    def stop(self):
        """SIGTERM; returns the exit status."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(60)
        self.process.stdout.close()
        self.log.close()
        self.process = None
        return status

    def kill9(self):
        """Ends the emulator alone, as a crash would: its postgres servers go on."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()
        self.process = None

    def restart(self, *more):
        self.stop()
        return self.start(*more)

    def close(self):
        if self.process is None and self.data.exists() and self.postgres_pids():
            self.start()  # after kill9: whoever starts next ends what was left
        status, errors = self.stop(), self.errors()
        if self.own:
            shutil.rmtree(self.base, ignore_errors=True)
        assert status in (0, None), errors

    def postgres_pids(self):
        """The postmasters and their children that work below DIR."""
        return list(self.of_postgres(lambda pid: pid))

    def of_postgres(self, look):
        """What `look(pid)` says of each of them; one that ends meanwhile, as every session does, isn't among them."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if str(self.data) in os.readlink(entry / "cwd") and (entry / "comm").read_text().startswith("postgres"):
                        found[int(entry.name)] = look(int(entry.name))
                except OSError:
                    pass
        return found

    # -- the API

    @property
    def host(self):
        return self.env["NEON_API_HOST"]

    @property
    def key(self):
        return self.env["NEON_API_KEY"]

    @property
    def project(self):
        return self.env["NEON_PROJECT_ID"]

    @property
    def url(self):
        return self.env["DATABASE_URL"]

    def raw(self, method, url, body=None, headers=None, timeout=60, judge=True):
        """One request. Its answer is held against Neon's OpenAPI document, where that is installed."""
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        all_headers = {"Authorization": f"Bearer {self.key}", "Accept": "application/json"}
        if data is not None:
            all_headers["Content-Type"] = "application/json"
        all_headers |= headers or {}
        request = urllib.request.Request(url, data, {k: v for k, v in all_headers.items() if v is not None}, method=method)
        opener = urllib.request.build_opener(NoRedirect, urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=timeout) as response:
                answer = Answer(response.status, response.headers, response.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                answer = Answer(error.code, error.headers, error.read().decode())
        if judge and openapi.document() and url.startswith(self.host):
            openapi.document().check(method, url.removeprefix(self.host), answer.status, answer.text)
        return answer

    def api(self, method, path, body=None, query=None, headers=None, timeout=60, judge=True):
        """`path` begins after /api/v2; {p} in it is the project."""
        url = self.host + path.replace("{p}", self.project)
        if query:
            url += "?" + urllib.parse.urlencode(query)
        return self.raw(method, url, body, headers, timeout, judge)

    def ok(self, method, path, body=None, query=None, settle=True):
        """The JSON of a successful answer, after its operations have settled."""
        answer = self.api(method, path, body, query)
        assert answer.status < 300, answer
        if not answer.text:
            return None
        if settle and answer.json.get("operations"):
            self.settle(answer.json["operations"])
        return answer.json

    def settle(self, operations, timeout=60):
        """Waits for all operations; returns their last states. Fails where one failed."""
        last = self.outcome(operations, timeout)
        assert all(o["status"] in SETTLED for o in last), last
        return last

    def outcome(self, operations, timeout=60):
        last = []
        for operation in operations:
            path = f"/projects/{operation['project_id']}/operations/{operation['id']}"

            def settled():
                got = self.api("GET", path)
                assert got.status == 200, got
                now = got.json["operation"]
                return now if now["status"] in SETTLED | FAILED else None

            last.append(wait_until(settled, timeout))
        return last

    def control(self, method, path, body=None):
        return self.raw(method, self.host.removesuffix("/api/v2") + "/emulator/" + path, body)

    def fault(self, spec):
        answer = self.control("POST", "faults", {"spec": spec})
        assert answer.status == 200, answer

    def console(self, action, project=None, **ids):
        return self.control("POST", "console", {"action": action, "project_id": project or self.project} | ids)

    # -- short forms

    def branches(self):
        return self.api("GET", "/projects/{p}/branches").json["branches"]

    def branch(self, branch_id):
        return self.api("GET", f"/projects/{{p}}/branches/{branch_id}").json["branch"]

    def default_branch(self):
        return next(b for b in self.branches() if b["default"])

    def snapshots(self):
        return self.api("GET", "/projects/{p}/snapshots").json["snapshots"]

    def endpoints(self):
        return self.api("GET", "/projects/{p}/endpoints").json["endpoints"]

    def snapshot(self, name=None, branch=None, **query):
        branch = branch or self.default_branch()["id"]
        query |= {"name": name} if name else {}
        return self.ok("POST", f"/projects/{{p}}/branches/{branch}/snapshot", query=query)["snapshot"]

    def uri(self, branch=None, role="neondb_owner", database="neondb"):
        query = {"role_name": role, "database_name": database} | ({"branch_id": branch} if branch else {})
        return self.ok("GET", "/projects/{p}/connection_uri", query=query)["uri"]

    def sql(self, statement, uri=None):
        """psql's unaligned output. Fails where SQL does."""
        done = self.psql(statement, uri)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def psql(self, statement, uri=None):
        environ = {k: v for k, v in os.environ.items() if not k.startswith("PG")} | {"PGCONNECT_TIMEOUT": "60"}
        return subprocess.run(
            ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement, uri or self.url],
            env=environ,
            capture_output=True,
            text=True,
        )


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args):
        return None

"""neon-emulator under 200 clients that read and write at once; EMULATOR_LOAD_SECONDS=60 for the whole minute."""

import collections
import http.client
import json
import os
import random
import threading
import time
from urllib.parse import urlsplit

from emulator import Emulator, wait_until

SECONDS = float(os.environ.get("EMULATOR_LOAD_SECONDS", "6"))
CLIENTS = 200


class Client(threading.Thread):
    """One connection that stays open. Most requests read; some write what only this client touches."""

    def __init__(self, neon, number, branch, over):
        super().__init__(daemon=True)
        self.neon, self.number, self.branch, self.over = neon, number, branch, over
        self.random = random.Random(number)
        self.counts, self.problems, self.mine = collections.Counter(), [], []

    def call(self, method, path, body=None):
        self.connection.request(
            method,
            "/api/v2" + path.replace("{p}", self.neon.project),
            json.dumps(body) if body else None,
            {"Authorization": f"Bearer {self.neon.key}"} | ({"Content-Type": "application/json"} if body else {}),
        )
        response = self.connection.getresponse()
        text = response.read()
        self.counts[f"{method} {response.status}"] += 1
        if response.status >= 400 and response.status not in (423, 429):
            self.problems.append((method, path, response.status, text))
        return response.status, text

    def step(self):
        reads = (
            "/projects/{p}",
            "/projects/{p}/branches",
            "/projects/{p}/snapshots",
            "/projects/{p}/endpoints",
            "/projects/{p}/operations?limit=20",
            f"/projects/{{p}}/branches/{self.branch}",
            "/projects/{p}/connection_uri?role_name=neondb_owner&database_name=neondb",
        )
        dice = self.random.random()
        if dice < 0.8:
            self.call("GET", self.random.choice(reads[:6] if self.number % 10 else reads))
        elif self.mine:
            if dice < 0.9:
                self.call(
                    "PATCH", f"/projects/{{p}}/snapshots/{self.mine[0]}", {"snapshot": {"name": f"renamed {self.number} {dice}"}}
                )
            elif self.call("DELETE", f"/projects/{{p}}/snapshots/{self.mine[0]}")[0] == 202:
                self.mine.pop(0)
        else:
            status, text = self.call(
                "POST", f"/projects/{{p}}/branches/{self.branch}/snapshot?name=load%20{self.number}%20{dice}"
            )
            if status == 200:
                self.mine.append(json.loads(text)["snapshot"]["id"])

    def run(self):
        target = urlsplit(self.neon.host)
        self.connection = http.client.HTTPConnection(target.hostname, target.port, timeout=60)
        try:
            while not self.over.is_set():
                self.step()
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.problems.append(repr(error))
        self.connection.close()


def test_two_hundred_clients():
    with Emulator("--snapshots=1000", operation_ms=0) as neon:
        end = time.monotonic() + SECONDS
        branch = neon.default_branch()["id"]
        over = threading.Event()
        clients = [Client(neon, i, branch, over) for i in range(CLIENTS)]

        def count(what):
            return sum(c.counts[what] for c in clients)

        def enough():
            """Of each: a busy machine takes longer."""
            return count("GET 200") > 1000 and count("POST 200") > 3 and count("POST 423") > 0

        for client in clients:
            client.start()
        try:
            wait_until(lambda: (time.monotonic() > end and enough()) or any(c.problems for c in clients), SECONDS + 90)
        finally:
            over.set()
        for client in clients:
            client.join(90)
        assert not any(client.is_alive() for client in clients)
        problems = [p for c in clients for p in c.problems]
        assert not problems, problems[:5]
        wait_until(
            lambda: all(
                o["status"] not in ("running", "scheduling")
                for o in neon.api("GET", "/projects/{p}/operations").json["operations"]
            )
        )
        assert {s["id"] for s in neon.snapshots()} == {s for c in clients for s in c.mine}
        assert neon.sql("select 1") == "1"
        wait_until(lambda: len(os.listdir(f"/proc/{neon.process.pid}/task")) < 20)

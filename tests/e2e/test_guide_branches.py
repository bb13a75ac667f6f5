"""Replaying a historical run safely, with the real OpenAI Agents SDK: what an agent did ten days ago is tried again on an isolated
branch, decided otherwise, while production goes on; then one of the branches is promoted (design.md §2, §5)."""

import json
import subprocess
import sys
import threading

import psycopg
import pytest

from emulator import wait_until
from llm import ROOT, resume_command
from mount import DEADLINE, Mount
from restoring import active

DEMO = ROOT / "scripts" / "demo"
TEN_DAYS = 10 * 86400
# After the decision the agent changes the database once more: that change must stay where it was woken.
SCRIPT = [[["add_user", {"name": "Charlie"}]], [["drop_users_table", {}]], [["add_user", {"name": "Eve"}]], "Done, as told."]


class Production(threading.Thread):
    """Somebody who inserts orders into the active branch all the while, over one connection; `done` is what was acknowledged."""

    def __init__(self, uri, first):
        super().__init__(daemon=True)
        self.uri, self.number, self.done, self.stop, self.error = uri, first, [], threading.Event(), None
        self.start()

    def run(self):
        try:
            with psycopg.connect(self.uri, autocommit=True) as connection:
                while not self.stop.wait(0.005):
                    connection.execute("INSERT INTO orders VALUES (%s)", [self.number])
                    self.done.append(self.number)
                    self.number += 1
        except psycopg.Error as error:  # its connection was cut: that must not happen
            self.error = error

    def goes_on(self):
        """Waits until it has written again."""
        before = len(self.done)
        wait_until(lambda: self.error or len(self.done) > before + 1, DEADLINE)
        assert self.error is None, self.error

    def end(self):
        self.stop.set()
        self.join(DEADLINE)
        assert self.error is None, self.error
        return self.done


def make_old(m, name, seconds):
    """As if that checkpoint had been taken so long ago; returns when the mount knows."""
    m.settled([name])
    owner = json.loads((m.dir / "env.json").read_text())["store_owner"]
    with psycopg.connect(owner, autocommit=True) as store:
        columns = ("created_at", "changed_at", "sealed_at", "requested_at", "captured_at")
        changes = ", ".join(f"{c} = {c} - {seconds}::bigint * 1000000000" for c in columns)
        store.execute(f"UPDATE checkpointfs.checkpoints SET {changes} WHERE name = %s", [name])
    wait_until(lambda: m.echo(f"{name}/restore", "dry-run") is None and m.result(name)["would"]["snapshot"]["age_seconds"] >= seconds)


def names(uri, table="users", column="name"):
    with psycopg.connect(uri, autocommit=True) as connection:
        return [value for (value,) in connection.execute(f"SELECT {column} FROM {table} ORDER BY {column}")]


@pytest.fixture(scope="module")
def m(fake_llm):
    command = resume_command("agent:agent", "--path", str(DEMO))
    with Mount(resume=command, env=fake_llm.env()) as mount:
        mount.sql("CREATE TABLE users (id serial PRIMARY KEY, name text)")
        mount.sql("CREATE TABLE orders (n int PRIMARY KEY)")
        mount.sql("INSERT INTO users (name) VALUES ('Alice'), ('Bob')")
        mount.sql("INSERT INTO orders VALUES (1), (2)")
        ran = subprocess.run([sys.executable, DEMO / "run_agent.py", mount.root, "historical", "STEPS " + json.dumps(SCRIPT)],
                             env=fake_llm.env(DATABASE_URL=mount.uri()), capture_output=True, text=True, timeout=DEADLINE)
        assert ran.returncode == 0, ran.stderr
        make_old(mount, "historical", TEN_DAYS)
        mount.sql("INSERT INTO users (name) VALUES ('Dave')")  # what has happened since
        mount.sql("INSERT INTO orders VALUES (3)")
        yield mount


def branch_uri(m, path):
    return m.read(f"{path}/connection_uri").strip()


def test_replayed_while_production_goes_on(m):
    before, uri = active(m), m.uri()
    production = Production(uri, 1000)
    production.goes_on()

    # In one line: the branch is made, the call rejected, the agent woken there.
    assert m.echo("historical/replay", "branch fix-1 reject Do not drop the users table.") is None, m.result("historical")
    first = "historical/branches/fix-1"
    assert m.read(f"{first}/status") == "finished\n" and m.read(f"{first}/output") == "Done, as told.\n"
    assert names(branch_uri(m, first)) == ["Alice", "Bob", "Charlie", "Eve"], "as ten days ago, and what the agent did there"
    assert names(branch_uri(m, first), "orders", "n") == [1, 2]
    production.goes_on()

    # In two: look around on the branch first, then approve what nobody would dare in production.
    assert m.echo("historical/restore", "branch fix-2") is None, m.result("historical")
    second = "historical/branches/fix-2"
    assert m.read(f"{second}/status") == "waiting (1 call)\n"
    assert names(branch_uri(m, second)) == ["Alice", "Bob", "Charlie"], "nothing of production, nothing of fix-1"
    production.goes_on()
    assert m.echo(f"{second}/resume", "approve") is None, m.json(f"{second}/result")
    assert m.read(f"{second}/status") == "finished\n"
    with psycopg.connect(branch_uri(m, second)) as connection:
        assert connection.execute("SELECT to_regclass('users')").fetchone() == (None,), "the agent dropped it there"
    production.goes_on()

    written = production.end()
    assert (active(m), m.uri()) == (before, uri) and m.status("historical") == "waiting (1 call)"
    assert names(uri) == ["Alice", "Bob", "Charlie", "Dave"], "no agent was here"
    assert names(uri, "orders", "n") == [1, 2, 3, *written], "nothing is lost"
    assert names(branch_uri(m, first), "orders", "n") == names(branch_uri(m, second), "orders", "n") == [1, 2]
    assert {e["branch_id"] for e in m.emulator.endpoints()} >= {m.json(f"{b}/branch.json")["branch_id"] for b in (first, second)}


def test_the_same_promoted(m):
    """Its snapshot is ten days old: production is replaced only once that was confirmed."""
    path, before, uri = "historical/branches/fix-1", active(m), m.uri()
    production = names(uri, "orders", "n")
    branch = m.json(f"{path}/branch.json")["branch_id"]
    m.take("yesterday")
    assert m.echo(f"{path}/promote", "promote") == "ECANCELED"
    asked = m.json(f"{path}/result")
    assert asked["would"]["confirm"] == {"needed": True, "line": f"promote confirm={before}"}
    assert f"echo 'promote confirm={before}' > {path}/promote" in asked["message"] and "yesterday" in asked["message"]
    assert active(m) == before and names(uri, "orders", "n") == production, "nothing was done"

    assert m.echo(f"{path}/promote", asked["would"]["confirm"]["line"]) is None, m.json(f"{path}/result")
    assert m.read(f"{path}/status") == "promoted\n" and active(m) == branch == m.emulator.default_branch()["id"]
    assert m.uri() == uri, "the connection string stays"
    assert names(uri) == ["Alice", "Bob", "Charlie", "Eve"] and names(uri, "orders", "n") == [1, 2]
    assert m.status("yesterday") == "off-line" and m.status("historical") == "finished"
    assert m.echo("historical/resume", "approve") == "EALREADY", "what was decided on the branch holds for the line now"

    # The database that was replaced is still there: undo brings every order back.
    assert m.echo(".control/undo", "undo") is None, m.read(".control/result")
    assert m.uri() == uri and names(uri) == ["Alice", "Bob", "Charlie", "Dave"] and names(uri, "orders", "n") == production
    assert m.status("yesterday") == "waiting (1 call)"

"""More verbs that are killed at every point (killing.py): adopt, isolated branches, promote, import. `b` is each checkpoint's branch."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import psycopg

from deeds import COUNTED, named, runs, tidy, told
from emulator import wait_until
from killing import Deed
from mount import STATE
from restoring import World, active, bare, put, restore, rows


def write(m, path, words):
    fd = os.open(m / path, os.O_WRONLY)
    try:
        os.write(fd, f"{words}\n".encode())
    finally:
        os.close(fd)


def room(m):
    """Deletes what isolated branches and restores left: a project has room for few."""
    for name in [n for n in os.listdir(m.root) if n[0] != "." and n != "latest"]:
        for branch in os.listdir(m / name / "branches"):
            answer = m.echo(".control/prune", f"delete {name}/branches/{branch}")
            assert answer is None, (answer, m.read(".control/result"), m.read(f"{name}/branches/{branch}/status"))
    tidy(m)


def isolated(m, name, words="branch b"):
    assert m.echo(f"{name}/restore", words) is None, m.read(f"{name}/result")


def on(m, name, statement="select n from t order by n"):
    path = m / name / "branches/b/connection_uri"
    wait_until(path.exists, 60)
    with psycopg.connect(path.read_text().strip(), autocommit=True) as c:
        cursor = c.execute(statement)
        return [n for (n,) in cursor.fetchall()] if cursor.description else None


def state(m, name):
    """The status of its branch; None: there is none."""
    return m.read(f"{name}/branches/b/status").rstrip("\n") if os.path.isdir(m / name / "branches/b") else None


def one_branch(m, name):
    """What Neon holds of it: one branch, with one endpoint, and its database is the checkpoint's."""
    branch = m.json(f"{name}/branches/b/branch.json")["branch_id"]
    wait_until(lambda: named(World(m), name, "branches") == [branch], 60)
    assert [b for b in World(m).endpoints.values() if b == branch] == [branch]
    assert on(m, name) == [1]


class Branch(Deed):
    word = "branch"
    file, words = "restore", "branch b"
    made = ("ready",)

    def prepare(self, m, name):
        room(m)
        put(m, 1)
        bare(m, name)
        put(m, 2)

    def act(self, m, name):
        write(m, f"{name}/{self.file}", self.words)

    def check(self, field, m, name, survived):
        assert rows(m) == [2], "the active branch is untouched"
        status = state(m, name)
        assert status in self.made or not survived, status
        if status not in self.made:
            assert status is None or status.startswith("failed restore: "), status
            wait_until(lambda: not named(World(m), name, "branches"), 60)
            if status:
                os.rmdir(m / name / "branches/b")
            assert m.echo(f"{name}/{self.file}", self.words) is None, m.read(f"{name}/result")
            assert state(m, name) in self.made
        one_branch(m, name)
        assert rows(m) == [2]


class BranchReplay(Branch):
    word = "branch-replay"
    file, words = "replay", "branch b approve"
    made = ("waiting (1 call)", "finished", "unknown")

    def prepare(self, m, name):
        room(m)
        put(m, 1)
        m.waits(name, COUNTED)
        put(m, 2)

    def check(self, field, m, name, survived):
        status, before = state(m, name), runs(m, name)
        assert before == 1 if status == "finished" else before <= 1 if status == "unknown" else before == 0, (status, before)
        super().check(field, m, name, survived)
        assert m.status(name) == "waiting (1 call)"
        if status not in self.made:
            assert runs(m, name) == 1
        elif status == "waiting (1 call)":
            assert m.echo(f"{name}/branches/b/resume", "approve") is None
            assert runs(m, name) == 1
        else:
            assert m.echo(f"{name}/branches/b/resume", "approve") == "EALREADY"
            assert runs(m, name) == before


class BranchResume(Deed):
    word = "branch-resume"

    def prepare(self, m, name):
        room(m)
        put(m, 1)
        m.waits(name, COUNTED)
        isolated(m, name)
        put(m, 2)

    def act(self, m, name):
        write(m, f"{name}/branches/b/resume", "approve")

    def check(self, field, m, name, survived):
        path = f"{name}/branches/b/resume"
        status, before = state(m, name), runs(m, name)
        assert status in ("finished", "unknown", "waiting (1 call)"), status
        assert not survived or status == "finished"
        assert before == 1 if status == "finished" else before <= 1 if status == "unknown" else before == 0, (status, before)
        if status == "waiting (1 call)":
            assert m.echo(path, "approve") is None, m.json(f"{name}/branches/b/result")
            assert runs(m, name) == 1
        else:
            assert m.echo(path, "approve") == "EALREADY"
            if status == "unknown":
                assert m.echo(path, "again approve") is None
                assert runs(m, name) == before + 1
        one_branch(m, name)
        assert rows(m) == [2] and m.status(name) == "waiting (1 call)"


class Promote(Deed):
    """Of a branch that Neon can still finalize: nothing is made."""
    word = "promote"
    makes = 0

    def prepare(self, m, name):
        room(m)
        put(m, 1)
        bare(m, name)
        isolated(m, name)
        on(m, name, "update t set n = 10")
        put(m, 2)
        self.before = World(m)
        self.branch = m.json(f"{name}/branches/b/branch.json")["branch_id"]

    def act(self, m, name):
        write(m, f"{name}/branches/b/promote", "promote")

    def check(self, field, m, name, survived):
        status = state(m, name)
        assert status == "promoted" or not survived and status.startswith(("ready", "failed promote: ")), status
        if status != "promoted":
            assert rows(m) == [2] and active(m) == self.before.default
            wait_until(lambda: set(World(m).branches) == set(self.before.branches), 60)
            assert m.echo(f"{name}/branches/b/promote", "promote") is None, m.json(f"{name}/branches/b/result")
        assert rows(m) == [10]
        wait_until(lambda: len(set(World(m).branches) - set(self.before.branches)) == self.makes, 60)
        wait_until(lambda: set(World(m).snapshots) == set(self.before.snapshots), 60)
        assert active(m) == self.branch or self.makes
        assert set(self.before.branches) <= set(World(m).branches), "the replaced one is kept"
        assert len(m.events_of(name, "promote.finished")) == 1
        assert m.echo(f"{name}/branches/b/promote", "promote") == "ESTALE"


class PromoteAnew(Promote):
    """The active branch has changed since: a snapshot of the isolated one is restored in its place."""
    word = "promote-anew"
    makes = 1

    def prepare(self, m, name):
        super().prepare(m, name)
        restore(m, name)
        put(m, 2)
        self.before = World(m)


class Adopt(Deed):
    word = "adopt"
    record = False  # which is what it is for

    def prepare(self, m, name):
        e = m.emulator
        room(m)
        for b in e.branches():
            if not b["default"]:
                wait_until(lambda: e.console("delete_branch", branch_id=b["id"]).status < 300)
        put(m, 1)
        m.take(name)
        put(m, 2)
        self.old = active(m)
        answer = e.ok("POST", f"/projects/{{p}}/snapshots/{m.json(f'{name}/snapshot.json')['id']}/restore",
                      {"target_branch_id": self.old, "finalize_restore": True})
        e.settle(answer["operations"])
        self.new = answer["branch"]["id"]

    def act(self, m, name):
        write(m, ".control/adopt", f"adopt {self.new}")

    def check(self, field, m, name, survived):
        done = active(m) == self.new
        assert done or not survived and active(m) == self.old
        if not done:
            assert m.echo(".control/adopt", f"adopt {self.new}") is None, m.read(".control/result")
        assert active(m) == self.new == World(m).default and rows(m) == [1]
        finished = [e for e in m.events_of(name, "adopt.finished") if e["branch"] == self.new]
        assert len(finished) == 1 and finished[0]["replaced"] == self.old
        uid = field.sql("SELECT uid FROM checkpointfs.actions WHERE kind = 'adopt' ORDER BY id DESC LIMIT 1")
        said = m.json(f".control/actions/{uid}.json")
        assert said["message"] == f"branch {self.new} is the active one now: the database of {name}", said
        assert said["journal"]["branch_before"] == self.old, said
        assert m.status(name) == "waiting (1 call)"
        restore(m, name)


class Import(Deed):
    """A fork, of a checkpoint that is there too. What was staged is the mount's own, and gone with it."""
    word = "import"
    least = 2

    def prepare(self, m, name):
        tidy(m)
        put(m, 1)
        m.take(f"{name}-of")
        put(m, 2)
        self.copy = Path(tempfile.mkdtemp(prefix="ckpt-copy-")) / name
        shutil.copytree(m / f"{name}-of", self.copy, symlinks=True)
        text = json.loads(STATE.read_text())
        text["max_turns"] = 77
        self.text = json.dumps(text).encode()
        (self.copy / "state.json").chmod(0o600)
        (self.copy / "state.json").write_bytes(self.text)

    def act(self, m, name):
        staged = m / ".import" / name
        shutil.copytree(self.copy, staged, symlinks=True)
        os.rename(staged, m / name)

    def check(self, field, m, name, survived):
        there = os.path.isdir(m / name)
        assert there or not survived
        assert field.sql(f"SELECT count(*) FROM checkpointfs.checkpoints WHERE name = '{name}'") == str(int(there))
        if not there:
            assert os.listdir(m / ".import") == []
            self.act(m, name)
        shutil.rmtree(self.copy.parent)
        assert (m / name / "state.json").read_bytes() == self.text
        assert m.json(f"{name}/checkpoint.json")["parent"] == m.json(f"{name}-of/checkpoint.json")["id"]
        assert m.status(name) == "off-line" and m.echo(f"{name}/resume", "approve") == "ESTALE"
        assert rows(m) == [2]
        restore(m, name)
        assert rows(m) == [1] and told(m, name, "restore.finished")


BRANCH_DEEDS = [Branch, BranchReplay, BranchResume, Promote, PromoteAnew, Adopt, Import]

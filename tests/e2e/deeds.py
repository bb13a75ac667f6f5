"""The verbs that are killed at every point (killing.py): what each needs, and what is true of it whenever it was cut."""

import os

from emulator import wait_until
from killing import Deed
from mount import STATE
from restoring import bare, put, restore, rows

COPY = "failed take: a copy, use .import/"
COUNTED = 'echo run >> "$AGENTS/$CHECKPOINT_NAME.runs"\n'


def runs(m, name):
    """How often the checkpoint's agent ran."""
    path = m.scripts / f"{name}.runs"
    return len(path.read_text().splitlines()) if path.exists() else 0


def tidy(m):
    """Deletes what restores replaced, so that the project's limit of root branches isn't reached."""
    for b in m.emulator.branches():
        if b["name"].startswith("replaced-") and not b["default"]:
            wait_until(lambda: m.emulator.console("delete_branch", branch_id=b["id"]).status < 300)


def told(m, name, event):
    return any(e["event"] == event for e in m.events_of(name))


def named(world, name, what="snapshots"):
    return [i for i, n in getattr(world, what).items() if n.startswith(f"{name}-act-")]


class Take(Deed):
    word = "take"

    def act(self, m, name):
        os.mkdir(m / name)
        with open(m / name / "state.json", "wb") as f:
            f.write(STATE.read_bytes())

    def check(self, field, m, name, survived):
        from restoring import World
        if not os.path.isdir(m / name):  # killed before it was in the store
            assert not survived and not named(World(m), name)
            return
        if survived:
            m.wait_status(name, "waiting (1 call)")
        status = m.status(name)
        assert status.startswith(("waiting (1 call)", "saved (database only)", "writing", "failed take: ")), status
        kept = 0 if status.startswith("failed take") else 1
        wait_until(lambda: len(named(World(m), name)) == kept, 60)
        if kept:
            assert m.json(f"{name}/snapshot.json")["id"] in named(World(m), name)
        if status.startswith("waiting"):
            assert (m / name / "state.json").read_bytes() == STATE.read_bytes()
        elif kept:  # the state's writer has lost its handle: it can be written again
            (m / name / "state.json").write_bytes(STATE.read_bytes())
            m.wait_status(name, "waiting (1 call)")
        else:
            os.rmdir(m / name)


class RefusedCopy(Deed):
    """A take that turns out to be a copy when its snapshot is there already: that is given back."""

    word = "refused-copy"

    def act(self, m, name):
        os.mkdir(m / name)
        m.wait(name)
        open(m / name / "checkpoint.json", "w").close()

    def check(self, field, m, name, survived):
        from restoring import World
        if not os.path.isdir(m / name):  # killed before it was in the store
            assert not survived and not named(World(m), name)
            return
        status = m.status(name)
        assert status.startswith(COPY) if survived else status.startswith((COPY, "saved (database only)", "failed take: ")), status
        kept = 0 if status.startswith("failed take") else 1
        wait_until(lambda: len(named(World(m), name)) == kept, 60)
        if kept:
            assert m.json(f"{name}/snapshot.json")["id"] in named(World(m), name)
            return
        if status.startswith(COPY):
            assert len(m.events_of(name, "checkpoint.failed")) == 1
            begun, done, refused = (len(m.events_of(name, f"delete.{e}")) for e in ("started", "finished", "failed"))
            assert begun == done + refused <= 1 and (self.partly or not refused)
        os.rmdir(m / name)


class Restore(Deed):
    word = "restore"
    event = "restore.finished"

    def prepare(self, m, name):
        tidy(m)
        put(m, 1)
        bare(m, name)
        put(m, 2)

    def act(self, m, name):
        fd = os.open(m / name / "restore", os.O_WRONLY)
        try:
            os.write(fd, b"in-place\n")
        finally:
            os.close(fd)

    def check(self, field, m, name, survived):
        from restoring import World
        done = told(m, name, self.event)
        assert rows(m) == ([1] if done else [2]), (done, m.read(f"{name}/status"))
        assert done or not survived
        wait_until(lambda: not named(World(m), name, "branches"), 60)  # renamed by the swap, or deleted again
        if not done:
            restore(m, name)
            assert rows(m) == [1]


class Resume(Deed):
    word = "resume"

    def prepare(self, m, name):
        m.waits(name, COUNTED)

    def act(self, m, name):
        fd = os.open(m / name / "resume", os.O_WRONLY)
        try:
            os.write(fd, b"approve\n")
        finally:
            os.close(fd)

    def check(self, field, m, name, survived):
        status = m.status(name)
        assert status in ("finished", "unknown", "waiting (1 call)"), status
        if status == "waiting (1 call)":
            assert runs(m, name) == 0
            assert m.echo(f"{name}/resume", "approve") is None
            assert runs(m, name) == 1
        elif status == "finished":
            assert runs(m, name) == 1
            assert m.echo(f"{name}/resume", "approve") == "EALREADY"
        else:
            assert not survived and runs(m, name) <= 1
            assert m.echo(f"{name}/resume", "approve") == "EALREADY"
            before = runs(m, name)
            assert m.echo(f"{name}/resume", "again approve") is None
            assert runs(m, name) == before + 1


class Replay(Deed):
    word = "replay"

    def prepare(self, m, name):
        tidy(m)
        put(m, 1)
        m.waits(name, COUNTED)
        put(m, 2)

    def act(self, m, name):
        fd = os.open(m / name / "replay", os.O_WRONLY)
        try:
            os.write(fd, b"in-place approve\n")
        finally:
            os.close(fd)

    def check(self, field, m, name, survived):
        restored = told(m, name, "restore.finished")
        status = m.status(name)
        assert rows(m) == ([1] if restored else [2])
        refused = self.partly and not restored and status.startswith("failed restore: ")  # by Neon, with its reason
        assert refused or status in ("finished", "unknown", "waiting (1 call)"), status
        assert runs(m, name) == 1 if status == "finished" else runs(m, name) <= 1
        assert restored or refused or status == "waiting (1 call)"
        if refused or status == "waiting (1 call)":
            assert runs(m, name) == 0
            assert m.echo(f"{name}/replay", "in-place approve") is None
            assert runs(m, name) == 1


class Delete(Deed):
    word = "delete"

    def prepare(self, m, name):
        m.take(name)

    def act(self, m, name):
        fd = os.open(m / ".control/prune", os.O_WRONLY)
        try:
            os.write(fd, f"delete {name}\n".encode())
        finally:
            os.close(fd)

    def check(self, field, m, name, survived):
        from restoring import World
        gone = not os.path.isdir(m / name)
        assert gone or not survived
        wait_until(lambda: len(named(World(m), name)) == (0 if gone else 1))
        if not gone:
            assert m.status(name).startswith("waiting")


class Prune(Deed):
    word = "prune"

    def prepare(self, m, name):
        m.take(f"{name}-a")
        m.take(f"{name}-b")
        m.take(name)
        assert m.echo(".control/prune", "keep-last=1") is None
        plan = m.json(".control/result")
        self.apply, self.goes = plan["apply"], {i["name"] for i in plan["delete"]}
        assert self.goes >= {f"{name}-a", f"{name}-b"}
        self.freed = {m.json(f"{n}/snapshot.json")["id"] for n in self.goes}

    def act(self, m, name):
        fd = os.open(m / ".control/prune", os.O_WRONLY)
        try:
            os.write(fd, f"{self.apply}\n".encode())
        finally:
            os.close(fd)

    def check(self, field, m, name, survived):
        from restoring import World
        there = set(os.listdir(m.root)) & self.goes
        if self.partly and m.json(".control/result").get("skipped"):  # what Neon refused to delete stays, and is said
            assert {i["name"] for i in m.json(".control/result")["skipped"]} == there
            assert m.echo(".control/prune", self.apply) == "EALREADY"
            assert m.echo(".control/prune", "keep-last=1") is None
            self.apply = m.json(".control/result")["apply"]
            survived = False
        assert not there if survived else self.partly or there in (set(), self.goes), there
        if there:  # killed before it was in the store, or failed: the plan can still be applied
            assert m.echo(".control/prune", self.apply) is None
        assert m.echo(".control/prune", self.apply) == "EALREADY"
        assert not set(os.listdir(m.root)) & self.goes
        wait_until(lambda: not self.freed & set(World(m).snapshots))
        assert m.json(f"{name}/snapshot.json")["id"] in World(m).snapshots
        assert all(len(m.events_of(n, "checkpoint.deleted")) == 1 for n in self.goes)


class Undo(Deed):
    word = "undo"

    def prepare(self, m, name):
        tidy(m)
        put(m, 1)
        bare(m, name)
        put(m, 2)
        restore(m, name)
        put(m, 3)

    def act(self, m, name):
        fd = os.open(m / ".control/undo", os.O_WRONLY)
        try:
            os.write(fd, b"undo\n")
        finally:
            os.close(fd)

    def check(self, field, m, name, survived):
        from restoring import World
        undone = field.sql("SELECT coalesce(undone_by, 0) <> 0 FROM checkpointfs.restores ORDER BY action_id DESC LIMIT 1") == "t"
        assert rows(m) == ([2] if undone else [3])
        assert undone or not survived
        # neither the snapshot on the way nor a branch is left
        wait_until(lambda: len([s for s in World(m).snapshots.values() if "undo" in s and not s.startswith("undo")]) == 0, 60)
        if not undone:
            assert m.echo(".control/undo", "undo") is None, m.read(".control/result")
            assert rows(m) == [2]

"""What the tests of restores share: a table whose rows say which database is there, and what Neon holds, counted."""

import os

from emulator import wait_until
from mount import STATE

TABLE = "create table if not exists t (n int primary key)"
SNAPSHOT = "POST:/projects/*/branches/*/snapshot"
RESTORE = "POST:/projects/*/snapshots/*/restore"
FINALIZE = "POST:/projects/*/branches/*/finalize_restore"
DELETE = "DELETE:/projects/*/snapshots/*"
DELETE_BRANCH = "DELETE:/projects/*/branches/*"
OPERATION = "GET:/projects/*/operations/*"


def put(m, *rows):
    """Makes the table hold exactly these numbers."""
    m.sql(TABLE)
    m.sql("delete from t")
    for n in rows:
        m.sql(f"insert into t values ({n})")


def rows(m):
    return [n for (n,) in m.sql("select n from t order by n")]


def active(m):
    return m.read(".control/active_branch").strip()


def bare(m, name):
    """A database-only checkpoint, settled."""
    os.mkdir(m / name)
    m.wait_status(name, "saved (database only)")
    return name


def sealed(m, name, state=STATE):
    return m.take(name, state)


def restore(m, name):
    assert m.echo(f"{name}/restore", "in-place") is None, m.read(f"{name}/result")


class World:
    """What Neon holds: compared before and after."""

    def __init__(self, m):
        e = m.emulator
        branches = e.branches()
        self.default = next(b["id"] for b in branches if b["default"])
        self.branches = {b["id"]: b["name"] for b in branches}
        self.finalized = {b["id"] for b in branches if b.get("restore_status") == "finalized"}
        self.snapshots = {s["id"]: s["name"] for s in e.snapshots()}
        self.endpoints = {e["id"]: e["branch_id"] for e in e.endpoints()}

    def __eq__(self, other):
        return vars(self) == vars(other)

    def __repr__(self):
        return repr(vars(self))


def restored_once(m, before, name):
    """Exactly one restore of `name` happened since `before`: one new branch, which is the active one, and nothing else."""
    now = World(m)
    new = set(now.branches) - set(before.branches)
    assert len(new) == 1, (before, now)
    assert set(before.branches) <= set(now.branches), "the replaced branch is kept"
    assert now.default == new.pop() == active(m)
    assert now.branches[before.default].startswith(f"replaced-{name}-"), now.branches
    assert now.branches[now.default] == before.branches[before.default], "the name moves"
    assert now.endpoints == {e: now.default if b == before.default else b for e, b in before.endpoints.items()}
    assert now.snapshots == before.snapshots
    assert m.result(name)["state"] == "done"
    assert not m.status(name).startswith("restoring")
    return now


def tidy(m):
    """Deletes what restores left in Neon, as somebody would in the console, and every rule of failures."""
    e = m.emulator
    e.control("DELETE", "faults")
    for b in e.branches():
        if not b["default"]:
            assert e.console("delete_branch", branch_id=b["id"]).status < 300


def quiet(m):
    """Waits until no operation is under way in Neon."""
    wait_until(lambda: not {"running", "scheduling"} &
               {o["status"] for o in m.emulator.api("GET", "/projects/{p}/operations").json["operations"]})


__all__ = ["DELETE", "DELETE_BRANCH", "FINALIZE", "OPERATION", "RESTORE", "SNAPSHOT", "World", "active", "bare", "put", "quiet",
           "restore", "restored_once", "rows", "sealed", "tidy"]

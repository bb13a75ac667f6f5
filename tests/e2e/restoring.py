"""What the tests of restores share: a table whose rows say which database is there, and what Neon holds, counted."""

import os
import re

import psycopg

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
    with psycopg.connect(m.uri(), autocommit=True) as connection:
        connection.execute(TABLE)
        connection.execute("delete from t")
        for n in rows:
            connection.execute(f"insert into t values ({n})")


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


def snapshot_of(m, name):
    return m.json(f"{name}/snapshot.json")["id"]


def console_restore(m, snapshot, finalize=True):
    """Somebody restores a snapshot over the default branch in Neon's console; the new branch."""
    answer = m.emulator.ok("POST", f"/projects/{{p}}/snapshots/{snapshot}/restore",
                           {"target_branch_id": World(m).default, "finalize_restore": finalize})
    m.emulator.settle(answer["operations"])
    return answer["branch"]["id"]


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


def recovered(m):
    """After a test that may have killed the mount or set rules: it is up, and nothing is under way."""
    if m.process.poll() is not None:
        m.mount()
    m.emulator.control("DELETE", "faults")
    quiet(m)


def unbranch(m):
    """Deletes every isolated branch: a project has only so many root branches."""
    for name in [n for n in os.listdir(m.root) if n != "latest" and (m / n / "branches").is_dir()]:
        for branch in os.listdir(m / name / "branches"):
            m.echo(".control/prune", f"delete {name}/branches/{branch}")


LONG = 600000  # ms: longer than any test, and than a GET is waited for, which is then asked again


def hold(m, route, ms):
    """Has the emulator hold up a call to this route: a GET for as long as the test likes, anything else for `ms`, after which it is done, also
    when the mount is gone, and then the look at its operations is held up. So whoever comes late finds the action no further than that."""
    if not route.startswith("GET:"):
        m.emulator.fault(f"{route}>{OPERATION}=delay:{LONG}*inf")
        m.emulator.fault(f"{route}=delay:{ms}")
    elif route == "GET:/projects/*/snapshots":  # those before are of the mount's own rounds
        m.emulator.fault(f"{SNAPSHOT}>{route}=delay:{LONG}*inf")
    else:
        m.emulator.fault(f"{route}=delay:{LONG}*inf")


def held(m, route):
    """Whether a call to this route has met its rule."""
    call = re.compile(re.escape(route).replace(r"\*", "[^/]+"))
    return any(call.fullmatch(met) for met in m.emulator.control("GET", "faults").json["met"])


def steps_held(route, step):
    """What a restore may say while `hold` holds it up at that step."""
    return {f"restoring {s}/5" for s in ((step,) if route.startswith("GET:") else (step, step + 1))}


__all__ = ["DELETE", "DELETE_BRANCH", "FINALIZE", "OPERATION", "RESTORE", "SNAPSHOT", "World", "active", "bare", "console_restore", "held",
           "hold", "put", "quiet", "recovered", "restore", "restored_once", "rows", "sealed", "snapshot_of",
           "steps_held", "tidy", "unbranch"]

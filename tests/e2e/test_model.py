"""Random verbs from three mounts on one store, against a model in memory: after each step all three show what the model says, and the
database holds what it should. Hypothesis prints how to run a failing sequence again, and makes it short."""

import itertools
import json
import os
import subprocess

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from deeds import runs
from emulator import wait_until
from killing import Field
from mount import STATE
from postgres import Postgres

pytestmark = pytest.mark.timeout(1500)
NUMBERS = itertools.count(1)
MOUNTS = st.sampled_from([0, 1, 2])
DECIDED = {"open": "waiting (1 call)", "finished": "finished", "failed": "failed resume: "}


def shown(look):
    """What it says, or that it isn't there: another mount may be told of it a moment later."""
    try:
        return look()
    except FileNotFoundError:
        return "(not there)"


def so(look, wanted, what):
    """It begins like that within a moment."""
    try:
        wait_until(lambda: shown(look).startswith(wanted))
    except AssertionError:
        raise AssertionError(f"{what}: {shown(look)!r}, not {wanted!r}") from None


class World:
    """Three mounts; the third has no resume command, so that its decisions run on one of the others."""

    def __init__(self, field):
        self.field = field
        self.mounts = [field.mount("mnt"), field.mount("mnt2")]
        third = field.mount("mnt3")
        third.leave()
        third.resume = None
        self.mounts.append(third.mount())

    def leave(self):
        for m in self.mounts:
            m.leave()


class Checkpoint:
    def __init__(self, name, seq, value, sealed, past=()):
        self.name, self.seq, self.value, self.sealed = name, seq, value, sealed
        self.past = frozenset(past)  # the checkpoints that its database went through
        self.online, self.attempt = True, "open" if sealed else None
        self.isolated = None  # the branch that it was taken on
        self.began = False  # something in place did with it: deleted, it takes with it what the store knows of the line's past
        self.origin = self  # whose snapshot it stands on

    def __repr__(self):
        return self.name

    def status(self):
        if not self.online:
            return "off-line"
        if not self.sealed:
            return "saved (database only)"
        return DECIDED[self.attempt]


class Branch:
    """An isolated branch: a database, an attempt, and what was taken there, of its own."""

    def __init__(self, name, of):
        self.name, self.of, self.value, self.past = name, of, of.value, of.past | {of}
        self.attempt, self.promoted, self.taken = "open" if of.sealed else None, False, []

    def __repr__(self):
        return self.path()

    def path(self):
        return f"{self.of.name}/branches/{self.name}"

    def status(self):
        return "promoted" if self.promoted else DECIDED.get(self.attempt, "ready")


class Going(RuleBasedStateMachine):
    world = None

    def __init__(self):
        super().__init__()
        self.live, self.replaced, self.branches = [], [], []
        self.seq, self.past = 0, frozenset()

    # -- the beginning and the end of each sequence

    @initialize()
    def begin(self):
        m = self.world.mounts[0]
        for name in [n for n in os.listdir(m.root) if not n.startswith(".") and n != "latest"]:
            for branch in os.listdir(m / name / "branches"):
                assert m.echo(".control/prune", f"delete {name}/branches/{branch}") is None, m.read(".control/result")
            assert m.echo(".control/prune", f"delete {name}") is None, m.read(".control/result")
        self.forget_replaced()
        self.uri = m.uri()
        self.put(next(NUMBERS))

    def put(self, value):
        with psycopg.connect(self.uri, autocommit=True) as c:
            c.execute("create table if not exists t (n int primary key)")
            c.execute("delete from t")
            c.execute(f"insert into t values ({value})")
        self.value = value

    def some(self, data, of=None):
        return data.draw(st.sampled_from(of or self.live), label="checkpoint")

    def script(self, m, name):
        m.agent(name, 'echo run >> "$AGENTS/$CHECKPOINT_NAME.runs"\ngrep -q fail "$CHECKPOINT_DECISIONS" && exit 1\nexit 0\n')

    def at(self, i, c):
        """The mount, once it shows the checkpoint under its name: reads may be a moment late, verbs never are."""
        m = self.world.mounts[i]
        wait_until(lambda: (m.root / c.name).is_dir())
        return m

    # -- verbs

    @rule(value=st.just(0))
    def write_to_the_database(self, value):
        self.put(next(NUMBERS))

    @rule(i=MOUNTS, sealed=st.booleans())
    def take(self, i, sealed):
        m, name = self.world.mounts[i], f"c{next(NUMBERS)}"
        self.taken(m, name, name, sealed, self.value, self.past)
        self.past |= {self.live[-1]}

    def taken(self, m, path, name, sealed, value, past):
        self.seq += 1
        self.script(m, name)
        if sealed:
            m.take(path, STATE)
        else:
            os.mkdir(m / path)
        wait_until(lambda: (m.root / name).is_dir())
        m.wait_status(name, "waiting (1 call)" if sealed else "saved (database only)")
        self.live.append(Checkpoint(name, self.seq, value, sealed, past))

    def put_in_place(self, c, past, value):
        """What is on the line afterwards: what the database that is active now went through, as far as it was on it."""
        self.seq += 1
        self.replaced.append({"c": c, "value": self.value, "past": self.past, "was": (c.online, c.attempt), "seq": self.seq, "brought": [],
                              "off": [x for x in self.live if x.online and not x.isolated and (x not in past or x.seq < 0 and x is not c)]})
        for x in self.replaced[-1]["off"]:
            x.online = False
        c.online, c.began, self.value, self.past = True, True, value, past

    def restored(self, c):
        """What a restore of `c` means for everything."""
        self.put_in_place(c, c.past | {c}, c.value)
        if c.sealed:
            c.attempt = "open"

    @precondition(lambda self: self.live and len(self.replaced) < 8)
    @rule(i=MOUNTS, data=st.data(), dry=st.booleans())
    def restore(self, i, data, dry):
        c = self.some(data)
        m = self.at(i, c)
        wanted = "EXDEV" if c.isolated else None
        if dry:
            assert m.echo(f"{c.name}/restore", "dry-run") == wanted, m.read(f"{c.name}/result")
        assert m.echo(f"{c.name}/restore", "in-place") == wanted, m.read(f"{c.name}/result")
        if not wanted:
            self.restored(c)

    def of_the_line(self):
        """Those that nobody else stands on the snapshot of: by it the record knows what Neon was told to restore."""
        return [c for c in self.live if not c.isolated and not [x for x in self.live if x is not c and x.origin is c.origin]]

    @precondition(lambda self: self.of_the_line() and len(self.replaced) < 8)
    @rule(i=MOUNTS, data=st.data())
    def adopt(self, i, data):
        """Somebody restores a snapshot in Neon's console, and the mounts are told."""
        c = self.some(data, self.of_the_line())
        m, e = self.at(i, c), self.world.field.first.emulator
        wait_until(lambda: m.json(f"{c.name}/snapshot.json").get("id"))
        active = next(b["id"] for b in e.branches() if b["default"])
        snapshot = m.json(f"{c.name}/snapshot.json")["id"]
        answer = e.ok("POST", f"/projects/{{p}}/snapshots/{snapshot}/restore", {"target_branch_id": active, "finalize_restore": True})
        e.settle(answer["operations"])
        new = answer["branch"]["id"]
        assert m.echo(".control/adopt", f"adopt {new}") is None, m.read(".control/result")
        self.restored(c)

    @rule(i=MOUNTS)
    def undo(self, i):
        m = self.world.mounts[i]
        if not self.replaced:
            return
        assert m.echo(".control/undo", "undo") is None, m.read(".control/result")
        last = self.replaced.pop()
        for x in self.live:
            if x.online and not x.isolated and (x.seq > last["seq"] or x in last["brought"]):
                x.online = False
        for x in last["off"]:
            x.online = True
        last["c"].online, last["c"].attempt = last["was"]
        self.value, self.past = last["value"], last["past"]

    # -- isolated branches

    @precondition(lambda self: self.live and len(self.branches) < 3)
    @rule(i=MOUNTS, data=st.data(), how=st.sampled_from(["restore", "mkdir", "replay"]))
    def branch(self, i, data, how):
        line = [c for c in self.live if not c.isolated and (how != "replay" or c.sealed)]
        if not line:
            return
        c = self.some(data, line)
        m, b = self.at(i, c), Branch(f"b{next(NUMBERS)}", c)
        if how == "mkdir":
            subprocess.run(["mkdir", m / b.path()], check=True)  # by the process that took it, it may be a copy
            so(lambda: m.read(f"{b.path()}/status"), b.status(), b.path())
        elif how == "restore":
            assert m.echo(f"{c.name}/restore", f"branch {b.name}") is None, m.read(f"{c.name}/result")
        else:
            self.script(m, c.name)
            before = runs(m, c.name)
            assert m.echo(f"{c.name}/replay", f"branch {b.name} approve") is None, m.read(f"{c.name}/result")
            assert runs(m, c.name) == before + 1
            b.attempt = "finished"
        self.branches.append(b)

    def ready(self, i, data):
        """One of the branches, and the mount once it shows it."""
        b = data.draw(st.sampled_from([b for b in self.branches if not b.promoted]), label="branch")
        m = self.world.mounts[i]
        wait_until(lambda: (m / b.path() / "connection_uri").exists())
        return m, b

    @precondition(lambda self: [b for b in self.branches if not b.promoted])
    @rule(i=MOUNTS, data=st.data(), fails=st.booleans())
    def decide_on_branch(self, i, data, fails):
        m, b = self.ready(i, data)
        before = runs(m, b.of.name)
        self.script(m, b.of.name)
        wanted = "ENODATA" if not b.of.sealed else "EALREADY" if b.attempt != "open" else "EIO" if fails else None
        assert m.echo(f"{b.path()}/resume", "reject fail" if fails else "approve") == wanted, m.read(f"{b.path()}/result")
        if wanted in (None, "EIO"):
            b.attempt = "failed" if fails else "finished"
        assert runs(m, b.of.name) == before + (wanted in (None, "EIO"))

    @precondition(lambda self: [b for b in self.branches if not b.promoted])
    @rule(i=MOUNTS, data=st.data())
    def write_and_take_on_branch(self, i, data):
        m, b = self.ready(i, data)
        b.value = next(NUMBERS)
        with psycopg.connect((m / b.path() / "connection_uri").read_text().strip(), autocommit=True) as c:
            c.execute(f"update t set n = {b.value}")
        name = f"o{next(NUMBERS)}"
        self.taken(m, f"{b.path()}/checkpoints/{name}", name, True, b.value, b.past)
        self.live[-1].isolated = b
        b.past |= {self.live[-1]}

    @precondition(lambda self: [b for b in self.branches if not b.promoted] and len(self.replaced) < 8)
    @rule(i=MOUNTS, data=st.data())
    def promote(self, i, data):
        m, b = self.ready(i, data)
        assert m.echo(f"{b.path()}/promote", "promote") is None, m.read(f"{b.path()}/result")
        self.put_in_place(b.of, b.past, b.value)
        b.promoted = True
        if b.of.sealed:
            b.of.attempt = b.attempt
        for x in self.live:
            if x.isolated is b:
                x.isolated = None
                self.replaced[-1]["brought"].append(x)

    @precondition(lambda self: [b for b in self.branches if not b.promoted])
    @rule(i=MOUNTS, data=st.data())
    def delete_branch(self, i, data):
        m, b = self.ready(i, data)
        assert m.echo(".control/prune", f"delete {b.path()}") is None, m.read(".control/result")
        self.branches.remove(b)
        for x in self.live:
            if x.isolated is b:
                x.online = False

    # -- decisions

    @precondition(lambda self: self.live)
    @rule(i=MOUNTS, data=st.data(), fails=st.booleans(), again=st.booleans())
    def decide(self, i, data, fails, again):
        c = self.some(data)
        m = self.at(i, c)
        before = runs(m, c.name)
        words = ("again " if again else "") + ("reject fail" if fails else "approve")
        if not c.sealed:
            wanted = "ENODATA"
        elif not c.online:
            wanted = "ESTALE"
        elif c.attempt == "open" or (c.attempt == "failed" and again):
            wanted = "EIO" if fails else None
            c.attempt = "failed" if fails else "finished"
        else:
            wanted = "EALREADY"
        self.script(m, c.name)
        answer = m.echo(f"{c.name}/resume", words)
        assert answer == wanted, (answer, wanted, m.read(f"{c.name}/result"))
        assert runs(m, c.name) == before + (wanted in (None, "EIO"))

    @precondition(lambda self: self.live and len(self.replaced) < 8)
    @rule(i=MOUNTS, data=st.data())
    def replay(self, i, data):
        c = self.some(data)
        m = self.at(i, c)
        self.script(m, c.name)
        answer = m.echo(f"{c.name}/replay", "in-place approve")
        if not c.sealed or c.isolated:
            assert answer == "EXDEV" if c.isolated else "ENODATA"
            return
        assert answer is None, m.read(f"{c.name}/result")
        self.restored(c)
        c.attempt = "finished"

    @precondition(lambda self: self.live)
    @rule(i=MOUNTS, data=st.data())
    def rename(self, i, data):
        c = self.some(data)
        m = self.at(i, c)
        new = f"r{next(NUMBERS)}"
        os.rename(m / c.name, m / new)
        c.name = new

    @precondition(lambda self: len(self.live) > 1 and [c for c in self.live if not c.began])
    @rule(i=MOUNTS, data=st.data())
    def delete(self, i, data):
        c = self.some(data, [c for c in self.live if not c.began])
        m = self.at(i, c)
        wanted = "EBUSY" if [b for b in self.branches if b.of is c] else None
        assert m.echo(".control/prune", f"delete {c.name}") == wanted, m.read(".control/result")
        if not wanted:
            self.gone(c)

    def gone(self, c):
        self.live.remove(c)
        for r in self.replaced:
            r["off"] = [x for x in r["off"] if x is not c]

    @precondition(lambda self: len(self.live) > 4)
    @rule(i=MOUNTS, j=MOUNTS, last=st.integers(1, 3), pending=st.booleans())
    def prune(self, i, j, last, pending):
        """What is planned on one mount is done on another; the plan keeps what the rules say, what has branches, and what has a kept child."""
        m = self.world.mounts[i]
        assert m.echo(".control/prune", f"keep-last={last}" + (" keep-pending" if pending else "")) is None, m.read(".control/result")
        plan = m.json(".control/result")
        named = {item["name"] for item in plan["delete"]}
        going = [c for c in self.live if c.name in named]
        assert len(going) == len(named)
        assert not [b for b in self.branches if b.of in going]
        assert not pending or not [c for c in going if c.status() == "waiting (1 call)" and not c.isolated]
        assert len(self.live) - len(going) >= last
        if not going or [c for c in going if c.began]:
            return
        other = self.world.mounts[j]
        assert other.echo(".control/prune", plan["apply"]) is None, other.read(".control/result")
        done = other.json(".control/result")
        assert {d["name"] for d in done["deleted"]} == named and done["skipped"] == []
        for c in going:
            self.gone(c)

    @precondition(lambda self: [c for c in self.live if c.sealed])
    @rule(i=MOUNTS, data=st.data())
    def bring_in_a_fork(self, i, data):
        c = self.some(data, [c for c in self.live if c.sealed])
        m, name = self.at(i, c), f"f{next(NUMBERS)}"
        staged = m / ".import" / name
        staged.mkdir()
        for file in ("snapshot.json", "checkpoint.json"):
            wait_until(lambda: (m / c.name / file).exists())
            (staged / file).write_bytes((m / c.name / file).read_bytes())
        text = json.loads((m / c.name / "state.json").read_text())
        text["max_turns"] = 1000 + next(NUMBERS)
        (staged / "state.json").write_text(json.dumps(text))
        os.rename(staged, m / name)
        self.script(m, name)
        fork = Checkpoint(name, -next(NUMBERS), c.value, True)
        fork.online, fork.origin, fork.isolated = False, c.origin, c.isolated  # a copy is no way round EXDEV
        self.live.append(fork)

    @precondition(lambda self: len(self.replaced) > 5)
    @rule()
    def tidy(self):
        """Somebody deletes replaced branches in Neon's console: what they held can't be undone any more."""
        self.forget_replaced()

    def forget_replaced(self):
        emulator = self.world.field.first.emulator
        for b in emulator.branches():
            if b["name"].startswith("replaced-") and not b["default"]:
                wait_until(lambda: emulator.console("delete_branch", branch_id=b["id"]).status < 300)
        self.replaced.clear()
        self.world.field.sql(f"UPDATE checkpointfs.restores SET undone_by = {2 ** 62} WHERE undone_by = 0")

    # -- what is true after each step

    @invariant()
    def all_show_the_same(self):
        names = {c.name for c in self.live}
        waiting = {c.name for c in self.live if c.sealed and c.online and c.attempt == "open"}
        newest = max((c for c in self.live if c.sealed and c.online and not c.isolated), key=lambda c: c.seq, default=None)
        for m in self.world.mounts if hasattr(self, "uri") else []:
            wait_until(lambda: {n for n in os.listdir(m.root) if n[0] != "." and n != "latest"} == names)
            for c in self.live:
                so(lambda: m.status(c.name), c.status(), c.name)
            for b in self.branches:
                so(lambda: m.read(f"{b.path()}/status"), b.status(), b.path())
            wait_until(lambda: set(os.listdir(m / ".pending")) == waiting)
            wait_until(lambda: newest is None or shown(lambda: os.readlink(m / "latest")) == newest.name)

    @invariant()
    def the_database_is_right(self):
        if hasattr(self, "uri"):
            with psycopg.connect(self.uri, autocommit=True) as c:
                assert c.execute("select n from t").fetchall() == [(self.value,)]
            for b in [b for b in self.branches if not b.promoted]:
                uri = self.world.mounts[0].root / b.path() / "connection_uri"
                wait_until(uri.exists)
                with psycopg.connect(uri.read_text().strip(), autocommit=True) as c:
                    assert c.execute("select n from t").fetchall() == [(b.value,)]


@pytest.mark.parametrize("part", range(3))
def test_three_mounts_and_the_model_agree(part):
    with Postgres() as server, Field(server, f"model{part}") as field:
        Going.world = World(field)
        try:
            run_state_machine_as_test(Going, settings=settings(
                max_examples=int(os.environ.get("MODEL_EXAMPLES", "14")), stateful_step_count=50, deadline=None, print_blob=True, database=None,
                suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink], report_multiple_bugs=False))
            Going.world.mounts[0].verify_audit()
        finally:
            Going.world.leave()

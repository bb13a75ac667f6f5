"""Killing a mount at every point of an action: CHECKPOINTFS_KILL_AT numbers all that it changes in the store or in Neon, and every start of
an agent, each before and after (fs/actions/point.c).

A `Deed` is one verb: what has to be there, the verb itself, and what must be true whenever it was cut. `enumerate_points` does it again and
again, killed one point later each time, until it comes through. What was cut is settled by the next mount in its place, or by a second one
that lives all the while, in turns."""

import errno
import multiprocessing
import os
import signal
import subprocess
import threading
import time

import psycopg

from emulator import wait_until
from mount import DEADLINE, NAMES
from restoring import World
from woken import Woken

FORK = multiprocessing.get_context("fork")
MOST = 120  # points of one action: more than any has


class Field:
    """An emulator and a store that outlive the mounts on them."""

    def __init__(self, server, name, env=None):
        self.server, self.name, self.env, self.mounts, self.connection = server, name, env, [], None

    def __enter__(self):
        self.owner, store = self.server.store(self.name)
        self.first = Woken(store=store, operation_ms=5, env=self.env,
                           emulator=("--snapshots=100000", "--root-branches=1000", "--branches=1000"))
        self.first.emulator.start()
        return self

    def __exit__(self, *exc):
        for m in self.mounts:  # only a test that failed leaves one, perhaps one that stands still
            if m.process and not m.died():
                m.kill()
            subprocess.run(["fusermount3", "-uzq", m.root], stderr=subprocess.DEVNULL)
        if self.connection:
            self.connection.close()
        self.first.close()

    def mount(self, where="mnt", at=None):
        """A mount there; `at`: the point at which it is killed, `stop:N` where it stops."""
        self.mounts.append(On(self.first, where, {"CHECKPOINTFS_KILL_AT": str(at)} if at else {}))
        return self.mounts[-1].mount()

    def sql(self, statement):
        """Its one value as text, None of a statement that has none. By a connection that is kept: a process for each would be the greater part of a point."""
        for last in (False, True):
            try:
                if not self.connection or self.connection.closed:
                    self.connection = psycopg.connect(self.owner, autocommit=True)
                done = self.connection.execute(statement)
                if not done.description:
                    return None
                (value,) = done.fetchone()
                return {True: "t", False: "f"}[value] if isinstance(value, bool) else str(value)
            except psycopg.OperationalError:  # the store was killed
                self.connection = None
                if last:
                    raise
        return None


class On(Woken):
    """One mount of a field. Its life is its process's: nothing else is closed with it."""

    def __init__(self, first, where, env):
        self.__dict__.update(first.__dict__)
        self.env = first.env | env
        self.root = first.base / where
        self.log = first.base / f"log-{where}"
        self.log_from = self.log.stat().st_size if self.log.exists() else 0
        self.process = None
        try:
            self.root.mkdir()
        except OSError:
            pass  # it is there, or a dead mount is on it

    def reached(self, n):
        """Whether it came to that point, where it was killed or stopped."""
        return f"point {n}: " in self.log.read_text()[self.log_from:]

    def died(self):
        return self.process.poll() is not None

    def leave(self):
        if not self.died():
            self.terminate()


class Deed:
    """`word` names it and its checkpoints."""

    word = ""
    record = True  # afterwards the active branch is Neon's default branch
    partly = False  # whether a failure may have left half of it done: no kill does
    least = 6  # so many points it has at least

    def prepare(self, m, name):
        """What has to be there, with a healthy mount."""

    def act(self, m, name):
        """The verb; OSError is an answer like any other."""

    def check(self, field, m, name, survived):
        """What must be true now that all is settled."""


def act(deed, m, name):
    """In a thread of its own: the mount dies under it."""
    answers = []

    def run():
        try:
            deed.act(m, name)
        except OSError as e:
            answers.append(NAMES.get(e.errno, e.errno))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(120)
    assert not thread.is_alive(), f"{deed.word} hangs: {m.log.read_text()[-3000:]}"
    return answers


def follows(field, m):
    """Waits until the mount has read every change that the store tells of, also after it lost the store for a moment."""
    head = int(field.sql("SELECT n FROM checkpointfs.change_heads"))
    seen = "checkpointfs_changes_read "
    wait_until(lambda: int(float(m.read(".control/metrics").split("\n" + seen)[1].split()[0])) >= head)


def settled(field, m, name, record=True):
    """Nothing is under way, nothing holds the project's turn, every announced name was made once, and the record is what Neon says."""
    wait_until(lambda: field.sql("SELECT count(*) FROM checkpointfs.actions WHERE state IN ('queued', 'running')") == "0", 60)
    follows(field, m)
    try:
        if os.path.isdir(m / name):
            m.wait(name)
    except OSError as e:
        assert e.errno == errno.ESTALE, e  # deleted meanwhile
    assert field.sql("SELECT count(*) FROM checkpointfs.turns t JOIN checkpointfs.actions a ON a.id = t.action_id WHERE a.state IN"
                     " ('queued', 'running')") == "0"
    world = World(m)
    for made in (world.snapshots, world.branches):
        names = [n for n in made.values() if "act-" in n]
        assert len(names) == len(set(names)), names
    assert not record or m.read(".control/active_branch").strip() == world.default
    if os.path.isdir(m / name):
        status = m.status(name)
        assert not status.startswith(("restoring", "agent running", "agent is to")), status
    return world


def enumerate_points(field, deed):
    """Returns how many points the deed has."""
    place, other = "mnt", "mnt2"
    healthy = field.mount(other)
    for n in range(1, MOST):
        name = f"{deed.word}{n}"
        beside = n % 2
        deed.prepare(healthy, name)
        if not beside:
            healthy.leave()
        victim = field.mount(place, n)
        act(deed, victim, name)
        try:
            if os.path.isdir(victim / name):
                victim.wait(name)
        except OSError:
            pass
        survived = not victim.reached(n)
        if not survived:
            victim.process.wait(DEADLINE)
        if survived and not beside:
            healthy = victim
        elif survived:
            victim.leave()
        elif not beside:
            healthy = field.mount(place)
            place, other = other, place
        try:
            settled(field, healthy, name, deed.record)
            deed.check(field, healthy, name, survived)
        except BaseException:
            print(f"== {deed.word}, point {n}, {'taken over by the mount beside' if beside else 'remounted'}")
            for log in sorted(field.first.base.glob("log-*")):
                print(f"-- {log.name}\n{log.read_text()[-6000:]}")
            raise
        if survived:
            healthy.take(f"{deed.word}-after")  # everything goes on
            healthy.verify_audit()
            healthy.leave()
            return n - 1
    raise AssertionError(f"{deed.word} has no end")


def stopped(m):
    """Waits until the mount stands still; False when it has come through instead."""
    def look():
        try:
            return open(f"/proc/{m.process.pid}/stat").read().rsplit(")", 1)[1].split()[0]
        except OSError:
            return "X"

    return look() == "T"


def leave(victim):
    """A deed that came through: its point may lie in the leaving."""
    if not victim.died():
        victim.process.terminate()
    wait_until(lambda: victim.died() or (stopped(victim) and victim.process.send_signal(signal.SIGCONT)), 60)


def each_point_with(field, deed, strike):
    """The mount stops at each point in turn, `strike` kills something else and brings it back, and the mount goes on. Before a change of the
    store it doesn't stop: in it Neon isn't asked, so the emulator would be killed as it is after it; and since the change before it the store
    wasn't asked, so the store would be killed as it was after that."""
    healthy = field.mount("mnt2")
    for n in range(1, MOST):
        name = f"{deed.word}{n}"
        deed.prepare(healthy, name)
        victim = field.mount("mnt", f"stop:{n}")
        # A process of its own: whatever is started here would inherit the file that is open on the stopped mount, and hang in closing it.
        acting = FORK.Process(target=act, args=(deed, victim, name), daemon=True)
        acting.start()
        wait_until(lambda: stopped(victim) or not acting.is_alive(), 60)
        end = time.monotonic() + 5
        while not stopped(victim) and time.monotonic() < end:  # a seal goes on after the last close
            time.sleep(0.02)
        survived = not victim.reached(n)
        if not survived:
            strike()
            victim.process.send_signal(signal.SIGCONT)
        acting.join(150)
        try:
            assert not acting.is_alive(), "it hangs"
            leave(victim)
            settled(field, healthy, name, deed.record)
            deed.check(field, healthy, name, survived)
        except BaseException:
            print(f"== {deed.word}, point {n}")
            for log in sorted(field.first.base.glob("log-*")):
                print(f"-- {log.name}\n{log.read_text()[-6000:]}")
            raise
        if survived:
            healthy.verify_audit()
            healthy.leave()
            return n - 1
    raise AssertionError(f"{deed.word} has no end")

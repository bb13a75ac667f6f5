"""A machine that was suspended wakes with a lease that it doesn't have any more, or has again (design.md §6, §7.5)."""

import os
import re
import signal
import time

import pytest

from emulator import wait_until
from killing import FORK, Field, act, leave, settled, stopped
from deeds import Restore, Take
from postgres import Postgres
from proxied import StoreProxy
from suspended import Machine
from woken import Woken, alive


@pytest.fixture
def machine():
    with Machine() as it:
        yield it


def test_an_agent_survives_when_its_mount_renews_the_lease(machine):
    with Woken(env=machine.env) as m:
        resume = m.hold("works")
        m.process.send_signal(signal.SIGSTOP)
        machine.suspend()
        time.sleep(1)  # the supervisor looks meanwhile; the mount comes later
        m.process.send_signal(signal.SIGCONT)
        m.take("awake")
        m.release("works")
        assert resume.answer() is None and m.status("works") == "finished"


def test_an_agent_is_ended_when_its_mount_does_not_come_back(machine):
    """Sooner than one whose mount has stood still for longer, on a machine that was awake."""
    with Woken() as awake, Woken(env=machine.env) as m:
        mounts = (awake, m)
        resumes = [x.hold("works") for x in mounts]
        (other,), (supervisor,) = (x.agents() for x in mounts)
        try:
            for x in mounts:
                x.process.send_signal(signal.SIGSTOP)
            machine.suspend()
            wait_until(lambda: not alive(supervisor))
            assert alive(other)
        finally:
            for x in mounts:
                x.process.send_signal(signal.SIGCONT)
        assert resumes[1].answer() == "ECANCELED" and "lost its lease" in m.result("works")["message"]
        awake.release("works")
        resumes[0].answer()


def passed(m, what):
    """Numbers of the points of that name that the mount has passed."""
    return [int(n) for n in re.findall(rf"point (\d+): {what}\n", m.log.read_text()[m.log_from:])]


def test_a_mount_that_wakes_does_nothing_that_another_has_taken_over(machine):
    """It stops where it is about to ask Neon for the restore, seconds after its last beat, and an hour goes by."""
    with Postgres() as server, Field(server, "wakes") as field:
        field.first.env = field.first.env | machine.env
        deed, asks = Restore(), "restore snapshot .* as branch .*"
        healthy = field.mount("mnt2")
        deed.prepare(healthy, "counted")
        counting = field.mount("mnt", "stop:0")
        act(deed, counting, "counted")
        at = passed(counting, asks)[0]
        leave(counting)
        deed.prepare(healthy, "restored")
        victim = field.mount("mnt", f"stop:{at}")
        acting = FORK.Process(target=act, args=(deed, victim, "restored"), daemon=True)
        acting.start()
        wait_until(lambda: stopped(victim))
        server.sql("UPDATE checkpointfs.mounts SET beat_at = beat_at - interval '1 hour' WHERE left_at IS NULL AND mountpoint LIKE '%/mnt'",
                   field.owner)
        assert wait_until(lambda: healthy.events_of("restored", "action.taken_over"))
        machine.suspend()
        victim.process.send_signal(signal.SIGCONT)
        acting.join(90)
        settled(field, healthy, "restored")
        assert passed(victim, asks) == [at], "and no answer"
        leave(victim)
        healthy.leave()


def test_a_mount_that_sleeps_in_a_transaction_holds_nobody_up():
    """It has the line's lock, and the store hears nothing more of it."""
    def goes_on(m):
        try:
            os.mkdir(m / "goes on")
        except OSError:
            return False
        return True

    with Postgres() as server, Field(server, "holds") as field, StoreProxy(field.first.store) as proxy:
        direct, field.first.store = field.first.store, proxy.conninfo
        sleeper = field.mount("mnt")
        field.first.store = direct
        other = field.mount("mnt2")
        with proxy.at_commit("INSERT INTO checkpointfs.checkpoints", reaches=False, stalls=True) as cut:
            acting = FORK.Process(target=act, args=(Take(), sleeper, "sleeps"), daemon=True)
            acting.start()
            cut.wait()
            sleeper.process.send_signal(signal.SIGSTOP)
            wait_until(lambda: goes_on(other), 30)
        sleeper.process.send_signal(signal.SIGCONT)
        acting.join(90)
        other.wait("goes on")
        assert sleeper.take("awake") and other.status("goes on").startswith("saved")
        sleeper.leave()
        other.leave()

"""A mount whose store is far away: each answer takes its time, and comes."""

import os

import pytest

from copied import copy_checkpoint
from emulator import wait_until
from killing import Field
from mount import DEADLINE
from postgres import Postgres
from proxied import StoreProxy

MANY = 60  # each is read with a handful of answers, one after the other: together they take longer than a store may be silent
AWAY = 0.02

pytestmark = pytest.mark.timeout(300)


def test_a_store_that_answers_is_not_lost_however_much_there_is_to_read():
    with Postgres() as server, Field(server, "far") as f, StoreProxy(f.first.store, delay=AWAY) as proxy:
        f.first.store = proxy.conninfo
        m = f.mount()
        os.mkdir(m / "first")
        m.wait("first")
        said = set()
        copy_checkpoint(f.owner, "first", MANY, "'copy-' || n", seq="c.seq + 1000000 + n")

        def shown():
            said.update(line for line in m.read(".control/health").splitlines() if line.startswith("store: "))
            return sum(name.startswith("copy-") for name in os.listdir(m.root)) == MANY

        wait_until(shown, 2 * DEADLINE)
        assert said == {"store: ok"} and "the store is lost" not in m.log.read_text()
        m.leave()


def test_wait_says_how_it_ended_also_where_the_change_is_not_heard_of_yet():
    """The store knows that nothing is under way before the mount far away has read what it came to."""
    with Postgres() as server, Field(server, "farwait") as f, StoreProxy(f.first.store, delay=0.1) as proxy:
        near = f.mount("mnt")
        f.first.store = proxy.conninfo
        far = f.mount("mnt2")
        for name in ("one", "two", "three"):
            near.agent(name, "exit 0\n")
            near.take(name)
            wait_until(lambda: (far / name).is_dir() and far.status(name) == "waiting (1 call)")
            assert near.echo(f"{name}/resume", "approve") is None
            assert far.wait(name) == "finished"
        far.leave()
        near.leave()

"""kill -9 of a mount at every point of every action, of neon-emulator and of the store at each too: nothing is done twice, nothing stays
stuck, and what is shown is true. The points are enumerated, not sampled (killing.py). Neon and the store aren't killed at a point which is to
them what the one before is: before a change of the store (each_point_with)."""

import pytest

from branch_deeds import BRANCH_DEEDS
from deeds import Delete, Prune, RefusedCopy, Replay, Restore, Resume, Take, Undo
from killing import Field, each_point_with, enumerate_points
from postgres import Postgres

DEEDS = [Take, RefusedCopy, Restore, Resume, Replay, Delete, Undo, Prune, *BRANCH_DEEDS]
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def server():
    with Postgres() as p:
        yield p


@pytest.mark.parametrize("deed", DEEDS, ids=lambda d: d.word)
def test_the_mount_is_killed_at_each_point(server, deed):
    with Field(server, f"kill_{deed.word.replace('-', '_')}") as field:
        points = enumerate_points(field, deed())
        assert points >= deed.least, points
        print(f"{deed.word}: {points} points")


@pytest.mark.parametrize("deed", DEEDS, ids=lambda d: d.word)
def test_neon_is_killed_at_each_point(server, deed):
    with Field(server, f"neon_{deed.word.replace('-', '_')}") as field:

        def strike():
            field.first.emulator.kill9()
            field.first.emulator.start()

        print(f"{deed.word}: {each_point_with(field, deed(), strike)} points")


@pytest.mark.parametrize("deed", DEEDS, ids=lambda d: d.word)
def test_the_store_is_killed_at_each_point(deed):
    with Postgres() as own, Field(own, f"store_{deed.word.replace('-', '_')}") as field:

        def strike():
            own.kill9()
            own.start()

        print(f"{deed.word}: {each_point_with(field, deed(), strike)} points")

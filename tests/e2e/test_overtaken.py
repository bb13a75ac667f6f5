"""Somebody restores in Neon's console while a restore, an undo or a promote waits to finalize: only the active branch is replaced, and the
record never says that another one is active (design.md §5)."""

import os

import pytest
from emulator import wait_until
from restoring import FINALIZE, World, active, bare, console_restore, put, quiet, recovered, restore, rows, snapshot_of, tidy, unbranch
from woken import Woken


def restoring(m, name):
    return f"{name}/restore", "in-place"


def undoing(m, name):
    restore(m, name)
    put(m, 4)
    return ".control/undo", "undo"


def promoting(m, name):
    """Its own restore is finalized."""
    assert m.echo(f"{name}/restore", "branch b") is None, m.result(name)
    return f"{name}/branches/b/promote", "promote"


def promoting_anew(m, name):
    """A snapshot of it is restored."""
    file, words = promoting(m, name)
    restore(m, name)
    put(m, 4)
    return file, words


VERBS = [restoring, undoing, promoting, promoting_anew]


@pytest.fixture(scope="module")
def m():
    """A mount of the branch that NEON_BRANCH_ID names: it takes whatever the record says."""
    with Woken() as mount:
        yield mount


@pytest.fixture(autouse=True)
def clean(request):
    yield
    if "m" not in request.fixturenames:
        return
    m = request.getfixturevalue("m")
    recovered(m)
    if active(m) != World(m).default:
        assert m.echo(".control/adopt", f"adopt {World(m).default}") is None, m.read(".control/result")
    unbranch(m)
    tidy(m)


class Waiting:
    """The verb, with its request to finalize held up by `fault`; `console` is the checkpoint that somebody restores meanwhile."""

    def __init__(self, m, verb, fault):
        self.m, name = m, f"{verb.__name__} {fault.split('*')[0].replace(':', ' ')} {len(os.listdir(m.root))}"
        self.console = f"{name}, console"
        put(m, 1)
        bare(m, self.console)
        self.snapshot = snapshot_of(m, self.console)
        put(m, 2)
        bare(m, name)
        put(m, 3)
        self.file, words = verb(m, name)
        self.dir = os.path.dirname(self.file)
        self.before = World(m)
        m.emulator.fault(f"{FINALIZE}={fault}")
        assert m.echo(self.file, f"nowait {words}") is None
        self.action = m.json(f"{self.dir}/result")["action"]
        wait_until(lambda: m.emulator.control("GET", "faults").json["met"], 60)

    def overtake(self):
        self.theirs = console_restore(self.m, self.snapshot)

    def ended(self):
        """How the action ended, in its document."""
        path = f".control/actions/{self.action}.json"
        return wait_until(lambda: self.m.json(path) if self.m.json(path)["state"] not in ("queued", "running") else None, 60)

    def check_refused(self):
        m, ended = self.m, self.ended()
        assert (ended["state"], ended["errno"]) == ("failed", "ESTALE"), ended
        assert f"adopt {self.theirs}" in ended["message"], ended
        quiet(m)
        wait_until(lambda: set(World(m).branches) == set(self.before.branches) | {self.theirs}, 60)
        assert set(World(m).snapshots) == set(self.before.snapshots), "nothing is left"
        self.check_record()

    def check_record(self):
        """It is what it was, and says so; what the console did can be adopted."""
        m = self.m
        assert active(m) == self.before.default and World(m).default == self.theirs
        assert m.echo(f"{self.console}/restore", "in-place") == "ESTALE"
        assert f"adopt {self.theirs}" in m.result(self.console)["message"]
        assert active(m) == self.before.default and World(m).default == self.theirs
        assert m.echo(".control/adopt", f"adopt {self.theirs}") is None, m.read(".control/result")
        assert rows(m) == [1]
        restore(m, self.console)


@pytest.mark.parametrize("verb", VERBS)
def test_while_the_project_is_locked(m, verb):
    w = Waiting(m, verb, "423*inf")
    w.overtake()
    m.emulator.control("DELETE", "faults")
    w.check_refused()


@pytest.mark.parametrize("verb", VERBS)
def test_while_no_mount_goes_on(m, verb):
    w = Waiting(m, verb, "423*inf")
    m.kill()
    w.overtake()
    m.emulator.control("DELETE", "faults")
    m.mount()
    w.check_refused()


@pytest.mark.parametrize("verb", VERBS)
def test_with_the_request_on_its_way(m, verb):
    """Too late to be refused: it puts another branch in the place of what is no longer active, and no one is told that it is."""
    w = Waiting(m, verb, "delay:15000")
    w.overtake()
    ended = w.ended()
    assert ended["errno"] == "ESTALE" and f"adopt {w.theirs}" in ended["message"], ended
    w.check_record()


def test_of_the_default_branch():
    """A mount that follows the project's default branch."""
    with Woken(env={"NEON_BRANCH_ID": ""}) as m:
        w = Waiting(m, restoring, "423*inf")
        w.overtake()
        m.emulator.control("DELETE", "faults")
        w.check_refused()

"""Every fault that neon-emulator can inject, at every call of every action: success, or a clean failure with its reason; never a hang, never
twice. A first round lists the calls that the action makes; then each is met by each fault in a round of its own. Of the looks at one operation,
which go on until it has settled, the first two are met: the others find what the second finds. A call that changes nothing isn't met by the
faults of what it would have made (`op:`, `late:`; `drop-after` is `drop-before` there). What is tried again is tried again soon, as
CHECKPOINTFS_HURRY says. A resume on a branch and an import make no call at all."""

import itertools
import os
import re

import pytest

from branch_deeds import Adopt, Branch, BranchReplay, BranchResume, Import, Promote, PromoteAnew
from deeds import Delete, Prune, RefusedCopy, Replay, Restore, Resume, Take, Undo
from killing import Field, act, settled
from postgres import Postgres

# Into how many tests a deed's faults are spread: every snapshot is a copy of a cluster, and hundreds in one field are more than a machine has.
DEEDS = {Take: 2, RefusedCopy: 2, Restore: 3, Resume: 1, Delete: 1, Replay: 3, Undo: 5, Branch: 3, BranchReplay: 3, Promote: 2, PromoteAnew: 5,
         Adopt: 1, Prune: 2}
ANY_CALL = ["423", "429", "500", "503", "524", "delay:300", "drop-before", "truncate", "malformed"]
CHANGES = ["drop-after", "op:failed:no disk", "op:error:no disk", "op:cancelled", "op:skipped", "late:700"]
FAULTS = ANY_CALL + CHANGES
LOOK = "GET:/projects/*/operations/*"
LOOKS = 2
# What the mount's own rounds ask for too, now and then: one more of these in the first round need not be the action's.
BESIDE = ("GET:/projects/*/connection_uri=", "GET:/projects/*/snapshots=", "GET:/projects/*/branches=")
NUMBERS = itertools.count(1)
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def server():
    with Postgres() as p:
        yield p


@pytest.fixture
def field(server):
    with Field(server, f"faults_{next(NUMBERS)}", env={"CHECKPOINTFS_HURRY": "1"}) as f:
        yield f


class Told:
    """What a deed checks, of an action that may have failed without anybody being killed."""

    def __init__(self, deed):
        self.deed = deed

    def outcome(self, field, m, name, fault, answers):
        row = field.sql(f"SELECT state || ' ' || coalesce(message, '') FROM checkpointfs.actions WHERE kind <> 'cancel'"
                        " ORDER BY id DESC LIMIT 1")
        state, _, message = row.partition(" ")
        assert state in ("done", "failed", "refused"), row
        if state != "done":
            assert message, f"{fault}: a failure says why"
            assert answers or isinstance(self.deed, Take) or (m / name / "status").exists(), (row, answers)
        return state == "done"


def kind_of(request):
    """METHOD:/projects/*/branches/*/…: what the call is, whatever it is about."""
    return re.sub(r"/(projects|branches|snapshots|operations|endpoints)/[^/]+", r"/\1/*", request)


def performed(deed, m, name, rules):
    """Does it under these rules; returns what the caller was told, and the requests that met a rule."""
    deed.prepare(m, name)
    m.emulator.fault(rules)
    answers = act(deed, m, name)
    if os.path.isdir(m / name):
        m.wait(name)
    met = m.emulator.control("GET", "faults").json["met"]
    m.emulator.control("DELETE", "faults")
    return answers, met


def calls_of(requests):
    """The place of each call, as it is written in a rule, `{}` for the fault."""
    places, counts, before, looks = [], {}, None, 0
    for kind in map(kind_of, requests):
        if kind != LOOK:
            counts[kind] = counts.get(kind, 0) + 1
            before, looks = f"{kind}@{counts[kind]}>", 0
            places.append(f"{kind}={{}}@{counts[kind]}")
        elif before and looks < LOOKS:
            looks += 1
            places.append(f"{before}{LOOK}={{}}@{looks}")
    return places


def beside(place):
    """What the mount's own rounds ask for at any time, and looks that happened to follow it."""
    return re.split("[@=]", place)[0] + "=" in BESIDE


def met_by(place, fault):
    return fault in ANY_CALL or not place.rsplit(">", 1)[-1].startswith("GET:")


def round_of(field, m, deed, name, rules, what):
    answers, met = performed(deed, m, name, rules)
    try:
        settled(field, m, name, deed.record)
        done = Told(deed).outcome(field, m, name, what, answers)
        deed.check(field, m, name, done and not answers)
    except BaseException:
        print(f"== {deed.word}: {what}: {answers}\n{m.log.read_text()[-3000:]}")
        raise
    return done, met


@pytest.mark.parametrize("deed, part, parts", [pytest.param(d, i, n, id=f"{d.word}-{i + 1}of{n}") for d, n in DEEDS.items() for i in range(n)])
def test_at_every_call(field, deed, part, parts):
    deed = deed()
    deed.partly = True
    m = field.mount("mnt")
    try:
        done, requests = round_of(field, m, deed, f"{deed.word}-0", "*:*=delay:0*inf", "no fault")
        places = calls_of(requests)
        assert done and places
        rounds = [(place, fault) for place in places for fault in FAULTS if met_by(place, fault)][part::parts]
        missed = {}
        for n, (place, fault) in enumerate(rounds, 1):
            done, met = round_of(field, m, deed, f"{deed.word}-{n}", place.format(fault), place.format(fault))
            assert done or met
            missed.setdefault(place, []).append(not met)
        never = {place for place, some in missed.items() if all(some)}
        assert not [place for place in never if not beside(place)], "the action doesn't make that call each time"
        for n in range(3 if never else 0):  # what it does make each time is in all of these, and was met by no fault
            done, requests = round_of(field, m, deed, f"{deed.word}-again-{n}", "*:*=delay:0*inf", "no fault")
            assert done
            never &= set(calls_of(requests))
        assert not never, "the action makes that call, and no fault has met it"
        print(f"{deed.word}: {len(places)} calls, {len(rounds)} rounds, {sum(map(sum, missed.values()))} without their fault")
    finally:
        m.leave()


@pytest.mark.parametrize("deed", [BranchResume, Import], ids=lambda d: d.word)
def test_what_makes_no_call(field, deed):
    m = field.mount("mnt")
    calls = None
    try:
        for n in range(5):  # what it makes is in all rounds, what the mount's own rounds ask for isn't
            done, requests = round_of(field, m, deed(), f"{deed.word}-{n}", "*:*=delay:0*inf", "no fault")
            made = {place for place in calls_of(requests) if not calls or place in calls}
            assert done and not [place for place in made if not beside(place)], requests
            calls = made
            if not calls:
                return
        raise AssertionError(f"it makes calls: {calls}")
    finally:
        m.leave()

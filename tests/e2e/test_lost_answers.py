"""The store goes away just when it has committed, and before it says so: whoever waits hears what is true, nothing is done twice, and the
mount lives on (design.md §7.5)."""

import errno
import json
import os
import threading

import pytest

from branch_deeds import Adopt, Branch, BranchReplay, BranchResume, Promote, isolated, write
from deeds import COPY, Delete, Prune, Replay, Restore, Resume, Take, Undo, named
from emulator import wait_until
from killing import Field, act, settled
from postgres import Postgres
from proxied import StoreProxy
from restoring import World, restore
from woken import Writing

STEP = r"SET step = coalesce\("  # store_action_step
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def field():
    with Postgres() as server, Field(server, "lost") as f, StoreProxy(f.first.store) as proxy:
        f.first.store, f.proxy = proxy.conninfo, proxy
        f.m = f.mount()
        yield f
        f.m.leave()


class DryRun(Restore):
    word = "dry-run"

    def act(self, m, name):
        with open(m / name / "restore", "wb", buffering=0) as f:
            f.write(b"dry-run\n")

    def check(self, field, m, name, survived):
        assert m.result(name)["state"] == "done" and m.result(name)["would"]


class Acting(threading.Thread):
    """The verb, in a thread of its own. `answers()`: the errno that it was answered with, in a list."""

    def __init__(self, deed, m, name):
        super().__init__(daemon=True)
        self.what, self.got = (deed, m, name), None
        self.start()

    def run(self):
        self.got = act(*self.what)

    def answers(self):
        self.join(150)
        assert self.got is not None
        return self.got


def waits(m, since):
    """The mount has met the loss: it lives, and says in the log that it waits."""
    def look():
        assert not m.died(), m.log.read_text()[since:]
        return "waits for the store: " in m.log.read_text()[since:]

    wait_until(look)


def done_though_lost(field, deed, name, words):
    """The deed, while the store is lost at that COMMIT. Returns where the log began."""
    deed, m = deed(), field.m
    deed.prepare(m, name)
    since = m.log.stat().st_size
    with field.proxy.at_commit(words) as cut:
        acting = Acting(deed, m, name)
        cut.wait()
        waits(m, since)
    assert acting.answers() == []
    settled(field, m, name, deed.record)
    deed.check(field, m, name, True)
    return since


# ---- what was claimed is journalled -------------------------------------------------------------------------------------------

BEGUN = [DryRun, Restore, Resume, Replay, Delete, Undo, Branch, BranchReplay, BranchResume, Promote, Adopt]


@pytest.mark.parametrize("deed", BEGUN, ids=lambda d: d.word)
def test_a_store_that_is_lost_behind_the_claim_is_waited_for(field, deed):
    done_though_lost(field, deed, f"{deed.word}-step", STEP)


@pytest.mark.parametrize("words", [STEP, "SET state = "], ids=["begun", "settled"])
def test_a_store_that_is_lost_in_a_cancel_is_waited_for(field, words):
    m, name = field.m, f"cancel-{len(words)}"
    waking = m.hold(name, """trap 'until [ -e "$AGENTS/$CHECKPOINT_NAME.end" ]; do sleep 0.05; done; exit 1' TERM; hold""")
    since = m.log.stat().st_size
    with field.proxy.at_commit(words) as cut:
        cancel = Writing(m, f"{name}/cancel", "cancel")
        cut.wait()
        waits(m, since)
    (m.scripts / f"{name}.end").touch()  # not before: else it is its end that meets the loss, and the cancel's claim what comes after
    assert cancel.answer() is None and waking.answer() is not None
    settled(field, m, name)
    assert m.status(name).startswith("failed resume: ")
    assert [e["event"] for e in m.events_of(name) if "cancel" in e["event"]] == ["cancel.requested", "cancel.finished"]


@pytest.mark.parametrize("words", [STEP, "SET state = "], ids=["begun", "settled"])
def test_a_copy_is_answered_while_its_snapshot_waits_for_the_store(field, words):
    """The kernel holds the directory's lock meanwhile."""
    m, name = field.m, f"copied-{len(words)}"
    os.mkdir(m / name)
    m.wait(name)
    since = m.log.stat().st_size
    with field.proxy.at_commit(words) as cut:
        with pytest.raises(OSError) as refused:
            open(m / name / "checkpoint.json", "w")
        assert refused.value.errno == errno.EPERM
        cut.wait()
        waits(m, since)
    settled(field, m, name)
    assert m.status(name).startswith(COPY) and not named(World(m), name)
    assert [e["event"] for e in m.events_of(name)][-1] == "delete.finished"
    os.rmdir(m / name)


# ---- what may not have been claimed -------------------------------------------------------------------------------------------

CLAIM = r"INSERT INTO checkpointfs\.actions"


def unanswered(field, deed, name, m, stalls=False):
    """The verb was refused, for its claim wasn't answered: nothing is ever done in Neon."""
    deed.prepare(m, name)
    before = World(m)
    with field.proxy.at_commit(CLAIM, stalls=stalls) as cut:
        acting = Acting(deed, m, name)
        cut.wait()
        assert acting.answers() == ["EIO"]
    return before


@pytest.mark.parametrize("deed", [*BEGUN, Prune], ids=lambda d: d.word)
def test_a_verb_that_was_answered_with_an_error_is_never_carried_out(field, deed):
    deed, m, name = deed(), field.m, f"{deed.word}-claim"
    before = unanswered(field, deed, name, m, stalls=deed.word in ("restore", "prune"))
    settled(field, m, name, deed.record)
    assert World(m) == before
    of = "" if deed.word in ("undo", "adopt", "prune") else f" AND k.name = '{name}'"
    assert "write it again" in field.sql("SELECT a.message FROM checkpointfs.actions a LEFT JOIN checkpointfs.checkpoints k"
                                         f" ON k.id = a.checkpoint_id WHERE a.kind <> 'take'{of} ORDER BY a.id DESC LIMIT 1")
    if deed.word != "dry-run":
        deed.check(field, m, name, False)


def test_a_cancel_took_effect_before_its_claim(field):
    m, name = field.m, "cancel-claim"
    waking = m.hold(name)
    with field.proxy.at_commit(CLAIM) as cut:
        cancel = Writing(m, f"{name}/cancel", "cancel")
        cut.wait()
        assert cancel.answer() == "EIO"
    assert waking.answer() is not None
    settled(field, m, name)
    assert m.status(name) == "failed resume: cancelled"
    state, message = field.sql("SELECT state || ' ' || message FROM checkpointfs.actions WHERE kind = 'cancel' ORDER BY id DESC"
                               " LIMIT 1").split(" ", 1)
    assert state == "done" and "told to end" in message and "nothing was done" not in message


def test_nor_is_it_by_another_mount(field):
    """Which takes over from one that is cut off from the store for too long."""
    deed, name = Restore(), "elsewhere"
    deed.prepare(field.m, name)
    before = World(field.m)
    over, field.first.store = field.first.store, field.proxy.direct
    other = field.mount("mnt2")
    field.first.store = over
    with field.proxy.at_commit(CLAIM) as cut:
        acting = Acting(deed, field.m, name)
        cut.wait()
        assert acting.answers() == ["EIO"]
        settled(field, other, name)
    assert World(other) == before and "write it again" in other.result(name)["message"]
    deed.check(field, other, name, False)
    other.leave()
    settled(field, field.m, name)


def test_a_branch_that_was_never_begun_says_so(field):
    m, name = field.m, "unbegun"
    unanswered(field, Branch(), name, m)
    settled(field, m, name)
    assert m.read(f"{name}/branches/b/status").startswith("failed restore: nobody was told that it was begun")
    os.rmdir(m / name / "branches/b")
    assert m.echo(f"{name}/restore", "branch b") is None


# ---- what is done ----------------------------------------------------------------------------------------------------------------

class DeleteBranch(Branch):
    word = "delete-branch"

    def prepare(self, m, name):
        super().prepare(m, name)
        isolated(m, name)

    def act(self, m, name):
        write(m, ".control/prune", f"delete {name}/branches/b")

    def check(self, field, m, name, survived):
        assert not os.listdir(m / name / "branches") and not named(World(m), name, "branches")


DONE = [(Take, "SET phase = 'saved'"), (Delete, "DELETE FROM checkpointfs.checkpoints"),
        (DeleteBranch, "DELETE FROM checkpointfs.isolated_branches"), (Prune, r"plan_items SET outcome = \$3"),
        (Restore, "INSERT INTO checkpointfs.restores"), (Undo, "INSERT INTO checkpointfs.line_branches"), (Branch, "SET state = 'ready'"),
        (Promote, "INSERT INTO checkpointfs.restores"), (Adopt, "INSERT INTO checkpointfs.restores")]


@pytest.mark.parametrize("deed, words", DONE, ids=lambda x: getattr(x, "word", ""))
def test_what_is_done_is_answered_so(field, deed, words):
    """Though the store was lost before it said that it has recorded it."""
    since = done_though_lost(field, deed, f"{deed.word}-done", words)
    assert "may be left in Neon" not in field.m.log.read_text()[since:]


def test_a_replaced_branch_is_deleted_once_in_the_log(field):
    """Killed while the store doesn't say that it has recorded it."""
    m, name = field.m, "replaced"
    before = World(m).default
    m.take(name)
    restore(m, name)
    with field.proxy.at_commit("line_branches SET gone = true") as cut:
        Writing(m, ".control/prune", f"delete {before}")
        cut.wait()
        m.kill()
    field.m = m = field.mount()
    settled(field, m, name)
    assert before not in World(m).branches
    events = [e for e in map(json.loads, m.read(".control/events.jsonl").splitlines()) if e.get("branch") == before]
    assert [e["event"] for e in events if e["event"] == "branch.deleted"] == ["branch.deleted"]
    assert field.sql("SELECT state FROM checkpointfs.actions WHERE kind = 'prune' ORDER BY id DESC LIMIT 1") == "done"

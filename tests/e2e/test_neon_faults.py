"""Neon's faults at every call of take, restore and delete: each ends in success exactly once, or in a failure with everything as it
was before (design.md §7.5; reference/neon-api.md §1.3, §8)."""

import os

import pytest
from emulator import Emulator, wait_until
from mount import Mount, STATE
from restoring import (DELETE, DELETE_BRANCH, FINALIZE, OPERATION, RESTORE, SNAPSHOT, World, active, bare, put, quiet, restore,
                       restored_once, rows, tidy)

BRANCHES, BRANCH = "GET:/projects/*/branches", "GET:/projects/*/branches/*"
ENDPOINTS, SNAPSHOTS = "GET:/projects/*/branches/*/endpoints", "GET:/projects/*/snapshots"
URI, OPERATIONS = "GET:/projects/*/connection_uri", "GET:/projects/*/operations"
SHORT = {SNAPSHOT: "snapshot", RESTORE: "restore", FINALIZE: "finalize", DELETE: "delete", BRANCHES: "branches", BRANCH: "branch",
         ENDPOINTS: "endpoints", SNAPSHOTS: "snapshots", URI: "uri", OPERATION: "operation", OPERATIONS: "operations"}

# what a mutation gets over, and what it doesn't
BORNE = ["423*3", "429*2", "503*2", "drop-before", "drop-after", "truncate", "malformed", "late:1200", "late:3000+drop-after", "op:skipped"]
FATAL = [("op:error:disk on fire", "EIO", "disk on fire"), ("op:cancelled:by an operator", "EIO", "by an operator"),
         ("403", "EACCES", "403"), ("400", "EINVAL", "400")]


def name_of(value):
    return SHORT.get(value, value if isinstance(value, str) else None)


def inject(m, route, fault):
    """`a+b` is both on the same request."""
    for one in fault.split("+"):
        m.emulator.fault(f"{route}={one}")


def left(m):
    return m.emulator.control("GET", "faults").json["faults"]


def delete(m, name):
    return m.echo(".control/prune", f"delete {name}")


@pytest.fixture(scope="module")
def m():
    with Mount() as mount:
        put(mount, 1)
        bare(mount, "source")
        yield mount


@pytest.fixture(autouse=True)
def clean(request):
    yield
    if "m" in request.fixturenames:
        tidy(request.getfixturevalue("m"))


@pytest.fixture
def name(request, m):
    """A checkpoint name of the test's own; what is left of it is deleted."""
    chosen = "x-" + "".join(c if c.isalnum() else "-" for c in request.node.name)[-50:]
    yield chosen
    m.emulator.control("DELETE", "faults")
    if (m / chosen).exists():
        m.wait(chosen)
        if m.status(chosen).startswith("failed take"):
            os.rmdir(m / chosen)
        else:
            assert delete(m, chosen) is None


def taken_once(m, before, name):
    now = World(m)
    new = set(now.snapshots) - set(before.snapshots)
    assert len(new) == 1 and set(before.snapshots) < set(now.snapshots)
    assert new == {m.json(f"{name}/snapshot.json")["id"]}
    assert now.snapshots[new.pop()].startswith(name[:30])
    assert (now.branches, now.default, now.endpoints) == (before.branches, before.default, before.endpoints)


# -- mutations


# a lost answer costs some seconds of looking for what may have been made: once for each mutation is enough
@pytest.mark.parametrize("fault", BORNE)
def test_a_take_gets_over(m, name, fault):
    before = World(m)
    inject(m, SNAPSHOT, fault)
    m.take(name)
    assert not left(m)
    assert m.status(name) == "waiting (1 call)"
    wait_until(lambda: set(World(m).snapshots) != set(before.snapshots))  # `late`
    taken_once(m, before, name)


@pytest.mark.parametrize("fault, code, text", FATAL)
def test_a_take_fails(m, name, fault, code, text):
    before = World(m)
    inject(m, SNAPSHOT, fault)
    os.mkdir(m / name)
    status = m.wait_status(name, "failed take: ")
    assert text in status
    assert m.result(name)["errno"] == code and text in m.result(name)["message"]
    assert World(m) == before
    m.emulator.control("DELETE", "faults")
    (m / name / "state.json").write_bytes(STATE.read_bytes())
    m.wait_status(name, "waiting (1 call)")
    taken_once(m, before, name)


@pytest.mark.parametrize("route", [RESTORE, FINALIZE], ids=name_of)
@pytest.mark.parametrize("fault", [*BORNE, "524"])
def test_a_restore_gets_over(m, route, fault):
    if route == FINALIZE and fault.startswith("late"):
        fault = "drop-after+delay:300"
    put(m, 2)
    before = World(m)
    inject(m, route, fault)
    restore(m, "source")
    assert not left(m)
    assert rows(m) == [1]
    restored_once(m, before, "source")


@pytest.mark.parametrize("route", [RESTORE, FINALIZE], ids=name_of)
@pytest.mark.parametrize("fault, code, text", FATAL)
def test_a_restore_fails_and_nothing_has_changed(m, route, fault, code, text):
    put(m, 2)
    before = World(m)
    inject(m, route, fault)
    assert m.echo("source/restore", "in-place") == code
    assert text in m.result("source")["message"] and m.result("source")["errno"] == code
    assert m.status("source").startswith("failed restore: ") and text in m.status("source")
    assert rows(m) == [2] and active(m) == before.default
    assert World(m) == before, "the branch made for it is deleted again"
    m.emulator.control("DELETE", "faults")
    restore(m, "source")
    assert rows(m) == [1]


@pytest.mark.parametrize("fault", [f for f in BORNE if not f.startswith("late")])
def test_a_delete_gets_over(m, name, fault):
    before = World(m)
    bare(m, name)
    inject(m, DELETE, fault)
    assert delete(m, name) is None
    assert not (m / name).exists() and not left(m)
    assert World(m) == before


@pytest.mark.parametrize("fault, code, text", FATAL)
def test_a_delete_fails_and_the_checkpoint_is_there(m, name, fault, code, text):
    bare(m, name)
    before = World(m)
    inject(m, DELETE, fault)
    assert delete(m, name) == code
    assert text in m.result(name)["message"]
    assert m.read(".control/result") == m.read(f"{name}/result"), "beside the file that it was written to"
    assert os.stat(m / ".control/result").st_size == len(m.read(".control/result"))
    assert m.status(name) == "saved (database only)" and World(m) == before
    m.emulator.control("DELETE", "faults")
    restore(m, name)


def test_an_operation_that_neon_says_it_may_retry(m):
    """`failed` is no end: Neon may run it again; one that stays so is."""
    before = World(m)
    m.emulator.fault(f"{FINALIZE}=op:failed:no room")
    assert m.echo("source/restore", "in-place") == "EIO"
    assert "no room" in m.result("source")["message"] and World(m) == before


def test_a_mutation_that_never_works(m):
    before = World(m)
    m.emulator.fault(f"{FINALIZE}=500*inf")
    assert m.echo("source/restore", "in-place") == "EIO"
    message = m.result("source")["message"]
    assert "500" in message and "request id" in message
    assert World(m) == before


def test_a_branch_that_can_not_be_deleted_again_is_named(m):
    before = World(m)
    m.emulator.fault(f"{FINALIZE}=op:error:broken,{DELETE_BRANCH}=400*inf")
    assert m.echo("source/restore", "in-place") == "EIO"
    extra = set(World(m).branches) - set(before.branches)
    assert len(extra) == 1
    message = m.result("source")["message"]
    assert "broken" in message and World(m).branches[extra.pop()] in message and "delete" in message


# -- what is only read


@pytest.mark.parametrize("fault", ["500*2", "429", "drop-before", "malformed"])
@pytest.mark.parametrize("route", [BRANCHES, BRANCH, ENDPOINTS, URI, OPERATION], ids=name_of)
def test_reads_of_a_restore(m, route, fault):
    put(m, 2)
    before = World(m)
    m.emulator.fault(f"{route}={fault}")
    answer = m.echo("source/restore", "in-place")
    m.emulator.control("DELETE", "faults")
    if answer is None:
        assert rows(m) == [1]
        restored_once(m, before, "source")
    else:
        assert fault == "malformed" and answer == "EPROTO" and route in (BRANCHES, ENDPOINTS), m.result("source")
        assert rows(m) == [2] and World(m) == before


@pytest.mark.parametrize("fault", ["500", "malformed"])
@pytest.mark.parametrize("route", [BRANCHES, ENDPOINTS, SNAPSHOTS, OPERATION], ids=name_of)
def test_reads_of_a_take(m, name, route, fault):
    before = World(m)
    m.emulator.fault(f"{route}={fault}")
    os.mkdir(m / name)
    status = wait_until(lambda: m.status(name) if m.status(name) != "writing" else None, 60)
    m.emulator.control("DELETE", "faults")
    if status.startswith("failed take"):
        assert fault == "malformed" and World(m) == before, m.result(name)
    else:
        assert status == "saved (database only)"
        taken_once(m, before, name)


@pytest.mark.parametrize("route", [BRANCH, URI, OPERATION, SNAPSHOTS], ids=name_of)
def test_what_has_begun_in_neon_is_carried_through_an_outage(m, name, route):
    """Nobody knows better than to wait: whoever waits may leave (Ctrl-C), the action goes on."""
    put(m, 2)
    before = World(m)
    m.emulator.fault(f"{route}=malformed*5")
    if route == SNAPSHOTS:
        m.take(name)
        taken_once(m, before, name)
    else:
        restore(m, "source")
        restored_once(m, before, "source")


# -- a second copy, where Neon should not keep names apart


def asked_twice(m, route, act):
    """Does `act(NAME)` until what was asked for is shown only after it has been looked for in vain and was asked for again: it is looked for
    so often, which takes longer on a busy machine. Returns the name, and what Neon held before."""
    for late in (4000, 20000, 100000):
        name, before = f"twice-{late}", World(m)
        m.emulator.fault(f"{route}=delay:0*inf")  # to count them
        inject(m, route, f"late:{late}+drop-after")
        act(name)
        asked = m.emulator.control("GET", "faults").json["met"]
        m.emulator.control("DELETE", "faults")
        if len(asked) > 1:
            return name, before
    raise AssertionError("it wasn't asked for again")


@pytest.mark.timeout(600)
def test_a_second_copy_is_found_and_deleted():
    with Mount(emulator=("--lenient-names",)) as m:
        put(m, 1)
        name, before = asked_twice(m, SNAPSHOT, m.take)
        wait_until(lambda: m.log.read_text().count(" is deleted") == 1, 170)
        wait_until(lambda: len(World(m).snapshots) == len(before.snapshots) + 1)
        taken_once(m, before, name)
        put(m, 2)
        _, before = asked_twice(m, RESTORE, lambda _: restore(m, name))
        wait_until(lambda: m.log.read_text().count(" is deleted") == 2, 170)
        wait_until(lambda: len(World(m).branches) == len(before.branches) + 1)
        restored_once(m, before, name)
        assert rows(m) == [1]


# -- Neon away, or not for this key


def gone(m, *more):
    """What the verbs say now; everything can still be read."""
    assert m.read("known/transcript.md") and (m / "known/state.json").read_bytes() == STATE.read_bytes()
    assert "known" in os.listdir(m.root)
    answer = m.echo("known/restore", "in-place")
    status = m.status("known")
    os.mkdir(m / "lost")
    assert m.wait_status("lost", "failed take: ")
    reason = m.result("lost")["errno"]
    os.rmdir(m / "lost")
    assert answer == reason
    for path, line in more:
        assert m.echo(path, line) == answer
    assert status.startswith("failed restore: ")
    return answer


def test_neon_away_at_the_start_and_back():
    """Without NEON_BRANCH_ID: the store knows one line of the project, and that is the one."""
    with Mount() as m:
        put(m, 1)
        m.take("known")
        m.unmount()
        del m.emulator.env["NEON_BRANCH_ID"]
        m.emulator.stop()
        m.mount()
        assert m.status("known") == "waiting (1 call)"
        assert m.read(".control/active_branch").strip() == m.json("known/snapshot.json")["branch_id"]
        assert gone(m) == "ECONNREFUSED"
        assert "can't" in m.read(".control/health") or "refused" in m.read(".control/health")
        env = dict(m.emulator.env)
        m.emulator.start()
        assert m.emulator.env["NEON_API_HOST"] == env["NEON_API_HOST"]
        restore(m, "known")
        assert rows(m) == [1]
        wait_until(lambda: "neon_api: reachable" in m.read(".control/health"))  # a look in the background may have begun before


def test_a_key_that_is_revoked():
    with Mount() as m:
        put(m, 1)
        m.take("known")
        before = World(m)
        key = m.emulator.env["NEON_API_KEY"]
        m.emulator.restart("--api-key=another")
        assert gone(m, (".control/prune", "delete known")) == "EACCES"
        message = m.result("known")["message"]
        assert "NEON_API_KEY" in message and key not in message and key not in m.log.read_text()
        assert World(m) == before
        m.emulator.restart(f"--api-key={key}")
        restore(m, "known")


def test_a_wrong_key_at_the_start():
    with Emulator(operation_ms=5) as e:
        e.env["NEON_API_KEY"] = "wrong"
        m = Mount(env=dict(e.env))
        m.emulator = None
        with pytest.raises(AssertionError) as caught:
            m.mount()
        assert "exited 1" in str(caught.value) and "NEON_API_KEY" in str(caught.value) and "401" in str(caught.value)
        m.close()


def test_neon_goes_away_in_the_middle_of_a_restore_and_comes_back():
    """kill -9 of the emulator while its operations run."""
    with Mount(operation_ms=200) as m:
        put(m, 1)
        bare(m, "through")
        put(m, 2)
        before = World(m)
        m.emulator.fault(f"{FINALIZE}>{OPERATION}=delay:600000")  # so that the mount doesn't see them end before the kill
        assert m.echo("through/restore", "nowait in-place") is None
        m.wait_status("through", "restoring 5/5")
        m.emulator.kill9()
        m.emulator.start()
        status = m.wait("through")
        quiet(m)
        if status == "saved (database only)":
            restored_once(m, before, "through")
            assert rows(m) == [1]
        else:  # the emulator gave its operation up
            assert status.startswith("failed restore: ") and World(m) == before and rows(m) == [2]


def test_a_store_inside_the_project_is_refused_at_the_start():
    with Mount() as m:
        m.unmount()
        store = f"--store={m.emulator.url}"
        m.dir = m.base / "unused"
        m.command = lambda *more: [c if not c.startswith("--store=") else store for c in Mount.command(m, *more)]
        migrate = os.spawnv(os.P_WAIT, Mount.command(m)[0], ["checkpointfs", "migrate", store])
        assert migrate == 0
        with pytest.raises(AssertionError) as caught:
            m.mount()
        assert "exited 1" in str(caught.value) and "restore would roll it back" in str(caught.value)
        assert m.emulator.endpoints()[0]["id"] in str(caught.value)
        assert m.emulator.url.split(":")[2].split("@")[0] not in str(caught.value), "no password"
        del m.command

"""Agents that are cancelled, killed, left alone or up to something: what is left of them, and what the mount then says."""

import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from emulator import wait_until
from mount import BINARY, DEADLINE
from postgres import Postgres
from woken import Woken, alive

CONTROLS = ("resume", "restore", "replay", "cancel")
# A process tree that no signal to the group alone ends: a child, one in a session of its own, one that was left to init.
TREE = """
note() { echo "$1" >> "$AGENTS/$CHECKPOINT_NAME.pids"; }
sleep 1000 & note $!
setsid sleep 1000 & note $!
(setsid sleep 1000 & note $!)
note $$
"""
STUBBORN = """
sh -c 'trap "" TERM; echo $$ >> "$AGENTS/$CHECKPOINT_NAME.pids"; while :; do sleep 1; done' &
"""


@pytest.fixture(scope="module")
def config():
    with tempfile.NamedTemporaryFile("w", suffix=".ini") as file:
        file.write("[resume]\ngrace = 1s\n")
        file.flush()
        yield file.name


@pytest.fixture(scope="module")
def m(config):
    with Woken(f"--config={config}") as mount:
        yield mount


def pids(m, name, n):
    """Those that the agent noted, once it has noted `n`."""
    path = m.scripts / f"{name}.pids"
    return wait_until(lambda: path.exists() and len(path.read_text().split()) >= n and [int(p) for p in path.read_text().split()], DEADLINE)


def supervisor(m):
    pid, = m.agents()
    return pid


# -- what an agent may do, and what not ------------------------------------------------------------------------------------------

# Tries to open every control file for writing; prints what it got.
TRY = r"""
import errno, os, sys
root = os.environ["CHECKPOINT_MOUNT"]
names = [n for n in os.listdir(root) if not n.startswith(".") and n != "latest"]
for path in [f"{n}/{c}" for n in names for c in ("resume", "restore", "replay", "cancel")] + [".control/prune"]:
    try:
        fd = os.open(os.path.join(root, path), os.O_WRONLY | os.O_TRUNC)
        os.write(fd, b"approve\n")
        print(path, "WRITTEN")
    except OSError as e:
        print(path, errno.errorcode[e.errno])
print("latest/resume", open(os.path.join(root, "latest/resume")).read() == "" and "empty")
"""


def test_an_agent_takes_a_checkpoint_and_decides_nothing(m):
    """The child is taken while the resume write waits; then the agent tries to approve it, itself and everything else."""
    m.take("other")
    m.agent("other", "echo must not run")
    (m.scripts / "try.py").write_text(TRY)
    m.waits("deciding", """
        child deciding.2 || exit 1
        python3 "$AGENTS/try.py" > "$AGENTS/deciding.itself"
        echo '{"labels": ["mine"]}' > "$CHECKPOINT_MOUNT/other/meta.json" || exit 1
        echo '{"expires_at": "2031-01-01T00:00:00Z"}' > "$CHECKPOINT_MOUNT/other/meta.json" && exit 1
        (setsid sh -c 'env -i PATH="$PATH" CHECKPOINT_MOUNT="$CHECKPOINT_MOUNT" python3 "$0" > "$1.tmp"; mv "$1.tmp" "$1"' \
             "$AGENTS/try.py" "$AGENTS/deciding.grandchild" &)
        while [ ! -e "$AGENTS/deciding.grandchild" ]; do sleep 0.01; done
        exit 10""")
    m.agent("deciding.2", "echo woken by a person")
    assert m.echo("deciding/resume", "approve") is None
    assert m.status("deciding") == "stopped again -> deciding.2"
    for who in ("itself", "grandchild"):
        got = dict(line.split() for line in m.left("deciding", who).splitlines())
        assert got.pop("latest/resume") == "empty", "reading is no decision"
        assert set(got.values()) == {"EPERM"}, got
        for path in [f"{n}/{c}" for n in ("other", "deciding", "deciding.2") for c in CONTROLS] + [".control/prune"]:
            assert path in got
    assert m.json("other/meta.json") == {"labels": ["mine"]}, "what isn't the agent's it can label, and no more"
    assert m.status("deciding.2") == "waiting (1 call)" and m.status("other") == "waiting (1 call)"
    refusals = [e for e in m.events_of("deciding.2", "command.refused") if e["errno"] == "EPERM"]
    assert len(refusals) == 2 * len(CONTROLS)
    assert "try.py" in refusals[0]["by"]["command"] and "can't decide" in refusals[0]["message"]
    assert m.echo("deciding.2/resume", "approve") is None, "a person decides"
    assert m.read("deciding.2/output") == "woken by a person\n"


def test_an_agent_may_read_everything(m):
    m.waits("reading", 'tar cf /dev/null -C "$CHECKPOINT_MOUNT" . && grep -rq drop_users_table "$CHECKPOINT_DIR" && ls -l "$CHECKPOINT_DIR"')
    assert m.echo("reading/resume", "approve") is None
    assert "state.json" in m.read("reading/output")


# -- cancel ------------------------------------------------------------------------------------------------------------------------

def test_cancel(m):
    echo = m.hold("cancel", TREE + "trap 'echo got TERM; exit 0' TERM\nhold")
    tree = pids(m, "cancel", 4)
    assert all(alive(p) for p in tree)
    assert m.echo("cancel/cancel", "cancel") is None
    assert echo.answer() == "ECANCELED"
    assert not any(alive(p) for p in tree), "the whole tree is gone when the resume is answered"
    assert m.status("cancel") == "failed resume: cancelled"
    assert m.echo("cancel/resume", "approve") == "EALREADY"
    assert "again" in m.result("cancel")["message"]
    m.agent("cancel", "echo once more")
    assert m.echo("cancel/resume", "again approve") is None
    assert m.status("cancel") == "finished"


def test_cancel_is_never_busy_nor_waits(m):
    """TERM, grace, KILL: the cancel is answered at once, while the agent still resists."""
    echo = m.hold("stubborn", STUBBORN + "trap '' TERM\nhold; while :; do sleep 1; done")
    tree = pids(m, "stubborn", 1) + [supervisor(m)]
    begin = time.monotonic()
    for _ in range(3):
        assert m.echo("stubborn/cancel", "cancel") is None
    resists = m.status("stubborn").startswith("agent running") and echo.is_alive() and all(alive(p) for p in tree)
    assert resists or time.monotonic() - begin >= 1, "it was asked for, not done yet: the grace isn't over"
    assert echo.answer() == "ECANCELED"
    assert not any(alive(p) for p in tree)
    assert m.status("stubborn") == "failed resume: cancelled"


def test_cancel_where_nothing_runs(m):
    m.waits("idle")
    assert m.echo("idle/cancel", "cancel") == "ESRCH"
    assert "no agent is running" in m.result("idle")["message"]
    assert m.echo("idle/cancel", "stop") == "EINVAL"
    assert m.status("idle") == "waiting (1 call)"


def test_cancel_by_who_holds_the_control_file_open(m):
    """Another process keeps `cancel` open: nobody is kept from cancelling."""
    echo = m.hold("held-open")
    with open(m / "held-open/cancel", "w"):
        assert m.echo("held-open/cancel", "cancel") is None
    assert echo.answer() == "ECANCELED"


# -- killed -------------------------------------------------------------------------------------------------------------------------

def test_supervisor_killed(m):
    """The kernel kills the command, the mount the rest; nobody knows how it ended."""
    echo = m.hold("orphaned", TREE + "hold")
    tree = pids(m, "orphaned", 4)
    os.kill(supervisor(m), signal.SIGKILL)
    assert echo.answer() == "EIO"
    assert not any(alive(p) for p in tree)
    assert m.status("orphaned") == "unknown"
    assert "again" in m.result("orphaned")["message"]
    assert m.echo("orphaned/resume", "approve") == "EALREADY"
    assert "nobody knows" in m.result("orphaned")["message"]
    assert m.status("orphaned") == "unknown"
    m.agent("orphaned", "echo no model; exit 75")
    assert m.echo("orphaned/resume", "again approve") == "EAGAIN"
    assert m.status("orphaned") == "unknown", "nothing was done now, and before nobody knows"
    assert m.echo("orphaned/resume", "approve") == "EALREADY"
    assert not os.path.lexists(m / ".pending/orphaned")
    m.agent("orphaned", "exit 0")
    assert m.echo("orphaned/resume", "again approve") is None
    assert m.status("orphaned") == "finished"


def test_command_killed(m):
    echo = m.hold("shot", "echo $$ > $AGENTS/shot.pids; hold")
    os.kill(pids(m, "shot", 1)[0], signal.SIGKILL)
    assert echo.answer() == "EIO"
    assert m.status("shot") == "failed resume: the resume command was ended by signal 9 (Killed)"


def test_store_frozen_while_an_agent_runs(m):
    """Output and outcome wait for it."""
    echo = m.hold("storeless", "echo before; hold; echo after; hold; echo end; exit 3")
    wait_until(lambda: m.read("storeless/output") == "before\n", DEADLINE)
    postmaster = int((next(m.dir.rglob("postmaster.pid"))).read_text().split()[0])
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    for pid in [postmaster, *map(int, children)]:
        os.kill(pid, signal.SIGSTOP)
    (m.scripts / "storeless.ready").unlink()
    m.release("storeless")
    m.ready("storeless")
    m.release("storeless")
    assert echo.is_alive()
    for pid in [postmaster, *map(int, children)]:
        os.kill(pid, signal.SIGCONT)
    assert echo.answer() == "EIO"
    assert m.read("storeless/output") == "before\nafter\nend\n"
    assert "exit 3: end" in m.status("storeless")


def test_store_stopped_while_an_agent_runs(config):
    """A restart of the store costs nothing, even if the agent ends meanwhile."""
    with Postgres() as server:
        owner = server.database("away")
        subprocess.run([BINARY, "migrate", f"--store={owner}"], check=True, capture_output=True)
        with Woken(f"--config={config}", store=owner) as m:
            echo = m.hold("a", "echo before; hold; echo after; hold; head -c 10000000 /dev/zero; echo end; echo > $AGENTS/ended; exit 3")
            wait_until(lambda: m.read("a/output") == "before\n", DEADLINE)
            (m.scripts / "a.ready").unlink()
            server.stop()
            m.release("a")
            m.ready("a")
            assert m.status("a").startswith("agent running"), "read from memory"
            m.release("a")
            assert echo.is_alive() and not (m.scripts / "ended").exists(), "more than is kept in memory waits"
            server.start()
            assert echo.answer() == "EIO"
            assert (m / "a/output").read_bytes() == b"before\nafter\n" + bytes(10000000) + b"end\n"
            assert "exit 3" in m.status("a") and m.status("a").endswith("end")
            assert m.events_of("a")[-1]["event"] == "resume.failed"


def test_mount_killed(config):
    with Woken(f"--config={config}") as m:
        echo = m.hold("a", TREE + STUBBORN + "hold")
        m.take("b")
        m.agent("b", "exit 0")
        tree = pids(m, "a", 5) + [supervisor(m)]
        attempt = m.events_of("a", "approval.decided")[0]["attempt"]
        decisions = Path(m.result("a")["journal"]["decisions_file"])
        assert decisions.exists()
        m.kill()
        assert echo.answer() in ("ENOTCONN", "ECONNABORTED")
        m.mount()
        assert m.status("b") == "waiting (1 call)"
        m.wait_status("a", "unknown")
        assert not any(alive(p) for p in tree), "whoever takes over waits for the agent's end"
        result = m.result("a")
        assert decisions.name in result["journal"]["decisions_file"] and not decisions.exists(), "it may hold what is nobody's business"
        assert result["state"] == "unknown" and "again" in result["message"]
        assert m.events_of("a")[-1]["event"] == "resume.unknown"
        assert m.echo("a/resume", "approve") == "EALREADY"
        assert "again" in m.result("a")["message"]
        m.agent("a", "echo went on")
        assert m.echo("a/resume", "again approve") is None
        assert m.events_of("a", "approval.decided")[-1]["attempt"] == attempt, "the same attempt"
        assert m.read("a/output") == "went on\n"

        # killed again, this time a restore goes on
        m.agent("b", "hold")
        m.wake_held("b")
        m.kill()
        m.mount()
        m.wait_status("b", "unknown")
        assert m.echo("b/restore", "in-place") is None
        m.agent("b", "exit 0")
        assert m.echo("b/resume", "approve") is None
        assert m.events_of("b", "approval.decided")[-1]["attempt"] != m.events_of("b", "approval.decided")[0]["attempt"]


def test_a_killed_mounts_agent_has_its_own_grace(config, tmp_path):
    """The mount that takes over has a shorter one, in which this agent couldn't write its last file."""
    patient = tmp_path / "ini"
    patient.write_text("[resume]\ngrace = 60s\n")
    with Woken(f"--config={patient}") as m:
        # Nobody reads what it writes to stderr any more: dash would be ended by SIGPIPE.
        m.hold("a", "exec 2> /dev/null; trap 'sleep 5; echo late > \"$AGENTS/a.late\"; exit 0' TERM\nhold")
        assert m.result("a")["journal"]["grace_ms"] == 60000
        m.kill()
        m.options = [f"--config={config}"]
        m.mount()
        m.wait_status("a", "unknown")
        assert m.left("a", "late") == "late\n"


def test_an_agent_of_another_container_of_this_name_is_left_alone(config):
    """What has the same id and the same file's name here is something else."""
    with Postgres() as server:
        owner, store = server.store("containers")
        with Woken(f"--config={config}", store=store) as m:
            m.hold("a")
            decisions = Path(m.result("a")["journal"]["decisions_file"])
            server.sql("UPDATE checkpointfs.actions SET data = jsonb_set(data::jsonb, '{boot_id}', '\"another boot 4026531836\"')::json"
                       " WHERE step = 'agent'", owner)
            m.kill()
            m.mount()
            m.wait_status("a", "unknown")
            assert decisions.exists()
            decisions.unlink()


def test_mount_ended_in_order(config, tmp_path):
    """SIGTERM: the writer gets EINTR, the agent TERM and then KILL."""
    patient = tmp_path / "ini"  # this agent's last word isn't to be cut off, however slow the machine is
    patient.write_text("[resume]\ngrace = 60s\n")
    with Woken(f"--config={patient}") as m:
        m.waits("a", TREE + "trap 'echo leaving; exit 7' TERM\nhold")
        os.mkfifo(m.scripts / "a.go")
        echo = m.bash("a")
        tree = pids(m, "a", 4) + [supervisor(m)]
        m.ready("a")
        assert m.terminate() == 0
        assert "Interrupted system call" in echo.communicate(timeout=DEADLINE)[1]
        assert not any(alive(p) for p in tree)
        m.options = [f"--config={config}"]
        m.mount()
        assert m.status("a").startswith("failed resume: ") and "unmounted" in m.status("a")
        assert m.read("a/output").endswith("leaving\n")
        assert m.echo("a/resume", "approve") == "EALREADY"
        m.agent("a", "exit 0")
        assert m.echo("a/resume", "again approve") is None

        m.waits("b", STUBBORN + "trap '' TERM\nhold; while :; do sleep 1; done")
        m.wake_held("b")
        tree = pids(m, "b", 1) + [supervisor(m)]
        assert m.terminate() == 0
        assert not any(alive(p) for p in tree)
        m.mount()
        assert m.status("b").startswith("failed resume: ")


def test_waiting_has_an_end(tmp_path):
    """[neon] deadline: the echo gets ETIMEDOUT, the agent goes on. Nor does a try to unmount harm it."""
    config = tmp_path / "ini"
    config.write_text("[neon]\ndeadline = 1s\n")
    with Woken() as m:
        m.waits("a", "hold")  # the take may last longer than that
        m.remount(f"--config={config}")
        echo = m.wake_held("a")
        with open(m / "a/status"):  # busy also when the echo was answered already
            tried = subprocess.run(["fusermount3", "-u", m.root], capture_output=True, text=True)
        assert tried.returncode != 0 and "busy" in tried.stderr
        assert echo.answer() == "ETIMEDOUT"
        assert m.status("a").startswith("agent running")
        m.release("a")
        assert m.wait("a") == "finished"

"""A shared store whose server crashes while a state is written: whatever a write was answered for is in the state, or there is no seal."""

import os
import signal
from pathlib import Path

import pytest
from emulator import wait_until
from mount import Mount
from postgres import Postgres

PIECE = 4096


@pytest.fixture(scope="module")
def server():
    with Postgres() as p:
        yield p


@pytest.fixture(scope="module")
def m(server):
    _, store = server.store("crashing")
    # as an administrator may have it: what the mount acknowledges is durable all the same
    server.sql("ALTER ROLE crashing_mount SET synchronous_commit = off")
    with Mount(store=store) as mount:
        yield mount


def cmdline(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # a worker of the server's may end while it is looked at
        return b""


def crash(server):
    """kill -9 of one backend: the server throws all sessions out, and its memory away, and starts again from its log."""
    postmaster = server.process.pid
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    os.kill(next(int(c) for c in children if b"crashing_mount" in cmdline(c)), signal.SIGKILL)
    wait_until(lambda: server.psql("SELECT 1").returncode == 0)


def write(fd, piece):
    """Whether the piece was taken; a handle that failed once fails for ever."""
    try:
        return os.write(fd, piece) == len(piece)
    except OSError:
        return False


@pytest.mark.parametrize("synced", [True, False], ids=["fsync", "no fsync"])
def test_a_server_that_crashes_loses_nothing_that_was_acknowledged(m, server, synced):
    name = f"crash{synced}"
    os.mkdir(m / name)
    pieces = [bytes([letter]) * PIECE for letter in b"abcd"]
    fd = os.open(m / name / "state.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    assert write(fd, b'"' + pieces[0]) and write(fd, pieces[1])
    if synced:
        os.fsync(fd)
    crash(server)
    rest = write(fd, pieces[2]) and write(fd, pieces[3] + b'"')
    os.close(fd)
    whole = b'"' + b"".join(pieces) + b'"'
    wait_until(lambda: m.status(name) in ("saved", "writing"))
    if rest:
        wait_until(lambda: m.status(name) == "saved")
        assert (m / name / "state.json").read_bytes() == whole
    else:
        assert (m / name / "state.json").read_bytes() == whole[: 2 * PIECE + 1]


def test_a_state_with_a_part_missing_stays_open(m):
    """As a store that was put back to an earlier time leaves it, or a writer that went on after an error."""
    os.mkdir(m / "gap")
    for pieces in ({0: b'"abc', 10: b'def"'}, {0: b'"abcdef"'}):
        fd = os.open(m / "gap/state.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for off, piece in pieces.items():
            os.pwrite(fd, piece, off)
        os.close(fd)
        if len(pieces) > 1:
            wait_until(lambda: m.status("gap") == "writing, a part is missing: bytes 4 to 9 of 14 were never written")
    wait_until(lambda: m.status("gap") == "saved")
    assert (m / "gap/state.json").read_bytes() == b'"abcdef"'

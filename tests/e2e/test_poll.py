"""poll(2): what is open is readable when it shows something that hasn't been read through it (design.md, issue 6)."""

import contextlib
import os
import select
import subprocess
import time

import pytest
from emulator import wait_until
from frozen import Frozen
from mount import DEADLINE, Mount, Second
from woken import Woken

NEWS = select.POLLIN | select.POLLRDNORM | select.POLLPRI
MS = 1000 * DEADLINE


class Watched:
    """A file held open, polled, and read anew or on."""

    def __init__(self, path, anew=False):
        self.fd = os.open(path, os.O_RDONLY)
        self.anew, self.at = anew, 0
        self.poller = select.poll()
        self.poller.register(self.fd, select.POLLIN | select.POLLPRI)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        with contextlib.suppress(OSError):  # the mount may be gone
            os.close(self.fd)

    def quiet(self):
        return self.poller.poll(0) == []

    def read(self):
        """Waits until there is something to read, and reads it to its end."""
        events = self.poller.poll(MS)
        assert events and events[0][1] & select.POLLIN and not events[0][1] & select.POLLERR, events
        if self.anew:
            return os.pread(self.fd, 1 << 20, 0).decode()
        data = b""
        while more := os.pread(self.fd, 1 << 20, self.at):
            self.at += len(more)
            data += more
        return data.decode()

    def until(self, wanted):
        seen = ""
        while wanted not in seen:
            seen = self.read() if self.anew else seen + self.read()
        return seen


@pytest.fixture(scope="module")
def pair():
    with Woken() as a, Second(a) as b:
        yield a, b


@pytest.mark.parametrize("there", [False, True], ids=["its own mount", "another mount"])
def test_status_output_and_history_wake_whoever_waits(pair, there):
    a, b = pair
    name = f"run{there:d}"
    reader = b if there else a
    writing = a.hold(name, "echo first; hold; echo second")
    wait_until((reader / name / "status").exists, DEADLINE)
    with Watched(reader / name / "status", anew=True) as status, Watched(reader / name / "history.jsonl") as history, \
            Watched(reader / ".control/events.jsonl") as events:
        assert status.until("agent running")
        wait_until(lambda: (reader / name / "output").exists(), DEADLINE)
        with Watched(reader / name / "output") as output:
            assert output.until("first\n")
            a.release(name)
            assert "second\n" in output.until("second\n")
        assert status.until("finished")
        assert history.until('"finished"') and events.until('"finished"')
    assert writing.answer() is None


def test_a_lost_store_wakes_whoever_waits(pair):
    m, _ = pair
    m.take("lost")
    assert m.echo("lost/restore", "branch b") is None
    m.settled(["lost"])
    with Watched(m / "lost/status", anew=True) as status, Watched(m / "lost/branches/b/status", anew=True) as branch:
        files = (status, branch)
        for file in files:
            wait_until(lambda f=file: f.read() and f.quiet(), DEADLINE)
        with Frozen(m):
            start = time.monotonic()
            for file in files:
                assert file.until("store lost since")
            assert time.monotonic() - start < DEADLINE / 2, "poll looks once more when its time is up"
        for file in files:
            wait_until(lambda f=file: "store lost" not in f.read(), DEADLINE)


def test_what_was_read_is_not_news(m):
    m.take("quiet")
    m.settled(["quiet"])
    for name in ("status", "history.jsonl"):
        with Watched(m / "quiet" / name, anew=name == "status") as file:
            assert not file.quiet(), "it wasn't read yet"
            file.read()
            assert wait_until(file.quiet, DEADLINE)
            os.rename(m / "quiet", m / "loud")
            if name != "status":
                assert "rename" in file.read()
            os.rename(m / "loud", m / "quiet")


def test_a_take_is_followed_by_its_status(m):
    os.mkdir(m / "followed")
    with Watched(m / "followed/status", anew=True) as status:
        assert status.read()
        with open(m / "followed/state.json", "w") as f:
            f.write('{"a"')
            f.flush()
            f.write(": 1}")
        assert status.until("saved")


def test_other_files_are_always_ready(m):
    m.take("ready")
    for path, flags in (("ready/state.json", os.O_RDONLY), ("ready/meta.json", os.O_RDONLY), ("ready/restore", os.O_WRONLY),
                        ("ready/restore", os.O_RDONLY), (".control/prune", os.O_WRONLY)):
        try:
            fd = os.open(m / path, flags)
        except FileNotFoundError:
            continue
        poller = select.poll()
        poller.register(fd, select.POLLIN | select.POLLOUT)
        assert poller.poll(0) == [(fd, select.POLLIN | select.POLLOUT)], path
        os.close(fd)


def test_many_waiters_and_none_is_left_behind(m):
    """Each open file has its own; epoll takes them as well; those that are closed while they wait are forgotten."""
    m.take("many")
    m.settled(["many"])
    epoll = select.epoll()
    fds = [os.open(m / "many/history.jsonl", os.O_RDONLY) for _ in range(50)]
    for fd in fds:
        while os.read(fd, 1 << 20):
            pass
        epoll.register(fd, select.EPOLLIN)
    wait_until(lambda: epoll.poll(0) == [])
    for fd in fds[:25]:
        os.close(fd)
    os.rename(m / "many", m / "more")
    woken = set()
    while woken != set(fds[25:]):
        for fd, _ in epoll.poll(DEADLINE):
            os.read(fd, 1 << 20)
            woken.add(fd)
    for fd in fds[25:]:
        os.close(fd)
    os.rename(m / "more", m / "many")


def test_a_mount_leaves_while_somebody_waits():
    with Mount() as mount:
        mount.take("left")
        mount.settled(["left"])
        with Watched(mount / "left/history.jsonl") as file:
            file.read()
            wait_until(file.quiet)
            assert mount.terminate() == 0
            file.poller.poll(MS)  # it doesn't hang


@pytest.mark.parametrize("how", [["-f"], ["--follow=name"], ["-F"]])
def test_tail_follows_an_agent_live(pair, how):
    a, _ = pair
    name = "tail" + how[0].strip("-")
    writing = a.hold(name, "echo first; hold; echo second")
    wait_until(lambda: (a / name / "output").exists(), DEADLINE)
    tail = subprocess.Popen(["tail", "-n", "+1", "-s", "0.05", *how, a / name / "output"], stdout=subprocess.PIPE, text=True)
    try:
        assert tail.stdout.readline() == "first\n"
        a.release(name)
        assert tail.stdout.readline() == "second\n"
    finally:
        tail.kill()
        tail.wait()
    assert writing.answer() is None

"""Fifty writers and two hundred readers on two mounts of one store for a minute, with the sanitizers watching; and ten shells that decide at
once."""

import os
import random
import subprocess
import threading
import time

import pytest

from emulator import wait_until
from mount import ROOT, STATE, Mount, Second
from woken import Woken

SECONDS = int(os.environ.get("LOAD_SECONDS", "60"))
WRITERS, READERS = 50, 200
pytestmark = [pytest.mark.timeout(900), pytest.mark.alone]


class Load:
    """Threads that go on until the time is over; the first thing that goes wrong ends all of them."""

    def __init__(self, mounts):
        self.mounts, self.until, self.wrong, self.taken, self.reads = mounts, time.monotonic() + SECONDS, [], [], 0

    def going(self):
        return time.monotonic() < self.until and not self.wrong

    def write(self, n):
        k = 0
        while self.going():
            m, name = self.mounts[(n + k) % 2], f"w{n}-{k}"
            k += 1
            began = time.monotonic()
            try:
                os.mkdir(m / name)
                (m / name / "state.json").write_bytes(STATE.read_bytes().replace(b"DB Admin", f"Writer {n:03}".encode()[:8]))
                self.taken.append((name, n))
            except OSError as e:
                self.wrong.append((name, e, f"after {time.monotonic() - began:.1f} s"))

    def read(self, n):
        chance = random.Random(n)
        while self.going():
            m = self.mounts[chance.randrange(2)]
            try:
                names = os.listdir(m.root)
                name = chance.choice(names)
                if name[0] == "." or name == "latest":
                    os.listdir(m / ".pending")
                    continue
                m.status(name)
                for file in chance.sample(os.listdir(m / name), 3):
                    path = m / name / file
                    if path.is_file():
                        path.read_bytes()
                self.reads += 1
            except FileNotFoundError:
                pass  # not there yet, or not yet told
            except OSError as e:
                self.wrong.append((n, e))
            time.sleep(chance.random() / 5)

    def run(self):
        threads = [threading.Thread(target=self.write, args=(n,)) for n in range(WRITERS)]
        threads += [threading.Thread(target=self.read, args=(n,)) for n in range(READERS)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(300)
        assert not any(t.is_alive() for t in threads)
        assert not self.wrong, self.wrong[:3]


@pytest.mark.parametrize("build", ["asan", "tsan"])
def test_fifty_writers_and_two_hundred_readers(build):
    binary = ROOT / "build" / build / "checkpointfs"
    assert binary.exists(), f"make test builds {binary}"
    with Mount(binary=binary, operation_ms=2, emulator=["--snapshots=100000"]) as a, Second(a) as b:
        load = Load([a, b])
        load.run()
        assert len(load.taken) > WRITERS and load.reads > READERS
        for name, n in load.taken:
            for m in (a, b):
                wait_until(lambda: (m / name / "transcript.md").exists(), 120)
        names = {name for name, _ in load.taken}
        for m in (a, b):
            assert names == {n for n in os.listdir(m.root) if n[0] == "w"}
        snapshots = {a.json(f"{name}/snapshot.json")["id"] for name in names}
        assert len(snapshots) == len(names)
        assert snapshots == {s["id"] for s in a.emulator.snapshots()}
        for name, n in random.Random(1).sample(load.taken, 20):
            assert f"Writer {n:03}"[:8] in b.read(f"{name}/state.json")
        print(f"{build}: {len(load.taken)} takes, {load.reads} reads")


def test_ten_shells_decide_at_once():
    with Woken() as a, Second(a) as b:
        for k in range(5):
            name = f"race{k}"
            a.waits(name, 'echo run >> "$AGENTS/$CHECKPOINT_NAME.runs"')
            wait_until(lambda: (b / name / "resume").exists())
            shells = [subprocess.Popen(["bash", "-c", 'echo "$0" > "$1"', "approve" if i % 2 else f"reject no{i}",
                                        (a, b)[i % 2] / name / "resume"], stderr=subprocess.PIPE, text=True) for i in range(10)]
            ends = [(s.wait(60), s.stderr.read()) for s in shells]
            assert [code for code, _ in ends].count(0) == 1, ends
            for code, words in ends:
                assert code == 0 or "Operation already in progress" in words or "Device or resource busy" in words, words
            assert (a.scripts / f"{name}.runs").read_text() == "run\n"
            wait_until(lambda: a.events_of(name, "approval.decided"))
            decided = [e for e in a.events_of(name) if e["event"] == "approval.decided"]
            assert len(decided) == 1

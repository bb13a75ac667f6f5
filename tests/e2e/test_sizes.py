"""snapshot.json's sizes, which Neon computes late: they arrive also when the take itself was slow."""

import os

from emulator import wait_until
from mount import DEADLINE, STATE, Mount


def test_sizes_arrive_after_a_take_that_took_its_time():
    with Mount() as m:
        m.take("quick")
        wait_until(lambda: "full_size" in m.json("quick/snapshot.json"), DEADLINE)  # nothing is awaited any more
        m.emulator.fault("POST:/projects/*/branches/*/snapshot=delay:6000*1")
        os.mkdir(m / "slow")
        (m / "slow/state.json").write_bytes(STATE.read_bytes())
        m.wait_status("slow", "waiting")
        wait_until(lambda: "full_size" in m.json("slow/snapshot.json"), DEADLINE)

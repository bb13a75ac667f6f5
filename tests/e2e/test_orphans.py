"""Unsettled actions of a mount that lives, which nobody works on: what a store leaves that froze just when it said COMMIT."""

import json
import os

import psycopg

from mount import DEADLINE, STATE, Mount, wait_until


def test_an_action_that_nobody_works_on_is_settled_and_holds_nobody_up():
    with Mount() as m:
        m.emulator.fault("POST:/projects/*/branches/*/snapshot=op:failed:no room*1")
        os.mkdir(m / "orphan")
        wait_until(lambda: m.status("orphan").startswith("failed take"), DEADLINE)
        owner = json.loads((m.dir / "env.json").read_text())["store_owner"]
        with psycopg.connect(owner, autocommit=True) as store:
            # As if the answer to mkdir's COMMIT had been lost: queued in the store, unknown to the mount.
            store.execute("UPDATE checkpointfs.checkpoints SET phase = 'taking' WHERE name = 'orphan'")
            store.execute("UPDATE checkpointfs.actions SET state = 'queued', step = '', data = '{}', waiting = true WHERE kind = 'take'")
        os.mkdir(m / "next")
        (m / "next/state.json").write_bytes(STATE.read_bytes())  # waits for its turn, and so for the orphan's end
        m.wait_status("next", "waiting (1 call)")
        assert m.status("orphan").startswith("failed take")
        assert "write state.json again" in m.status("orphan")

"""Taking a checkpoint: mkdir and one file write (design.md §4)."""

import os

from mount import STATE


def test_mkdir_and_a_write_take_a_checkpoint(m):
    m.take("first")
    assert m.status("first") == "waiting (1 call)"
    assert (m / "first/state.json").read_bytes() == STATE.read_bytes()
    assert m.json("first/snapshot.json")["branch_id"] == m.read(".control/active_branch").strip()
    assert os.readlink(m / "latest") == "first"

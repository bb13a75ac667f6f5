"""df: the bytes of states; df -i: snapshots used, and what the plan leaves. From memory: also with Neon away."""

import os

from emulator import wait_until
from mount import STATE, Mount, shell
from restoring import bare, quiet


def used(m):
    v = os.statvfs(m.root)
    return (v.f_blocks - v.f_bfree) * v.f_frsize


def snapshots(m):
    """Used, and free."""
    v = os.statvfs(m.root)
    return v.f_files - v.f_ffree, v.f_ffree


def shows(m, used, free):
    """Neon may have been looked at in the middle of a take: the next look sees it whole."""
    return wait_until(lambda: snapshots(m) == (used, free))


def blocks(n):
    return -(-n // 512) * 512


def test_df():
    size = STATE.stat().st_size
    with Mount(emulator=["--snapshots=4"]) as m:
        shows(m, 0, 4)
        assert used(m) == 0
        m.take("a")
        m.take("b")
        assert shows(m, 2, 2) and used(m) == blocks(2 * size)
        bare(m, "empty")
        assert shows(m, 3, 1) and used(m) == blocks(2 * size)
        m.emulator.snapshot("somebody else's")
        assert m.echo(".control/prune", "delete a") is None
        assert used(m) == blocks(size)
        shows(m, 3, 1)
        shown = shell(f"df --output=iused,iavail,itotal {m.root} | tail -1").stdout.split()
        assert shown == ["3", "1", "4"]
        assert shell(f"df -B1 --output=used {m.root} | tail -1").stdout.strip() == str(blocks(size))
        m.remount()
        assert (snapshots(m), used(m)) == ((3, 1), blocks(size))
        quiet(m)
        m.emulator.stop()
        assert (snapshots(m), used(m)) == ((3, 1), blocks(size))
        m.remount()
        assert (snapshots(m), used(m)) == ((3, 1), blocks(size))
        m.emulator.start()


def test_a_plan_whose_limit_neon_does_not_tell():
    """Nobody knows it until a take is refused."""
    with Mount(emulator=["--snapshots=2", "--fault=GET:/projects/*/limits=500*inf"]) as m:
        m.take("a")
        m.take("b")
        assert shows(m, 2, 98)
        os.mkdir(m / "c")
        m.wait_status("c", "failed take")
        assert shows(m, 2, 0)
        assert m.echo(".control/prune", "delete a") is None
        shows(m, 1, 1)

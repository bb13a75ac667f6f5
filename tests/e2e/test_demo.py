"""`make demo` does what the guide does: its script over the real mount, on both of Neon's plans."""
import re

import pytest

from demo_runs import normalise, run_demo

EXPECTED_STEPS = 7


@pytest.mark.parametrize("plan", ["paid", "free"])
def test_the_demo_shows_the_guide(plan):
    status, transcript, complaints = run_demo(plan)
    assert status == 0, transcript + complaints
    assert complaints == ""
    steps = re.findall(r"(?m)^# (\d+)\. ", transcript)
    assert steps == [str(number) for number in range(1, EXPECTED_STEPS + 1)]
    assert "Users: Alice, Bob, Charlie" in transcript


def test_a_demo_that_fails_says_so_and_cleans_up(tmp_path):
    broken = tmp_path / "build"
    broken.mkdir()
    program = broken / "checkpointfs"
    program.write_text("#!/bin/sh\necho no luck today >&2\nexit 1\n")
    program.chmod(0o755)
    status, transcript, complaints = run_demo("paid", build=str(broken))
    assert status == 1
    assert "no luck today" in transcript and "step 1: this exited with 1" in complaints


def test_an_unknown_plan_is_refused():
    assert run_demo("gratis") == (1, "", "demo: PLAN=gratis: paid or free\n")


def test_the_normaliser_keeps_what_matters():
    text = """$ build/asan/checkpointfs --local=$DIR $MOUNT
$ MOUNT=/tmp/ckpt-demo.a1B2c3/mnt DIR=/tmp/ckpt-demo.a1B2c3/local
-rw-r--r-- 1 root root 12728 Nov 24 15:23 state.json
  "project_id": "sweet-mouse-flitbzvj",
  "requested_at": "2026-11-24T15:23:01.123Z",
  "lag_ms": 12,
  "lsn": "0/B00100",
  "full_size": 31457280
br-quiet-moon-a1b2c3d4 snap-rapid-rain-etzoi9pc act-3b04d2364acf83c8 ck-13b3299f6f19da0539ab run_0123456789abcdef0123456789abcdef
saved, snapshot expires 2026-12-01
"""
    assert normalise(text) == """$ build/checkpointfs --local=$DIR $MOUNT
$ MOUNT=/tmp/ckpt-demo.XXXXXX/mnt DIR=/tmp/ckpt-demo.XXXXXX/local
-rw-r--r-- 1 USER GROUP SIZE DATE state.json
  "project_id": "ID",
  "requested_at": "TIME",
  "lag_ms": N,
  "lsn": "LSN"
br-ID snap-ID act-ID ck-ID run_ID
saved, snapshot expires DAY
"""
    assert normalise("call_00000000000000000001 in-place reject Alice\n") == "call_00000000000000000001 in-place reject Alice\n"

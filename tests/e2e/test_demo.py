"""`make demo` does what the guide does: its script over the real mount, on both of Neon's plans; README.md shows what it prints."""
import difflib
import functools
import os
import re
import subprocess
import sys

import pytest

from llm import ROOT, SCRIPTS

sys.path.insert(0, str(SCRIPTS / "demo"))
from normalise import normalise  # noqa: E402

EXPECTED_STEPS = 7
DEADLINE = 600
pytestmark = pytest.mark.timeout(DEADLINE + 60)


@functools.cache
def run_demo(plan, build=None):
    """(status, transcript, complaints). The demo cleans up after itself; that is checked here."""
    env = {**os.environ, "PLAN": plan, "KEEP": "", "BUILD": build or os.environ.get("CHECKPOINTFS_BUILD", "build")}
    done = subprocess.run([SCRIPTS / "demo" / "demo"], env=env, capture_output=True, text=True, timeout=DEADLINE)
    places = re.findall(r"/tmp/ckpt-demo\.\w+", done.stdout)
    assert places or done.stdout == "", done.stdout
    assert not any(map(os.path.exists, places)), "the demo left its directory behind"
    return done.returncode, done.stdout, done.stderr


def test_the_transcript_in_the_readme_is_what_the_demo_prints():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- demo -->\s*(`{3,})\w*\n(.*?)\1\s*<!-- /demo -->", readme, re.DOTALL)
    assert found, "README.md has no transcript between <!-- demo --> and <!-- /demo -->"
    status, transcript, complaints = run_demo("paid")
    assert status == 0, transcript + complaints
    shown, printed = normalise(found[2]).splitlines(), normalise(transcript).splitlines()
    difference = list(difflib.unified_diff(shown, printed, "README.md", "the demo", lineterm=""))
    assert not difference, "run `scripts/demo/demo` and put what it prints into README.md:\n" + "\n".join(difference)


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

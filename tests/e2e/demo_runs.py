"""Runs of the demo, each made once per test session, and the normaliser for its transcript."""
import functools
import os
import subprocess
import sys
from pathlib import Path

from llm import SCRIPTS

sys.path.insert(0, str(SCRIPTS / "demo"))
from normalise import normalise  # noqa: E402, F401 (for the tests)

DEADLINE = 600


@functools.cache
def run_demo(plan, build=None):
    """(status, transcript, complaints). The demo cleans up after itself; that is checked here."""
    before = set(Path("/tmp").glob("ckpt-demo.*"))
    env = {**os.environ, "PLAN": plan, "KEEP": "", "BUILD": build or os.environ.get("CHECKPOINTFS_BUILD", "build")}
    done = subprocess.run([SCRIPTS / "demo" / "demo"], env=env, capture_output=True, text=True, timeout=DEADLINE)
    assert set(Path("/tmp").glob("ckpt-demo.*")) <= before, "the demo left its directory behind"
    return done.returncode, done.stdout, done.stderr

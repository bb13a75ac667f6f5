"""The unit tests in C (cmocka), each program as one test."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BUILD = Path(os.environ.get("CHECKPOINTFS_BUILD", ROOT / "build"))
PROGRAMS = sorted(p.stem for p in (ROOT / "tests" / "unit").glob("test_*.c"))


@pytest.mark.parametrize("program", PROGRAMS)
def test_unit(program):
    done = subprocess.run([BUILD / "unit" / program], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-8000:]

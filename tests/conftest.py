"""What every end-to-end test can use."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "e2e"))

from llm import fake_llm  # noqa: E402,F401
from mount import Mount  # noqa: E402


@pytest.fixture(scope="module")
def m():
    """A mount without a resume command, shared by the tests of a module: each takes names of its own."""
    with Mount() as mount:
        yield mount

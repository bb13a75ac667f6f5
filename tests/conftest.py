"""What every end-to-end test can use."""

import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "e2e"))

from llm import fake_llm  # noqa: E402,F401
from mount import Mount  # noqa: E402

# Started by nohup or by `&` in a script, these are ignored, and so they would be in every program that a test starts.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_keyboard_interrupt():
    """Ctrl-C: what is up is taken down, undisturbed by the second SIGINT that xdist sends five seconds later."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.fixture(scope="module")
def m():
    """A mount without a resume command, shared by the tests of a module: each takes names of its own."""
    with Mount() as mount:
        yield mount

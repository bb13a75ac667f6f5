"""Helpers for tests with the fake language model and the OpenAI Agents SDK: the server, environments, the resume adapter."""
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"
SAMPLES = ROOT / "tests" / "data"
PYTHON = sys.executable
DEADLINE = 60

GUIDE_PROMPT = "Add Charlie to the database, then drop the users table entirely."
DENIED = "Action denied by admin. Do not drop the table. List the users instead."


class FakeLLM:
    """The server as a process of its own; base_url is what OPENAI_BASE_URL wants."""

    def __init__(self):
        # Without --port-file the server prints its address once it listens: a line to wait for.
        self.process = subprocess.Popen([PYTHON, SCRIPTS / "llm" / "fake_openai.py"], stdout=subprocess.PIPE, text=True)
        self.base_url = self.process.stdout.readline().strip()
        assert self.base_url.startswith("http://127.0.0.1:"), "the fake language model did not start"

    def env(self, **extra):
        """The environment of a process that is to talk to this server."""
        return {**os.environ, "OPENAI_API_KEY": "not-a-key", "OPENAI_BASE_URL": self.base_url,
                "OPENAI_AGENTS_DISABLE_TRACING": "1", **extra}

    def stop(self):
        self.process.terminate()
        status = self.process.wait(DEADLINE)
        self.process.stdout.close()
        return status


@contextlib.contextmanager
def running_llm():
    server = FakeLLM()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def fake_llm():
    with running_llm() as server:
        yield server


def resume_command(agent, *arguments):
    """What --resume wants to hear for an agent (MODULE:OBJECT)."""
    return " ".join([PYTHON, str(SCRIPTS / "agents" / "openai_agents.py"), "--agent", agent, *arguments])


def pending_ids(state):
    step = state.get("current_step") or {}
    items = (step.get("data") or step).get("interruptions") or []
    return [item["raw_item"].get("call_id") or item["raw_item"]["id"] for item in items]


def load(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))

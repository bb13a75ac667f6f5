"""A fork resumes: a copy whose max_turns or input was edited is registered through .import/ and woken by the real SDK (design.md §2)."""
import json
import os
import shutil

import pytest

from llm import SAMPLES, load, resume_command
from mount import Mount

HERE = os.path.dirname(__file__)
SEED = SAMPLES / "py_seed_interrupted.json"


@pytest.fixture(scope="module")
def waker(fake_llm, tmp_path_factory):
    log = tmp_path_factory.mktemp("waker") / "tools.log"
    log.touch()
    with Mount(resume=resume_command("sample_agents:agent", "--path", HERE), env=fake_llm.env(TOOL_LOG=str(log)),
               emulator=("--branches=100",)) as mount:
        mount.tools = lambda: log.read_text().splitlines()
        yield mount


def edited(m, name, to, **fields):
    """cp -a NAME elsewhere, edit its state, cp -a into .import/, mv."""
    copy = m.base / to
    shutil.copytree(m / name, copy, symlinks=True)
    path = copy / "state.json"
    text = json.dumps(json.loads(path.read_text()) | fields, indent=2)
    path.unlink()
    path.write_text(text)
    shutil.copytree(copy, m / ".import" / to)
    os.rename(m / ".import" / to, m / to)
    parent, child = m.json(f"{name}/checkpoint.json"), m.json(f"{to}/checkpoint.json")
    assert child["parent"] == parent["id"] and m.read(f"{to}/state.json") == text
    return to


def test_more_turns(waker):
    waker.take("short", json.dumps(load(SEED) | {"max_turns": 2}), meta={"run_id": "run_short"})
    assert waker.echo("short/resume", "approve") == "EIO", waker.read("short/result")
    assert "Max turns (2) exceeded" in waker.read("short/output") and waker.status("short").startswith("failed resume")
    longer = edited(waker, "short", "longer", max_turns=9)
    assert waker.json("longer/checkpoint.json")["max_turns"] == 9 and waker.json("longer/checkpoint.json")["run_id"] == "run_short"
    assert waker.echo("longer/resume", "approve") == "ESTALE"  # its database isn't the active one
    assert waker.echo(f"{longer}/replay", "in-place approve") is None, waker.read("longer/result")
    assert waker.status("longer") == "finished" and "dropped the users table" in waker.read("longer/output")
    assert waker.tools().count("drop") == 2
    assert waker.json("short/checkpoint.json")["max_turns"] == 2


def test_another_input(waker):
    done = len(waker.tools())
    waker.take("asked", SEED)
    steps = [[["add_user", {"name": "Charlie"}]], [["drop_users_table", {}]], [["list_users", {}]], "The edited input was heard."]
    edited(waker, "asked", "asked otherwise", original_input="STEPS " + json.dumps(steps))
    assert waker.echo("asked otherwise/restore", "in-place") is None
    assert waker.status("asked otherwise") == "waiting (1 call)"
    assert waker.echo("asked otherwise/resume", "reject Not today") is None, waker.read("asked otherwise/result")
    assert waker.status("asked otherwise") == "finished" and waker.read("asked otherwise/output") == "The edited input was heard.\n"
    assert waker.tools()[done:] == ["list"]
    assert "STEPS" in waker.read("asked otherwise/transcript.md") and "STEPS" not in waker.read("asked/transcript.md")

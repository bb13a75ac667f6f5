"""Real states of every framework through the mount: transcript.md and pending/ (design.md §1), and the ids that decisions take."""
import hashlib
import importlib.util
import json
import os
import re
import subprocess
from types import SimpleNamespace
from urllib.parse import quote

import pytest
from mount import ROOT, SAMPLES, Mount

# sample: framework, status, calls
STATES = {
    "py_nested3_interrupted.json": ("openai-agents-python", "waiting (3 calls)", 3),
    "py_hosted_decided.json": ("openai-agents-python", "waiting (4 calls)", 4),
    "py_seed_v0.12.1.json": ("openai-agents-python", "waiting (1 call)", 1),
    "py_stages_3.json": ("openai-agents-python", "saved", 0),
    "js_nested3_interrupted.json": ("openai-agents-js", "waiting (3 calls)", 3),
    "js_hosted_interrupted.json": ("openai-agents-js", "waiting (4 calls)", 4),
    "js_seed_v0.1.11.json": ("openai-agents-js", "waiting (1 call)", 1),
    "seed_checkpoint.json": ("openai-agents-python", "waiting (1 call)", 1),
    "langgraph_js_interrupted.json": ("langgraph-js", "waiting (1 call)", 1),
    "langgraph_js_from_sql.json": ("langgraph-js", "waiting (1 call)", 1),
    "langgraph_py_actions.json": ("langgraph-python", "waiting (2 calls)", 2),
    "langgraph_py_actions.msgpack": ("langgraph-python", "waiting (2 calls)", 2),
    "langgraph_py_actions_tables.json": ("langgraph-python", "waiting (2 calls)", 2),
    "langgraph_py_questions.json": ("langgraph-python", "waiting", 2),
    "llamaindex_waiting.json": ("llamaindex-workflows", "waiting", 1),
    "llamaindex_v0.json": ("llamaindex-workflows", "waiting", 0),
    "pydantic_ai_interrupted.json": ("pydantic-ai", "waiting (2 calls)", 2),
    "adk_interrupted.json": ("google-adk", "waiting (2 calls)", 2),
    "claude_interrupted.jsonl": ("claude-agent-sdk", "waiting (1 call)", 1),
    "crewai_feedback.json": ("crewai", "waiting", 1),
    "autogen_team.json": ("autogen", "saved", 0),
    "ms_agent_interrupted.json": ("ms-agent-framework", "waiting", 1),
}


@pytest.fixture(scope="module")
def m(tmp_path_factory):
    where = tmp_path_factory.mktemp("woken")
    with Mount(resume=f"cat $CHECKPOINT_DECISIONS > {where}/$CHECKPOINT_NAME", emulator=("--snapshots=1000",)) as mount:
        mount.woken = where
        yield mount


def name_of(sample):
    return sample.replace(".", "_")


@pytest.mark.parametrize("sample", STATES)
def test_a_state_is_read(m, sample):
    framework, status, calls = STATES[sample]
    name = m.take(name_of(sample), SAMPLES / sample)
    assert (m / name / "state.json").read_bytes() == (SAMPLES / sample).read_bytes()
    assert m.status(name).startswith(status), m.status(name)
    checkpoint = m.json(f"{name}/checkpoint.json")
    assert checkpoint["framework"] == framework
    # transcript.md, of exactly the size that was listed
    size = os.stat(m / name / "transcript.md").st_size
    transcript = (m / name / "transcript.md").read_bytes()
    assert len(transcript) == size > 100
    text = transcript.decode()
    assert text.startswith(f"# Transcript\n\n- framework: `{framework}`") and text.endswith("\n")
    assert f"\n## Checkpoint\n\n- name: `{name}`\n" in text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)
    # pending/, likewise, in the names and with the hashes that checkpoint.json promises
    files = sorted(os.listdir(m / name / "pending"))
    assert len(files) == calls == len(checkpoint["pending"])
    assert files == sorted(quote(call["id"], safe=":@").replace("~", "%7E") + ".json" for call in checkpoint["pending"])
    for file in files:
        data = (m / name / "pending" / file).read_bytes()
        assert len(data) == os.stat(m / name / "pending" / file).st_size
        call = json.loads(data)
        if isinstance(call.get("arguments"), str):
            assert call["arguments_sha256"] == hashlib.sha256(call["arguments"].encode()).hexdigest()
        assert f"`{call['id']}`" in text


def diff(a, b):
    lines = subprocess.run(["diff", a, b], capture_output=True, text=True).stdout.splitlines()
    return [line[2:] for line in lines if line.startswith("<")], [line[2:] for line in lines if line.startswith(">")]


@pytest.mark.parametrize("language", ["py", "js"])
def test_diff_shows_what_happened_in_between(m, language):
    for stage in (1, 2):
        m.take(f"{language}_stage_{stage}", SAMPLES / f"{language}_stages_{stage}.json")
    gone, new = diff(m / f"{language}_stage_1/transcript.md", m / f"{language}_stage_2/transcript.md")
    assert "    users is gone; logs next." in new and "    Dropped users." in new
    assert [line.split(" ", 2)[1] for line in new if re.match(r"### \d", line)] == ["4.", "5.", "6."]
    # what is gone is only what was pending, and which checkpoint that was
    assert all(not line or re.match(r"### `drop_table`|    |- (name|id|taken|turn|usage): |[}]", line) for line in gone), gone


def test_the_ids_of_odd_calls_are_taken_as_the_files_are_named(m):
    ids = ["a/b c", ".x", "é" * 120, "q?*"]
    calls = [{"id": call, "tool": "rm", "arguments": "{}"} for call in ids]
    for number, call in enumerate(ids):
        name = m.take(f"odd_{number}", "a state of nobody's", meta={"pending": calls})
        assert len(os.listdir(m / name / "pending")) == len(ids)
        file = next(f for f in os.listdir(m / name / "pending") if json.loads((m / name / "pending" / f).read_bytes())["id"] == call)
        assert len(file.encode()) <= 205 and re.fullmatch(r"[A-Za-z0-9._:@%~-]+", file) and not file.startswith(".")
        decisions = {"decisions": [{"id": file[:-5], "decision": "reject", "message": "no"}, {"decision": "approve"}]}
        (m / name / "resume").write_text(json.dumps(decisions))
        given = {d["id"]: d["decision"] for d in json.loads((m.woken / name).read_text())["decisions"]}
        assert given == {other: "reject" if other == call else "approve" for other in ids}


def test_one_id_twice_is_two_calls(m):
    name = m.take("twice", SAMPLES / "py_nested_same_ids.json")
    assert sorted(os.listdir(m / name / "pending")) == ["call_0%7E2.json", "call_0.json"]
    assert m.json(f"{name}/pending/call_0%7E2.json")["agent"] == "Logs"
    (m / name / "resume").write_text("reject id=call_0%7E2 Keep the logs")
    given = json.loads((m.woken / name).read_text())["decisions"]
    assert [(d["id"], d["decision"], d["message"]) for d in given] == [("call_0~2", "reject", "Keep the logs")]


def test_the_adapter_gives_one_id_twice_the_same_names():
    spec = importlib.util.spec_from_file_location("adapter", ROOT / "scripts/agents/openai_agents.py")
    adapter = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(adapter)
    for ids, names in ((["call_0", "call_0"], ["call_0", "call_0~2"]),
                       (["c", "c~2", "c", "c~2", "c"], ["c", "c~2", "c~3", "c~2~2", "c~4"])):  # as tests/unit/test_pending.c has them
        items = [SimpleNamespace(raw_item={"call_id": wanted}) for wanted in ids]
        named = adapter.by_id(items)
        assert [next(name for name, found in named.items() if found is item) for item in items] == names


def test_what_is_wrong_in_meta_json_is_named(m):
    os.mkdir(m / "wrong")
    m.wait("wrong")  # until then its result is the take's
    for text, field in (('{"pin": 1}', "pin"), ('{"expires_at": "2026-12-01"}', "expires_at"), ('{"traceparent": "00-0-0-00"}', "traceparent"),
                        ('{"reason": []}', "reason"), ('{"step_id": 7}', "step_id")):
        with pytest.raises(OSError) as refused:
            (m / "wrong/meta.json").write_text(text)
        assert refused.value.errno == 22
        assert f'"{field}"' in m.result("wrong")["message"]
    (m / "wrong/meta.json").write_text('{"pin": true, "expires_at": "2096-12-01T00:00:00+01:00", "whatever": [1]}')
    assert m.json("wrong/meta.json")["pin"] is True

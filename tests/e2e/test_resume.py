"""Waking an agent: the contract of the resume command, one decision per attempt, and what its exit means (design.md §6)."""

import errno
import json
import os
import shutil
import signal
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from emulator import wait_until
from mount import CALL, DEADLINE, SAMPLES, Mount, shell
from woken import Woken, Writing, alive

PARALLEL = SAMPLES / "py_parallel3_interrupted.json"
LANGGRAPH = SAMPLES / "langgraph_js_interrupted.json"
LLAMAINDEX = SAMPLES / "llamaindex_step_interrupted.json"
MIB = 1 << 20


@pytest.fixture(scope="module")
def start_dir():
    path = Path(tempfile.mkdtemp(prefix="ckpt-start-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def m(start_dir):
    """One mount for the module: each test has a checkpoint and a script of its own."""
    env = {"CHECKPOINTFS_STORE": "host=/nowhere", "PGAPPNAME": "not for the agent", "PGPASSFILE": "/nowhere", "KEPT": "as it is",
           "CHECKPOINT_NEXT_DIR": "/somewhere/else"}
    with Woken(cwd=start_dir, env=env) as mount:
        yield mount


# -- what the resume command gets --------------------------------------------------------------------------------------------

def test_environment(m, start_dir):
    m.waits("environment", 'pwd > "$AGENTS/environment.pwd"; env -0 > "$AGENTS/environment.env"; echo "stdin: $(cat)"')
    before = {k for k in m.environ()}
    assert m.echo("environment/resume", "approve") is None
    env = dict(pair.split("=", 1) for pair in m.left("environment", "env").rstrip("\0").split("\0"))
    here = m.json("environment/checkpoint.json")
    root = str(m.root)
    decisions = env.pop("CHECKPOINT_DECISIONS")
    assert {k: v for k, v in env.items() if k.startswith("CHECKPOINT_")} == {
        "CHECKPOINT_ID": here["id"], "CHECKPOINT_NAME": "environment", "CHECKPOINT_MOUNT": root, "CHECKPOINT_DIR": f"{root}/environment",
        "CHECKPOINT_STATE": f"{root}/environment/state.json", "CHECKPOINT_NEXT_DIR": root,
        "CHECKPOINT_BRANCH": m.json("environment/snapshot.json")["branch_id"]}
    assert env["DATABASE_URL"] == m.uri()
    assert not [k for k in env if k in ("NEON_API_KEY", "CHECKPOINTFS_STORE") or k.startswith("PG")]
    assert "NEON_API_KEY" in before and "PGAPPNAME" in before, "the mount has what the agent must not"
    assert env["KEPT"] == "as it is" and env["PATH"] == os.environ["PATH"] and env["NEON_PROJECT_ID"] == m.emulator.project
    assert Path(m.left("environment", "pwd").strip()) == start_dir
    assert m.read("environment/output") == "stdin: \n", "the agent's input is empty"
    assert not os.path.exists(decisions), "the file of decisions is gone with the agent"
    with psycopg.connect(env["DATABASE_URL"]) as connection:
        assert connection.execute("SELECT count(*) FROM pg_class").fetchone()


def test_decisions_file_is_private(m):
    m.waits("private", 'stat -c %a "$CHECKPOINT_DECISIONS"; stat -c %u "$CHECKPOINT_DECISIONS"')
    assert m.echo("private/resume", "reject the password is hunter2") is None
    assert m.read("private/output").split() == ["600", str(os.getuid())]


SEED = {"id": CALL, "tool": "drop_users_table"}
APPROVED = SEED | {"decision": "approve", "message": None}


@pytest.mark.parametrize("command, decided, given", [
    ("approve", [APPROVED], None),
    (f"approve {CALL}", [APPROVED], None),
    ("reject Do not drop the table. List 'it' instead: \"$(now)\" `é`", [SEED | {
        "decision": "reject", "message": "Do not drop the table. List 'it' instead: \"$(now)\" `é`"}], None),
    ("reject", [SEED | {"decision": "reject", "message": None}], None),
    (f"reject id={CALL} not today", [SEED | {"decision": "reject", "message": "not today"}], None),
    (json.dumps({"decisions": [{"id": CALL, "decision": "reject", "message": "two\nlines"}], "input": "and go on"}, indent=1),
     [SEED | {"decision": "reject", "message": "two\nlines"}], "and go on"),
])
def test_decisions(m, command, decided, given):
    name = f"decisions-{abs(hash(command))}"
    m.waits(name, 'cat "$CHECKPOINT_DECISIONS" > "$AGENTS/$CHECKPOINT_NAME.decisions"')
    assert m.echo(f"{name}/resume", command) is None
    assert json.loads(m.left(name, "decisions")) == {"decisions": decided, "input": given}
    event, = m.events_of(name, "approval.decided")
    assert [d["decision"] for d in event["decisions"]] == [decided[0]["decision"]]
    assert event["decisions"][0]["arguments_sha256"] == m.json(f"{name}/pending/{CALL}.json")["arguments_sha256"]
    assert event["by"]["pid"] == os.getpid() or event["by"]["uid"] == os.getuid()


def pending(m, name):
    return [m.json(f"{name}/pending/{p}")["id"] for p in sorted(os.listdir(m / f"{name}/pending"))]


def test_some_of_several_calls(m):
    """The OpenAI SDK resumes partly: what is left undecided stays pending in the child."""
    m.waits("partial", 'cat "$CHECKPOINT_DECISIONS" > "$AGENTS/partial.decisions"', state=PARALLEL)
    first, second, third = pending(m, "partial")
    assert m.status("partial") == "waiting (3 calls)"
    assert m.echo("partial/resume", f"approve {second} {third}") is None
    got = json.loads(m.left("partial", "decisions"))["decisions"]
    assert {d["id"]: d["decision"] for d in got} == {second: "approve", third: "approve"}
    assert m.echo("partial/resume", f"approve {first}") == "EALREADY", "one decision per attempt"


def test_several_calls_in_json(m):
    m.waits("several", 'cat "$CHECKPOINT_DECISIONS" > "$AGENTS/several.decisions"', state=PARALLEL)
    a, b, c = pending(m, "several")
    command = {"decisions": [{"id": c, "decision": "reject", "message": "not c"}, {"id": a, "decision": "approve"}, {"decision": "reject"}]}
    assert m.echo("several/resume", json.dumps(command, indent=2)) is None
    got = {d["id"]: (d["decision"], d["message"]) for d in json.loads(m.left("several", "decisions"))["decisions"]}
    assert got == {a: ("approve", None), b: ("reject", None), c: ("reject", "not c")}


def test_a_long_rejection_in_json(m):
    """Longer than one write of a shell and than a line may be: JSON, complete when it parses."""
    text = "no\n" + "x" * 200_000
    m.waits("long", 'cat "$CHECKPOINT_DECISIONS" > "$AGENTS/long.decisions"')
    assert m.echo("long/resume", json.dumps({"decisions": [{"id": CALL, "decision": "reject", "message": text}]})) is None
    assert json.loads(m.left("long", "decisions"))["decisions"][0]["message"] == text


def test_langgraph_resumes_whole_or_not_at_all(m):
    """Its middleware wants one decision per action of an interrupt."""
    state = json.loads(LANGGRAPH.read_text())
    interrupt = state["pendingWrites"][0][2][0]["value"]
    interrupt["action_requests"].append({"name": "add_user", "args": {"name": "Dora"}})
    interrupt["review_configs"].append({"action_name": "add_user", "allowed_decisions": ["approve", "reject"]})
    m.waits("langgraph", 'cat "$CHECKPOINT_DECISIONS" > "$AGENTS/langgraph.decisions"', state=json.dumps(state))
    a, b = pending(m, "langgraph")
    refused(m, "langgraph", f"approve {a}", "EINVAL", "langgraph", b)
    refused(m, "langgraph", f"reject id={b} no", "EINVAL", "langgraph", a)
    assert not (m / "langgraph/output").exists()
    both = {"decisions": [{"id": a, "decision": "edit", "arguments": {"table": "old"}}, {"id": b, "decision": "approve"}]}
    assert m.echo("langgraph/resume", json.dumps(both)) is None
    first, second = json.loads(m.left("langgraph", "decisions"))["decisions"]
    assert first["decision"] == "edit" and first["arguments"] == {"table": "old"} and second["decision"] == "approve"


def test_the_second_question_of_a_langgraph_node_is_undecided(m):
    """Its first question was approved, and that answer is stored beside the second one: it approves nothing of it."""
    m.waits("second", "echo must not run", state=SAMPLES / "langgraph_py_second.json")
    drop, mail = pending(m, "second")
    assert m.status("second") == "waiting (2 calls)"
    assert all("decision" not in m.json(f"second/pending/{call}.json") for call in (drop, mail))
    assert "Already" not in (m / "second/transcript.md").read_text()
    [asked] = m.events_of("second", "approval.requested")
    assert [call["id"] for call in asked["calls"]] == [drop, mail]
    refused(m, "second", f"approve {mail}", "EINVAL", drop)
    assert not (m / "second/output").exists(), "nothing ran"


def test_calls_that_a_listing_state_does_not_list(m):
    """What LangGraph's savers' get() returns has no place for interrupts: those that are supplied wait, and are decided."""
    bare = json.loads((SAMPLES / "langgraph_py_second.json").read_text())["checkpoint"]
    call = {"id": "c1", "tool": "drop_users", "arguments": {"reason": "cleanup"}}
    m.waits("bare", 'cat "$CHECKPOINT_DECISIONS" > "$AGENTS/bare.decisions"', state=json.dumps(bare), meta={"pending": [call]})
    assert m.status("bare") == "waiting (1 call)" and pending(m, "bare") == ["c1"] and (m / ".pending/bare").is_symlink()
    assert "problems" not in m.json("bare/checkpoint.json")
    assert m.echo("bare/resume", "reject no") is None
    assert json.loads(m.left("bare", "decisions"))["decisions"] == [{"id": "c1", "tool": "drop_users", "decision": "reject", "message": "no"}]


def test_answer(m):
    """LlamaIndex keeps the question nowhere in its state: whoever took the checkpoint supplies it."""
    question = [{"id": "q1", "kind": "input", "arguments": {"prompt": "Which table?"}}]
    m.waits("answer", 'cat "$CHECKPOINT_DECISIONS" > "$AGENTS/answer.decisions"', state=LLAMAINDEX, meta={"pending": question})
    assert m.status("answer").startswith("waiting")
    assert m.echo("answer/resume", "approve") == "EINVAL"
    assert "answer TEXT" in m.result("answer")["message"]
    assert m.echo("answer/resume", "answer the users table") is None
    got = json.loads(m.left("answer", "decisions"))
    assert got["input"] == "the users table"


# -- what is refused before anything runs -----------------------------------------------------------------------------------------

def refused(m, name, command, code, *words, file="resume"):
    before = m.status(name)
    assert m.echo(f"{name}/{file}", command) == code
    result = m.result(name)
    assert result["errno"] == code and result["state"] == "refused"
    for word in words:
        assert word in result["message"], result["message"]
    assert m.status(name) == before, "a refusal changes nothing"
    assert m.events_of(name, "command.refused")[-1]["errno"] == code


def test_unknown_call(m):
    m.waits("unknown-call", "echo must not run")
    refused(m, "unknown-call", "approve call_nowhere", "EINVAL", "call_nowhere", CALL)
    refused(m, "unknown-call", f"approve {CALL} {CALL}", "EINVAL", "twice")
    refused(m, "unknown-call", "answer yes", "EINVAL", "approve", "reject")
    refused(m, "unknown-call", "aprove", "EINVAL", "unknown verb", "approve [ID…]", "reject [id=ID] TEXT", "answer TEXT")
    refused(m, "unknown-call", '{"decisions":[{"id":"%s","decision":"edit","arguments":{}}]}' % CALL, "EINVAL", "edit")
    assert not (m / "unknown-call/output").exists(), "nothing ran"


def test_no_pending_calls(m):
    m.waits("raw", "echo must not run", state='{"anything": [1, 2, 3]}')
    refused(m, "raw", "approve", "EINVAL", "nothing is pending", "meta.json")
    m.waits("final", "echo must not run", state=SAMPLES / "py_seed_after_approve.json")
    refused(m, "final", "approve", "EINVAL", "nothing is pending", "ended")


def test_raw_state_with_supplied_calls(m):
    m.waits("supplied", 'cat "$CHECKPOINT_DECISIONS" > "$AGENTS/supplied.decisions"', state="not even JSON",
            meta={"pending": [{"id": "c1", "tool": "rm", "arguments": "{}"}]})
    assert m.status("supplied") == "waiting (1 call)"
    assert m.echo("supplied/resume", "reject never") is None
    assert json.loads(m.left("supplied", "decisions"))["decisions"] == [{"id": "c1", "tool": "rm", "decision": "reject", "message": "never"}]


def test_database_only(m):
    os.mkdir(m / "database-only")
    m.wait_status("database-only", "saved (database only)")
    refused(m, "database-only", "approve", "ENODATA", "only its database half")
    refused(m, "database-only", "in-place approve", "ENODATA", file="replay")


def test_not_configured_and_not_found():
    with Mount() as m:
        m.take("a")
        refused(m, "a", "approve", "EOPNOTSUPP", "--resume=COMMAND", "[resume]")
        refused(m, "a", "in-place approve", "EOPNOTSUPP", "--resume=COMMAND", file="replay")
        assert m.status("a") == "waiting (1 call)"
        assert "--resume" in m.read(".control/health")
        m.resume = "/nowhere/agent --now"
        m.remount()
        refused(m, "a", "approve", "ENOENT", "/nowhere/agent")
        m.resume = "FOO=1 no-such-program-anywhere x"
        m.remount()
        refused(m, "a", "approve", "ENOENT", "no-such-program-anywhere")
        m.resume = "/etc/passwd"
        m.remount()
        refused(m, "a", "approve", "EACCES", "/etc/passwd")
        assert m.status("a") == "waiting (1 call)", "the decision is still open"
        m.resume = "true"
        m.remount()
        assert m.echo("a/resume", "approve") is None


# -- how it ends ------------------------------------------------------------------------------------------------------------------

def test_finished(m):
    m.waits("finished", "echo hello; exit 0")
    assert m.echo("finished/resume", "approve") is None
    assert m.status("finished") == "finished"
    assert m.result("finished")["state"] == "done"
    assert m.read("finished/output") == "hello\n"
    for words in ("approve", "again approve", "reject no"):
        refused(m, "finished", words, "EALREADY", "restore")
    assert not os.path.islink(m / ".pending/finished")
    assert [e["event"] for e in m.events_of("finished")][-7:-3] == ["approval.requested", "approval.decided", "resume.started",
                                                                   "resume.finished"]


def test_stopped_again(m):
    m.waits("stopped", "child stopped.2; exit 10")
    assert m.echo("stopped/resume", "approve") is None
    assert m.status("stopped") == "stopped again -> stopped.2"
    assert "stopped.2" in m.result("stopped")["message"]
    assert m.json("stopped.2/checkpoint.json")["parent"] == m.json("stopped/checkpoint.json")["id"]
    assert m.wait("stopped.2") == "waiting (1 call)"
    refused(m, "stopped", "again approve", "EALREADY")
    assert os.readlink(m / ".pending/stopped.2") == "../stopped.2"


def test_stopped_again_without_a_child(m):
    m.waits("childless", "exit 10")
    m.take("childless.2")  # somebody else's checkpoint, which names no parent
    assert m.echo("childless/resume", "approve") == "ECHILD"
    assert m.status("childless").startswith("failed resume: ") and "parent" in m.status("childless")
    assert "parent" in m.result("childless")["message"]
    refused(m, "childless", "approve", "EALREADY", "again")


def test_a_child_of_an_earlier_attempt_does_not_count(m):
    m.waits("earlier", "child earlier.2; exit 1")
    assert m.echo("earlier/resume", "approve") == "EIO"
    m.agent("earlier", "exit 10")
    assert m.echo("earlier/resume", "again approve") == "ECHILD"


def test_nothing_done(m):
    m.waits("nothing", "echo the model is not there; exit 75")
    assert m.echo("nothing/resume", "approve") == "EAGAIN"
    assert m.status("nothing") == "waiting (1 call)", "the decision is free again"
    assert "the model is not there" in m.result("nothing")["message"]
    assert os.path.islink(m / ".pending/nothing")
    m.agent("nothing", 'cat "$CHECKPOINT_DECISIONS" > "$AGENTS/nothing.decisions"')
    assert m.echo("nothing/resume", "reject other") is None, "plain words, and another decision than before"
    assert json.loads(m.left("nothing", "decisions"))["decisions"][0]["message"] == "other"
    assert m.status("nothing") == "finished"


@pytest.mark.parametrize("script, code, says", [
    ("echo one; echo the last line; echo; exit 1", 1, "the last line"),
    ("echo worked; missing-program", 127, "missing-program"),
    ("echo worked; /etc/passwd", 126, "Permission denied"),
    ("echo worked; exit 255", 255, "worked"),
    ("exit 3", 3, ""),
])
def test_failed(m, script, code, says):
    name = f"failed-{code}"
    m.waits(name, script)
    assert m.echo(f"{name}/resume", "approve") == "EIO"
    status = m.status(name)
    assert status.startswith("failed resume: ") and f"exit {code}" in status and says in status and not status.endswith(": ")
    assert says in m.result(name)["message"]
    refused(m, name, "approve", "EALREADY", "again", "restore")
    m.agent(name, "echo now it works")
    assert m.echo(f"{name}/resume", "again reject changed my mind") is None
    assert m.status(name) == "finished"
    first, second = m.events_of(name, "approval.decided")
    assert "again" not in first and second["again"] is True and second["decisions"][0]["message"] == "changed my mind"
    assert m.read(f"{name}/output") == "now it works\n", "the attempt before is gone from output"


def test_ended_by_a_signal(m):
    m.waits("signalled", "echo before; kill -SEGV $$")
    assert m.echo("signalled/resume", "approve") == "EIO"
    assert "signal 11 (Segmentation fault)" in m.status("signalled")
    assert "before" in m.status("signalled")


def test_background_processes_end_with_the_command(m):
    m.waits("background", 'sleep 1000 & echo $! > "$AGENTS/background.pid"; exit 0')
    assert m.echo("background/resume", "approve") is None
    assert not alive(m.left("background", "pid").strip())


# -- output -----------------------------------------------------------------------------------------------------------------------

def test_output_grows_while_it_runs(m):
    echo = m.hold("growing", "echo first; hold; echo second; hold; exit 0")
    wait_until(lambda: m.read("growing/output") == "first\n", DEADLINE)
    wait_until(lambda: os.stat(m / "growing/output").st_size == 6)  # the bytes are read from the store, which has them a moment before
    assert m.status("growing").startswith(f"agent running on {os.uname().nodename} since 20")
    (m.scripts / "growing.ready").unlink()
    m.release("growing")
    wait_until(lambda: m.read("growing/output") == "first\nsecond\n", DEADLINE)
    wait_until(lambda: os.stat(m / "growing/output").st_size == 13)
    assert shell(f"tail -c 7 {m / 'growing/output'}").stdout == "second\n"
    m.ready("growing")
    m.release("growing")
    assert echo.answer() is None


def test_big_output(m):
    """40 MB: the first and the last 8 MiB, and in the middle a line that says how much is missing."""
    m.waits("big", "seq -f '%015.0f' 1 2500000")
    assert m.echo("big/resume", "approve") is None
    whole = "".join(f"{i:015d}\n" for i in range(1, 2500001)).encode()
    size = os.stat(m / "big/output").st_size
    data = (m / "big/output").read_bytes()
    assert len(data) == size
    assert data[:8 * MIB] == whole[:8 * MIB]
    assert data[-8 * MIB:] == whole[-8 * MIB:]
    marker = data[8 * MIB:-8 * MIB]
    left_out = len(whole) - 16 * MIB
    assert str(left_out).encode() in marker and len(marker) < 200, marker[:300]
    assert (m / "big/output").read_bytes() == data


def test_binary_output(m):
    m.waits("binary", "printf '\\000\\377\\376\\n\\303'; head -c 300000 /dev/zero; printf '\\n\\001\\377end'; exit 9")
    assert m.echo("binary/resume", "approve") == "EIO"
    assert (m / "binary/output").read_bytes() == b"\0\xff\xfe\n\xc3" + bytes(300000) + b"\n\1\xffend"
    assert m.status("binary").endswith("end"), "clean UTF-8 on one line"


# -- one decision, one agent --------------------------------------------------------------------------------------------------------

def test_two_at_once(m):
    m.waits("race", 'echo x >> "$AGENTS/race.runs"')

    def approve(i):
        return m.echo("race/resume", "approve")

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(approve, range(8)))
    assert answers.count(None) == 1, answers
    assert set(answers) <= {None, "EBUSY", "EALREADY"}
    assert m.left("race", "runs") == "x\n", "exactly one agent ran"


def test_busy_while_an_agent_runs(m):
    echo = m.hold("busy")
    m.waits("busy-other", "exit 0")
    assert m.echo("busy/resume", "approve") == "EBUSY"
    assert m.echo("busy-other/resume", "approve") == "EBUSY", "one agent on a line"
    assert "busy" in m.result("busy-other")["message"]
    assert m.echo("busy/restore", "in-place") == "EBUSY"
    assert m.echo("busy-other/restore", "in-place") == "EBUSY"
    assert m.echo("busy-other/replay", "in-place approve") == "EBUSY"
    assert m.write(".control/prune", "delete busy\n") == "EBUSY"
    assert m.status("busy-other") == "waiting (1 call)"
    with pytest.raises(OSError) as caught:
        os.rename(m / "busy", m / "busy-renamed")
    assert caught.value.errno == errno.EBUSY, "the agent works with its path"
    m.take("busy-take")  # takes pass
    m.release("busy")
    assert echo.answer() is None
    assert m.echo("busy-other/resume", "approve") is None


def test_off_line(m):
    m.waits("online", "exit 0")
    m.waits("offline", "exit 0")
    assert m.echo("online/restore", "in-place") is None
    assert m.status("offline") == "off-line"
    refused(m, "offline", "approve", "ESTALE", "restore it first")
    refused(m, "offline", "again approve", "ESTALE")
    assert not os.path.islink(m / ".pending/offline")
    assert m.echo("online/resume", "approve") is None
    assert m.echo("offline/restore", "in-place") is None
    assert m.echo("offline/resume", "approve") is None


def test_restore_opens_a_new_attempt(m):
    m.waits("attempts", "exit 1")
    assert m.echo("attempts/resume", "approve") == "EIO"
    assert m.echo("attempts/restore", "in-place") is None
    assert m.status("attempts") == "waiting (1 call)"
    m.agent("attempts", "exit 0")
    assert m.echo("attempts/resume", "approve") is None, "plain words do"
    assert m.echo("attempts/resume", "approve") == "EALREADY"


def test_cancel_while_neon_is_asked_where_to_connect(m):
    """Who hears that no agent will be started can rely on it, and the decision is free."""
    m.waits("uncalled", 'echo ran > "$AGENTS/uncalled.ran"')
    m.emulator.fault("GET:/projects/*/connection_uri=delay:9000")
    writing = Writing(m, "uncalled/resume", "approve")
    wait_until(lambda: not m.emulator.control("GET", "faults").json["faults"])
    assert m.echo("uncalled/cancel", "cancel") is None
    assert m.result("uncalled")["message"] == "no agent will be started"
    assert writing.answer() == "ECANCELED"
    assert not (m.scripts / "uncalled.ran").exists()
    assert m.status("uncalled") == "waiting (1 call)"
    assert m.echo("uncalled/resume", "approve") is None and m.left("uncalled", "ran") == "ran\n"


def test_nowait_and_wait(m):
    m.waits("nowait", "hold; echo done")
    os.mkfifo(m.scripts / "nowait.go")
    assert m.echo("nowait/resume", "nowait approve") is None
    m.ready("nowait")
    assert m.status("nowait").startswith("agent running")
    assert m.result("nowait")["state"] == "running"
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(m.wait, "nowait") for _ in range(3)]
        killed = subprocess.Popen(["cat", m / "nowait/wait"], stdout=subprocess.PIPE)
        assert not any(w.done() for w in waiting)
        killed.kill()
        assert killed.wait(DEADLINE) == -signal.SIGKILL
        m.release("nowait")
        assert [w.result(DEADLINE) for w in waiting] == ["finished"] * 3
    assert m.wait("nowait") == "finished"


def test_ctrl_c_leaves_the_agent_alone(m):
    m.waits("ctrl-c", "hold; echo done")
    os.mkfifo(m.scripts / "ctrl-c.go")
    echo = subprocess.Popen(["dash", "-c", f"echo approve > {m / 'ctrl-c/resume'}"])
    m.ready("ctrl-c")
    echo.send_signal(signal.SIGINT)
    assert echo.wait(DEADLINE) != 0
    assert m.status("ctrl-c").startswith("agent running"), "the action goes on"
    m.release("ctrl-c")
    assert m.wait("ctrl-c") == "finished"
    assert m.read("ctrl-c/output") == "done\n"


def test_same_bytes_wait_for_the_same_action(m):
    """Python sends a write again after EINTR; on the same handle that is the same action."""
    m.waits("repeat", 'echo x >> "$AGENTS/repeat.runs"; hold')
    os.mkfifo(m.scripts / "repeat.go")
    code = ("import os, signal, sys\n"
            "signal.signal(signal.SIGUSR1, lambda *a: None)\n"
            "fd = os.open(sys.argv[1], os.O_WRONLY)\n"
            "print(os.write(fd, b'approve\\n'), os.write(fd, b'approve\\n'))\n")
    writer = subprocess.Popen(["python3", "-c", code, m / "repeat/resume"], stdout=subprocess.PIPE, text=True)
    m.ready("repeat")
    for _ in range(3):
        writer.send_signal(signal.SIGUSR1)
    assert m.status("repeat").startswith("agent running")
    m.release("repeat")
    assert writer.communicate(timeout=DEADLINE)[0] == "8 8\n"
    assert m.left("repeat", "runs") == "x\n"


def test_a_nowait_shows_at_once(m):
    """Whoever polls the status mustn't take a resume that hasn't started yet for one that is over."""
    for i in range(20):
        m.waits(f"at-once-{i}", "exit 0")
        assert m.echo(f"at-once-{i}/resume", "nowait approve") is None
        assert m.status(f"at-once-{i}").startswith(("agent is to run on ", "agent running on ", "finished"))
        assert m.wait(f"at-once-{i}") == "finished"

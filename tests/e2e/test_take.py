"""Taking a checkpoint: mkdir and one file write (design.md §4), by every program that people write files with."""

import contextlib
import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from emulator import wait_until
from mount import DEADLINE, SAMPLES, STATE, Mount, shell

@pytest.fixture(scope="module")
def m():
    with Mount(emulator=("--snapshots=1000",)) as mount:
        yield mount


SNAPSHOT = "POST:/projects/*/branches/*/snapshot"
SEALED = "transcript.md"


def sealed(m, name):
    """Waits for the seal."""
    wait_until(lambda: (m / name / SEALED).exists())
    return m.status(name)


def fails(code, call, *args, **kw):
    """The call fails with this errno; returns the exception."""
    with pytest.raises(OSError) as caught:
        call(*args, **kw)
    assert caught.value.errno == code, (errno.errorcode[caught.value.errno], errno.errorcode[code])
    return caught.value


def in_write(process):
    """Whether it is in write(2)."""
    return Path(f"/proc/{process}/syscall").read_text().split()[0] in ("1", "64")


def snapshot_names(m):
    return {s["id"]: s["name"] for s in m.emulator.snapshots()}


# -- the plain way


def test_mkdir_and_a_write_take_a_checkpoint(m):
    m.take("first")
    assert m.status("first") == "waiting (1 call)"
    assert (m / "first/state.json").read_bytes() == STATE.read_bytes()
    snapshot = m.json("first/snapshot.json")
    assert snapshot["branch_id"] == m.read(".control/active_branch").strip()
    assert snapshot["id"] in snapshot_names(m)
    assert snapshot_names(m)[snapshot["id"]].startswith("first-act-")
    assert os.readlink(m / "latest") == "first"
    checkpoint = m.json("first/checkpoint.json")
    assert checkpoint["state"] == {"bytes": STATE.stat().st_size, "sha256": hashlib.sha256(STATE.read_bytes()).hexdigest()}
    assert m.json("first/meta.json") == {}


def test_mkdir_alone_is_a_database_only_checkpoint(m):
    os.mkdir(m / "bare")
    assert m.wait("bare") == "saved (database only)"
    assert m.json("bare/snapshot.json")["id"] in snapshot_names(m)
    assert not (m / "bare/state.json").exists()
    assert sorted(os.listdir(m / "bare")) == sorted(["branches", "cancel", "checkpoint.json", "history.jsonl", "replay", "restore", "result", "resume",
                                                     "snapshot.json", "status"])


def test_the_first_write_waits_for_the_snapshot(m):
    with contextlib.ExitStack() as snapshot:
        snapshot.enter_context(m.held(SNAPSHOT))
        os.mkdir(m / "slow")
        assert m.status("slow") == "writing"
        f = snapshot.enter_context(open(m / "slow/state.json", "wb", buffering=0))
        writing = threading.Thread(target=f.write, args=(b"{}",), daemon=True)
        writing.start()
        wait_until(lambda: in_write(f"self/task/{writing.native_id}"))
        assert not (m / "slow/snapshot.json").exists()
        m.emulator.control("DELETE", "faults")
        writing.join(DEADLINE)
        assert m.json("slow/snapshot.json")["id"]  # settled before the write was answered
        assert m.status("slow") == "writing"
    assert sealed(m, "slow") == "saved"


WRITERS = {
    "bash": 'bash -c \'mkdir "$0" && cat "$1" > "$0/state.json"\' {dir} {state}',
    "dash": 'dash -c \'mkdir "$0" && cat "$1" > "$0/state.json"\' {dir} {state}',
    "bash_echo": "bash -c 'mkdir \"$0\" && echo \"$(cat \"$1\")\" > \"$0/state.json\"' {dir} {state}",
    "cp": "mkdir {dir} && cp {state} {dir}/state.json",
    "cp_a": "mkdir {dir} && cp -a {state} {dir}/state.json",
    "mv": "mkdir {dir} && cp -p {state} {tmp}/x && mv {tmp}/x {dir}/state.json",
    "install": "mkdir {dir} && install -m 600 {state} {dir}/state.json",
    "dd": "mkdir {dir} && dd if={state} of={dir}/state.json bs=1000 status=none",
    "dd_fsync": "mkdir {dir} && dd if={state} of={dir}/state.json bs=1M conv=fsync status=none",
    "tee": "mkdir {dir} && tee {dir}/state.json < {state} > /dev/null",
    "rsync": "mkdir {dir} && cp {state} {tmp}/state.json && rsync -a {tmp}/state.json {dir}/",
    "rsync_inplace": "mkdir {dir} && cp {state} {tmp}/state.json && rsync -a --inplace {tmp}/state.json {dir}/",
    "pwrite_out_of_order": "mkdir {dir} && dd if={state} of={dir}/state.json bs=512 skip=1 seek=1 status=none conv=notrunc,nocreat "
                           "2>/dev/null; python3 -c 'import os,sys;b=open(sys.argv[1],\"rb\").read();f=os.open(sys.argv[2],os.O_WRONLY|os.O_CREAT);"
                           "os.pwrite(f,b[512:],512);os.pwrite(f,b[:512],0);os.close(f)' {state} {dir}/state.json",
    "node": "node -e 'const fs=require(\"fs\");fs.mkdirSync(process.argv[1]);fs.writeFileSync(process.argv[1]+\"/state.json\","
            "fs.readFileSync(process.argv[2]))' {dir} {state}",
    "node_promises": "node -e 'const fs=require(\"fs/promises\");(async()=>{{await fs.mkdir(process.argv[1]);await fs.writeFile("
                     "process.argv[1]+\"/state.json\",await fs.readFile(process.argv[2]))}})()' {dir} {state}",
    "node_rename": "node -e 'const fs=require(\"fs\");const d=process.argv[1];fs.mkdirSync(d);fs.writeFileSync(d+\"/state.json.tmp\","
                   "fs.readFileSync(process.argv[2]));fs.renameSync(d+\"/state.json.tmp\",d+\"/state.json\")' {dir} {state}",
}


@pytest.mark.parametrize("how", WRITERS)
def test_programs_that_write(m, tmp_path, how):
    name = f"by_{how}"
    done = shell(WRITERS[how].format(dir=m / name, state=STATE, tmp=tmp_path))
    assert (done.returncode, done.stderr) == (0, ""), done
    assert sealed(m, name) == "waiting (1 call)"
    assert (m / name / "state.json").read_bytes().rstrip(b"\n") == STATE.read_bytes().rstrip(b"\n")
    assert m.json(f"{name}/checkpoint.json")["pending"]


def by_dump(path, text):
    with open(path / "state.json", "w") as f:
        json.dump(json.loads(text), f)


def by_write_text(path, text):
    assert (path / "state.json").write_text(text) == len(text)


def by_replace(path, text):
    (path / "state.json.part").write_text(text)
    os.replace(path / "state.json.part", path / "state.json")


def by_tempfile(path, text):
    import tempfile
    with tempfile.NamedTemporaryFile("w", dir=path, delete=False) as f:
        f.write(text)
        f.flush()
        os.fsync(f.fileno())
    os.rename(f.name, path / "state.json")


def by_copy(path, text):
    import shutil
    shutil.copy(STATE, path / "state.json")


def by_copy2(path, text):
    import shutil
    shutil.copy2(STATE, path / "state.json")


def by_move(path, text):
    import shutil
    import tempfile
    with tempfile.TemporaryDirectory() as d:
        with open(f"{d}/s", "w") as f:
            f.write(text)
        shutil.move(f"{d}/s", path / "state.json")


def by_bytes_without_buffer(path, text):
    with open(path / "state.json", "wb", buffering=0) as f:
        for i in range(0, len(text), 1000):
            f.write(text[i:i + 1000].encode())


@pytest.mark.parametrize("how", [by_dump, by_write_text, by_replace, by_tempfile, by_copy, by_copy2, by_move, by_bytes_without_buffer])
def test_python(m, how):
    name = f"python_{how.__name__}"
    os.makedirs(m / name, exist_ok=True)
    how(m / name, STATE.read_text())
    assert sealed(m, name) == "waiting (1 call)"
    assert m.json(f"{name}/state.json") == json.loads(STATE.read_text())
    assert sorted(os.listdir(m / name)) == sorted(["branches", "cancel", "checkpoint.json", "history.jsonl", "meta.json", "pending", "replay", "restore",
                                                   "result", "resume", "snapshot.json", "state.json", "status", "transcript.md"])


def test_a_renamed_temporary_keeps_nothing_of_its_own(m):
    """The kernel keeps the temporary's inode: it has to show the sealed file's attributes (traps.md 14)."""
    os.mkdir(m / "renamed")
    (m / "renamed/.state.json.aB3xYz").write_bytes(STATE.read_bytes())
    os.rename(m / "renamed/.state.json.aB3xYz", m / "renamed/state.json")
    assert (m / "renamed" / SEALED).exists()  # sealed at once
    found = os.stat(m / "renamed/state.json")
    listed = {e.name: e.inode() for e in os.scandir(m / "renamed")}
    assert found.st_ino == listed["state.json"]
    assert (found.st_size, found.st_mode & 0o777) == (STATE.stat().st_size, 0o400)
    assert (m / "renamed/state.json").read_bytes() == STATE.read_bytes()
    fails(errno.EPERM, open, m / "renamed/state.json", "w")
    fails(errno.ENOENT, os.stat, m / "renamed/.state.json.aB3xYz")


# -- what a state may be


TEXTS = {
    "text": b"not JSON at all\n",
    "nul": b"\x00",
    "msgpack": (SAMPLES / "langgraph_py_interrupt.msgpack").read_bytes(),
    "random": bytes(range(256)) * 41,
    "nan": b'{"a": NaN, "b": [Infinity, -Infinity]}',
    "surrogate": b'{"a": "\\ud800", "b": "\\udfff\\ud800"}',
    "nul_escape": b'{"a": "x\\u0000y", "\\u0000": 1}',
    "huge_int": b'{"a": 123456789012345678901234567890, "b": 1e999999, "c": -0}',
    "latin1": '{"a": "ü"}'.encode("latin-1"),
    "bom": b'\xef\xbb\xbf{"a": 1}',
    "number": b"42",
    "string": b'"a string"',
    "deep": b"[" * 3000 + b"]" * 3000,
    "duplicate": b'{"a": 1, "a": 2}',
    "two": b'{"a": 1}\n{"b": 2}\n',
    "spaces": b"   \n",
}


@pytest.mark.parametrize("kind", TEXTS)
def test_exact_bytes_of_anything(m, kind):
    name = f"bytes_{kind}"
    m.take(name, TEXTS[kind])
    assert m.status(name) == ("waiting (1 call)" if kind == "msgpack" else "saved")
    assert (m / name / "state.json").read_bytes() == TEXTS[kind]
    assert os.stat(m / name / "state.json").st_size == len(TEXTS[kind])
    assert m.json(f"{name}/checkpoint.json")["state"]["sha256"] == hashlib.sha256(TEXTS[kind]).hexdigest()
    if kind in ("text", "msgpack", "random"):
        assert kind == "msgpack" or not m.json(f"{name}/checkpoint.json")["derived"]


def test_every_sample_seals(m):
    for sample in sorted(SAMPLES.iterdir()):
        name = f"sample {sample.name}"
        m.take(name, sample)
        assert (m / name / "state.json").read_bytes() == sample.read_bytes(), sample
        pending = m.json(f"{name}/checkpoint.json")["pending"]
        awaits = m.status(name).startswith("waiting")
        assert awaits == (m / ".pending" / name).is_symlink(), sample
        assert len(os.listdir(m / name / "pending")) == len(pending), sample
        for file in (m / name / "pending").iterdir():
            json.loads(file.read_text())
        assert (m / name / SEALED).read_text(), sample


def test_a_state_of_20_mb_in_small_writes(m):
    chunk = json.dumps({"role": "user", "content": "x" * 100}).encode() + b","
    data = b'{"messages": [' + chunk * (20_000_000 // len(chunk)) + b"{}]}"
    os.mkdir(m / "big")
    with open(m / "big/state.json", "wb", buffering=0) as f:
        for i in range(0, len(data), 8192):
            assert f.write(data[i:i + 8192]) == len(data[i:i + 8192])
    assert sealed(m, "big") == "saved"
    assert hashlib.sha256((m / "big/state.json").read_bytes()).digest() == hashlib.sha256(data).digest()
    assert os.stat(m / "big/state.json").st_blocks == (len(data) + 511) // 512


# -- what isn't sealed


def test_nothing_written_seals_nothing(m):
    os.mkdir(m / "empty")
    m.wait("empty")
    for how in (":>", "truncate -s 0", "touch", "printf '' >", "cp /dev/null"):
        done = shell(f"{how} {m / 'empty/state.json'}")
        assert done.returncode == 0, done
        assert m.status("empty") == "saved (database only)", how
        assert os.stat(m / "empty/state.json").st_size == 0
    (m / "empty/state.json").write_text("{}")
    assert sealed(m, "empty") == "saved"
    assert m.read("empty/state.json") == "{}"


CUT = {"array": b"[1, 2", "string": b'{"a": "b', "key": b'{"a', "literal": b'{"a": tru', "escape": b'{"a": "\\', "unicode": b'{"a": "\\u00',
       "utf8": '{"a": "ü'.encode()[:-1], "nan": b'{"a": NaN, "b": [', "spaces": b'  \n {"a": 1', "surrogate": b'{"a": "\\ud800", "b": {'}


@pytest.mark.parametrize("kind", CUT)
def test_json_cut_short_is_not_sealed(m, kind):
    name = f"cut_{kind}"
    os.mkdir(m / name)
    (m / name / "state.json").write_bytes(CUT[kind])
    status = wait_until(lambda: m.status(name) if "cut short" in m.status(name) else None)
    assert status.startswith("writing, "), status
    assert not (m / name / SEALED).exists()
    assert (m / name / "state.json").read_bytes() == CUT[kind]
    (m / name / "state.json").write_bytes(STATE.read_bytes())  # written again
    assert sealed(m, name) == "waiting (1 call)"
    assert (m / name / "state.json").read_bytes() == STATE.read_bytes()


def test_what_is_cut_to_nothing_isnt_cut_short(m):
    os.mkdir(m / "emptied")
    for empty in (lambda p: os.truncate(p, 0), os.unlink, lambda p: open(p, "w").close()):
        (m / "emptied/state.json").write_bytes(b'{"a": [')
        wait_until(lambda: "cut short" in m.status("emptied"))
        empty(m / "emptied/state.json")
        assert m.wait("emptied") == "saved (database only)"


def test_json_cut_short_may_be_completed_by_append(m):
    os.mkdir(m / "append")
    half = len(STATE.read_bytes()) // 2
    (m / "append/state.json").write_bytes(STATE.read_bytes()[:half])
    wait_until(lambda: "cut short" in m.status("append"))
    done = shell(f"tail -c +{half + 1} {STATE} >> {m / 'append/state.json'}")
    assert done.returncode == 0, done
    assert sealed(m, "append") == "waiting (1 call)"
    assert (m / "append/state.json").read_bytes() == STATE.read_bytes()


def test_what_is_written_and_read_through_one_handle(m):
    os.mkdir(m / "both")
    for name in ("state.json", "x.tmp"):
        with open(m / "both" / name, "w+b", buffering=0) as f:
            for text in (b'{"a": 1', b', "b": 2', b'}'):
                f.write(text)
                end = f.tell()
                assert os.pread(f.fileno(), 100, end - len(text)) == text
                f.seek(0)
                assert f.read() == b'{"a": 1, "b": 2}'[:end], name
            if name == "state.json":
                f.truncate(0)
                f.seek(0)
                assert f.read() == b""
            else:
                os.rename(m / "both/x.tmp", m / "both/state.json")
                f.seek(0)
                assert os.fstat(f.fileno()).st_size == 16 and f.read() == b'{"a": 1, "b": 2}'
        if name == "state.json":
            m.wait("both")
            os.unlink(m / "both/state.json")
    assert m.read("both/state.json") == '{"a": 1, "b": 2}'


@pytest.mark.parametrize("settled", [False, True])
def test_an_empty_temporary_is_not_renamed_onto_the_state(m, settled):
    name = f"generated_{settled}"
    if settled:
        os.mkdir(m / name)
        m.wait(name)
    else:
        slow_take(m, name)
    (m / name / "x.tmp").touch()
    fails(errno.EINVAL, os.rename, m / name / "x.tmp", m / name / "state.json")
    result = m.result(name)
    assert (result["state"], result["errno"], result["command"]) == ("refused", "EINVAL", "write state.json") and "is empty" in result["message"]
    assert not (m / name / SEALED).exists()
    (m / name / "x.tmp").write_text("{}")
    os.rename(m / name / "x.tmp", m / name / "state.json")
    assert m.status(name) == "saved" and m.read(f"{name}/state.json") == "{}"


@pytest.mark.parametrize("closed_by", ["seal", "restore"])
def test_an_empty_temporary_where_no_state_may_come_is_refused_as_any_other(m, closed_by):
    """That it is empty isn't what is wrong, and the answer in `result`, here a dry run's, stays."""
    name = f"closed_by_{closed_by}"
    if closed_by == "seal":
        m.take(name, b"{}")
    else:
        os.mkdir(m / name)
        m.wait(name)
        assert m.echo(f"{name}/restore", "in-place") is None
    assert m.echo(f"{name}/restore", "dry-run") is None
    result = m.result(name)
    (m / name / "x.tmp").touch()
    fails(errno.EPERM, os.rename, m / name / "x.tmp", m / name / "state.json")
    assert m.result(name) == result and result["command"].startswith("dry-run")
    assert not m.events_of(name, "command.refused")


def test_a_temporary_cut_short_is_not_renamed_onto_the_state(m):
    os.mkdir(m / "cut_temporary")
    (m / "cut_temporary/state.json.tmp").write_bytes(b'{"a": [')
    fails(errno.EINVAL, os.rename, m / "cut_temporary/state.json.tmp", m / "cut_temporary/state.json")
    assert "cut short" in m.status("cut_temporary")
    (m / "cut_temporary/state.json.tmp").write_bytes(b'{"a": []}')
    os.rename(m / "cut_temporary/state.json.tmp", m / "cut_temporary/state.json")
    assert m.status("cut_temporary") == "saved"


def test_a_writer_killed_in_the_middle(m):
    os.mkdir(m / "killed")
    writer = subprocess.Popen([sys.executable, "-c", "import sys,time\nf = open(sys.argv[1], 'wb', buffering=0)\n"
                               "f.write(b'{\"messages\": [' + b'1,' * 50000)\nprint('written', flush=True)\ntime.sleep(600)",
                               m / "killed/state.json"], stdout=subprocess.PIPE)
    assert writer.stdout.readline() == b"written\n"
    assert m.status("killed") == "writing"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    wait_until(lambda: "cut short" in m.status("killed"))
    assert not (m / "killed" / SEALED).exists()
    assert os.readlink(m / "latest") != "killed"
    (m / "killed/state.json").write_bytes(b"{}")
    assert sealed(m, "killed") == "saved"


def test_a_draft_survives_the_mount(m):
    os.mkdir(m / "left")
    (m / "left/state.json").write_bytes(b'{"a": [1,')
    wait_until(lambda: "cut short" in m.status("left"))
    m.remount()
    assert "cut short" in m.status("left")
    assert m.read("left/state.json") == '{"a": [1,'
    with open(m / "left/state.json", "a") as f:
        f.write("2]}")
    sealed(m, "left")
    assert m.read("left/state.json") == '{"a": [1,2]}'


def test_two_writers_of_one_state(m):
    os.mkdir(m / "two")
    with open(m / "two/state.json", "w") as f:
        fails(errno.EBUSY, open, m / "two/state.json", "w")
        fails(errno.EBUSY, open, m / "two/state.json", "a")
        assert m.read("two/state.json") == ""  # reading is free
        f.write("{}")
    assert sealed(m, "two") == "saved"
    for mode in ("w", "a", "r+"):
        fails(errno.EPERM, open, m / "two/state.json", mode)
    assert m.read("two/state.json") == "{}" and m.status("two") == "saved"


def test_a_sealed_state_never_changes_not_even_for_whom_wrote_it(m):
    m.take("fixed")
    fails(errno.EPERM, open, m / "fixed/state.json", "w")
    fails(errno.EPERM, os.truncate, m / "fixed/state.json", 0)
    fails(errno.EPERM, os.unlink, m / "fixed/state.json")
    fails(errno.EPERM, os.unlink, m / "fixed/meta.json")
    before = {p.name for p in (m / "fixed").iterdir()}
    done = shell(f"cd {m / 'fixed'}; for f in *; do echo x > $f; truncate -s 0 $f; rm -rf $f; mv $f new; mv ../first $f; done; ln -s a b; mkdir c")
    assert done.stderr.count("Operation not permitted") > 30
    assert m.status("fixed") == "waiting (1 call)"
    assert before == {p.name for p in (m / "fixed").iterdir()}
    assert m.read("fixed/state.json") == STATE.read_text()
    assert m.json("fixed/snapshot.json")["id"] in snapshot_names(m)


# -- takes that fail


@pytest.fixture
def faulty(m):
    """The shared mount, its emulator without faults afterwards."""
    yield m
    m.emulator.control("DELETE", "faults")


def test_a_failed_take_says_so_on_every_write_of_the_handle(faulty):
    m = faulty
    m.emulator.fault(f"{SNAPSHOT}=op:error:disk on fire*inf")  # it may have failed before the open, which tries again
    os.mkdir(m / "burns")
    fd = os.open(m / "burns/state.json", os.O_WRONLY | os.O_CREAT)
    codes = {fails(errno.EIO, os.write, fd, b"{}").errno for _ in range(3)}
    os.close(fd)
    assert len(codes) == 1
    status = m.wait_status("burns", "failed take: ")
    assert "disk on fire" in status
    assert not (m / "burns" / SEALED).exists() and not (m / "burns/state.json").exists()
    assert m.result("burns")["state"] == "failed"
    m.emulator.control("DELETE", "faults")
    # a new open tries again
    (m / "burns/state.json").write_text("{}")
    assert sealed(m, "burns") == "saved"
    assert m.json("burns/snapshot.json")["id"] in snapshot_names(m)
    assert os.readlink(m / "latest") == "burns"


def test_python_that_writes_again_after_an_error_seals_nothing(faulty):
    m = faulty
    m.emulator.fault(f"{SNAPSHOT}=op:error*inf")  # it may have failed before Python opens, which tries again
    os.mkdir(m / "python_fails")
    done = subprocess.run([sys.executable, "-c", "import sys, json\nwith open(sys.argv[1], 'w') as f:\n json.dump({'a': 1}, f)",
                           m / "python_fails/state.json"], capture_output=True, text=True)
    assert done.returncode == 1 and "Input/output error" in done.stderr
    m.wait_status("python_fails", "failed take: ")
    assert not (m / "python_fails" / SEALED).exists()


def test_an_error_before_the_first_write_is_the_cause_too(faulty):
    """The handle was open already when the take failed."""
    m = faulty
    m.emulator.fault(f"{SNAPSHOT}=op:error*inf")
    os.mkdir(m / "early")
    fd = os.open(m / "early/state.json", os.O_WRONLY | os.O_CREAT)
    m.wait_status("early", "failed take: ")
    for _ in range(2):
        fails(errno.EIO, os.write, fd, b"{}")
    os.close(fd)
    assert m.status("early").startswith("failed take: ")
    os.rmdir(m / "early")


def test_rmdir_frees_the_name_of_a_failed_take(faulty):
    m = faulty
    m.emulator.fault(f"{SNAPSHOT}=op:error")
    os.mkdir(m / "freed")
    assert m.wait("freed").startswith("failed take: ")
    os.rmdir(m / "freed")
    assert not (m / "freed").exists() and "freed" not in os.listdir(m.root)
    os.mkdir(m / "freed")
    assert m.wait("freed") == "saved (database only)"
    fails(errno.ENOTEMPTY, os.rmdir, m / "freed")
    assert m.status("freed") == "saved (database only)"


def test_a_lost_answer_makes_one_snapshot(faulty):
    m = faulty
    m.emulator.fault(f"{SNAPSHOT}=drop-after")
    os.mkdir(m / "lost")
    assert m.wait("lost") == "saved (database only)"
    assert [n for n in snapshot_names(m).values() if n.startswith("lost-act-")] == [m.json("lost/snapshot.json")["name"]]


# -- mkdir


def test_names(m):
    for name in ("with space", "ümläut", "-rf", "a" * 255, "x=1,y:2", "'quote\"", "*", "latest2", "back\\slash", "状态"):
        os.mkdir(m / name)
        assert name in os.listdir(m.root)
        fails(errno.EEXIST, os.mkdir, m / name)
    for name in (b".dot", b"ctrl\x01", b"new\nline", b"del\x7f", b"bad\xff", b"cut\xc3", b"c1\xc2\x85"):
        fails(errno.EINVAL, os.mkdir, os.path.join(os.fsencode(m.root), name))
        assert m.json(".control/result")["errno"] == "EINVAL" and "name" in m.json(".control/result")["message"]
    fails(errno.ENAMETOOLONG, os.mkdir, m / ("a" * 256))
    fails(errno.EPERM, os.mkdir, m / ".control/x")
    fails(errno.EPERM, os.mkdir, m / ".pending/x")
    fails(errno.EPERM, open, m / "file", "w")
    fails(errno.EPERM, os.symlink, "a", m / "link")
    fails(errno.EPERM, os.mkfifo, m / "fifo")


def test_latest_is_no_name(m):
    if not os.path.lexists(m / "latest"):
        fails(errno.EINVAL, os.mkdir, m / "latest")
    m.take("before latest")
    fails(errno.EEXIST, os.mkdir, m / "latest")


def test_mkdir_while_a_restore_is_under_way(m):
    m.take("back")
    with m.held("POST:/projects/*/snapshots/*/restore"):
        restore = subprocess.Popen(["sh", "-c", f"echo in-place > '{m / 'back/restore'}'"])
        m.wait_status("back", "restoring")
        fails(errno.EBUSY, os.mkdir, m / "meanwhile")
        assert not (m / "meanwhile").exists()
        result = m.json(".control/result")
    assert result["errno"] == "EBUSY" and "restore" in result["message"], result
    assert restore.wait() == 0
    os.mkdir(m / "meanwhile")
    assert m.wait("meanwhile") == "saved (database only)"


def test_the_first_write_after_a_restore_is_stale(m):
    """The snapshot is of a database that was replaced since: the state is of another moment."""
    m.take("anchor")
    os.mkdir(m / "stale")
    m.wait("stale")
    held = os.open(m / "stale/state.json", os.O_WRONLY | os.O_CREAT)
    assert m.echo("anchor/restore", "in-place") is None
    for _ in range(2):
        fails(errno.ESTALE, os.write, held, b"{}")
    os.close(held)
    fails(errno.ESTALE, (m / "stale/state.json").write_text, "{}")
    assert not (m / "stale" / SEALED).exists()
    assert "active branch" in m.status("stale") or m.status("stale") == "off-line", m.status("stale")
    assert m.json("stale/snapshot.json")["id"] in snapshot_names(m)


def test_a_database_only_checkpoint_is_closed_by_its_first_restore(m):
    m.sql("CREATE TABLE alone (n int)")
    os.mkdir(m / "only")
    m.wait("only")
    m.sql("DROP TABLE alone")
    assert m.echo("only/restore", "in-place") is None
    assert m.sql("SELECT count(*) FROM alone") == [(0,)]
    assert m.status("only") == "saved (database only)"
    fails(errno.EPERM, (m / "only/state.json").write_text, "{}")
    assert m.echo("only/resume", "approve") == "ENODATA"
    assert not (m / "only/state.json").exists()


def test_a_restore_while_the_state_is_written(m):
    """The rest may still come; but there is no seal, and status says why."""
    m.take("other")
    os.mkdir(m / "torn")
    m.wait("torn")
    with open(m / "torn/state.json", "wb", buffering=0) as f:
        f.write(b'{"a": [1, ')
        assert m.echo("other/restore", "in-place") is None
        f.write(b"2]}")
    m.wait("torn")
    assert not (m / "torn" / SEALED).exists()
    fails(errno.ESTALE, (m / "torn/state.json").write_text, "{}")


def test_a_database_only_restore_of_what_is_being_written(m):
    os.mkdir(m / "itself")
    m.wait("itself")
    fd = os.open(m / "itself/state.json", os.O_WRONLY | os.O_CREAT)
    os.write(fd, b'{"a": ')
    assert m.echo("itself/restore", "in-place") is None
    for _ in range(2):
        fails(errno.EPERM, os.write, fd, b"1}")
    os.close(fd)
    m.wait("itself")
    assert not (m / "itself" / SEALED).exists()
    fails(errno.EPERM, (m / "itself/state.json").write_text, "{}")


# -- signals while the first write waits


def slow_take(m, name):
    m.emulator.fault(f"{SNAPSHOT}=delay:900")
    os.mkdir(m / name)
    return m / name / "state.json"


def test_a_child_that_ends_is_no_interruption(m):
    path = slow_take(m, "chld")
    done = shell(f"sleep 0.2 & sleep 0.4 & echo '{{}}' > {path}")
    assert (done.returncode, done.stderr) == (0, "")
    assert sealed(m, "chld") == "saved"


def test_python_goes_on_after_a_signal(m):
    with m.held(SNAPSHOT):
        os.mkdir(m / "alarm")
        writer = subprocess.Popen([sys.executable, "-c", "import os, signal, sys\nf = open(sys.argv[1], 'wb', buffering=0)\n"
                                   "signal.signal(signal.SIGALRM, lambda *a: os.write(1, b'alarm\\n'))\n"
                                   "signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)\nf.write(b'{\"a\": 1}')\n"
                                   "signal.setitimer(signal.ITIMER_REAL, 0)", m / "alarm/state.json"], stdout=subprocess.PIPE)
        for _ in range(5):  # not all of them before the write has begun
            assert writer.stdout.readline() == b"alarm\n"
    writer.communicate(timeout=DEADLINE)
    assert writer.returncode == 0
    assert sealed(m, "alarm") == "saved"
    assert m.json("alarm/state.json") == {"a": 1}


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_a_writer_that_is_ended_while_it_waits(m, how):
    name = f"ended by {how.name}"
    path = m / name / "state.json"
    with m.held(SNAPSHOT):
        os.mkdir(m / name)
        writer = subprocess.Popen(["sh", "-c", 'exec 3> "$0"; echo ready; printf "{}" >&3', path], stdout=subprocess.PIPE,
                                  preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        assert writer.stdout.readline() == b"ready\n"
        wait_until(lambda: in_write(writer.pid))
        writer.send_signal(how)
        assert writer.wait(DEADLINE) == -how
        writer.stdout.close()
        assert m.status(name) == "writing"  # it was ended before the snapshot has settled
    assert m.wait(name) == "saved (database only)"
    path.write_text("{}")
    assert sealed(m, name) == "saved"


# -- with a smaller plan, and without Neon


def test_a_full_quota():
    with Mount(emulator=("--plan=free",)) as m:
        m.take("one")
        os.mkdir(m / "two")
        fd = os.open(m / "two/state.json", os.O_WRONLY | os.O_CREAT)
        for _ in range(2):
            fails(errno.EDQUOT, os.write, fd, b"{}")
        os.close(fd)
        status = m.wait_status("two", "failed take: ")
        assert "snapshots limit exceeded" in status, status  # Neon's own words
        assert "one" in status and ".control/prune" in status, status  # what to delete, and how
        assert m.result("two")["errno"] == "EDQUOT"
        assert m.echo(".control/prune", "delete one") is None
        (m / "two/state.json").write_text("{}")
        assert sealed(m, "two") == "saved"


def test_without_neon():
    with Mount() as m:
        m.take("kept")
        m.emulator.stop()
        os.mkdir(m / "dark")
        fails(errno.ECONNREFUSED, (m / "dark/state.json").write_bytes, b"{}")
        status = m.wait_status("dark", "failed take: ")
        assert "refused" in status.lower() or "connect" in status.lower(), status
        assert (m / "kept/state.json").read_bytes() == STATE.read_bytes()
        out = shell(f"tar c -C {m.root} . | tar t | wc -l")
        assert out.returncode == 0 and int(out.stdout) > 20, out
        m.emulator.start()
        (m / "dark/state.json").write_text("{}")
        assert sealed(m, "dark") == "saved"

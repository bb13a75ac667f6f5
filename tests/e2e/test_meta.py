"""meta.json: the one file that stays writable (design.md §1, §4, §7.1)."""

import errno
import json
import os
import shutil
import subprocess

import pytest

from emulator import wait_until
from mount import STATE, Mount, shell


@pytest.fixture(scope="module")
def m():
    with Mount(emulator=("--snapshots=1000",)) as mount:
        yield mount


def meta(m, name):
    return m.json(f"{name}/meta.json")


def bare(m, name):
    os.mkdir(m / name)
    m.wait(name)
    return name


def refused(m, name, code, text):
    """The last refusal, in words that help."""
    result = m.result(name)
    assert (result["state"], result["errno"], result["command"]) == ("refused", code, "write meta.json"), result
    assert text in result["message"], result


# -- before the seal


def test_what_the_writer_supplies_is_in_the_checkpoint(m):
    given = {"run_id": "run-1", "step_id": "7", "parent": "ck-0123456789abcdef0123", "framework_version": "0.99", "reason": "before the drop",
             "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "labels": {"team": "ä"}, "mine": [1, None, 2.5]}
    m.take("supplied", meta=given)
    assert meta(m, "supplied") == given
    checkpoint = m.json("supplied/checkpoint.json")
    for key in ("run_id", "step_id", "parent", "framework_version"):
        assert checkpoint[key] == given[key], key
        assert key not in checkpoint["derived"]
    assert "before the drop" in m.read("supplied/transcript.md")


def test_meta_after_the_state_is_in_time_until_the_seal(m):
    bare(m, "later")
    with open(m / "later/state.json", "w") as f:
        f.write('{"a": 1}')
        f.flush()
        (m / "later/meta.json").write_text('{"run_id": "late"}')
    wait_until(lambda: m.status("later") == "saved")
    assert m.json("later/checkpoint.json")["run_id"] == "late"


def test_without_one_there_is_an_empty_one_after_the_seal(m):
    m.take("without")
    assert m.read("without/meta.json") == "{}\n"


WRONG = {
    "syntax": ('{"a": }', "line 1"),
    "list": ("[1]", "object"),
    "string": ('"text"', "valid JSON"),
    "pin": ('{"pin": "yes"}', '"pin"'),
    "expires": ('{"expires_at": "tomorrow"}', '"expires_at"'),
    "traceparent": ('{"traceparent": "00-xyz"}', '"traceparent"'),
    "run_id": ('{"run_id": 7}', '"run_id"'),
    "empty": ('{"parent": ""}', '"parent"'),
    "pending": ('{"pending": [{"tool": "x"}]}', "pending[0]"),
    "twice": ('{"a": 1, "a": 2}', "duplicate"),
    "latin1": (b'{"reason": "\xfc"}', "decode byte"),
    "text": ("hello", "valid JSON"),
}


@pytest.mark.parametrize("sealed", [False, True])
def test_what_is_wrong_is_refused_by_the_write_itself(m, sealed):
    name = m.take("wrong_sealed", meta={"keep": 1}) if sealed else bare(m, "wrong_bare")
    for kind, (text, words) in WRONG.items():
        assert m.write(f"{name}/meta.json", text) == "EINVAL" if (m / name / "meta.json").exists() else create(m, name, text) == "EINVAL", kind
        refused(m, name, "EINVAL", words)
        if sealed:
            assert meta(m, name) == {"keep": 1}, kind
        else:
            assert not m.read(f"{name}/status").startswith("failed")
    assert m.status(name) == ("waiting (1 call)" if sealed else "saved (database only)")


def create(m, name, text):
    try:
        with open(m / name / "meta.json", "wb", buffering=0) as f:
            f.write(text if isinstance(text, bytes) else text.encode())
    except OSError as e:
        return errno.errorcode[e.errno]
    return None


def test_a_shell_hears_of_it(m):
    m.take("heard")
    for sh in ("bash", "dash"):
        done = shell(f"echo '{{\"pin\": 1}}' > '{m / 'heard/meta.json'}'", sh)
        assert done.returncode == 1 and ("Invalid argument" in done.stderr or "I/O error" in done.stderr), done
    done = subprocess.run(["python3", "-c", "import sys; f = open(sys.argv[1], 'w'); f.write('{\"pin\": 1}'); f.close()", m / "heard/meta.json"], capture_output=True, text=True)
    assert "Invalid argument" in done.stderr
    before = len([e for e in m.events() if e["event"] == "command.refused"])
    assert m.write("heard/meta.json", '{"pin": 1}') == "EINVAL"
    assert len([e for e in m.events() if e["event"] == "command.refused"]) == before + 1
    assert meta(m, "heard") == {}


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("now", [{"a": 1, "b": "longer than it was"}, {}, {"labels": ["x"] * 5000}])
def test_read_changed_and_written_through_one_handle(m, sealed, now):
    name = f"updated_{sealed}_{len(str(now))}"
    if sealed:
        m.take(name, meta={"a": 1, "b": 2})
    else:
        create(m, bare(m, name), '{"a": 1, "b": 2}')
    with open(m / name / "meta.json", "r+") as f:
        assert json.load(f) == {"a": 1, "b": 2}
        f.seek(0)
        json.dump(now, f)
        f.truncate()
        f.seek(0)
        assert json.load(f) == now
    assert meta(m, name) == now
    with open(m / name / "meta.json", "r+b", buffering=0) as f:
        text = f.read()
        f.seek(0)
        fails = pytest.raises(OSError, f.write, b'{"pin": 1}')
        assert fails.value.errno == errno.EINVAL
        f.seek(0)
        assert f.read() == text, "a write that fails has no effect"
    with open(m / name / "meta.json", "w+") as f:
        f.write('{"w": 1}')
        f.seek(0)
        assert f.read() == '{"w": 1}'


# -- after the seal


def test_labels_and_pin_may_change_after_the_seal(m):
    m.take("labels", meta={"run_id": "r", "a": 1})
    checkpoint = m.read("labels/checkpoint.json")
    assert m.write("labels/meta.json", '{"run_id": "r", "a": 2, "pin": true, "labels": ["x"]}') is None
    assert meta(m, "labels") == {"run_id": "r", "a": 2, "pin": True, "labels": ["x"]}
    assert m.read("labels/checkpoint.json") == checkpoint
    assert m.events()[-1]["event"] == "meta.changed"
    assert m.echo(".control/prune", "delete labels") == "EPERM"
    assert "pin" in m.json(".control/result")["message"] or "pin" in m.result("labels")["message"]
    assert m.write("labels/meta.json", '{"run_id": "r"}') is None
    assert m.echo(".control/prune", "delete labels") is None


@pytest.mark.parametrize("key", ["run_id", "step_id", "parent"])
def test_what_the_seal_fixed_is_eperm(m, key):
    name = m.take(f"fixed_{key}", meta={key: "one", "other": 1})
    checkpoint = m.read(f"{name}/checkpoint.json")
    for left_out in ('{"other": 2, "pin": true}', f'{{"{key}": null}}'):  # which keeps it
        assert m.write(f"{name}/meta.json", f'{{"{key}": "two"}}') == "EPERM"
        refused(m, name, "EPERM", f'"{key}" is fixed')
        assert m.write(f"{name}/meta.json", left_out) is None
        assert m.read(f"{name}/meta.json") == left_out and m.read(f"{name}/checkpoint.json") == checkpoint
        assert m.write(f"{name}/meta.json", f'{{"{key}": "two"}}') == "EPERM", "also once it was left out"
        refused(m, name, "EPERM", f'"{key}" is fixed')
    added = m.take(f"added_{key}")
    assert m.write(f"{added}/meta.json", f'{{"{key}": "new"}}') == "EPERM"
    assert m.write(f"{name}/meta.json", f'{{"{key}": "one", "other": 3}}') is None
    assert meta(m, name) == {key: "one", "other": 3}


def test_nothing_written_changes_nothing(m):
    m.take("inert", meta={"a": 1})
    before = (m / "inert/meta.json").stat()
    events = len(m.events())
    done = shell(f"cd '{m / 'inert'}'; touch meta.json; : > meta.json; truncate -s 0 meta.json; chmod 600 meta.json; cat meta.json > /dev/null; : >> meta.json")
    assert done.returncode == 0, done
    assert meta(m, "inert") == {"a": 1}
    after = (m / "inert/meta.json").stat()
    assert (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size) and len(m.events()) == events
    assert m.write("inert/meta.json", '{"a": 1}') is None  # the same again
    assert len(m.events()) == events


def test_cut_short_is_as_before(m):
    m.take("short", meta={"a": 1})
    assert m.write("short/meta.json", '{"a": 2, ') is None
    wait_until(lambda: m.result("short")["state"] == "refused")
    refused(m, "short", "EINVAL", "cut short")
    assert meta(m, "short") == {"a": 1}
    with open(m / "short/meta.json", "wb", buffering=0) as f:  # complete in several writes
        for part in (b'{"a"', b": [1, 2", b"], ", b'"b": 3}', b"\n"):
            f.write(part)
    assert meta(m, "short") == {"a": [1, 2], "b": 3}
    assert m.read("short/meta.json").endswith("}\n")


def test_too_long(m):
    m.take("long")
    assert m.write("long/meta.json", json.dumps({"a": "x" * 900_000})) is None
    assert m.write("long/meta.json", json.dumps({"a": "x" * 1_100_000})) == "EFBIG"
    assert len(meta(m, "long")["a"]) == 900_000


# -- as editors do it


@pytest.mark.parametrize("sealed", [False, True])
def test_editors(m, sealed, tmp_path):
    name = f"edited_{sealed}"
    if sealed:
        m.take(name, meta={"label": "old"})
    else:
        bare(m, name)
        (m / name / "meta.json").write_text('{"label": "old"}')
    path = m / name / "meta.json"
    listed = sorted(os.listdir(m / name))

    done = shell(f"sed -i s/old/sed/ '{path}'")
    assert done.returncode == 0 and meta(m, name) == {"label": "sed"}, done

    if shutil.which("vim"):
        for option in ("set nobackup", "set backup backupcopy=no", "set backupcopy=yes", "set nowritebackup noswapfile"):
            word = option.replace(" ", "_")
            done = shell(f"vim -u NONE -N -es -c '{option}' -c '%s/label\": \"[a-z_=]*/label\": \"{word}/' -c wq '{path}' < /dev/null")
            assert meta(m, name) == {"label": word}, (option, done)

    os.rename(path, m / name / "meta.json~")  # by hand, what an editor does: the old one away, the new one in its place
    assert meta(m, name) and json.loads((m / name / "meta.json~").read_text()) == meta(m, name)
    path.write_text('{"label": "new"}')
    os.unlink(m / name / "meta.json~")
    assert meta(m, name) == {"label": "new"}

    (m / name / ".#tmp").write_text('{"label": "replaced"}')
    os.replace(m / name / ".#tmp", path)
    assert meta(m, name) == {"label": "replaced"}
    assert path.stat().st_size == len('{"label": "replaced"}') and path.stat().st_ino == {e.name: e.inode() for e in os.scandir(m / name)}["meta.json"]

    (m / name / "meta.json.tmp").write_text('{"pin": 3}')
    with pytest.raises(OSError) as caught:
        os.replace(m / name / "meta.json.tmp", path)
    assert caught.value.errno == errno.EINVAL
    refused(m, name, "EINVAL", '"pin"')
    os.unlink(m / name / "meta.json.tmp")
    assert meta(m, name) == {"label": "replaced"}

    source = tmp_path / "meta.json"
    source.write_text('{"label": "rsync"}')
    assert shell(f"rsync -a {source} '{m / name}/'").returncode == 0 and meta(m, name) == {"label": "rsync"}
    source.write_text('{"label": "cp"}')
    assert shell(f"cp {source} '{m / name}/'").returncode == 0 and meta(m, name) == {"label": "cp"}
    source.write_text('{"label": "mv"}')  # removes the target before it copies, which would lose the pin if it went wrong
    assert "not permitted" in shell(f"mv -f {source} '{m / name}/'").stderr and meta(m, name) == {"label": "cp"}
    assert shell(f"echo '{{\"label\": \"tee\"}}' | tee '{path}'").returncode == 0 and meta(m, name) == {"label": "tee"}

    assert set(os.listdir(m / name)) == set(listed) | {"result"}, "no temporaries are left"
    assert m.status(name) == ("waiting (1 call)" if sealed else "saved (database only)")


def test_in_a_sealed_directory_a_temporary_becomes_nothing_else(m):
    def onto_the_state():
        with pytest.raises(OSError) as caught:
            os.rename(m / "only_meta/state.json.tmp", m / "only_meta/state.json")
        return caught.value.errno

    m.take("only_meta")
    (m / "only_meta/state.json.tmp").write_bytes(b"{}")
    wait_until(lambda: onto_the_state() != errno.EBUSY)  # the kernel tells late that the state's last writer has closed
    assert onto_the_state() == errno.EPERM
    os.unlink(m / "only_meta/state.json.tmp")
    assert (m / "only_meta/state.json").read_bytes() == STATE.read_bytes()
    assert m.status("only_meta") == "waiting (1 call)"
    done = shell(f"cd '{m / 'only_meta'}' && echo {{}} > .tmp && for t in new ../x ../only_meta/snapshot.json; do mv -T .tmp $t; done; rm .tmp")
    assert done.returncode == 0 and done.stderr.count("not permitted") == 3, done
    assert m.status("only_meta") == "waiting (1 call)"


def test_temporaries_vanish_with_the_mount(m):
    m.take("vanish")
    (m / "vanish/meta.json.tmp").write_text("{}")
    m.remount()
    assert "meta.json.tmp" not in os.listdir(m / "vanish")


def test_sealing_while_meta_changes(m):
    """Whatever order they come in, what the seal fixed is what meta.json holds."""
    for i in range(5):
        name = bare(m, f"race_{i}")
        writer = subprocess.Popen(["sh", "-c", f"for n in 1 2 3 4 5 6 7 8; do echo '{{\"run_id\": \"'$n'\"}}' > '{m / name}/meta.json'; done 2>/dev/null"])
        (m / name / "state.json").write_text('{"a": 1}')
        writer.wait()
        wait_until(lambda: m.status(name) == "saved")
        assert meta(m, name).get("run_id") == m.json(f"{name}/checkpoint.json").get("run_id")

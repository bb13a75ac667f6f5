"""The tree (design.md §1): names, renames, status, links, listings while they change, and thousands of checkpoints."""

import errno
import ctypes
import json
import os
import stat
import subprocess
import threading
import time

import pytest

from copied import copy_checkpoint
from emulator import wait_until
from mount import DEADLINE, SAMPLES, STATE, Mount, shell
from restoring import SNAPSHOT


@pytest.fixture(scope="module")
def m():
    with Mount(emulator=("--snapshots=1000",)) as mount:
        yield mount


def fails(code, call, *words, **kw):
    with pytest.raises(OSError) as caught:
        call(*words, **kw)
    assert caught.value.errno == code, (errno.errorcode[caught.value.errno], errno.errorcode[code])


def bare(m, name):
    os.mkdir(m / name)
    m.wait(name)
    return name


# -- what is there


def test_the_root(m):
    m.take("here")
    assert {".control", ".import", ".pending", ".runs", ".by-id", ".by-snapshot", ".by-trace", "latest", "here"} <= set(os.listdir(m.root))
    assert {n for n in os.listdir(m / ".control")} == {"active_branch", "health", "version", "config", "events.jsonl", "result", "actions",
                                                       "prune", "replaced", "undo", "adopt"}
    assert m.read(".control/health").startswith("neon: ")
    assert m.read(".control/version").strip()
    for name in os.listdir(m / ".control/actions"):
        assert json.loads((m / ".control/actions" / name).read_text())["action"] + ".json" == name
    assert os.stat(m.root).st_ino == 1 and os.stat(m / "..").st_ino != 1


@pytest.mark.parametrize("name", ["restore", "resume", "replay", "cancel", "../.control/prune"])
def test_control_files_are_regular_and_empty(m, name):
    if not (m / "controls").exists():
        bare(m, "controls")
    st = os.stat(m / "controls" / name)
    assert stat.S_ISREG(st.st_mode) and (st.st_size, stat.S_IMODE(st.st_mode), st.st_blksize) == (0, 0o600, 4096)
    assert (m / "controls" / name).read_bytes() == b""


def test_pending_calls_have_a_file_each(m):
    m.take("calls", SAMPLES / "py_parallel3_interrupted.json")
    files = list((m / "calls/pending").iterdir())
    assert len(files) == 3 and m.status("calls") == "waiting (3 calls)"
    calls = [json.loads(f.read_text()) for f in files]
    assert {f"{c['id']}.json" for c in calls} == {f.name for f in files}
    assert all({"id", "tool", "arguments", "arguments_sha256"} <= c.keys() for c in calls)
    assert os.readlink(m / ".pending/calls") == "../calls" and m.read(".pending/calls/status") == m.read("calls/status")
    for f in files:
        fails(errno.EPERM, os.unlink, f)
        fails(errno.EPERM, open, f, "w")


def test_latest_is_the_newest_by_sequence(m):
    m.emulator.fault("POST:/projects/*/branches/*/snapshot=op:error")
    os.mkdir(m / "slow one")
    m.wait_status("slow one", "failed take")
    m.take("second")
    assert os.readlink(m / "latest") == "second"
    (m / "slow one/state.json").write_bytes(STATE.read_bytes())  # taken after it, though its directory is older
    wait_until(lambda: m.status("slow one").startswith("waiting"))
    assert os.readlink(m / "latest") == "slow one"
    bare(m, "only the database")
    assert os.readlink(m / "latest") == "slow one"


# -- rename


def rename(m, old, new, flags=0):
    """renameat2"""
    libc = ctypes.CDLL(None, use_errno=True)
    r = libc.renameat2(-100, os.fsencode(m / old), -100, os.fsencode(m / new), flags)
    return errno.errorcode[ctypes.get_errno()] if r else None


def test_rename(m):
    m.take("old name")
    before = {p.name: p.stat().st_ino for p in (m / "old name").iterdir()}
    uid = m.json("old name/checkpoint.json")["id"]
    held = open(m / "old name/state.json", "rb")
    done = shell(f"mv '{m / 'old name'}' '{m / 'new name'}'")
    assert done.returncode == 0, done
    assert not (m / "old name").exists() and "old name" not in os.listdir(m.root) and "new name" in os.listdir(m.root)
    assert before == {p.name: p.stat().st_ino for p in (m / "new name").iterdir()}
    checkpoint = m.json("new name/checkpoint.json")
    assert (checkpoint["id"], checkpoint["name"]) == (uid, "old name")  # the name as taken
    assert os.readlink(m / "latest") == "new name" and os.readlink(m / ".pending/new name") == "../new name"
    assert not os.path.lexists(m / ".pending/old name")
    assert held.read() == STATE.read_bytes()
    held.close()
    told = [e for e in m.events() if e["event"] == "checkpoint.renamed"]
    assert told[-1]["new_name"] == "new name"
    bare(m, "old name")  # free again
    m.remount()
    assert m.json("new name/checkpoint.json")["id"] == uid and m.wait("old name") == "saved (database only)"
    assert m.echo(".control/prune", "delete new name") is None


def test_rename_that_is_refused(m, tmp_path):
    m.take("sealed")  # latest leads to it
    bare(m, "one")
    bare(m, "two")
    for flags in (0, 1):
        assert rename(m, "one", "two", flags) == "EEXIST"
    assert rename(m, "one", "two", 2) == "EINVAL"  # RENAME_EXCHANGE
    assert rename(m, "one", "one") is None
    for name, code in ((".dot", "EINVAL"), ("latest", "EEXIST"), ("ctrl\x01", "EINVAL"), ("a" * 256, "ENAMETOOLONG")):
        assert rename(m, "one", name, 1) in (code, "EEXIST" if name == "latest" else code), name
    for old, new in (("one", "two/one"), ("one", ".control/one"), ("one", ".pending/one"), (".control", "control"), (".control/health", "one/health"),
                     ("one/status", "one/other"), ("one/status", "two/status"), ("latest", "newest"), ("one/snapshot.json", "two/snapshot.json"),
                     ("one/result", "one/result.tmp")):
        assert rename(m, old, new) == "EPERM", (old, new)
    done = shell(f"mv '{m / 'one'}' '{m / 'two'}'; mv -T '{m / 'one'}' '{m / 'two'}'; mv /etc/hostname '{m / 'one'}/'; mv '{m / 'one'}' {tmp_path}")
    assert done.returncode != 0 and done.stderr.count("not permitted") > 4 and os.path.exists("/etc/hostname"), done
    assert m.status("one") == m.status("two") == "saved (database only)"


def test_rename_while_the_snapshot_is_taken(m):
    m.emulator.fault("POST:/projects/*/branches/*/snapshot=delay:500")
    os.mkdir(m / "early name")
    with open(m / "early name/state.json", "wb", buffering=0) as f:
        os.rename(m / "early name", m / "late name")
        f.write(STATE.read_bytes())
    wait_until(lambda: m.status("late name") == "waiting (1 call)")
    assert m.json("late name/checkpoint.json")["name"] == "late name" or m.json("late name/checkpoint.json")["name"] == "early name"


def test_deleted_while_it_is_open(m):
    m.take("going")
    folder, state = os.open(m / "going", os.O_RDONLY), open(m / "going/state.json", "rb")
    status = open(m / "going/status", "rb")
    assert m.echo(".control/prune", "delete going") is None
    assert not (m / "going").exists()
    for call, *words in ((os.listdir, folder), (os.fstat, status.fileno()), (os.stat, "state.json")):
        try:
            call(*words) if call is not os.stat else os.stat("state.json", dir_fd=folder)
        except OSError as e:
            assert e.errno in (errno.ESTALE, errno.ENOENT)
    try:
        state.read()
    except OSError as e:
        assert e.errno in (errno.ESTALE, errno.ENOENT, errno.EIO)
    state.close()
    status.close()
    os.close(folder)
    os.mkdir(m / "going")
    assert m.wait("going") == "saved (database only)"


# -- waiting


def test_wait_returns_when_nothing_is_under_way(m):
    with m.held(SNAPSHOT):
        os.mkdir(m / "awaited")
        waiting = [subprocess.Popen(["cat", m / "awaited/wait"], stdout=subprocess.PIPE, text=True) for _ in range(30)]
        killed = subprocess.Popen(["cat", m / "awaited/wait"], stdout=subprocess.PIPE)
        assert m.status("awaited") == "writing"
        killed.kill()
        assert killed.wait(DEADLINE) == -9
        killed.stdout.close()
        assert [w.poll() for w in waiting] == [None] * 30
    for w in waiting:
        assert w.communicate(timeout=DEADLINE)[0] == "saved (database only)\n"


def test_wait_after_a_write_waits_for_the_seal(m):
    bare(m, "sealing")
    (m / "sealing/state.json").write_bytes(STATE.read_bytes())
    assert m.wait("sealing") == "waiting (1 call)"


# -- many


MANY = 5000
@pytest.fixture(scope="module")
def many(m):
    """Thousands of sealed checkpoints, copied in the store from one that was taken."""
    m.take("template", b'{"a": 1}')
    m.settled(["template"])
    copy_checkpoint(json.loads((m.dir / "env.json").read_text())["store_owner"], "template", MANY, "'many-' || lpad(n::text, 5, '0')")
    m.remount()
    yield m


def test_thousands_of_checkpoints(many):
    m = many
    names = [n for n in os.listdir(m.root) if n.startswith("many-")]
    assert len(names) == len(set(names)) == MANY
    assert int(shell(f"ls -l {m.root} | wc -l").stdout) > MANY
    assert int(shell(f"find {m.root} -maxdepth 1 -type d -name 'many-*' | wc -l").stdout) == MANY
    assert int(shell(f"find {m.root} -name status | wc -l").stdout) > MANY
    assert m.status("many-04999") == "saved"
    assert os.readlink(m / "latest") == f"many-{MANY:05}"


def test_listing_while_entries_come_and_go(many):
    """Whatever stays is listed exactly once, whatever comes and goes meanwhile (readdir's cookies)."""
    m = many
    stop = threading.Event()
    done = []

    def change():
        i = 0
        while not stop.is_set():
            bare(m, f"come-{i}")
            os.rename(m / f"come-{i}", m / f"go-{i}")
            assert m.echo(".control/prune", f"delete go-{i}") is None
            i += 1
            done.append(i)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        listings = 0
        while listings < 6 or (len(done) < 3 and thread.is_alive()):
            names = [e.name for e in slowly(m.root)]
            stay = [n for n in names if n.startswith("many-")]
            assert len(stay) == len(set(stay)) == MANY
            assert len(names) == len(set(names)) or all(n.startswith(("come-", "go-")) for n in names if names.count(n) > 1)
            listings += 1
    finally:
        stop.set()
        thread.join()
    assert len(done) >= 3


def slowly(path):
    """scandir with pauses: the listing's later parts are asked for when others have changed the directory."""
    with os.scandir(path) as entries:
        for i, entry in enumerate(entries):
            if i % 1000 == 0:
                time.sleep(0.01)
            yield entry


def test_cookies_go_on_where_they_were(many):
    """seekdir: from any entry's cookie the listing goes on right behind it."""
    m = many
    libc = ctypes.CDLL(None, use_errno=True)

    class Dirent(ctypes.Structure):
        _fields_ = [("ino", ctypes.c_ulong), ("off", ctypes.c_long), ("reclen", ctypes.c_ushort), ("type", ctypes.c_ubyte), ("name", ctypes.c_char * 256)]

    libc.opendir.restype = ctypes.c_void_p
    libc.readdir.restype = ctypes.POINTER(Dirent)
    libc.readdir.argtypes = libc.closedir.argtypes = [ctypes.c_void_p]
    libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
    handle = libc.opendir(os.fsencode(m.root))
    entries = []
    while True:
        e = libc.readdir(handle)
        if not e:
            break
        entries.append((e.contents.name, e.contents.off))
    assert len({off for _, off in entries}) == len(entries)
    for i in (0, 1, 2, 5, 100, 189, 2500, len(entries) - 2):
        libc.seekdir(handle, entries[i][1])
        assert libc.readdir(handle).contents.name == entries[i + 1][0]
    libc.closedir(handle)

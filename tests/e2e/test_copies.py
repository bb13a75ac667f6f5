"""A copy is not a take (design.md §4): a backup copied straight into the mount makes no false pair and destroys nothing."""

import errno
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from emulator import wait_until
from mount import DEADLINE, SAMPLES, STATE, Mount, shell
from restoring import DELETE

COPY = "failed take: a copy, use .import/"


def copied(m, name):
    return m.status(name).startswith(COPY)


@pytest.fixture(scope="module")
def m():
    with Mount(emulator=("--snapshots=1000",)) as mount:
        yield mount


@pytest.fixture(scope="module")
def backup(m, tmp_path_factory):
    """A backup of four checkpoints: three of them are gone from the mount by then, one is still there."""
    where = tmp_path_factory.mktemp("backup")
    m.take("lost", STATE)
    m.take("lost_text", b"no JSON")
    m.take("lost_calls", SAMPLES / "py_parallel3_interrupted.json", meta={"reason": "why", "labels": ["a"]})
    done = shell(f"mkdir {m / 'lost_bare'} {m / 'kept_bare'}; mkdir {m / 'kept'}; cp {STATE} {m / 'kept/state.json'}")
    assert done.returncode == 0, done
    for name in ("lost_bare", "kept_bare", "kept"):
        m.wait(name)
    wait_until(lambda: (m / "kept/transcript.md").exists())
    m.settled(KEPT)
    assert shell(f"cp -a {m.root}/. {where}/").returncode == 0
    for name in LOST:
        assert m.echo(".control/prune", f"delete {name}") is None
        assert not (m / name).exists()
    return where


LOST = ["lost", "lost_text", "lost_calls", "lost_bare"]
KEPT = ["kept", "kept_bare"]

TOOLS = {
    "rsync": "rsync -a {backup}/ {mount}/",
    "rsync_delete": "rsync -a --delete {backup}/ {mount}/",
    "rsync_no_times": "rsync -rlc --no-times {backup}/ {mount}/",
    "rsync_inplace": "rsync -a --inplace {backup}/ {mount}/",
    "rsync_whole": "rsync -aW --delay-updates {backup}/ {mount}/",
    "cp_r": "cp -r {backup}/. {mount}/",
    "cp_a": "cp -a {backup}/. {mount}/",
    "cp_each": "for d in {backup}/lost*; do cp -r $d {mount}/; done",
    "cp_into_made": "for d in {backup}/lost*; do mkdir {mount}/$(basename $d); cp $d/* {mount}/$(basename $d)/; done",
    "tar": "tar c -C {backup} . | tar x -C {mount}",
    "tar_overwrite": "tar c -C {backup} . | tar x --overwrite -C {mount}",
    "tar_unlink_first": "tar c -C {backup} . | tar x --unlink-first -C {mount}",
    "tar_state_first": "tar c -C {backup} $(cd {backup}; ls -d lost*/state.json; ls -d lost*/[^s]* lost*/snapshot.json) | tar x -C {mount}",
    "python_copytree": "{python} -c 'import shutil,sys; shutil.copytree(sys.argv[1], sys.argv[2], symlinks=True, dirs_exist_ok=True)' {backup} {mount}",
    "python_copytree_each": "{python} -c 'import os,shutil,sys\nfor n in os.listdir(sys.argv[1]):\n if n.startswith(\"lost\"):\n"
                            "  try: shutil.copytree(f\"{{sys.argv[1]}}/{{n}}\", f\"{{sys.argv[2]}}/{{n}}\")\n  except shutil.Error: pass' {backup} {mount}",
    "node_cp": "node -e 'require(\"fs\").cpSync(process.argv[1], process.argv[2], {{recursive: true}})' {backup}/lost {mount}/lost",
    "cpio": "cd {backup} && find . | cpio -pdm --quiet {mount}",
}
# It ends with the first refusal. Where the backup lists `state.json` first and `status` next, that isn't told from a take and a slip.
STOPS = {"node_cp"}
MISSING = {"cpio"} if not shutil.which("cpio") else set()


def state_of(m):
    """Everything that a copy must not change."""
    found = {}
    for name in KEPT:
        for entry in sorted((m / name).iterdir()):
            if entry.is_file() and entry.name not in ("wait",):
                found[f"{name}/{entry.name}"] = entry.read_bytes()
    return found


@pytest.fixture
def clear(m):
    """Removes what a copy left: the failed takes, whose snapshots are given back, and what a stranger's process found there."""
    def remove():
        for name in LOST:
            if (m / name).exists():
                m.wait(name)
                if copied(m, name):
                    wait_until(lambda: rmdir(m / name))
                else:
                    assert m.echo(".control/prune", f"delete {name}") is None
    yield remove
    remove()


@pytest.mark.parametrize("tool", sorted(set(TOOLS) - MISSING))
def test_a_backup_copied_straight_into_the_mount(m, backup, clear, tool):
    before, neon, latest = state_of(m), {s["id"] for s in m.emulator.snapshots()}, os.readlink(m / "latest")
    done = shell(TOOLS[tool].format(backup=backup, mount=m.root, python=sys.executable), timeout=120)
    assert done.returncode != 0 or tool in ("cp_each", "python_copytree_each", "cp_into_made"), done
    made = [n for n in LOST if (m / n).exists()]
    assert "lost" in made, done
    for name in made:
        m.wait(name)
        if tool in STOPS and m.status(name) == "waiting (1 call)":
            continue
        assert copied(m, name) or m.status(name) == "saved (database only)", (name, m.status(name), done)
        assert not (m / name / "state.json").exists() and not (m / name / "transcript.md").exists(), (tool, name)
    assert copied(m, "lost") or tool in STOPS, tool
    assert os.readlink(m / "latest") == latest or tool in STOPS
    assert state_of(m) == before
    clear()
    assert {s["id"] for s in m.emulator.snapshots()} == neon, tool


def rmdir(path):
    """Its snapshot may still be on its way back: EBUSY until then."""
    try:
        os.rmdir(path)
        return True
    except OSError as e:
        assert e.errno == errno.EBUSY, e
        return False


def test_a_copy_is_never_tried_again(m, backup):
    os.mkdir(m / "again")
    with pytest.raises(PermissionError):
        open(m / "again/snapshot.json", "w")
    assert m.status("again").startswith(f"{COPY} (snapshot.json is no file of a take") and "rmdir" in m.status("again")
    told, = m.events_of("again", "checkpoint.failed")
    assert told["by"]["pid"] == os.getpid() and "snapshot.json" in told["message"]
    for file in ("state.json", ".state.json.x", "meta.json"):
        with pytest.raises(PermissionError):
            open(m / "again" / file, "w")
    wait_until(lambda: rmdir(m / "again"))
    os.mkdir(m / "again")
    (m / "again/state.json").write_text("{}")
    wait_until(lambda: m.status("again") == "saved")


def test_after_the_snapshot_has_settled(m):
    """The process that made the directory copies later: its snapshot is deleted in Neon, and the mount goes on with that when killed."""
    os.mkdir(m / "late")
    assert m.wait("late") == "saved (database only)"
    snapshot = m.json("late/snapshot.json")["id"]
    with pytest.raises(PermissionError):
        open(m / "late/.checkpoint.json.x4FgT1", "w")
    assert copied(m, "late")
    wait_until(lambda: snapshot not in {s["id"] for s in m.emulator.snapshots()})
    m.wait("late")
    assert m.result("late")["command"] == "discard the snapshot of a copy" and m.result("late")["state"] == "done"
    os.rmdir(m / "late")


@pytest.mark.parametrize("removed", [False, True], ids=["kept", "removed"])
def test_a_snapshot_that_neon_did_not_take_back_is_deleted_later(m, removed):
    """Once, also when the name was freed meanwhile; what isn't a copy keeps its own."""
    os.mkdir(m / "bystander")
    m.wait("bystander")
    os.mkdir(m / "refused")
    m.wait("refused")
    own, copied = (m.json(f"{n}/snapshot.json")["id"] for n in ("bystander", "refused"))
    m.emulator.fault(f"{DELETE}=403")
    with pytest.raises(PermissionError):
        open(m / "refused/checkpoint.json", "w")
    m.wait("refused")
    assert m.result("refused")["state"] == "failed"

    def there():
        return copied in {s["id"] for s in m.emulator.snapshots()}

    def swept():
        return [e for e in m.events() if e["event"] == "leftover.deleted" and e["snapshot"] == copied]

    assert there() or wait_until(swept), "it was there, and may be gone by now"
    if removed:
        os.rmdir(m / "refused")
    wait_until(lambda: not there())
    told, = wait_until(swept)
    wait_until(lambda: f"snapshot {copied} " in m.log.read_text())
    assert m.log.read_text().count(f"snapshot {copied} ") == 1
    assert [bool(r["request_id"]) for r in told["requests"]] == [True]
    assert own in {s["id"] for s in m.emulator.snapshots()} and m.status("bystander") == "saved (database only)"
    if not removed:
        os.rmdir(m / "refused")
    assert m.echo(".control/prune", "delete bystander") is None


def test_a_stranger_destroys_nothing(m):
    """Another process that creates, writes, renames onto, unlinks or links what it mustn't is refused, no more."""
    done = shell(f"mkdir '{m / 'mine'}'; mkdir '{m / 'whole'}'; cp {STATE} '{m / 'whole/state.json'}'")
    assert done.returncode == 0
    assert m.wait("mine") == "saved (database only)"
    wait_until(lambda: (m / "whole/transcript.md").exists())
    snapshots = {s["id"] for s in m.emulator.snapshots()}
    for name in ("mine", "whole"):
        for command in ("echo x > checkpoint.json", "echo x > new", "mkdir pending", "mkdir sub", "ln -s a link", "rm -f snapshot.json", "mkfifo f",
                        "echo x > tmp1; mv tmp1 snapshot.json", "cp /etc/hostname transcript.md", "rm -rf ../%s" % name, "mv ../whole ../mine/",
                        "echo x >> history.jsonl", "truncate -s 0 snapshot.json", "ln state.json hard"):
            shell(f"cd '{m / name}'; {command}")
        assert m.status(name) == {"mine": "saved (database only)", "whole": "waiting (1 call)"}[name]
    assert {s["id"] for s in m.emulator.snapshots()} == snapshots
    # and whoever was refused a backup's file there writes no state there, and is told why
    tries = "for f in ('agent.json', 'checkpoint.json', 'state.json', 'state.json'):\n try: open(f, 'w')\n except OSError as e: print(f, e.errno)"
    done = shell(f"cd '{m / 'mine'}'; {sys.executable} -c \"{tries}\"")
    assert done.stdout.split() == ["agent.json", "1", "checkpoint.json", "1", "state.json", "1", "state.json", "1"], done
    assert [e["command"] for e in m.events_of("mine", "command.refused")][-2:] == ["write agent.json", "write state.json"]
    assert m.result("mine")["message"].startswith("checkpoint.json was refused to the same process here before")
    assert (m.result("mine")["command"], m.result("mine")["errno"]) == ("write state.json", "EPERM")
    (m / "mine/state.json").write_bytes(STATE.read_bytes())
    wait_until(lambda: m.status("mine") == "waiting (1 call)")


SLIPS = {
    "restor": lambda path: path.write_text("in-place"),
    "notes.txt": lambda path: path.write_text("x"),
    "lock": lambda path: path.touch(),
    "agent_checkpoint.json": lambda path: path.write_text("{}"),
    "restore~": lambda path: path.mkdir(),
    "status": lambda path: path.open("a"),
    "transcript": lambda path: path.symlink_to("elsewhere"),
    "files": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("state", [b'{"messages": []}', None], ids=["sealed", "database only"])
def test_a_slip_of_whoever_took_it_destroys_nothing(m, state):
    """Only a backup's own names make a copy of a take: any other is refused, to the process that took and sealed it too."""
    os.mkdir(m / "slips")
    if state:
        (m / "slips/state.json").write_bytes(state)
    m.wait("slips")
    status, snapshot = m.status("slips"), m.json("slips/snapshot.json")["id"]
    assert status == ("saved" if state else "saved (database only)")
    for name, slip in SLIPS.items():
        with pytest.raises(PermissionError):
            slip(m / "slips" / name)
        assert m.status("slips") == status, name
    for name in ("status", "result"):
        with pytest.raises(PermissionError):
            os.unlink(m / "slips" / name)
    assert m.status("slips") == status and snapshot in {s["id"] for s in m.emulator.snapshots()}
    assert m.echo(".control/prune", "delete slips") is None


def test_a_mistyped_name_is_told_and_typed_again(m):
    """In the same shell, while the take is under way and when its snapshot is there."""
    done = shell(f"cd '{m.root}'; exec 2>/dev/null; mkdir early && cp /etc/hostname early/agent.json; echo x > early/stat.json;"
                 " echo '{}' > early/state.json || exit 1; mkdir later; cat later/wait; echo x > later/stat.json; cat later/result;"
                 " echo '{}' > later/state.json")
    assert done.returncode == 0, done
    for name in ("early", "later"):
        wait_until(lambda: m.status(name) == "saved")
    assert "write stat.json" in done.stdout and "only state.json and meta.json can be written here" in done.stdout, done


def test_each_process_is_told_once_that_its_names_are_no_files_of_a_take(m):
    """A tree copied into an open take by mistake, or a lock file tried for again and again, fills neither the audit log nor `result`."""
    os.mkdir(m / "told")
    m.wait("told")
    tries = ("import errno\nfor i in range(50):\n try: open(f'told/f{i}', 'w')\n except OSError as e: print(errno.errorcode[e.errno])\n"
             " if i == 0: print(open('told/result').read().find('write f0') > 0)")
    for told in (1, 2):
        done = subprocess.run([sys.executable, "-c", tries], cwd=m.root, capture_output=True, text=True)
        assert done.stdout.split() == ["EPERM", "True", *["EPERM"] * 49], done
        assert len(m.events_of("told", "command.refused")) == told
        assert m.result("told")["command"] == "write f0"
    assert m.echo(".control/prune", "delete told") is None


def test_the_writer_of_a_sealed_checkpoint_may_remove_a_tree_and_finds_it_whole(m):
    """rmtree in the process that took it: it reads the directories first, so it isn't tar extracting over them."""
    m.take("own")
    os.mkdir(m / "own_bare")
    m.wait("own_bare")
    errors = []
    for name in ("own", "own_bare"):
        shutil.rmtree(m / name, onerror=lambda function, path, info: errors.append(info[1].errno))
    assert set(errors) <= {errno.EPERM, errno.ENOTEMPTY} and len(errors) > 10
    assert m.status("own") == "waiting (1 call)" and m.status("own_bare") == "saved (database only)"


def test_what_an_agent_starts_is_a_stranger_too(m, backup):
    """The agent made a database-only checkpoint and runs a program that copies or removes: another process is another program's."""
    os.mkdir(m / "lost_bare")
    m.wait("lost_bare")
    for command in (["rsync", "-a", f"{backup}/", f"{m.root}/"], ["cp", "-r", f"{backup}/.", f"{m.root}/"], ["rm", "-rf", m / "lost_bare"],
                    ["mv", m / "lost_bare", backup.parent / "moved"], ["sh", "-c", f"echo > {m / 'lost_bare/new'}"]):
        subprocess.run(command, capture_output=True)
        assert m.status("lost_bare") == "saved (database only)", command
    for name in set(LOST) - {"lost_bare"}:
        m.wait(name)
        assert copied(m, name) or m.status(name) == "saved (database only)"
        wait_until(lambda: not copied(m, name) or rmdir(m / name))
    assert m.echo(".control/prune", "delete lost_bare") is None


def test_a_restored_checkpoint_is_no_copy(m):
    """Something came of it: it has a history by now, so its writer's mistakes destroy nothing."""
    os.mkdir(m / "restored_bare")
    m.wait("restored_bare")
    m.take("restored")
    assert m.echo("restored_bare/restore", "in-place") is None
    for name in ("restored_bare", "restored"):
        with pytest.raises(PermissionError):
            open(m / name / "snapshot.json", "w")
    assert m.status("restored_bare") == "saved (database only)"
    assert m.status("restored") == "off-line"


def test_a_copy_by_threads(m):
    """Node does each step in another thread."""
    done = subprocess.run(["node", "-e", "const fs=require('fs/promises');(async()=>{const d=process.argv[1];await fs.mkdir(d);"
                           "await fs.writeFile(d+'/snapshot.json','{}').catch(e=>console.log(e.code));"
                           "await fs.writeFile(d+'/state.json','{}').catch(e=>console.log(e.code))})()", m / "threads"], capture_output=True, text=True)
    assert done.stdout.split() == ["EPERM", "EPERM"], done
    assert copied(m, "threads")


def test_a_directory_with_only_the_writers_files_is_a_take(m, tmp_path):
    """cp -a and rsync of what an agent has written beside: state.json, meta.json, old times."""
    source = tmp_path / "ready"
    source.mkdir()
    (source / "meta.json").write_text('{"reason": "copied"}')  # first: what comes after the seal finds it there
    (source / "state.json").write_bytes(STATE.read_bytes())
    os.utime(source / "state.json", (1, 1))
    os.utime(source, (1, 1))
    for how, command in (("cp -a", f"cp -a {source} '{m / 'by cp -a'}'"), ("rsync", f"rsync -a {source}/ '{m / 'by rsync'}'"),
                         ("tar", f"mkdir '{m / 'by tar'}' && tar c -C {source} meta.json state.json | tar x -C '{m / 'by tar'}'")):
        done = shell(command)
        assert done.returncode == 0, (how, done)
        wait_until(lambda: m.status(f"by {how}") == "waiting (1 call)")
        assert m.json(f"by {how}/meta.json") == {"reason": "copied"}
        assert os.stat(m / f"by {how}/state.json").st_mtime > 1e9  # times are accepted and ignored


class Apart(Mount):
    """A mount in a pid namespace of its own: to it every caller out here is process 0."""

    UNSHARE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    ALONE = "awk '$3 ~ /^fuse[.]/ { print $2 }' /proc/mounts | xargs -r -n 1 umount -l"  # those of tests beside would live on here

    def command(self, *more):
        return [*self.UNSHARE, "sh", "-c", f'{self.ALONE}; "$@"; exit $?', "sh", *super().command(*more)]

    def mount(self, *more):
        self.process = subprocess.Popen(self.command(*more), stdin=subprocess.DEVNULL, stdout=open(self.log, "ab"), stderr=subprocess.STDOUT,
                                        env=self.environ())
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        self.inside = wait_until(children.read_text).strip()
        self.root = Path(f"/proc/{self.inside}/root{self.root}")
        wait_until(lambda: self.process.poll() is not None or (self.root / ".control").exists(), DEADLINE)
        return self

    def unmount(self):
        subprocess.run(["nsenter", "--target", self.inside, "--mount", "fusermount3", "-u", self.base / "mnt"], check=True)
        return self.process.wait(DEADLINE)

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.kill()  # and with it everything in there; unshare heeds no TERM
            self.process.wait()
        super().close()


@pytest.mark.skipif(shell(f"{' '.join(Apart.UNSHARE)} true").returncode != 0, reason="namespaces are for root")
def test_callers_whom_the_mount_cant_know_take_checkpoints():
    with Apart() as m:
        m.take("outside", meta={"reason": "from a container"})
        assert m.json("outside/meta.json") == {"reason": "from a container"}
        with pytest.raises(PermissionError):
            (m / "outside/checkpoint.json").unlink()
        with pytest.raises(PermissionError):
            (m / "outside/notes.txt").write_text("")
        assert m.status("outside") == "waiting (1 call)", "nobody knows whether that was who wrote the state"
        os.mkdir(m / "renamed")
        with pytest.raises(PermissionError):
            (m / "renamed/transcript.md").write_text("")
        (m / "renamed/state.json.tmp").write_text("{}")
        os.rename(m / "renamed/state.json.tmp", m / "renamed/state.json")
        assert m.status("renamed") == "saved"
        os.mkdir(m / "bare")
        m.wait("bare")
        began = time.monotonic()
        for i in range(20):
            with pytest.raises(PermissionError):
                (m / f"bare/f{i}").write_text("")
        most = 1 + (time.monotonic() - began) // 10  # nobody knows whose they are: one of them every 10 s is put on record
        assert 1 <= len(m.events_of("bare", "command.refused")) <= most
        os.mkdir(m / "bare/branches/b1")
        assert m.wait("bare/branches/b1") == "ready"
        assert m.unmount() == 0

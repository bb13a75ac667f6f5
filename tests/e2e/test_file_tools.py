"""Ordinary file tools over the whole mount (design.md §7.1, §7.2, §2): every backup works and is stable, no way of removing destroys."""

import errno
import filecmp
import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from emulator import wait_until
from mount import SAMPLES, STATE, Mount, shell

TAKEN = ["alpha", "beta two", "gamma-ü", "raw", "bare"]


def take_some(m):
    m.take("alpha", STATE)
    m.take("beta two", SAMPLES / "py_parallel3_interrupted.json", meta={"run_id": "run/1", "labels": {"a": 1}})
    m.take("gamma-ü", SAMPLES / "langgraph_py_interrupt.msgpack")
    m.take("raw", b"raw bytes \x00\xff\n")
    os.mkdir(m / "bare")
    m.wait("bare")
    m.echo("raw/resume", "nonsense")  # a refusal, so that there is a result of one
    m.settled()


@pytest.fixture(scope="module")
def m():
    with Mount(emulator=("--snapshots=1000",)) as mount:
        take_some(mount)
        yield mount


def walk(root):
    """Every path below, with what stat says."""
    for folder, dirs, files in os.walk(root):
        for name in dirs + files:
            path = os.path.join(folder, name)
            yield os.path.relpath(path, root), os.lstat(path)


def digest(m):
    """What is in the mount: names, and bytes of all files."""
    return {path: (os.readlink(m / path) if stat.S_ISLNK(st.st_mode) else (m / path).read_bytes() if stat.S_ISREG(st.st_mode) else None)
            for path, st in walk(m.root)}


# -- sizes and numbers


def test_every_listed_file_has_its_exact_size_and_none_changes_by_being_read(m):
    before = dict(walk(m.root))
    assert len(before) > 70
    for path, st in before.items():
        if stat.S_ISREG(st.st_mode):
            with open(m / path, "rb") as f:
                assert len(f.read()) == st.st_size == os.fstat(f.fileno()).st_size, path
            assert st.st_blocks == (st.st_size + 511) // 512 and st.st_blksize >= 4096
        elif stat.S_ISLNK(st.st_mode):
            assert len(os.fsencode(os.readlink(m / path))) == st.st_size, path
        assert st.st_mtime > 1.7e9 and st.st_nlink >= 1 and st.st_uid == os.getuid(), path
    after = dict(walk(m.root))
    assert {p: s[:9] for p, s in before.items()} == {p: s[:9] for p, s in after.items()}
    assert {p: (s.st_mtime_ns, s.st_ctime_ns, s.st_size) for p, s in before.items()} == {
        p: (s.st_mtime_ns, s.st_ctime_ns, s.st_size) for p, s in after.items()}


def test_inode_numbers_are_unique_and_those_of_the_listing(m):
    seen = {}
    for path, st in walk(m.root):
        assert seen.setdefault(st.st_ino, path) == path
        with os.scandir(os.path.dirname(m / path)) as entries:
            assert {e.name: e.inode() for e in entries}[os.path.basename(path)] == st.st_ino


def test_hidden_files_are_answered_by_name_and_not_listed(m):
    assert stat.S_IMODE(os.stat(m / ".control/connection_uri").st_mode) == 0o400
    assert m.read(".control/connection_uri").startswith("postgres")
    assert m.read("alpha/wait") == m.read("alpha/status")
    names = {path for path, _ in walk(m.root)}
    assert ".control/connection_uri" not in names and not any(n.endswith("/wait") for n in names)
    password = m.uri().split(":")[2].split("@")[0]
    assert not any(password.encode() in (data or b"") for data in digest(m).values() if isinstance(data, bytes))


def test_no_extended_attributes(m):
    with pytest.raises(OSError) as caught:
        os.getxattr(m / "alpha/state.json", "user.x")
    assert caught.value.errno in (errno.ENOTSUP, errno.ENODATA)


# -- reading everything


READERS = {
    "tar": "tar cf {out}/x.tar -C {mount} . && tar df {out}/x.tar -C {mount}",
    "cp_a": "cp -a {mount}/. {out}/",
    "cp_r": "cp -r {mount}/. {out}/",
    "rsync": "rsync -a {mount}/ {out}/",
    "rsync_checksum": "rsync -acAXH {mount}/ {out}/",
    "grep": "grep -r . {mount} > /dev/null",
    "grep_follow": "grep -R . {mount} > /dev/null",
    "find_follow": "find -L {mount} -type f -exec cat {{}} + > /dev/null",
    "du": "du -a {mount} > /dev/null && du -s --apparent-size {mount}",
    "ls": "ls -laR {mount} > /dev/null",
    "wc": "find {mount} -type f -print0 | xargs -0 wc -c > /dev/null",
    "md5": "find {mount} -type f -print0 | xargs -0 md5sum > /dev/null",
    "zip": "cd {mount} && python3 -m zipfile -c {out}/x.zip .",
    "git": "git init -q {out}/g && cd {mount} && git --git-dir={out}/g/.git --work-tree={mount} add -A . && "
           "git --git-dir={out}/g/.git --work-tree={mount} -c user.name=a -c user.email=a@b commit -qm 1 && "
           "test -z \"$(git --git-dir={out}/g/.git --work-tree={mount} status --porcelain)\"",
    "df": "df {mount} > /dev/null",
}


@pytest.mark.parametrize("tool", READERS)
def test_a_tool_that_reads_everything(m, tmp_path, tool):
    before = digest(m)
    done = shell(READERS[tool].format(mount=m.root, out=tmp_path))
    assert done.returncode == 0 and not done.stderr, done
    assert digest(m) == before
    if tool in ("cp_a", "cp_r", "rsync", "rsync_checksum"):
        copied = {p: (tmp_path / p) for p in before}
        for path, data in before.items():
            if isinstance(data, bytes):
                assert copied[path].read_bytes() == data, path
        if tool != "cp_r":
            assert not shell(f"rsync -an --itemize-changes {m.root}/ {tmp_path}/").stdout


def test_rsync_again_copies_nothing(m, tmp_path):
    assert shell(f"rsync -a {m.root}/ {tmp_path}/").returncode == 0
    done = shell(f"rsync -a --itemize-changes {m.root}/ {tmp_path}/")
    assert (done.returncode, done.stdout) == (0, "")
    m.remount()
    done = shell(f"rsync -a --itemize-changes {m.root}/ {tmp_path}/")
    assert (done.returncode, done.stdout) == (0, "")


def test_numbers_and_times_are_those_of_the_mount_before(m):
    m.echo("raw/replay", "nonsense")  # something that only this mount has done
    os.mkdir(m / "renamed_from")
    m.wait("renamed_from")
    os.rename(m / "renamed_from", m / "renamed_to")
    m.echo(".control/prune", "delete renamed_to")
    m.settled()
    before = dict(walk(m.root))
    m.remount()
    after = dict(walk(m.root))
    assert before.keys() == after.keys()
    for path in before:
        a, b = before[path], after[path]
        assert (a.st_ino, a.st_size, a.st_mtime_ns, a.st_ctime_ns, a.st_mode) == (b.st_ino, b.st_size, b.st_mtime_ns, b.st_ctime_ns, b.st_mode), path
    assert os.stat(m.root).st_ino == 1


def test_restic_reads_nothing_again(m, tmp_path):
    env = os.environ | {"RESTIC_PASSWORD": "x", "RESTIC_REPOSITORY": str(tmp_path / "repo"), "RESTIC_CACHE_DIR": str(tmp_path / "cache")}

    def restic(*words):
        done = subprocess.run(["restic", *words], capture_output=True, text=True, env=env)
        assert done.returncode == 0, done
        return done.stdout

    restic("init")
    first = json.loads(restic("backup", "--json", str(m.root)).splitlines()[-1])
    assert first["files_new"] > 50
    m.remount()
    second = json.loads(restic("backup", "--json", str(m.root)).splitlines()[-1])
    assert (second["files_new"], second["files_changed"]) == (0, 0), second
    assert second["files_unmodified"] == first["files_new"]
    restic("restore", "latest", "--target", str(tmp_path / "out"))
    assert (tmp_path / "out" / str(m.root)[1:] / "alpha/state.json").read_bytes() == STATE.read_bytes()


def test_borg_reads_nothing_again(m, tmp_path):
    env = os.environ | {"BORG_REPO": str(tmp_path / "repo"), "BORG_BASE_DIR": str(tmp_path), "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}

    def borg(*words):
        done = subprocess.run(["borg", *words], capture_output=True, text=True, env=env)
        assert done.returncode == 0, done
        return done.stderr

    borg("init", "-e", "none")
    assert borg("create", "--list", "::1", str(m.root)).count("\nA ") > 50
    m.remount()
    listed = [line[0] for line in borg("create", "--list", "::2", str(m.root)).splitlines()]
    assert listed.count("A") <= 2 and not set(listed) & set("ME?"), listed  # borg never trusts the newest ctime (file-tools.md §4.2)
    assert listed.count("U") > 50


# -- removing


REMOVERS = {
    "rm_rf": "rm -rf {mount}/* {mount}/.control {mount}/.pending",
    "rm_r_dir": "rm -r --interactive=never {mount}/alpha",
    "find_delete": "find {mount} -mindepth 1 -delete",
    "find_exec": "find {mount} -depth -mindepth 1 -exec rm -rf {{}} ';'; false",
    "rsync_delete": "rsync -a --delete {empty}/ {mount}/",
    "rsync_delete_each": "for d in {mount}/*/; do rsync -a --delete {empty}/ \"$d\"; done",
    "git_clean": "git init -q {empty}/g; cd {mount}; git --git-dir={empty}/g/.git --work-tree={mount} clean -ffdxq",
    "rmtree": "python3 -c 'import shutil,sys; shutil.rmtree(sys.argv[1])' {mount}",
    "node_rm": "node -e 'require(\"fs\").rmSync(process.argv[1], {{recursive: true, force: true}})' {mount}/alpha",
    "rmdir": "rmdir {mount}/*",
    "unlink_each": "cd {mount}/alpha; for f in *; do unlink $f; done; false",
    "shred": "shred -u {mount}/alpha/state.json",
    "truncate": "truncate -s 0 {mount}/*/state.json {mount}/*/snapshot.json",
    "overwrite": "for f in {mount}/*/state.json {mount}/*/checkpoint.json; do echo x > \"$f\"; done; false",
    "append": "for f in {mount}/*/state.json {mount}/*/transcript.md; do echo x >> \"$f\"; done; false",
    "mv_out": "mv {mount}/alpha {empty}/",
    "mv_in": "mv {mount}/alpha {mount}/raw/",
    "mv_file": "mv {mount}/alpha/state.json {empty}/",
    "dd": "dd if=/dev/zero of={mount}/alpha/state.json bs=1 count=1 conv=notrunc status=none",
    "sed": "sed -i s/a/b/ {mount}/alpha/state.json",
}


@pytest.mark.parametrize("tool", REMOVERS)
def test_a_tool_that_removes(m, tmp_path, tool):
    before = digest(m)
    done = shell(REMOVERS[tool].format(mount=m.root, empty=tmp_path))
    assert done.returncode != 0, done
    assert any(text in done.stderr for text in ("not permitted", "not empty", "EPERM", "ENOTEMPTY", "failed to remove")), done
    assert {p: d for p, d in digest(m).items()} == before
    assert {s["id"] for s in m.emulator.snapshots()} == {m.json(f"{n}/snapshot.json")["id"] for n in TAKEN}


def test_chmod_chown_and_times_are_accepted_and_change_nothing(m):
    before = dict(walk(m.root))
    done = shell(f"cd {m.root}; chmod -R 777 alpha raw bare; chown -R 1:1 alpha; touch -d 2001-01-01 alpha/state.json alpha raw/restore; touch alpha/resume alpha/meta.json")
    assert done.returncode == 0, done
    after = dict(walk(m.root))
    assert {p: (s.st_mode, s.st_uid, s.st_mtime_ns) for p, s in before.items()} == {p: (s.st_mode, s.st_uid, s.st_mtime_ns) for p, s in after.items()}


# -- other mounts of the same


def test_read_only(m, tmp_path):
    os.mkdir(m / "unsealed")
    m.wait("unsealed")
    m.emulator.fault("POST:/projects/*/branches/*/snapshot=op:error")
    os.mkdir(m / "failed")
    m.wait_status("failed", "failed take")
    m.settled()
    taken = {"alpha", "beta two", "gamma-ü", "raw"}
    m.remount("-o", "ro")
    try:
        assert {n for n in os.listdir(m.root) if not n.startswith(".")} == taken | {"latest"}
        for name in ("unsealed", "failed", "bare"):
            assert not (m / name).exists()
        assert shell(f"tar c -C {m.root} . > /dev/null").returncode == 0
        for call, *words in ((os.mkdir, m / "new"), (os.rename, m / "alpha", m / "omega"), (os.rmdir, m / "alpha"), (os.unlink, m / "alpha/state.json"),
                             (open, m / "alpha/meta.json", "w"), (open, m / "alpha/restore", "w"), (os.truncate, m / "alpha/resume", 0)):
            with pytest.raises(OSError) as caught:
                call(*words)
            assert caught.value.errno == errno.EROFS, (call, words)
        assert not {n for _, n in ((p, os.path.basename(p)) for p, _ in walk(m / "alpha"))} & {"wait"}
    finally:
        m.remount()
    os.rmdir(m / "failed")
    assert m.echo(".control/prune", "delete unsealed") is None


def test_everything_can_be_read_without_neon(m, tmp_path):
    before = digest(m)
    m.emulator.stop()
    try:
        assert {p: d for p, d in digest(m).items() if p != ".control/health"} == {p: d for p, d in before.items() if p != ".control/health"}
        assert shell(f"tar cf {tmp_path}/x.tar -C {m.root} . && grep -r drop {m.root} > /dev/null").returncode == 0
        m.remount()  # comes up all the same
        assert {p: d for p, d in digest(m).items() if p != ".control/health"} == {p: d for p, d in before.items() if p != ".control/health"}
        assert shell(f"tar cf {tmp_path}/x.tar -C {m.root} .").returncode == 0
    finally:
        m.emulator.start()
    wait_until(lambda: m.write("alpha/restore", "dry") == "EINVAL")

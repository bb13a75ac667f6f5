""".import/ as a place to copy into: what file tools do there works as on any disk (design.md §1, reference/traps.md 15, 19)."""

import errno
import os
import shutil
import stat

import pytest

from emulator import wait_until
from mount import SAMPLES, Mount, shell


@pytest.fixture(scope="module")
def m():
    with Mount(emulator=("--snapshots=1000",)) as mount:
        yield mount


@pytest.fixture
def box(m):
    """An empty .import/, and what was left in it removed."""
    yield m / ".import"
    for name in os.listdir(m / ".import"):
        path = m / ".import" / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A tree with what a backup of the mount has: odd modes, old times, links, empty and larger files."""
    root = tmp_path_factory.mktemp("source") / "tree"
    (root / "a/pending").mkdir(parents=True)
    for sample in SAMPLES.glob("*.json"):
        shutil.copy(sample, root / "a")
    (root / "a/state.json").write_bytes(os.urandom(3 << 20))
    (root / "a/restore").write_bytes(b"")
    (root / "a/pending/call:1.json").write_text("{}")
    (root / "a/state.json").chmod(0o400)
    (root / "a/restore").chmod(0o600)
    os.symlink("a", root / "latest")
    os.symlink("../gone", root / "a/broken")
    for i in range(300):
        (root / f"many {i}").write_text(str(i))
    for folder, dirs, files in os.walk(root, topdown=False):
        for name in dirs + files:
            os.utime(os.path.join(folder, name), ns=(10**18 + 7, 1600000000123456789), follow_symlinks=False)
    os.utime(root, ns=(10**18, 1500000000987654321))
    return root


def same(a, b, times=True):
    """Everything that a copy keeps."""
    seen = 0
    for folder, dirs, files in os.walk(a):
        for name in dirs + files:
            seen += 1
            path = os.path.join(folder, name)
            other = os.path.join(b, os.path.relpath(path, a))
            x, y = os.lstat(path), os.lstat(other)
            assert stat.S_IFMT(x.st_mode) == stat.S_IFMT(y.st_mode) and (x.st_size == y.st_size or stat.S_ISDIR(x.st_mode)), other
            if times:
                assert (x.st_mode, x.st_uid, x.st_gid, x.st_mtime_ns) == (y.st_mode, y.st_uid, y.st_gid, y.st_mtime_ns), other
            if stat.S_ISREG(x.st_mode):
                assert open(path, "rb").read() == open(other, "rb").read(), other
            elif stat.S_ISLNK(x.st_mode):
                assert os.readlink(path) == os.readlink(other)
    assert seen > 300
    return True


COPIERS = {
    "cp_a": "cp -a {source} {box}/",
    "cp_r": "cp -r {source} {box}/",
    "rsync": "rsync -a {source} {box}/",
    "rsync_inplace": "rsync -a --inplace {source} {box}/",
    "rsync_hard_links": "rsync -aH {source} {box}/",
    "rsync_delayed": "rsync -a --delay-updates {source} {box}/",
    "tar": "tar c -H posix -C {source}/.. tree | tar x -p -C {box}",
    "tar_twice": "tar c -H posix -C {source}/.. tree | tar x -p -C {box} && tar c -H posix -C {source}/.. tree | tar x -p -C {box}",
    "python": "python3 -c 'import shutil,sys; shutil.copytree(sys.argv[1], sys.argv[2] + \"/tree\", symlinks=True)' {source} {box}",
    "node": "node -e 'require(\"fs\").cpSync(process.argv[1], process.argv[2] + \"/tree\", {{recursive: true, verbatimSymlinks: true}})' {source} {box}",
    "mv": "cp -a {source} {out}/ && mv {out}/tree {box}/",
    "dd": "cp -a {source} {box}/ && chmod u+w {box}/tree/a/state.json && dd if={source}/a/state.json of={box}/tree/a/state.json bs=7777 status=none "
          "&& chmod 400 {box}/tree/a/state.json && touch -r {source}/a/state.json {box}/tree/a/state.json",
}
PLAIN = {"cp_r", "node"}  # keep neither times nor owners


@pytest.mark.parametrize("tool", COPIERS)
def test_a_tool_that_copies_in(m, box, source, tmp_path, tool):
    done = shell(COPIERS[tool].format(source=source, box=box, out=tmp_path))
    assert (done.returncode, done.stderr) == (0, ""), done
    assert same(source, box / "tree", times=tool not in PLAIN)
    if tool not in PLAIN:
        assert shell(f"rsync -a --itemize-changes {source} {box}/").stdout == ""
    # and out again
    assert shell(f"cp -a {box}/tree {tmp_path}/back").returncode == 0
    assert same(box / "tree", tmp_path / "back")
    assert shell(f"rm -r {box}/tree").returncode == 0
    assert os.listdir(box) == []


def test_a_second_rsync_copies_nothing(box, source):
    assert shell(f"rsync -a {source}/ {box}/").returncode == 0
    done = shell(f"rsync -a --itemize-changes {source}/ {box}/")
    assert (done.returncode, done.stdout) == (0, "")
    done = shell(f"rsync -ac --delete --itemize-changes {source}/a/ {box}/")
    assert done.returncode == 0 and "deleting   many 7" in done.stdout
    assert sorted(os.listdir(box)) == sorted(os.listdir(source / "a"))


def test_git_restic_and_borg_write_there(m, box, source, tmp_path):
    env = os.environ | {"RESTIC_PASSWORD": "x", "RESTIC_REPOSITORY": str(tmp_path / "restic"), "RESTIC_CACHE_DIR": str(tmp_path / "cache"),
                        "BORG_REPO": str(tmp_path / "borg"), "BORG_BASE_DIR": str(tmp_path), "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
                        "GIT_CONFIG_GLOBAL": "/dev/null"}

    def run(line):
        done = shell(line, env=env)
        assert done.returncode == 0, done

    run(f"restic init && cd {source}/.. && restic backup tree && restic restore latest --target {box}/restic")
    assert same(source, box / "restic/tree")
    run(f"borg init -e none && cd {source}/.. && borg create ::1 tree && mkdir {box}/borg && cd {box}/borg && borg extract ::1")
    assert same(source, box / "borg/tree")
    run(f"cp -a {source} {tmp_path}/g && cd {tmp_path}/g && git init -q && git add -A && git -c user.name=a -c user.email=a@b commit -qm 1 && "
        f"git clone -q . {box}/git && git -C {box}/git status --porcelain && git --work-tree={box} checkout -q -f HEAD")
    assert same(source, box / "git", times=False) and same(source, box, times=False)


# -- the calls one by one


def raises(code, call, *words, **more):
    with pytest.raises(OSError) as caught:
        call(*words, **more)
    assert caught.value.errno == code, (errno.errorcode[caught.value.errno], words)


def test_files(box):
    fd = os.open(box / "private", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o400)  # cp -a and tar do so: traps.md 19
    assert os.write(fd, b"abc") == 3 and os.pwrite(fd, b"z", 5) == 1
    os.fsync(fd)
    assert os.fstat(fd).st_size == 6 and stat.S_IMODE(os.fstat(fd).st_mode) == 0o400
    os.close(fd)
    assert (box / "private").read_bytes() == b"abc\0\0z"
    os.truncate(box / "private", 2)
    assert (box / "private").read_bytes() == b"ab"
    os.truncate(box / "private", 10)
    assert (box / "private").read_bytes() == b"ab" + bytes(8)
    with open(box / "private", "ab") as f:
        f.write(b"end")
    assert (box / "private").read_bytes() == b"ab" + bytes(8) + b"end"
    with open(box / "private", "r+b") as f:
        f.write(b"X")
    assert (box / "private").read_bytes()[:3] == b"Xb\0"
    open(box / "private", "w").close()
    assert os.stat(box / "private").st_size == 0
    before = os.stat(box / "private")
    (box / "private").chmod(0o4751)
    after = os.stat(box / "private")
    assert stat.S_IMODE(after.st_mode) == 0o4751 and after.st_ctime_ns > before.st_ctime_ns and after.st_mtime_ns == before.st_mtime_ns
    os.chown(box / "private", 12, 34)
    assert (os.stat(box / "private").st_uid, os.stat(box / "private").st_gid) == (12, 34)
    raises(errno.EFBIG, os.truncate, box / "private", (1 << 30) + 1)
    raises(errno.EEXIST, os.open, box / "private", os.O_CREAT | os.O_EXCL)
    raises(errno.ENAMETOOLONG, open, box / ("n" * 256), "w")
    raises(errno.ENOTSUP, os.setxattr, box / "private", "user.x", b"1")
    raises(errno.EPERM, os.link, box / "private", box / "hard")
    raises(errno.EPERM, os.mkfifo, box / "fifo")
    os.mknod(box / "node")
    assert os.stat(box / "node").st_size == 0


def test_an_unlinked_file_lives_while_it_is_open(box):
    with open(box / "x", "w+b") as f:
        f.write(b"abc")
        f.flush()
        os.unlink(box / "x")
        assert not os.listdir(box) and os.fstat(f.fileno()).st_nlink == 0
        f.write(b"def")
        f.flush()
        assert os.pread(f.fileno(), 10, 0) == b"abcdef"
        (box / "x").write_text("another")
        assert os.pread(f.fileno(), 10, 0) == b"abcdef"
        os.replace(box / "x", box / "y")
    assert (box / "y").read_text() == "another"


def test_directories_and_renames(m, box):
    os.makedirs(box / "a/b/c")
    (box / "a/f").write_text("f")
    (box / "g").write_text("g")
    os.symlink("f", box / "a/link")
    raises(errno.ENOTEMPTY, os.rmdir, box / "a")
    raises(errno.EEXIST, os.mkdir, box / "a")
    raises(errno.EINVAL, os.rename, box / "a", box / "a/b/c/d")
    raises(errno.EISDIR, os.rename, box / "g", box / "a")
    raises(errno.ENOTDIR, os.rename, box / "a", box / "g")
    raises(errno.EISDIR, os.unlink, box / "a")
    raises(errno.ENOTDIR, os.rmdir, box / "g")
    os.rename(box / "g", box / "a/f")  # over a file
    assert (box / "a/f").read_text() == (box / "a/link").read_text() == "g"
    os.mkdir(box / "empty")
    os.rename(box / "a", box / "empty")  # over an empty directory
    assert sorted(os.listdir(box / "empty")) == ["b", "f", "link"] and os.listdir(box) == ["empty"]
    assert os.listdir(box / "empty/b") == ["c"]
    # nothing goes back, nothing comes out but to the root, and never EXDEV: mv would copy (traps.md 15)
    m.take("whole")
    raises(errno.EPERM, os.rename, m / "whole", box / "whole")
    raises(errno.EPERM, os.rename, m / "whole/state.json", box / "s")
    raises(errno.EPERM, os.rename, box / "empty/f", m / "whole/f")
    raises(errno.EPERM, os.rename, box / "empty", m / ".control/x")
    raises(errno.EPERM, os.rmdir, box)
    raises(errno.EPERM, os.rename, box, m / "import")
    assert shell(f"mv {m.root}/whole {box}/").returncode != 0
    assert m.status("whole") == "waiting (1 call)"


def test_reading_a_directory_goes_on_while_it_changes(box):
    for i in range(2000):
        (box / f"entry {i:05}").write_text("")
    seen = []
    with os.scandir(box) as entries:
        for entry in entries:
            seen.append(entry.name)
            if len(seen) % 100 == 0:  # some before and some after this place
                os.unlink(box / seen[-50])
                (box / f"new {len(seen)}").write_text("")
    assert len(seen) == len(set(seen)) and set(f"entry {i:05}" for i in range(2000)) <= set(seen)
    fd = os.open(box, os.O_RDONLY)
    assert len(os.listdir(fd)) == len(os.listdir(box))
    os.close(fd)


def test_df_and_stat(box):
    before = os.statvfs(box)
    (box / "x").write_bytes(bytes(1 << 20))
    after = os.statvfs(box)
    assert after.f_bfree == before.f_bfree - 256 and after.f_ffree == before.f_ffree - 1
    assert shell(f"df {box}").returncode == 0
    ino = os.stat(box / "x").st_ino
    os.unlink(box / "x")
    (box / "x").write_text("")
    assert os.stat(box / "x").st_ino != ino and ino >> 60 == 8


# -- the spool


def spools(m):
    tmp = m.environ().get("TMPDIR", "/tmp")
    return [n for n in os.listdir(tmp) if n.startswith(f"checkpointfs-import.{m.process.pid}.")]


def test_what_was_copied_in_is_private_and_goes_with_the_mount(tmp_path):
    with Mount(env={"TMPDIR": str(tmp_path)}) as m:
        assert os.listdir(tmp_path) == []
        (m / ".import/secret").write_text("secret")
        (where,) = tmp_path.iterdir()
        assert stat.S_IMODE(where.stat().st_mode) == 0o700 and [f.read_text() for f in where.iterdir()] == ["secret"]
        m.remount()
        assert os.listdir(tmp_path) == [] and os.listdir(m / ".import") == []
        assert os.stat(m / ".import").st_mtime == 1767225600  # as if nothing had been: no backup sees a change
        (m / ".import/secret").write_text("secret")
        m.kill()
        assert len(os.listdir(tmp_path)) == 1
        m.mount()
        assert os.listdir(tmp_path) == [] and os.listdir(m / ".import") == []
        with Mount(env={"TMPDIR": str(tmp_path)}) as other:  # and a living one's stays
            (m / ".import/x").write_text("x")
            (other / ".import/x").write_text("y")
            other.remount()
            assert (m / ".import/x").read_text() == "x" and len(os.listdir(tmp_path)) == 1


def test_no_room(tmp_path):
    (tmp_path / "file").write_text("")
    with Mount(env={"TMPDIR": str(tmp_path / "gone")}) as m:
        raises(errno.ENOENT, open, m / ".import/x", "w")
        assert os.listdir(m / ".import") == []
        wait_until(lambda: "TMPDIR" in m.log.read_text())


def test_read_only(m):
    with Mount() as fresh:
        fresh.remount("-o", "ro")
        assert os.listdir(fresh / ".import") == []
        raises(errno.EROFS, os.mkdir, fresh / ".import/x")

"""Every path of the tree × every operation: the errno that it answers with, `-` where it works. To be read as the contract
(design.md §1-§4); what works is put back. No kind of file is left out: a mount that shows all of them is walked (PATHS), and held against
the tables of fs/tree/files.c."""

import errno
import json
import os
import re
import select
import stat
import subprocess
from pathlib import Path

import pytest
from emulator import wait_until
from mount import DEADLINE, NAMES, ROOT, STATE, Mount, Second
from restoring import RESTORE, SNAPSHOT, bare, put, restore

STATE_RUN = {"run_id": "run 1", "step_id": "1", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
# What wakes agents: on an isolated branch it stops again, with a checkpoint taken there.
AGENT = """
echo woken
case "$CHECKPOINT_NEXT_DIR" in */checkpoints)
    mkdir "$CHECKPOINT_NEXT_DIR/child" && printf '{"parent": "%s"}' "$CHECKPOINT_ID" > "$CHECKPOINT_NEXT_DIR/child/meta.json" &&
        cat "$CHECKPOINT_STATE" > "$CHECKPOINT_NEXT_DIR/child/state.json" && exit 10
esac
"""


# ---- operations


def opened(flags):
    def op(path):
        os.close(os.open(path, flags))
    return op


def read(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        os.pread(fd, 1 << 16, 0)
    finally:
        os.close(fd)


def write(path):
    """JSON cut short, which nothing takes for whole."""
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, b"{")
    finally:
        os.close(fd)


def polled(path):
    fd = os.open(path, os.O_RDONLY)
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    assert poller.poll(0)
    os.close(fd)


def synced(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def up(path):
    """The mountpoint."""
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return path


def beside(path, file):
    """That file of another checkpoint, which is sealed."""
    other = "ran" if path.startswith(f"{up(path)}/one") else "one"
    return f"{up(path)}/{other}/{file}"


def out(path):
    """In another directory of the mount, not below `path`."""
    return f"{up(path)}/{'.by-id' if path.endswith('.control') else '.control'}/new"


def made(path, make, remove=os.unlink):
    """Makes that, which wasn't there, and removes it again."""
    there = os.path.lexists(path)
    make(path)
    if not there:
        remove(path)


def create(path):
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT))


def renamed(path, to):
    """And back."""
    os.rename(path, to)
    os.rename(to, path)


def settle(path):
    """Waits until nothing is under way there: no seal either, after a write."""
    if os.path.exists(f"{path}/wait"):
        Path(f"{path}/wait").read_text()


def unlinked(path):
    """And made anew."""
    link = os.readlink(path) if os.path.islink(path) else None
    data = b"" if link or os.path.isdir(path) else Path(path).read_bytes()
    os.unlink(path)
    settle(os.path.dirname(path))
    if link:
        os.symlink(link, path)
    else:
        Path(path).write_bytes(data)


def removed(path):
    """What failed, once its leftovers are taken back. Made anew, it fails again."""
    settle(path)
    os.rmdir(path)
    os.mkdir(path)


OPERATIONS = {
    "getattr": os.lstat,
    "open r": opened(os.O_RDONLY),
    "open w": opened(os.O_WRONLY),
    "open rw": opened(os.O_RDWR),
    "append": opened(os.O_WRONLY | os.O_APPEND),
    "open trunc": opened(os.O_WRONLY | os.O_TRUNC),
    "open excl": opened(os.O_WRONLY | os.O_CREAT | os.O_EXCL),
    "read": read,
    "write": write,
    "truncate": lambda p: os.truncate(p, 0),
    "list": os.listdir,
    "readlink": os.readlink,
    "create in": lambda p: made(f"{p}/new", create),
    "state in": lambda p: made(f"{p}/state.json", create),
    "temporary in": lambda p: made(f"{p}/.meta.json.tmp", create),
    "mkdir in": lambda p: made(f"{p}/.new", os.mkdir, os.rmdir),
    "symlink in": lambda p: made(f"{p}/new", lambda n: os.symlink("x", n)),
    "mknod in": lambda p: made(f"{p}/new", os.mkfifo),
    "link in": lambda p: made(f"{p}/new", lambda n: os.link(beside(p, "state.json"), n)),
    "rename in": lambda p: os.rename(beside(p, "state.json"), f"{p}/new"),
    "mkdir": os.mkdir,
    "unlink": unlinked,
    "rmdir": removed,
    "rename": lambda p: renamed(p, f"{p}.new"),
    "rename out": lambda p: renamed(p, out(p)),
    "rename over": lambda p: os.rename(beside(p, "status"), p),
    "link": lambda p: os.link(p, f"{up(p)}/new", follow_symlinks=False),
    "chmod": lambda p: os.chmod(p, 0o700),
    "chown": lambda p: os.lchown(p, 1, 1),
    "utimens": lambda p: os.utime(p, (1, 1), follow_symlinks=False),
    "fsync": synced,
    "poll": polled,
    "statfs": os.statvfs,
    "getxattr": lambda p: os.getxattr(p, "user.x", follow_symlinks=False),
    "setxattr": lambda p: os.setxattr(p, "user.x", b"", follow_symlinks=False),
    "listxattr": lambda p: os.listxattr(p, follow_symlinks=False),
}


def answer(name, path):
    try:
        OPERATIONS[name](str(path))
    except OSError as e:
        return "NOTSUP" if e.errno == errno.ENOTSUP else NAMES[e.errno]  # EOPNOTSUPP too, in fewer letters
    return "-"


def stranger(name, path):
    """The same in a process of its own: whoever was refused in a take is taken for a copy, and writes no state there (§4)."""
    r, w = os.pipe()
    child = os.fork()
    if child == 0:
        got = "?"
        try:
            got = answer(name, path)
        finally:
            os.write(w, got.encode())
            os._exit(0)
    os.close(w)
    with open(r) as f:
        got = f.read()
    os.waitpid(child, 0)
    return got


# ---- the tree: one of everything


def elsewhere(script, *words):
    """By another process, which has gone: the one that wrote a state and then writes beside it is a copy (§4)."""
    subprocess.run(["sh", "-c", script, *words], check=True, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def failing(m, name, word):
    """Waits until it has failed, again perhaps."""
    wait_until(lambda: m.read(f"{name}/status").startswith(f"failed {word}: "), DEADLINE)
    m.wait(name)


def grow(m):
    put(m, 1)
    bare(m, "base")
    restore(m, "base")
    m.take("ran", meta=STATE_RUN)
    assert m.echo("ran/resume", "approve") is None and m.read("ran/output") == "woken\n"
    elsewhere(f"mkdir {m.root}/one && printf '%s' \"$0\" > {m.root}/one/meta.json && cat {STATE} > {m.root}/one/state.json && cat {m.root}/one/wait",
              json.dumps(STATE_RUN))
    assert m.echo("one/restore", "dry-run") is None
    assert m.echo("one/restore", "branch b") is None and m.echo("one/branches/b/resume", "approve") is None
    wait_until((m / "one/branches/b/connection_uri").exists, DEADLINE)
    m.emulator.fault(f"{RESTORE}=op:error:no disk*inf")
    assert m.echo("one/restore", "branch bad") == "EIO"
    elsewhere(f"mkdir {m.root}/draft && cat {m.root}/draft/wait && printf '{{' > {m.root}/draft/state.json && : > {m.root}/draft/.state.json.tmp &&"
              f" printf '{{}}' > {m.root}/draft/meta.json && mkdir {m.root}/bare && cat {m.root}/bare/wait")
    elsewhere(f"mkdir {m.base}/copied && : > {m.base}/copied/snapshot.json && cp -r {m.base}/copied {m.root}/; cat {m.root}/copied/wait")
    m.emulator.fault(f"{SNAPSHOT}=op:error:no disk*inf")
    os.mkdir(m / "failed")
    for name in ("failed", "copied"):
        failing(m, name, "take")
    os.makedirs(m / ".import/box/sub")
    for name in ("file", "sub/file"):
        (m / ".import/box" / name).write_text("{")
    os.symlink("file", m / ".import/box/link")
    m.settled(["one", "ran", "child"])


@pytest.fixture(scope="module")
def tree():
    with Mount(resume=AGENT) as m:
        grow(m)
        yield m


SEALED, UNSEALED = "(?:one|ran|child)", "(?:base|bare|draft|failed|copied)"
ANY = f"(?:{SEALED}|{UNSEALED})"
BRANCH = "one/branches/(?:b|bad)"

# Every path that there is, by what it is like: what none of these fits is missing here.
PATHS = {
    "data": [rf"{ANY}/{n}" for n in (r"checkpoint\.json", r"snapshot\.json", r"transcript\.md", "status", "result", "output", r"history\.jsonl",
                                     "wait", r"pending/call_\w+\.json")] + [rf"{SEALED}/state\.json"] +
            [rf"{BRANCH}/{n}" for n in (r"branch\.json", "status", "result", "output", "connection_uri", "wait")] +
            [rf"\.control/{n}" for n in ("active_branch", "connection_uri", "health", "version", "config", r"events\.jsonl", "metrics", "result",
                                         r"actions/act-\w+\.json", r"replaced/br-[\w-]+\.json")] + [r"\.runs/run%201/timeline\.(svg|txt)"],
    "control": [rf"{ANY}/{n}" for n in ("restore", "resume", "replay", "cancel")] + [rf"{BRANCH}/{n}" for n in ("resume", "cancel", "promote")] +
               [rf"\.control/{n}" for n in ("prune", "undo", "adopt")],
    "meta": [rf"{ANY}/meta\.json"],
    "checkpoint": [SEALED],
    "directory": [r"\.control", r"\.control/actions", r"\.control/replaced", r"\.pending", r"\.runs", r"\.runs/run%201", r"\.by-id", r"\.by-snapshot",
                  r"\.by-trace", r"\.by-trace/\w+"],
    "inner": [f"{SEALED}/pending"],
    "maker": [f"{ANY}/branches", f"{BRANCH}/checkpoints"],
    "branch": ["one/branches/b"],
    "link": ["latest", rf"\.(pending|runs/run%201|by-id|by-snapshot|by-trace/\w+)/[\w-]+", "one/branches/b/checkpoints/child"],
    "root": [r"\."],
    "take": ["bare", "draft"],
    "closed": ["base"],
    "draft": [r"draft/state\.json"],
    "temporary": [r"draft/\.state\.json\.tmp"],
    "failed": ["failed"],
    "copied": ["copied"],
    "no branch": ["one/branches/bad"],
    "staging": [r"\.import"],
    "staged file": [r"\.import/box/(sub/)?file"],
    "staged dir": [r"\.import/box(/sub)?"],
    "staged link": [r"\.import/box/link"],
}
HIDDEN = [".", ".control/connection_uri", ".control/metrics", "one/wait", "draft/wait", "one/branches/b/wait", "one/branches/b/connection_uri"]
STRANGERS = ("take", "closed", "draft", "temporary", "failed", "copied")

# What the kinds of paths answer; one word where all answer the same. A link is followed, as the call does; those calls that act on the
# link itself show in `link`. These are sealed, or the mount's own.
CONTRACT = """
operation     data     control  meta     checkpoint  directory  inner      maker      branch     link     root
getattr       -
open r        -
open w        EPERM    -        -        EISDIR      EISDIR     EISDIR     EISDIR     EISDIR     EISDIR   EISDIR
open rw       EPERM    -        -        EISDIR      EISDIR     EISDIR     EISDIR     EISDIR     EISDIR   EISDIR
append        EPERM    -        -        EISDIR      EISDIR     EISDIR     EISDIR     EISDIR     EISDIR   EISDIR
open trunc    EPERM    -        -        EISDIR      EISDIR     EISDIR     EISDIR     EISDIR     EISDIR   EISDIR
open excl     EEXIST
read          -        -        -        EISDIR      EISDIR     EISDIR     EISDIR     EISDIR     EISDIR   EISDIR
write         EPERM    -        -        EISDIR      EISDIR     EISDIR     EISDIR     EISDIR     EISDIR   EISDIR
truncate      EPERM    -        -        EISDIR      EISDIR     EISDIR     EISDIR     EISDIR     EISDIR   EISDIR
list          ENOTDIR  ENOTDIR  ENOTDIR  -           -          -          -          -          -        -
readlink      EINVAL   EINVAL   EINVAL   EINVAL      EINVAL     EINVAL     EINVAL     EINVAL     -        EINVAL
create in     ENOTDIR  ENOTDIR  ENOTDIR  EPERM       EPERM      EPERM      EPERM      EPERM      EPERM    EPERM
state in      ENOTDIR  ENOTDIR  ENOTDIR  EPERM       EPERM      EPERM      EPERM      EPERM      EPERM    EPERM
temporary in  ENOTDIR  ENOTDIR  ENOTDIR  -           EPERM      EPERM      EPERM      EPERM      -        EPERM
mkdir in      ENOTDIR  ENOTDIR  ENOTDIR  EPERM       EPERM      EPERM      EINVAL     EPERM      EPERM    EINVAL
symlink in    ENOTDIR  ENOTDIR  ENOTDIR  EPERM       EPERM      EPERM      EPERM      EPERM      EPERM    EPERM
mknod in      ENOTDIR  ENOTDIR  ENOTDIR  EPERM       EPERM      EPERM      EPERM      EPERM      EPERM    EPERM
link in       ENOTDIR  ENOTDIR  ENOTDIR  EPERM       EPERM      EPERM      EPERM      EPERM      EPERM    EPERM
rename in     ENOTDIR  ENOTDIR  ENOTDIR  EPERM       EPERM      EPERM      EPERM      EPERM      EPERM    EPERM
mkdir         EEXIST
unlink        EPERM    EPERM    EPERM    EISDIR      EISDIR     EISDIR     EISDIR     EISDIR     EPERM    EISDIR
rmdir         ENOTDIR  ENOTDIR  ENOTDIR  ENOTEMPTY   EPERM      ENOTEMPTY  ENOTEMPTY  ENOTEMPTY  ENOTDIR  EBUSY
rename        EPERM    EPERM    -        -           EPERM      EPERM      EPERM      EPERM      EPERM    EBUSY
rename out    EPERM    EPERM    EPERM    EPERM       EPERM      EPERM      EPERM      EPERM      EPERM    EXDEV
rename over   EPERM    EPERM    EPERM    EISDIR      EISDIR     EISDIR     EISDIR     EISDIR     EPERM    EXDEV
link          EPERM
chmod         -
chown         -
utimens       -
fsync         -
poll          -
statfs        -
getxattr      NOTSUP   NOTSUP   NOTSUP   NOTSUP      NOTSUP     NOTSUP     NOTSUP     NOTSUP     ENODATA  NOTSUP
setxattr      NOTSUP   NOTSUP   NOTSUP   NOTSUP      NOTSUP     NOTSUP     NOTSUP     NOTSUP     EPERM    NOTSUP
listxattr     NOTSUP
"""

# What is not sealed, to a process that hasn't made it; what failed; and what is copied in.
UNFINISHED = """
operation     take       closed     draft    temporary  failed   copied   no branch  staging  staged file  staged dir  staged link
getattr       -
open r        -
open w        EISDIR     EISDIR     -        -          EISDIR   EISDIR   EISDIR     EISDIR   -            EISDIR      -
open rw       EISDIR     EISDIR     -        -          EISDIR   EISDIR   EISDIR     EISDIR   -            EISDIR      -
append        EISDIR     EISDIR     -        -          EISDIR   EISDIR   EISDIR     EISDIR   -            EISDIR      -
open trunc    EISDIR     EISDIR     -        -          EISDIR   EISDIR   EISDIR     EISDIR   -            EISDIR      -
open excl     EEXIST
read          EISDIR     EISDIR     -        -          EISDIR   EISDIR   EISDIR     EISDIR   -            EISDIR      -
write         EISDIR     EISDIR     -        -          EISDIR   EISDIR   EISDIR     EISDIR   -            EISDIR      -
truncate      EISDIR     EISDIR     -        -          EISDIR   EISDIR   EISDIR     EISDIR   -            EISDIR      -
list          -          -          ENOTDIR  ENOTDIR    -        -        -          -        ENOTDIR      -           ENOTDIR
readlink      EINVAL     EINVAL     EINVAL   EINVAL     EINVAL   EINVAL   EINVAL     EINVAL   EINVAL       EINVAL      -
create in     EPERM      EPERM      ENOTDIR  ENOTDIR    EPERM    EPERM    EPERM      -        ENOTDIR      -           ENOTDIR
state in      -          EPERM      ENOTDIR  ENOTDIR    -        EPERM    EPERM      -        ENOTDIR      -           ENOTDIR
temporary in  -          -          ENOTDIR  ENOTDIR    -        EPERM    EPERM      -        ENOTDIR      -           ENOTDIR
mkdir in      EPERM      EPERM      ENOTDIR  ENOTDIR    EPERM    EPERM    EPERM      -        ENOTDIR      -           ENOTDIR
symlink in    EPERM      EPERM      ENOTDIR  ENOTDIR    EPERM    EPERM    EPERM      -        ENOTDIR      -           ENOTDIR
mknod in      EPERM      EPERM      ENOTDIR  ENOTDIR    EPERM    EPERM    EPERM      EPERM    ENOTDIR      EPERM       ENOTDIR
link in       EPERM      EPERM      ENOTDIR  ENOTDIR    EPERM    EPERM    EPERM      EPERM    ENOTDIR      EPERM       ENOTDIR
rename in     EPERM      EPERM      ENOTDIR  ENOTDIR    EPERM    EPERM    EPERM      EPERM    ENOTDIR      EPERM       ENOTDIR
mkdir         EEXIST
unlink        EISDIR     EISDIR     -        -          EISDIR   EISDIR   EISDIR     EISDIR   -            EISDIR      -
rmdir         ENOTEMPTY  ENOTEMPTY  ENOTDIR  ENOTDIR    -        -        -          EPERM    ENOTDIR      ENOTEMPTY   ENOTDIR
rename        -          -          EPERM    -          -        -        EPERM      EPERM    -            -           -
rename out    EPERM
rename over   EISDIR     EISDIR     EPERM    EPERM      EISDIR   EISDIR   EISDIR     EISDIR   EPERM        EISDIR      EPERM
link          EPERM
chmod         -
chown         -
utimens       -
fsync         -
poll          -
statfs        -
getxattr      NOTSUP     NOTSUP     NOTSUP   NOTSUP     NOTSUP   NOTSUP   NOTSUP     NOTSUP   NOTSUP       NOTSUP      ENODATA
setxattr      NOTSUP     NOTSUP     NOTSUP   NOTSUP     NOTSUP   NOTSUP   NOTSUP     NOTSUP   NOTSUP       NOTSUP      EPERM
listxattr     NOTSUP
"""

# With -o ro only what is sealed is there, and what would change anything is EROFS, whatever it is.
READ_ONLY = """
operation     data     control  meta     checkpoint  directory  inner    maker    branch   link     root     no branch  staging
getattr       -
open r        -
open w        EROFS    EROFS    EROFS    EISDIR      EISDIR     EISDIR   EISDIR   EISDIR   EISDIR   EISDIR   EISDIR     EISDIR
open rw       EROFS    EROFS    EROFS    EISDIR      EISDIR     EISDIR   EISDIR   EISDIR   EISDIR   EISDIR   EISDIR     EISDIR
append        EROFS    EROFS    EROFS    EISDIR      EISDIR     EISDIR   EISDIR   EISDIR   EISDIR   EISDIR   EISDIR     EISDIR
open trunc    EROFS    EROFS    EROFS    EISDIR      EISDIR     EISDIR   EISDIR   EISDIR   EISDIR   EISDIR   EISDIR     EISDIR
open excl     EEXIST
read          -        -        -        EISDIR      EISDIR     EISDIR   EISDIR   EISDIR   EISDIR   EISDIR   EISDIR     EISDIR
write         EROFS    EROFS    EROFS    EISDIR      EISDIR     EISDIR   EISDIR   EISDIR   EISDIR   EISDIR   EISDIR     EISDIR
truncate      EROFS    EROFS    EROFS    EISDIR      EISDIR     EISDIR   EISDIR   EISDIR   EISDIR   EISDIR   EISDIR     EISDIR
list          ENOTDIR  ENOTDIR  ENOTDIR  -           -          -        -        -        -        -        -          -
readlink      EINVAL   EINVAL   EINVAL   EINVAL      EINVAL     EINVAL   EINVAL   EINVAL   -        EINVAL   EINVAL     EINVAL
create in     ENOTDIR  ENOTDIR  ENOTDIR  EROFS       EROFS      EROFS    EROFS    EROFS    EROFS    EROFS    EROFS      EROFS
state in      ENOTDIR  ENOTDIR  ENOTDIR  EROFS       EROFS      EROFS    EROFS    EROFS    EROFS    EROFS    EROFS      EROFS
temporary in  ENOTDIR  ENOTDIR  ENOTDIR  EROFS       EROFS      EROFS    EROFS    EROFS    EROFS    EROFS    EROFS      EROFS
mkdir in      ENOTDIR  ENOTDIR  ENOTDIR  EROFS       EROFS      EROFS    EROFS    EROFS    EROFS    EROFS    EROFS      EROFS
symlink in    ENOTDIR  ENOTDIR  ENOTDIR  EROFS       EROFS      EROFS    EROFS    EROFS    EROFS    EROFS    EROFS      EROFS
mknod in      ENOTDIR  ENOTDIR  ENOTDIR  EROFS       EROFS      EROFS    EROFS    EROFS    EROFS    EROFS    EROFS      EROFS
link in       ENOTDIR  ENOTDIR  ENOTDIR  EROFS       EROFS      EROFS    EROFS    EROFS    EROFS    EROFS    EROFS      EROFS
rename in     ENOTDIR  ENOTDIR  ENOTDIR  EROFS       EROFS      EROFS    EROFS    EROFS    EROFS    EROFS    EROFS      EROFS
mkdir         EEXIST
unlink        EROFS    EROFS    EROFS    EROFS       EROFS      EROFS    EROFS    EROFS    EROFS    EISDIR   EROFS      EROFS
rmdir         EROFS    EROFS    EROFS    EROFS       EROFS      EROFS    EROFS    EROFS    EROFS    EBUSY    EROFS      EROFS
rename        EROFS    EROFS    EROFS    EROFS       EROFS      EROFS    EROFS    EROFS    EROFS    EBUSY    EROFS      EROFS
rename out    EROFS    EROFS    EROFS    EROFS       EROFS      EROFS    EROFS    EROFS    EROFS    EXDEV    EROFS      EROFS
rename over   EROFS    EROFS    EROFS    EROFS       EROFS      EROFS    EROFS    EROFS    EROFS    EXDEV    EROFS      EROFS
link          EROFS
chmod         EROFS
chown         EROFS
utimens       EROFS
fsync         -
poll          -
statfs        -
getxattr      NOTSUP   NOTSUP   NOTSUP   NOTSUP      NOTSUP     NOTSUP   NOTSUP   NOTSUP   ENODATA  NOTSUP   NOTSUP     NOTSUP
setxattr      EROFS
listxattr     NOTSUP
"""


def expected(table):
    """By kind and operation."""
    (_, *kinds), *rows = [re.split(r"\s{2,}", line) for line in table.strip().splitlines()]
    assert [row[0] for row in rows] == list(OPERATIONS)
    cells = {op: dict(zip(kinds, some if len(some) > 1 else some * len(kinds))) for op, *some in rows}
    return {kind: {op: cells[op][kind] for op in cells} for kind in kinds}


def kind_of(path):
    kinds = [kind for kind, patterns in PATHS.items() if any(re.fullmatch(p, path) for p in patterns)]
    assert len(kinds) == 1, f"{path} is in the matrix as {kinds}"
    return kinds[0]


def walked(m):
    """Every path that is listed, and those that are only answered by name."""
    found = set(HIDDEN)
    for top, directories, files in os.walk(m.root):
        here = os.path.relpath(top, m.root)
        found |= {os.path.normpath(f"{here}/{name}") for name in (*directories, *files)}
    return sorted(p for p in found if os.path.lexists(m / p))


def paths(m):
    """Every path with its kind, what is in a directory before it; of links those to what is sealed, as they are followed."""
    known = [(p, kind_of(p)) for p in reversed(walked(m))]
    return [(p, kind) for p, kind in known if kind != "link" or re.fullmatch(SEALED, os.path.basename(os.path.realpath(m / p)))]


def asked(op, path, kind):
    """The answer. A control file is busy until the close before is told, which the kernel does by itself."""
    if kind == "control":
        return wait_until(lambda: (got := answer(op, path)) != "EBUSY" and got)
    return (stranger if kind in STRANGERS else answer)(op, path)


def differences(m, tables):
    rows = {kind: row for table in tables for kind, row in expected(table).items()}
    answers = ((op, path, kind, asked(op, m / path, kind)) for path, kind in paths(m) for op in OPERATIONS)
    return [f"{op} {path} ({kind}): {got}, not {rows[kind][op]}" for op, path, kind, got in answers if got != rows[kind][op]]


def seen(m):
    """Attributes of all that is sealed or the mount's own, and what is in each sealed checkpoint."""
    known = {}
    for path, kind in paths(m):
        if kind in expected(CONTRACT) and not re.match(f"{UNSEALED}|one/branches/bad", path):
            st = os.lstat(m / path)
            data = stat.S_ISREG(st.st_mode) and re.match(SEALED, path) and (m / path).read_bytes()
            known[path] = (st.st_ino, st.st_mode, st.st_uid, st.st_gid, data)
    return known


def test_every_path_and_every_operation(tree):
    before, statuses = seen(tree), {n: tree.status(n) for n in ("one", "ran", "child", "bare", "base", "draft")}
    differ = differences(tree, (CONTRACT, UNFINISHED))
    assert not differ, "\n".join(differ)
    after = seen(tree)
    for path in before:  # histories and results tell of the renames and of what was no command, meta.json was truncated
        if not path.endswith(("history.jsonl", "meta.json", "result")):
            assert before[path] == after[path], path
    del statuses["draft"]  # truncated at last
    assert {n: tree.status(n) for n in statuses} == statuses and tree.status("draft") == "saved (database only)"
    failing(tree, "failed", "take")


def test_the_same_read_only(tree):
    with Second(tree, "-o", "ro") as reader:
        wait_until((reader / "one/branches/b/connection_uri").exists, DEADLINE)  # asked of Neon, not kept in the store
        before = seen(reader)
        differ = differences(reader, (READ_ONLY,))
        assert not differ, "\n".join(differ)
        assert before == seen(reader)


def test_no_kind_of_file_is_left_out(tree):
    """What is found in the mount has one place in the matrix, each place is taken, and each row of the program's tables of files is there."""
    found = walked(tree)
    for path in found:
        kind_of(path)
    patterns = [p for some in PATHS.values() for p in some]
    assert not [p for p in patterns if not any(re.fullmatch(p, path) for path in found)]
    source = (ROOT / "fs/tree/files.c").read_text()
    for table, where in {"checkpoint_files": "(one|ran)/", "branch_files": "one/branches/b/", "root_files": "", "control_files": r"\.control/",
                         "run_files": r"\.runs/run%201/"}.items():
        (rows,) = re.findall(rf"^const struct file_row {table}\[\] = \{{\n(.*?)^\}};", source, re.M | re.S)
        names = re.findall(r'\.name = "([^"]+)"', rows)
        assert names and not [n for n in names if not any(re.fullmatch(where + re.escape(n), path) for path in found)]

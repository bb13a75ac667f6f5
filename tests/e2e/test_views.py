"""The views (design.md §1): .runs/, .by-id/, .by-snapshot/, .by-trace/, and a run's time line."""

import errno
import json
import os
import stat
import threading
import xml.dom.minidom

import pytest

from copied import copy_checkpoint
from mount import SAMPLES, Mount, shell
from restoring import tidy

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
RUN = "run 1/ä"
RUN_DIR = ".runs/run%201%2F%C3%A4"
PLAIN = b'{"a": 1}'


@pytest.fixture(scope="module")
def m():
    with Mount(resume="sh -c 'echo woken'", emulator=("--snapshots=1000",)) as mount:
        yield mount


@pytest.fixture(scope="module")
def run(m):
    """A run of three steps, whose second was restored and resumed, and a fork."""
    m.take("plan", PLAIN, {"run_id": RUN, "step_id": "1", "traceparent": PARENT})
    uid = m.json("plan/checkpoint.json")["id"]
    m.take("pre drop", meta={"run_id": RUN, "step_id": "2", "parent": uid, "traceparent": PARENT})
    second = m.json("pre drop/checkpoint.json")["id"]
    m.take("dropped", PLAIN, {"run_id": RUN, "step_id": "3", "parent": second})
    m.take("other", PLAIN, {"run_id": "other-run"})
    assert m.echo("pre drop/restore", "in-place") is None, m.read("pre drop/result")
    tidy(m)
    assert m.echo("pre drop/resume", "reject no <thanks>") is None, m.read("pre drop/result")
    m.take("third again", PLAIN, {"run_id": RUN, "step_id": "3", "parent": second})
    m.settled()
    return RUN_DIR


def listing(m, path):
    return sorted(os.listdir(m / path))


def refused(code, call, *words):
    with pytest.raises(OSError) as caught:
        call(*words)
    assert caught.value.errno == code, errno.errorcode[caught.value.errno]


# -- links


def test_checkpoints_by_run(m, run):
    assert {"run%201%2F%C3%A4", "other-run"} <= set(listing(m, ".runs"))
    names = [e.name for e in os.scandir(m / run)]
    assert names == ["timeline.svg", "timeline.txt", "plan", "pre drop", "dropped", "third again"], "in step order"
    for name in names[2:]:
        assert os.readlink(m / run / name) == f"../../{name}"
        assert os.stat(m / run / name).st_ino == os.stat(m / name).st_ino
        assert m.read(f"{run}/{name}/status") == m.read(f"{name}/status")
    assert not os.path.lexists(m / run / "other")
    assert os.stat(m / run / "..").st_ino == os.stat(m / ".runs").st_ino
    assert os.path.samefile(m / ".runs/..", m.root)


def test_checkpoints_by_their_ids(m, run):
    for name in ("plan", "pre drop", "other"):
        uid = m.json(f"{name}/checkpoint.json")["id"]
        snapshot = m.json(f"{name}/snapshot.json")["id"]
        assert os.readlink(m / ".by-id" / uid) == os.readlink(m / ".by-snapshot" / snapshot) == f"../{name}"
        assert uid in listing(m, ".by-id") and snapshot in listing(m, ".by-snapshot")
    assert os.readlink(m / f".by-trace/{TRACE}/plan") == "../../plan"
    assert listing(m, f".by-trace/{TRACE}") == ["plan", "pre drop"]
    for path in (".by-id/ck-0", ".by-snapshot/x", ".by-trace/" + "0" * 32, ".runs/x", f"{run}/x"):
        assert not os.path.lexists(m / path)


def test_the_state_and_meta_json_name_different_traces(m):
    """Both lead to the checkpoint, also after a remount, and neither to what only the other names."""
    state = SAMPLES / "js_seed_traced_interrupted.json"
    own = json.loads(state.read_text())["trace"]["id"]
    m.take("both", state, {"traceparent": f"00-{'c' * 32}-b7ad6b7169203331-01"})
    m.take("state's", state)
    m.settled(["both", "state's"])
    for _ in range(2):
        assert listing(m, f".by-trace/{'c' * 32}") == ["both"]
        assert listing(m, f".by-trace/{own}") == ["both", "state's"]
        assert os.readlink(m / f".by-trace/{own}/both") == os.readlink(m / f".by-trace/{'c' * 32}/both") == "../../both"
        assert not os.path.lexists(m / f".by-trace/{'c' * 32}/state's")
        m.remount()
    os.rename(m / "both", m / "moved")
    assert listing(m, f".by-trace/{own}") == ["moved", "state's"] and listing(m, f".by-trace/{'c' * 32}") == ["moved"]
    for name in ("moved", "state's"):
        assert m.echo(".control/prune", f"delete {name}") is None
    assert not {own, "c" * 32} & set(listing(m, ".by-trace"))


def test_nothing_is_made_or_removed_there(m, run):
    uid = m.json("plan/checkpoint.json")["id"]
    for path in (run, ".runs", ".by-id", ".by-snapshot", ".by-trace", f".by-trace/{TRACE}"):
        refused(errno.EPERM, os.mkdir, m / path / "new")
        refused(errno.EPERM, os.symlink, "x", m / path / "new")
        refused(errno.EPERM, open, m / path / "new", "w")
        refused(errno.EPERM, os.rmdir, m / path)
    for path in (f"{run}/plan", f"{run}/timeline.svg", f".by-id/{uid}", f".by-trace/{TRACE}/plan"):
        refused(errno.EPERM, os.unlink, m / path)
        refused(errno.EPERM, os.rename, m / path, m / "moved")
    refused(errno.EPERM, open, m / run / "timeline.txt", "w")


def test_views_follow_renames_and_deletions(m):
    m.take("one name", PLAIN, {"run_id": "moving", "traceparent": f"00-{'b' * 32}-b7ad6b7169203331-01"})
    m.take("stays", PLAIN, {"run_id": "moving"})
    uid = m.json("one name/checkpoint.json")["id"]
    snapshot = m.json("one name/snapshot.json")["id"]
    views = [m / ".by-id" / uid, m / ".by-snapshot" / snapshot]
    before = [os.readlink(v) for v in views] + listing(m, ".runs/moving") + listing(m, f".by-trace/{'b' * 32}")
    picture = m.read(".runs/moving/timeline.txt")
    assert before.count("one name") == 2 and "one name" in picture
    os.rename(m / "one name", m / "another")
    assert [os.readlink(v) for v in views] == ["../another"] * 2
    assert listing(m, ".runs/moving") == ["another", "stays", "timeline.svg", "timeline.txt"]
    assert not os.path.lexists(m / ".runs/moving/one name") and os.path.samefile(m / ".runs/moving/another", m / "another")
    assert m.read(".runs/moving/timeline.txt").split() == picture.replace("one name", "another").split()
    assert m.echo(".control/prune", "delete another") is None
    assert not any(os.path.lexists(v) for v in views) and not os.path.lexists(m / f".by-trace/{'b' * 32}")
    assert listing(m, ".runs/moving") == ["stays", "timeline.svg", "timeline.txt"] and "another" not in m.read(".runs/moving/timeline.txt")
    assert m.echo(".control/prune", "delete stays") is None
    assert not os.path.lexists(m / ".runs/moving") and "moving" not in listing(m, ".runs")


def test_a_checkpoint_called_like_the_picture(m):
    m.take("timeline.svg", PLAIN, {"run_id": "odd"})
    names = [e.name for e in os.scandir(m / ".runs/odd")]
    assert names == ["timeline.svg", "timeline.txt"] and stat.S_ISREG(os.lstat(m / ".runs/odd/timeline.svg").st_mode)
    assert m.echo(".control/prune", "delete timeline.svg") is None


@pytest.mark.parametrize("copy", ["cp -a {mount}/. {out}/", "tar cf - -C {mount} . | tar xf - -C {out}", "rsync -a {mount}/ {out}/"])
def test_links_resolve_in_a_copy(m, run, tmp_path, copy):
    m.settled()  # a tool that reads while something changes complains
    done = shell(copy.format(mount=m.root, out=tmp_path))
    assert done.returncode == 0 and not done.stderr, done
    assert (tmp_path / run / "pre drop/state.json").read_bytes() == (m / "pre drop/state.json").read_bytes()
    assert (tmp_path / f".by-trace/{TRACE}/plan/checkpoint.json").read_text() == m.read("plan/checkpoint.json")
    assert (tmp_path / ".by-id" / m.json("plan/checkpoint.json")["id"]).resolve() == (tmp_path / "plan").resolve()
    assert (tmp_path / ".by-snapshot" / m.json("plan/snapshot.json")["id"]).resolve() == (tmp_path / "plan").resolve()
    assert (tmp_path / run / "timeline.svg").read_bytes() == (m / run / "timeline.svg").read_bytes()


# -- the time line


def test_the_time_line_tells_what_happened(m, run):
    text = m.read(f"{run}/timeline.txt")
    assert text.startswith("Run run 1/ä\n4 checkpoints, 1 fork, 1 restore, 1 resume\n")
    rows = [line[12:] for line in text.splitlines() if line[:2] == "  "]
    assert len(rows) == 6
    assert "plan" in rows[0] and "step 1 · saved" in rows[0]
    assert rows[1].startswith("●─╮ ") or rows[1].startswith("✓─╮ "), "the line that was left branches off"
    assert "step 2 · finished" in rows[1] and "pre drop" in rows[1]
    assert rows[2].startswith("│ ○ ") and "off-line" in rows[2]
    assert rows[3].startswith("◆ ") and "restored pre drop" in rows[3] and "took" in rows[3]
    assert rows[4].startswith("▶ ") and "resumed pre drop" in rows[4] and "reject" in rows[4]
    assert rows[5].startswith("● ") and "third again" in rows[5]
    assert all(len(line) <= 80 for line in text.splitlines())


def test_the_picture_is_a_document_of_its_own(m, run):
    data = (m / run / "timeline.svg").read_bytes()
    document = xml.dom.minidom.parseString(data)
    texts = ["".join(n.data for n in t.childNodes if n.nodeType == n.TEXT_NODE) for t in document.getElementsByTagName("text")]
    assert "Run run 1/ä" in texts and {"plan", "pre drop", "dropped", "third again"} <= set(texts)
    links = {a.getAttribute("href") for a in document.getElementsByTagName("a")}
    assert links == {"./plan/", "./pre%20drop/", "./dropped/", "./third%20again/"}
    assert b"script" not in data and b"http" not in data.replace(b"http://www.w3.org/2000/svg", b"")


def sizes(m, run):
    return {name: (os.stat(m / run / name).st_size, os.stat(m / run / name).st_mtime_ns) for name in ("timeline.svg", "timeline.txt")}


def test_sizes_and_times_are_exact_and_stay(m, run):
    before = sizes(m, run)
    for name, (size, _) in before.items():
        assert len((m / run / name).read_bytes()) == size
    assert {e.name: (e.stat(follow_symlinks=False).st_size, e.stat(follow_symlinks=False).st_mtime_ns)
            for e in os.scandir(m / run) if e.name in before} == before
    numbers = {p: os.lstat(m / p).st_ino for p in (run, f"{run}/plan", f"{run}/timeline.svg", f".by-trace/{TRACE}")}
    m.remount()
    assert sizes(m, run) == before, "the second backup after a remount reads nothing again"
    assert {p: os.lstat(m / p).st_ino for p in numbers} == numbers


def test_the_time_line_changes_with_what_it_shows(m):
    m.take("grows", meta={"run_id": "growing"})
    m.settled(["grows"])
    before = sizes(m, ".runs/growing")
    m.take("elsewhere", PLAIN, {"run_id": "elsewhere"})
    m.settled(["elsewhere"])
    assert sizes(m, ".runs/growing") == before, "another run's change is none of this one"
    assert m.echo("grows/resume", "approve") is None
    after = sizes(m, ".runs/growing")
    assert all(after[n] != before[n] and after[n][1] > before[n][1] for n in before)
    assert all(len((m / ".runs/growing" / n).read_bytes()) == after[n][0] for n in after)


def test_an_undo_is_told(m):
    for step in "12":
        m.take(f"undo {step}", PLAIN, {"run_id": "undone", "step_id": step})
    assert m.echo("undo 1/restore", "in-place") is None, m.read("undo 1/result")
    tidied = m.read(".runs/undone/timeline.txt")
    assert "◆ " in tidied and "off-line" in tidied
    assert m.echo(".control/undo", "undo") is None, m.read(".control/result")
    rows = [line[12:] for line in m.read(".runs/undone/timeline.txt").splitlines() if line[:2] == "  "]
    assert [r[:4].split()[0] for r in rows] == ["●─╮", "●", "│", "◀"] and "undid the restore of undo 1" in rows[3]
    tidy(m)


def signs(m, run):
    return [line[12:].split("  ")[0] for line in m.read(f".runs/{run}/timeline.txt").splitlines() if line[:2] == "  "]


def test_isolated_branches_stand_beside(m):
    m.take("side", meta={"run_id": "beside"})
    assert m.echo("side/restore", "branch fix-1") is None, m.read("side/result")
    assert m.echo("side/branches/fix-1/resume", "approve") is None, m.read("side/branches/fix-1/result")
    child = {"run_id": "beside", "parent": m.json("side/checkpoint.json")["id"]}
    os.mkdir(m / "side/branches/fix-1/checkpoints/tried")
    (m / "tried/meta.json").write_text(json.dumps(child))
    (m / "tried/state.json").write_bytes(PLAIN)
    m.wait("tried")
    m.take("main", PLAIN, child)
    m.settled()
    text = m.read(".runs/beside/timeline.txt")
    assert signs(m, "beside") == ["◐─╮", "│ ■", "│ ▶", "│ ●", "●"], text
    assert "branch fix-1" in text and "on branch fix-1 · approve" in text and "saved · on branch fix-1" in text
    before = sizes(m, ".runs/beside")
    m.remount()
    assert sizes(m, ".runs/beside") == before
    assert m.echo(".control/prune", "delete side/branches/fix-1") is None, m.read(".control/result")
    assert "branch (deleted)" in m.read(".runs/beside/timeline.txt") and "fix-1" not in m.read(".runs/beside/timeline.txt")
    assert signs(m, "beside")[:3] == ["◐─╮", "│ ■", "│ ▶"]
    after = sizes(m, ".runs/beside")
    m.remount()
    assert sizes(m, ".runs/beside") == after


def test_read_only_shows_the_same(m, run):
    before = {run: listing(m, run), ".runs": listing(m, ".runs"), ".by-trace": listing(m, ".by-trace")}
    bare = m.root / "database only"
    os.mkdir(bare)
    m.wait("database only")
    uid, snapshot = m.json("database only/checkpoint.json")["id"], m.json("database only/snapshot.json")["id"]
    assert os.path.lexists(m / ".by-id" / uid) and os.path.lexists(m / ".by-snapshot" / snapshot)
    m.remount("-o", "ro")
    try:
        assert {p: listing(m, p) for p in before} == before
        assert not os.path.lexists(m / ".by-id" / uid) and uid not in listing(m, ".by-id")
        assert not os.path.lexists(m / ".by-snapshot" / snapshot) and snapshot not in listing(m, ".by-snapshot")
        assert len((m / run / "timeline.svg").read_bytes()) == os.stat(m / run / "timeline.svg").st_size
    finally:
        m.remount()


# -- many


MANY_RUNS, PER_RUN = 2000, 5
@pytest.fixture(scope="module")
def many(m):
    m.take("template", PLAIN)
    m.settled(["template"])
    copy_checkpoint(json.loads((m.dir / "env.json").read_text())["store_owner"], "template", MANY_RUNS * PER_RUN,
                    "'many-' || lpad(n::text, 6, '0')", run_id=f"'many-' || n % {MANY_RUNS}", snapshot_id="'copy-' || n")
    m.remount()
    yield m


def test_many_runs(many):
    m = many
    runs = [n for n in os.listdir(m / ".runs") if n.startswith("many-")]
    assert len(runs) == len(set(runs)) == MANY_RUNS
    assert len(listing(m, ".by-snapshot")) >= MANY_RUNS * PER_RUN and len(listing(m, ".by-id")) >= MANY_RUNS * PER_RUN
    assert int(shell(f"find {m.root}/.runs -name 'many-??????' -type l | wc -l").stdout) == MANY_RUNS * PER_RUN
    names = [e.name for e in os.scandir(m / ".runs/many-7")]
    assert names[2:] == [f"many-{7 + MANY_RUNS * i:06}" for i in range(PER_RUN)]
    assert shell(f"cat {m.root}/.runs/*/timeline.svg | wc -c").returncode == 0


def test_listing_views_while_checkpoints_come_and_go(many):
    """What stays is listed exactly once, in each view."""
    m = many
    stop = threading.Event()
    done = []

    def change():
        while not stop.is_set():
            i = len(done)
            m.take(f"come-{i}", PLAIN, {"run_id": f"come-{i}"})
            os.rename(m / f"come-{i}", m / f"go-{i}")
            assert m.echo(".control/prune", f"delete go-{i}") is None
            done.append(i)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        n = 0
        while n < 4 or (len(done) < 3 and thread.is_alive()):
            for view, prefix, wanted in ((".runs", "many-", MANY_RUNS), (".by-snapshot", "copy-", MANY_RUNS * PER_RUN),
                                         (".by-id", "ck-0000000", MANY_RUNS * PER_RUN)):
                stay = [e.name for e in os.scandir(m / view) if e.name.startswith(prefix)]
                assert len(stay) == len(set(stay)) == wanted, view
            n += 1
    finally:
        stop.set()
        thread.join()
    assert len(done) >= 3

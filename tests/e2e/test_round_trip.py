"""A mixed tree through every backup tool and back: from a mount, into another directory, into .import/ of a fresh store's mount, and registered
with mv; nothing is lost (design.md §2, §7.1)."""

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from emulator import wait_until
from mount import SAMPLES, Fresh, Mount, shell
from restoring import active

KEPT = ("state.json", "checkpoint.json", "snapshot.json", "meta.json", "transcript.md")
VERIFY = Path(__file__).resolve().parents[2] / "scripts" / "verify-audit"

# how each makes a backup of {mount}, brings it back into {out}, and puts that into {box}; `{inner}`: where the tree is below it
TOOLS = {
    "tar": ("tar -C {mount} -cf {repo} .", "mkdir -p {out} && tar -C {out} -xpf {repo}", ""),
    "cp": ("cp -a {mount}/. {repo}", "cp -a {repo} {out}", ""),
    "rsync": ("rsync -a {mount}/ {repo}/", "rsync -a {repo}/ {out}/", ""),
    "restic": ("restic -q -r {repo} cat config >/dev/null 2>&1 || restic -q -r {repo} init; restic -q -r {repo} backup {mount}",
               "restic -q -r {repo} restore latest --target {out}", "{mount}"),
    "borg": ("borg list {repo} >/dev/null 2>&1 || borg init -e none {repo}; borg create {repo}::{{now:%s%f}} {mount}",
             "mkdir -p {out} && cd {out} && borg extract {repo}::$(borg list --last 1 --format '{{archive}}' {repo})", "{mount}"),
    "git": ("git init -q {repo} && cd {mount} && git --git-dir={repo}/.git --work-tree={mount} add -A . && "
            "git --git-dir={repo}/.git -c user.name=a -c user.email=a@b commit -qm 1", "mkdir -p {out} && git --git-dir={repo}/.git --work-tree={out} checkout -qf HEAD", ""),
}
TIMES = {"tar": 10**9, "git": 0}  # what of a time a tool keeps, in ns; else 1


@pytest.fixture(scope="module")
def first():
    with Mount(emulator=("--snapshots=1000",)) as m:
        for i, sample in enumerate(sorted(SAMPLES.glob("*"))):
            m.take(f"s{i:02} {sample.stem}", sample, meta={"labels": {"n": i}, "reason": "tour"} if i % 2 else None)
        parent = m.json("s00 " + sorted(SAMPLES.glob("*"))[0].stem + "/checkpoint.json")["id"]
        m.take("child", meta={"run_id": "run/ü 1", "step_id": "7", "parent": parent, "pin": True, "unknown": [1, {"a": None}]})
        os.mkdir(m / "bare")
        m.wait("bare")
        m.take("before")
        os.rename(m / "before", m / "renamed ü")
        m.emulator.fault("POST:/projects/*/branches/*/snapshot=op:error")
        os.mkdir(m / "failed")
        m.wait_status("failed", "failed take")
        m.echo("child/resume", "nonsense")
        m.settled()
        yield m


def names(m):
    return sorted(n for n in os.listdir(m.root) if n[0] != "." and n != "latest")


def facts(root, name, times):
    """What must not be lost."""
    found = {}
    for file in KEPT:
        path = Path(root) / name / file
        if path.exists():
            st = os.stat(path)
            found[file] = (path.read_bytes(), st.st_mtime_ns // times if times else None)
    for call in sorted(os.listdir(Path(root) / name / "pending")) if (Path(root) / name / "pending").exists() else []:
        found[call] = (Path(root) / name / "pending" / call).read_bytes()
    return found


@pytest.mark.parametrize("tool", TOOLS)
def test_a_mixed_tree(first, tmp_path, tool):
    backup, restore, inner = TOOLS[tool]
    repo, out = tmp_path / "repo", tmp_path / "out"
    env = os.environ | {"RESTIC_PASSWORD": "x", "RESTIC_CACHE_DIR": str(tmp_path / "cache"), "BORG_BASE_DIR": str(tmp_path),
                        "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes", "GIT_CONFIG_GLOBAL": "/dev/null"}

    def run(line, mount=first.root):
        done = shell(line.format(mount=mount, repo=repo, out=out), env=env)
        assert done.returncode == 0 and not done.stderr, done

    run(backup)
    run(restore)
    tree = str(out) + inner.format(mount=first.root)
    with Fresh(first) as m:
        # whole, as the tool brings it back: control files and derived ones too
        done = shell(f"cp -a {tree}/. {m.root}/.import/")
        assert (done.returncode, done.stderr) == (0, ""), done
        done = shell(f"rsync -a --itemize-changes {tree}/ {m.root}/.import/")
        assert (done.returncode, done.stdout) == (0, "")
        here = [n for n in names(first) if n != "failed"]
        done = shell("cd .import; for d in *; do test -L \"$d\" || test \"$d\" = failed || mv \"$d\" ..  || exit 1; done", cwd=m.root)
        assert (done.returncode, done.stderr) == (0, ""), done
        assert names(m) == here
        times = TIMES.get(tool, 1)
        for name in here:
            assert facts(m.root, name, times) == facts(first.root, name, times), name
            assert m.status(name) == "off-line"
            imported, = m.events_of(name, "checkpoint.imported")
            assert imported["checkpoint"] == m.json(f"{name}/checkpoint.json")["id"] and "fork" not in imported
        # what failed there holds nothing that could be lost
        done = shell(f"mv {m.root}/.import/failed {m.root}/")
        assert done.returncode == 1 and "No data available" in done.stderr and not (m / "failed").exists()
        shell(f"rm -r {m.root}/.import/failed {m.root}/.import/.* {m.root}/.import/latest")
        assert os.listdir(m / ".import") == []
        # the log of what came in is whole, and stays so
        (tmp_path / "events").write_text(m.read(".control/events.jsonl"))
        done = subprocess.run([VERIFY, tmp_path / "events", *(m / n / "history.jsonl" for n in here)], capture_output=True, text=True)
        assert done.returncode == 0, done
        m.settled()
        before = {n: facts(m.root, n, 1) for n in here}
        m.remount()
        assert {n: facts(m.root, n, 1) for n in here} == before
        # a backup of the new mount: the second re-reads nothing
        again = tmp_path / "again"
        assert shell(f"rsync -a {m.root}/ {again}/").returncode == 0
        m.remount()
        done = shell(f"rsync -a --itemize-changes {m.root}/ {again}/")
        assert (done.returncode, done.stdout) == (0, "")
        # it is what it was: one is restored and awaits its decision
        assert m.echo("child/restore", f"in-place confirm={active(m)}") is None and m.status("child").startswith("waiting (1 call)")


def test_the_tool_writes_into_import_itself(first, tmp_path):
    """restic restore, borg extract, tar x and git checkout with .import/ as their target."""
    env = os.environ | {"RESTIC_PASSWORD": "x", "RESTIC_CACHE_DIR": str(tmp_path / "cache"), "BORG_BASE_DIR": str(tmp_path),
                        "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes", "GIT_CONFIG_GLOBAL": "/dev/null"}
    with Fresh(first) as m:
        for name, (tool, (backup, restore, inner)) in zip([n for n in names(first) if n != "failed"], TOOLS.items()):
            repo, box = tmp_path / tool, m / f".import/{tool}"
            for line in (backup, restore):
                done = shell(line.format(mount=first.root, repo=repo, out=box), env=env)
                assert done.returncode == 0 and not done.stderr, done
            tree = Path(str(box) + inner.format(mount=first.root))
            assert (tree / "child/state.json").read_bytes() == (first / "child/state.json").read_bytes(), tool
            os.rename(tree / name, m / f"from {tool}")
            was, now = facts(first.root, name, TIMES.get(tool, 1)), facts(m.root, f"from {tool}", TIMES.get(tool, 1))
            assert now == was and m.status(f"from {tool}") == "off-line", tool
            assert shell(f"rm -r {box}").returncode == 0
        assert os.listdir(m / ".import") == []

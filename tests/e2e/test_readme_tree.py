"""README.md's description of the tree against a mount that has everything: what it names is there, and nothing else is."""

import os
import re
import stat

import pytest

from emulator import wait_until
from mount import DEADLINE, ROOT
from restoring import active
from woken import Woken

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^## The tree\n+```\nMOUNT/\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINE = re.compile(r"^(?P<depth>(?:│   |    )*)[├└]── (?P<names>\S+(?: \S+)*)(?:  +(?P<text>\S.*))?$")
CHOSEN = {"pre_drop_table", "fix-1"}  # names that people choose; those in capitals stand for any, too
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def described():
    """{path: link's target, or None}; a directory's path ends with a slash."""
    found, above = {}, []
    for text in BLOCK.search(README)[1].splitlines():
        line = LINE.match(text)
        if not line:  # goes on with the text of the line before
            assert re.match(r"^[│ ]+ {8}\S", text), text
            continue
        above[len(line["depth"]) // 4:] = []
        name, _, target = line["names"].partition(" -> ")
        for one in [name] if target else name.split(" "):
            found["".join(above) + one] = target or None
        if name.endswith("/"):
            above.append(name)
    return found


def pattern(path):
    """What the real path or target looks like that this one stands for."""
    parts = re.split(r"([^/]+)", path)
    return "".join(re.sub(r"\b(NAME|[A-Z]+_ID|ID)\b|^(" + "|".join(CHOSEN) + ")$", "[^/]+", re.escape(p).replace(r"\-", "-")) for p in parts)


def shown(root):
    """{path: link's target, or None} of everything that is listed, as described() has it."""
    found = {}
    for directory, directories, files in os.walk(root):
        for name in directories + files:
            path = os.path.join(directory, name)
            mode = os.lstat(path).st_mode
            end = "/" if stat.S_ISDIR(mode) else ""
            found[os.path.relpath(path, root) + end] = os.readlink(path) if stat.S_ISLNK(mode) else None
    return found


def stands_for(line, target, path, leads):
    if (target is None) != (leads is None) or not re.fullmatch(pattern(line), path):
        return False
    return target is None or bool(re.fullmatch(pattern(target), leads))


@pytest.fixture(scope="module")
def m():
    """With everything: a run with a trace, a decision, a restore, an isolated branch with a checkpoint, one that waits."""
    with Woken() as mount:
        mount.waits("first", "echo hello", meta={"run_id": "run-1", "traceparent": TRACE})
        assert mount.echo("first/restore", "in-place") is None
        assert mount.echo("first/resume", "approve") is None
        assert mount.echo("first/replay", "branch try approve") is None
        os.mkdir(mount / "first/branches/try/checkpoints/on-try")
        mount.wait_status("on-try", "saved (database only)")
        mount.waits("second")
        wait_until((mount / "first/branches/try/connection_uri").exists, DEADLINE)
        yield mount


def test_it_is_what_the_mount_shows(m):
    lines, paths = described(), shown(m.root)
    missing = [line for line, target in lines.items() if not any(stands_for(line, target, *real) for real in paths.items())]
    assert not missing, f"README.md names what isn't there: {missing}"
    untold = [f"{path} -> {leads}" for path, leads in paths.items() if not any(stands_for(*line, path, leads) for line in lines.items())]
    assert not untold, f"README.md doesn't tell of {untold}"


def test_what_is_there_by_name_only(m):
    told = re.search(r"^Not listed, .*?\n\n", README, re.DOTALL | re.MULTILINE)[0]
    names = [n for n in re.findall(r"`([^` ]+)`", told) if "/" in n]
    assert len(names) >= 4
    for name in names:
        path = m / name.replace("NAME", "first").replace("/X/", "/try/")
        assert path.exists() and path.name not in os.listdir(path.parent), name
        assert path.read_text()
    assert m.read(".control/active_branch").strip() == active(m)


def test_the_reader_of_the_block_can_fail():
    lines = described()
    assert {"pre_drop_table/state.json", ".control/undo", "latest", ".import/"} <= set(lines)
    assert not any(stands_for(*line, "first/unheard-of", None) for line in lines.items())
    assert not any(stands_for(*line, "latest", "a/b") for line in lines.items())

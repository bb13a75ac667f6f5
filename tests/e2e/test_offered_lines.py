"""The lines offered for copying do what they say, whatever an agent has called its checkpoint: sh takes no word of a name for its own, neither
decoded nor pasted from the JSON as it stands there."""

import json
import os
import re

import pytest
from mount import Mount, shell
from restoring import bare, put, rows

NAMES = ["x'; touch $PWNED; echo '", "two $HOME words", "a\\nb", 'say "it"', "`touch $PWNED`", "-n"]


@pytest.fixture(scope="module")
def m(tmp_path_factory):
    """A mount that always asks, with room for what the tests restore."""
    path = tmp_path_factory.mktemp("config") / "checkpointfs.ini"
    path.write_text("[restore]\nunconfirmed = 0s\n")
    with Mount(emulator=("--plan", "paid"), env={"CHECKPOINTFS_CONFIG": str(path)}) as mount:
        yield mount


def offered(m, result, before, after=""):
    """The line between two texts of a result's message: the same for whoever prints the file and for a program that reads it."""
    text = m.read(result)
    lines = []
    for message in (re.search(r'^ *"message": "(.*)",?$', text, re.M)[1], json.loads(text)["message"]):
        line = message.partition(before)[2]
        assert line, message
        lines.append(line.rpartition(after)[0] if after else line)
    assert lines[0] == lines[1], "as it stands in the JSON"
    return lines[0]


def run(m, line, tmp_path):
    """As pasted into a shell in the mount."""
    pwned = tmp_path / "pwned"
    done = shell(line, "sh", cwd=m.root, env=os.environ | {"PWNED": str(pwned)})
    assert not pwned.exists(), line
    assert done.returncode == 0, (line, done)


@pytest.mark.parametrize("name", NAMES)
def test_each_line_does_what_it_says(m, name, tmp_path):
    put(m, 1)
    bare(m, name)
    put(m, 2)
    assert m.echo(f"{name}/restore", "dry-run") is None
    run(m, offered(m, f"{name}/result", "It has to be confirmed: "), tmp_path)
    assert rows(m) == [1], "the restore that was offered"
    assert m.echo(f"{name}/restore", "in-place") == "ECANCELED"
    run(m, offered(m, f"{name}/result", "To do it all the same: "), tmp_path)
    assert m.result(name)["state"] == "done" and m.result(name)["file"] == "restore"


@pytest.mark.parametrize("name", NAMES)
def test_what_deletes_it(m, name, tmp_path):
    name += "2"
    bare(m, name)
    assert m.echo(f"{name}/restore", "branch two words") is None
    assert m.echo(".control/prune", f"delete {name}") == "EBUSY"
    run(m, offered(m, ".control/result", "has branches: ", " first"), tmp_path)
    assert os.listdir(m / name / "branches") == []
    assert m.echo(".control/prune", f"delete {name}") is None


def test_a_branch_with_a_quote_is_named_in_words(m):
    """It has no other name: no line is better than one that runs something else."""
    bare(m, "quoted")
    assert m.echo("quoted/restore", "branch it's") is None
    assert m.echo(".control/prune", "delete quoted") == "EBUSY"
    assert "write <delete quoted/branches/it's> to the file <.control/prune> first" in m.json(".control/result")["message"]
    assert m.echo(".control/prune", "delete quoted/branches/it's") is None


def test_delete_takes_an_id(m):
    bare(m, "by its id")
    uid = m.json("by its id/checkpoint.json")["id"]
    assert m.echo(".control/prune", f"delete .by-id/{uid}/branches/none") == "ENOENT"
    assert m.echo(".control/prune", "delete .by-id/ck-none") == "ENOENT"
    assert m.echo(".control/prune", "delete .by-id/") == "EINVAL"
    assert m.echo(".control/prune", f"delete .by-id/{uid}") is None
    assert not (m / "by its id").exists()

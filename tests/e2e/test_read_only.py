"""A read-only mount beside one that works: what still changes isn't there (design.md §7.2)."""

from emulator import wait_until
from mount import DEADLINE, Mount, Second


def test_only_finished_outputs_are_shown(tmp_path):
    go = tmp_path / "go"
    with Mount(resume=f"echo begun; until [ -e {go} ]; do sleep 0.05; done; echo ended") as m:
        m.take("run")
        assert m.echo("run/resume", "nowait approve") is None
        wait_until(lambda: (m / "run/output").exists() and m.read("run/output") == "begun\n", DEADLINE)
        with Second(m, "-o", "ro") as reader:
            assert reader.status("run").startswith("agent running")
            assert not (reader / "run/output").exists()
        go.touch()
        assert m.wait("run") == "finished"
        with Second(m, "-o", "ro") as reader:
            assert reader.read("run/output") == "begun\nended\n"


def test_and_so_it_is_of_a_branchs_agent(tmp_path):
    go = tmp_path / "go"
    with Mount(resume=f"echo begun; until [ -e {go} ]; do sleep 0.05; done; echo ended") as m:
        m.take("run")
        assert m.echo("run/restore", "branch b1") is None
        assert m.echo("run/branches/b1/resume", "nowait approve") is None
        output = "run/branches/b1/output"
        wait_until(lambda: (m / output).exists() and m.read(output) == "begun\n", DEADLINE)
        with Second(m, "-o", "ro") as reader:
            assert reader.status("run/branches/b1").startswith("agent running")
            assert not (reader / output).exists()
            go.touch()
            assert m.wait("run/branches/b1") == "finished"
            wait_until(lambda: (reader / output).exists() and reader.read(output) == "begun\nended\n", DEADLINE)

"""`make install`, and that the man pages and the README know every option that the programs have."""
import os
import re
import subprocess

import pytest
from emulator import BUILD
from llm import ROOT

PROGRAMS = ("checkpointfs", "neon-emulator")
PAGES = ROOT / "fs" / "man"


def make(*arguments):
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL")}
    return subprocess.run(["make", "-C", ROOT, f"BUILD={BUILD.resolve()}", *arguments], text=True, capture_output=True, env=env)


def test_make_install(tmp_path):
    done = make("-o", "all", "install", f"DESTDIR={tmp_path}", "PREFIX=/opt/x")
    assert done.returncode == 0, done.stdout + done.stderr
    installed = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert installed == sorted([f"opt/x/bin/{p}" for p in PROGRAMS] + [f"opt/x/share/man/man1/{p}.1" for p in PROGRAMS])
    for program in PROGRAMS:
        shown = subprocess.run([tmp_path / "opt/x/bin" / program, "--version"], text=True, capture_output=True)
        assert shown.returncode == 0 and re.fullmatch(rf"{program} \d+\.\d+(\.\d+)?\n", shown.stdout)


@pytest.mark.parametrize("program", PROGRAMS)
def test_man_pages_render_without_warnings(program):
    done = subprocess.run(["groff", "-man", "-ww", "-Tutf8", PAGES / f"{program}.1"], text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "User Commands" in done.stdout


@pytest.mark.parametrize("program", PROGRAMS)
def test_man_pages_know_every_option(program):
    usage = subprocess.run([BUILD / program, "--help"], text=True, capture_output=True, check=True).stdout
    options = set(re.findall(r"--[a-z]+(?:-[a-z]+)*", usage))
    assert len(options) > 5
    page = (PAGES / f"{program}.1").read_text().replace("\\-", "-")
    assert not {o for o in options if o not in page}
    if program == "checkpointfs":
        readme = (ROOT / "README.md").read_text()
        assert not {o for o in options - {"--help", "--version"} if o not in readme}


def test_help_of_make_lists_the_targets():
    shown = make("help").stdout
    for target in ("all", "demo", "test", "bench", "lint", "asan", "install", "clean", "help"):
        assert re.search(rf"(?m)^{target}\s+\w", shown), target

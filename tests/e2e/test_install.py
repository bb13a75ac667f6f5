"""`make install`, that the man pages and the README know every option and setting that the programs have, and every script's --help."""
import os
import re
import subprocess
import sys

import pytest
from emulator import BUILD
from llm import ROOT

PROGRAMS = ("checkpointfs", "neon-emulator")
PAGES = ROOT / "fs" / "man"
SCRIPTS = sorted(p for p in (ROOT / "scripts").rglob("*") if p.is_file() and os.access(p, os.X_OK))


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


def test_what_a_fault_may_be_is_the_same_everywhere():
    usage = subprocess.run([BUILD / "neon-emulator", "--help"], text=True, capture_output=True, check=True).stdout
    grammar, = re.findall(r"(\[METHOD:PATH\S*\])(?:,…)?\n", usage)
    page = re.sub(r"\\f[A-Z]", "", (PAGES / "neon-emulator.1").read_text())
    assert grammar in page and grammar in (ROOT / "README.md").read_text()


def test_every_setting_is_explained(tmp_path):
    ini = tmp_path / "ini"
    ini.write_text("[neon]\nno_such = 1\n")
    said = subprocess.run([BUILD / "checkpointfs", f"--local={tmp_path}", f"--config={ini}", tmp_path], text=True, capture_output=True).stderr
    settings = re.findall(r"\[([a-z]+)\] ([a-z_-]+)", said.partition("there are:")[2])
    assert len(settings) > 10
    usage = subprocess.run([BUILD / "checkpointfs", "--help"], text=True, capture_output=True).stdout
    page = (PAGES / "checkpointfs.1").read_text().replace("\\-", "-")
    readme = (ROOT / "README.md").read_text()
    for section, name in settings:
        for text in (usage, page, readme):
            assert f"[{section}]" in text and re.search(rf"\b{name}\b", text), name
        assert section == "retention" or f"`[{section}] {name}`" in readme, name
    for variable in re.findall(r'getenv\("(CHECKPOINTFS_\w+)"\)', "".join(p.read_text() for p in (ROOT / "fs").rglob("*.c"))):
        assert variable in ("CHECKPOINTFS_KILL_AT", "CHECKPOINTFS_HURRY") or (variable in page and variable in readme), variable


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_every_script_explains_itself(script):
    by = [sys.executable] if "python" in script.read_text().partition("\n")[0] else []
    shown = subprocess.run([*by, script, "--help"], text=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=120)
    assert (shown.returncode, shown.stderr) == (0, "") and re.search("usage:", shown.stdout, re.IGNORECASE), shown
    wrong = subprocess.run([*by, script, "--no-such-option"], text=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=120)
    assert wrong.returncode in (1, 2) and "Traceback" not in wrong.stderr and wrong.stdout + wrong.stderr, wrong


@pytest.mark.parametrize("target", [(), ("test",)])
def test_setup_leaves_alone_what_a_link_leads_to(target, tmp_path):
    """build/venv of one checkout may be a link to that of another. Here a program that makes an empty one stands for python3."""
    shared = tmp_path / "shared"
    (shared / "bin").mkdir(parents=True)
    (shared / "bin/python").symlink_to("/bin/true")
    (shared / "kept").write_text("kept")
    if target:
        (shared / ".requirements").write_text((ROOT / "scripts/requirements.txt").read_text())
    (tmp_path / "venv").symlink_to("shared")
    python = tmp_path / "bin/python3"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\n[ "$2" = venv ] || exit 0\nmkdir -p "$4" && find "$4/" -mindepth 1 -delete\n'
                      'mkdir "$4/bin" && ln -s /bin/true "$4/bin/python"\n')
    python.chmod(0o755)
    env = os.environ | {"PATH": f"{python.parent}:{os.environ['PATH']}", "VENV": f"{tmp_path}/venv/"}
    done = subprocess.run([ROOT / "scripts/setup", *target], text=True, capture_output=True, env=env)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert (shared / "kept").read_text() == "kept" and "is a link to shared, which stays as it is" in done.stdout
    assert not (tmp_path / "venv").is_symlink() and (tmp_path / "venv/.requirements").exists()
    assert (tmp_path / "venv/.requirements-test").exists() == bool(target) and not (shared / ".requirements-test").exists()
    again = subprocess.run([ROOT / "scripts/setup", *target], text=True, capture_output=True, env=env)
    assert (again.returncode, again.stdout + again.stderr) == (0, "")


@pytest.mark.parametrize("most, alone, ends", [(0, 0, 0), (5, 0, 0), (0, 5, 0), (5, 5, 5), (1, 0, 1), (0, 1, 1), (5, 1, 1)])
def test_make_test_forgives_a_half_that_has_nothing_to_run(tmp_path, most, alone, ends):
    """With PYTEST_ARGS="-k WORD". A script that ends as told stands for pytest."""
    pytest_ = tmp_path / "pytest"
    pytest_.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/runs\ncase "$*" in *"not alone"*) exit {most};; *) exit {alone};; esac\n')
    pytest_.chmod(0o755)
    done = make("-s", "suite", f"PYTEST={pytest_}", "PYTEST_ARGS=-k word")
    assert (done.returncode != 0) == (ends != 0) and (not ends or f"Error {ends}" in done.stderr), done
    runs = (tmp_path / "runs").read_text().splitlines()
    assert len(runs) == (1 if most == 1 else 2) and all(r.endswith("tests -k word") for r in runs), runs


def test_help_of_make_lists_the_targets():
    shown = make("help").stdout
    for target in ("all", "demo", "test", "bench", "lint", "asan", "install", "clean", "help"):
        assert re.search(rf"(?m)^{target}\s+\w", shown), target

"""Every command that README.md shows is run: its sh, python and js blocks, in order, as one session in a prepared directory.

A block below `<!-- neon -->` is for Neon itself: what a reader would fill in is filled in with a neon-emulator and a PostgreSQL of the
test's own. Blocks in other languages, and indented ones, are not run."""
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from emulator import BUILD, Emulator, scratch, wait_until
from llm import ROOT
from postgres import PASSWORD, Postgres

BLOCK = re.compile(r"(<!-- neon -->\s*)?^```(sh|python|js)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
TOUR = "/tmp/ckpt-tour"
STATE = ROOT / "tests" / "data" / "py_seed_interrupted.json"
PREPARED = {  # what the examples in other languages take for granted; "M" is the mountpoint
    "python": 'import json\nmount, state = {M!r}, json.load(open({state!r}))\n',
    "js": 'const mount = {M!r}, parentId = "ck-none", state = JSON.parse(require("fs").readFileSync({state!r}));\n',
}
INTERPRETER = {"python": sys.executable, "js": "node"}


def blocks():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"<!-- demo -->.*?<!-- /demo -->", lambda m: "\n" * m[0].count("\n"), text, flags=re.DOTALL)
    return [(text.count("\n", 0, m.start(2)) + 1, bool(m[1]), m[2], m[3]) for m in BLOCK.finditer(text)]


def block_script(base, language, code):
    if language == "sh":
        return code
    prepared = PREPARED[language].format(M=f"{base}/mnt", state=str(STATE))
    return f"{INTERPRETER[language]} - <<'END_OF_BLOCK'\n{prepared}{code}END_OF_BLOCK\n"


def script(base, filled_in):
    lines = ["set -euo pipefail"]
    for line, for_neon, language, code in blocks():
        for shown, real in filled_in.items() if for_neon else ():
            code = code.replace(shown, real)
        lines.append(f"echo 'README.md:{line}' >&3\n{block_script(base, language, code)}")
    return "\n".join(lines).replace(TOUR, str(base))


@pytest.fixture
def base():
    """A directory that PostgreSQL's account can enter, where the tour happens."""
    base = Path(tempfile.mkdtemp(prefix="ckpt-readme-", dir=scratch()))
    base.chmod(0o755)
    yield base
    for line in Path("/proc/mounts").read_text().splitlines():
        if line.split()[1].startswith(str(base)):
            subprocess.run(["fusermount3", "-uz", line.split()[1]])
    wait_until(lambda: not any(str(base).encode() in c for c in command_lines()), 60)
    shutil.rmtree(base)


def command_lines():
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield file.read_bytes()
        except OSError:
            pass


def source_tree(base):
    """What a reader has in front of him after `make`."""
    here = base / "src"
    (here / "build").mkdir(parents=True)
    for name in ("scripts", "tests", "fs"):
        (here / name).symlink_to(ROOT / name)
    for name in ("checkpointfs", "neon-emulator"):
        (here / "build" / name).symlink_to(BUILD / name)
    (here / "build" / "venv").symlink_to(sys.prefix)
    return here


def test_every_command_works(base):
    here = source_tree(base)
    with Emulator() as neon, Postgres() as postgres:
        owner = postgres.database("checkpoints")
        postgres.sql(f"CREATE ROLE checkpointfs LOGIN PASSWORD '{PASSWORD}'")
        (here / ".env").write_text("".join(f"{k}={shlex.quote(v)}\n" for k, v in neon.env.items() if k != "NEON_BRANCH_ID"))
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "NEON_", "CHECKPOINT")) and k != "DATABASE_URL"}
        filled_in = {
            "postgresql://owner@db.example/checkpoints": owner,
            "postgresql://checkpointfs@db.example/checkpoints": postgres.conninfo("checkpoints", "checkpointfs"),
            "napi_…": neon.key, "gentle-forest-2mirrl1v": neon.project,
        }
        place = base / "place"
        with open(place, "w") as marks:
            done = subprocess.run(["bash", "-c", f"exec 3>{shlex.quote(str(place))}\n" + script(base, filled_in)], cwd=here, text=True,
                                  env=env | {"NEON_API_HOST": neon.host}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, timeout=150)
            marks.flush()
        assert done.returncode == 0, f"the block at {place.read_text().splitlines()[-1]} fails:\n{done.stdout[-3000:]}"
        for line in (f"neon: {neon.project}", "waiting (1 call)", "Alice", "finished", '"message": "Do not drop the table."', "drop_users_table"):
            assert line in done.stdout, f"{line}\nis not in\n{done.stdout}"


def test_blocks_are_found():
    languages = [language for _, _, language, _ in blocks()]
    assert languages.count("sh") >= 5 and {"python", "js"} <= set(languages)

"""Every command that README.md shows is run: its sh, python and js blocks, in order, as one session in a prepared directory.

A block below `<!-- neon -->` is for Neon itself: what a reader would fill in is filled in with a neon-emulator and a PostgreSQL of the
test's own. A python block whose first line is a file's name is that file, in the tour's directory. Blocks in other languages, and
indented ones, are not run."""
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from emulator import BUILD, Emulator, scratch, wait_until
from llm import ROOT
from postgres import PASSWORD, Postgres
from restoring import RESTORE

BLOCK = re.compile(r"(<!-- neon -->\s*)?^```(sh|python|js)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"# (\w+\.py)\n")
TOUR = "/tmp/ckpt-tour"
STATE = ROOT / "tests" / "data" / "py_seed_interrupted.json"
PREPARED = {  # what the examples in other languages take for granted; "M" is the mountpoint
    "python": 'import json\nmount, state = {M!r}, json.load(open({state!r}))\n',
    "js": 'const mount = {M!r}, parentId = "ck-none", state = JSON.parse(require("fs").readFileSync({state!r}));\n',
}
NOT_AWAITED = "echo 'nowait in-place'"
INTERPRETER = {"python": sys.executable, "js": "node"}


def blocks():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"<!-- demo -->.*?<!-- /demo -->", lambda m: "\n" * m[0].count("\n"), text, flags=re.DOTALL)
    return [(text.count("\n", 0, m.start(2)) + 1, bool(m[1]), m[2], m[3]) for m in BLOCK.finditer(text)]


def block_script(base, language, code):
    if language == "sh":
        return f"read -r _ <{base}/held\n{code}" if NOT_AWAITED in code else code
    file = FILE.match(code)
    if file:
        return f"cat >{base}/{file[1]} <<'END_OF_BLOCK'\n{code}END_OF_BLOCK\n"
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


def hold_the_restore(base):
    """The one that isn't awaited goes on until ckpt-wait looks, however long this machine takes to come to that: its status is shown before."""
    with open(base / "held", "w") as held:  # once its block is about to begin
        neon = Emulator(data=base)
        neon.env = json.loads((base / "local/env.json").read_text())
        neon.fault(f"{RESTORE}=423*inf")
        held.write("\n")
    wait_until(lambda: any(b"ckpt-wait" in c and str(base).encode() in c for c in command_lines()), 500)
    neon.control("DELETE", "faults")


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


@pytest.mark.timeout(600)
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
        os.mkfifo(base / "held")
        threading.Thread(target=hold_the_restore, args=(base,), daemon=True).start()
        with open(place, "w") as marks:
            done = subprocess.run(["bash", "-c", f"exec 3>{shlex.quote(str(place))}\n" + script(base, filled_in)], cwd=here, text=True,
                                  env=env | {"NEON_API_HOST": neon.host}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, timeout=500)
            marks.flush()
        assert done.returncode == 0, f"the block at {place.read_text().splitlines()[-1]} fails:\n{done.stdout[-3000:]}"
        for line in (f"neon: {neon.project}", "waiting (1 call)", "Alice", "finished", '"message": "Do not drop the table."', "drop_users_table",
                     "restoring", "agent ", "failed resume: cancelled", "promoted", "was active already", "waiting (2 calls)",
                     "{'said': ['reject', 'reject']}", "dropped only the table logs", "stopped again -> own.", "nothing is left to do"):
            assert line in done.stdout, f"{line}\nis not in\n{done.stdout}"


def test_blocks_are_found():
    languages = [language for _, _, language, _ in blocks()]
    assert languages.count("sh") >= 5 and {"python", "js"} <= set(languages)

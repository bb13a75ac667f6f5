"""Who may do what: owner and modes by mount option, roles, operators (design.md §7.10)."""

import grp
import os
import pwd
import stat
import subprocess

import pytest
from emulator import wait_until
from mount import BINARY, CALL, DEADLINE, NAMES, STATE, Mount, Second, shell

NOBODY, NOGROUP = pwd.getpwnam("nobody").pw_uid, grp.getgrnam("nogroup").gr_gid
OPERATORS = 54321  # a group that is only a number

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="to become somebody else one must be root")


class As:
    """Another user's process, with groups of its own."""

    def __init__(self, uid, gid, *groups):
        self.how = {"user": uid, "group": gid, "extra_groups": groups}

    def __call__(self, command):
        return subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=DEADLINE, **self.how)


nobody = As(NOBODY, NOGROUP)
operator = As(NOBODY, NOGROUP, OPERATORS)


def mode(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


def code(call, *args):
    """The errno's name, or None when it works."""
    try:
        call(*args)
    except OSError as e:
        return NAMES[e.errno]
    return None


@pytest.fixture(scope="module")
def m():
    """Private, as it is by default; the others are mounts of the same store."""
    with Mount() as mount:
        mount.take("one")
        mount.settled(["one"])
        yield mount


def test_by_default_all_is_private(m):
    for path, wanted in {".": 0o700, ".control": 0o700, ".import": 0o700, "one": 0o700, "one/pending": 0o700, "one/state.json": 0o400,
                         "one/meta.json": 0o600, "one/checkpoint.json": 0o400, f"one/pending/{CALL}.json": 0o400, "one/status": 0o400,
                         "one/restore": 0o600, ".control/prune": 0o600, ".control/events.jsonl": 0o400, ".control/connection_uri": 0o400,
                         ".by-id": 0o700, "latest": 0o777}.items():
        assert mode(m / path) == wanted, path
    assert "Permission denied" in nobody(f"ls {m.root}").stderr  # the kernel lets nobody else in without allow_other
    with Second(m, "-o", "allow_other") as other:
        for path in ("", ".control/connection_uri", "one/state.json"):
            assert "Permission denied" in nobody(f"ls -l {other.root}/{path} && cat {other.root}/{path}").stderr, path


def test_owner_and_modes_by_option(m):
    with Second(m, "-o", f"allow_other,uid={NOBODY},gid=nogroup,umask=027") as other:
        for path, wanted in {".": 0o750, "one": 0o750, ".import": 0o750, "one/state.json": 0o440, "one/transcript.md": 0o440, "one/meta.json": 0o640,
                             "one/restore": 0o640, f"one/pending/{CALL}.json": 0o440, ".control/connection_uri": 0o400, "latest": 0o777}.items():
            st = os.lstat(other / path)
            assert (stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid) == (wanted, NOBODY, NOGROUP), path
        assert nobody(f"cat {other.root}/one/state.json").stdout == STATE.read_text()
        config = other.read(".control/config")
        assert f"uid: {NOBODY}\ngid: {NOGROUP}\numask: 027\n" in config and "role: operator\n" in config


def test_the_connection_string_is_nobody_elses_whatever_the_umask(m):
    with Second(m, "-o", "allow_other,umask=0") as other:
        assert mode(other / ".control/connection_uri") == 0o400 and mode(other / "one/state.json") == 0o444 and mode(other / "one") == 0o777
        assert nobody(f"cat {other.root}/one/state.json").returncode == 0
        assert "Permission denied" in nobody(f"cat {other.root}/.control/connection_uri").stderr


@pytest.mark.parametrize("option, says", [
    ("role=king", "operator, agent and viewer"), ("role=", "operator, agent and viewer"), ("umask=8", "octal"), ("umask=1000", "octal"),
    ("umask=", "octal"), ("uid=nobody-at-all", "no such user"), ("uid=-1", "no such user"), ("uid=4294967295", "no such user"),
    ("gid=no-such-group", "no such group"), ("operators=no-such-group", "no such group"), ("operators=", "no such group")])
def test_a_wrong_option_is_said(option, says, tmp_path):
    done = subprocess.run([BINARY, "-f", f"--local={tmp_path}/d", "-o", option, tmp_path], capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 1 and option in done.stderr and says in done.stderr and done.stderr.count("\n") == 1


# ---- roles

CONTROLS = [("one/restore", "dry-run"), ("one/resume", "approve"), ("one/replay", "in-place approve"), ("one/cancel", "cancel"),
            (".control/prune", "keep-last=1"), (".control/undo", "undo"), (".control/adopt", "adopt x")]


@pytest.mark.parametrize("role", ["agent", "viewer"])
def test_no_control_file_opens_and_the_result_says_why(m, role):
    with Second(m, "-o", f"role={role}") as other:
        assert f"role: {role}\n" in other.read(".control/config")
        for path, command in CONTROLS:
            assert other.echo(path, command) == "EPERM", path
            result = other.json(f"{os.path.dirname(path)}/result")
            assert (result["state"], result["errno"]) == ("refused", "EPERM") and f"role={role}" in result["message"], (path, result)
            assert code(os.truncate, other / path, 0) == "EPERM", path
            assert code(os.close, os.open(other / path, os.O_RDONLY)) is None, path
        event = other.events()[-1]
        assert (event["event"], event["errno"], event["by"]["uid"]) == ("command.refused", "EPERM", 0) and f"role={role}" in event["message"]


def test_an_agent_takes_checkpoints(m):
    with Second(m, "-o", "role=agent") as other:
        other.take("taken", meta={"reason": "it may"})
        assert other.status("taken").startswith("waiting") and other.json("taken/meta.json")["reason"] == "it may"
        (other / "taken/meta.json").write_text('{"reason": "again"}')
        assert other.json("taken/meta.json")["reason"] == "again"
        assert code(os.rename, other / "taken", other / "renamed") == "EPERM"
        assert code(os.mkdir, other / ".import/x") == "EPERM" and code(lambda: open(other / ".import/x", "w")) == "EPERM"
        assert other.read("taken/state.json") == STATE.read_text()


@pytest.mark.parametrize("how", ["write", "rename"])
def test_an_agent_lets_go_of_no_snapshot(m, how):
    """How long a snapshot is kept is for operators, but in a take of an agent's own before its seal."""
    def put(name, text):
        if how == "write":
            return code((other / name / "meta.json").write_text, text)
        (other / name / "meta.json.tmp").write_text(text)
        return code(os.rename, other / name / "meta.json.tmp", other / name / "meta.json")

    kept, bare, own = f"kept-{how}", f"bare-{how}", f"own-{how}"
    m.take(kept, meta={"pin": True, "a": 1})
    os.mkdir(m / bare)
    m.wait(bare)
    with Second(m, "-o", "role=agent") as other:
        for name, text, field in ((kept, '{"a": 1}', "pin"), (kept, '{"pin": true, "expires_at": "2031-01-01T00:00:00Z"}', "expires_at"),
                                  (kept, '{"pin": false}', "pin"), (bare, '{"expires_at": "2031-01-01T00:00:00Z"}', "expires_at")):
            assert put(name, text) == "EPERM", (name, text)
            result = other.result(name)
            assert result["errno"] == "EPERM" and f'"{field}" is for operators' in result["message"] and "role=agent" in result["message"], result
        assert put(kept, '{"pin": true, "a": 2}') is None and other.json(f"{kept}/meta.json") == {"pin": True, "a": 2}
        os.mkdir(other / own)
        other.wait(own)
        assert put(own, '{"pin": true, "expires_at": "2031-01-01T00:00:00Z"}') is None
        (other / own / "state.json").write_text("{}")
        wait_until(lambda: other.status(own).startswith("saved, ") or (other / own / "transcript.md").exists(), DEADLINE)
        assert put(own, "{}") == "EPERM"
    wait_until(lambda: (m / own / "transcript.md").exists(), DEADLINE)
    assert m.write(f"{own}/meta.json", "{}") is None and m.write(f"{kept}/meta.json", "{}") is None


def test_a_viewer_changes_nothing(m):
    os.mkdir(m / "open")
    m.wait("open")
    with Second(m, "-o", "role=viewer") as other:
        wait_until(lambda: (other / "open").exists(), DEADLINE)
        before = [(p, os.lstat(other / p)) for p in ("one", "one/state.json", "one/meta.json")]
        refused = {
            "mkdir": lambda: os.mkdir(other / "new"), "rmdir": lambda: os.rmdir(other / "open"),
            "rename": lambda: os.rename(other / "one", other / "two"), "unlink": lambda: os.unlink(other / "one/state.json"),
            "state": lambda: open(other / "open/state.json", "w"), "meta": lambda: open(other / "one/meta.json", "w"),
            "append": lambda: open(other / "one/meta.json", "a"), "create": lambda: open(other / "open/state.tmp", "w"),
            "symlink": lambda: os.symlink("x", other / "s"), "link": lambda: os.link(other / "one/state.json", other / "l"),
            "chmod": lambda: os.chmod(other / "one", 0o777), "utime": lambda: os.utime(other / "one"),
            "chown": lambda: os.chown(other / "one", 1, 1), "truncate": lambda: os.truncate(other / "one/meta.json", 0),
            "import": lambda: os.mkdir(other / ".import/x"), "import file": lambda: open(other / ".import/x", "w"),
        }
        assert {what: code(call) for what, call in refused.items()} == {what: "EPERM" for what in refused}
        assert before == [(p, os.lstat(other / p)) for p, _ in before] and other.status("open") == m.status("open")
        assert shell(f"tar cf - -C {other.root} one | wc -c").stdout.strip() != "0"
    (m / "open/state.json").write_text("{}")
    m.wait("open")


# ---- operators

@pytest.fixture(scope="module")
def shared(m):
    with Second(m, "-o", f"allow_other,umask=0,operators={OPERATORS}") as other:
        yield other


def test_only_operators_write_control_files(m, shared):
    assert f"operators: {OPERATORS}\n" in shared.read(".control/config")
    refused = nobody(f"echo dry-run > {shared.root}/one/restore")
    assert refused.returncode and "Permission denied" in refused.stderr
    result = shared.result("one")
    assert (result["state"], result["errno"]) == ("refused", "EACCES") and "operators" in result["message"]
    event = shared.events_of("one", "command.refused")[-1]
    assert (event["errno"], event["by"]["uid"]) == ("EACCES", NOBODY)
    done = operator(f"echo dry-run > {shared.root}/one/restore")
    assert done.returncode == 0, done.stderr
    assert shared.result("one")["state"] != "refused"
    assert shared.echo("one/restore", "dry-run") is None  # who mounted it may, member or not


def test_only_operators_let_go_of_a_snapshot(m, shared):
    m.take("pinned", meta={"pin": True})
    wait_until(lambda: (shared / "pinned/transcript.md").exists(), DEADLINE)
    refused = nobody(f"echo '{{}}' > {shared.root}/pinned/meta.json")
    assert refused.returncode and "operators=GROUP" in shared.result("pinned")["message"]
    assert operator(f"echo '{{}}' > {shared.root}/pinned/meta.json").returncode == 0


def test_others_take_checkpoints_all_the_same(shared):
    done = nobody(f"cd {shared.root} && mkdir theirs && cat {STATE} > theirs/state.json && cat theirs/wait")
    assert done.returncode == 0, done.stderr
    assert shared.status("theirs").startswith("waiting")
    assert "Permission denied" in nobody(f"mv {shared.root}/theirs {shared.root}/mine").stderr
    assert operator(f"mv {shared.root}/theirs {shared.root}/mine").returncode == 0
    for path, command in CONTROLS:
        assert "Permission denied" in nobody(f"echo {command!r} > {shared.root}/{path.replace('one', 'mine')}").stderr, path


def test_a_group_of_many_and_a_primary_group(shared):
    assert As(NOBODY, OPERATORS)(f"echo dry-run > {shared.root}/one/restore").returncode == 0
    assert As(NOBODY, NOGROUP, *range(60000, 60100), OPERATORS)(f"echo dry-run > {shared.root}/one/restore").returncode == 0
    assert As(NOBODY, NOGROUP, *range(60000, 60100))(f"echo dry-run > {shared.root}/one/restore").returncode != 0

"""The command line: what is refused at the start, with one clear line, exit 1 and nothing left behind; and what comes up."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from emulator import BUILD, Emulator, wait_until
from llm import ROOT
from mount import STATE
from postgres import PASSWORD, Postgres
from test_local import Place, environment, place, processes, psql  # noqa: F401 (place is a fixture)

PROGRAM = BUILD / "checkpointfs"
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture(scope="module")
def neon():
    with Emulator(operation_ms=10) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def postgres():
    with Postgres() as server:
        yield server


@pytest.fixture(scope="module")
def store(postgres):
    """The connection string of the mount's role in a migrated store."""
    return migrated(postgres, "shared_store")


def migrated(postgres, name, role="checkpointfs"):
    owner = postgres.database(name)
    done = migrate(owner, *([] if role == "checkpointfs" else [f"--mount-role={role}"]))
    assert done.returncode == 0, done.stderr
    postgres.sql(f"ALTER ROLE {role} PASSWORD '{PASSWORD}'")
    return postgres.conninfo(name, role)


def migrate(owner, *options):
    return subprocess.run([PROGRAM, "migrate", f"--store={owner}", *options], env=environment(), text=True, capture_output=True)


def run(*arguments, env=None, cwd=None, **kwargs):
    return subprocess.run([PROGRAM, *arguments], env=env or environment(), text=True, timeout=120, stdin=subprocess.DEVNULL,
                          capture_output=True, cwd=cwd, **kwargs)


def refused(done, *words):
    """One line that holds all the words, exit 1."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout == ""
    assert re.fullmatch(r"checkpointfs: [^\n]+\n", done.stderr), done.stderr
    for word in words:
        assert str(word) in done.stderr
    for secret in (PASSWORD, "npg_", "napi_"):
        assert secret not in done.stderr
    return done.stderr


def neon_env(neon, store=None, **more):
    """The environment of a mount on the emulator, without NEON_BRANCH_ID and DATABASE_URL."""
    env = {k: neon.env[k] for k in ("NEON_API_HOST", "NEON_API_KEY", "NEON_PROJECT_ID")}
    return environment(**env, **({"CHECKPOINTFS_STORE": store} if store else {}), **more)


def left(place):
    return processes(place.base)


# ---- the command line itself


def test_nothing_configured(place):
    for arguments in ([], [place.mountpoint("m")]):
        refused(run(*arguments), "--local=DIR", "NEON_API_KEY", "NEON_PROJECT_ID", "--store")


@pytest.mark.parametrize("given, missing", [
    ({"NEON_API_KEY": "napi_x"}, ["NEON_PROJECT_ID", "--store", "CHECKPOINTFS_STORE"]),
    ({"NEON_API_KEY": "napi_x", "NEON_PROJECT_ID": "p"}, ["--store", "CHECKPOINTFS_STORE"]),
    ({"NEON_PROJECT_ID": "p", "CHECKPOINTFS_STORE": "dbname=x"}, ["NEON_API_KEY"]),
    ({"CHECKPOINTFS_STORE": "dbname=x"}, ["NEON_API_KEY", "NEON_PROJECT_ID"]),
])
def test_incomplete_names_what_is_missing(place, given, missing):
    line = refused(place.run(env=environment(**given)), *missing)
    for name in given:
        assert name not in line


@pytest.mark.parametrize("arguments, words", [
    (["--local=d"], ["mountpoint is missing", "--help"]),
    (["--bogus", "m"], ["`--bogus` is not known", "--help"]),
    (["--stroe=postgresql://u:sesame@h/d", "m"], ["`--stroe` is not known"]),
    (["-x", "m"], ["`-x` is not known"]),
    (["--help=me"], ["`--help` takes no value"]),
    (["--store"], ["`--store` lacks its value"]),
    (["--local=d", "m", "-o"], ["`-o` lacks its value"]),
    (["--local=d", "m", "n"], ["`n` is one too many"]),
    (["--local=d", "--store=e", "m"], ["--local has a store of its own"]),
    (["--local=d", "-o", "frobnicate", "m"], ["`frobnicate`", "mount.fuse3"]),
    (["--local=d", "-o", "role=king", "m"], ["role=king", "operator, agent and viewer"]),
    (["migrate"], ["--store=OWNER_CONNINFO"]),
    (["migrate", "--store=dbname=x", "m"], ["migrate takes no mountpoint"]),
    (["--local=d", "--env-file=gone", "--config=gone.ini", "m"], ["gone.ini", "No such file"]),
    (["--store=d", "--env-file=gone", "m"], ["gone", "--env-file", "No such file"]),
])
def test_command_lines_that_are_refused(place, arguments, words):
    place.mountpoint("m")
    line = refused(run(*arguments, cwd=place.base), *words)
    assert "sesame" not in line
    assert sorted(os.listdir(place.base)) == ["m"], "nothing was made"


VALUED = ("local", "store", "config", "env-file", "resume", "mount-role")


@pytest.mark.parametrize("name", VALUED)
@pytest.mark.parametrize("how", ["--{}=", "-o{}="])
def test_an_empty_value_is_a_variable_that_is_not_set(place, name, how):
    """`--local=$DIR` with DIR unset made its servers in the current directory; an empty resume command can't be run."""
    place.mountpoint("m")
    others = [] if name in ("local", "store") else ["--local=d"]
    refused(run(*others, how.format(name), "m", cwd=place.base), f"`--{name}` lacks its value", "--help")
    assert sorted(os.listdir(place.base)) == ["m"], "nothing was made"


def test_every_option_with_a_value_is_among_them():
    told = set(re.findall(r"^  --([a-z-]+)=", run("--help").stdout, re.MULTILINE))
    assert told | {"mount-role"} == set(VALUED)


def test_help_and_version():
    shown = run("--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    for word in ("--local=DIR", "--store=CONNINFO", "--config=FILE", "--resume=COMMAND", "--env-file", "NEON_API_KEY", "migrate", "fusermount3"):
        assert word in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 130
    assert run("-h").stdout == shown.stdout
    version = re.search(r'"(.*)"', (ROOT / "include" / "version.h").read_text())[1]
    for option in ("-V", "--version"):
        assert run(option).stdout == f"checkpointfs {version}\n"


# ---- the mountpoint


def test_mountpoints_that_are_refused(place):
    (place.base / "file").touch()
    full = place.mountpoint("full")
    (full / "something").touch()
    for name, words in {"gone": ["No such file"], "file": ["not a directory"], "full": ["not empty"]}.items():
        refused(run(f"--local={place.local}", place.base / name), place.base / name, *words)
    refused(run(f"--local={place.local}", "/proc"), "mounted on /proc already")
    assert not left(place) and not place.local.exists()


@pytest.mark.parametrize("option", ["--local={}", "--store={}"])
@pytest.mark.parametrize("dir", ["m", "m/data/deep", "./m", "../{base}/m/", "link", "link/data"])
def test_a_mountpoint_that_would_hide_its_own_files(place, neon, option, dir):
    """It hung, with the servers' keeper in an uninterruptible sleep."""
    path = place.mountpoint("m")
    (place.base / "link").symlink_to("m")
    env = neon_env(neon) if "store" in option else None
    refused(run(option.format(dir.format(base=place.base.name)), "m", cwd=place.base, env=env), "below the mountpoint", path, "another directory")
    assert not os.path.ismount(path) and not os.listdir(path) and not left(place)


def test_a_mountpoint_in_its_dir(place):
    place.local.mkdir()
    path = place.mount(name="local/m")
    assert (path / ".control" / "health").read_text().startswith("neon: LOCAL EMULATOR\n")


def test_a_mountpoint_in_use_and_a_dead_one(place):
    path = place.mount()
    refused(place.run(f"--local={place.local}"), "mounted on", path, f"fusermount3 -u {path}")
    os.kill(place.mount_pid("m"), signal.SIGKILL)
    wait_until(lambda: not processes(PROGRAM.name, path))
    with pytest.raises(OSError, match="not connected|connection abort"):
        os.listdir(path)
    done = run(f"--local={place.local}", path)
    assert done.returncode == 0 and os.path.ismount(path), done.stderr
    assert (path / ".control" / "health").read_text().startswith("neon: LOCAL EMULATOR\n")
    assert Path("/proc/mounts").read_text().count(str(path)) == 1, "the dead one is gone from below"


def test_two_mounts_that_start_at_once_on_one_mountpoint(place):
    path = place.mountpoint("m")
    both = [subprocess.Popen([PROGRAM, f"--local={place.local}", path], env=environment(), stdin=subprocess.DEVNULL,
                             stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = {p.communicate(timeout=120)[1] for p in both}
    assert sorted(p.returncode for p in both) == [0, 1], said
    assert any(str(path) in text and ("being started" in text or "mounted on" in text) for text in said), said
    assert Path("/proc/mounts").read_text().count(f"{path} ") == 1


@as_root
@pytest.mark.parametrize("prepare, words", [
    ("mount -t tmpfs none /dev && mknod /dev/null c 1 3", ["/dev/fuse is missing", "mknod"]),
    ("mount -t tmpfs -o nodev none /dev && mknod /dev/fuse c 10 229 && cd /", ["/dev/fuse can't be opened", "container"]),
])
def test_without_dev_fuse(place, prepare, words):
    """In a mount namespace of its own, so that this machine keeps its /dev."""
    script = f'{prepare} && exec "$@"'
    done = subprocess.run(["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", PROGRAM, f"--local={place.local}",
                           place.mountpoint("m")], env=environment(), text=True, capture_output=True, stdin=subprocess.DEVNULL)
    refused(done, *words)
    assert not left(place) and not place.local.exists()
    assert os.path.exists("/dev/fuse")


# ---- the store


def test_a_store_that_is_not_there(place, neon):
    closed = Postgres()  # never started: nobody listens
    env = neon_env(neon)
    try:
        refused(place.run(f"--store={closed.conninfo()}", env=env), "store can't be reached", "127.0.0.1", closed.port, "refused")
        refused(place.run("--store=host=/nowhere dbname=x", env=env), "store can't be reached", "/nowhere")
        refused(place.run("--store=host=127.0.0.1 bogus=1", env=env), "connection string")
    finally:
        shutil.rmtree(closed.base)
    assert not left(place)


def test_a_store_without_the_schema(place, neon, postgres):
    owner = postgres.database("bare")
    refused(place.run(env=neon_env(neon, owner)), "no checkpointfs schema", "checkpointfs migrate --store=OWNER_CONNINFO")
    assert postgres.sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'checkpointfs'", owner) == "0", "a mount changes no store"


def test_what_cant_be_loaded_is_no_empty_mount(place, neon, postgres):
    """A backup with rsync --delete would take it for an empty store."""
    role = "halfway_mount"
    mount, owner = migrated(postgres, "halfway", role), postgres.conninfo("halfway", "halfway_owner")
    postgres.sql(f"REVOKE SELECT ON checkpointfs.outputs FROM {role}", owner)
    refused(place.run(env=neon_env(neon, mount, NEON_BRANCH_ID=neon.env["NEON_BRANCH_ID"], DATABASE_URL=neon.env["DATABASE_URL"])),
            "permission denied", "outputs")
    assert not left(place)


def test_older_and_newer_schemas(place, neon, postgres):
    mount = migrated(postgres, "versions")
    owner = postgres.conninfo("versions", "versions_owner")
    postgres.sql("UPDATE checkpointfs.schema_version SET version = version + 999", owner)
    refused(place.run(env=neon_env(neon, mount)), "version", "use a newer checkpointfs")
    refused(migrate(owner), "use a newer checkpointfs")
    postgres.sql("DELETE FROM checkpointfs.schema_version", owner)
    refused(place.run(env=neon_env(neon, mount)), "checkpointfs migrate")


def test_a_wrong_password_and_a_database_of_another_encoding(place, neon, postgres, store):
    refused(place.run(env=neon_env(neon, store.replace(PASSWORD, "wrong"))), "password authentication failed")
    latin = postgres.database("latin", encoding="LATIN1")
    refused(migrate(latin), "LATIN1", "UTF8")


def test_migrate_makes_the_schema_and_the_role(place, neon, postgres):
    owner = postgres.database("fresh")
    for _ in range(2):
        done = migrate(owner, "--mount-role=fresh mount")
        assert (done.returncode, done.stdout) == (0, "the store is ready; mount with role fresh mount\n"), done.stderr
    postgres.sql(f"ALTER ROLE \"fresh mount\" PASSWORD '{PASSWORD}'")
    mount = postgres.conninfo("fresh", "fresh%20mount")
    path = place.mountpoint("m")
    assert place.run(env=neon_env(neon, mount)).returncode == 0
    (path / "one").mkdir()
    (path / "one" / "state.json").write_bytes(STATE.read_bytes())
    wait_until(lambda: (path / "one" / "status").read_text() == "waiting (1 call)\n")
    assert postgres.sql("SELECT tool FROM checkpointfs.pending_calls", mount) == "drop_users_table"
    for statement in ("UPDATE checkpointfs.events SET bytes = ''", "DELETE FROM checkpointfs.events", "TRUNCATE checkpointfs.actions",
                      "DELETE FROM checkpointfs.decisions", "CREATE TABLE checkpointfs.t ()", "DROP TABLE checkpointfs.events"):
        denied = postgres.psql(statement, mount)
        assert denied.returncode and re.search("denied|must be owner", denied.stderr), statement


def test_migrate_by_an_owner_who_makes_no_roles(place, neon, postgres):
    owner = postgres.database("modest")
    postgres.sql("ALTER ROLE modest_owner NOCREATEROLE")
    refused(migrate(owner, "--mount-role=modest_mount"), "modest_mount", "CREATE ROLE modest_mount LOGIN")
    postgres.sql("CREATE ROLE modest_mount LOGIN")
    assert migrate(owner, "--mount-role=modest_mount").returncode == 0
    assert migrate(owner, "--mount-role=modest_owner").returncode == 0
    assert place.run(env=neon_env(neon, owner)).returncode == 0, "the owner may mount, too"


def test_migrate_needs_the_owner(postgres, store):
    refused(migrate(store), "owner of the database")


# ---- Neon


def test_a_wrong_key_an_unknown_project_and_nobody_there(place, neon, postgres):
    mount = migrated(postgres, "neon_checks")
    for name, value, words in (
            ("NEON_API_KEY", "wrong-key-3141", ["401", "check NEON_API_KEY"]),
            ("NEON_PROJECT_ID", "no-such-project", ["404", "no-such-project", "NEON_PROJECT_ID"]),
            ("NEON_API_HOST", "http://127.0.0.1:9/api/v2", ["127.0.0.1:9", "NEON_API_HOST"]),
            ("NEON_BRANCH_ID", "br-no-such-1", ["br-no-such-1", "NEON_BRANCH_ID", neon.project])):
        line = refused(place.run(env=neon_env(neon, mount) | {name: value}), *words)
        assert "wrong-key-3141" not in line
    assert not left(place)


def test_a_wrong_key_is_refused_also_where_the_store_knows_the_line(place, neon, store):
    path = place.mount(env=neon_env(neon, store), *["-o", "rw"])
    place.unmount(path)
    wait_until(lambda: not left(place))
    refused(place.run(env=neon_env(neon, store, NEON_BRANCH_ID=neon.env["NEON_BRANCH_ID"]) | {"NEON_API_KEY": "wrong"}), "401", "NEON_API_KEY")
    done = place.run(env=neon_env(neon, store) | {"NEON_API_HOST": "http://127.0.0.1:9/api/v2"})
    assert done.returncode == 0, "with Neon down it comes up"
    assert "Neon can't be asked now" in done.stderr


def test_child_branches_and_stores_in_the_project_are_refused(place, neon, postgres, store):
    parent = neon.default_branch()["id"]
    child = neon.ok("POST", "/projects/{p}/branches", {"branch": {"parent_id": parent, "name": "kid"}})["branch"]["id"]
    refused(place.run(env=neon_env(neon, store, NEON_BRANCH_ID=child)), child, parent, "root branches", "NEON_BRANCH_ID")
    assert migrate(neon.url, "--mount-role=neondb_owner").returncode == 0
    refused(place.run(env=neon_env(neon, neon.url)), "store is in project", neon.project, "roll it back")


def test_several_databases_or_roles_and_none_named(place, postgres):
    mount = migrated(postgres, "several")
    with Emulator(operation_ms=10) as neon:
        branch = neon.env["NEON_BRANCH_ID"]
        neon.ok("POST", f"/projects/{{p}}/branches/{branch}/databases", {"database": {"name": "other", "owner_name": "neondb_owner"}})
        refused(place.run(env=neon_env(neon, mount)), "2 databases", "DATABASE_URL")
        neon.ok("POST", f"/projects/{{p}}/branches/{branch}/roles", {"role": {"name": "second"}})
        refused(place.run(env=neon_env(neon, mount)), "2 roles", "DATABASE_URL")
        refused(place.run(env=neon_env(neon, mount, DATABASE_URL="not a url")), "DATABASE_URL", "postgresql://")
        for wrong in ("postgresql://stranger@h/other", "postgresql://second@h/elsewhere"):
            refused(place.run(env=neon_env(neon, mount, DATABASE_URL=wrong)), "DATABASE_URL", "not found")
        path = place.mountpoint("m")
        done = place.run(env=neon_env(neon, mount, DATABASE_URL=neon.url.replace("/neondb?", "/other?")))
        assert done.returncode == 0, done.stderr
        assert "/other" in (path / ".control" / "connection_uri").read_text()


def test_a_store_of_ones_own_and_a_private_one(place, neon, store):
    """--store=DIR says that only this machine sees it; its log is in DIR."""
    done = place.run(f"--store={place.local}", env=neon_env(neon), name="private")
    assert done.returncode == 0 and "private to this machine" in done.stderr, done.stderr
    health = (place.base / "private" / ".control" / "health").read_text()
    assert health.startswith(f"neon: {neon.project}\n")
    assert (place.local / "checkpointfs.log").exists()
    done = place.run(env=neon_env(neon, store), name="shared")
    assert (done.returncode, done.stderr) == (0, "")
    assert "a PostgreSQL of yours" in (place.base / "shared" / ".control" / "config").read_text()


# ---- files of the configuration


def config(path):
    return dict(line.split(": ", 1) for line in (path / ".control" / "config").read_text().splitlines())


def test_precedence(place, neon, store):
    """Command line, environment, --env-file, INI file."""
    env_file, ini = place.base / ".env", place.base / "c.ini"
    env_file.write_text(f"# what dotenv writes\n\nexport NEON_API_HOST={neon.host}   # a comment\nNEON_PROJECT_ID='{neon.project}'\n"
                        f' NEON_API_KEY = "{neon.key}" # quoted\r\nNEON_BRANCH_ID=\nOTHER=1\nno assignment\n'
                        f"CHECKPOINTFS_STORE=host=/nowhere dbname=from-env-file\n")
    ini.write_text("; comment\n[neon]\nproject_id = from-ini\napi_host = http://127.0.0.1:9/\ndeadline = 90s\n# comment\n"
                   "[store]\nconninfo = dbname=from-ini\n[resume]\ncommand = from-ini; 'x' # y " + "z" * 400 + "\n")
    path = place.mountpoint("m")
    files = [f"--env-file={env_file}", f"--config={ini}"]
    done = place.run(*files, env=environment(CHECKPOINTFS_STORE=store))
    assert done.returncode == 0, done.stderr
    assert config(path)["neon_deadline_ms"] == "90000"
    assert config(path)["project_id"] == neon.project
    assert config(path)["resume_command"] == "from-ini; 'x' # y " + "z" * 400
    place.unmount(path)
    wait_until(lambda: not left(place))
    done = place.run(*files, "--resume=one", "--resume=two", f"--store={store}",
                     env=environment(CHECKPOINTFS_STORE="host=/nowhere dbname=x", CHECKPOINTFS_CONFIG="/gone.ini"))
    assert done.returncode == 0, done.stderr
    assert config(path)["resume_command"] == "two", "the last one counts"


@pytest.mark.parametrize("text, words", [
    ("[neon]\nbranch = x\n", ["[neon] branch", "[neon] branch_id", "[resume] command"]),
    ("[nein]\ndeadline = 1m\n", ["[nein] deadline"]),
    ("deadline = 1m\n", ["[] deadline"]),
    ("[neon]\ndeadline = soon\n", ["deadline = soon", "90s"]),
    ("[neon]\ndeadline = -5\n", ["deadline = -5"]),
    ("[neon]\ndeadline = 10mm\n", ["deadline = 10mm"]),
    ("[neon]\ndeadline = \n", ["deadline = "]),
    ("[neon]\napi_key = napi_secret\n", ["NEON_API_KEY", "--env-file"]),
    ("[neon]\nproject_id\n", ["c.ini:2", "name = value"]),
])
def test_ini_files_that_are_refused(place, text, words):
    (place.base / "c.ini").write_text(text)
    refused(place.run(f"--local={place.local}", f"--config={place.base}/c.ini"), "c.ini", *words)
    assert not place.local.exists()


def test_local_looks_at_nothing_else(place):
    """The user's environment and a shared INI file may be about another Neon."""
    (place.base / "c.ini").write_text("[neon]\nproject_id = other\nbranch_id = br-other\napi_host = http://127.0.0.1:9\n"
                                      "[store]\nconninfo = dbname=other\n[resume]\ncommand = true\n")
    env = environment(NEON_API_KEY="napi_other", NEON_PROJECT_ID="other", NEON_BRANCH_ID="br-x", CHECKPOINTFS_STORE="dbname=other",
                      DATABASE_URL="postgresql://nobody@nowhere/none", NEON_API_HOST="http://127.0.0.1:9", PGUSER="nobody", PGHOST="/nowhere")
    path = place.mount(f"--local={place.local}", env=env | {"CHECKPOINTFS_CONFIG": str(place.base / "c.ini")})
    assert config(path)["resume_command"] == "true"
    assert (path / ".control" / "health").read_text().startswith("neon: LOCAL EMULATOR\nneon_api: reachable\n")


# ---- coming up


def test_it_returns_when_the_mount_answers(place):
    """Also into a pipe: nobody holds on to it."""
    done = place.run(f"--local={place.local}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (place.base / "m" / ".control" / "version").read_text() + "" != ""
    pid = place.mount_pid("m")
    assert os.getsid(pid) == pid and os.readlink(f"/proc/{pid}/cwd") == "/"
    assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1)} == {"/dev/null"}


@as_root
def test_mount_t_fuse_checkpointfs(place):
    """As fstab does: mount.fuse3 runs the program with SRC DIR -o options. (PATH isn't passed on, hence the form PROGRAM#SRC.)"""
    path = place.mountpoint("m")
    line = ["mount", "-t", "fuse", f"{PROGRAM}#checkpointfs", path, "-o", f"local={place.local},allow_other,umask=022,noatime,_netdev,x-test=1"]
    done = subprocess.run(line, env=environment(), text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    mounted = next(l.split() for l in Path("/proc/mounts").read_text().splitlines() if str(path) in l)
    assert mounted[0] == "checkpointfs" and mounted[2] == "fuse.checkpointfs"
    assert {"allow_other", "noatime", "default_permissions"} <= set(mounted[3].split(","))
    seen = subprocess.run(["cat", path / ".control" / "version"], user=NOBODY, group=NOBODY, capture_output=True)
    assert seen.returncode == 0
    for secret in (".control/connection_uri",):
        assert subprocess.run(["cat", path / secret], user=NOBODY, group=NOBODY, capture_output=True).returncode, secret


def test_read_only(place):
    path = place.mount()
    (path / "kept").mkdir()
    (path / "kept" / "state.json").write_bytes(STATE.read_bytes())
    (path / "database_only").mkdir()
    wait_until(lambda: (path / "kept" / "status").read_text() == "waiting (1 call)\n")
    other = place.mount(f"--local={place.local}", "-o", "ro", name="ro")
    assert sorted(n for n in os.listdir(other) if n[0] != ".") == ["kept", "latest"]
    assert (other / "kept" / "state.json").read_bytes() == STATE.read_bytes()
    with pytest.raises(OSError, match="Read-only"):
        (other / "new").mkdir()
    with pytest.raises(OSError, match="Read-only"):
        (other / "kept" / "restore").write_text("in-place\n")


@as_root
def test_a_user_who_is_not_root(place):
    """PostgreSQL and the mount run as that user; a dead mount is detached by fusermount3. In a mount namespace of its own, where
    /dev/fuse is for everybody, as it is on most machines."""
    path = place.mountpoint("m")
    os.chown(place.base, NOBODY, NOBODY)
    os.chown(path, NOBODY, NOBODY)
    script = f"""
        awk '$3 ~ /^fuse[.]/ {{ print $2 }}' /proc/mounts | xargs -r -n 1 umount -l  # else those mounts of other tests live on here
        mount -t tmpfs none /mnt && mknod -m 666 /mnt/fuse c 10 229 && mount --bind /mnt/fuse /dev/fuse || exit 9
        cat >/mnt/session <<'END'
            set -e
            {PROGRAM} --local={place.local} {path}
            cd {path}; mkdir one; cp {STATE} one/state.tmp; mv one/state.tmp one/state.json; cat one/status; cd /
            ps -ww -o user= -C postgres,neon-emulator,checkpointfs -o args= | grep {place.base} | cut -d' ' -f1 | sort -u
            kill -KILL $(ps -ww -o pid= -o args= -C checkpointfs | grep {path} | grep -v keeper | awk '{{print $1}}')
            until ! ls {path} >/dev/null 2>&1; do :; done
            {PROGRAM} --local={place.local} {path}
            cat {path}/one/status
            fusermount3 -u {path}
            if {PROGRAM} --local={place.local} -o allow_other {path}; then exit 8; fi
END
        setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups bash /mnt/session"""
    done = subprocess.run(["unshare", "-m", "--propagation", "private", "bash", "-c", script], env=environment(), text=True,
                          capture_output=True, stdin=subprocess.DEVNULL, timeout=120)
    assert (done.returncode, done.stdout) == (0, "waiting (1 call)\nnobody\nwaiting (1 call)\n"), done.stdout + done.stderr
    assert "user_allow_other" in done.stderr and "can't mount on" in done.stderr

"""neon-emulator as a process: start, stop, kill -9 at any moment, its directory, its key, its command line."""

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from emulator import BINARY, Emulator, scratch, wait_until
from postgres import free_port

AS_ROOT = os.geteuid() == 0


def run(*arguments, **environ):
    return subprocess.run(
        [BINARY, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={k: v for k, v in os.environ.items() if not k.startswith("NEON_")} | environ,
    )


def data_of(neon):
    return {kind: sorted(d.name for d in (neon.data / kind).iterdir()) for kind in ("branches", "snapshots")}


def expected_data(neon):
    return {"branches": sorted(b["id"] for b in neon.branches()), "snapshots": sorted(s["id"] for s in neon.snapshots())}


# -- start and stop


def test_a_restart_changes_nothing():
    with Emulator(operation_ms=5) as neon:
        neon.sql("create table t as select 7 as n")
        snapshot = neon.snapshot("kept")
        preview = neon.ok("POST", f"/projects/{{p}}/snapshots/{snapshot['id']}/restore")["branch"]["id"]
        asleep = neon.ok("POST", "/projects/{p}/branches", {"branch": {"name": "asleep"}, "endpoints": [{"type": "read_write"}]})
        neon.ok("POST", f"/projects/{{p}}/endpoints/{asleep['endpoints'][0]['id']}/suspend")
        wait_until(lambda: "full_size" in neon.snapshots()[0])

        def view():
            return [
                neon.api("GET", f"/projects/{{p}}{p}").json for p in ("", "/branches", "/snapshots", "/endpoints", "/operations")
            ]

        before, env, uri = view(), neon.env, neon.uri(preview)
        assert neon.stop() == 0
        assert not neon.postgres_pids()
        with socket.socket() as s:
            assert s.connect_ex(("127.0.0.1", int(uri.split(":")[3].split("/")[0]))) != 0
        neon.start()
        assert neon.env == env, "key, ports, ids"
        assert view() == before
        assert neon.sql("select n from t") == "7" and neon.sql("select n from t", uri) == "7"
        assert [e["current_state"] for e in neon.endpoints()].count("idle") == 1


def test_ports_lie_outside_the_outgoing_range():
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    with Emulator() as neon:
        for port in (int(neon.host.split(":")[2].split("/")[0]), int(neon.endpoints()[0]["host"].split(":")[1])):
            assert not low <= port <= high


def test_the_first_start_ended_half_way():
    """Whenever the first start is killed, the next one makes the project, or finds it."""
    neon = Emulator(operation_ms=5)
    try:
        for wait in (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4):
            process = subprocess.Popen([BINARY, f"--data={neon.data}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(wait)
            process.kill()
            process.wait()
        neon.start()
        assert neon.sql("select 1") == "1"
        assert [b["name"] for b in neon.branches()] == ["main"]
        wait_until(lambda: data_of(neon) == expected_data(neon))
    finally:
        neon.close()


def test_ctrl_c_and_hangup():
    with Emulator() as neon:
        neon.process.send_signal(signal.SIGHUP)
        assert neon.api("GET", "/projects/{p}").status == 200
        sessions = set(neon.of_postgres(os.getsid).values())
        assert sessions and os.getsid(neon.process.pid) not in sessions, "of their own: Ctrl-C doesn't reach them"
        neon.process.send_signal(signal.SIGINT)
        assert neon.process.wait(60) == 0
        assert not neon.postgres_pids()


def test_a_stop_in_the_middle_of_an_operation():
    """Time that an operation only waits for is cut short; its work is done."""
    with Emulator(operation_ms=60000) as neon:
        neon.sql("create table t as select 1 as n")
        branch = neon.default_branch()["id"]
        answer = neon.api("POST", f"/projects/{{p}}/branches/{branch}/snapshot", query={"name": "cut short"}).json
        assert [o["status"] for o in answer["operations"]] == ["running", "scheduling"]
        assert neon.stop() == 0
        neon.options = ["--operation-ms=0"]
        neon.start()
        assert {o["status"] for o in neon.outcome(answer["operations"])} == {"finished"}
        assert [s["name"] for s in neon.snapshots()] == ["cut short"]
        neon.ok("POST", f"/projects/{{p}}/snapshots/{answer['snapshot']['id']}/restore", {"finalize_restore": True})
        assert neon.sql("select n from t") == "1"


def test_a_second_emulator_is_refused():
    with Emulator() as neon:
        second = run(f"--data={neon.data}")
        assert second.returncode == 1 and "another neon-emulator is using it" in second.stderr
        assert len(second.stderr.splitlines()) == 1
        assert neon.sql("select 1") == "1"


# -- kill -9


def test_servers_left_by_a_kill_are_adopted():
    with Emulator(operation_ms=5) as neon:
        pid = neon.sql("select pg_backend_pid()")
        started = neon.sql("select pg_postmaster_start_time()")
        neon.kill9()
        assert neon.postgres_pids() and pid
        assert neon.sql("select 1") == "1", "it serves on"
        neon.start()
        assert neon.sql("select pg_postmaster_start_time()") == started
        assert neon.stop() == 0
        assert not neon.postgres_pids()


@pytest.mark.parametrize("seed", range(int(os.environ.get("EMULATOR_KILLS", "12"))))
def test_a_kill_at_any_moment(seed):
    """Changes are made without end; a kill comes whenever it comes. What was settled is there, nothing is half."""
    rng = random.Random(seed)
    with Emulator("--snapshots=3", "--root-branches=4", operation_ms=rng.choice((0, 20))) as neon:
        neon.sql("create table log(n int)")
        settled, value = {}, 0
        pid = neon.process.pid
        killer = subprocess.Popen(["sh", "-c", f"sleep {rng.uniform(0.05, 1.5):.3f}; kill -9 {pid}"])
        try:
            while True:
                value += 1
                neon.sql(f"insert into log values ({value})")
                branch = neon.default_branch()["id"]
                snapshots = neon.snapshots()
                if len(snapshots) == 3:
                    victim = rng.choice(snapshots)["id"]
                    settled.pop(victim, None)
                    neon.ok("DELETE", f"/projects/{{p}}/snapshots/{victim}")
                snapshot = neon.snapshot(f"s{value}", branch)
                settled[snapshot["id"]] = value
                if rng.random() < 0.6:
                    for old in neon.branches():
                        if old["name"].startswith("main (old)") and len(neon.branches()) > 2:
                            neon.ok("DELETE", f"/projects/{{p}}/branches/{old['id']}")
                    wanted = rng.choice(list(settled))
                    neon.ok(
                        "POST",
                        f"/projects/{{p}}/snapshots/{wanted}/restore",
                        {"target_branch_id": branch, "finalize_restore": True},
                    )
        except (OSError, http.client.HTTPException, AssertionError, json.JSONDecodeError, ValueError, KeyError):
            killer.wait()
            if neon.process.poll() is None and neon.process.wait(60) is None:
                raise
        assert neon.process.returncode == -signal.SIGKILL, neon.errors()
        neon.process.stdout.close()
        neon.process = None
        neon.start()
        operations = neon.api("GET", "/projects/{p}/operations").json["operations"]
        assert {o["status"] for o in neon.outcome(operations)} <= {"finished", "failed", "cancelled"}
        wait_until(lambda: data_of(neon) == expected_data(neon))
        branches = neon.branches()
        assert sum(b["default"] for b in branches) == 1 and all(b["current_state"] == "ready" for b in branches)
        active = {e["branch_id"] for e in neon.endpoints()}
        owners = {cwd.split("/")[-1] for cwd in neon.of_postgres(lambda pid: os.readlink(f"/proc/{pid}/cwd")).values()}
        assert owners == active, "each server belongs to an endpoint"
        assert active == {neon.default_branch()["id"]} and neon.url == neon.uri()
        int(neon.sql("select coalesce(max(n), 0) from log"))
        kept = {s["id"] for s in neon.snapshots()}
        assert set(settled) - kept == set() or len(set(settled) - kept) == 1, "a snapshot being deleted may be gone"
        for snapshot in list(kept & set(settled))[:1]:
            for old in branches:
                if not old["default"]:
                    neon.ok("DELETE", f"/projects/{{p}}/branches/{old['id']}")
            neon.ok(
                "POST",
                f"/projects/{{p}}/snapshots/{snapshot}/restore",
                {"target_branch_id": neon.default_branch()["id"], "finalize_restore": True},
            )
            assert int(neon.sql("select max(n) from log")) <= settled[snapshot]
            assert neon.sql("select count(*) from log where n = 1") == "1"


def test_a_postgres_that_was_killed_too():
    """Everything dies at once, as at a power cut."""
    with Emulator(operation_ms=5) as neon:
        neon.sql("create table t as select generate_series(1, 1000) as n")
        neon.kill9()
        # At a power cut nothing of a server is left that the next one would have to wait for.
        wait_until(lambda: not neon.of_postgres(lambda pid: os.kill(pid, signal.SIGKILL)))
        neon.start()
        assert neon.sql("select count(*) from t") == "1000"


# -- the directory, the key


@pytest.mark.skipif(not AS_ROOT, reason="only root drops to another user")
def test_a_directory_that_postgres_cannot_enter():
    with tempfile.TemporaryDirectory(dir=scratch()) as top:  # its mode is 0700
        done = run(f"--data={top}/neon")
        assert done.returncode == 1
        assert f"can't enter {top}" in done.stderr and "postgres" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_another_postgres_version_is_named():
    with Emulator() as neon:
        neon.stop()
        state = json.loads((neon.data / "state.json").read_text())
        assert 14 <= state["_pg_major"] <= 18
        (neon.data / "state.json").write_text(json.dumps(state | {"_pg_major": 13}))
        done = run(f"--data={neon.data}")
        assert done.returncode == 1 and "postgresql-13" in done.stderr
        (neon.data / "state.json").write_text(json.dumps(state))


def test_a_damaged_state_is_said():
    with Emulator() as neon:
        neon.stop()
        path = neon.data / "state.json"
        good = path.read_text()
        path.write_text(good[: len(good) // 2])
        done = run(f"--data={neon.data}")
        assert done.returncode == 1 and "state.json" in done.stderr
        assert path.read_text() == good[: len(good) // 2], "left for whoever wants to repair it"
        path.write_text(good)
        (neon.data / "state.json.new").write_text("half a st")
        neon.start()
        assert neon.sql("select 1") == "1"


def test_nobody_else_can_read_what_is_secret():
    with Emulator() as neon:
        for name in ("state.json", "api_key", "lock"):
            assert (neon.data / name).stat().st_mode & 0o077 == 0, name
        for name in ("branches", "snapshots", "log"):
            assert (neon.data / name).stat().st_mode & 0o077 == 0, name


def test_no_secret_in_logs_or_process_lists():
    with Emulator(operation_ms=5) as neon:
        branch = neon.default_branch()["id"]
        made = neon.ok("POST", f"/projects/{{p}}/branches/{branch}/roles", {"role": {"name": "secretive"}})
        neon.ok("POST", f"/projects/{{p}}/branches/{branch}/roles/secretive/reset_password")
        neon.api("GET", "/projects/{p}", headers={"Cookie": f"zenith={neon.key}; keycloak_token={neon.key}"})
        neon.api("GET", "/projects/{p}", headers={"Authorization": f"Bearer {neon.key}x"})
        neon.snapshot("s")
        secrets = [
            neon.key,
            neon.url.split(":")[2].split("@")[0],
            made["role"]["password"],
            json.loads((neon.data / "state.json").read_text())["_password"],
        ]
        texts = {p: p.read_text(errors="replace") for p in (neon.data / "log").iterdir()} | {neon.base: neon.errors()}
        texts[neon.process.pid] = Path(f"/proc/{neon.process.pid}/cmdline").read_text()
        servers = neon.of_postgres(lambda pid: Path(f"/proc/{pid}/cmdline").read_text() + Path(f"/proc/{pid}/environ").read_text())
        assert servers
        texts |= servers
        for secret in secrets:
            for where, text in texts.items():
                assert secret not in text, where


def test_where_the_key_comes_from(tmp_path):
    key_file = tmp_path / "key"
    key_file.write_text("from-a-file\n")
    with Emulator(environ={"NEON_API_KEY": "from-the-environment"}) as neon:
        assert neon.key == "from-the-environment" and neon.api("GET", "/projects/{p}").status == 200
        assert not (neon.data / "api_key").exists()
        neon.restart(f"--api-key-file={key_file}")
        assert neon.key == "from-a-file" and neon.api("GET", "/projects/{p}").status == 200
        neon.restart("--api-key=from-argv")
        assert neon.key == "from-argv"
        neon.environ = {}
        neon.restart()
        assert neon.key.startswith("napi_") and (neon.data / "api_key").read_text().strip() == neon.key


def test_the_environment_can_be_sourced(tmp_path):
    with Emulator() as neon:
        text = "".join(f"{k}='{v}'\n" for k, v in neon.env.items())
        assert list(neon.env) == ["NEON_API_HOST", "NEON_API_KEY", "NEON_PROJECT_ID", "NEON_BRANCH_ID", "DATABASE_URL"]
        done = subprocess.run(["sh", "-c", text + 'psql -XAtqc "select 1" "$DATABASE_URL"'], capture_output=True, text=True)
        assert done.stdout == "1\n", done.stderr


def test_the_port_file():
    with Emulator() as neon:
        port = int((neon.base / "port").read_text())
        assert neon.host == f"http://127.0.0.1:{port}/api/v2"
        neon.stop()
        assert not (neon.base / "port").exists()
        other = free_port()
        neon.start(f"--listen=127.0.0.1:{other}")
        assert f":{other}/" in neon.host
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            s.listen()
            neon.stop()
            done = run(f"--data={neon.data}", f"--listen=127.0.0.1:{s.getsockname()[1]}")
            assert done.returncode == 1 and "can't serve on" in done.stderr and "in use" in done.stderr
            assert not neon.postgres_pids()


# -- the command line


def test_help_and_version():
    done = run("--help")
    assert done.returncode == 0 and "METHOD:PATH=ACTION[*COUNT][@NTH]" in done.stdout
    for option in (
        "--data",
        "--listen",
        "--port-file",
        "--api-key",
        "--api-key-file",
        "--plan",
        "--operation-ms",
        "--fault",
        "--snapshots",
        "--root-branches",
        "--branches",
        "--rate-limit",
        "--lenient-names",
    ):
        assert option in done.stdout
    assert run("--version").stdout.startswith("neon-emulator ")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--data="],
        ["--nonsense"],
        ["--data=x", "extra"],
        ["--data=x", "--plan=gold"],
        ["--data=x", "--listen=nowhere"],
        ["--data=x", "--listen=127.0.0.1:99999"],
        ["--data=x", "--listen=localhost:1"],
        ["--data=x", "--operation-ms=-1"],
        ["--data=x", "--snapshots=many"],
    ],
)
def test_bad_arguments(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_bad_fault_is_refused_at_start(tmp_path):
    done = run(f"--data={tmp_path}/x", "--fault=GET:/x=melt")
    assert done.returncode == 1 and "melt" in done.stderr
    assert not os.path.exists(tmp_path / "x")

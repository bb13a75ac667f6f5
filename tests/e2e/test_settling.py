"""How an action ended is told only once the store has it: a store that refuses for a while is asked again, and nothing is done twice."""

import time

import pytest
from emulator import wait_until
from postgres import Postgres
from woken import Woken

# What an administrator's trouble looks like: a full disk, and a right that was taken away.
REFUSALS = {"full": ("attempts", "state = 'finished'", "53100"), "forbidden": ("attempts", "state = 'finished'", "42501")}


@pytest.fixture(scope="module")
def server():
    with Postgres() as p:
        yield p


@pytest.fixture(scope="module")
def owner(server):
    return server.store("settling")[0]


@pytest.fixture(scope="module")
def m(server, owner):
    with Woken(store=server.conninfo("settling", "settling_mount")) as mount:
        yield mount


def hasty(m, tmp_path):
    """From now on who writes waits for 3 s: what is taken before may take longer."""
    (tmp_path / "ini").write_text("[neon]\ndeadline = 3s\n")
    m.remount(f"--config={tmp_path / 'ini'}")


class Refusing:
    """The store refuses to write such rows."""

    def __init__(self, server, owner, table, what, code):
        self.server, self.owner, self.table, self.what, self.code = server, owner, table, what, code

    def __enter__(self):
        self.server.sql("CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no room'"
                        f" USING ERRCODE = '{self.code}'; END $$", self.owner)
        self.server.sql(f"CREATE TRIGGER refuse BEFORE UPDATE ON checkpointfs.{self.table} FOR EACH ROW WHEN (NEW.{self.what})"
                        " EXECUTE FUNCTION public.refuse()", self.owner)
        return self

    def __exit__(self, *exc):
        self.server.sql("DROP FUNCTION public.refuse() CASCADE", self.owner)


@pytest.mark.parametrize("why", REFUSALS)
def test_an_agent_that_finished_is_told_once_the_store_has_it(m, server, owner, why):
    writing = m.hold(why, "hold; echo once >> $AGENTS/$CHECKPOINT_NAME.ran")
    with Refusing(server, owner, *REFUSALS[why]):
        m.release(why)
        wait_until((m.scripts / f"{why}.ran").exists)
        time.sleep(1)
        assert writing.is_alive(), "nothing is answered that the store doesn't have"
        assert "running" in m.status(why)
    assert writing.answer() is None
    assert m.status(why) == "finished"
    assert m.left(why, "ran") == "once\n"


def test_who_writes_hears_of_the_deadline_meanwhile(m, server, owner, tmp_path):
    m.waits("late", "hold")
    hasty(m, tmp_path)
    writing = m.wake_held("late")
    with Refusing(server, owner, *REFUSALS["full"]):
        m.release("late")
        assert writing.answer() == "ETIMEDOUT"
    m.wait_status("late", "finished")
    m.remount()


def test_a_restore_too(m, server, owner, tmp_path):
    m.take("back")
    hasty(m, tmp_path)
    with Refusing(server, owner, "actions", "kind = 'restore' AND NEW.state = 'failed'", "53100"):
        m.emulator.fault("POST:/projects/*/snapshots/*/restore=op:failed")
        assert m.echo("back/restore", "in-place") == "ETIMEDOUT"
        assert not m.status("back").startswith("failed")
    wait_until(lambda: m.status("back").startswith("failed restore"))

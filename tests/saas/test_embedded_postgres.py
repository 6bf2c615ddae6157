"""The PostgreSQL that --embedded runs: what it keeps, who may do what, and what a killed process leaves behind."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg
import pytest

from saas import schema
from saas.embedded.postgres import EmbeddedPostgres, PostgresError
from tests.waiting import wait


@pytest.fixture(scope="module")
def folder():
    made = Path(tempfile.mkdtemp(prefix="fishserve-embedded-"))
    yield made
    EmbeddedPostgres(made).stop()
    shutil.rmtree(made)


def ask(url, statement):
    with psycopg.connect(url) as connection:
        return connection.execute(statement.encode()).fetchone()[0]


def test_one_that_a_killed_process_left_running_is_taken_over(folder):
    starts = f"from pathlib import Path; from saas.embedded.postgres import EmbeddedPostgres; print(EmbeddedPostgres(Path({str(folder)!r})).start(), flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", starts], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as killed:
        url = killed.stdout.readline().strip()
        with psycopg.connect(EmbeddedPostgres(folder).start()) as connection:  # while it runs, too
            connection.execute("select public.health()")
        killed.send_signal(signal.SIGKILL)
    assert EmbeddedPostgres(folder).start() == url
    assert ask(url, "select public.health() ->> 'schema_version'") == schema.version()


def test_one_that_is_killed_is_known_to_be_gone():
    folder = Path(tempfile.mkdtemp(prefix="fishserve-embedded-"))
    server = EmbeddedPostgres(folder)
    try:
        server.start()
        assert server.is_running()
        os.kill(int((folder / "data" / "postmaster.pid").read_text().splitlines()[0]), signal.SIGKILL)
        wait(lambda: not server.is_running())
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def test_what_is_stopped_keeps_what_it_knows(folder):
    server = EmbeddedPostgres(folder)
    url = server.start()
    with psycopg.connect(server.owner_url) as connection:
        connection.execute("insert into auth.users (email) values ('ann@example.com')")
    server.stop()
    with pytest.raises(psycopg.OperationalError):
        ask(url, "select 1")
    assert server.start() == url
    assert ask(server.owner_url, "select count(*) from public.profiles where email = 'ann@example.com'") == 1


def test_the_api_s_role_calls_functions_and_writes_no_table(folder):
    url = EmbeddedPostgres(folder).start()
    assert ask(url, "select public.list_packs() -> 0 ->> 'id'") == "small"
    assert ask(url, "select count(*) from public.prices") == 0  # row level security has no policy for it
    for statement in (
        "update public.profiles set plan = 'pro' returning 1",
        "select count(*) from auth.users",
        "create table public.mine ()",
        "set role postgres",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            ask(url, statement)


def test_its_log_holds_no_row(folder):
    server = EmbeddedPostgres(folder)
    server.start()
    with psycopg.connect(server.owner_url) as connection, pytest.raises(psycopg.errors.CheckViolation, match="a secret name"):
        connection.execute("insert into public.profiles (id, display_name, debt) values (gen_random_uuid(), %s, -1)", ["a secret name"])
    log = (folder / "data" / "log").read_text()
    assert "profiles_debt_check" in log
    assert "secret" not in log


def test_nobody_else_can_enter(folder):
    EmbeddedPostgres(folder).start()
    socket = next((folder / "data").glob(".s.PGSQL.*[0-9]"))
    assert (folder / "data").stat().st_mode & 0o077 == 0
    assert socket.stat().st_mode & 0o077 == 0


def test_a_folder_that_is_not_a_database_is_said(folder):
    broken = folder / "broken"
    shutil.copytree(folder / "data", broken / "data", ignore=shutil.ignore_patterns("global", ".s*", "postmaster.pid"))
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", (folder / "data").owner(), broken / "data"], check=True)
    with pytest.raises(PostgresError, match="PostgreSQL did not start"):
        EmbeddedPostgres(broken).start()

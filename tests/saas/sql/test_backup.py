"""The commands of docs/backup.md: dump, restore into a new database, and look whether the books are right there."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg
import pytest

from saas import database, schema
from tests.saas.conftest import POSTGRES, called, free_port
from tests.saas.sql.conftest import fill
from tests.waiting import HANG_SECONDS

PAGE = Path(__file__).parents[3] / "docs" / "backup.md"
NEW_SERVER = "# on a new server only"


def commands(title):
    """The lines of the page's block of shell under a heading."""
    section = PAGE.read_text(encoding="utf-8").partition(f"## {title}\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"^```sh\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    return block.splitlines()


def run(lines, folder, **variables):
    """Run them as somebody at a shell would, and stop at the first that fails."""
    paths = f"{POSTGRES}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    script = "\n".join(["set -eu", *(line for line in lines if not line.startswith("export "))])
    environment = os.environ | variables | {"PATH": paths, "PYTHONPATH": str(schema.SQL.parent)}
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=HANG_SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def content(url):
    """Every row of every table, as text."""
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "select format('%I.%I', schemaname, tablename) from pg_tables where schemaname in ('public', 'fishserve', 'auth', 'embedded') order by 1"
        ).fetchall()
        return {table: sorted(row for (row,) in connection.execute(f"select t::text from {table} t")) for (table,) in tables}


def check(old, new):
    """The new database has all the old one has, and works."""
    before, after = content(old), content(new)
    assert sum(map(len, before.values())) > 60
    assert after == before
    assert schema.migrate(new) == []
    with psycopg.connect(new, autocommit=True) as connection:
        call = lambda function, **given: called(connection, function, database.named(given))  # noqa: E731
        assert call("health") == {"schema_version": schema.version(), "rls_ok": True, "definer_ok": True, "unprotected": []}
        with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
            connection.execute("delete from public.transactions")
        for job, user in connection.execute("select id, user_id from public.jobs where status in ('queued', 'running')").fetchall():
            call("start_job", job_id=job, backend="fishserve")
            key = f"results/users/{user}/jobs/{job}.mp3"
            call("settle_job", job_id=job, seconds=1, frames=20, bytes=9, sha256="a" * 64, object_key=key)
        assert call("audit_ledger") == []
        connection.execute("set role service_role")
        assert len(call("objects_to_delete")) >= 1


def by(url):
    """Calls functions; by no name it makes a user."""

    def call(function, **given):
        with psycopg.connect(url, autocommit=True) as connection:
            if not function:
                row = connection.execute(
                    "insert into auth.users (email, email_confirmed_at) values (%s, now()) returning id", [given["email"]]
                )
                return row.fetchone()[0]
            return called(connection, function, database.named(given))

    return call


def test_a_dump_restores_into_a_new_database(data, postgres, tmp_path):
    fill(by(data.owner_url))
    run(commands("Dump"), tmp_path, FROM=data.owner_url)
    new = postgres.url("restored")
    try:
        lines = [line for line in commands("Restore") if NEW_SERVER not in line]
        assert run(lines, tmp_path, TO=new).split() == ["[]", "nothing", "was", "missing"]
        check(data.owner_url, new)
    finally:
        postgres.run("drop database if exists restored with (force)")


@pytest.mark.drill
def test_a_dump_restores_on_a_new_server(data, tmp_path):
    fill(by(data.owner_url)) if not data.sql("select 1 from profiles limit 1") else None
    run(commands("Dump"), tmp_path, FROM=data.owner_url)
    folder = Path(tempfile.mkdtemp(prefix="fishserve-restored-"))
    as_postgres = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if as_postgres:
        shutil.chown(folder, "postgres", "postgres")
    port = free_port()
    settings = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"

    def control(program, *arguments):
        command = [*as_postgres, POSTGRES / program, "-D", folder / "data", *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=HANG_SECONDS, cwd="/")

    control("initdb", "-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8")
    control("pg_ctl", "start", "-w", "-o", settings, "-l", str(folder / "log"))
    try:
        new = f"postgresql://postgres@127.0.0.1:{port}/restored"
        run(commands("Restore"), tmp_path, TO=new)
        check(data.owner_url, new)
    finally:
        control("pg_ctl", "stop", "-w", "-m", "immediate")
        shutil.rmtree(folder)

"""The files of sql/: current, in order, repeatable, and clean by Supabase's own lint and advisors."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from saas import schema
from tests.saas.sql.conftest import newer, older
from tests.waiting import HANG_SECONDS


@pytest.fixture
def empty(postgres):
    """A database that has what Supabase has and nothing of fishserve's."""
    name = "empty"
    postgres.run(f"create database {name}")
    with psycopg.connect(postgres.url(name), autocommit=True) as connection:
        connection.execute((schema.SQL / "embedded" / "0001_supabase.sql").read_bytes())
        yield connection
    postgres.run(f"drop database {name} with (force)")


def test_the_text_to_paste_is_current():
    assert schema.WHOLE.read_text(encoding="utf-8") == schema.whole(), "run: python -m saas.schema"


@pytest.mark.parametrize("file", schema.migrations(), ids=lambda file: file.stem)
def test_a_migration_writes_its_own_name(file):
    assert file.read_text(encoding="utf-8").endswith(f"insert into fishserve.migrations (name) values ('{file.stem}');\n")


def test_migrations_are_only_ever_added():
    """A database somewhere has been made with each. What changes is a new file, with a new line in migrations.sha256."""
    pinned = (Path(__file__).parent / "migrations.sha256").read_text().split()
    assert dict(zip(pinned[1::2], pinned[::2], strict=True)) == {
        file.name: schema.checksum(file) for file in [*EMBEDDED, *schema.migrations()]
    }


EMBEDDED = sorted((schema.SQL / "embedded").glob("*.sql"))


def checksums(url):
    with psycopg.connect(url) as connection:
        return [sha256 for (sha256,) in connection.execute("select sha256 from fishserve.migrations order by name")]


def test_a_database_keeps_the_checksum_of_each_migration(bare):
    schema.migrate(bare)
    assert checksums(bare) == [schema.checksum(file) for file in schema.migrations()]


@pytest.mark.parametrize("last", ["20261125001200_health", "20261125000900_jobs"])
def test_a_database_from_before_the_checksums_is_brought_up_to_date(bare, monkeypatch, last):
    older(monkeypatch, bare, last)
    assert schema.migrate(bare) == newer(last)
    assert checksums(bare) == [schema.checksum(file) for file in schema.migrations()]
    assert schema.migrate(bare) == []


def test_one_from_before_the_checksums_that_another_revision_made_is_refused(bare, monkeypatch):
    older(monkeypatch, bare)
    with psycopg.connect(bare) as connection:
        connection.execute("drop function public.list_packs()")
    with pytest.raises(schema.OtherRevision, match=r"another revision.*health differs.*FISHSERVE_SAAS_DIRECTORY"):
        schema.migrate(bare)


def test_one_whose_migration_had_another_text_is_refused(bare):
    schema.migrate(bare)
    with psycopg.connect(bare) as connection:
        connection.execute("update fishserve.migrations set sha256 = repeat('0', 64) where name like '%_jobs'")
    with pytest.raises(schema.OtherRevision, match="_jobs differs"):
        schema.migrate(bare)
    told = subprocess.run(
        [sys.executable, "-m", "saas.schema", "migrate"],
        env=os.environ | {"DATABASE_URL": bare},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 1
    assert told.stderr.startswith("error: this database was made by another revision")
    assert "Traceback" not in told.stderr


def test_what_is_wrong_with_a_schema_is_one_sentence():
    good = {file.stem: schema.checksum(file) for file in schema.migrations()}
    assert schema.problem(good) is None
    assert schema.problem(good | {schema.version(): None}) is None
    assert "_jobs differs" in schema.problem(good | {"20261125000900_jobs": "0"})
    assert "newer than this program" in schema.problem(good | {"20991231000000_new": None})
    assert "older than this program" in schema.problem({name: sha for name, sha in good.items() if "_jobs" not in name})


def test_pasted_twice_it_is_there_once(empty):
    empty.execute(schema.whole().encode())
    made = empty.execute("select public.health()").fetchone()
    with pytest.raises(psycopg.errors.DuplicateSchema):
        empty.execute(schema.whole().encode())
    empty.execute("rollback")
    assert empty.execute("select public.health()").fetchone() == made
    assert made[0]["schema_version"] == schema.version()


def test_a_project_that_gives_clients_all_it_makes_gives_them_nothing_here(empty):
    """Supabase did so until 2026-10-30: who might write their whole profile would have no debt."""
    clients = "anon, authenticated, service_role"
    for what in ("tables", "functions", "sequences"):
        empty.execute(f"alter default privileges in schema public grant all on {what} to {clients}".encode())
    empty.execute(schema.whole().encode())
    assert empty.execute(
        "select relname, rolname from pg_class, pg_roles where relnamespace = 'public'::regnamespace and relkind = 'r'"
        " and rolname in ('anon', 'authenticated') and has_table_privilege(rolname, pg_class.oid, 'insert, update, delete, truncate')"
    ).fetchall() == []  # fmt: skip
    for table, column in (("api_keys", "hash"), ("jobs", "token_hash"), ("cloned_voices", "object_key")):
        assert empty.execute("select has_column_privilege('authenticated', %s, %s, 'select')", [table, column]).fetchone() == (False,)


def test_a_paste_that_fails_leaves_nothing(empty):
    with pytest.raises(psycopg.errors.DivisionByZero):
        empty.execute(schema.whole().replace("\ncommit;\n", "\nselect 1 / 0;\ncommit;\n").encode())
    empty.execute("rollback")
    assert empty.execute("select to_regnamespace('fishserve')").fetchone() == (None,)


def test_supabase_s_own_schema_is_left_alone(empty):
    applied = schema.migrate(empty.info.dsn)
    assert applied == [file.stem for file in schema.migrations()]
    assert schema.migrate(empty.info.dsn) == []


def test_a_database_that_is_up_to_date_stays_as_it_is(database):
    assert schema.migrate(database.owner_url) == []


def test_a_migration_that_fails_is_not_half_there(empty, monkeypatch, tmp_path):
    (tmp_path / "embedded").mkdir()
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "1_good.sql").write_text(
        "create schema fishserve; create table fishserve.migrations (name text); insert into fishserve.migrations values ('1_good');"
    )
    (tmp_path / "migrations" / "2_bad.sql").write_text("create table public.half (); select 1 / 0;")
    monkeypatch.setattr(schema, "SQL", tmp_path)
    with pytest.raises(psycopg.errors.DivisionByZero):
        schema.migrate(empty.info.dsn)
    (tmp_path / "migrations" / "2_bad.sql").write_text("create table public.half (); insert into fishserve.migrations values ('2_bad');")
    assert schema.migrate(empty.info.dsn) == ["2_bad"]


def test_migrate_is_a_command(database):
    command = [sys.executable, "-m", "saas.schema", "migrate"]
    told = subprocess.run(command, env=os.environ | {"DATABASE_URL": database.owner_url}, capture_output=True, text=True, check=True)
    assert told.stdout == "nothing was missing\n"


def test_the_readme_has_every_function_with_its_arguments(database):
    readme = (schema.SQL / "README.md").read_text(encoding="utf-8")
    table = {name: re.findall(r"(\w+)=?", given) for name, given in re.findall(r"`(\w+)\((.*?)\)`", re.sub(r"='?\w+'?", "=", readme))}
    functions = database.sql(
        "select proname, proargnames from pg_proc where pronamespace = 'public'::regnamespace and proname !~ '^local_'"
    )
    for row in functions:
        assert table[row["proname"]] == [name.removeprefix("p_") for name in row["proargnames"] or []], row["proname"]


@pytest.mark.system("/usr/bin/npm", "npm")
@pytest.mark.system("/usr/share/postgresql/15/extension/plpgsql_check.control", "postgresql-15-plpgsql-check")
@pytest.mark.parametrize(
    ("command", "passed_over"),
    [("lint", set()), ("advisors", {"unused_index"})],  # by statistics, which a new database has none of
)
def test_supabase_finds_nothing(database, node, tmp_path, command, passed_over):
    given = ["--level", "info"] if command == "advisors" else ["--level", "warning"]
    ran = subprocess.run(
        [node / ".bin" / "supabase", "db", command, f"--remote={database.owner_url}", "--output-format", "json", *given],
        cwd=tmp_path, env=os.environ | {"DO_NOT_TRACK": "1"}, capture_output=True, text=True, timeout=HANG_SECONDS, check=False,
    )  # fmt: skip
    found = json.loads(ran.stdout)["results"]
    assert [one for one in found if one.get("name") not in passed_over] == []


@pytest.mark.system("/usr/bin/npm", "npm")
@pytest.mark.system("/usr/share/postgresql/15/extension/plpgsql_check.control", "postgresql-15-plpgsql-check")
def test_supabase_would_find_something(database, node, tmp_path):
    database.sql(
        "create table public.open (id int); grant select on public.open to anon; create function public.bad() returns int language plpgsql as $$ begin return nothing; end $$"
    )
    found = []
    for command in ("lint", "advisors"):
        ran = subprocess.run(
            [node / ".bin" / "supabase", "db", command, f"--remote={database.owner_url}", "--output-format", "json"],
            cwd=tmp_path, env=os.environ | {"DO_NOT_TRACK": "1"}, capture_output=True, text=True, timeout=HANG_SECONDS, check=False,
        )  # fmt: skip
        found += [one.get("name", one.get("function")) for one in json.loads(ran.stdout)["results"]]
    assert {"public.bad", "rls_disabled_in_public"} <= set(found)

"""The files of sql/: in order, as one text to paste at Supabase (`python -m saas.schema` writes it), and applied to a PostgreSQL of one's own
(`python -m saas.schema migrate`, to the one in DATABASE_URL)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psycopg

_HERE = Path(__file__).parent
SQL = next(folder for folder in (_HERE / "sql", _HERE.parent / "sql") if folder.is_dir())
"""Inside the package where it is installed, beside it in the repository."""
WHOLE = SQL / "supabase_schema.sql"
_LOCK = 0x66697368  # "fish": one process migrates at a time


def migrations() -> list[Path]:
    """In the order they are applied."""
    return sorted((SQL / "migrations").glob("*.sql"))


def version() -> str:
    """What the function health() answers as schema_version where every migration is in."""
    return migrations()[-1].stem


def whole() -> str:
    """All migrations as one transaction."""
    head = f"""-- fishserve's schema, {version()}, for the SQL editor of a new Supabase project: paste it whole and run it once.
-- Written by `python -m saas.schema` from sql/migrations. To update an older schema, run the newer files of that folder one by one.
-- It is one transaction: should any of it fail, nothing of it is there; run twice, it says that the schema exists and changes nothing.

begin;
"""
    return head + "".join(f"\n-- {file.name}\n\n{file.read_text(encoding='utf-8')}" for file in migrations()) + "\ncommit;\n"


def migrate(url: str) -> list[str]:
    """Brings a database up to date and says what was missing, each file one transaction. A PostgreSQL that is not Supabase's first gets what
    Supabase has (sql/embedded). Raises psycopg.Error; needs the rights of the owner."""
    applied = []
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("select pg_advisory_lock(%s)", [_LOCK])
        connection.execute("set client_min_messages = warning")
        if _is_ours(connection):
            connection.execute("create schema if not exists embedded")
            connection.execute(
                "create table if not exists embedded.migrations (name text primary key, applied_at timestamptz not null default now())"
            )
            for file in sorted((SQL / "embedded").glob("*.sql")):
                if file.stem not in _names(connection, "embedded.migrations"):
                    with connection.transaction():
                        connection.execute(file.read_bytes())
                        connection.execute("insert into embedded.migrations (name) values (%s)", [file.stem])
                    applied.append(file.stem)
        done = _names(connection, "fishserve.migrations")
        for file in migrations():
            if file.stem not in done:  # it writes its own name there
                with connection.transaction():
                    connection.execute(file.read_bytes())
                applied.append(file.stem)
    return applied


def _is_ours(connection: psycopg.Connection) -> bool:
    row = connection.execute("select to_regclass('auth.users') is null or to_regclass('embedded.migrations') is not null").fetchone()
    return row is not None and bool(row[0])


def _names(connection: psycopg.Connection, table: str) -> set[str]:
    if connection.execute("select to_regclass(%s) is null", [table]).fetchone() == (True,):
        return set()
    return {name for (name,) in connection.execute(f"select name from {table}".encode())}


def main() -> None:
    """Writes the one text, or migrates."""
    if sys.argv[1:] != ["migrate"]:
        WHOLE.write_text(whole(), encoding="utf-8")
    elif url := os.environ.get("DATABASE_URL"):
        print(*(migrate(url) or ["nothing was missing"]), sep="\n")
    else:
        sys.exit("set DATABASE_URL to the database to migrate, as its owner: postgresql://postgres:PASSWORD@HOST/NAME")


if __name__ == "__main__":
    main()

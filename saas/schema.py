"""The files of sql/: in order, as one text to paste at Supabase (`python -m saas.schema` writes it), and applied to a PostgreSQL of one's own
(`python -m saas.schema migrate`, to the one in DATABASE_URL).

Never edit a file that has been applied anywhere: a database stores each file's checksum, and a database of another revision is refused.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from inference.errors import FishserveError, RequestError
from inference.extras import needs

if TYPE_CHECKING:
    import psycopg

_HERE = Path(__file__).parent
SQL = next(folder for folder in (_HERE / "sql", _HERE.parent / "sql") if folder.is_dir())
"""Inside the package when it is installed, beside it in the repository."""
WHOLE = SQL / "supabase_schema.sql"
_LOCK = 0x66697368  # "fish": one process migrates at a time
_BEFORE_CHECKSUMS, _EMBEDDED_BEFORE = "20261125001200_health", "0002_sign_in"
"""The last files of databases without checksums. Their content is compared with FINGERPRINT instead."""
FINGERPRINT = "55bdb8d2761b61900644e4d905b1419c"
"""The fingerprint of the functions and columns that the files up to these create."""
_FINGERPRINT = """
select md5(string_agg(line, E'\n' order by line collate "C")) from (
  select format('%s.%s(%s) %s', p.pronamespace::regnamespace, p.proname, pg_get_function_identity_arguments(p.oid), md5(p.prosrc)) as line
  from pg_proc p where p.pronamespace = any (array['public', 'fishserve', 'auth', 'embedded']::regnamespace[])
    and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')
  union all
  select format('%s.%s %s %s', c.relnamespace::regnamespace, c.relname, a.attname, format_type(a.atttypid, a.atttypmod))
  from pg_class c join pg_attribute a on a.attrelid = c.oid
  where c.relkind = 'r' and c.relnamespace = any (array['public', 'fishserve', 'auth', 'embedded']::regnamespace[]) and a.attnum > 0
    and not a.attisdropped and (c.relname, a.attname) <> ('migrations', 'sha256')
) lines
"""


class OtherRevision(FishserveError):
    """A database was made by a revision of fishserve whose migrations differ from these."""


def migrations() -> list[Path]:
    """The migrations, in the order in which they are applied."""
    return sorted((SQL / "migrations").glob("*.sql"))


def embedded() -> list[Path]:
    """What a PostgreSQL that is not Supabase's gets before the migrations, in order."""
    return sorted((SQL / "embedded").glob("*.sql"))


def checksum(file: Path) -> str:
    """SHA-256 of a migration's text."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def version() -> str:
    """The schema_version that the function health() returns once every migration is applied."""
    return migrations()[-1].stem


def whole() -> str:
    """All migrations as one transaction, with their checksums."""
    head = f"""-- fishserve's schema, {version()}, for the SQL editor of a new Supabase project: paste it whole and run it once.
-- Written by `python -m saas.schema` from sql/migrations. To update an older schema, run the newer files of that folder one by one.
-- It is one transaction: should any of it fail, nothing of it is there; run twice, it says that the schema exists and changes nothing.

begin;
"""
    files = migrations()
    sums = "".join(f"update fishserve.migrations set sha256 = '{checksum(file)}' where name = '{file.stem}';\n" for file in files)
    return head + "".join(f"\n-- {file.name}\n\n{file.read_text(encoding='utf-8')}" for file in files) + f"\n{sums}\ncommit;\n"


def problem(applied: dict[str, str | None]) -> str | None:
    """What is wrong with a database's migrations, or None. A migration applied by hand has no checksum and counts as unchanged."""
    known = {file.stem: checksum(file) for file in migrations()}
    for name, sha256 in sorted(applied.items()):
        if name not in known:
            return f"its schema is newer than this program: it has the migration {name}"
        if sha256 not in (None, known[name]):
            return f"another revision of fishserve made it: its migration {name} differs"
    missing = [name for name in known if name not in applied]
    return f"its schema is older than this program: the migration {missing[0]} is missing" if missing else None


def migrate(url: str) -> list[str]:
    """Bring a database up to date, one transaction per file, and return the names of the missing files. A PostgreSQL that is not Supabase's
    first gets the parts that Supabase has (sql/embedded). Raises OtherRevision, psycopg.Error; needs the owner's rights."""
    import psycopg

    applied = []
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("select pg_advisory_lock(%s)", [_LOCK])
        connection.execute("set client_min_messages = warning")
        ours = _is_ours(connection)
        if ours:
            connection.execute("create schema if not exists embedded")
            connection.execute(
                "create table if not exists embedded.migrations (name text primary key, applied_at timestamptz not null default now())"
            )
            connection.execute("alter table embedded.migrations add column if not exists sha256 text")
            applied += _apply(connection, "embedded.migrations", embedded(), until=_EMBEDDED_BEFORE)
        applied += _apply(connection, "fishserve.migrations", migrations(), until=_BEFORE_CHECKSUMS)
        if ours:
            last = [max(_names(connection, table), default="") for table in ("embedded.migrations", "fishserve.migrations")]
            if last == [_EMBEDDED_BEFORE, _BEFORE_CHECKSUMS]:
                found = connection.execute(_FINGERPRINT.encode()).fetchone()
                if found != (FINGERPRINT,):
                    raise OtherRevision(_refusal(_BEFORE_CHECKSUMS))
            applied += _apply(connection, "embedded.migrations", embedded())
        applied += _apply(connection, "fishserve.migrations", migrations())
    return applied


def _apply(connection: psycopg.Connection, table: str, files: list[Path], *, until: str | None = None) -> list[str]:
    """Apply the files that a table does not list, up to the one of that name. Raises OtherRevision for a listed file that had another text."""
    known = {file.stem: checksum(file) for file in files}
    done = _names(connection, table)
    for name, sha256 in done.items():
        if sha256 is not None and sha256 != known.get(name):
            raise OtherRevision(_refusal(name))
    applied = []
    for file in files:
        if file.stem in done or (until is not None and file.stem > until):
            continue
        with connection.transaction():
            connection.execute(file.read_bytes())
            if table == "embedded.migrations":  # the others name themselves
                connection.execute(f"insert into {table} (name) values (%s)".encode(), [file.stem])
        applied.append(file.stem)
    if _has_checksums(connection, table):
        for name, sha256 in known.items():
            connection.execute(f"update {table} set sha256 = %s where name = %s and sha256 is null".encode(), [sha256, name])
    return applied


def _refusal(name: str) -> str:
    return (
        f"this database was made by another revision of fishserve: its migration {name} differs; start with that revision, "
        "or with another database (for --embedded: set FISHSERVE_SAAS_DIRECTORY to a new folder)"
    )


def _is_ours(connection: psycopg.Connection) -> bool:
    row = connection.execute("select to_regclass('auth.users') is null or to_regclass('embedded.migrations') is not null").fetchone()
    return row is not None and bool(row[0])


def _has_checksums(connection: psycopg.Connection, table: str) -> bool:
    found = connection.execute(
        "select from pg_attribute where attrelid = to_regclass(%s) and attname = 'sha256' and not attisdropped", [table]
    )
    return found.rowcount > 0


def _names(connection: psycopg.Connection, table: str) -> dict[str, str | None]:
    """The migrations that a table lists, with their checksums if it has any."""
    if connection.execute("select to_regclass(%s) is null", [table]).fetchone() == (True,):
        return {}
    sha256 = "sha256" if _has_checksums(connection, table) else "null"
    return dict(connection.execute(f"select name, {sha256} from {table} order by name".encode()).fetchall())


def main() -> None:
    """Write the schema as one text, or migrate."""
    if sys.argv[1:] != ["migrate"]:
        WHOLE.write_text(whole(), encoding="utf-8")
    elif url := os.environ.get("DATABASE_URL"):
        try:
            with needs("saas", "`python -m saas.schema migrate`"):
                applied = _migrate_or_explain(url)
        except FishserveError as e:
            sys.exit(f"error: {e}")
        print(*(applied or ["nothing was missing"]), sep="\n")
    else:
        sys.exit("set DATABASE_URL to the database to migrate, as its owner: postgresql://postgres:PASSWORD@HOST/NAME")


def _migrate_or_explain(url: str) -> list[str]:
    import psycopg

    try:
        return migrate(url)
    except psycopg.OperationalError as e:
        raise RequestError(f"the database cannot be reached: {str(e).strip().splitlines()[-1]}") from None


if __name__ == "__main__":
    main()

"""Two servers that the SQL is tried on: Debian's PostgreSQL 15, and the 18 that --embedded runs."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from saas.embedded.postgres import EmbeddedPostgres


@pytest.fixture(scope="session")
def embedded() -> Iterator[EmbeddedPostgres]:
    folder = Path(tempfile.mkdtemp(prefix="fishserve-embedded-"))
    server = EmbeddedPostgres(folder)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture(scope="session", params=["PostgreSQL 15", "embedded 18"])
def migrated_url(request: pytest.FixtureRequest, postgres) -> str:
    """A database with the schema, as its owner, on either. Whoever uses it rolls back."""
    if request.param == "PostgreSQL 15":
        return postgres.migrated().owner_url
    return request.getfixturevalue("embedded").owner_url


@pytest.fixture(scope="session")
def pgtap_url(migrated_url: str) -> str:
    """The same with pgTAP in a schema of its own that everybody may use. It is SQL alone, so that 18 takes Debian's script for 15."""
    script = next(f for f in Path("/usr/share/postgresql/15/extension").glob("pgtap--*.sql") if f.name.count("--") == 1)
    statements = "".join(line for line in script.read_text().splitlines(keepends=True) if not line.startswith("\\"))
    with psycopg.connect(migrated_url) as connection:
        connection.execute("create schema tap")
        connection.execute("set local search_path = tap")
        connection.execute(statements.encode())
        connection.execute("grant usage on schema tap to public")
        connection.execute("grant execute on all functions in schema tap to public")
    return migrated_url

"""A real PostgreSQL for the tests: Debian's 15, one server a run, and a database of its own for each test that asks."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import psycopg.types.json
import pytest
from psycopg.rows import dict_row

from saas import database, schema
from tests.worker.conftest import bucket, checkpoint  # noqa: F401 - fixtures: a real S3 server, a checkpoint

POSTGRES = Path("/usr/lib/postgresql/15/bin")
TEMPLATE = "fishserve_template"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "postgres" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.system(str(POSTGRES / "postgres"), "postgresql-15"))


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@dataclass(frozen=True)
class Server:
    """A PostgreSQL that keeps nothing: whoever asks is trusted, and nothing waits for the disk."""

    port: int

    def url(self, name: str, role: str = "postgres") -> str:
        return f"postgresql://{role}@127.0.0.1:{self.port}/{name}"

    def run(self, statement: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())

    def migrated(self) -> "Migrated":
        """A fresh database with the schema, a copy of the template."""
        name = f"test_{uuid4().hex}"
        self.run(f"create database {name} template {TEMPLATE}")
        return Migrated(self, name)


@dataclass(frozen=True)
class Migrated:
    """A database with the whole schema. `url` is of the role the API has in embedded mode: it may call functions, and no more."""

    server: Server
    name: str

    @property
    def url(self) -> str:
        return self.server.url(self.name, "fishserve")

    @property
    def owner_url(self) -> str:
        return self.server.url(self.name)

    def sql(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        """Rows, as the owner."""
        with psycopg.connect(self.owner_url, autocommit=True, row_factory=dict_row) as connection:
            done = connection.execute(statement.encode(), values)
            return done.fetchall() if done.description else []

    def call(self, function: str, **arguments: Any) -> Any:
        """A function as the API would call it. Raises Refused where it refuses."""
        given = database.named(arguments)
        with psycopg.connect(self.url, autocommit=True) as connection:
            return called(connection, function, given)

    def user(self, credits: int = 0, email: str | None = None) -> UUID:
        """Somebody who signed up, with so many credits."""
        who = uuid4()
        self.sql("insert into auth.users (id, email) values (%s, %s)", who, email or f"{who.hex}@example.com")
        if credits:
            self.call("grant_credits", user_id=who, credits=credits, reference="test")
        return who


def called(connection: psycopg.Connection[Any], function: str, given: dict[str, Any]) -> Any:
    names = ", ".join(f"{name} => %s" for name in given)
    values = [str(v) if isinstance(v, int | float) else psycopg.types.json.Jsonb(v) if isinstance(v, dict) else v for v in given.values()]
    try:
        row = connection.execute(f"select public.{function}({names})".encode(), values).fetchone()
    except psycopg.Error as e:
        raise database.failure(function, e.sqlstate, e.diag.message_primary) from e
    return row[0] if row else None


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="fishserve-postgres-"))
    as_postgres = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if as_postgres:
        shutil.chown(folder, "postgres", "postgres")
    port = free_port()
    settings = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off -c synchronous_commit=off"
    settings += " -c full_page_writes=off -c max_connections=250 -c autovacuum=off"

    def run(program: str, *arguments: str) -> None:
        command = [*as_postgres, POSTGRES / program, "-D", folder / "data", *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60, cwd="/")

    run("initdb", "-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8")
    run("pg_ctl", "start", "-w", "-o", settings, "-l", str(folder / "log"))
    try:
        server = Server(port)
        server.run(f"create database {TEMPLATE}")
        schema.migrate(server.url(TEMPLATE))
        server.run("create role fishserve login in role service_role")
        yield server
    finally:
        run("pg_ctl", "stop", "-w", "-m", "immediate")
        shutil.rmtree(folder)


@pytest.fixture(name="database")
def _database(postgres: Server) -> Iterator[Migrated]:
    made = postgres.migrated()
    yield made
    postgres.run(f"drop database {made.name} with (force)")

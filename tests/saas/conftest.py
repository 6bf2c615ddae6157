"""A real PostgreSQL for the tests: Debian's 15, one server a run, and a database of its own for each test that asks; Supabase's API over it."""

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import psycopg
import psycopg.types.json
import pytest
from psycopg.rows import dict_row

from saas import database, schema
from tests.inference.server.conftest import Server as FishServer
from tests.npm import packages
from tests.processes import Started, free_port
from tests.waiting import HANG_SECONDS
from tests.worker.conftest import bucket, checkpoint  # noqa: F401 - fixtures: a real S3 server, a checkpoint

POSTGRES = Path("/usr/lib/postgresql/15/bin")
TEMPLATE = "fishserve_template"
NODE = Path(__file__).parent / "supabase"
JWT_SECRET = "0123456789abcdef0123456789abcdef"
AS_HOSTED = """
revoke all on all tables in schema public, fishserve from anon, authenticated, service_role;
revoke all on schema fishserve from anon, authenticated, service_role;
"""
"""With its first query lite gives these roles every right on every table, as hosted projects have not done since 2026-10-30."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "postgres" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.system(str(POSTGRES / "postgres"), "postgresql-15"))


@pytest.fixture(scope="session", autouse=True)
def slow_services() -> Iterator[None]:
    """Services that a test plays are away when they say so, and never because this machine was slow."""
    with pytest.MonkeyPatch.context() as patch:
        for limit in ("saas.auth.tokens.SECONDS", "saas.auth.turnstile.SECONDS"):
            patch.setattr(limit, HANG_SECONDS)
        yield


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
        self.run(f"create database {name} template {TEMPLATE} strategy file_copy")
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
            assert done.description or not (done.statusmessage or "").startswith("SELECT"), "rows without columns look like no rows"
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
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=HANG_SECONDS, cwd="/")

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


@dataclass(frozen=True)
class Supabase:
    """@supabase/lite: PostgREST's and GoTrue's protocols over a real PostgreSQL, that it migrated."""

    url: str
    secret_key: str
    publishable_key: str
    database: Migrated

    def session(self, user: UUID) -> str:
        """The JWT of somebody who signed in."""
        claims = {"sub": str(user), "role": "authenticated", "aud": "authenticated", "exp": int(time.time()) + 600}
        return jwt.encode(claims, JWT_SECRET, "HS256")


@pytest.fixture(scope="session")
def node() -> Path:
    """The folder with the packages of npm."""
    return packages(NODE)


@pytest.fixture(scope="session")
def supabase(postgres: Server, node: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supabase]:
    folder, port, name = tmp_path_factory.mktemp("supabase"), free_port(), "supabase"
    postgres.run(f"create database {name}")
    shutil.copytree(schema.SQL / "migrations", folder / "supabase" / "migrations")
    (folder / "supabase" / "config.toml").write_text(
        f'[api]\nport = {port}\n[db]\ndriver = "postgres"\nurl = "postgres://postgres@127.0.0.1:{postgres.port}/{name}"\n'
        f'[auth]\nenabled = true\njwt_secret = "{JWT_SECRET}"\n'
        'publishable_key = "env(SUPABASE_PUBLISHABLE_KEY)"\nsecret_key = "env(SUPABASE_SECRET_KEY)"\n'
    )
    (folder / "node_modules").symlink_to(node)  # it looks for its driver there
    environment = os.environ | {"DO_NOT_TRACK": "1", "LITE_TELEMETRY": "0"}
    lite = ["node", node / "@supabase" / "lite" / "dist" / "cli" / "index.js"]
    for command in (["generate-keys"], ["migration", "up"]):
        subprocess.run([*lite, *command], cwd=folder, env=environment, check=True, capture_output=True, timeout=HANG_SECONDS)
    keys = dict(line.split("=", 1) for line in (folder / ".env").read_text().split())
    url = f"http://127.0.0.1:{port}"
    running = Started()
    with contextlib.ExitStack() as stack:
        # Without --no-admin whoever comes from this machine is the service.
        running.start([*lite, "start", "--no-admin"], cwd=folder, env=environment | keys)
        stack.enter_context(running)
        running.wait(lambda: found(f"{url}/rest/v1/packs", {"apikey": keys["SUPABASE_PUBLISHABLE_KEY"]}))
        with psycopg.connect(postgres.url(name), autocommit=True) as connection:
            connection.execute(AS_HOSTED)
            for grant in re.findall(r"^grant .*?;", schema.whole(), re.MULTILINE | re.DOTALL):
                connection.execute(grant.encode())
        yield Supabase(url, keys["SUPABASE_SECRET_KEY"], keys["SUPABASE_PUBLISHABLE_KEY"], Migrated(postgres, name))


def found(url: str, headers: dict[str, str]) -> bool:
    try:
        return httpx.get(url, headers=headers).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def data(postgres: Server) -> Iterator[Migrated]:
    """A database for all tests of a module."""
    made = postgres.migrated()
    yield made
    postgres.run(f"drop database {made.name} with (force)")


@pytest.fixture(scope="session")
def speaker(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FishServer]:  # noqa: F811 - a fixture
    """A fishserve with random weights."""
    with FishServer(checkpoint, tmp_path_factory.mktemp("voices")).wait_ready() as server:
        yield server

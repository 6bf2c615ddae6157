"""`fishserve saas --embedded`: PostgreSQL, SeaweedFS, a fishserve that speaks, the API before them, and a first user whose key is shown once.

All data is in one folder and stays there. Each start creates new credentials for the bucket and the engine; both answer only this machine.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from types import FrameType
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb
from pydantic import SecretStr
from rich.console import Console

from inference.errors import FishserveError, RequestError
from inference.listening import listen, url_of
from saas.auth.caller import SCOPES, new_key
from saas.auth.local.sessions import create_user
from saas.auth.repository import AccountRepository
from saas.credits.repository import CreditRepository
from saas.embedded import engine, running, seaweedfs
from saas.embedded.postgres import EmbeddedPostgres
from saas.embedded.processes import Program
from saas.postgres import PostgresDatabase
from saas.serving import serve
from saas.settings import Settings
from saas.storage.bucket import Bucket

EMAIL = "you@localhost"
CREDITS = 100_000
"""Credits of the first user: almost three hours of speech at the default price."""
SIGN_UP_CREDITS = 10_000
"""Credits that each further user gets at sign-up, unless the table `settings` says otherwise: a quarter of an hour of speech."""
_WATCH_SECONDS = 1.0
_SIGNS = (signal.SIGTERM, signal.SIGINT)


class _Stop(BaseException):
    """Raised by SIGTERM or Ctrl-C, wherever this process is."""


def run(settings: Settings, console: Console) -> None:
    """Start everything, serve until Ctrl-C or SIGTERM, end everything. Raises FishserveError if a program does not start, or ends."""
    for sign in _SIGNS:
        signal.signal(sign, _stop)
    failed: list[Program | EmbeddedPostgres] = []
    over = threading.Event()
    with ExitStack() as stack, suppress(_Stop):
        folder = stack.enter_context(_own_folder(settings.directory))
        console.print(f"Data is kept in {folder}. PostgreSQL, SeaweedFS and a fishserve are started beside the API, and end with it.")
        settings = _with(settings, directory=folder, **_address(settings))
        speaker, where = engine.start(folder)
        stack.enter_context(speaker)
        settings = _with(settings, **where)
        bucket, where = seaweedfs.start(folder)
        stack.enter_context(bucket)
        postgres = EmbeddedPostgres(folder / "postgres")
        stack.callback(postgres.stop)
        settings = _with(settings, **where, database_url=SecretStr(postgres.start()))
        console.print("PostgreSQL is ready")
        bucket.wait_ready(lambda: seaweedfs.ready(settings))
        console.print("SeaweedFS is ready")
        asyncio.run(_prepare(settings, postgres.owner_url, console))
        speaker.wait_ready(lambda: engine.ready(settings))
        if "model" not in settings.model_fields_set:
            settings = _with(settings, model=engine.model(settings))
        console.print(f"the engine is ready: {settings.model}")
        running.remember(folder, settings)
        links = "appear here, and" if sys.stderr.isatty() else "are kept"
        console.print(f"Mail to users is not sent: its links {links} as files in {folder / 'mail'}.")
        threading.Thread(target=_watch, args=([speaker, bucket, postgres], over, failed), daemon=True).start()
        stack.callback(over.set)
        serve(settings, console, "`fishserve saas grant EMAIL CREDITS` grants credits; Ctrl-C ends it")
    if failed:
        raise FishserveError(f"{failed[0].name} ended; {failed[0].log} may say why")


def _stop(_: int, __: FrameType | None) -> None:
    for sign in _SIGNS:
        signal.signal(sign, signal.SIG_IGN)  # ending everything takes seconds, and the next signal must not interrupt it
    raise _Stop


def _with(settings: Settings, **changed: Any) -> Settings:
    return settings.model_copy(update=changed)


@contextmanager
def _own_folder(directory: Path) -> Iterator[Path]:
    """The data folder, locked against other processes. Raises RequestError."""
    folder = directory.resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for part in ("log", "bucket"):
            (folder / part).mkdir(exist_ok=True, mode=0o700)
        lock = (folder / "lock").open("w")
    except OSError as e:
        raise RequestError(f"cannot write {folder}: {e.strerror or e}") from None
    with lock:
        try:
            flock(lock, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            raise RequestError(f"another process works with {folder}; end it, or set FISHSERVE_SAAS_DIRECTORY to another folder") from None
        yield folder


def _address(settings: Settings) -> dict[str, Any]:
    """The API is its own Supabase, at this machine's address unless another is set. Raises RequestError for a port in use."""
    with listen(settings.host, settings.port, "FISHSERVE_SAAS_PORT") as probe:
        port = probe.getsockname()[1]
    url = settings.public_url if "public_url" in settings.model_fields_set else url_of(settings.host, port)
    return {"port": port, "public_url": url, "supabase_url": url, "supabase_publishable_key": "embedded", "supabase_secret_key": None,
        "operator_role": settings.operator_role or "operator",
    }  # fmt: skip


async def _prepare(settings: Settings, owner_url: str, console: Console) -> None:
    """Set the bucket's rules and create the first user, who is the operator."""
    bucket = Bucket.of(settings)
    await bucket.apply(settings.app_origin)
    bucket.close()
    assert settings.database_url
    database = PostgresDatabase(settings.database_url.get_secret_value())
    try:
        password = secrets.token_urlsafe(9)
        user = await create_user(database, EMAIL, password, confirmed=True)
        async with await psycopg.AsyncConnection.connect(owner_url) as connection:
            role = Jsonb({"role": settings.operator_role})
            await connection.execute("update auth.users set raw_app_meta_data = raw_app_meta_data || %s where email = %s", [role, EMAIL])
            if user is None:  # not the first start
                return
            await connection.execute("update public.settings set grant_on_sign_up = %s", [SIGN_UP_CREDITS])
        await CreditRepository(database).grant(user["id"], CREDITS, "the first user")
        prefix, key, hashed = new_key()
        await AccountRepository(database).add_key(UUID(user["id"]), "the first key", prefix, hashed, sorted(SCOPES))
    finally:
        await database.close()
    console.print(
        f"A first user, who is the operator, shown this once: {EMAIL}, password {password}, {CREDITS:,} credits, API key {key}",
        style="bold",
    )


def _watch(programs: Sequence[Program | EmbeddedPostgres], over: threading.Event, failed: list[Program | EmbeddedPostgres]) -> None:
    """End this process when one of the others ends. Their data is still there after a restart."""
    while not failed:
        if over.wait(_WATCH_SECONDS):
            return
        failed.extend(program for program in programs if not program.is_running())
    os.kill(os.getpid(), signal.SIGTERM)

"""The database over PostgreSQL's own protocol: self-hosted, embedded, or Supabase's connection string."""

from __future__ import annotations

import json
import select
from functools import lru_cache
from typing import Any

from psycopg import AsyncConnection, DataError, Error, OperationalError, sql
from psycopg_pool import AsyncConnectionPool

from saas.database import DatabaseError, Refused, Unavailable, failure, named, persistently


class PostgresDatabase:
    """A pool of connections. The first call opens them, so a database that is down does not prevent the API from starting."""

    def __init__(self, url: str, connections: int = 10) -> None:
        # No prepared statements: a pooler in between (Supavisor, pgbouncer) gives each transaction another connection.
        self._pool: AsyncConnectionPool[AsyncConnection[Any]] = AsyncConnectionPool(
            url,
            open=False,
            min_size=1,
            max_size=connections,
            timeout=3600,  # a call times out long before
            kwargs={"autocommit": True, "prepare_threshold": None, "connect_timeout": 5, "application_name": "fishserve"},
            check=_check,
        )

    async def call(self, function: str, **arguments: Any) -> Any:
        given = named(arguments)
        statement, values = _statement(function, tuple(given)), [_literal(value) for value in given.values()]

        async def attempt() -> Any:
            if self._pool.closed:
                await self._pool.open()
            try:
                async with self._pool.connection() as connection:
                    row = await (await connection.execute(statement, values)).fetchone()
            except Error as e:
                raise _failure(function, e) from None
            return row[0] if row else None

        return await persistently(function, attempt)

    async def close(self) -> None:
        await self._pool.close()


async def _check(connection: AsyncConnection[Any]) -> None:
    """A server that went away has sent a last message or closed: there is something to read. Only then check it, with a round trip."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN | select.POLLERR | select.POLLHUP)
    if poll.poll(0):
        await AsyncConnectionPool.check_connection(connection)


@lru_cache
def _statement(function: str, names: tuple[str, ...]) -> bytes:
    """The call's SQL, put together once: psycopg would do it anew for each call."""
    arguments = sql.SQL(", ").join(sql.SQL("{} => %s").format(sql.Identifier(name)) for name in names)
    return sql.SQL("select public.{}({})").format(sql.Identifier(function), arguments).as_bytes()


def _literal(value: Any) -> Any:
    """A value as untyped text, which PostgreSQL reads as the type that the function takes; psycopg converts arrays."""
    if isinstance(value, dict):
        return json.dumps(value)
    return str(value) if isinstance(value, bool | int | float) else value


def _failure(function: str, e: Error) -> Exception:
    if e.sqlstate:
        return failure(function, e.sqlstate, e.diag.message_primary)
    if isinstance(e, DataError):  # psycopg's own: a NUL in a text
        return Refused(422, f"the database cannot take this: {e}")
    if isinstance(e, OperationalError):
        return Unavailable(f"{function}: the connection to the database broke")
    return DatabaseError(f"{function} failed: {type(e).__name__}")

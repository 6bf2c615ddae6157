"""The port to the database: a call is one SQL function and one transaction. Knows nothing of HTTP; two adapters implement it."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol
from uuid import UUID

CALL_SECONDS = 10
"""After this long without an answer, the database counts as unavailable."""
WHOLE_SECONDS = 600
"""The same for a command that looks at all rows of a table. Supabase's API gives up sooner by itself; PostgreSQL over DATABASE_URL does not."""
ATTEMPTS = 5
"""The most attempts for a call that conflicts with other transactions."""


class DatabaseError(Exception):
    """A call failed in a way that no caller can fix: a bug, or a database that is not fishserve's."""


class Refused(DatabaseError):
    """A rule refused the call. `message` tells people the reason; `status` is an HTTP status, 400 to 499."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class Unavailable(DatabaseError):
    """The database cannot be reached or is too busy. A call that changes something may have succeeded: retry it with the same key."""


class Database(Protocol):
    """The interface that the API needs from a database."""

    async def call(self, function: str, **arguments: Any) -> Any:
        """Call public.<function> and return its result, decoded from JSON. The argument `user_id` is sent as p_user_id.

        Raises Refused and Unavailable.
        """

    async def close(self) -> None:
        """Close the connections."""


class SerializationConflict(Exception):
    """Two transactions conflicted and this one was rolled back: it can be retried."""


def failure(function: str, code: str | None, message: str | None) -> Exception:
    """The exception for a failed call, by its SQLSTATE, PostgREST code or HTTP status.

    It leaves out everything else the server says, which may quote rows.
    """
    code = code or ""
    if code.startswith("PT4") and code[2:].isdecimal():
        return Refused(int(code[2:]), message or "this is not allowed")
    if code.startswith("22"):
        return Refused(422, f"the database cannot take this: {message}")
    if code in ("40001", "40P01"):
        return SerializationConflict()
    away = len(code) == 3 and (code == "429" or code.startswith("5"))  # an HTTP status, from Supabase or from Cloudflare before it
    if away or code[:2] in ("08", "53", "57") or code in ("55P03", "PGRST000", "PGRST001", "PGRST002", "PGRST003"):
        return Unavailable(f"{function}: the database is not available ({code})")
    return DatabaseError(f"{function} failed: {message} ({code or 'no code'})")


_allowed: ContextVar[float | None] = ContextVar("allowed", default=None)


@contextmanager
def long_calls() -> Iterator[None]:
    """In this block, calls may take WHOLE_SECONDS."""
    before = _allowed.set(WHOLE_SECONDS)
    try:
        yield
    finally:
        _allowed.reset(before)


async def persistently(function: str, attempt: Callable[[], Awaitable[Any]]) -> Any:
    """The result of an attempt, retried when it conflicts with another transaction."""
    seconds = _allowed.get() or CALL_SECONDS
    try:
        for again in range(ATTEMPTS):
            try:
                async with asyncio.timeout(seconds):
                    return await attempt()
            except SerializationConflict:
                await asyncio.sleep(random.uniform(0, 0.02 * 2**again))
    except TimeoutError:
        raise Unavailable(f"{function}: no answer in {seconds:g} s") from None
    except UnicodeEncodeError:
        raise Refused(422, "the text holds half a character (a lone surrogate)") from None
    raise Unavailable(f"{function}: other transactions were in its way {ATTEMPTS} times")


def named(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments under the names that the SQL functions use, as JSON types."""
    return {f"p_{name}": _plain(value) for name, value in arguments.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, UUID | Decimal):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return json.loads(json.dumps(value, default=str))
    if isinstance(value, tuple | set | frozenset):
        return sorted(value)
    return value

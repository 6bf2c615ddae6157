"""Readiness: whether the database answers and has the expected schema."""

from __future__ import annotations

import asyncio
import time

from saas import schema
from saas.database import Database, DatabaseError, Refused, Unavailable

KEPT = 2.0
"""Seconds for which the database's answer is cached, since anybody may request it."""


class Readiness:
    """Caches the last answer for a moment."""

    def __init__(self) -> None:
        self._asking = asyncio.Lock()
        self._last: tuple[float, dict[str, str]] = (float("-inf"), {})

    async def ask(self, database: Database) -> dict[str, str]:
        """`{"status": "ready" | "unready", "database": what is wrong, or "ok"}`."""
        async with self._asking:
            if time.monotonic() - self._last[0] > KEPT:
                found = await _asked(database)
                self._last = (time.monotonic(), found)
            return self._last[1]


async def _asked(database: Database) -> dict[str, str]:
    try:
        health = await database.call("health")
        applied = await database.call("applied_migrations")
    except Unavailable:
        return _unready("it cannot be reached")
    except Refused as e:
        return _unready(e.message)
    except DatabaseError:
        return _unready("its schema is missing or older than this program; `fishserve saas check` says more")
    if wrong := schema.problem(applied):
        return _unready(wrong)
    if not (health["rls_ok"] and health["definer_ok"]):
        return _unready("its rules are not as they must be; `fishserve saas check` says which")
    return {"status": "ready", "database": "ok"}


def _unready(reason: str) -> dict[str, str]:
    return {"status": "unready", "database": reason}

"""A user's balance and ledger, as the database's functions return them. Nothing is computed here."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from saas.credits.schemas import Credits, Day, Entry, Estimate
from saas.database import Database


async def credits_of(database: Database, user_id: UUID) -> Credits:
    """Raises Refused, Unavailable; as all of these."""
    return Credits.model_validate(await database.call("get_profile", user_id=user_id))


async def ledger(database: Database, user_id: UUID, before: int | None, limit: int) -> list[Entry]:
    """The newest first, from before an entry's id on."""
    found: list[dict[str, Any]] = await database.call("ledger", user_id=user_id, before=before, limit=limit)
    return [Entry.model_validate(entry) for entry in found]


async def usage(database: Database, user_id: UUID, days: int) -> list[Day]:
    """The days on which something was spoken."""
    found: list[dict[str, Any]] = await database.call("usage", user_id=user_id, days=days)
    return [Day.model_validate(day) for day in found]


async def estimate(database: Database, text: str, speed: float) -> Estimate:
    """What would be reserved for a text."""
    return Estimate.model_validate(await database.call("estimate_credits", text=text, speed=speed))

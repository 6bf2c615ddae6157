"""The database's functions about credits."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

from saas.credits.aloud import aloud
from saas.credits.schemas import Credits, Day, Entry, Estimate
from saas.database import Database


class CreditRepository:
    """Each method is one transaction. All raise Refused and Unavailable. No credits are computed here."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def balance(self, user_id: UUID) -> Credits:
        """A user's balance and debt."""
        return Credits.model_validate(await self._database.call("get_profile", user_id=user_id))

    async def ledger(self, user_id: UUID, before: int | None, limit: int) -> list[Entry]:
        """A user's ledger entries, the newest first. `before` an entry's id: only older ones."""
        found: list[dict[str, Any]] = await self._database.call("ledger", user_id=user_id, before=before, limit=limit)
        return [Entry.model_validate(entry) for entry in found]

    async def usage(self, user_id: UUID, days: int, key_id: UUID | None) -> list[Day]:
        """The days on which a user's jobs, or those of one key, generated speech."""
        found: list[dict[str, Any]] = await self._database.call("usage", user_id=user_id, days=days, key_id=key_id)
        return [Day.model_validate(day) for day in found]

    async def estimate(self, text: str, speed: float) -> Estimate:
        """The reservation that a text would need."""
        read = await asyncio.to_thread(aloud, text)
        return Estimate.model_validate(
            await self._database.call("estimate_credits", text=text, speed=speed, letters=read.letters, silence=read.silence)
        )

    async def expire(self) -> None:
        """Take the credits whose time is over."""
        await self._database.call("expire_credits")

    async def grant(self, user_id: str, credits: int, reference: str | None) -> tuple[int, bool]:
        """The balance after a grant, and whether it was applied: a reference grants only once."""
        granted = await self._database.call("grant_credits", user_id=user_id, credits=credits, reference=reference)
        return int(granted["balance"]), bool(granted["applied"])

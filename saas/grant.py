"""`fishserve saas grant`: the desk's grant in one line, for a user's address."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

from inference.errors import RequestError
from saas.admin.connection import ask
from saas.admin.repository import ActRepository, DeskRepository, Operator
from saas.database import Database
from saas.settings import Settings


async def grant(settings: Settings, by: Operator, email: str, credits: int, reference: str | None) -> tuple[int, bool]:
    """Grant credits. Returns the new balance and whether any were granted: a reference grants once. Raises RequestError, FishserveError."""
    reference = reference or f"fishserve saas grant, {datetime.now(UTC):%Y-%m-%d %H:%M:%S} {secrets.token_hex(3)}"

    async def give(database: Database, _: Settings) -> tuple[int, bool]:
        user = await DeskRepository(database).user(email)
        if user is None or user["email"] is None or user["email"].lower() != email.strip().lower():
            raise RequestError(f"no user has the address {email}; a user must sign up first")
        done = await ActRepository(database).grant(by, user["id"], credits, reference)
        return int(done["balance"]), bool(done["applied"])

    return await ask(settings, give)

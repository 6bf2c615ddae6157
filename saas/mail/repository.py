"""The database's functions about mail."""

from __future__ import annotations

from typing import Any, TypedDict

from saas.database import Database
from saas.mail.messages import Kind


class Mail(TypedDict):
    """A message that this process has claimed. `address` is None for the operator's."""

    id: int
    address: str | None
    kind: Kind
    data: dict[str, Any]
    attempts: int
    created_at: str


class MailRepository:
    """Each method is one transaction. All raise Refused and Unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, limit: int, lease_seconds: float) -> list[Mail]:
        """Messages that are due, claimed for this process."""
        mails: list[Mail] = await self._database.call("claim_mails", limit=limit, lease_seconds=lease_seconds)
        return mails

    async def end(self, mail_id: int, attempt: int, error: str | None = None, *, final: bool = False) -> bool:
        """Record that a message was sent, or why not. Returns whether there is another attempt."""
        ended = await self._database.call("end_mail", mail_id=mail_id, attempt=attempt, error=error, final=final)
        return bool(ended["left"])

    async def expire(self) -> int:
        """Forget messages that nobody has sent for days. Returns how many."""
        answer = await self._database.call("expire_mails")
        return int(answer["expired"])

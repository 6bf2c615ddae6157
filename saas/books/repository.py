"""The database's functions for auditors and accountants."""

from __future__ import annotations

from typing import Any, TypedDict

from saas.database import Database

Row = dict[str, Any]


class Known(TypedDict):
    """An object that the database names. One that is not `needed` waits to be deleted, or for its upload."""

    key: str
    needed: bool


class BookRepository:
    """Each method is one transaction. All raise Refused and Unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def reachable(self) -> None:
        """Raises Unavailable where the database does not answer."""
        await self._database.call("health")

    async def ledger(self) -> list[Row]:
        """What of the ledger does not add up."""
        rows: list[Row] = await self._database.call("audit_ledger")
        return rows

    async def payments(self) -> list[Row]:
        """What of the payments does not add up."""
        rows: list[Row] = await self._database.call("audit_payments")
        return rows

    async def payments_of(self, references: list[str]) -> list[Row]:
        """The payments with these references."""
        rows: list[Row] = await self._database.call("payments_of", references=references)
        return rows

    async def known_objects(self, after: str, limit: int) -> list[Known]:
        """Objects that the bucket has or is to have, ordered by the bytes of their keys."""
        rows: list[Known] = await self._database.call("known_objects", after=after, limit=limit)
        return rows

    async def known_object(self, key: str) -> Row:
        """`known` and `needed` of one object."""
        row: Row = await self._database.call("known_object", key=key)
        return row

    async def outstanding(self, after: str | None, limit: int) -> list[Row]:
        """Users' credits, ordered by the users' ids."""
        rows: list[Row] = await self._database.call("outstanding_credits", after=after, limit=limit)
        return rows

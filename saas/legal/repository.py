"""The database's functions about accepted documents and reports of misuse."""

from __future__ import annotations

from typing import TypedDict
from uuid import UUID

from saas.database import Database
from saas.legal.schemas import DocumentName


class Acceptance(TypedDict):
    """That a user accepted a version of a document."""

    document: str
    version: str
    at: str


class LegalRepository:
    """Each method is one transaction. All raise Refused and Unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def acceptances(self, user_id: UUID) -> list[Acceptance]:
        """What a user has accepted, the newest first."""
        rows: list[Acceptance] = await self._database.call("list_acceptances", user_id=user_id)
        return rows

    async def accept(self, user_id: UUID, versions: dict[DocumentName, str]) -> list[Acceptance]:
        """Accept a version of each of these documents. Returns as `acceptances`. Raises Refused for a closed account."""
        rows: list[Acceptance] = await self._database.call("accept_documents", user_id=user_id, versions=versions)
        return rows

    async def report(self, kind: str, subject: str, details: str, contact: str | None, user_id: UUID | None) -> str:
        """Keep a report of misuse. Returns its id."""
        made = await self._database.call("report_misuse", kind=kind, subject=subject, details=details, contact=contact, user_id=user_id)
        return str(made["id"])

    async def expire_reports(self) -> int:
        """Delete reports that were closed long ago. Returns how many, at most 1000."""
        answer = await self._database.call("expire_reports")
        return int(answer["expired"])

"""Terms and privacy policy: which versions are current, who has accepted them, and what happens until then."""

from __future__ import annotations

from uuid import UUID

from saas.auth.caller import Caller
from saas.database import Database
from saas.errors import ApiError
from saas.legal.repository import Acceptance, LegalRepository
from saas.legal.schemas import Document, DocumentName, DocumentOfUser
from saas.settings import Settings

MAX_REMEMBERED = 100_000
"""Users who are remembered as having accepted the current versions: that stays true until the settings change."""
TITLES: dict[DocumentName, str] = {"terms": "terms of service", "privacy": "privacy policy"}


def current(settings: Settings) -> list[Document]:
    """The documents that the settings name."""
    s = settings
    found: list[Document] = []
    if s.terms_url:
        found.append(Document(name="terms", version=s.terms_version, url=s.terms_url))
    if s.privacy_url:
        found.append(Document(name="privacy", version=s.privacy_version, url=s.privacy_url))
    return found


class Legal:
    """Documents and reports. Its methods raise Refused and Unavailable."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._legal, self._documents, self._app = LegalRepository(database), current(settings), settings.app
        self.required = settings.terms_enforced and bool(self._documents)
        self._accepted: set[UUID] = set()

    async def of(self, user_id: UUID) -> list[DocumentOfUser]:
        """The current documents, and when the user accepted them."""
        return self._with(await self._legal.acceptances(user_id)) if self._documents else []

    async def accept(self, user_id: UUID, versions: dict[DocumentName, str]) -> list[DocumentOfUser]:
        """Accept documents in the versions that the user has read. Raises ApiError 404, and 409 when another version is current."""
        now = {document.name: document for document in self._documents}
        for name, version in versions.items():
            document = now.get(name)
            if document is None:
                raise ApiError(404, f"this service has no {TITLES[name]} to accept", "no_document", name)
            if version != document.version:
                raise ApiError(
                    409,
                    f"the {TITLES[document.name]} are now version {document.version!r}, not {version!r}: read {document.url}",
                    "other_version",
                    name,
                )
        return self._with(await self._legal.accept(user_id, versions))

    async def require(self, caller: Caller) -> None:
        """Raises ApiError 403 when the current documents must be accepted and the caller has not accepted all."""
        if not self.required or caller.user_id in self._accepted:
            return
        missing = [document for document in await self.of(caller.user_id) if document.accepted_at is None]
        if missing:
            what = " and ".join(f"{TITLES[document.name]} ({document.url}, version {document.version})" for document in missing)
            raise ApiError(403, f"accept the current {what} first: sign in at {self._app}; nothing was charged", "terms_not_accepted")
        if len(self._accepted) >= MAX_REMEMBERED:
            self._accepted.clear()
        self._accepted.add(caller.user_id)

    async def report(self, kind: str, subject: str, details: str, contact: str | None, user_id: UUID | None) -> str:
        """Keep a report of misuse. Returns its id."""
        return await self._legal.report(kind, subject, details, contact, user_id)

    async def expire_reports(self) -> None:
        """Delete reports that were closed long ago."""
        while await self._legal.expire_reports():
            pass

    def _with(self, accepted: list[Acceptance]) -> list[DocumentOfUser]:
        at = {(row["document"], row["version"]): row["at"] for row in accepted}
        return [DocumentOfUser.model_validate(d.model_dump() | {"accepted_at": at.get((d.name, d.version))}) for d in self._documents]

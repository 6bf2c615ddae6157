"""Request and response schemas of documents and reports."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

DocumentName = Literal["terms", "privacy"]
Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500, pattern=r"^[^\x00-\x1f]*$")]
Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=5000, pattern=r"^[^\x00]*$")]
Contact = Annotated[str, StringConstraints(strip_whitespace=True, max_length=320, pattern=r"^[^\x00-\x1f]*$")]


class Document(BaseModel):
    """The terms or the privacy policy, in their current version."""

    name: DocumentName
    version: str
    url: str = Field(description="Where to read it.")


class DocumentOfUser(Document):
    """A document, and when the caller accepted this version of it."""

    accepted_at: datetime | None = Field(description="null: not yet.")


class Documents(BaseModel):
    """The current documents. `required`: the API refuses to speak, to add voices and to sell until all are accepted."""

    documents: list[DocumentOfUser]
    required: bool


class Accepted(BaseModel):
    """The versions that a user has read and accepts."""

    model_config = ConfigDict(extra="forbid")

    terms: str | None = Field(None, max_length=100)
    privacy: str | None = Field(None, max_length=100)

    @property
    def versions(self) -> dict[DocumentName, str]:
        """Those that are named."""
        named: dict[DocumentName, str | None] = {"terms": self.terms, "privacy": self.privacy}
        return {name: version for name, version in named.items() if version is not None}


class ReportWanted(BaseModel):
    """A report of misuse: speech that should not be, or somebody's voice that was imitated without consent."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["speech", "voice"]
    subject: Line = Field(description="Which: an address where it is heard, or the id of a job or a voice.")
    details: Words = Field(description="What is wrong with it.")
    contact: Contact | None = Field(None, description="Where to answer, if you want an answer.")


class Report(BaseModel):
    """A report that was kept."""

    id: UUID

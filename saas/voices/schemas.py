"""Request and response schemas of voices."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field

MAX_BYTES = 25_000_000
"""The largest clip."""


class NewVoice(BaseModel):
    """A new voice, and the clip that you will upload for it. The person whose voice it is must have agreed."""

    name: str = Field(min_length=1, max_length=100)
    transcript: str = Field(min_length=1, max_length=2000, description="The clip's exact words.")
    content_type: str = Field(pattern=r"^(audio|video)/[a-z0-9.+-]{1,60}$", description="Its media type: audio/wav, audio/mpeg...")
    bytes: int = Field(ge=1, le=MAX_BYTES, description="The clip's exact size.")
    consent: Literal[True] = Field(description="The person whose voice it is has agreed to its imitation.")
    consent_version: str | None = Field(
        None, max_length=100, description="The version of the consent's wording that was shown (`GET /api/config`); null: the current one."
    )


class Rename(BaseModel):
    """A new name."""

    name: str = Field(min_length=1, max_length=100)


class VoiceOut(BaseModel):
    """A voice. `clip_url` is valid for 300 s; only requests for a single voice return it."""

    id: UUID
    name: str
    transcript: str
    status: Literal["pending", "ready", "refused", "blocked"]
    content_type: str
    bytes: int
    seconds: float | None = None
    reason: str | None = Field(None, description="Why it was refused or blocked.")
    created_at: datetime
    clip_url: str | None = None


class UploadOut(BaseModel):
    """Where to PUT the clip within 300 s, with exactly these headers."""

    url: str
    method: Literal["PUT"] = "PUT"
    headers: dict[str, str]


class CreatedVoice(BaseModel):
    """A voice that waits for its clip. Confirm it when the clip is uploaded."""

    voice: VoiceOut
    upload: UploadOut

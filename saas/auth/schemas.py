"""Request and response schemas of /api/me, /api/keys and /api/config."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from saas.auth.caller import Scope
from saas.billing.schemas import Plan
from saas.legal.schemas import Document

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=80, pattern=r"^[^\x00-\x1f]*$")]

Network = Annotated[str, StringConstraints(max_length=80, pattern=r"^[0-9A-Fa-f:./]+$")]


class Body(BaseModel):
    """A request body. An unknown field is an error."""

    model_config = ConfigDict(extra="forbid")


class Profile(BaseModel):
    """The profile of a user."""

    id: UUID
    email: str | None
    display_name: str | None
    plan: str
    balance: int
    created_at: datetime


class ProfileChange(Body):
    """The changes that a user can make to the profile."""

    display_name: Name


class KeyWanted(Body):
    """A new API key's name, scopes and limits."""

    name: Name
    scopes: list[Scope] = Field(["speak", "read"], min_length=1, max_length=3)
    expires_at: AwareDatetime | None = Field(None, description="When it ends; null: never.")
    monthly_credits: int | None = Field(None, ge=0, le=10**15, description="The most that it spends in a calendar month (UTC); null: all.")
    networks: list[Network] | None = Field(
        None, min_length=1, max_length=20, description="Where it is good from, such as 203.0.113.0/24; null: anywhere."
    )


class Key(BaseModel):
    """The public details of an API key, without its secret."""

    id: UUID
    name: str
    prefix: str
    scopes: list[str]
    expires_at: datetime | None
    monthly_credits: int | None
    networks: list[str] | None
    spent: int = Field(description="Credits that it spent in this calendar month (UTC), and has reserved.")
    last_used_at: datetime | None
    revoked_at: datetime | None
    created_at: datetime


class NewKey(BaseModel):
    """A new API key with its secret, which is shown only once."""

    key: Key
    secret: str = Field(description="Send it as `Authorization: Bearer fsk_...`. It is shown only once, and stored nowhere.")


class Limits(BaseModel):
    """The limits on requests."""

    characters: int
    speech_per_minute: int


class Consent(BaseModel):
    """What a user agrees to who adds a voice."""

    version: str
    wording: str


class Config(BaseModel):
    """The configuration that the app needs before a user signs in. All of it is public."""

    supabase_url: str
    supabase_key: str
    turnstile_site_key: str | None
    formats: list[str]
    limits: Limits
    packs: list[dict[str, Any]]
    plans: list[Plan]
    model: str
    documents: list[Document] = Field(description="Terms of service and privacy policy, if this service has them.")
    consent: Consent

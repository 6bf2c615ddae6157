"""Request and response schemas of /api/me, /api/keys and /api/config."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from saas.auth.caller import Scope

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=80, pattern=r"^[^\x00-\x1f]*$")]


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
    """A new API key's name and scopes."""

    name: Name
    scopes: list[Scope] = Field(["speak", "read"], min_length=1, max_length=3)


class Key(BaseModel):
    """The public details of an API key, without its secret."""

    id: UUID
    name: str
    prefix: str
    scopes: list[str]
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


class Config(BaseModel):
    """The configuration that the app needs before a user signs in. All of it is public."""

    supabase_url: str
    supabase_key: str
    turnstile_site_key: str | None
    formats: list[str]
    limits: Limits
    packs: list[dict[str, Any]]
    model: str

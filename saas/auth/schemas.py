"""Request and response schemas of /api/me, /api/keys and /api/config."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from saas.auth.caller import Scope

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=80, pattern=r"^[^\x00-\x1f]*$")]


class Body(BaseModel):
    """A request's body. A field that is not known is a mistake, and said to be one."""

    model_config = ConfigDict(extra="forbid")


class Profile(BaseModel):
    """Who is signed in."""

    id: UUID
    email: str | None
    display_name: str | None
    plan: str
    balance: int
    created_at: datetime


class ProfileChange(Body):
    """What a user may change of it."""

    display_name: Name


class KeyWanted(Body):
    """A new key's name, and what it may do."""

    name: Name
    scopes: list[Scope] = Field(["speak", "read"], min_length=1, max_length=3)


class Key(BaseModel):
    """A key as it can be shown: not the key."""

    id: UUID
    name: str
    prefix: str
    scopes: list[str]
    last_used_at: datetime | None
    revoked_at: datetime | None
    created_at: datetime


class NewKey(BaseModel):
    """A key, and this once the whole of it."""

    key: Key
    secret: str = Field(description="Send it as `Authorization: Bearer fsk_...`. It is shown this once, and kept nowhere.")


class Limits(BaseModel):
    """What one may ask for."""

    characters: int
    speech_per_minute: int


class Config(BaseModel):
    """What the app must know before anybody is signed in. All of it is public."""

    supabase_url: str
    supabase_key: str
    turnstile_site_key: str | None
    formats: list[str]
    limits: Limits
    packs: list[dict[str, Any]]
    model: str

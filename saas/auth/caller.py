"""Caller: who sent a request and what it may do; API keys and their hashes."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

Scope = Literal["speak", "voices", "read"]
SCOPES: frozenset[str] = frozenset(["speak", "voices", "read"])
"""The permissions that a key can have: to speak, to manage voices, to read. A session has them all, and some that no key can have."""
KEY = re.compile(r"fsk_([a-z0-9]{12})_([A-Za-z0-9_-]{43})")
"""An API key: its prefix and its secret."""


@dataclass(frozen=True)
class Caller:
    """An authenticated user. `key_id` is None in a session."""

    user_id: UUID
    key_id: UUID | None
    scopes: frozenset[str]
    email: str | None
    role: str | None = None
    """Of a session: the role in its `app_metadata`, which users cannot write."""
    signed_in_at: int | None = None
    """Of a session: when its user last gave a password, or the like (Unix seconds)."""


def new_key() -> tuple[str, str, str]:
    """A key's prefix, the key, and the stored hash of its secret. The secret has 256 random bits, so SHA-256 is enough."""
    prefix, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    return prefix, f"fsk_{prefix}_{secret}", hashed(secret)


def hashed(secret: str) -> str:
    """The hash of a key's secret, which the database stores instead of the secret."""
    return hashlib.sha256(secret.encode()).hexdigest()

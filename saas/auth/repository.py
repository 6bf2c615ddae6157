"""The database's functions about accounts and API keys."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypedDict
from uuid import UUID

from saas.database import Database


class KeyOwner(TypedDict):
    """The owner of an API key, and the key's scopes."""

    user_id: str
    key_id: str
    scopes: list[str]


class AccountRepository:
    """Each method is one transaction. All raise Refused and Unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def profile(self, user_id: UUID) -> dict[str, Any]:
        """The fields of `Profile`, and the balance. Raises Refused for a closed account."""
        row: dict[str, Any] = await self._database.call("get_profile", user_id=user_id)
        return row

    async def rename(self, user_id: UUID, display_name: str | None) -> dict[str, Any]:
        """Set another display name. Returns the profile."""
        row: dict[str, Any] = await self._database.call("update_profile", user_id=user_id, display_name=display_name)
        return row

    async def close(self, user_id: UUID) -> None:
        """Delete an account."""
        await self._database.call("close_account", user_id=user_id)

    async def export_tables(self) -> list[str]:
        """The tables that hold rows of users."""
        names: list[str] = await self._database.call("export_tables")
        return names

    async def export_rows(self, user_id: UUID, table: str, offset: int, limit: int) -> list[dict[str, Any]]:
        """A page of a user's rows of one of those tables, without secrets. `object_key`, where a row has one, is of a voice's clip."""
        rows: list[dict[str, Any]] = await self._database.call("export_rows", user_id=user_id, table=table, offset=offset, limit=limit)
        return rows

    async def keys(self, user_id: UUID) -> list[dict[str, Any]]:
        """The fields of `Key` for each valid key."""
        rows: list[dict[str, Any]] = await self._database.call("list_api_keys", user_id=user_id)
        return rows

    async def add_key(
        self, user_id: UUID, name: str, prefix: str, hash: str, scopes: list[str], expires_at: datetime | None = None,
        monthly_credits: int | None = None, networks: list[str] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Add a key, with its end, the most that it spends in a month and the networks that it is good from, each None for no limit.

        Returns the fields of `Key`.
        """
        made = await self._database.call(
            "create_api_key", user_id=user_id, name=name, prefix=prefix, hash=hash, scopes=scopes, expires_at=expires_at,
            monthly_credits=monthly_credits, networks=networks,
        )  # fmt: skip
        row: dict[str, Any] = made["key"]
        return row

    async def revoke_key(self, user_id: UUID, key_id: UUID) -> None:
        """Revoke a key."""
        await self._database.call("revoke_api_key", user_id=user_id, key_id=key_id)

    async def owner_of_key(self, prefix: str, hash: str, address: str | None) -> KeyOwner:
        """The owner of a key. Raises Refused: 401 for a key that does not exist or has ended, 403 for one that is not good from this address."""
        found: KeyOwner = await self._database.call("authenticate_api_key", prefix=prefix, hash=hash, address=address)
        return found

    async def find(self, email: str) -> dict[str, Any] | None:
        """The profile with that email address; None if there is none."""
        row: dict[str, Any] | None = await self._database.call("find_profile", email=email)
        return row

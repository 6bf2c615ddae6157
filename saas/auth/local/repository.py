"""The database's functions about users and sessions of embedded mode. Users are dictionaries as GoTrue shows them."""

from __future__ import annotations

from typing import Any, TypedDict

from saas.auth.local.schemas import Method, Purpose
from saas.database import Database

User = dict[str, Any]


class Found(TypedDict):
    """A user, and the password hash if the user has a password."""

    user: User
    password_hash: str | None


class Used(TypedDict):
    """What a link's token or its code was for: a user, and the challenge of the browser that asked for the link, if it sent one."""

    user: User
    challenge: str | None


class Opened(TypedDict):
    """A session, and how and when it began (Unix seconds)."""

    user: User
    session_id: str
    method: Method
    began: int


class LocalRepository:
    """Each method is one transaction. All raise Refused and Unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create_user(self, email: str, password_hash: str | None, confirmed: bool) -> User | None:
        """Create a user; None when the address already has an account."""
        user: User | None = await self._database.call("local_create_user", email=email, password_hash=password_hash, confirmed=confirmed)
        return user

    async def find_user(self, email: str) -> Found | None:
        """The user with that address."""
        found: Found | None = await self._database.call("local_find_user", email=email)
        return found

    async def update_user(self, user_id: str, session_id: str, password_hash: str | None) -> User:
        """Set a new password and end every other session."""
        user: User = await self._database.call("local_update_user", user_id=user_id, session_id=session_id, password_hash=password_hash)
        return user

    async def open_session(self, user_id: str, refresh_hash: str, method: Method) -> Opened:
        """Open a session."""
        opened: Opened = await self._database.call("local_open_session", user_id=user_id, refresh_hash=refresh_hash, method=method)
        return opened

    async def renew_session(self, old_hash: str, new_hash: str) -> Opened | None:
        """The session of a refresh token, with the token replaced; None when the session has ended."""
        opened: Opened | None = await self._database.call("local_renew_session", old_hash=old_hash, new_hash=new_hash)
        return opened

    async def session_user(self, user_id: str, session_id: str) -> User | None:
        """The user of a session; None when the session has ended."""
        user: User | None = await self._database.call("local_session_user", user_id=user_id, session_id=session_id)
        return user

    async def close_sessions(self, user_id: str, session_id: str, scope: str) -> None:
        """End this session, the user's other sessions, or all, depending on `scope`."""
        await self._database.call("local_close_sessions", user_id=user_id, session_id=session_id, scope=scope)

    async def create_token(self, user_id: str, purpose: Purpose, hash: str, seconds: int, challenge: str | None) -> None:
        """Store a link's token, valid once and for `seconds`."""
        await self._database.call("local_create_token", user_id=user_id, purpose=purpose, hash=hash, seconds=seconds, challenge=challenge)

    async def use_token(self, purpose: str, hash: str) -> Used | None:
        """Use up a link's token and return its user; None when the token is not valid."""
        used: Used | None = await self._database.call("local_use_token", purpose=purpose, hash=hash)
        return used

    async def create_code(self, user_id: str, hash: str, challenge: str, seconds: int) -> None:
        """Store a code that a link leads to, valid once and for `seconds`."""
        await self._database.call("local_create_code", user_id=user_id, hash=hash, challenge=challenge, seconds=seconds)

    async def use_code(self, hash: str) -> Used | None:
        """Use up a code and return its user; None when the code is not valid."""
        used: Used | None = await self._database.call("local_use_code", hash=hash)
        return used

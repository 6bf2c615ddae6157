"""API keys: a file with their hashes, and the middleware that requires one for every request."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path

from fastapi.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from inference.errors import RequestError

OPEN = frozenset(["/", "/health", "/ready", "/ping"])
"""Paths that need no key; neither do the files that the page loads."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_LINE = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9_.-]{0,63}) (?P<hash>[0-9a-f]{64})")


class Keys:
    """Names and hashes of API keys, one per line in a file. A changed file is read again, so that revoking a key takes effect at once.

    A key has 256 random bits, which nobody can guess, so SHA-256 is a sufficient hash.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int] | None = None
        self._hashes: dict[str, bytes] = {}

    def names(self) -> list[str]:
        """The names of all keys. Raises RequestError when the file cannot be read."""
        return list(self._read())

    def name_of(self, key: str) -> str | None:
        """The name of a key, or None for an unknown key. It is compared with every hash, each in constant time."""
        asked, found = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest(), None
        for name, kept in self._read().items():
            if hmac.compare_digest(asked, kept):
                found = name
        return found

    def add(self, name: str) -> str:
        """Create a key and return it; it cannot be shown again. Raises RequestError."""
        if not _NAME.fullmatch(name):
            raise RequestError(f"{name[:80]!r} cannot be a key's name; it has 1 to 64 letters, digits, points, - and _")
        known = self._read() if self.path.exists() else {}
        if name in known:
            raise RequestError(f"there is a key {name!r} already; delete it first, or choose another name")
        key = f"fs-{secrets.token_urlsafe(32)}"
        self._write(known | {name: hashlib.sha256(key.encode()).digest()})
        return key

    def delete(self, name: str) -> None:
        """Delete a key; requests with it are refused from then on. Raises RequestError."""
        known = self._read()
        if name not in known:
            raise RequestError(f"there is no key {name[:80]!r}; there are {', '.join(known) or 'none'}")
        self._write({n: kept for n, kept in known.items() if n != name})

    def _read(self) -> dict[str, bytes]:
        try:
            stat = self.path.stat()
            if self._seen != (stat.st_mtime_ns, stat.st_size):
                lines = self.path.read_text(encoding="ascii").split("\n")
                found = [_LINE.fullmatch(line) for line in lines if line]
                if None in found:
                    raise RequestError(f"{self.path} is not a file of keys: line {found.index(None) + 1} is not a name and a hash")
                self._hashes = {m["name"]: bytes.fromhex(m["hash"]) for m in found if m}
                self._seen = stat.st_mtime_ns, stat.st_size
        except PermissionError:
            raise RequestError(
                f"{self.path} cannot be read by user {os.getuid()}; make that user its owner: chown {os.getuid()} {self.path}"
            ) from None
        except (OSError, ValueError) as e:
            raise RequestError(
                f"{self.path} cannot be read: {getattr(e, 'strerror', None) or e}; `fishserve keys add NAME` makes it"
            ) from None
        return self._hashes

    def _write(self, hashes: dict[str, bytes]) -> None:
        try:
            handle, temporary = tempfile.mkstemp(dir=self.path.parent)  # readable by its owner only
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.writelines(f"{name} {kept.hex()}\n" for name, kept in hashes.items())
            Path(temporary).replace(self.path)
        except OSError as e:
            raise RequestError(f"{self.path} cannot be written: {e.strerror}") from None


class Guard:
    """Answers 401 to requests without a valid key, before reading their bodies. It stores the key's name in the scope, for the log."""

    def __init__(self, app: ASGIApp, keys: Keys, refuse: Callable[[str, int, str, dict[str, str]], Response]) -> None:
        self._app, self._keys, self._refuse = app, keys, refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in OPEN or scope["path"].startswith("/page/"):
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        kind, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        key = token.strip() if kind.lower() == "bearer" else headers.get(b"xi-api-key", b"").decode("latin-1")
        try:
            name = self._keys.name_of(key) if key else None
        except RequestError:  # when the file cannot be read, no key is valid
            name = None
        if name is not None:
            scope["key"] = name
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # before accepting it: the client sees 403
        else:
            words = "the key is not known here" if key else "a key is missing; send it as `Authorization: Bearer KEY`"
            await self._refuse(scope["path"], 401, words, {"WWW-Authenticate": "Bearer"})(scope, receive, send)

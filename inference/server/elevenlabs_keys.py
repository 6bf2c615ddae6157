"""Takes the key of ElevenLabs' WebSockets from the query or the first message: browsers set no headers."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

PATHS = ("/stream-input", "/multi-stream-input")
"""The ends of the paths of ElevenLabs' WebSockets."""
FIRST_MESSAGE_SECONDS = 10
"""How long a connection may be open without a key."""
MAX_WITHOUT_KEY = 32
"""Connections that may wait for their first message at once; further ones must send a key in a header or in the query."""
MAX_FIRST_MESSAGE = 20_000
"""Characters of a message in which a key is looked for."""
_NAMES = ("xi-api-key", "xi_api_key", "authorization")


class KeyInFirstMessage:
    """Turns the key of the query or of the first message into a header, for the middleware behind that asks for a key.

    Before there is a valid key, the client learns nothing but that its key is missing or wrong.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app, self._waiting = app, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket" or not scope["path"].endswith(PATHS) or _has_key(scope):
            await self._app(scope, receive, send)
        elif key := _key_of({name: values[0] for name, values in parse_qs(scope["query_string"].decode("latin-1")).items()}):
            _add(scope, key)
            await self._app(scope, receive, send)
        elif self._waiting >= MAX_WITHOUT_KEY:
            await self._app(scope, receive, send)
        else:
            await self._first_message(scope, receive, send)

    async def _first_message(self, scope: Scope, receive: Receive, send: Send) -> None:
        connect = await receive()
        await send({"type": "websocket.accept"})
        self._waiting += 1
        try:
            async with asyncio.timeout(FIRST_MESSAGE_SECONDS):
                first = await receive()
        except TimeoutError:
            first = {"type": "websocket.receive", "text": ""}
        finally:
            self._waiting -= 1
        key = _key_in(first)
        if key:
            _add(scope, key)
        earlier, accepted = [first, connect], False

        async def replayed() -> Message:
            return earlier.pop() if earlier else await receive()

        async def once_accepted(message: Message) -> None:
            nonlocal accepted
            if message["type"] == "websocket.accept":
                accepted = True
                return
            if message["type"] == "websocket.close" and not accepted:  # the key is refused
                words = "the key is not known here" if key else "a key is missing; send it as xi_api_key in the first message"
                await send({"type": "websocket.send", "text": json.dumps({"message": words, "error": "invalid_api_key", "code": 1008})})
            await send(message)

        if first["type"] == "websocket.receive":
            await self._app(scope, replayed, once_accepted)


def _has_key(scope: Scope) -> bool:
    return any(name in (b"authorization", b"xi-api-key") for name, _ in scope["headers"])


def _add(scope: Scope, key: str) -> None:
    scope["headers"] = [*scope["headers"], (b"xi-api-key", key.encode("utf-8", "surrogateescape"))]


def _key_in(message: Message) -> str:
    """The key in a message; "" for none."""
    content = message.get("text") or message.get("bytes") or ""
    if len(content) > MAX_FIRST_MESSAGE:
        return ""
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError):
        return ""
    return _key_of(fields) if isinstance(fields, dict) else ""


def _key_of(fields: dict[str, Any]) -> str:
    """The key among the fields of a query or a message, whether or not "Bearer" stands before it."""
    value = next((fields[name] for name in _NAMES if isinstance(fields.get(name), str) and fields[name]), "")
    kind, _, token = value.strip().partition(" ")
    return token.strip() if kind.lower() == "bearer" else value.strip()

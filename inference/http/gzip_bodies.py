"""Decompresses gzip request bodies piece by piece, so that limits hold for the decompressed size."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable

from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PIECE_BYTES = 65_536
"""How much of a body is decompressed at a time."""
_GZIP, _PLAIN = frozenset([b"gzip", b"x-gzip"]), frozenset([b"", b"identity"])


class GzipBodies:
    """Lets clients send `Content-Encoding: gzip`. Another encoding gets 415, and a body that is no gzip 400.

    It belongs in front of `BodyLimit`, which then limits the decompressed size.
    """

    def __init__(self, app: ASGIApp, refuse: Callable[[str, int, str, dict[str, str]], Response]) -> None:
        self._app, self._refuse = app, refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        encoding = dict(scope["headers"]).get(b"content-encoding", b"").strip().lower() if scope["type"] == "http" else b""
        if encoding in _PLAIN:
            await self._app(scope, receive, send)
        elif encoding in _GZIP:
            named = (b"content-encoding", b"content-length")
            scope["headers"] = [(name, value) for name, value in scope["headers"] if name not in named]
            await self._app(scope, _Inflated(receive), send)
        else:
            words = f"Content-Encoding is {encoding.decode('latin-1')[:80]!r}; send the body uncompressed or with gzip"
            await self._refuse(scope["path"], 415, words, {"Accept-Encoding": "gzip"})(scope, receive, send)


class _Inflated:
    """The messages of a gzip body, decompressed in a thread."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self._waiting, self._more, self._over = b"", True, False

    async def __call__(self) -> Message:
        if self._over:  # from here on it waits for the client's disconnect
            return await self._receive()
        if not self._waiting and self._more:
            message = await self._receive()
            if message["type"] != "http.request":
                return message
            self._waiting, self._more = message.get("body", b""), message.get("more_body", False)
        try:
            content = await asyncio.to_thread(self._inflate.decompress, self._waiting, PIECE_BYTES)
        except zlib.error:
            raise HTTPException(400, "the request body is not valid gzip") from None
        self._waiting = self._inflate.unconsumed_tail
        if self._inflate.unused_data:
            raise HTTPException(400, "the request body has bytes after the end of its gzip data")
        self._over = not self._waiting and not self._more and len(content) < PIECE_BYTES
        if self._over and not self._inflate.eof:
            raise HTTPException(400, "the request body's gzip data ends too early")
        return {"type": "http.request", "body": content, "more_body": not self._over}

"""Timeouts and size limits for clients that send slowly or never finish."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

HEADER_SECONDS = 15
"""The server closes a connection whose next request's headers are still incomplete after one to two times this long."""
BODY_SECONDS = 120
"""How long a request body may take to arrive."""


# uvicorn picks the base class while it is imported (httptools, else h11), so mypy sees a variable and not a type.
class HeaderTimeoutProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's HTTP protocol with a header timeout."""

    def connection_made(self, transport: Any) -> None:
        """Start the header timeout."""
        super().connection_made(transport)
        self._waited = False
        self._look_later()

    def _look_later(self) -> None:
        self._next_look = self.loop.call_later(HEADER_SECONDS, self._look)

    def _look(self) -> None:
        if self.transport.is_closing() or self.transport.get_protocol() is not self:  # the connection is a WebSocket now
            return
        answering = self.cycle is not None and not self.cycle.response_complete
        waiting = not answering and self.timeout_keep_alive_task is None  # else uvicorn's own timeout applies
        if waiting and self._waited:
            self.transport.close()
            return
        self._waited = waiting
        self._look_later()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the header timeout."""
        self._next_look.cancel()
        super().connection_lost(exc)


class DrainingWebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol, but a shutdown does not cut off open connections; uvicorn waits for them as for all requests."""

    def shutdown(self) -> None:
        """Let an open connection end by itself."""
        if not self.handshake_complete:
            super().shutdown()


class BodyLimit:
    """Refuses request bodies over the limit with 413 before reading them whole.

    Paths with a prefix in `larger` have the limit `larger_limit`.
    """

    def __init__(
        self, app: ASGIApp, limit: int, refuse: Callable[[str, int, str], Response], larger: tuple[str, ...] = (), larger_limit: int = 0
    ) -> None:
        self._app, self._limit, self._refuse, self._larger, self._larger_limit = app, limit, refuse, larger, larger_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        deadline: float | None = asyncio.get_running_loop().time() + BODY_SECONDS
        size, limit = 0, self._larger_limit if scope.get("path", "").startswith(self._larger) else self._limit
        message = f"the request body is larger than {limit:,} bytes"

        async def limited() -> Message:
            nonlocal size, deadline
            try:
                async with asyncio.timeout_at(deadline):
                    received = await receive()
            except TimeoutError:
                raise HTTPException(408, f"the request body took longer than {BODY_SECONDS} s") from None
            if not received.get("more_body"):
                deadline = None  # from here on it waits for the client's disconnect
            size += len(received.get("body", b""))
            if size > limit:
                raise HTTPException(413, message)
            return received

        declared = dict(scope.get("headers", ())).get(b"content-length", b"")
        if declared.isdigit() and int(declared) > limit:
            await self._refuse(scope["path"], 413, message)(scope, receive, send)
        else:
            await self._app(scope, limited if scope["type"] == "http" else receive, send)

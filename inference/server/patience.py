"""How long a client may take to say what it wants: one that never finishes must not hold a connection for ever."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

HEADER_SECONDS = 15
"""A connection whose next request's headers are not complete after once to twice as long is closed."""
BODY_SECONDS = 120
"""How long a body may take."""


class Impatient(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's HTTP, which waits for headers as long as they take, with an end to that."""

    def connection_made(self, transport: Any) -> None:
        """Begin to wait."""
        super().connection_made(transport)
        self._waited = False
        self._look_later()

    def _look_later(self) -> None:
        self._next_look = self.loop.call_later(HEADER_SECONDS, self._look)

    def _look(self) -> None:
        if self.transport.is_closing() or self.transport.get_protocol() is not self:  # it speaks WebSocket now
            return
        answering = self.cycle is not None and not self.cycle.response_complete
        waiting = not answering and self.timeout_keep_alive_task is None  # else uvicorn itself waits, and ends it
        if waiting and self._waited:
            self.transport.close()
            return
        self._waited = waiting
        self._look_later()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._next_look.cancel()
        super().connection_lost(exc)


class Patient(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket, which cuts every conversation off when the server is to end; uvicorn waits for them as for all requests."""

    def shutdown(self) -> None:
        """Let a conversation come to its own end."""
        if not self.handshake_complete:
            super().shutdown()

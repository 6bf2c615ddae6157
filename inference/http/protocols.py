"""uvicorn's protocols for HTTP and WebSockets, with limits on what a connection may send and on how long it may take to read.

uvicorn has no such limits, so that one client could hold up all the others: it parses on the event loop, in the order of arrival.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame

MAX_HEAD_BYTES = 65_536
"""Bytes of a request line and headers together; also of trailers."""
MAX_HEADERS = 100
"""Headers and trailers of one request."""
HEADER_SECONDS = 15
"""The server closes a connection whose next request's headers are still incomplete after one to two times this long."""
WRITE_SECONDS = 120
"""How long a client may take nothing of what waits to be sent to it."""
SLICE = 4096
"""Bytes of a WebSocket that are parsed before other connections have their turn."""
SMALL_FRAME, MAX_SMALL_FRAMES, FRAME_SECONDS = 512, 1000, 10
"""Pings, pongs and fragments of a message below `SMALL_FRAME` bytes bring nothing: so many are accepted in so many seconds."""


class _WriteDeadline(asyncio.Protocol):
    """Ends a connection whose client does not read, with all that waits to be sent."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    _deadline: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """Start the deadline: the buffer is full."""
        super().pause_writing()
        self._deadline = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Cancel the deadline."""
        super().resume_writing()
        self._end_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the deadline."""
        self._end_deadline()
        super().connection_lost(exc)

    def _end_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()


class HTTPProtocol(_WriteDeadline, HttpToolsProtocol):
    """HTTP with limits on the size of headers and trailers, and a time limit for headers."""

    def connection_made(self, transport: Any) -> None:
        """Start the header timeout."""
        super().connection_made(transport)
        self._unfinished = self._head_bytes = self._head_lines = 0
        self._waited = False
        self._look_later()

    def data_received(self, data: bytes) -> None:
        """Parse what came. Bytes that complete neither the headers, nor a piece of the body, nor the request, count towards the limit."""
        if self.transport.is_closing():
            return
        self._unfinished += len(data)
        super().data_received(data)
        if self._unfinished > MAX_HEAD_BYTES and not self.transport.is_closing() and self.transport.get_protocol() is self:
            self.send_400_response("")

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._head_bytes = self._head_lines = 0

    def on_url(self, url: bytes) -> None:
        """A part of the URL was parsed."""
        self._count(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer, was parsed."""
        self._head_lines += 1
        self._count(name, value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """All headers were parsed."""
        self._unfinished = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body came."""
        self._unfinished = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._unfinished = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, and what is too large; if the response has begun, end the connection."""
        large = self._unfinished > MAX_HEAD_BYTES or self._head_is_too_large
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.abort()
        elif large:
            words = f"the headers are too large; {MAX_HEAD_BYTES:,} bytes and {MAX_HEADERS} headers are accepted".encode()
            self.transport.write(
                STATUS_LINE[431]
                + b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(words)
                + words
            )
            self.transport.close()
        else:
            super().send_400_response(msg)

    @property
    def _head_is_too_large(self) -> bool:
        return self._head_bytes > MAX_HEAD_BYTES or self._head_lines > MAX_HEADERS

    def _count(self, *parts: bytes) -> None:
        """Raises ValueError, which ends the parsing, when the head has too much."""
        self._head_bytes += sum(map(len, parts))
        if self._head_is_too_large:
            raise ValueError("the headers are too large")

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        answering: Any = CloseDelimited(app, cycle) if cycle.scope["http_version"] == "1.0" else app
        super()._start_asgi_task(cycle, answering)

    def _look_later(self) -> None:
        self._next_look = self.loop.call_later(HEADER_SECONDS, self._look)

    def _look(self) -> None:
        if self.transport.get_protocol() is not self:  # the connection is a WebSocket now
            return
        if self.transport.is_closing():  # and is not closed: the client does not read the rest
            self._next_look = self.loop.call_later(WRITE_SECONDS, self.transport.abort)
            return
        answering = self.cycle is not None and not self.cycle.response_complete
        waiting = not answering and self.timeout_keep_alive_task is None  # else uvicorn's own timeout applies
        if waiting and self._waited:
            self.transport.close()
        self._waited = waiting
        self._look_later()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the header timeout."""
        self._next_look.cancel()
        super().connection_lost(exc)


class CloseDelimited:
    """Answers a client of HTTP/1.0, which knows no chunks: a reply without a length ends with its connection (RFC 9112, section 6.3)."""

    def __init__(self, app: ASGIApp, cycle: RequestResponseCycle) -> None:
        self._app, self._cycle = app, cycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        cycle, without_length = self._cycle, False

        async def unchunked(message: Message) -> None:
            nonlocal without_length
            if message["type"] == "http.response.start":
                without_length = all(name.lower() != b"content-length" for name, _ in message.get("headers", ()))
                if without_length:
                    cycle.chunked_encoding = False
            elif without_length:
                cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, unchunked)
        except BaseException:
            if without_length:  # an orderly end would mean that the reply is whole, so it is a reset
                cycle.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                cycle.transport.abort()
            raise


class WebSocketProtocol(_WriteDeadline, WebSocketsSansIOProtocol):
    """WebSockets parsed a slice at a time, with a limit on frames that bring nothing.

    A shutdown does not cut off open connections; uvicorn waits for them as for all requests.
    """

    def connection_made(self, transport: Any) -> None:
        """The handshake begins."""
        super().connection_made(transport)
        self._received = bytearray()
        self._parsing_soon = False
        self._small_frames, self._counted_from = 0, self.loop.time()

    def data_received(self, data: bytes) -> None:
        """Take bytes; parse them while the application keeps up."""
        self._received += data
        if not self._parsing_soon and not self.read_paused:
            self._parse()

    async def receive(self) -> Any:
        """The next message, for the application."""
        message = await super().receive()
        if self._received and not self.read_paused:
            self._parse_soon()
        return message

    def shutdown(self) -> None:
        """Let an open connection end by itself."""
        if not self.handshake_complete:
            super().shutdown()

    def handle_cont(self, event: Frame) -> None:
        """A further fragment of a message."""
        if len(event.data) < SMALL_FRAME:
            self._count()
        super().handle_cont(event)

    def handle_ping(self) -> None:
        """A ping."""
        self._count()
        super().handle_ping()

    def handle_pong(self, event: Frame) -> None:
        """A pong."""
        self._count()
        super().handle_pong(event)

    def _parse(self) -> None:
        self._parsing_soon = False
        piece = bytes(self._received[:SLICE])
        del self._received[:SLICE]
        if not self.transport.is_closing():
            super().data_received(piece)
        if self.transport.is_closing():
            self._received.clear()
        elif self._received and not self.read_paused:
            self._parse_soon()
        elif not self.read_paused:
            self.transport.resume_reading()

    def _parse_soon(self) -> None:
        self.transport.pause_reading()
        if not self._parsing_soon:
            self._parsing_soon = True
            self.loop.call_soon(self._parse)

    def _count(self) -> None:
        now = self.loop.time()
        if now - self._counted_from > FRAME_SECONDS:
            self._small_frames, self._counted_from = 0, now
        self._small_frames += 1
        if self._small_frames == MAX_SMALL_FRAMES and not self.transport.is_closing():
            self.conn.fail(CloseCode.POLICY_VIOLATION, f"more than {MAX_SMALL_FRAMES} small frames in {FRAME_SECONDS} s")
            self.handle_parser_exception()

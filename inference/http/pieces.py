"""Sends large answers piece by piece: of what a slow client has not read yet, only a piece waits in the connection's buffer."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

PIECE_BYTES = 65_536


class Pieces:
    """Splits the bodies of answers. The request lasts until the client has taken all but the last piece."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def split(message: Message) -> None:
            body = message.get("body", b"")
            if message["type"] != "http.response.body" or len(body) <= PIECE_BYTES:
                await send(message)
                return
            view = memoryview(body)
            for start in range(0, len(body), PIECE_BYTES):
                piece = bytes(view[start : start + PIECE_BYTES])
                more = start + PIECE_BYTES < len(body) or message.get("more_body", False)
                await send({"type": "http.response.body", "body": piece, "more_body": more})

        await self._app(scope, receive, split if scope["type"] == "http" else send)

"""Stream: the pieces of a file on their way from the job that makes it to the client that listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator


class Stream:
    """Pieces of a file on their way to one client, which may disconnect."""

    def __init__(self) -> None:
        self._pieces: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self._first: bytes | Exception | None = None
        self.left, self.frames, self.seconds = False, 0, 0.0

    def give(self, piece: bytes) -> None:
        """Add the next piece."""
        self._pieces.put_nowait(piece)

    def end(self, error: Exception | None = None) -> None:
        """End the stream, or break it off with an error."""
        self._pieces.put_nowait(error)

    async def begin(self) -> None:
        """Wait for the first piece. Raises the error that came before it."""
        self._first = await self._pieces.get()
        if isinstance(self._first, Exception):
            raise self._first

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate after `begin`. Sets `left` when the client disconnects early."""
        try:
            piece = self._first
            while piece is not None:
                if isinstance(piece, Exception):
                    raise piece  # not a clean end: no client must mistake a part for the whole
                yield piece
                piece = await self._pieces.get()
        finally:
            self.left = True

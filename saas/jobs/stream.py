"""Stream: the bytes of a file on their way from the job that makes it to the client that listens. They wait on disk for a slow client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from inference.spool import Spool


class Stream:
    """A file on its way to one client, which may disconnect. The job writes it; `spool` is closed when both are done with it."""

    def __init__(self) -> None:
        self.spool = Spool()
        self._news = asyncio.Event()
        self._ended = False
        self._error: Exception | None = None
        self.left, self.frames, self.seconds = False, 0, 0.0

    def tell(self, seconds: float, frames: int) -> None:
        """There is more in the spool: so much speech in all."""
        self.seconds, self.frames = seconds, frames
        self._news.set()

    def end(self, error: Exception | None = None) -> None:
        """End the stream, or break it off with an error."""
        self._ended, self._error = True, error
        self._news.set()
        if self.left:
            self.spool.close()

    def close(self) -> None:
        """The client has heard all, or is gone."""
        self.left = True
        if self._ended:
            self.spool.close()

    async def begin(self) -> None:
        """Wait for the first bytes. Raises the error that came before them."""
        await self._more(0)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Raises the error that broke the stream off: no client must mistake a part for the whole."""
        at = 0
        try:
            while await self._more(at):
                piece = await asyncio.to_thread(self.spool.read, at)
                at += len(piece)
                yield piece
        finally:
            self.close()

    async def _more(self, at: int) -> bool:
        """Wait until there is more than this; False at the end."""
        while self.spool.size <= at and not self._ended:
            self._news.clear()
            await self._news.wait()
        if self.spool.size <= at and self._error:
            raise self._error
        return self.spool.size > at

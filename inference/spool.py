"""A file that is being made: it waits on disk, not in memory, until it is sent."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import threading
import weakref
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, suppress
from typing import IO, Any

PIECE_BYTES = 65_536


class Spool(AbstractContextManager["Spool"]):
    """Bytes on disk, in the folder that TMPDIR names. Its methods raise OSError where the disk is full.

    One task writes; others may read what is there. `close` deletes the file, and so does the collector, should nobody close it.
    """

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - `close` closes it
        self._closing = weakref.finalize(self, self._file.close)
        self._busy = threading.Lock()  # a thread that still writes must not find another file under the number of this one
        self.size = 0

    async def write(self, piece: bytes) -> None:
        """Add to its end."""
        await asyncio.to_thread(self.append, piece)

    def append(self, piece: bytes) -> None:
        """As `write`, in this thread. Where the disk is full, the file stays as it was."""
        try:
            self.overwrite(self.size, piece)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._file.fileno(), self.size)
            raise
        self.size += len(piece)

    def overwrite(self, at: int, piece: bytes) -> None:
        """Change bytes that are there."""
        left = memoryview(piece)
        with self._busy:
            while left:
                written = os.pwrite(self._file.fileno(), left, at)
                left, at = left[written:], at + written

    def read(self, at: int, most: int = PIECE_BYTES) -> bytes:
        """Up to `most` bytes from this position."""
        with self._busy:
            return os.pread(self._file.fileno(), most, at)

    async def pieces(self) -> AsyncIterator[bytes]:
        """All that is there, piece by piece."""
        at = 0
        while at < self.size:
            yield (piece := await asyncio.to_thread(self.read, at))
            at += len(piece)

    def digest(self, algorithm: Any = hashlib.sha256) -> str:
        """The checksum of all that is there, in hexadecimal. Blocks."""
        found = algorithm()
        for at in range(0, self.size, PIECE_BYTES):
            found.update(self.read(at))
        return str(found.hexdigest())

    def open(self) -> IO[bytes]:
        """The same bytes as a file object at the beginning, for one reader at a time, who closes it."""
        file = os.fdopen(os.dup(self._file.fileno()), "rb")
        file.seek(0)
        return file

    def close(self) -> None:
        """Delete the file, which has no name: it ends with this process, too. To close it twice does no harm."""
        with self._busy:
            self._closing()

    def __exit__(self, *_: object) -> None:
        self.close()

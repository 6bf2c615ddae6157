"""Everything this service holds of a user, as a ZIP that is made while it is sent. Rows come a page at a time, clips piece by piece.

Results are listed, not packed: a row of jobs.json whose `audio_kept` is true has its file at GET /api/jobs/{id} for as long as `expires_at` says.
"""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from saas.auth.repository import AccountRepository
from saas.storage.bucket import Bucket

PAGE = 500
"""Rows that are in memory at once."""
FILE_NAMES = {"transactions": "ledger", "cloned_voices": "voices"}
"""What the API calls the rows of a table."""


class Export:
    """The bytes of one user's ZIP. Iterating raises Unavailable and StorageError, which break the download off: it has no end then."""

    def __init__(self, accounts: AccountRepository, bucket: Bucket, user_id: UUID) -> None:
        self._accounts, self._bucket, self._user_id = accounts, bucket, user_id
        self._out = _Pipe()
        self._zip = zipfile.ZipFile(self._out, "w", zipfile.ZIP_DEFLATED)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        clips: list[tuple[str, str]] = []
        for table in await self._accounts.export_tables():
            async for piece in self._rows(table, clips):
                yield piece
        for name, key in clips:
            async for piece in self._clip(name, key):
                yield piece
        self._zip.close()
        yield self._out.take()

    async def _rows(self, table: str, clips: list[tuple[str, str]]) -> AsyncIterator[bytes]:
        """A file of JSON: an array with one row a line. Fills in the clips that follow."""
        with self._zip.open(_entry(f"{FILE_NAMES.get(table, table)}.json", zipfile.ZIP_DEFLATED), "w", force_zip64=True) as file:
            begun, offset = b"[", 0
            while rows := await self._accounts.export_rows(self._user_id, table, offset, PAGE):
                for row in rows:
                    if key := row.pop("object_key", None):
                        row["clip"] = f"clips/{row['id']}.{row['content_type'].rpartition('/')[2]}"
                        clips.append((row["clip"], key))
                await asyncio.to_thread(file.write, begun + _lines(rows))
                begun, offset = b",", offset + len(rows)
                yield self._out.take()
                if len(rows) < PAGE:
                    break
            file.write(b"\n]\n" if offset else b"[]\n")
        yield self._out.take()

    async def _clip(self, name: str, key: str) -> AsyncIterator[bytes]:
        download = await self._bucket.open(key)
        if download is None:  # its voice was deleted meanwhile
            return
        try:
            with self._zip.open(_entry(name, zipfile.ZIP_STORED), "w", force_zip64=True) as file:
                async for piece in download:
                    file.write(piece)
                    yield self._out.take()
        finally:
            download.close()
        yield self._out.take()


class _Pipe(io.RawIOBase):
    """What the ZIP is written to: it has no `seek`, so that nothing goes back to bytes that were sent."""

    def __init__(self) -> None:
        self._waiting = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._waiting += data
        return len(data)

    def take(self) -> bytes:
        """What was written since the last time."""
        taken = bytes(self._waiting)
        self._waiting.clear()
        return taken


def _entry(name: str, compression: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, datetime.now(UTC).timetuple()[:6])
    entry.compress_type = compression
    return entry


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return ",".join("\n" + json.dumps(row, ensure_ascii=False) for row in rows).encode("utf-8", "surrogatepass")

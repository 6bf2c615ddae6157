"""A voice's life: a row and an address to upload to, a clip that was looked at, and nothing left at the end.

The clip is uploaded beside its final place and copied there by this program once it is known to be one: the address to upload to stays good for
a while, and nobody must exchange a clip after it was looked at.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import NoReturn

from inference.audio.subprocess_decoder import decode_in_subprocess
from inference.errors import AudioError, Overloaded
from saas.database import Database, Refused
from saas.errors import ApiError
from saas.storage.bucket import Bucket, StorageError, Upload, upload_key
from saas.voices.repository import VoiceRepository, VoiceRow
from saas.voices.schemas import NewVoice

SAMPLE_RATE = 44_100
MAX_WAITING, AT_ONCE = 16, 2
"""Users whose clips may wait to be decoded, and clips that are."""


class Voices:
    """Voices of all users. Its methods raise Refused, Unavailable and StorageError."""

    def __init__(self, database: Database, bucket: Bucket) -> None:
        self._voices, self._bucket = VoiceRepository(database), bucket
        self._looking: set[str] = set()
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def create(self, user_id: str, asked: NewVoice) -> tuple[VoiceRow, Upload]:
        """A pending voice, and where its clip goes."""
        row = await self._voices.create(
            user_id, name=asked.name, transcript=asked.transcript, content_type=asked.content_type, bytes=asked.bytes
        )
        return row, self._bucket.put_url(upload_key(row["object_key"]), row["content_type"], row["bytes"])

    async def confirm(self, user_id: str, voice_id: str) -> VoiceRow:
        """Look at what was uploaded, and make the voice ready. Raises ApiError that says why not: 409 before an upload, 422 for no good clip."""
        row = await self.get(user_id, voice_id)
        if row["status"] == "ready":
            return row
        if row["status"] == "refused":
            raise ApiError(422, f"this voice was refused: {row['reason']}; make another", "clip_refused", "clip")
        uploaded = upload_key(row["object_key"])
        stored = await self._bucket.head(uploaded)
        if stored is None:
            raise ApiError(409, "the clip has not been uploaded; PUT it to the address you were given, then confirm", "not_uploaded")
        if (stored.bytes, stored.content_type) != (row["bytes"], row["content_type"]):
            said = f"{row['bytes']:,} bytes of {row['content_type']}"
            await self._refuse(row, f"what was uploaded is {stored.bytes:,} bytes of {stored.content_type[:60]}; {said} were announced")
        async with self._in_turn(user_id):
            content = await self._bucket.read(uploaded, most=row["bytes"])
            if content is None:
                raise ApiError(409, "the clip has been deleted meanwhile", "not_uploaded")
            try:
                seconds = round(len(await asyncio.to_thread(decode_in_subprocess, content)) / SAMPLE_RATE, 3)
            except AudioError as e:
                await self._refuse(row, str(e))
            await self._bucket.put(row["object_key"], content, row["content_type"])
            sha256 = hashlib.sha256(content).hexdigest()
        try:
            ready = await self._voices.confirm(user_id, voice_id, seconds, sha256)
        except Refused:  # it was deleted meanwhile, and the clip that was there until now with it
            await self._bucket.delete(row["object_key"])
            raise
        await self._bucket.delete(uploaded)
        return ready

    async def list(self, user_id: str) -> list[VoiceRow]:
        """The newest first."""
        return await self._voices.list(user_id)

    async def get(self, user_id: str, voice_id: str) -> VoiceRow:
        """One voice."""
        return await self._voices.get(user_id, voice_id)

    async def rename(self, user_id: str, voice_id: str, name: str) -> VoiceRow:
        """Its name, and nothing else, can be changed."""
        return await self._voices.rename(user_id, voice_id, name)

    async def delete(self, user_id: str, voice_id: str) -> None:
        """Its words go at once and its clip before the answer; should the bucket not answer, the list of what is to be deleted has it."""
        row = await self.get(user_id, voice_id)
        await self._voices.delete(user_id, voice_id)
        with suppress(StorageError):
            for key in (row["object_key"], upload_key(row["object_key"])):
                await self._bucket.delete(key)

    def clip_url(self, row: VoiceRow) -> str | None:
        """Where to listen to it, for 300 s."""
        return self._bucket.get_url(row["object_key"]) if row["status"] == "ready" else None

    @asynccontextmanager
    async def _in_turn(self, user_id: str) -> AsyncIterator[None]:
        """A clip's turn to be held in memory and decoded. One user's clips do not stand in everybody's way. Raises Overloaded."""
        if user_id in self._looking:
            raise Overloaded("a clip of yours is being looked at already; try again in a few seconds", 5)
        if len(self._looking) >= MAX_WAITING:
            raise Overloaded(f"{MAX_WAITING} clips are waiting to be looked at already; try again in a few seconds", 5)
        self._looking.add(user_id)
        try:
            async with self._turns:
                yield
        finally:
            self._looking.discard(user_id)

    async def _refuse(self, row: VoiceRow, reason: str) -> NoReturn:
        await self._voices.refuse(row["user_id"], row["id"], reason)
        await self._bucket.delete(upload_key(row["object_key"]))
        raise ApiError(422, reason, "clip_refused", "clip")

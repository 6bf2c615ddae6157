"""Voices of users: create a row and an upload URL, check the uploaded clip, delete all of it.

The client uploads the clip beside its final place, and this program copies it there after checking it: the presigned URL stays valid for
a while, and nobody must replace a clip after the check.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import NoReturn

from inference.audio.subprocess_decoder import decode_in_subprocess
from inference.errors import AudioError, Overloaded
from inference.spool import Spool
from saas.database import Database, Refused
from saas.errors import ApiError
from saas.storage.bucket import Bucket, StorageError, Upload, upload_key
from saas.voices import consent
from saas.voices.repository import VoiceRepository, VoiceRow
from saas.voices.schemas import NewVoice

SAMPLE_RATE = 44_100
MAX_WAITING, AT_ONCE = 16, 2
"""How many users' clips may wait to be decoded, and how many clips are decoded at once."""


class Voices:
    """Voices of all users. Its methods raise Refused, Unavailable and StorageError."""

    def __init__(self, database: Database, bucket: Bucket) -> None:
        self._voices, self._bucket = VoiceRepository(database), bucket
        self._looking: set[str] = set()
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def create(self, user_id: str, asked: NewVoice) -> tuple[VoiceRow, Upload]:
        """Create a pending voice, and a presigned URL for its clip. Raises ApiError 409 for consent to a wording that is not the current one."""
        if asked.consent_version not in (None, consent.VERSION):
            raise ApiError(
                409, f"the consent's wording is now version {consent.VERSION!r}: {consent.WORDING}", "other_version", "consent_version"
            )
        row = await self._voices.create(
            user_id,
            name=asked.name,
            transcript=asked.transcript,
            content_type=asked.content_type,
            bytes=asked.bytes,
            consent=consent.VERSION,
        )
        return row, self._bucket.put_url(upload_key(row["object_key"]), row["content_type"], row["bytes"])

    async def confirm(self, user_id: str, voice_id: str) -> VoiceRow:
        """Check the uploaded clip and make the voice ready. Raises ApiError that says why not: 409 before an upload, 422 for a bad clip."""
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
            content = await self._bucket.fetch(uploaded, most=row["bytes"])
            if content is None:
                raise ApiError(409, "the clip has been deleted meanwhile", "not_uploaded")
            with content:
                try:
                    seconds = await asyncio.to_thread(_seconds, content)
                except AudioError as e:
                    await self._refuse(row, str(e))
                await self._bucket.put(row["object_key"], content, row["content_type"])
                sha256 = await asyncio.to_thread(content.digest)
        try:
            ready = await self._voices.confirm(user_id, voice_id, seconds, sha256)
        except Refused:  # the voice was deleted meanwhile, with the clip that was stored until then
            await self._bucket.delete(row["object_key"])
            raise
        await self._bucket.delete(uploaded)
        if ready["status"] == "refused":
            await self._bucket.delete(row["object_key"])
            raise ApiError(422, str(ready["reason"]), "voice_blocked", "clip")
        return ready

    async def list(self, user_id: str) -> list[VoiceRow]:
        """A user's voices, the newest first."""
        return await self._voices.list(user_id)

    async def get(self, user_id: str, voice_id: str) -> VoiceRow:
        """One voice."""
        return await self._voices.get(user_id, voice_id)

    async def not_ready(self, user_id: str, voice_id: str) -> None:
        """Why a voice cannot be spoken. Raises ApiError 403 for one that the operator has blocked, Refused 404 for one that is not there."""
        check_blocked(await self.get(user_id, voice_id))

    async def rename(self, user_id: str, voice_id: str, name: str) -> VoiceRow:
        """Rename a voice. Nothing else of it can be changed."""
        return await self._voices.rename(user_id, voice_id, name)

    async def delete(self, user_id: str, voice_id: str) -> None:
        """Delete a voice's texts at once and its clip before the answer. If the bucket fails, the list of objects to delete has it."""
        row = await self.get(user_id, voice_id)
        await self._voices.delete(user_id, voice_id)
        with suppress(StorageError):
            for key in (row["object_key"], upload_key(row["object_key"])):
                await self._bucket.delete(key)

    def clip_url(self, row: VoiceRow) -> str | None:
        """A URL of the clip, valid for 300 s; None unless the voice is ready."""
        return self._bucket.get_url(row["object_key"]) if row["status"] == "ready" else None

    @asynccontextmanager
    async def _in_turn(self, user_id: str) -> AsyncIterator[None]:
        """Wait for a turn to load and decode a clip. One user's clips do not hold up the other users. Raises Overloaded."""
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


def check_blocked(row: VoiceRow) -> None:
    """Raises ApiError 403 for a voice that the operator has blocked."""
    if row["status"] == "blocked":
        raise ApiError(
            403, f"the voice {row['name']!r} is blocked by the operator of this service; nothing was charged", "voice_blocked", "voice"
        )


def _seconds(clip: Spool) -> float:
    """How long a clip lasts, as the engine will hear it. Raises AudioError."""
    with clip.open() as file:
        return round(len(decode_in_subprocess(file)) / SAMPLE_RATE, 3)

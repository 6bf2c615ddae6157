"""The database's functions about voices."""

from __future__ import annotations

from typing import TypedDict

from saas.database import Database


class VoiceRow(TypedDict):
    """A voice. `reason` says why it was refused."""

    id: str
    user_id: str
    name: str
    transcript: str
    status: str
    reason: str | None
    content_type: str
    bytes: int
    seconds: float | None
    object_key: str


class VoiceRepository:
    """Each method is one transaction. All raise Refused and Unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, user_id: str, *, name: str, transcript: str, content_type: str, bytes: int, consent: str) -> VoiceRow:
        """Create a pending voice, and keep that its user consented, in this version of the wording."""
        answer = await self._database.call(
            "create_voice", user_id=user_id, name=name, transcript=transcript, content_type=content_type, bytes=bytes, consent=consent
        )
        return _voice(answer)

    async def get(self, user_id: str, voice_id: str) -> VoiceRow:
        """A user's voice."""
        return _voice(await self._database.call("get_voice", user_id=user_id, voice_id=voice_id))

    async def list(self, user_id: str) -> list[VoiceRow]:
        """A user's voices, the newest first."""
        rows: list[VoiceRow] = await self._database.call("list_voices", user_id=user_id)
        return rows

    async def rename(self, user_id: str, voice_id: str, name: str) -> VoiceRow:
        """Rename a voice."""
        return _voice(await self._database.call("rename_voice", user_id=user_id, voice_id=voice_id, name=name))

    async def confirm(self, user_id: str, voice_id: str, seconds: float, sha256: str) -> VoiceRow:
        """Accept the clip. The voice is refused where the operator has blocked it. Raises Refused when the voice was deleted meanwhile."""
        return _voice(await self._database.call("confirm_voice", user_id=user_id, voice_id=voice_id, seconds=seconds, sha256=sha256))

    async def refuse(self, user_id: str, voice_id: str, reason: str) -> None:
        """Refuse the clip."""
        await self._database.call("refuse_voice", user_id=user_id, voice_id=voice_id, reason=reason)

    async def delete(self, user_id: str, voice_id: str) -> None:
        """Delete a voice."""
        await self._database.call("delete_voice", user_id=user_id, voice_id=voice_id)


def _voice(answer: dict[str, VoiceRow]) -> VoiceRow:
    return answer["voice"]

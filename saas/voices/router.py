"""The routes of voices."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends

from saas.auth.caller import Caller
from saas.auth.dependencies import caller
from saas.state import AppState
from saas.voices.repository import VoiceRow
from saas.voices.schemas import CreatedVoice, NewVoice, Rename, UploadOut, VoiceOut
from saas.voices.service import Voices

router = APIRouter(prefix="/api/voices", tags=["voices"])
Manager = Annotated[Caller, Depends(caller("voices"))]
Reader = Annotated[Caller, Depends(caller("read"))]


@router.post("", status_code=201)
async def create(body: NewVoice, caller: Manager, state: AppState) -> CreatedVoice:
    """Create a voice and announce its clip. PUT the clip to the URL in the answer, then confirm."""
    await state.legal.require(caller)
    row, upload = await state.voices.create(str(caller.user_id), body)
    return CreatedVoice(voice=_out(row), upload=UploadOut(url=upload.url, headers=upload.headers))


@router.post("/{voice_id}/confirm")
async def confirm(voice_id: UUID, caller: Manager, state: AppState) -> VoiceOut:
    """Confirm that the clip is uploaded. The API checks it; then the voice is ready, or the answer says why not."""
    return _out(await state.voices.confirm(str(caller.user_id), str(voice_id)), state.voices)


@router.get("")
async def voices(caller: Reader, state: AppState) -> list[VoiceOut]:
    """Your voices, the newest first."""
    return [_out(row) for row in await state.voices.list(str(caller.user_id))]


@router.get("/{voice_id}")
async def voice(voice_id: UUID, caller: Reader, state: AppState) -> VoiceOut:
    """One voice, with a URL of its clip that is valid for 300 s."""
    return _out(await state.voices.get(str(caller.user_id), str(voice_id)), state.voices)


@router.patch("/{voice_id}")
async def rename(voice_id: UUID, body: Rename, caller: Manager, state: AppState) -> VoiceOut:
    """Rename a voice."""
    return _out(await state.voices.rename(str(caller.user_id), str(voice_id), body.name))


@router.delete("/{voice_id}", status_code=204)
async def delete(voice_id: UUID, caller: Manager, state: AppState) -> None:
    """Delete a voice and its clip."""
    await state.voices.delete(str(caller.user_id), str(voice_id))


def _out(row: VoiceRow, service: Voices | None = None) -> VoiceOut:
    return VoiceOut.model_validate(row | {"clip_url": service.clip_url(row) if service else None})

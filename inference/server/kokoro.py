"""Kokoro-FastAPI's route for captioned speech; its other routes are those of the OpenAI API."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import Field

from inference.server.audio_responses import Piece, encoded_with_words, started, voice_headers, whole
from inference.server.openai import SpeechBody, encoder_for
from inference.server.state import AppState
from inference.text.words import Word

router = APIRouter(tags=["Kokoro"])


class CaptionedSpeechBody(SpeechBody):
    """The body of Kokoro's `POST /dev/captioned_speech`: that of OpenAI's speech, streamed or not."""

    return_timestamps: bool = Field(True, description="false leaves the times out.")


@router.post("/dev/captioned_speech", response_class=Response, responses={200: {"content": {"application/json": {}}}})
async def captioned_speech(body: CaptionedSpeechBody, request: Request, state: AppState) -> Response:
    """Speak a text, in base64 with the times of its words: one JSON object a line for each piece of the file, or one for the whole."""
    encoder = encoder_for(body)
    spoken, who = await body.request(state, words=body.return_timestamps)
    audio = await started(state.engine, spoken, request, streamed=body.stream)
    if isinstance(audio, Response):
        return audio
    headers = {"X-Sample-Rate": str(encoder.sample_rate), **await voice_headers(state.engine, who.voice, *who.voices.values())}
    if body.stream:
        lines = _lines(encoded_with_words(audio, encoder), encoder.media_type, body.return_timestamps)
        return StreamingResponse(lines, media_type="application/x-ndjson", headers=headers)
    file = await whole(audio, encoder, request)
    if isinstance(file, Response):
        return file
    pieces, timed = file
    words = [word for piece in timed for word in piece.words]
    rest = {"audio_format": encoder.media_type, "timestamps": _timestamps(words) if body.return_timestamps else None}
    return StreamingResponse(_whole(pieces, rest), media_type="application/json", headers=headers)


async def _lines(pieces: AsyncGenerator[Piece], media_type: str, timestamps: bool) -> AsyncIterator[bytes]:
    async with aclosing(pieces):
        async for piece in pieces:
            times = _timestamps(piece.words) if timestamps else None
            fields = {"audio": base64.b64encode(piece.content).decode(), "audio_format": media_type, "timestamps": times}
            yield json.dumps(fields).encode() + b"\n"


async def _whole(pieces: AsyncIterator[bytes], rest: dict[str, Any]) -> AsyncIterator[bytes]:
    """One JSON object around a whole file."""
    yield b'{"audio": "'
    async for piece in pieces:
        yield base64.b64encode(piece)
    yield b'", ' + json.dumps(rest).encode()[1:]


def _timestamps(words: Iterable[Word]) -> list[dict[str, Any]]:
    return [{"word": w.text, "start_time": round(w.start, 3), "end_time": round(w.end, 3)} for w in words]

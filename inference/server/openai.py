"""The OpenAI API: speech, models and voices."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import asdict
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, Field

from inference.audio.encode import FORMATS, Encoder, openai_rate
from inference.engine.request import Audio, GuardReport, SpeechRequest
from inference.errors import FishserveError
from inference.model.config import SAMPLES_PER_FRAME
from inference.server import elevenlabs_account
from inference.server.audio_responses import encoded_with_words, file, request_for, started, voice_headers
from inference.server.casting import Cast, cast
from inference.server.request_bodies import Lenient
from inference.server.state import AppState, State
from inference.text.captions import as_json
from inference.voices.aliases import OPENAI_VOICES
from inference.voices.store import DEFAULT

router = APIRouter(prefix="/v1", tags=["OpenAI"])
_SPEECH_FIELDS = (
    "seed", "temperature", "top_p", "repetition_penalty", "normalize", "chunk_length", "max_new_tokens", "quality_guard", "guard_look_ahead",
)  # fmt: skip


class VoiceId(BaseModel):
    """OpenAI's object form of `voice`."""

    id: str


class SpeechBody(Lenient):
    """The body of OpenAI's `POST /v1/audio/speech`, plus the model's own controls. Any `model` name is accepted."""

    input: str
    model: str | None = None
    voice: str | VoiceId = DEFAULT
    instructions: str | None = Field(None, description="Accepted for compatibility; this model takes no instructions.")
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] = "mp3"
    speed: float = Field(1.0, description="0.25 to 4; the pitch stays the same.")
    stream_format: Literal["audio", "sse"] = "audio"
    sample_rate: int | None = Field(None, description="In Hz. null: 44,100, except 48,000 for opus and 24,000 for pcm.")
    word_timestamps: bool = Field(
        False,
        description="Say when each word is heard: in the header X-Word-Timestamps of a whole file, which `audio` then is, or in events "
        "speech.audio.words of `sse`.",
    )
    stream: bool = Field(True, description="false returns the whole file at once, with a Content-Length and, in a WAV header, true sizes.")
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    normalize: bool | None = Field(None, description="Write numbers and signs out as words first. null: if the model needs it.")
    chunk_length: int = 200
    max_new_tokens: int | None = None
    pronunciation_dictionaries: list[str] = Field([], description="Names of this server's pronunciation dictionaries, at most 3.")
    quality_guard: bool | None = Field(None, description="Judge each segment and speak faulty ones anew. null: as the server is set.")
    guard_look_ahead: float | None = Field(
        None, description="Seconds of sound held back at most for `quality_guard`. null: 1 in a stream; a whole file is judged whole."
    )

    async def request(self, state: State, *, words: bool) -> tuple[SpeechRequest | None, Cast]:
        """The engine's request, None for a text of signs only; and who speaks it. Raises FishserveError."""
        voice = await state.references.voice(voice_name(self.voice, state))
        who = await cast(state, voice, self.input, [(name, None) for name in self.pronunciation_dictionaries])
        fields: dict[str, Any] = {name: getattr(self, name) for name in _SPEECH_FIELDS}
        whole = self.stream_format == "audio" and (self.word_timestamps or not self.stream)
        if whole and self.guard_look_ahead is None:
            fields["guard_look_ahead"] = math.inf
        return request_for(self.input, lambda text: SpeechRequest(text, words=words, **fields, **vars(who))), who


def encoder_for(body: SpeechBody) -> Encoder:
    """The encoder for the requested file. Raises RequestError."""
    return Encoder(body.response_format, openai_rate(body.response_format, body.sample_rate), body.speed)


@router.post("/audio/speech", response_class=Response, responses={200: {"content": {f.media_type: {} for f in FORMATS.values()}}})
async def speech(body: SpeechBody, request: Request, state: AppState) -> Response:
    """Speak a text."""
    encoder = encoder_for(body)
    spoken, who = await body.request(state, words=body.word_timestamps)
    sse, stream = body.stream_format == "sse", body.stream and not body.word_timestamps
    audio = await started(state.engine, spoken, request, streamed=stream or sse)
    if isinstance(audio, Response):
        return audio
    headers = await voice_headers(state.engine, who.voice, *who.voices.values())
    if sse:
        headers |= {"X-Sample-Rate": str(encoder.sample_rate)}
        return StreamingResponse(_events(audio, encoder, body.input), media_type="text/event-stream", headers=headers)
    return await file(audio, encoder, request, stream=stream, headers=headers, words=body.word_timestamps)


@router.get("/models", response_model=None)
async def models(request: Request, state: AppState) -> dict[str, Any] | list[dict[str, Any]]:
    """The model in use. `POST /v1/audio/speech` accepts any name for it. ElevenLabs' clients get the answer in their format."""
    name = await _model_name(state)
    return elevenlabs_account.models(name) if elevenlabs_account.asks(request) else {"object": "list", "data": [_model(name)]}


@router.get("/models/{model}")
async def model(model: str) -> dict[str, Any]:
    """The model in use, under the requested name: `POST /v1/audio/speech` accepts any name."""
    return _model(model)


@router.get("/audio/models")
async def audio_models(state: AppState) -> dict[str, Any]:
    """The model in use, as Open WebUI asks for it."""
    name = await _model_name(state)
    return {"models": [{"id": name, "name": name}]}


@router.get("/audio/voices")
async def list_voices(state: AppState, legacy: bool = False) -> dict[str, list[Any]]:
    """The names that `voice` accepts, besides OpenAI's own voice names. `legacy=true` lists them as strings."""
    return {"voices": [name if legacy else {"id": name, "name": name} for name in state.voices.names()]}


async def _model_name(state: State) -> str:
    return str((await state.engine.state()).get("model", "loading"))


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "fishserve"}


def voice_name(asked: str | VoiceId, state: State) -> str:
    """The name of the voice: OpenAI's names mean the default one, unless a stored voice or an alias has the name."""
    name = asked if isinstance(asked, str) else asked.id
    known = name not in OPENAI_VOICES or name in state.references.aliases or name in state.voices.names()
    return name if known else DEFAULT


async def _events(audio: AsyncIterator[Audio], encoder: Encoder, text: str) -> AsyncIterator[str]:
    """Server-sent events: the file in base64 pieces and its words, then the numbers of characters spoken and frames generated."""
    frames = 0
    guard: GuardReport | None = None

    async def counted() -> AsyncIterator[Audio]:
        nonlocal frames, guard
        async for chunk in audio:
            frames += len(chunk.samples) // SAMPLES_PER_FRAME
            if chunk.guard:
                guard = (guard or GuardReport()) + chunk.guard
            yield chunk

    try:
        async with aclosing(encoded_with_words(counted(), encoder)) as pieces:
            async for piece in pieces:
                if piece.content:
                    yield _event("speech.audio.delta", audio=base64.b64encode(piece.content).decode())
                if piece.words:
                    yield _event("speech.audio.words", words=[as_json(word) for word in piece.words])
    except Exception as e:
        message = str(e) if isinstance(e, FishserveError) else f"an error inside the server ({type(e).__name__}); its log says more"
        yield _event("speech.audio.error", error={"message": message, "type": "server_error", "param": None, "code": None})
        raise  # so that the server logs the error and ends the connection as failed
    usage: dict[str, Any] = {"input_tokens": len(text), "output_tokens": frames, "total_tokens": len(text) + frames}
    yield _event("speech.audio.done", usage=usage | ({"quality_guard": asdict(guard)} if guard else {}))


def _event(kind: str, **fields: Any) -> str:
    return f"data: {json.dumps({'type': kind, **fields})}\n\n"

"""The ElevenLabs API over HTTP: speech and voices."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from inference.audio.encode import FORMATS, Encoder
from inference.engine.request import Audio, SpeechRequest
from inference.errors import RequestError
from inference.server.audio_responses import Piece, encoded_with_words, file, request_for, started, voice_headers, whole
from inference.server.casting import cast
from inference.server.state import AppState, State
from inference.server.word_times import CharacterTimes
from inference.text.captions import Characters, joined, spoken_characters
from inference.voices.store import DEFAULT

PATHS = ("/v1/text-to-speech/", "/v1/voices", "/v2/voices", "/v1/user", "/v1/history", "/v1/pronunciation-dictionaries")
"""Paths whose errors use ElevenLabs' format."""
_KILOBITS = (32, 64, 96, 128, 192)
_RATES = (8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
OUTPUTS: dict[str, tuple[str, int, int | None]] = {
    # An MP3 states its own rate. Below 44.1 kHz it begins with an audible pause, so all MP3s here are at 44.1 kHz.
    "mp3_22050_32": ("mp3", 44_100, 32_000), "mp3_24000_48": ("mp3", 44_100, 48_000),
    **{f"mp3_44100_{k}": ("mp3", 44_100, 1000 * k) for k in _KILOBITS},
    **{f"opus_48000_{k}": ("opus", 48_000, 1000 * k) for k in _KILOBITS},
    **{f"{kind}_{rate}": (kind, rate, None) for kind in ("pcm", "wav") for rate in _RATES},
    "ulaw_8000": ("ulaw", 8_000, None), "alaw_8000": ("alaw", 8_000, None),
}  # fmt: skip
"""The values that `output_format` may have: each maps to a format, its sample rate in Hz and its bits per second."""
MIN_TEMPERATURE = 0.1
"""The temperature at full stability: with none at all, speech may repeat itself."""
NORMALIZE = {"on": True, "off": False}
"""What `apply_text_normalization` means; `auto` leaves it to the model."""
_CONTENT: dict[int | str, dict[str, Any]] = {200: {"content": {f.media_type: {} for f in FORMATS.values()}}}
router = APIRouter(tags=["ElevenLabs"])


class VoiceSettings(BaseModel):
    """ElevenLabs' voice settings. The settings not listed here are accepted and ignored."""

    model_config = ConfigDict(extra="ignore")
    speed: float | None = None
    stability: float | None = Field(default=None, description="0 to 1. The temperature is 1 - stability, and at least 0.1.")

    @property
    def temperature(self) -> float | None:
        """The temperature of sampling that the stability means. Raises RequestError."""
        if self.stability is None:
            return None
        if not 0 <= self.stability <= 1:
            raise RequestError(f"stability is {self.stability}; it must be between 0 and 1", "voice_settings")
        return max(MIN_TEMPERATURE, 1 - self.stability)


class Locator(BaseModel):
    """A pronunciation dictionary that a request uses. Without a version it is the latest one."""

    model_config = ConfigDict(extra="ignore")
    pronunciation_dictionary_id: str
    version_id: str | None = None


class SpeechBody(BaseModel):
    """The body of ElevenLabs' `POST /v1/text-to-speech/{voice_id}`. Fields not listed here are accepted and ignored."""

    model_config = ConfigDict(extra="ignore")
    text: str
    model_id: str | None = None
    seed: int | None = None
    voice_settings: VoiceSettings | None = None
    apply_text_normalization: Literal["auto", "on", "off"] | None = None
    pronunciation_dictionary_locators: list[Locator] | None = None


@router.post("/v1/text-to-speech/{voice_id}", response_class=Response, responses=_CONTENT)
async def convert(voice_id: str, body: SpeechBody, request: Request, state: AppState, output_format: str = "mp3_44100_128") -> Response:
    """Speak a text and return the whole file at once."""
    return await _speak(voice_id, body, output_format, request, state, stream=False)


@router.post("/v1/text-to-speech/{voice_id}/stream", response_class=Response, responses=_CONTENT)
async def stream(voice_id: str, body: SpeechBody, request: Request, state: AppState, output_format: str = "mp3_44100_128") -> Response:
    """Speak a text and stream the file as it is generated."""
    return await _speak(voice_id, body, output_format, request, state, stream=True)


@router.post("/v1/text-to-speech/{voice_id}/with-timestamps")
async def convert_with_times(
    voice_id: str, body: SpeechBody, request: Request, state: AppState, output_format: str = "mp3_44100_128"
) -> Response:
    """Speak a text and return the whole file in base64, and the time of each character, in JSON."""
    audio, encoder, headers = await _started(voice_id, body, output_format, request, state, streamed=False, words=True)
    if isinstance(audio, Response):
        return audio
    spoken = await whole(audio, encoder, request)
    if isinstance(spoken, Response):
        return spoken
    pieces, timed = spoken
    return StreamingResponse(_whole_with_times(pieces, body.text, timed), media_type="application/json", headers=headers)


@router.post("/v1/text-to-speech/{voice_id}/stream/with-timestamps")
async def stream_with_times(
    voice_id: str, body: SpeechBody, request: Request, state: AppState, output_format: str = "mp3_44100_128"
) -> Response:
    """Speak a text and stream the file in base64 and the times of its characters, a JSON object a line."""
    audio, encoder, headers = await _started(voice_id, body, output_format, request, state, streamed=True, words=True)
    if isinstance(audio, Response):
        return audio
    pieces = _streamed_with_times(encoded_with_words(audio, encoder), body.text)
    return StreamingResponse(pieces, media_type="application/json", headers=headers)


@router.get("/v1/voices")
async def list_voices(state: AppState) -> dict[str, Any]:
    """All voices. A voice's id is its name."""
    return {"voices": [_voice(name) for name in state.voices.names()]}


@router.get("/v2/voices")
async def search_voices(state: AppState, search: str = "") -> dict[str, Any]:
    """All voices whose name contains `search`, on one page."""
    found = [_voice(name) for name in state.voices.names() if search.lower() in name.lower()]
    return {"voices": found, "has_more": False, "total_count": len(found), "next_page_token": None}


@router.get("/v1/voices/{voice_id}")
async def one_voice(voice_id: str, state: AppState) -> dict[str, Any]:
    """One voice."""
    return _voice(voice_id if voice_id == DEFAULT else state.voices.entry(voice_id).name)


@router.post("/v1/voices/add")
async def add_voice(
    state: AppState, name: Annotated[str, Form()], files: Annotated[list[UploadFile], File()], labels: Annotated[str, Form()] = "{}"
) -> dict[str, Any]:
    """Add a voice from one clip and its transcript, sent as the label `text`. The voice's name is its id."""
    text = _label(labels, "text")
    if len(files) != 1 or text is None:
        raise RequestError(
            f"{len(files)} files {'without' if text is None else 'with'} the label `text` were sent; "
            'send one file and its transcript as labels={"text": ...}; this server does not transcribe',
            "labels",
        )
    await state.references.add(name, await files[0].read(), text)
    return {"voice_id": name, "requires_verification": False}


@router.delete("/v1/voices/{voice_id}")
async def delete_voice(voice_id: str, state: AppState) -> dict[str, str]:
    """Delete a voice."""
    await asyncio.to_thread(state.voices.delete, voice_id)
    return {"status": "ok"}


async def _speak(voice_id: str, body: SpeechBody, output_format: str, request: Request, state: State, *, stream: bool) -> Response:
    audio, encoder, headers = await _started(voice_id, body, output_format, request, state, streamed=stream)
    if isinstance(audio, Response):
        return audio
    return await file(audio, encoder, request, stream=stream, headers=headers)


async def _started(
    voice_id: str, body: SpeechBody, output_format: str, request: Request, state: State, *, streamed: bool, words: bool = False
) -> tuple[AsyncIterator[Audio] | Response, Encoder, dict[str, str]]:
    """The audio, or a response when the client has disconnected; the encoder for it; headers of the response. Raises FishserveError."""
    settings = body.voice_settings or VoiceSettings()
    encoder = encoder_for(output_format, settings)
    voice = await state.references.voice(voice_id)
    who = await cast(state, voice, body.text, located(body.pronunciation_dictionary_locators))
    normalize = NORMALIZE.get(body.apply_text_normalization or "auto")
    temperature = settings.temperature
    fields: dict[str, Any] = {"seed": body.seed, "temperature": temperature, "normalize": normalize, "words": words, **vars(who)}
    spoken = request_for(body.text, lambda text: SpeechRequest(text, **fields))
    audio = await started(state.engine, spoken, request, streamed=streamed)
    return audio, encoder, {"X-Sample-Rate": str(encoder.sample_rate), **await voice_headers(state.engine, who.voice, *who.voices.values())}


def located(locators: Sequence[Locator] | None) -> list[tuple[str, str | None]]:
    """The names and versions of the dictionaries that a request uses."""
    return [(found.pronunciation_dictionary_id, found.version_id) for found in locators or ()]


def encoder_for(output_format: str, settings: VoiceSettings) -> Encoder:
    """The encoder for an `output_format`. Raises RequestError."""
    if output_format not in OUTPUTS:
        raise RequestError(f"output_format is {output_format[:80]!r}; it can be {', '.join(OUTPUTS)}", "output_format")
    kind, rate, bits = OUTPUTS[output_format]
    return Encoder(kind, rate, 1.0 if settings.speed is None else settings.speed, bits)


async def _whole_with_times(pieces: AsyncIterator[bytes], text: str, timed: list[Piece]) -> AsyncIterator[bytes]:
    """One JSON object around a whole file."""
    times = CharacterTimes()
    sent = [*(times.next(text, piece.words, piece.end) for piece in timed), times.rest(text)]
    said = [spoken_characters(piece.words, piece.end) for piece in timed]
    alignments = {"alignment": _alignment(joined(sent)), "normalized_alignment": _alignment(joined(said))}
    yield b'{"audio_base64": "'
    async for piece in pieces:
        yield base64.b64encode(piece)
    yield b'", ' + json.dumps(alignments).encode()[1:]


async def _streamed_with_times(pieces: AsyncGenerator[Piece], text: str) -> AsyncIterator[bytes]:
    """A JSON object a line for each piece of a file, and one for the characters behind the last word."""
    times = CharacterTimes()
    async with aclosing(pieces):
        async for piece in pieces:
            yield _line(piece.content, times.next(text, piece.words, piece.end), spoken_characters(piece.words, piece.end))
    if (rest := times.rest(text)).characters:
        yield _line(b"", rest, joined(()))


def _line(content: bytes, *times: Characters) -> bytes:
    alignment, normalized = (_alignment(found) if found.characters else None for found in times)
    fields = {"audio_base64": base64.b64encode(content).decode(), "alignment": alignment, "normalized_alignment": normalized}
    return json.dumps(fields).encode() + b"\n"


def _alignment(found: Characters) -> dict[str, Any]:
    return {
        "characters": found.characters,
        "character_start_times_seconds": [round(t, 3) for t in found.starts],
        "character_end_times_seconds": [round(t, 3) for t in found.ends],
    }


def error(status: int, message: str, headers: dict[str, str] | None) -> JSONResponse:
    """An error in ElevenLabs' format."""
    status = 400 if status == 409 else status  # their client retries after a 409, without the form's fields
    kinds = {404: "not_found", 413: "payload_too_large", 429: "too_many_concurrent_requests"}
    kind = kinds.get(status) or ("invalid_request" if status < 500 else "server_error")
    return JSONResponse({"detail": {"status": kind, "message": message}}, status, headers)


def _voice(name: str) -> dict[str, Any]:
    return {"voice_id": name, "name": name, "category": "premade" if name == DEFAULT else "cloned", "labels": {}, "samples": []}


def _label(labels: str, name: str) -> str | None:
    """One of the labels, which are a JSON object in a form field."""
    try:
        value = json.loads(labels)[name]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return value if isinstance(value, str) else None

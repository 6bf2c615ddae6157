"""The Fish Audio API over HTTP: speech, voices as models, codes."""

from __future__ import annotations

import asyncio
import base64
import json
import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
import ormsgpack
from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from inference.audio.encode import Encoder
from inference.engine.request import SpeechRequest
from inference.errors import RequestError, VoiceNotFound, shown
from inference.model.config import SAMPLE_RATE, SAMPLES_PER_FRAME
from inference.server.audio_responses import (
    Piece,
    answer_unless_gone,
    check_ready,
    encoded_with_words,
    file,
    request_for,
    started,
    voice_headers,
)
from inference.server.casting import Cast, cast
from inference.server.request_bodies import MSGPACK, Bytes, Lenient, accepts, read, validated
from inference.server.state import AppState, State
from inference.server.word_times import CharacterTimes
from inference.text.captions import precision
from inference.text.dialogue import MAX_VOICES
from inference.voices.store import DEFAULT, VoiceStore
from inference.voices.voice import Voice

PATHS = ("/v1/tts", "/v1/vqgan/", "/model", "/wallet/")
"""Paths whose errors use Fish Audio's format."""
MAX_SECONDS = 90
"""The longest clip to encode, or codes to decode: each takes the device's spare time from other requests."""
MAX_FRAMES, MAX_CODEBOOKS, MAX_CLIPS = int(MAX_SECONDS * SAMPLE_RATE / SAMPLES_PER_FRAME), 64, 16
MANY_VALUES = {"/v1/vqgan/decode": MAX_FRAMES * 8 * MAX_CLIPS + 1000}
"""The paths whose bodies hold many values, and how many: the codes of the longest clips, with eight codebooks as FishSpeech has."""
BIT_RATES = {"mp3": (64, 128, 192), "opus": (24, 32, 48, 64)}
"""The kbit/s that a request may ask for. Fish's API counts in kbit/s for MP3 and now in bit/s for Opus; its clients mix them."""
_CODEC_DECIDES = -1000
_NEW_TOKENS = 1024
"""The value that Fish Audio's clients send for max_new_tokens by default."""
QUALITY_GUARD = "quality-guard"
_LONG_AGO, _NEVER = "1970-01-01T00:00:00Z", "9999-12-31T00:00:00Z"
router = APIRouter(tags=["Fish Audio"])


class InlineReference(Lenient):
    """A clip to imitate, and its transcript."""

    audio: Bytes
    text: str


class Prosody(Lenient):
    """`speed` keeps the pitch; `volume` is in dB, -20 to 20."""

    speed: float = 1.0
    volume: float = 0.0


class SpeechBody(Lenient):
    """Fish Audio's speech request. Fields not listed here are accepted and ignored."""

    text: str
    reference_id: str | None = Field(
        None,
        description="A voice of this server, or a list of those that <|speaker:0|>, <|speaker:1|> and so on mean in the text; null: the model chooses one.",
    )
    references: list[InlineReference] = Field([], max_length=8, description="Clips of one voice, or a list of such lists, as reference_id.")
    speaker_ids: SkipJsonSchema[list[str]] = Field([])
    speaker_references: SkipJsonSchema[list[Annotated[list[InlineReference], Field(max_length=8)]]] = Field([])
    format: Literal["wav", "pcm", "mp3", "opus"] = "wav"
    sample_rate: int | None = None
    mp3_bitrate: int = Field(128, description="In kbit/s: 64, 128 or 192. Values of 1000 and more are in bit/s.")
    opus_bitrate: int = Field(
        32, description="In kbit/s: 24, 32, 48 or 64, or -1000 for the codec's choice. Values of 1000 and more are in bit/s."
    )
    prosody: Prosody = Prosody()
    streaming: bool | None = Field(None, description="Stream the audio; null: all formats but WAV, whose header then has true sizes.")
    normalize: bool = Field(True, description="false leaves numbers and signs as they are; true writes them out if the model needs it.")
    chunk_length: int = 200
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    max_new_tokens: int = _NEW_TOKENS
    pronunciation_dictionaries: list[str] = Field([], description="Names of this server's pronunciation dictionaries, at most 3.")
    features: list[str] = Field([], description='"quality-guard": judge each segment and speak faulty ones anew.')

    @model_validator(mode="before")
    @classmethod
    def _speakers_apart(cls, data: Any) -> Any:
        """A list of speakers comes in the same fields as one speaker. Raises RequestError for a list of something else."""
        if not isinstance(data, dict):
            return data
        apart = {name: data[name] for name in data if name not in ("speaker_ids", "speaker_references")}
        ids, clips = data.get("reference_id"), data.get("references")
        if isinstance(ids, list):
            apart["speaker_ids"] = _speakers("reference_id", ids, str, "names of voices")
            del apart["reference_id"]
        if isinstance(clips, list) and any(isinstance(own, list) for own in clips):
            apart["speaker_references"] = _speakers("references", clips, list, "lists of clips")
            del apart["references"]
        return apart

    @property
    def is_streamed(self) -> bool:
        """Whether the audio is sent as it is generated."""
        return self.format != "wav" if self.streaming is None else self.streaming

    def encoder(self) -> Encoder:
        """The encoder for the requested file. Raises RequestError."""
        bits = None
        if self.format in BIT_RATES:
            name = f"{self.format}_bitrate"
            bits = _bits(name, getattr(self, name), BIT_RATES[self.format])
        return Encoder(self.format, self.sample_rate, self.prosody.speed, bits, self.prosody.volume)

    def request(self, text: str, who: Cast) -> SpeechRequest:
        """The request to the engine. Raises RequestError."""
        return SpeechRequest(
            text, who.voice, self.seed, self.temperature, self.top_p, self.repetition_penalty, None if self.normalize else False,
            self.chunk_length, None if self.max_new_tokens == _NEW_TOKENS else self.max_new_tokens,
            voices=who.voices, pronunciations=who.pronunciations,
            quality_guard=True if QUALITY_GUARD in self.features else None,
        )  # fmt: skip


def _speakers(name: str, given: list[Any], kind: type, what: str) -> list[Any]:
    """The list of a request's speakers. Raises RequestError."""
    if len(given) > MAX_VOICES:
        raise RequestError(f"{name} lists {len(given)} voices; at most {MAX_VOICES} speak in one request", name)
    if not all(isinstance(one, kind) for one in given):
        raise RequestError(f"{name} lists something else than {what}", name)
    return given


class EncodeBody(Lenient):
    """Clips to turn into codes."""

    audios: list[Bytes] = Field(max_length=MAX_CLIPS)


class ChangeBody(Lenient):
    """The new properties of a voice."""

    title: str | None = None


Code = Annotated[int, Field(ge=0, lt=2**31)]
# Validation stops at the first error: a body has room for millions, and pydantic would record each.
Row = Annotated[list[Code], Field(max_length=MAX_FRAMES, fail_fast=True)]
Codes = Annotated[list[Row], Field(min_length=1, max_length=MAX_CODEBOOKS, fail_fast=True)]


class DecodeBody(Lenient):
    """Codes to turn into audio, (codebooks, frames) each."""

    tokens: list[Codes] = Field(max_length=MAX_CLIPS, fail_fast=True)


@router.post("/v1/tts", response_class=Response, openapi_extra=accepts(SpeechBody))
async def tts(request: Request, state: AppState) -> Response:
    """Speak a text."""
    body = await read(request, SpeechBody)
    encoder = body.encoder()
    who = await cast_of(body, state)
    # Not `streamed`: the SaaS API charges for every sample that comes from here, so nothing may precede the speech.
    look_ahead = None if body.is_streamed else math.inf
    speech = request_for(body.text, lambda text: replace(body.request(text, who), guard_look_ahead=look_ahead))
    audio = await started(state.engine, speech, request)
    if isinstance(audio, Response):
        return audio
    headers = await voice_headers(state.engine, who.voice, *who.voices.values())
    return await file(audio, encoder, request, stream=body.is_streamed, headers=headers)


@router.post("/v1/tts/stream/with-timestamp", response_class=Response, openapi_extra=accepts(SpeechBody))
async def tts_with_times(request: Request, state: AppState) -> Response:
    """Speak a text and stream the audio with the times of its words, as server-sent events."""
    body = await read(request, SpeechBody)
    encoder = body.encoder()
    who = await cast_of(body, state)
    speech = request_for(body.text, lambda text: replace(body.request(text, who), words=True))
    # The SaaS API, which charges for every sample, sends `streaming: false`: then nothing precedes the speech.
    audio = await started(state.engine, speech, request, streamed=body.streaming is not False)
    if isinstance(audio, Response):
        return audio
    headers = {"X-Sample-Rate": str(encoder.sample_rate), **await voice_headers(state.engine, who.voice, *who.voices.values())}
    return StreamingResponse(_events(encoded_with_words(audio, encoder), body.text), media_type="text/event-stream", headers=headers)


async def _events(pieces: AsyncGenerator[Piece], text: str) -> AsyncIterator[str]:
    """Server-sent events, one for each piece of the file."""
    chunks = TimedChunks()
    async with aclosing(pieces):
        async for piece in pieces:
            event = {"audio_base64": base64.b64encode(piece.content).decode(), **chunks.next(text, piece)}
            yield f"data: {json.dumps(event)}\n\n"


class TimedChunks:
    """The chunks of a speech in Fish Audio's format: words that were known together, whose times count from the end of the chunk before."""

    def __init__(self) -> None:
        self._number, self._began = 0, 0.0
        self._characters = CharacterTimes()

    def next(self, text: str, piece: Piece) -> dict[str, Any]:
        """The fields that say which chunk a piece belongs to, and, with the last piece of a chunk, its text and the times of its words."""
        fields: dict[str, Any] = {"chunk_seq": self._number, "chunk_audio_offset_sec": round(self._began, 3)}
        if not piece.words:
            return {"content": "", "alignment": None, **fields}
        segments = [
            {
                "text": w.text, "start": round(w.start - self._began, 3), "end": round(w.end - self._began, 3),
                "start_char": w.start_char, "end_char": w.end_char,
            }
            for w in piece.words
        ]  # fmt: skip
        ends = piece.end if piece.words[-1].ends_line else piece.words[-1].end
        alignment = {"audio_duration": round(ends - self._began, 3), "segments": segments, "precision": precision(piece.words)}
        self._number, self._began = self._number + 1, ends
        return {"content": "".join(self._characters.next(text, piece.words, piece.end).characters), "alignment": alignment, **fields}


@router.post("/v1/vqgan/encode", response_class=Response, openapi_extra=accepts(EncodeBody))
async def encode(request: Request, state: AppState) -> Response:
    """Turn clips of any format into codes, (codebooks, frames) each."""
    body = await read(request, EncodeBody)

    async def encoded_clips() -> Response:
        waves: list[np.ndarray] = []
        for clip in body.audios:
            waves.append(await state.references.read(clip))
            if (seconds := len(waves[-1]) / SAMPLE_RATE) > MAX_SECONDS:
                raise RequestError(f"a clip lasts {seconds:.0f} s; at most {MAX_SECONDS} s are encoded", "audios")
        await check_ready(state.engine)
        return _packed({"tokens": [(await state.engine.encode(wave)).tolist() for wave in waves]})

    return await answer_unless_gone(request, encoded_clips())


@router.post("/v1/vqgan/decode", response_class=Response, openapi_extra=accepts(DecodeBody))
async def decode(request: Request, state: AppState) -> Response:
    """Turn codes into audio: 16-bit floating-point samples at 44.1 kHz."""
    body = await read(request, DecodeBody, MANY_VALUES[request.url.path])
    codes = [_codes(tokens) for tokens in body.tokens]

    async def decoded() -> Response:
        await check_ready(state.engine)
        sounds = [await state.engine.decode(c) for c in codes]
        return _packed({"audios": [sound.astype(np.float16).tobytes() for sound in sounds]})

    return await answer_unless_gone(request, decoded())


@router.get("/model")
async def models(state: AppState, page_size: int = 10, page_number: int = 1, title: str = "") -> dict[str, Any]:
    """List the voices, as models."""
    found = [name for name in state.voices.names() if title.lower() in name.lower()]
    start = max(0, page_size) * max(0, page_number - 1)
    items = []
    for name in found[start : start + max(0, page_size)]:
        with suppress(VoiceNotFound):  # damaged, or deleted meanwhile
            items.append(_model(state.voices, name))
    return {"total": len(found), "items": items}


@router.get("/model/{name}")
async def model(name: str, state: AppState) -> dict[str, Any]:
    """One voice."""
    return _model(state.voices, name)


@router.post("/model", status_code=201)
async def create(
    state: AppState,
    title: Annotated[str, Form()],
    clips: Annotated[list[UploadFile], File(alias="voices")],
    texts: Annotated[list[str] | None, Form()] = None,
) -> dict[str, Any]:
    """Add a voice from one clip and its transcript. The voice's title is its id."""
    if len(clips) != 1 or len(texts or ()) != 1:
        raise RequestError(
            f"{len(clips)} voices and {len(texts or ())} texts were sent; "
            "send one clip as `voices` and its transcript as `texts`; this server does not transcribe",
            "texts",
        )
    await state.references.add(title, await clips[0].read(), *(texts or ()))
    return _model(state.voices, title)


@router.patch("/model/{name}", openapi_extra=accepts(ChangeBody, form=True))
async def rename(name: str, request: Request, state: AppState) -> dict[str, Any]:
    """Rename a voice; the new title also becomes its id. Send a form, JSON or msgpack. Other properties are accepted but not stored."""
    title = (await _change(request)).title or name
    if title != name:
        await asyncio.to_thread(state.voices.rename, name, title)
    return _model(state.voices, title)


@router.delete("/model/{name}")
async def delete(name: str, state: AppState) -> dict[str, str]:
    """Delete a voice."""
    await asyncio.to_thread(state.voices.delete, name)
    return {"message": f"{name} was deleted"}


@router.get("/wallet/self/api-credit")
async def credit() -> dict[str, str]:
    """A fixed credit balance, for clients that check it. This server charges nothing."""
    return {"_id": "self", "user_id": "self", "credit": "1000000", "created_at": _LONG_AGO, "updated_at": _LONG_AGO}


@router.get("/wallet/self/package")
async def package() -> dict[str, Any]:
    """A fixed package, for clients that check it. This server charges nothing."""
    return {
        "_id": "self", "user_id": "self", "type": "self-hosted", "total": 1_000_000, "balance": 1_000_000,
        "created_at": _LONG_AGO, "updated_at": _LONG_AGO, "finished_at": _NEVER,
    }  # fmt: skip


async def cast_of(body: SpeechBody, state: State) -> Cast:
    """Who speaks a request's text. Raises VoiceNotFound, DictionaryNotFound, AudioError, NotReady, Overloaded."""
    names = body.speaker_ids or ([body.reference_id] if body.reference_id else [])
    clips = body.speaker_references or ([body.references] if body.references else [])
    if names or not clips:
        speakers = [await state.references.voice(name) for name in names or [DEFAULT]]
    else:
        speakers = [Voice(tuple([await state.references.reference(r.audio, r.text) for r in own])) for own in clips]
    listed = speakers if body.speaker_ids or body.speaker_references else ()
    return await cast(state, speakers[0], body.text, [(name, None) for name in body.pronunciation_dictionaries], listed)


def _model(voices: VoiceStore, name: str) -> dict[str, Any]:
    """A voice as Fish Audio describes a model."""
    created = _LONG_AGO if name == DEFAULT else voices.entry(name).created.isoformat()
    return {
        "_id": name, "type": "tts", "title": name, "description": "", "cover_image": "", "train_mode": "fast", "state": "trained",
        "tags": [], "samples": [], "created_at": created, "updated_at": created, "languages": [], "visibility": "private",
        "lock_visibility": True, "like_count": 0, "mark_count": 0, "shared_count": 0, "task_count": 0,
        "author": {"_id": "self", "nickname": "fishserve", "avatar": ""},
    }  # fmt: skip


def error(status: int, message: str, headers: dict[str, str] | None) -> JSONResponse:
    """An error in Fish Audio's format."""
    return JSONResponse({"status": status, "message": message}, status, headers)


def _bits(name: str, asked: int, allowed: tuple[int, ...]) -> int | None:
    """The bit rate in bit/s; None leaves it to the codec. Raises RequestError."""
    if name == "opus_bitrate" and asked == _CODEC_DECIDES:
        return None
    bits = asked if asked >= 1000 else 1000 * asked
    if bits not in [1000 * a for a in allowed]:
        raise RequestError(f"{name} is {shown(asked)}; it can be {', '.join(map(str, allowed))} kbit/s", name)
    return bits


def _packed(data: dict[str, Any]) -> Response:
    return Response(ormsgpack.packb(data), media_type=MSGPACK)


async def _change(request: Request) -> ChangeBody:
    if "form" in request.headers.get("content-type", ""):
        async with request.form() as form:
            return validated(ChangeBody, dict(form))
    return await read(request, ChangeBody)


def _codes(tokens: list[list[int]]) -> np.ndarray:
    if len({len(row) for row in tokens}) != 1:
        raise RequestError("tokens hold rows of different lengths; codes are (codebooks, frames)", "tokens")
    return np.array(tokens, np.int64)

"""The Fish Audio API: speech over HTTP and WebSocket, voices as models, codes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Annotated, Any, Literal, NoReturn

import numpy as np
import ormsgpack
from fastapi import APIRouter, File, Form, Request, UploadFile, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse, Response
from pydantic import Field, ValidationError

from inference.audio.encode import Encoder
from inference.engine.request import SpeechRequest, check_text
from inference.errors import FishserveError, RequestError, VoiceNotFound
from inference.http.error_responses import complaint
from inference.model.config import SAMPLE_RATE, SAMPLES_PER_FRAME
from inference.server.audio_responses import EngineClient, answer_unless_gone, check_ready, encoded, file, started, voice_headers
from inference.server.references import References
from inference.server.request_bodies import MSGPACK, Bytes, Lenient, accepts, read, unpacked, validated
from inference.server.state import AppState
from inference.text.sentence_buffer import SentenceBuffer
from inference.voices.store import DEFAULT, VoiceStore
from inference.voices.voice import Voice

PATHS = ("/v1/tts", "/v1/vqgan/", "/model", "/wallet/")
"""Paths whose errors use Fish Audio's format."""
MAX_SECONDS = 90
"""The longest clip to encode, or codes to decode: each takes the device's spare time from other requests."""
MAX_FRAMES, MAX_CODEBOOKS, MAX_CLIPS = int(MAX_SECONDS * SAMPLE_RATE / SAMPLES_PER_FRAME), 64, 16
MANY_VALUES = {"/v1/vqgan/decode": MAX_FRAMES * 8 * MAX_CLIPS + 1000}
"""The paths whose bodies hold many values, and how many: the codes of the longest clips, with eight codebooks as FishSpeech has."""
IDLE_SECONDS = 300
"""How long a live connection may wait for its next event."""
_NEW_TOKENS = 1024
"""The value that Fish Audio's clients send for max_new_tokens by default."""
_ANYTHING = "Anything."
_LONG_AGO = "1970-01-01T00:00:00Z"
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
    reference_id: str | None = Field(None, description="A voice of this server; null: the model chooses one.")
    references: list[InlineReference] = Field([], max_length=8)
    format: Literal["wav", "pcm", "mp3", "opus"] = "wav"
    sample_rate: int | None = None
    mp3_bitrate: Literal[64, 128, 192] = 128
    opus_bitrate: Literal[-1000, 24, 32, 48, 64] = 32
    prosody: Prosody = Prosody()
    streaming: bool | None = Field(None, description="Stream the audio; null: all formats but WAV, whose header then has true sizes.")
    normalize: bool = Field(True, description="false leaves numbers and signs as they are; true writes them out if the model needs it.")
    chunk_length: int = 200
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    max_new_tokens: int = _NEW_TOKENS

    @property
    def is_streamed(self) -> bool:
        """Whether the audio is sent as it is generated."""
        return self.format != "wav" if self.streaming is None else self.streaming

    def encoder(self) -> Encoder:
        """The encoder for the requested file. Raises RequestError."""
        bits = {"mp3": 1000 * self.mp3_bitrate, "opus": 1000 * self.opus_bitrate if self.opus_bitrate > 0 else None}
        return Encoder(self.format, self.sample_rate, self.prosody.speed, bits.get(self.format), self.prosody.volume)

    def request(self, text: str, voice: Voice) -> SpeechRequest:
        """The request to the engine. Raises RequestError."""
        return SpeechRequest(
            text, voice, self.seed, self.temperature, self.top_p, self.repetition_penalty, None if self.normalize else False,
            self.chunk_length, None if self.max_new_tokens == _NEW_TOKENS else self.max_new_tokens,
        )  # fmt: skip


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
    voice = await _voice_of(body, state.references)
    audio = await started(state.engine, body.request(body.text, voice), request)
    if isinstance(audio, Response):
        return audio
    return await file(audio, encoder, request, stream=body.is_streamed, headers=await voice_headers(state.engine, voice))


@router.websocket("/v1/tts/live")
async def live(socket: WebSocket, state: AppState) -> None:
    """Speak a text while the client is still writing it."""
    await socket.accept()
    await _Conversation(socket, state.engine, lambda body: _voice_of(body, state.references)).hold()


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
        state.voices.rename(name, title)
    return _model(state.voices, title)


@router.delete("/model/{name}")
async def delete(name: str, state: AppState) -> dict[str, str]:
    """Delete a voice."""
    state.voices.delete(name)
    return {"message": f"{name} was deleted"}


@router.get("/wallet/self/api-credit")
async def credit() -> dict[str, str]:
    """A fixed credit balance, for clients that check it. This server charges nothing."""
    return {"_id": "self", "user_id": "self", "credit": "1000000", "created_at": _LONG_AGO, "updated_at": _LONG_AGO}


async def _voice_of(body: SpeechBody, references: References) -> Voice:
    if body.reference_id is not None or not body.references:
        return await references.voice(body.reference_id or DEFAULT)
    return Voice(tuple([await references.reference(r.audio, r.text) for r in body.references]))


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


class _Conversation:
    """One live connection: text arrives in events; the server speaks each sentence once it is complete and sends pieces of one file."""

    def __init__(self, socket: WebSocket, speaker: EngineClient, voice_of: Callable[[SpeechBody], Awaitable[Voice]]) -> None:
        self._socket, self._speaker, self._voice_of = socket, speaker, voice_of
        self._texts: asyncio.Queue[str | None] = asyncio.Queue()

    async def hold(self) -> None:
        """Run until the client has received everything it asked for, has disconnected, or has caused an error."""
        try:
            await self._speak()
            last: list[dict[str, Any]] = [{"event": "finish", "reason": "stop"}]
        except WebSocketDisconnect:
            return
        except FishserveError as e:
            last = [{"event": "error", "error": str(e)}, {"event": "finish", "reason": "error"}]
        with suppress(WebSocketDisconnect, RuntimeError):  # the client may have disconnected meanwhile
            for event in last:
                await self._send(**event)
            await self._socket.close()

    async def _speak(self) -> None:
        body = await self._begin()
        listening, talking = asyncio.ensure_future(self._listen(body)), asyncio.ensure_future(self._talk(body))
        try:
            await asyncio.wait((listening, talking), return_when=asyncio.FIRST_COMPLETED)
            (talking if talking.done() else listening).result()
        finally:
            for task in (listening, talking):
                task.cancel()
            await asyncio.gather(listening, talking, return_exceptions=True)

    async def _begin(self) -> SpeechBody:
        event = await self._event()
        if event["event"] != "start" or not isinstance(event.get("request"), dict):
            raise RequestError(f"the first event is {event['event'][:80]!r}; it must be 'start', with a request")
        try:
            body = SpeechBody.model_validate(event["request"] | {"text": event["request"].get("text") or ""})
        except ValidationError as e:
            raise RequestError(complaint(e.errors()[0])[0]) from None
        check_text(body.text, "text")
        body.encoder(), body.request(_ANYTHING, Voice())  # reports an invalid request now, not at the first sentence
        await check_ready(self._speaker)
        return body

    async def _listen(self, body: SpeechBody) -> NoReturn:
        """Take events until the client disconnects."""
        incoming = SentenceBuffer(body.chunk_length)
        ready = incoming.feed(body.text)
        while True:
            if ready:
                self._texts.put_nowait(ready)
            event = await self._event(IDLE_SECONDS)
            if event["event"] == "text":
                if not isinstance(event.get("text"), str):
                    raise RequestError("a text event has no text")
                check_text(event["text"], "text")
                ready = incoming.feed(event["text"])
            else:
                ready = incoming.flush() if event["event"] in ("flush", "stop") else ""
            if event["event"] == "stop":
                break
        self._texts.put_nowait(ready or None)
        self._texts.put_nowait(None)
        while True:
            await self._event(None)

    async def _talk(self, body: SpeechBody) -> None:
        first = await self._texts.get()
        if first is None:
            return
        speech, encoder = body.request(first, await self._voice_of(body)), body.encoder()
        async for content in encoded(self._speaker.astream(speech, self._rest()), encoder):
            await self._send(event="audio", audio=content)

    async def _rest(self) -> AsyncIterator[str]:
        while (text := await self._texts.get()) is not None:
            yield text

    async def _event(self, timeout: float | None = IDLE_SECONDS) -> dict[str, Any]:
        try:
            async with asyncio.timeout(timeout):  # Python 3.11's wait_for loses a cancellation that arrives with a message
                message = await self._socket.receive()
        except TimeoutError:
            raise RequestError(f"no event came for {IDLE_SECONDS} s") from None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        content = message.get("bytes")
        event = await asyncio.to_thread(unpacked, content) if content is not None else None
        if not isinstance(event, dict) or not isinstance(event.get("event"), str):
            raise RequestError("a message is not an event; events are maps with an `event`, in msgpack, as binary messages")
        return event

    async def _send(self, **event: Any) -> None:
        await self._socket.send_bytes(ormsgpack.packb(event))


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

"""The HTTP doors: turn a request body into a SpeechRequest, and its audio into a response."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any, Literal, Protocol

import numpy as np
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inference.audio.write import pcm16, wav, wav_header
from inference.engine.request import Audio, SpeechRequest
from inference.errors import EngineClosed, FishserveError, Overloaded, RequestError, VoiceNotFound
from inference.server.metrics import exposition
from inference.voices.store import DEFAULT, VoiceStore

SAMPLE_RATE = 44_100
_MEDIA = {"wav": "audio/wav", "pcm": f"audio/pcm;rate={SAMPLE_RATE};channels=1"}


class Speaker(Protocol):
    """What the doors need of an engine, wherever it runs."""

    def astream(self, request: SpeechRequest) -> AsyncIterator[Audio]: ...

    async def state(self) -> dict[str, str]:
        """`{"status": "loading" | "ready" | "failed", ...}`."""
        ...


class VoiceId(BaseModel):
    """OpenAI's object form of `voice`."""

    id: str


class SpeechBody(BaseModel):
    """OpenAI's `POST /v1/audio/speech`, and the model's own controls. Any `model` name is accepted."""

    input: str
    model: str | None = None
    voice: str | VoiceId = DEFAULT
    instructions: str | None = Field(None, description="Accepted for compatibility; this model takes no instructions.")
    response_format: Literal["wav", "pcm"] = "wav"
    speed: Literal[1] = 1
    stream_format: Literal["audio"] = "audio"
    stream: bool = Field(True, description="False waits for the whole, which then has a Content-Length and a WAV header with true sizes.")
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    normalize: bool | None = Field(None, description="Write numbers and signs out as English words first; null: as the model needs it.")
    chunk_length: int = 200
    max_new_tokens: int | None = None


def create_app(speaker: Speaker, voices: VoiceStore, max_body_bytes: int) -> FastAPI:
    """The public API over one engine."""
    app = FastAPI(title="fishserve", summary="FishSpeech 1.5 text to speech", redirect_slashes=False)
    app.add_middleware(BodyLimit, limit=max_body_bytes)
    _register_errors(app)

    @app.post("/v1/audio/speech", response_class=Response, responses={200: {"content": {m: {} for m in _MEDIA.values()}}})
    async def speech(body: SpeechBody, request: Request) -> Response:
        await _require_ready(speaker)
        chunks = speaker.astream(_speech_request(body, voices))
        first = await _unless_gone(request, anext(chunks, None))
        if first is _GONE:
            await _close(chunks)
            return Response(status_code=499)
        audio = _resume(first, chunks)
        headers = {"X-Sample-Rate": str(SAMPLE_RATE)}
        if body.stream:
            return StreamingResponse(_encode(audio, body.response_format), media_type=_MEDIA[body.response_format], headers=headers)
        content = await _unless_gone(request, _whole(audio, body.response_format))
        if content is _GONE:
            return Response(status_code=499)
        return Response(content, media_type=_MEDIA[body.response_format], headers=headers)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """The process is alive. Says nothing about the model."""
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> JSONResponse:
        """200 once the model is loaded and warm, 503 before and when it has failed."""
        state = await speaker.state()
        return JSONResponse(state, 200 if state["status"] == "ready" else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Prometheus text format."""
        content, media_type = exposition()
        return Response(content, media_type=media_type)

    return app


def _speech_request(body: SpeechBody, voices: VoiceStore) -> SpeechRequest:
    voice = voices.get(body.voice if isinstance(body.voice, str) else body.voice.id)
    fields = ("seed", "temperature", "top_p", "repetition_penalty", "normalize", "chunk_length", "max_new_tokens")
    return SpeechRequest(body.input, voice, **{name: getattr(body, name) for name in fields})


async def _require_ready(speaker: Speaker) -> None:
    state = await speaker.state()
    if state["status"] != "ready":
        raise HTTPException(503, f"the model is {state['status']}; see /ready", {"Retry-After": "5"})


async def _resume(first: Audio | None, rest: AsyncIterator[Audio]) -> AsyncIterator[Audio]:
    """The chunks again, the first of which was already taken."""
    try:
        if first is not None:
            yield first
        async for chunk in rest:
            yield chunk
    finally:
        await _close(rest)


async def _close(chunks: AsyncIterator[Audio]) -> None:
    if hasattr(chunks, "aclose"):
        await chunks.aclose()


async def _encode(audio: AsyncIterator[Audio], kind: str) -> AsyncIterator[bytes]:
    if kind == "wav":
        yield wav_header(SAMPLE_RATE)
    async for chunk in audio:
        yield pcm16(chunk.samples)


async def _whole(audio: AsyncIterator[Audio], kind: str) -> bytes:
    samples = np.concatenate([chunk.samples async for chunk in audio] or [np.zeros(0, np.float32)])
    return wav(samples, SAMPLE_RATE) if kind == "wav" else pcm16(samples)


_GONE: Any = object()


async def _unless_gone(request: Request, work: Any) -> Any:
    """The result of `work`, or _GONE when the client leaves first; then `work` is cancelled."""

    async def leave() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(leave())
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else _GONE
    finally:
        for t in (task, gone):
            t.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


class BodyLimit:
    """Refuses larger request bodies with 413 before they are read whole."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app, self._limit = app, limit
        self._message = f"the request body is larger than {limit:,} bytes"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = 0

        async def limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._limit:
                raise HTTPException(413, self._message)
            return message

        declared = dict(scope.get("headers", ())).get(b"content-length", b"")
        if declared.isdigit() and int(declared) > self._limit:
            await error_response(413, self._message)(scope, receive, send)
        else:
            await self._app(scope, limited if scope["type"] == "http" else receive, send)


def error_response(status: int, message: str, param: str | None = None, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error in OpenAI's shape."""
    kind = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}.get(status)
    kind = kind or ("invalid_request_error" if status < 500 else "server_error")
    return JSONResponse({"error": {"message": message, "type": kind, "param": param, "code": None}}, status, headers)


def _register_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, e: RequestValidationError) -> JSONResponse:
        first = e.errors()[0]
        if first["type"] == "model_attributes_type":
            return error_response(400, "the request body is not a JSON object; send one, with Content-Type: application/json")
        where = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
        if first["type"] == "json_invalid":
            return error_response(400, "the request body is not valid JSON")
        value = "" if first["type"] == "missing" or not where else f" is {str(first['input'])[:80]!r}"
        return error_response(400, f"{'.'.join(where) or 'the request body'}{value}: {first['msg']}", where[0] if where else None)

    @app.exception_handler(HTTPException)
    async def http(_: Request, e: HTTPException) -> JSONResponse:
        return error_response(e.status_code, str(e.detail), headers=dict(e.headers) if e.headers else None)

    @app.exception_handler(FishserveError)
    async def refused(_: Request, e: FishserveError) -> JSONResponse:
        if isinstance(e, VoiceNotFound):
            return error_response(404, str(e), "voice")
        if isinstance(e, RequestError):
            return error_response(400, str(e), "input" if e.param == "text" else e.param)
        if isinstance(e, Overloaded):
            return error_response(429, str(e), headers={"Retry-After": str(max(1, math.ceil(e.retry_after)))})
        return error_response(503 if isinstance(e, EngineClosed) else 500, str(e))

    @app.exception_handler(Exception)
    async def broken(_: Request, e: Exception) -> JSONResponse:
        return error_response(500, f"an error inside the server ({type(e).__name__}); its log says more")

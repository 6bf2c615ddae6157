"""Shared by the speech APIs: the engine client protocol, audio as HTTP responses, and disconnected clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Protocol

import numpy as np
from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from inference.audio.encode import Encoder
from inference.engine.request import Audio, SpeechRequest
from inference.errors import NotReady
from inference.voices.notice import MINNOW, ONE_VOICE, VOICE_IGNORED
from inference.voices.voice import Voice

CLIENT_GONE = 499
PING = {"loading": 204, "ready": 200, "failed": 503}
"""The status code that RunPod's load balancer expects for each state."""
_GONE: Any = object()


class EngineClient(Protocol):
    """The interface that the HTTP APIs need from an engine, wherever the engine runs."""

    def astream(self, request: SpeechRequest, more: AsyncIterator[str] | None = None) -> AsyncIterator[Audio]: ...

    async def encode(self, wave: np.ndarray) -> np.ndarray:
        """Mono samples (n,) at 44.1 kHz -> codes (codebooks, frames). Raises AudioError, Overloaded."""
        ...

    async def decode(self, codes: np.ndarray) -> np.ndarray:
        """Codes (codebooks, frames) -> samples (n,) float32. Raises AudioError, Overloaded."""
        ...

    async def state(self) -> dict[str, str]:
        """`{"status": "loading" | "ready" | "failed", ...}`."""
        ...


async def started(speaker: EngineClient, speech: SpeechRequest, request: Request) -> AsyncIterator[Audio] | Response:
    """Wait for a request's first chunk, then return all its chunks. An error before the first chunk can still set the status code.

    Returns a response instead when the client has disconnected. Raises NotReady.
    """
    await check_ready(speaker)
    chunks = speaker.astream(speech)
    first = await unless_gone(request, anext(chunks, None))
    if first is _GONE:
        await _close(chunks)
        return Response(status_code=CLIENT_GONE)
    return _resume(first, chunks)


async def check_ready(speaker: EngineClient) -> None:
    """Raises NotReady while the model cannot speak."""
    state = await speaker.state()
    if state["status"] != "ready":
        raise NotReady(f"the model is {state['status']}; see /ready")


async def voice_headers(speaker: EngineClient, voice: Voice) -> dict[str, str]:
    """Headers that tell the client that the model ignores the requested voice; empty when it does not."""
    ignored = voice.references and (await speaker.state()).get("model") == MINNOW
    return {VOICE_IGNORED: ONE_VOICE} if ignored else {}


async def encoded(audio: AsyncIterator[Audio], encoder: Encoder) -> AsyncIterator[bytes]:
    """Encode chunks to the bytes of a file as they arrive. A thread does the encoding, so that no other request waits for it."""
    try:
        async for chunk in audio:
            if content := await asyncio.to_thread(encoder.encode, chunk.samples):
                yield content
        if content := await asyncio.to_thread(encoder.finish):
            yield content
    finally:
        await _close(audio)


async def file(
    audio: AsyncIterator[Audio], encoder: Encoder, request: Request, *, stream: bool, headers: dict[str, str] | None = None
) -> Response:
    """Stream the file as it is generated or, without `stream`, return it whole, with a Content-Length and true sizes in its header."""
    headers = {"X-Sample-Rate": str(encoder.sample_rate), **(headers or {})}
    if stream:
        return StreamingResponse(encoded(audio, encoder), media_type=encoder.media_type, headers=headers)
    content = await whole(audio, encoder, request)
    if content is None:
        return Response(status_code=CLIENT_GONE)
    return Response(encoder.with_true_sizes(content), media_type=encoder.media_type, headers=headers)


async def whole(audio: AsyncIterator[Audio], encoder: Encoder, request: Request) -> bytes | None:
    """All bytes of a file; None when the client disconnects first."""

    async def gather() -> bytes:
        return b"".join([content async for content in encoded(audio, encoder)])

    content = await unless_gone(request, gather())
    return None if content is _GONE else content


async def unless_gone(request: Request, work: Any) -> Any:
    """The result of `work`. If the client disconnects first, cancel `work` and return _GONE."""

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


async def _resume(first: Audio | None, rest: AsyncIterator[Audio]) -> AsyncIterator[Audio]:
    """Yield `first`, which the caller has already taken, and then the remaining chunks."""
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

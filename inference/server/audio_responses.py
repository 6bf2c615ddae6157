"""Shared by the speech APIs: the engine client protocol, audio as HTTP responses, and disconnected clients."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from starlette.types import Scope

from inference import tracing
from inference.audio.encode import Encoder
from inference.engine.request import Audio, GuardReport, MoreText, SpeechRequest, check_text
from inference.errors import NotReady, RequestError
from inference.model.config import SAMPLE_RATE
from inference.server import word_times
from inference.text.script import script, speakable
from inference.text.words import Word
from inference.voices.notice import MINNOW, PITCH_ONLY, VOICE_NOTICE
from inference.voices.voice import Voice

CLIENT_GONE = 499
ANYTHING = "Anything."
"""A text for a request that is only checked."""
SILENCE_SECONDS = 0.2
"""How long a text of signs only is."""
FIRST_BYTE_SECONDS = 4.0
"""Clients such as LiveKit's disconnect when nothing comes for 5 s: streamed audio that has to wait longer sends `WAITING_SAMPLES` of silence."""
WAITING_SAMPLES = 1024
PING = {"loading": 204, "ready": 200, "failed": 503}
"""The status code that RunPod's load balancer expects for each state."""
SPOOL_BYTES, READ_BYTES = 4_000_000, 65_535
"""A whole reply of more than the first is kept on disk until it is sent, in pieces of the second."""
MAX_WHOLE_BYTES = 1_000_000_000
GUARD_HEADER = "X-Quality-Guard"
_GONE: Any = object()


class EngineClient(Protocol):
    """The interface that the HTTP APIs need from an engine, wherever the engine runs."""

    def astream(self, request: SpeechRequest, more: AsyncIterator[str | MoreText] | None = None) -> AsyncIterator[Audio]: ...

    async def encode(self, wave: np.ndarray) -> np.ndarray:
        """Mono samples (n,) at 44.1 kHz -> codes (codebooks, frames). Raises AudioError, Overloaded."""
        ...

    async def decode(self, codes: np.ndarray) -> np.ndarray:
        """Codes (codebooks, frames) -> samples (n,) float32. Raises AudioError, Overloaded."""
        ...

    async def state(self) -> dict[str, Any]:
        """`{"status": "loading" | "ready" | "failed", ...}`."""
        ...


def request_for(text: str, make: Callable[[str], SpeechRequest]) -> SpeechRequest | None:
    """The request that `make` makes for a text; None for a text of signs only, such as "..." or an emoji.

    Agents send such texts, too, and expect silence. Raises RequestError.
    """
    check_text(text, "text")
    silent = bool(text.strip()) and not speakable(text)
    if silent:
        script(f"{ANYTHING} {text}", len(ANYTHING), normalize=False)  # its pauses have to be right all the same
    request = make(ANYTHING if silent else text)
    return None if silent else request


async def started(
    speaker: EngineClient, speech: SpeechRequest | None, request: Request, *, streamed: bool = False
) -> AsyncIterator[Audio] | Response:
    """Wait for a request's first chunk, then return all its chunks. An error before the first chunk can still set the status code.

    None is spoken as a short silence. If `streamed` audio has to wait for long, it begins with silence. Returns a response instead when
    the client has disconnected. Raises NotReady.
    """
    await check_ready(speaker)
    if speech is None:
        return silence()
    chunks = speaker.astream(speech)
    first = asyncio.ensure_future(anext(chunks, None))
    if await unless_gone(request, asyncio.wait((first,), timeout=FIRST_BYTE_SECONDS if streamed else None)) is _GONE:
        await _stop(first, chunks)
        return Response(status_code=CLIENT_GONE)
    if first.done():
        first.result()  # raises its error while that can still be the response
    return _resume(first, chunks, request.scope)


async def check_ready(speaker: EngineClient) -> None:
    """Raises NotReady while the model cannot speak."""
    state = await speaker.state()
    if state["status"] != "ready":
        raise NotReady(f"the model is {state['status']}; see /ready")


async def voice_headers(speaker: EngineClient, *voices: Voice) -> dict[str, str]:
    """Headers that tell the client that the model hardly follows the requested voices; empty if it imitates them or none is requested."""
    hardly = any(voice.references for voice in voices) and (await speaker.state()).get("model") == MINNOW
    return {VOICE_NOTICE: PITCH_ONLY} if hardly else {}


async def encoded(audio: AsyncIterator[Audio], encoder: Encoder) -> AsyncGenerator[bytes]:
    """Encode chunks to the bytes of a file as they arrive. A thread does the encoding, so that no other request waits for it.

    After a chunk without samples, which says that live speech waits for text, nothing is held back.
    """
    async with aclosing(encoded_with_words(audio, encoder)) as pieces:
        async for piece in pieces:
            if piece.content:
                yield piece.content


class Piece(NamedTuple):
    """A piece of a file, and the words that are known with it, whose times are in seconds of the file. It may be empty where it has words.

    `start` and `end` are where in the file the sound lies that was encoded for it; a compressed format holds some of that back.
    """

    content: bytes
    words: tuple[Word, ...]
    start: float
    end: float


async def encoded_with_words(audio: AsyncIterator[Audio], encoder: Encoder) -> AsyncGenerator[Piece]:
    """As `encoded`, with the words of the audio."""
    heard = start = 0.0
    stage = tracing.Stage("encode")
    try:
        async for chunk in audio:
            stage.begin()
            heard += chunk.seconds
            words = tuple(replace(w, start=encoder.position(w.start), end=encoder.position(w.end)) for w in chunk.words)
            waits = not len(chunk.samples) and not words
            if (content := await asyncio.to_thread(encoder.flush if waits else partial(encoder.encode, chunk.samples))) or words:
                end = encoder.position(heard)
                if content:
                    stage.end()
                yield Piece(content, words, start, end)
                start = end
        if content := await asyncio.to_thread(encoder.finish):
            yield Piece(content, (), start, encoder.position(heard))
    finally:
        asyncio.get_running_loop().run_in_executor(None, encoder.close)
        await close(audio)


async def file(
    audio: AsyncIterator[Audio],
    encoder: Encoder,
    request: Request,
    *,
    stream: bool,
    headers: dict[str, str] | None = None,
    words: bool = False,
) -> Response:
    """Stream the file as it is generated or, without `stream`, return it whole, with a Content-Length and true sizes in its header.

    With `words`, a whole file's words are in a header, too.
    """
    headers = {"X-Sample-Rate": str(encoder.sample_rate), **(headers or {})}
    if stream:
        return StreamingResponse(encoded(audio, encoder), media_type=encoder.media_type, headers=headers)
    spooled = await unless_gone(request, _spooled(audio, encoder))
    if spooled is _GONE:
        return Response(status_code=CLIENT_GONE)
    content, pieces = spooled
    found = word_times.header([word for piece in pieces for word in piece.words]) if words else {}
    headers |= {"Content-Length": str(content.seek(0, os.SEEK_END)), **found, **_guard_header(request.scope)}
    return StreamingResponse(_read(content), media_type=encoder.media_type, headers=headers)


def _guard_header(scope: Scope) -> dict[str, str]:
    """What the guard did, as a structured header (RFC 9651); none where it was off."""
    report: GuardReport | None = scope.get("guard")
    if report is None:
        return {}
    numbers = f"segments={report.segments}, retries={report.retries}, rests={report.rests}, unmended={report.unmended}"
    faults = " ".join(sorted(set(report.faults)))
    return {GUARD_HEADER: f"{numbers}, discarded-seconds={report.discarded_seconds:.3f}, faults=({faults})"}


async def whole(audio: AsyncIterator[Audio], encoder: Encoder, request: Request) -> tuple[AsyncIterator[bytes], list[Piece]] | Response:
    """The whole file with true sizes, in pieces whose sizes are divisible by three, and the pieces that had words, without content.

    A response when the client has disconnected.
    """
    spooled = await unless_gone(request, _spooled(audio, encoder))
    if spooled is _GONE:
        return Response(status_code=CLIENT_GONE)
    content, pieces = spooled
    return _read(content), pieces


async def _spooled(audio: AsyncIterator[Audio], encoder: Encoder) -> tuple[IO[bytes], list[Piece]]:
    """The whole file, on disk when it is large, and the pieces that had words, without content.

    Raises RequestError when it is too large, NotReady when the disk is full.
    """
    timed: list[Piece] = []
    content = tempfile.SpooledTemporaryFile(SPOOL_BYTES)  # noqa: SIM115 - whoever sends it closes it
    try:
        async with aclosing(encoded_with_words(audio, encoder)) as pieces:
            async for piece in pieces:
                if piece.words:
                    timed.append(piece._replace(content=b""))
                if content.tell() + len(piece.content) > MAX_WHOLE_BYTES:
                    raise RequestError(f"the file has more than {MAX_WHOLE_BYTES:,} bytes; ask for it streamed or in another format")
                await asyncio.to_thread(content.write, piece.content)
        at, sizes = encoder.true_sizes(content.tell())
        content.seek(at)
        content.write(sizes)
    except OSError as e:
        content.close()
        raise NotReady(f"the reply cannot be kept on this server's disk ({e.strerror}); ask for it streamed") from None
    except BaseException:
        content.close()
        raise
    return content, timed


async def _read(content: IO[bytes]) -> AsyncIterator[bytes]:
    with content:
        content.seek(0)
        while piece := await asyncio.to_thread(content.read, READ_BYTES):
            yield piece


async def answer_unless_gone(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """The response that `work` makes, which ends when the client disconnects."""
    done = await unless_gone(request, work)
    return Response(status_code=CLIENT_GONE) if done is _GONE else done


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


async def silence() -> AsyncIterator[Audio]:
    """The speech of a text of signs only."""
    yield Audio(np.zeros(round(SILENCE_SECONDS * SAMPLE_RATE), np.float32))


async def _resume(first: asyncio.Future[Audio | None], rest: AsyncIterator[Audio], scope: Scope) -> AsyncIterator[Audio]:
    """Yield the first chunk, and then the remaining ones. While the first does not come, a little silence keeps the client waiting.

    What the guard reports is added up in the request's scope, where the log finds it.
    """
    waited = 0.0

    def passed(chunk: Audio) -> Audio:
        if chunk.guard:
            scope["guard"] = scope.get("guard", GuardReport()) + chunk.guard
        return chunk.moved(waited)

    try:
        while not first.done():
            waiting = Audio(np.zeros(WAITING_SAMPLES, np.float32))
            waited += waiting.seconds
            yield waiting
            yield Audio(np.zeros(0, np.float32))  # an encoder holds nothing back
            await asyncio.wait((first,), timeout=FIRST_BYTE_SECONDS)
        if (chunk := first.result()) is not None:
            yield passed(chunk)
        async for chunk in rest:
            yield passed(chunk)
    finally:
        await _stop(first, rest)


async def _stop(first: asyncio.Future[Audio | None], rest: AsyncIterator[Audio]) -> None:
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await close(rest)


async def close(chunks: AsyncIterator[Audio]) -> None:
    """End a stream of audio early."""
    if hasattr(chunks, "aclose"):
        await chunks.aclose()

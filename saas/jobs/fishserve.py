"""Servers that speak, on other machines or in this process behind loopback: asked for raw samples, which become a file here.

That way the formats, the charge and the bytes are the same whichever machine spoke, and a stream can be counted while it runs.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import ormsgpack

from inference import tracing
from inference.audio.encode import NATIVE_RATE, Encoder
from inference.spool import Spool
from inference.text.words import Word
from saas.jobs.backend import BackendUnavailable, JobRejected, Order, VoiceClip
from saas.jobs.servers import Server, Servers
from saas.storage.bucket import Bucket

SAMPLES_PER_FRAME = 2048
"""Of FishSpeech 1.5's codec, at 44.1 kHz."""
MAX_CLIP_BYTES = 25_000_000
_REFUSALS = (400, 404, 413, 422)
"""Statuses for a fault in the job, not in the server."""
Body = tuple[bytes, Spool | None]
"""A request as msgpack, and the clip that ends it."""


class Fishserve:
    """One server or several, which get as many requests at once as they have slots. Each has its own queue behind them.

    A request that no sound has come of yet goes to another server when one fails or is full.
    """

    name = "fishserve"

    def __init__(self, http: httpx.AsyncClient, bucket: Bucket, urls: Sequence[str], key: str | None) -> None:
        self._http, self._bucket, self._servers = http, bucket, Servers(http, urls)
        self._headers = {"Content-Type": "application/msgpack"} | ({"Authorization": f"Bearer {key}"} if key else {})

    @property
    def slots(self) -> int:
        """As Streaming.slots."""
        return self._servers.slots

    async def look(self) -> None:
        """Ask the servers whether they are ready; to be done again and again."""
        await self._servers.look()

    @asynccontextmanager
    async def open(self, order: Order) -> AsyncIterator[FishSpeech]:
        """As Streaming.open."""
        async with AsyncExitStack() as stack:
            body = await stack.enter_async_context(self._body(order))
            server, received = await self._first_to_speak(order, body, stack)
            o = order.options
            try:
                yield FishSpeech(received, Encoder(o.format, o.sample_rate, o.speed), o.speed, order.budget, timed=o.captions is not None)
            except httpx.HTTPError as e:
                raise _broken(server, e) from None

    async def _first_to_speak(self, order: Order, body: Body, stack: AsyncExitStack) -> tuple[Server, AsyncIterator[Any]]:
        """The server from which sound has come, and what comes from it. Raises BackendUnavailable when there is none."""
        failures: list[BackendUnavailable] = []
        for server in self._servers.in_turn():
            async with AsyncExitStack() as attempt:
                try:
                    received = await self._ask(server, order, body, attempt)
                except BackendUnavailable as e:
                    failures.append(e)
                    continue
                stack.push_async_exit(attempt.pop_all())
                return server, received
        if not failures:
            raise BackendUnavailable("the name in FISHSERVE_URL has no address now")
        raise next((e for e in failures if e.fault == "key"), failures[-1])

    async def _ask(self, server: Server, order: Order, body: Body, attempt: AsyncExitStack) -> AsyncIterator[Any]:
        """What comes from one server, once the first of it is there: bytes, or lines for an order with captions."""
        attempt.enter_context(server.busy())
        trace = attempt.enter_context(tracing.call(f"POST {_path(order)}", **{"fishserve.job": order.job_id}))
        begun, clip = body
        size = len(begun) + (clip.size if clip else 0)
        asked = self._http.stream(
            "POST", f"{server.url}{_path(order)}", content=_pieces(begun, clip), headers=self._headers | trace | {"Content-Length": str(size)},
            timeout=httpx.Timeout(60, connect=10),
        )  # fmt: skip
        try:
            response = await attempt.enter_async_context(asked)
            if response.status_code != 200:
                refusal = _refused(response, await _some(response))
                if isinstance(refusal, BackendUnavailable):
                    server.refused(refusal, response.status_code)
                raise refusal
            source = response.aiter_lines() if order.options.captions else response.aiter_bytes()
            first = await anext(source, None)
        except httpx.HTTPError as e:
            raise _broken(server, e) from None
        server.works()
        return _chained(first, source)

    @asynccontextmanager
    async def _body(self, order: Order) -> AsyncIterator[Body]:
        """The request. A clip waits on disk: it may be large, and there may be many."""
        body: dict[str, Any] = {
            "text": order.text, "format": "pcm", "sample_rate": NATIVE_RATE, "streaming": order.options.captions is None, "seed": order.seed,
            "temperature": order.options.temperature, "top_p": order.options.top_p,
        }  # fmt: skip
        if order.voice is None:
            yield ormsgpack.packb(body), None
            return
        with await self._clip(order.voice) as clip:
            begun = ormsgpack.packb(body | {"references": [{"text": order.voice.transcript, "audio": b""}]})
            begun = begun.removesuffix(b"\xc4\x00") + b"\xc6" + clip.size.to_bytes(4, "big")  # bytes of a longer kind, which follow
            yield begun, clip

    async def _clip(self, voice: VoiceClip) -> Spool:
        clip = await self._bucket.fetch(voice.key, MAX_CLIP_BYTES)
        if clip is not None and voice.sha256 in (None, await asyncio.to_thread(clip.digest)):
            return clip
        if clip is not None:
            clip.close()
        raise JobRejected("the clip of this voice is gone; add the voice again")


class FishSpeech:
    """Encodes a file as its audio arrives, in a thread, so that no other request waits for it. It ends after `budget` seconds of speech.

    `received` has bytes of samples or, if `timed`, lines of server-sent events, which have the times of words.
    """

    def __init__(self, received: AsyncIterator[Any], encoder: Encoder, speed: float, budget: float | None, *, timed: bool = False) -> None:
        self._received, self._encoder, self._speed, self._samples = received, encoder, speed, 0
        self._timed, self._words = timed, list[Word]()
        self._most = None if budget is None else int(budget * NATIVE_RATE)
        self.partial = False

    @property
    def frames(self) -> int:
        """Codec frames received so far."""
        return self._samples // SAMPLES_PER_FRAME

    @property
    def seconds(self) -> float:
        """Seconds of audio, at the file's speed."""
        return round(self._samples / NATIVE_RATE / self._speed, 3)

    @property
    def words(self) -> list[Word]:
        """As Speech.words."""
        ends = self._samples / NATIVE_RATE
        position = self._encoder.position
        return [replace(w, start=position(w.start), end=position(min(w.end, ends))) for w in self._words if w.start < ends]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The bytes of the file as they are encoded. `open` turns a broken connection into BackendUnavailable."""
        odd = b""
        async for piece in self._events() if self._timed else self._received:
            content = odd + piece
            whole = len(content) // 2 * 2
            odd = content[whole:]
            samples = np.frombuffer(content[:whole], "<i2").astype(np.float32) / 32768
            if self._most is not None and self._samples + len(samples) > self._most:
                samples, self.partial = samples[: self._most - self._samples], True
            self._samples += len(samples)
            if made := await asyncio.to_thread(self._encoder.encode, samples):
                yield made
            # Times come behind their sound, so those of what was kept may follow.
            if self.partial and not (self._timed and all(w.start * NATIVE_RATE < self._samples for w in self._words)):
                return

    async def _events(self) -> AsyncIterator[bytes]:
        """The samples in server-sent events with the times of words, which it keeps."""
        async for line in self._received:
            if not line.startswith("data:"):
                continue
            event = json.loads(line[5:])
            if times := event["alignment"]:
                began = event["chunk_audio_offset_sec"]
                for w in times["segments"]:
                    place = (w["start_char"], w["end_char"], began + w["start"], began + w["end"])
                    self._words.append(Word(w["text"], *place, "", times["precision"]))
            yield base64.b64decode(event["audio_base64"])

    async def finish(self) -> bytes:
        """The last bytes of the file; nothing may follow them."""
        return await asyncio.to_thread(self._encoder.finish)

    def true_sizes(self, size: int) -> tuple[int, bytes]:
        """As Speech.true_sizes."""
        return self._encoder.true_sizes(size)


async def _chained(first: Any, rest: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """All items again, once the first has been taken; None: there was none."""
    if first is not None:
        yield first
    async for item in rest:
        yield item


def _broken(server: Server, error: httpx.HTTPError) -> BackendUnavailable:
    failure = BackendUnavailable(f"the server that speaks does not answer: {type(error).__name__}")
    server.refused(failure, 0)
    return failure


def _path(order: Order) -> str:
    return "/v1/tts" if order.options.captions is None else "/v1/tts/stream/with-timestamp"


async def _pieces(begun: bytes, rest: Spool | None) -> AsyncIterator[bytes]:
    yield begun
    if rest is not None:
        async for piece in rest.pieces():
            yield piece


def _refused(response: httpx.Response, body: bytes) -> BackendUnavailable | JobRejected:
    try:
        said = httpx.Response(200, content=body).json()
        message = str(said.get("message") or said.get("detail") or "")[:500]
    except (ValueError, AttributeError):
        message = ""
    if response.status_code in _REFUSALS:
        return JobRejected(message or f"the server that speaks refused the text with {response.status_code}")
    if response.status_code in (401, 403):
        return BackendUnavailable("the server that speaks refuses FISHSERVE_KEY", fault="key")
    after = response.headers.get("Retry-After", "")
    return BackendUnavailable(
        f"the server that speaks answered {response.status_code}", float(after) if after.isascii() and after.isdigit() else None
    )


async def _some(response: httpx.Response) -> bytes:
    content = b""
    async for piece in response.aiter_bytes():
        content += piece
        if len(content) > 10_000:
            break
    return content

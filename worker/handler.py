"""Handles RunPod jobs: many at once through one engine, each an async generator that RunPod's SDK iterates."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import IO, Any

from inference import tracing
from inference.audio.encode import Encoder
from inference.audio.subprocess_decoder import decode_in_subprocess
from inference.engine.engine import SpeechEngine
from inference.engine.request import SpeechRequest
from inference.engine.stream import AsyncSpeechStream
from inference.errors import EngineClosed, FishserveError, NotReady, RequestError
from inference.hub import name_of
from inference.model.config import SAMPLE_RATE, SAMPLES_PER_FRAME
from inference.seeds import seed_of
from inference.spool import Spool
from inference.text.captions import CAPTION_FORMATS
from inference.text.dialogue import MAX_VOICES, voice_names
from inference.text.words import Word
from inference.voices.notice import MINNOW, PITCH_ONLY
from inference.voices.store import DEFAULT, VoiceStore
from inference.voices.voice import Reference, Voice
from worker.job import INLINE_BYTES, MAX_CAPTIONS, Clip, Job, parse
from worker.storage import Storage

_PIECE = INLINE_BYTES * 3 // 4 - 1000
"""Bytes that in base64, with the fields around them, stay below INLINE_BYTES."""
_PROGRESS_SECONDS = 10
MAX_RESULT_BYTES = 1_000_000_000
"""The largest file. It waits on the worker's disk until it is uploaded."""


class Handler:
    """One engine, and the voices and storage that jobs may use. `progress(job, status)` reports a job's progress to RunPod."""

    def __init__(self, engine: SpeechEngine, voices: VoiceStore, storage: Storage, progress: Callable[[dict[str, Any], Any], None]) -> None:
        self._engine, self._voices, self._storage, self._progress = engine, voices, storage, progress
        self.left = 0
        """Jobs that this worker cannot do and leaves to another."""

    async def __call__(self, job: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Yield pieces of the file if the job asks for them, then the result; or an error in one sentence.

        The SDK cancels this generator when a job is cancelled or times out, which stops its speech within a frame. When the engine has
        ended, a job gets no answer: the worker ends (`worker.lost_engine`), and RunPod gives the job to another.
        """
        try:
            asked = parse(job["input"])
            if asked.upload and (before := await self._storage.done(asked.upload, job["id"])):
                yield before
                return
            async for piece in self._speak(job, asked):
                yield piece
        except EngineClosed:
            self.left += 1
            try:
                await asyncio.Event().wait()
            finally:
                self.left -= 1
        except FishserveError as e:
            yield {"error": str(e)}

    async def _speak(self, job: dict[str, Any], asked: Job) -> AsyncIterator[dict[str, Any]]:
        began = time.monotonic()
        seed = seed_of(job["id"]) if asked.seed is None else asked.seed
        encoder = Encoder(asked.format, asked.sample_rate, asked.speed)
        request = SpeechRequest(
            asked.spoken, await self._voice(asked.voice), seed, asked.temperature, asked.top_p, asked.repetition_penalty, asked.normalize,
            asked.chunk_length, asked.max_new_tokens, words=asked.captions is not None, voices=await self._named(asked.spoken),
            traceparent=asked.traceparent,
        )  # fmt: skip
        words: list[Word] = []
        samples, told, first, pieces, partial = 0, 0.0, None, 0, False
        most = None if asked.max_seconds is None else int(asked.max_seconds * SAMPLE_RATE)
        with Spool() as content:
            async with self._engine.astream(request) as stream:
                async for chunk in stream:
                    first = first or time.monotonic()
                    words += chunk.words
                    sound = chunk.samples
                    if most is not None and samples + len(sound) > most:
                        sound, partial = sound[: most - samples], True
                    samples += len(sound)
                    seconds = samples / SAMPLE_RATE
                    made = await asyncio.to_thread(encoder.encode, sound)
                    if seconds - told >= _PROGRESS_SECONDS:
                        told = seconds
                        self._progress(job, {"seconds": round(seconds, 2)})
                    await _keep(content, made, asked)
                    if asked.stream:
                        for piece in _pieces(made):
                            yield _piece(piece, pieces)
                            pieces += 1
                    # Times come behind their sound, so those of what was kept may follow.
                    if partial and not (asked.captions and all(w.start * SAMPLE_RATE < samples for w in words)):
                        break
            made = await asyncio.to_thread(encoder.finish)
            await _keep(content, made, asked)
            if asked.stream:
                for piece in _pieces(made):
                    yield _piece(piece, pieces)
                    pieces += 1
            # Without an upload, pieces are a stream: the file that the receiver joins has this checksum.
            if asked.upload or not asked.stream:
                content.overwrite(*encoder.true_sizes(content.size))
            result = self._result(asked, encoder, content, stream, seed, samples, partial, began, first)
            result["sha256"] = await asyncio.to_thread(content.digest)
            if asked.captions:
                result |= await self._captions(job["id"], asked, encoder, [w for w in words if w.start < samples / SAMPLE_RATE], samples)
            if asked.upload:
                result |= await self._storage.send(asked.upload, content, encoder.media_type, job["id"], result)
            elif not asked.stream:
                result["audio"] = base64.b64encode(content.read(0, content.size)).decode()
            tracing.record_stages(asked.traceparent, [("job", began, time.monotonic())])
            yield result

    def _result(
        self, asked: Job, encoder: Encoder, content: Spool, stream: AsyncSpeechStream, seed: int, samples: int, partial: bool,
        began: float, first: float | None,
    ) -> dict[str, Any]:  # fmt: skip
        result: dict[str, Any] = {
            "seconds": round(samples / SAMPLE_RATE / asked.speed, 3), "frames": samples // SAMPLES_PER_FRAME, "bytes": content.size,
            "format": asked.format, "sample_rate": encoder.sample_rate, "seed": seed,
            "finish": "max_seconds" if partial else stream.finish_reason, "partial": partial,
            "model": name_of(self._engine.checkpoint.path),
            "timings": {
                "queued": round(stream.queued_seconds or 0, 3),
                "first_audio": round((first or time.monotonic()) - began, 3),
                "total": round(time.monotonic() - began, 3),
            },
        }  # fmt: skip
        others = asked.voice not in (None, DEFAULT) or set(voice_names(asked.spoken)) - {DEFAULT}
        if others and result["model"] == MINNOW:
            result["warning"] = PITCH_ONLY
        return result

    async def _captions(self, job: str, asked: Job, encoder: Encoder, words: list[Word], samples: int) -> dict[str, Any]:
        """The captions, or where they are. Those that are too large for a result are left out of it, which then says their size."""
        assert asked.captions is not None
        ends = samples / SAMPLE_RATE
        timed = [replace(w, start=encoder.position(w.start), end=encoder.position(min(w.end, ends))) for w in words]
        written = CAPTION_FORMATS[asked.captions].write(asked.spoken, timed)
        where = asked.upload.captions if asked.upload else None
        if where is None:
            size = len(json.dumps(written))
            return {"captions": written} if size <= MAX_CAPTIONS else {"captions_omitted": size}
        with Spool() as content:
            await content.write(written.encode())
            await self._storage.send(where, content, CAPTION_FORMATS[asked.captions].media_type, job, {})
        return {} if where.key is None else {"captions_key": where.key}

    async def _named(self, text: str) -> dict[str, Voice]:
        """The voices of this worker that marks in a text name. Raises VoiceNotFound, RequestError."""
        names = voice_names(text)
        if len(names) > MAX_VOICES:
            raise RequestError(f"the text names {len(names)} voices; at most {MAX_VOICES} speak in one request", "voice")
        return {name: await self._voice(name) for name in names}

    async def _voice(self, asked: str | Clip | None) -> Voice:
        engine = self._engine
        if isinstance(asked, Clip):
            if asked.audio is not None:
                source: bytes | IO[bytes] = asked.audio
                codes = await asyncio.to_thread(lambda: engine.encode(decode_in_subprocess(source)))
            else:
                with await self._storage.clip(asked) as clip, clip.open() as source:
                    codes = await asyncio.to_thread(lambda: engine.encode(decode_in_subprocess(source)))
            return Voice((Reference(codes, asked.text),))
        return await asyncio.to_thread(self._voices.encoded, asked or DEFAULT, engine.checkpoint.codec_id, engine.encode)


async def _keep(content: Spool, made: bytes, asked: Job) -> None:
    """Add to the file. Raises RequestError as soon as it is too large for its way back, NotReady when the disk is full."""
    size = content.size + len(made)
    most = INLINE_BYTES - (MAX_CAPTIONS if asked.captions else 0)
    if not (asked.upload or asked.stream) and -(-size // 3) * 4 > most:
        raise RequestError(
            f"the sound has more than {most:,} characters in base64, and RunPod drops results above that; give an upload, or stream",
            "upload",
        )
    if size > MAX_RESULT_BYTES:
        raise RequestError(f"the file would have more than {MAX_RESULT_BYTES:,} bytes; ask for less text, or for another format")
    try:
        await content.write(made)
    except OSError as e:
        raise NotReady(f"the file cannot be kept on this worker's disk: {e.strerror}") from None


def _pieces(content: bytes) -> list[bytes]:
    return [content[start : start + _PIECE] for start in range(0, len(content), _PIECE)]


def _piece(content: bytes, number: int) -> dict[str, Any]:
    return {"audio": base64.b64encode(content).decode(), "index": number}

"""SpeechEngine: many requests at once through one model, each a stream of audio.

One thread generates. It admits, prefills, decodes one frame for every running sequence, vocodes what is due and hands the
chunks out. It sleeps only when there is nothing to do. The caller of `encode` and `decode` waits for them, the engine does not.
"""

from __future__ import annotations

import asyncio
import atexit
import hashlib
import math
import queue
import secrets
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from inference.engine import collector, metrics
from inference.engine.device import affordable_rows, allowed_weights, pick_device, use_threads
from inference.engine.kv_cache import KVPrefix
from inference.engine.request import Audio, SpeechRequest
from inference.engine.runner import PREFILL, Runner, Sequence
from inference.engine.stream import Item, RequestHandle, SpeechStream
from inference.engine.vocoder import FIRST_CHUNK, LARGEST_CHUNK, Vocoder, VocoderStream
from inference.engine.weight_layouts import Weights
from inference.errors import AudioError, EngineClosed, GenerationError, Overloaded, RequestError
from inference.hub import locate
from inference.model import checkpoint as checkpoints
from inference.model.checkpoint import Checkpoint
from inference.model.codec import check_codes
from inference.model.config import CODES_PER_GROUP, SAMPLE_RATE
from inference.model.prompt import PromptBuilder, context, reference_context
from inference.text.clean import clean
from inference.text.segments import pause_after
from inference.threads import run_in_short_lived_thread
from inference.voices.voice import Reference, Voice

DEFAULT_NEW_TOKENS = 1024
REFERENCE_MAX_LENGTH = 4096
MAX_UNREAD = 400
"""Chunks, ten minutes of sound, that may wait for a consumer; of one that has stopped reading the memory must not fill up."""
MAX_LIVE_SEGMENTS = 1000
"""Pieces of text that one live request may have in all: two hours of speech or more."""
MIN_REFERENCE_SECONDS, MAX_REFERENCE_SECONDS = 0.5, 90


@dataclass(eq=False)
class _Job:
    """A request on its way: its segments, the seconds of silence before each and after the last, what was spoken so far, and the segment
    being generated.

    Of a `live` one, more text may come as long as it is `open`; it holds no row while it waits for that. `gap` is the natural pause, in seconds,
    between what it has and what may come.
    """

    request: SpeechRequest
    ticket: RequestHandle
    fixed: Tensor
    segments: list[Tensor]
    silences: list[float]
    seed: int
    audio: bool
    live: bool = False
    open: bool = False
    gap: float = 0.0
    turns: list[Tensor] = field(default_factory=list)
    codes: list[Tensor] = field(default_factory=list)
    sequence: Sequence | None = None
    past: KVPrefix | None = None
    vocoder: VocoderStream | None = None
    taken: int = 0
    cut: bool = False
    submitted: float = field(default_factory=time.monotonic)
    admitted: float = 0.0
    heard: float = 0.0
    seconds: float = 0.0

    @property
    def spoken(self) -> bool:
        """Nothing is left to generate of the text that is there."""
        return len(self.turns) == 2 * len(self.segments)

    @property
    def reason(self) -> str:
        """Why a request that was spoken ended."""
        return "length" if self.cut else "stop"


class SpeechEngine:
    """Text to speech with one loaded model. Thread-safe. Close it, or use it in a `with` statement.

    `weights="int8"` decodes with weights rounded to 8 bits, on CPU alone: faster and less exact (docs/performance.md). `rows` is how many requests
    are generated at once (by default 8, on CUDA 64), fewer if their keys and values would exceed `kv_bytes` (by default, on CUDA, half of the
    memory that is free); up to `queue` more wait their turn, further ones are refused. `ending` says why it is no longer `alive`.
    """

    def __init__(
        self, checkpoint: Checkpoint, rows: int | None = None, queue: int = 64, weights: Weights = "native", kv_bytes: int | None = None
    ) -> None:
        self.checkpoint = checkpoint
        self.sample_rate = SAMPLE_RATE
        self._prompts = {
            specials: PromptBuilder(checkpoint.tokenizer, checkpoint.config.num_codebooks, specials=specials) for specials in (False, True)
        }
        self._rows = affordable_rows(checkpoint, rows, kv_bytes)
        use_threads(checkpoint)  # before weights are laid out, a part for each thread
        self._runner = run_in_short_lived_thread(Runner)(checkpoint, self._rows, allowed_weights(weights, checkpoint.device))
        self._vocoder = Vocoder(checkpoint.codec)
        self._queue = queue
        self._seconds_per_request = 1.0
        self._waiting: deque[_Job] = deque()
        self._running: list[_Job] = []
        self._live: dict[RequestHandle, _Job] = {}
        self._parked: list[_Job] = []  # live, with nothing left to say for now
        self._wake = threading.Condition()
        self._closing = False
        self.ending = "the engine was closed"
        collector.freeze()
        self._unfreeze = weakref.finalize(self, collector.unfreeze)  # once
        self._thread = threading.Thread(target=self._loop, name="fishserve-engine", daemon=True)
        self._thread.start()
        _open.add(self)

    @classmethod
    def load(
        cls, checkpoint: str | Path | None = None, device: str = "auto", *,
        rows: int | None = None, queue: int = 64, weights: Weights = "native", kv_bytes: int | None = None, copies: Path | None = None,
    ) -> SpeechEngine:  # fmt: skip
        """Load a checkpoint directory or a Hugging Face repository (`owner/name`, or `owner/name@revision`).

        None means the embedded voice. `device` is "auto" (CUDA when there is one), "cpu" or "cuda[:n]".
        Raises CheckpointError when there is nothing to load or it cannot be used, PrecisionError when it breaks the policy.
        """
        return cls(checkpoints.load(locate(checkpoint), pick_device(device), copies), rows, queue, weights, kv_bytes)

    def stream(self, request: SpeechRequest) -> SpeechStream:
        """Start speaking. Raises RequestError at once when the request cannot be spoken by this model."""
        items: queue.SimpleQueue[Item] = queue.SimpleQueue()
        return SpeechStream(self.submit(request, items.put, unread=items.qsize), items)

    async def astream(self, request: SpeechRequest, more: AsyncIterator[str] | None = None) -> AsyncIterator[Audio]:
        """As `stream`, for asyncio; leaving the loop early cancels the request. `more` are texts that come later, as for `extend`."""
        loop = asyncio.get_running_loop()
        items: asyncio.Queue[Item] = asyncio.Queue()

        def deliver(item: Item) -> None:
            loop.call_soon_threadsafe(items.put_nowait, item)

        ticket = self.submit(request, deliver, unread=items.qsize, live=more is not None)
        feeding = asyncio.ensure_future(self._feed(ticket, more, items)) if more is not None else None
        try:
            while (item := await items.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            ticket.cancel()
            if feeding is not None:
                feeding.cancel()

    async def _feed(self, ticket: RequestHandle, more: AsyncIterator[str], items: asyncio.Queue[Item]) -> None:
        try:
            async for text in more:
                self.extend(ticket, text)
            self.complete(ticket)
        except Exception as e:
            items.put_nowait(e)

    def submit(
        self, request: SpeechRequest, deliver: Callable[[Item], None], *,
        audio: bool = True, unread: Callable[[], int] = int, live: bool = False,
    ) -> RequestHandle:  # fmt: skip
        """Start speaking and have each chunk, then the end, handed to `deliver` in the engine's thread; it must not block.

        With `audio=False` no sound is made, only the ticket's codes. `unread` says how many delivered chunks nobody has taken yet;
        a request of which too many pile up is stopped. A `live` request ends only after `complete`, and may be given more text
        by `extend` until then. Raises RequestError at once when the request cannot
        be spoken by this model, Overloaded when too many wait already, EngineClosed after `close`.
        """
        request = request.settled(self.checkpoint.manner)
        segments, silences = self._script(request)
        fixed = self._fixed(self._prompts[request.compat == "reference"], request.voice)
        self._check_room(request, fixed, segments)
        seed = secrets.randbits(63) if request.seed is None else request.seed
        ticket = RequestHandle(deliver, self._notify, unread)
        with self._wake:
            if self._closing:
                raise EngineClosed(self.ending)
            self._refuse_overload()
            job = _Job(request, ticket, fixed, segments, silences, seed, audio, live, live, self._gap(request))
            if live:
                self._live[ticket] = job
            self._waiting.append(job)
            self._wake.notify()
        return ticket

    def extend(self, ticket: RequestHandle, text: str) -> None:
        """Speak more text after what a live request has, in the same voice and breath. Nothing happens when it has ended.

        Raises RequestError when this text cannot be spoken, or the request has too much of it; what came before is spoken still.
        """
        job = self._live.get(ticket)
        if job is None:
            return
        request = replace(job.request, text=text)
        segments, silences = self._script(request)
        self._check_room(request, job.fixed, segments)
        with self._wake:
            if len(job.segments) + len(segments) > MAX_LIVE_SEGMENTS:
                raise RequestError(f"more than {MAX_LIVE_SEGMENTS:,} pieces of text in one request; begin another", "text")
            job.segments += segments
            between = job.silences[-1] + silences[0] or job.gap  # a pause that was asked for replaces the natural one
            job.silences, job.gap = [*job.silences[:-1], between, *silences[1:]], self._gap(request)
            if job in self._parked:  # whoever listens hears it begin anew
                self._parked.remove(job)
                job.heard, job.submitted = 0.0, time.monotonic()
                self._waiting.insert(self._rows, job)
                self._wake.notify()

    def complete(self, ticket: RequestHandle) -> None:
        """No more text will come for a live request: it ends when what it has is spoken."""
        with self._wake:
            if job := self._live.get(ticket):
                job.open = False
                self._wake.notify()

    def synthesize(self, request: SpeechRequest) -> Audio:
        """Speak the whole text and return it."""
        chunks = [chunk.samples for chunk in self.stream(request)]
        return Audio(np.concatenate(chunks) if chunks else np.zeros(0, np.float32))

    async def asynthesize(self, request: SpeechRequest) -> Audio:
        chunks = [chunk.samples async for chunk in self.astream(request)]
        return Audio(np.concatenate(chunks) if chunks else np.zeros(0, np.float32))

    def generate_codes(self, request: SpeechRequest) -> np.ndarray:
        """The codes of the whole text, (codebooks, frames) int64, without decoding them to sound."""
        ends: queue.SimpleQueue[Item] = queue.SimpleQueue()
        ticket = self.submit(request, ends.put, audio=False)
        try:
            end = ends.get()
        finally:
            ticket.cancel()
        if isinstance(end, Exception):
            raise end
        assert ticket.codes is not None
        return ticket.codes

    def encode(self, wave: np.ndarray, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
        """Mono samples (n,) float32 at 44.1 kHz -> codes (codebooks, frames) int64. Raises AudioError."""
        if sample_rate != SAMPLE_RATE:
            raise AudioError(f"the wave is at {sample_rate} Hz; the codec takes {SAMPLE_RATE} (inference.audio.read resamples)")
        if wave.ndim != 1 or not np.isfinite(wave).all():
            raise AudioError(
                f"the wave has shape {wave.shape}; finite mono samples (n,) are needed"
                if wave.ndim != 1
                else "the wave holds NaN or infinite samples"
            )
        samples = torch.from_numpy(np.ascontiguousarray(wave, np.float32)).to(self.checkpoint.device)
        metrics.CLIPS.inc()
        return _alone(self.checkpoint.codec.encode, samples)

    def decode(self, codes: np.ndarray) -> Audio:
        """Codes (codebooks, frames) int in 0..999 -> sound, decoded as one utterance. Raises AudioError."""
        tensor = torch.as_tensor(codes)
        check_codes(tensor, self.checkpoint.config.num_codebooks)
        if tensor.shape[1] == 0:
            return Audio(np.zeros(0, np.float32))
        return Audio(_alone(self.checkpoint.codec.decode, tensor.long().to(self.checkpoint.device)))

    def voice(self, wave: np.ndarray, text: str, name: str = "") -> Voice:
        """A voice from a clip: mono samples (n,) at 44.1 kHz, 0.5 to 90 s, and what is said in it. Raises AudioError."""
        seconds = len(wave) / SAMPLE_RATE
        if not MIN_REFERENCE_SECONDS <= seconds <= MAX_REFERENCE_SECONDS:
            raise AudioError(
                f"the reference lasts {seconds:.1f} s; {MIN_REFERENCE_SECONDS} to {MAX_REFERENCE_SECONDS} s are needed, about 10 s are best",
                "reference",
            )
        return Voice((Reference(self.encode(wave), text),), name)

    @property
    def rows(self) -> int:
        """How many requests are generated at once."""
        return self._rows

    @property
    def alive(self) -> bool:
        """False once it is closed, or a fault it could not recover from has ended it."""
        return not self._closing

    def close(self) -> None:
        """Stop the engine and free its memory. Requests still running fail with EngineClosed."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if threading.current_thread() is not self._thread:  # a callback may close the engine it runs in
            self._thread.join()
            self._give_back()

    def __enter__(self) -> SpeechEngine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # -- in the caller's thread ------------------------------------------------------------------------------------

    def _script(self, request: SpeechRequest) -> tuple[list[Tensor], list[float]]:
        """The prompt columns of each piece of text that is spoken in one go, and the seconds of silence before each and after the last."""
        lines, last = request.script(self.checkpoint.manner)
        prompts = self._prompts[request.compat == "reference"]
        return [prompts.segment(line.text) for line in lines], [*(line.silence for line in lines), last]

    def _gap(self, request: SpeechRequest) -> float:
        """Seconds of natural pause after a request's text when more follows."""
        return 0.0 if request.compat == "reference" else pause_after(request.text, self.checkpoint.manner.segmentation)

    def _fixed(self, builder: PromptBuilder, voice: Voice) -> Tensor:
        """The part of the prompt that every segment begins with: system message and references."""
        config = self.checkpoint.config
        parts = [builder.system()]
        for reference in voice.references:
            codes = np.asarray(reference.codes)
            codes = codes[0] if codes.ndim == 3 and codes.shape[0] == 1 else codes
            if codes.ndim != 2 or codes.shape[0] < config.num_codebooks or not np.issubdtype(codes.dtype, np.integer):
                raise RequestError(
                    f"the voice's codes are {codes.dtype} of shape {codes.shape}; this model needs integers of ({config.num_codebooks}, frames)",
                    "voice",
                )
            if codes.size and not 0 <= codes.min() <= codes.max() < config.codebook_size:
                raise RequestError(
                    f"the voice's codes run from {codes.min()} to {codes.max()}; this model has 0 to {config.codebook_size - 1}", "voice"
                )
            parts.append(builder.reference(clean(reference.text), codes))
        return torch.cat(parts, dim=1)

    def _refuse_overload(self) -> None:
        waiting = len(self._running) + len(self._waiting) - self._rows  # a row that is free is as good as taken by those that wait
        if waiting < self._queue:
            return
        metrics.REFUSED.inc()
        seconds = self._seconds_per_request * waiting / self._rows
        raise Overloaded(f"{waiting} requests are waiting already; try again in about {math.ceil(seconds)} s", seconds)

    def _check_room(self, request: SpeechRequest, fixed: Tensor, segments: list[Tensor]) -> None:
        size = self.checkpoint.config.max_seq_len
        longest = max(s.shape[1] for s in segments)
        new = 1 if request.compat == "reference" else self._reserve(request)
        if fixed.shape[1] + longest + new > size:
            raise RequestError(
                f"voice ({fixed.shape[1]} positions), text segment ({longest}) and speech to come ({new}) do not fit in the model's {size}; "
                "use a shorter reference, a smaller chunk_length or a smaller max_new_tokens",
                "max_new_tokens" if request.max_new_tokens else "voice" if request.voice.references else "chunk_length",
            )

    def _reserve(self, request: SpeechRequest) -> int:
        """Positions kept free of context for the speech of one segment."""
        return request.max_new_tokens or min(DEFAULT_NEW_TOKENS, self.checkpoint.config.max_seq_len // 2)

    def _context_room(self, job: _Job) -> int:
        """Columns that `fixed`, earlier segments and the newest one may take together."""
        room, history = self.checkpoint.config.max_seq_len - self._reserve(job.request), self.checkpoint.manner.history
        return room if history is None else min(room, job.fixed.shape[1] + job.turns[-1].shape[1] + history)

    def _notify(self) -> None:
        with self._wake:
            self._wake.notify()

    # -- in the engine's thread ------------------------------------------------------------------------------------

    @torch.inference_mode()
    def _loop(self) -> None:
        try:
            while self._wait_for_work():
                self._iterate()
        except Exception as e:  # clearing up after a fault failed too: the device is gone
            self.ending = f"the engine ended: {type(e).__name__}: {e}"
        finally:
            with self._wake:
                self._closing = True
                for job in (*self._running, *self._waiting, *self._parked):
                    self._end(job, EngineClosed(self.ending))
                self._waiting.clear()
                self._running.clear()
                self._parked.clear()
            self._give_back()

    def _give_back(self) -> None:
        """Whoever keeps an engine that has ended keeps neither its cache nor its copies of weights."""
        for part in ("_runner", "_vocoder"):
            self.__dict__.pop(part, None)
        self._unfreeze()

    def _wait_for_work(self) -> bool:
        with self._wake:
            while not (self._closing or self._waiting or self._running or any(map(_is_finished, self._parked))):
                metrics.RUNNING.set(0)
                self._wake.wait()
            return not self._closing

    def _iterate(self) -> None:
        """One round: admit and prefill a bounded piece, decode a frame for everyone, hand out what is ready."""
        started = time.monotonic()
        try:
            self._drop_cancelled()
            self._admit()
            self._collect()
            if self._runner.sequences:
                metrics.BATCH.observe(len(self._runner.sequences))
            self._runner.step()
            self._collect()
        except Exception as e:  # the device failed: nobody's row can be trusted, but the next request may well succeed
            for job in list(self._running):
                self._fail(job, _device_fault(self.checkpoint.device, e))
        metrics.STEP.observe(time.monotonic() - started)
        metrics.RUNNING.set(len(self._running))
        metrics.WAITING.set(len(self._waiting))
        metrics.POSITIONS.set(self._runner.positions)

    def _drop_cancelled(self) -> None:
        for job in [j for j in self._running if j.ticket.cancelled]:
            self._retire(job, "cancelled")
        with self._wake:
            over = [j for j in (*self._waiting, *self._parked) if _is_finished(j)]
            for job in over:
                (self._parked if job in self._parked else self._waiting).remove(job)
        for job in over:
            self._end(job, None, "cancelled" if job.ticket.cancelled else job.reason)

    def _admit(self) -> None:
        """Stage waiting jobs and prefill, up to PREFILL columns in all, so that running rows wait for no long prompt."""
        columns = 0
        while columns < PREFILL:
            staged = next((j for j in self._running if j.sequence is not None and j.sequence.row < 0), None)
            if staged is None:
                with self._wake:
                    if not self._waiting or not self._runner.free:
                        return
                    staged = self._waiting.popleft()
                    self._running.append(staged)
            try:
                if staged.sequence is None:
                    self._start_segment(staged)
                columns += self._runner.prefill()
            except GenerationError as e:
                self._fail(staged, e)
            except Exception as e:  # memory running out, say: it concerns this job alone
                self._fail(staged, _device_fault(self.checkpoint.device, e))

    def _start_segment(self, job: _Job) -> None:
        size = self.checkpoint.config.max_seq_len
        if not job.admitted:
            job.admitted = time.monotonic()
            job.ticket.queued = job.admitted - job.submitted
        number = len(job.turns) // 2
        self._pause(job, job.silences[number])
        job.turns.append(job.segments[number])
        if job.request.compat == "reference":
            prompt = reference_context(job.fixed, job.turns, min(REFERENCE_MAX_LENGTH, size))
        else:
            prompt = context(job.fixed, job.turns, self._context_room(job))
        room = size - prompt.shape[1]
        if room < 1:
            raise GenerationError(f"the context of {prompt.shape[1]} positions leaves no room for speech in the model's {size}")
        asked = DEFAULT_NEW_TOKENS if job.request.max_new_tokens is None else job.request.max_new_tokens or room
        job.sequence = Sequence(job.request, prompt, min(asked, room), _seed_of(job), job.fixed.shape[1], job.past)
        job.vocoder = VocoderStream(self.checkpoint.codec, LARGEST_CHUNK if job.heard else FIRST_CHUNK)
        job.taken, job.past = (1 if job.request.compat == "reference" else 0), None
        self._runner.stage(job.sequence)

    def _collect(self) -> None:
        """Take new frames from the runner, decode what is due, and move on until no segment is left finished."""
        while True:
            for job in list(self._running):
                self._take_frames(job)
            due = {
                j.vocoder: j for j in self._running if j.vocoder and j.audio and j.sequence and j.vocoder.due(j.sequence.finish is not None)
            }
            for vocoder, samples in self._vocoder.decode_due(due).items():
                self._hand_out(due[vocoder], samples)
            finished = [j for j in self._running if j.sequence and j.sequence.finish]
            if not finished:
                return
            for job in finished:
                self._finish_segment(job)

    def _hand_out(self, job: _Job, samples: np.ndarray) -> None:
        if not np.isfinite(samples).all():
            self._fail(job, GenerationError("the codec produced samples that are not numbers; this request was stopped"))
            return
        if job.ticket.unread() > MAX_UNREAD:
            self._fail(job, GenerationError(f"{MAX_UNREAD} chunks of audio were not read; this request was stopped"))
            return
        now = time.monotonic()
        if job.heard:
            metrics.CHUNK_GAP.observe(now - job.heard)
        else:
            metrics.FIRST_AUDIO.observe(now - job.submitted)
        metrics.AUDIO_SECONDS.inc(len(samples) / SAMPLE_RATE)
        job.heard, job.seconds = now, job.seconds + len(samples) / SAMPLE_RATE
        job.ticket.deliver(Audio(samples))

    def _pause(self, job: _Job, seconds: float) -> None:
        """Hand out silence. It is sound that was handed out, but says nothing of how fast sound is made."""
        silence = np.zeros(round(seconds * SAMPLE_RATE) * job.audio, np.float32)
        metrics.AUDIO_SECONDS.inc(len(silence) / SAMPLE_RATE)
        for start in range(0, len(silence), SAMPLE_RATE):
            job.ticket.deliver(Audio(silence[start : start + SAMPLE_RATE]))

    def _take_frames(self, job: _Job) -> None:
        """Pass on the frames that are to be spoken: all but the end frame (the reference: all but the first)."""
        s, vocoder = job.sequence, job.vocoder
        assert s is not None
        assert vocoder is not None
        end = len(s.frames) - (s.finish == "fault" or (s.finish == "stop" and not s.reference))
        frames = [f[1:] for f in s.frames[job.taken : end]]
        job.taken = max(job.taken, end)
        job.codes += frames
        if job.audio:
            vocoder.waiting += frames
            if any(int(f.max()) >= CODES_PER_GROUP for f in frames):
                self._fail(job, GenerationError(f"the model produced a code of {CODES_PER_GROUP} or more, which no codec can decode"))

    def _finish_segment(self, job: _Job) -> None:
        s = job.sequence
        assert s is not None
        if s.finish == "fault":
            self._fail(
                job, GenerationError(f"the model produced values that are not numbers at frame {len(s.frames)}; this request was stopped")
            )
            return
        job.cut |= s.finish == "length"
        job.turns.append(torch.stack(s.frames, dim=1))
        if job.open or not job.spoken:
            self._requeue(job, s)
        else:
            self._retire(job, job.reason)

    def _requeue(self, job: _Job, sequence: Sequence) -> None:
        """Between two segments others may go first, as many as there are rows. What was computed for it is kept while there is
        memory for that; else it is computed again.
        """
        kept = sum(j.past.bytes for j in (*self._waiting, *self._parked) if j.past is not None) + self._runner.past_bytes(sequence)
        reused = self.checkpoint.manner.history != 0
        job.past = self._runner.past(sequence) if reused and kept <= self._runner.past_budget else None
        job.sequence = None
        self._leave(sequence)
        with self._wake:
            self._running.remove(job)
            if job.spoken:
                self._parked.append(job)
            else:
                self._waiting.insert(self._rows, job)

    def _fail(self, job: _Job, error: Exception) -> None:
        self._retire(job, "error", error)

    def _retire(self, job: _Job, reason: str, error: Exception | None = None) -> None:
        self._running.remove(job)
        try:
            if job.sequence is not None:
                job.sequence.finish = "fault" if error else job.sequence.finish
                self._leave(job.sequence)
        finally:
            self._end(job, error, reason)

    def _leave(self, sequence: Sequence) -> None:
        metrics.FRAMES.inc(len(sequence.frames))
        self._runner.remove(sequence)

    def _end(self, job: _Job, error: Exception | None, reason: str = "error") -> None:
        metrics.REQUESTS.labels(reason).inc()
        self._live.pop(job.ticket, None)
        if job.admitted and not job.live and reason in ("stop", "length"):
            elapsed = time.monotonic() - job.admitted
            self._seconds_per_request += 0.1 * (elapsed - self._seconds_per_request)
            if job.audio:
                metrics.REAL_TIME_FACTOR.observe(job.seconds / elapsed)
        if reason in ("stop", "length"):
            self._pause(job, job.silences[-1])
        codebooks = self.checkpoint.config.num_codebooks
        job.ticket.codes = torch.stack(job.codes, dim=1).numpy() if job.codes else np.zeros((codebooks, 0), np.int64)
        job.ticket.finish_reason = reason
        job.ticket.deliver(error)


_open: weakref.WeakSet[SpeechEngine] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """A thread still inside torch when the interpreter goes would abort the process."""
    for engine in list(_open):
        engine.close()


def _is_finished(job: _Job) -> bool:
    """Whether a job that has no row wants none any more."""
    return job.ticket.cancelled or (job.spoken and not job.open)


@run_in_short_lived_thread
@torch.inference_mode()
def _alone(work: Callable[[Tensor], Tensor], x: Tensor) -> np.ndarray:
    """Apply the codec, which takes batches, to one."""
    return work(x[None])[0].cpu().numpy()


def _seed_of(job: _Job) -> int:
    """A seed of 64 bits for the segment that begins, in which all 63 of the request's count."""
    words = job.seed.to_bytes(8, "little") + len(job.turns).to_bytes(8, "little")
    return int.from_bytes(hashlib.sha256(words).digest()[:8], "little", signed=True)


def _device_fault(device: torch.device, error: Exception) -> GenerationError:
    return GenerationError(f"generation failed on {device}: {type(error).__name__}: {error}")

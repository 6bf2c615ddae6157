"""SpeechEngine: many requests at once through one model, each a stream of audio.

One thread generates. It admits requests, prefills, decodes one frame for every running sequence, vocodes the frames that are wanted most
and delivers the chunks. It sleeps only when there is nothing to do. Callers of `encode` and `decode` wait for the result; the engine does not.
"""

from __future__ import annotations

import atexit
import math
import secrets
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from inference.engine import collector, metrics
from inference.engine.device import FastLayerKernels, affordable_slots, allowed_weights, frames_first, is_lost, pick_device, use_threads
from inference.engine.guard import Paces
from inference.engine.job import Job, Text
from inference.engine.prompting import Prompting
from inference.engine.request import Audio, MoreText, SpeechRequest
from inference.engine.runner import Runner
from inference.engine.scheduler import Scheduler, ended_by
from inference.engine.stream import AsyncSpeechStream, Item, RequestHandle, SpeechStream
from inference.engine.takes import Guard
from inference.engine.vocoder import Vocoder
from inference.engine.voicing import choose
from inference.engine.weight_layouts import Weights
from inference.errors import AudioError, EngineClosed, GenerationError
from inference.hub import complete, locate
from inference.model import checkpoint as checkpoints
from inference.model.checkpoint import Checkpoint
from inference.model.codec import check_codes
from inference.model.config import SAMPLE_RATE
from inference.threads import run_in_short_lived_thread
from inference.voices.voice import Reference, Voice

MIN_REFERENCE_SECONDS, MAX_REFERENCE_SECONDS = 0.5, 90
POLL_SECONDS = 0.0005
"""How often to look whether sound has arrived while nothing else is to be done."""
HANGING_SECONDS = 60
"""A round that takes longer has hung: the slowest machines need a few seconds for the largest piece of a prompt."""


class SpeechEngine:
    """Text to speech with one loaded model. Thread-safe. Close it, or use it in a `with` statement.

    One class, since it is the whole public API; prompts, jobs and scheduling have their own modules.

    `weights="int8"` decodes with weights rounded to 8 bits: faster and less exact (docs/performance.md, docs/gpu.md). On CUDA the checkpoint's
    own weights are rounded then, for every engine that uses it. `slots` is how many requests are generated at once (by default 8, on CUDA 64),
    fewer if their keys and values would exceed `kv_bytes` (by default, on CUDA, half of the memory that is free); up to `queue` more wait
    their turn, further ones are refused. `quality_guard` decides for requests that leave it open (docs/guard.md).
    `fast_layers="persistent"` is an experiment on CUDA (docs/gpu.md#one-kernel-for-the-fast-layers); where it cannot be, RequestError is raised.
    """

    def __init__(
        self, checkpoint: Checkpoint, slots: int | None = None, queue: int = 64, weights: Weights = "native", kv_bytes: int | None = None,
        quality_guard: bool = False, fast_layers: FastLayerKernels = "separate",
    ) -> None:  # fmt: skip
        self.checkpoint = checkpoint
        self.sample_rate = SAMPLE_RATE
        self._slots = affordable_slots(checkpoint, slots, kv_bytes)
        use_threads(checkpoint)  # before the weights are laid out in one part per thread
        self._runner = run_in_short_lived_thread(Runner)(checkpoint, self._slots, allowed_weights(weights), fast_layers)
        self._vocoder = Vocoder(checkpoint.codec)
        how = {"frames": self._runner.how, "prefill": self._runner.prefill_how, "codec": self._vocoder.how}
        self.graphs = how if checkpoint.device.type == "cuda" else {}
        """How frames, prompts and the codec's passes run on CUDA, in words; empty on a CPU."""
        self._prompting = Prompting(checkpoint)
        self._scheduler = Scheduler(checkpoint, self._runner, self._prompting, self._slots, queue)
        self._quality_guard, self._paces = quality_guard, Paces()
        self._round_began: float | None = None
        collector.freeze()
        self._unfreeze = weakref.finalize(self, collector.unfreeze)  # runs only once
        self._thread = threading.Thread(target=self._loop, name="fishserve-engine", daemon=True)
        self._thread.start()
        _open.add(self)

    @classmethod
    def load(
        cls, checkpoint: str | Path | None = None, device: str = "auto", *,
        slots: int | None = None, queue: int = 64, weights: Weights = "native", kv_bytes: int | None = None, copies: Path | None = None,
        codec: str | None = None, adapter: str | None = None,
    ) -> SpeechEngine:  # fmt: skip
        """Load a checkpoint directory, a file of weights, or a Hugging Face repository (`owner/name`, or `owner/name@revision`).

        None means the embedded voice. `codec` replaces the checkpoint's codec; `adapter` is a LoRA adapter, `PATH` or `PATH:alpha`. `device` is "auto" (CUDA when there is one), "cpu" or "cuda[:n]".
        Raises CheckpointError when there is no usable checkpoint, PrecisionError when the checkpoint breaks the precision policy.
        """
        files = complete(locate(checkpoint), codec, adapter)
        return cls(checkpoints.load(files, pick_device(device), copies), slots, queue, weights, kv_bytes)

    def stream(self, request: SpeechRequest) -> SpeechStream:
        """Start speaking. Raises RequestError at once when this model cannot speak the request."""
        return SpeechStream(self.submit, request)

    def astream(self, request: SpeechRequest, more: AsyncIterator[str | MoreText] | None = None) -> AsyncSpeechStream:
        """As `stream`, for asyncio: leaving the loop early cancels the request. `more` yields text that comes later, as for `extend`.

        With `more`, a chunk without samples and words says that all text so far is spoken and that the engine waits for the next.
        """
        if more is None:
            return AsyncSpeechStream(self.submit, request)
        stream = AsyncSpeechStream(partial(self.submit, live=True), request)
        stream.feed(more, self.extend, self.complete)
        return stream

    def check_open(self, long: bool = False, coming: int = 0) -> None:
        """Raises as `submit` would for a short or a long text after `coming` other requests: Overloaded or EngineClosed."""
        self._scheduler.check_open(long, coming)

    def submit(
        self, request: SpeechRequest, deliver: Callable[[Item], None], *,
        audio: bool = True, unread: Callable[[], int] = int, live: bool = False,
    ) -> RequestHandle:  # fmt: skip
        """Start speaking. The engine's thread hands each chunk, then the end, to `deliver`, which must not block.

        `audio=False` produces no audio, only the handle's codes. `unread` returns how many delivered chunks wait to be read:
        with too many, the next segment waits until the reader has called the handle's `was_read`. A `live` request ends only after
        `complete`; until then `extend` gives it more text. Raises RequestError at once when this model cannot speak the request, Overloaded
        when too many wait already, EngineClosed after `close`.
        """
        self.check_open()
        request = request.resolved(self.checkpoint.defaults)
        segments, silences, lines, voices = self._prompting.segments(request, aside=bool(self._scheduler.running))
        columns = self._prompting.fixed(request, voices)
        fixed = [columns[voice] for voice in voices]
        self._prompting.check_room(request, fixed, segments)
        seed = secrets.randbits(63) if request.seed is None else request.seed
        handle = RequestHandle(deliver, self._scheduler.wake, unread)
        gap, words = self._prompting.gap(request), lines if audio else []
        job = Job(request, handle, fixed, segments, silences, seed, audio, live, live, gap, words, columns)
        guarded = self._quality_guard if request.quality_guard is None else request.quality_guard
        if guarded and request.compat is None:
            job.guard = Guard(self._paces, request.guard_look_ahead)
        self._scheduler.submit(job)
        return handle

    def extend(self, handle: RequestHandle, more: str | MoreText) -> None:
        """Append text to a live request, spoken in the voice that speaks the end of it. Does nothing when the request has ended.

        Raises RequestError when this text cannot be spoken, or the request has too much of it; earlier text is still spoken.
        """
        if job := self._scheduler.live_job(handle):
            request = job.request.continued(MoreText(more) if isinstance(more, str) else more)
            segments, silences, lines, voices = self._prompting.segments(request, aside=bool(self._scheduler.running))
            columns = self._prompting.fixed(request, voices, job.voices)
            fixed = [columns[voice] for voice in voices]
            self._prompting.check_room(request, fixed, segments)
            text = Text(fixed, segments, silences, [line.later(job.characters) for line in lines])
            self._scheduler.extend(job, columns, text, self._prompting.gap(request))
            job.request, job.characters = request, job.characters + len(request.text)

    def complete(self, handle: RequestHandle) -> None:
        """Say that no more text will come for a live request: it ends when its text is spoken."""
        self._scheduler.complete(handle)

    def synthesize(self, request: SpeechRequest) -> Audio:
        """Speak the whole text and return it."""
        return Audio.joined(list(self.stream(_whole(request))))

    async def asynthesize(self, request: SpeechRequest) -> Audio:
        return Audio.joined([chunk async for chunk in self.astream(_whole(request))])

    def generate_codes(self, request: SpeechRequest) -> np.ndarray:
        """The codes of the whole text, (codebooks, frames) int64, without decoding them to sound."""
        with SpeechStream(partial(self.submit, audio=False), request) as stream:
            for _ in stream:
                pass
        assert stream.codes is not None
        return stream.codes

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
        return self._alone(self.checkpoint.codec.encode, samples)

    def decode(self, codes: np.ndarray) -> Audio:
        """Codes (codebooks, frames) int in 0..999 -> sound, decoded as one utterance. Raises AudioError."""
        tensor = torch.as_tensor(codes)
        check_codes(tensor, self.checkpoint.config.num_codebooks)
        if tensor.shape[1] == 0:
            return Audio(np.zeros(0, np.float32))
        samples = self._alone(self.checkpoint.codec.decode, tensor.long().to(self.checkpoint.device))
        if not np.isfinite(samples).all():
            raise AudioError("the codec produced samples that are not numbers; its weights are damaged")
        return Audio(samples)

    def voice(self, wave: np.ndarray, text: str, name: str = "") -> Voice:
        """A voice from a clip (mono samples (n,) at 44.1 kHz, 0.5 to 90 s) and its transcript. Raises AudioError."""
        seconds = len(wave) / SAMPLE_RATE
        if not MIN_REFERENCE_SECONDS <= seconds <= MAX_REFERENCE_SECONDS:
            raise AudioError(
                f"the reference lasts {seconds:.1f} s; {MIN_REFERENCE_SECONDS} to {MAX_REFERENCE_SECONDS} s are needed, about 10 s are best",
                "reference",
            )
        return Voice((Reference(self.encode(wave), text),), name)

    @property
    def slots(self) -> int:
        """How many requests are generated at once."""
        return self._slots

    @property
    def alive(self) -> bool:
        """False once the engine is closed, or an unrecoverable fault has ended it."""
        return not self._scheduler.closed

    @property
    def hangs(self) -> bool:
        """Whether one round of the engine has taken so long that it will not end."""
        return self._round_began is not None and time.monotonic() - self._round_began > HANGING_SECONDS

    @property
    def ending(self) -> str:
        """Why the engine is no longer alive."""
        return self._scheduler.ending

    def close(self) -> None:
        """Stop the engine and free its memory. Requests still running fail with EngineClosed."""
        self._scheduler.close()
        if threading.current_thread() is not self._thread:  # a callback may close the engine it runs in
            self._thread.join()
            self._release()
        self._prompting.close()

    def __enter__(self) -> SpeechEngine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _alone(self, work: Callable[[Tensor], Tensor], x: Tensor) -> np.ndarray:
        """Apply the codec to a single item. Raises GenerationError where the device fails; where it is lost, the engine ends."""
        try:
            return _apply(work, x)
        except RuntimeError as e:
            if is_lost(self.checkpoint.device):
                self._scheduler.close(e)
                raise EngineClosed(self.ending) from e
            raise GenerationError(f"the codec failed on {self.checkpoint.device}: {type(e).__name__}: {e}") from e

    # -- in the engine's thread ------------------------------------------------------------------------------------

    @torch.inference_mode()
    def _loop(self) -> None:
        scheduler = self._scheduler
        try:
            with frames_first(self.checkpoint.device):
                while scheduler.wait_for_work():
                    self._iterate()
        except Exception as e:  # clearing up after a fault failed too: the device is gone
            scheduler.ending = ended_by(e)
        finally:
            scheduler.end_all()
            self._release()

    def _iterate(self) -> None:
        """One round: schedule and prefill a bounded piece, decode a frame for every running job, deliver the chunks that are ready."""
        started = self._round_began = time.monotonic()
        try:
            self._scheduler.schedule()
            self._take_frames()
            if self._runner.sequences:
                metrics.BATCH.observe(len(self._runner.sequences))
            self._runner.step(self._scheduler.wanted_first())
            self._take_frames()
            self._make_sound()
        except Exception as e:
            self._scheduler.fail_running(e)
        self._round_began = None
        metrics.STEP.observe(time.monotonic() - started)
        self._scheduler.observe()

    def _take_frames(self) -> None:
        """Take new frames from the runner, and finished segments out of their slots."""
        for job in list(self._scheduler.running):
            if job.sequence and self._scheduler.attempt(job, job.take_frames):
                if job.sequence.finish:
                    self._scheduler.finish_segment(job)
                else:
                    self._scheduler.read_times(job, ended=False)

    def _make_sound(self) -> None:
        """Decode the chunks that are most wanted, about as many frames as a round generates or more, and deliver what has arrived."""
        scheduler, vocoder, passes = self._scheduler, self._vocoder, dict[Job, int]()
        sounding = scheduler.sounding()
        if vocoder.free:
            frames = max(vocoder.frames_a_round, len(scheduler.running))
            unbegun = (job for job in scheduler.waiting if not job.sequence)
            passes = choose((*sounding, *unbegun), time.monotonic(), frames, vocoder.frames_beside, scheduler.held)
        jobs = {job.vocoder: job for job in sounding}
        due = {job.vocoder: size for job, size in passes.items() if job.vocoder}
        for stream, samples in vocoder.decode_due(due, lambda: scheduler.short_one_waits):
            if job := jobs.get(stream):  # else it has ended meanwhile
                scheduler.attempt(job, partial(job.deliver_chunk, samples))
        scheduler.settle()
        if vocoder.flying and not scheduler.running:
            scheduler.wait_for_change(POLL_SECONDS)

    def _release(self) -> None:
        """Free the cache and the copies of weights, even if the caller keeps the closed engine."""
        for owner, part in ((self, "_runner"), (self, "_vocoder"), (self._scheduler, "_runner")):
            vars(owner).pop(part, None)
        self._unfreeze()


def _whole(request: SpeechRequest) -> SpeechRequest:
    """A request of whose sound nothing is needed early."""
    return replace(request, guard_look_ahead=math.inf) if request.guard_look_ahead is None else request


_open: weakref.WeakSet[SpeechEngine] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Close all engines: a thread still inside torch when the interpreter exits would abort the process."""
    for engine in list(_open):
        engine.close()


@run_in_short_lived_thread
@torch.inference_mode()
def _apply(work: Callable[[Tensor], Tensor], x: Tensor) -> np.ndarray:
    """Apply the codec, which takes batches, to a single item. On CUDA on the default stream, behind which nothing waits that speaks."""
    return work(x[None])[0].cpu().numpy()

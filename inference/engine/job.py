"""A request inside the engine, from the queue to its last chunk, and everything the engine delivers for it."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from inference import tracing
from inference.engine import metrics
from inference.engine.kv_cache import KVPrefix
from inference.engine.request import Audio, FinishReason, GuardReport, SpeechRequest
from inference.engine.runner import Sequence
from inference.engine.stream import RequestHandle
from inference.engine.takes import Guard
from inference.engine.times import SegmentTimes
from inference.engine.vocoder import FIRST_CHUNK, LARGEST_CHUNK, VocoderStream
from inference.errors import GenerationError
from inference.model.codec import Codec
from inference.model.config import CODES_PER_GROUP, SAMPLE_RATE
from inference.text.dialogue import TURN_SECONDS
from inference.text.words import SpokenLine, Word
from inference.voices.voice import Reference, Voice

SHORT_TEXT = 300
"""Characters of a text that is short even if it has several segments: about 20 s of speech."""
STAGES = ("queue", "prefill", "first frame", "vocoder")
"""What a request goes through until it is heard, as traces name it."""


class Text(NamedTuple):
    """Text as a job has it: for each piece of it the columns of its voice and its own, the silences, and the words, as in Job."""

    fixed: list[Tensor]
    segments: list[Tensor]
    silences: list[float]
    lines: list[SpokenLine]


class JobStatus(Enum):
    """The state of a job."""

    WAITING = "waiting"
    """In the queue, for its first segment or its next one."""
    PREFILLING = "prefilling"
    """The runner computes its prompt."""
    DECODING = "decoding"
    """It has a slot and gets a frame each round."""
    VOICING = "voicing"
    """All frames of its segment are there and it has left its slot; some of them are still to become sound."""
    PARKED = "parked"
    """Live, with all its text spoken: it waits for more text and uses no slot."""
    ENDED = "ended"


class Urgency(Enum):
    """How soon a waiting job's next segment is wanted."""

    SHORT = "short"
    """It begins a short text, or what comes next in a conversation."""
    FIRST = "first"
    """It begins a long text."""
    LATER = "later"
    """The listener hears the ones before."""


@dataclass(eq=False)
class Job:
    """A request in the engine. One class, since whatever asks or tells it something needs the same few fields.

    `segments` are the prompt columns (1 + codebooks, time) of each piece of text, `fixed` those of the voice that speaks it, each of which is
    one of `voices`; `silences` are the seconds of silence before each piece and after the last. `turns` alternate a segment and the frames generated for it; `codes` are the frames
    that were spoken. `lines` have the words of each segment if the request asks for their times. A `live` job accepts more text while it is `open`; `gap` is the natural pause, in seconds, before such text.

    `starting` says that the next segment is the first one a listener waits for. `columns` are the text columns of the current segment, and
    `columns_to_come` those of all later ones. Times are those of `time.monotonic`: `queued` is when it joined
    the queue, `began` when its segment got a slot, `audible_until` when a listener who plays all of it as it comes has nothing left to hear.

    `longest_gap` is the longest time, in seconds, for which such a listener had nothing to hear. `prefilled`, `framed` and `sounded` are when
    the first prompt was computed, its first frame was there, and its first sound was handed out: the stages of a trace.

    `paused_at` is how many frames the segment had when it was last paused. `delivered` counts samples, `characters` those of all text so far. `times` are those of the current segment's words. `guard` is there when
    bad takes are not to be sent.
    """

    request: SpeechRequest
    handle: RequestHandle
    fixed: list[Tensor]
    segments: list[Tensor]
    silences: list[float]
    seed: int
    audio: bool
    live: bool = False
    open: bool = False
    gap: float = 0.0
    lines: list[SpokenLine] = field(default_factory=list)
    voices: dict[Voice, Tensor] = field(default_factory=dict)
    status: JobStatus = JobStatus.WAITING
    turns: list[Tensor] = field(default_factory=list)
    codes: list[np.ndarray] = field(default_factory=list)
    sequence: Sequence | None = None
    kv_prefix: KVPrefix | None = None
    vocoder: VocoderStream | None = None
    taken: int = 0
    paused_at: int | None = None
    cut: bool = False
    submitted: float = field(default_factory=time.monotonic)
    admitted: float = 0.0
    heard: float = 0.0
    seconds: float = 0.0
    starting: bool = True
    columns: int = 0
    columns_to_come: int = 0
    queued: float = 0.0
    began: float = 0.0
    audible_until: float = 0.0
    longest_gap: float = 0.0
    prefilled: float = 0.0
    framed: float = 0.0
    sounded: float = 0.0
    delivered: int = 0
    characters: int = 0
    times: SegmentTimes | None = None
    guard: Guard | None = None

    def __post_init__(self) -> None:
        self.characters = len(self.request.text)
        self.columns_to_come = sum(s.shape[1] for s in self.segments)

    def columns_left(self, now: float, seconds_per_column: float) -> float:
        """About how many columns of text are still to be spoken."""
        if self.sequence is None:
            return self.columns_to_come
        return self.columns_to_come + max(0.1 * self.columns, self.columns - (now - self.began) / seconds_per_column)

    @property
    def kept_bytes(self) -> int:
        """The bytes of keys and values that it keeps without a slot."""
        prefix = self.sequence.kv_prefix if self.sequence else self.kv_prefix
        return prefix.bytes if prefix else 0

    @property
    def unheard(self) -> bool:
        """Somebody waits for its first sound."""
        return self.audio and not self.heard

    @property
    def urgent(self) -> bool:
        """The first sound of a short text is wanted before all else, until it is made: the guard may hold it back for as long as it likes."""
        return self.unheard and self.short and not (self.guard and self.guard.has_sound)

    @property
    def sound_due(self) -> bool:
        """It has frames enough for its next chunk of sound."""
        return self.audio and self.vocoder is not None and self.vocoder.due

    @property
    def sound_pending(self) -> bool:
        """Frames of it are still to become sound, or are on their way to it."""
        return self.sound_due or (self.vocoder is not None and self.vocoder.flying)

    @property
    def urgency(self) -> Urgency:
        """How soon the next segment is wanted."""
        if not self.starting and not (self.sequence and self.unheard):
            return Urgency.LATER
        return Urgency.SHORT if self.short else Urgency.FIRST

    @property
    def short(self) -> bool:
        """Its text is short, or comes bit by bit."""
        return self.live or len(self.segments) == 1 or len(self.request.text) <= SHORT_TEXT

    @property
    def spoken_frames(self) -> range:
        """Which frames of the current sequence are sound, or will be."""
        return range(1 if self.request.compat == "reference" else 0, self.taken)

    @property
    def spoken(self) -> bool:
        """The engine has generated all the text it has so far."""
        return len(self.turns) == 2 * len(self.segments)

    @property
    def finished(self) -> bool:
        """The job needs no slot any more."""
        return self.handle.cancelled or (self.spoken and not self.open)

    @property
    def reason(self) -> FinishReason:
        """Why a spoken job ended."""
        return FinishReason.LENGTH if self.cut else FinishReason.STOP

    @property
    def number(self) -> int:
        """The number of the current segment, or of the next one."""
        return len(self.turns) // 2

    @property
    def voice_turns(self) -> list[Tensor]:
        """The turns of the voice that speaks the current segment, which is the last of them."""
        if len(self.voices) == 1:
            return self.turns
        own = [n for n in range(self.number) if self.fixed[n] is self.fixed[self.number]]
        return [*(turn for n in own for turn in self.turns[2 * n : 2 * n + 2]), self.turns[-1]]

    @property
    def references(self) -> tuple[Reference, ...]:
        """The references of the voice that speaks the current segment."""
        return next(voice.references for voice, columns in self.voices.items() if columns is self.fixed[self.number])

    @property
    def voice_changes(self) -> bool:
        """Whether the current segment is spoken by another voice than the one before it."""
        return self.number > 0 and self.fixed[self.number] is not self.fixed[self.number - 1]

    def add_text(self, voices: dict[Voice, Tensor], text: Text, gap: float) -> None:
        """Append text to a live job. `voices` are those of all its text."""
        fixed, segments, silences, lines = text
        if fixed[0] is not self.fixed[-1]:
            self.gap = max(self.gap, TURN_SECONDS)
        self.voices = voices
        self.fixed += fixed
        self.segments += segments
        self.lines += lines
        self.columns_to_come += sum(s.shape[1] for s in segments)
        between = (self.silences[-1] + silences[0]) or self.gap  # a requested pause replaces the natural one
        self.silences, self.gap = [*self.silences[:-1], between, *silences[1:]], gap

    def next_segment(self) -> None:
        """Move on to the next segment, after the silence before it."""
        self.began, self.starting = time.monotonic(), False
        if not self.admitted:
            self.admitted = self.began
            self.handle.queued_seconds = self.admitted - self.submitted
        number = self.number
        self._deliver_silence(self.silences[number])
        self.times = SegmentTimes(self.lines[number], self.delivered / SAMPLE_RATE) if self.lines else None
        self.turns.append(self.segments[number])
        self.columns = self.segments[number].shape[1]
        self.columns_to_come -= self.columns

    def start_sequence(self, prompt: Tensor, limit: int, codec: Codec) -> Sequence:
        """The sequence that generates the current segment: at most `limit` frames after the `prompt`."""
        prefix = None if self.voice_changes else self.kv_prefix
        self.sequence = Sequence(self.request, prompt, limit, self._segment_seed(), self.fixed[self.number].shape[1], prefix)
        self.vocoder = VocoderStream(codec, LARGEST_CHUNK if self.heard else FIRST_CHUNK)
        self.taken, self.paused_at, self.kv_prefix = (1 if self.request.compat == "reference" else 0), None, None
        return self.sequence

    def take_frames(self) -> None:
        """Pass new frames on to the vocoder: all but the end frame (the reference implementation: all but the first).

        Raises GenerationError for a code that no codec can decode.
        """
        s, vocoder = self.sequence, self.vocoder
        assert s is not None
        assert vocoder is not None
        end = len(s.frames) - (s.finish is FinishReason.ERROR or (s.finish is FinishReason.STOP and not s.reference))
        frames = [f[1:] for f in s.frames[self.taken : end]]
        self.taken = max(self.taken, end)
        if frames and not self.framed:
            self.framed = time.monotonic()
        self.codes += frames
        if self.audio:
            vocoder.waiting += frames
            if s.undecodable and any(f.max() >= CODES_PER_GROUP for f in frames):
                raise GenerationError(f"the model produced a code of {CODES_PER_GROUP} or more, which no codec can decode")
        if self.guard:
            self.guard.add_frames(frames)
            if self.guard.stopped and s.finish is None:
                s.finish = FinishReason.LENGTH

    def deliver_chunk(self, samples: np.ndarray) -> None:
        """Hand a chunk to the caller, or to the guard. Raises GenerationError for samples that are not finite."""
        if not np.isfinite(samples).all():
            raise GenerationError("the codec produced samples that are not numbers; this request was stopped")
        if self.guard:
            self.guard.hold(samples)
        else:
            self._deliver_speech(samples, ended=self.vocoder is not None and self.vocoder.ended and not self.vocoder.waiting)

    def deliver_due(self) -> None:
        """Hand over what the guard can hold back no longer."""
        if self.guard and len(samples := self.guard.due(self.audible_until - time.monotonic())):
            self._deliver_speech(samples, ended=False)

    def _deliver_speech(self, samples: np.ndarray, *, ended: bool, report: GuardReport | None = None) -> None:
        now = time.monotonic()
        if self.heard:
            metrics.CHUNK_GAP.observe(now - self.heard)
        else:
            metrics.FIRST_AUDIO.observe(now - self.submitted)
            self.sounded = self.sounded or now
        self.seconds += len(samples) / SAMPLE_RATE
        words = self.times.heard(samples, ended) if self.times else ()
        self._deliver(samples, words, report)
        self.heard = now

    def finish_sound(self) -> None:
        """All of the segment's sound is delivered. Deliver its words if nobody knew with the last chunk that it was the last one."""
        nothing = np.zeros(0, np.float32)
        if self.times and (words := self.times.heard(nothing, ended=True)):
            self._deliver(nothing, words)
        self.times = None

    def finish_segment(self) -> None:
        """Add the finished sequence to the context. Raises GenerationError when the sequence is faulty."""
        s = self.sequence
        assert s is not None
        if s.finish is FinishReason.ERROR:
            raise GenerationError(f"the model produced values that are not numbers at frame {len(s.frames)}; this request was stopped")
        assert self.vocoder is not None
        self.vocoder.ended = True
        self.turns.append(torch.from_numpy(np.stack(s.frames, axis=1)))
        if self.guard is None:
            self.cut |= s.finish is FinishReason.LENGTH
            return
        unwanted = self.taken - self.guard.end(s.frames, self.taken, s.finish is FinishReason.STOP)
        del self.vocoder.waiting[max(0, len(self.vocoder.waiting) - unwanted) :]

    def reject_take(self) -> None:
        """Go back to before the current segment, which is to be spoken once more."""
        del self.codes[len(self.codes) - self.taken :]
        del self.turns[-2:]
        self.silences[self.number] = 0.0  # it was delivered already
        self.columns_to_come += self.columns
        self.starting, self.times = self.unheard, None

    def send_take(self) -> int:
        """Deliver the take that the guard chose. Returns with which character of its text the part begins that is to be said after it."""
        assert self.guard is not None
        take, begin = self.guard.choose()
        self.codes[len(self.codes) - self.taken :] = [column[1:] for column in take.columns[: take.spoken]]
        self.turns[-1] = torch.from_numpy(np.stack(take.columns, axis=1))
        self.cut |= not take.ends
        if self.times:
            if take.attention is not None:
                self.times.read(*take.attention)
                self.times.end()
            if begin < len(self.guard.text):
                self.times.cut(begin)
        for number, samples in enumerate(take.held, 1):
            if number < len(take.held):
                self._deliver_speech(samples, ended=False)
            else:
                self._deliver_speech(samples, ended=True, report=self.guard.take_report())
        return begin

    def add_rest(self, segment: Tensor, begin: int) -> None:
        """Insert the columns of the text behind a fault of the segment before, which begins with that one's character `begin`."""
        number = self.number
        self.fixed.insert(number, self.fixed[number - 1])
        self.segments.insert(number, segment)
        self.silences.insert(number, 0.0)
        if self.lines:
            self.lines.insert(number, self.lines[number - 1].rest(begin))
        self.columns_to_come += segment.shape[1]

    def end(self, error: Exception | None, reason: FinishReason) -> None:
        """Deliver the end to the caller: the last silence, the codes, the reason, the error."""
        self.status = JobStatus.ENDED
        metrics.REQUESTS.labels(reason).inc()
        if self.delivered:
            metrics.LONGEST_GAP.observe(self.longest_gap)
        if reason in (FinishReason.STOP, FinishReason.LENGTH):
            if self.audio and self.admitted and not self.live:
                metrics.REAL_TIME_FACTOR.observe(self.seconds / (time.monotonic() - self.admitted))
            self._deliver_silence(self.silences[-1])
        codebooks = len(self.fixed[0]) - 1
        self.handle.codes = np.stack(self.codes, axis=1) if self.codes else np.zeros((codebooks, 0), np.int64)
        self.handle.finish_reason = reason
        self.handle.deliver(error)
        if self.request.traceparent:
            tracing.record_stages(self.request.traceparent, self._stages())

    def _stages(self) -> list[tuple[str, float, float]]:
        """The stages up to the first sound, each with when it began and ended. The last one of a job that never sounded ends now."""
        queued = self.admitted - self.handle.queued_seconds if self.handle.queued_seconds is not None else self.submitted
        times = [t for t in (queued, self.admitted, self.prefilled, self.framed, self.sounded) if t]
        if len(times) <= len(STAGES):
            times.append(time.monotonic())
        return list(zip(STAGES, times, times[1:], strict=False))

    def say_spoken(self) -> None:
        """Tell the caller of a live job that all its text so far is spoken: a chunk without samples and words."""
        self.handle.deliver(Audio(np.zeros(0, np.float32)))

    def _deliver_silence(self, seconds: float) -> None:
        """Deliver silence, which counts as audio, but not in the metrics of how fast the engine generates audio."""
        silence = np.zeros(round(seconds * SAMPLE_RATE) * self.audio, np.float32)
        for start in range(0, len(silence), SAMPLE_RATE):
            self._deliver(silence[start : start + SAMPLE_RATE])

    def _deliver(self, samples: np.ndarray, words: tuple[Word, ...] = (), report: GuardReport | None = None) -> None:
        seconds = len(samples) / SAMPLE_RATE
        self.delivered += len(samples)
        metrics.AUDIO_SECONDS.inc(seconds)
        self._note_gap(now := time.monotonic())
        self.audible_until = max(self.audible_until, now) + seconds
        self.handle.deliver(Audio(samples, words=words, guard=report))

    def _note_gap(self, now: float) -> None:
        """Measure the listener's silence before this chunk. None counts before the first chunk, or where the reader had stopped reading."""
        gap = now - self.audible_until
        if gap > 0 and self.heard and not self.handle.stalled:
            self.longest_gap = max(self.longest_gap, gap)
            metrics.UNDERRUN_SECONDS.inc(gap)
        self.handle.stalled = False

    def _segment_seed(self) -> int:
        """A 64-bit seed that depends on all 63 bits of the request's seed, on the segment's number and on the attempt."""
        words = self.seed.to_bytes(8, "little") + len(self.turns).to_bytes(8, "little")
        if self.guard and self.guard.attempt:
            words += self.guard.attempt.to_bytes(8, "little")
        return int.from_bytes(hashlib.sha256(words).digest()[:8], "little", signed=True)

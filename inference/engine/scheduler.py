"""Scheduler: which requests the runner generates now, which wait, and which are refused."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

import numpy as np
from torch import Tensor

from inference.engine import metrics
from inference.engine.device import is_lost
from inference.engine.guard import of_words
from inference.engine.job import Job, JobStatus, Text, Urgency
from inference.engine.prefill import PREFILL
from inference.engine.prompting import Prompting
from inference.engine.request import FinishReason
from inference.engine.runner import Runner, Sequence
from inference.engine.stream import RequestHandle
from inference.engine.takes import Guard
from inference.engine.times import SegmentTimes
from inference.engine.voicing import is_ahead, runs_out
from inference.engine.waiting import RetryTimes, WaitingJobs
from inference.errors import EngineClosed, GenerationError, Overloaded, RequestError
from inference.model.alignment import character_bounds, token_starts
from inference.model.checkpoint import Checkpoint
from inference.model.config import AlignmentHead
from inference.voices.voice import Voice

MAX_LIVE_SEGMENTS = 1000
"""Pieces of text that one live request may have in all: two hours of speech or more."""
MAX_BEHIND = 256
"""Jobs that may wait for their readers, beside the queue; each holds a segment's audio and some chunks, about 4 MB."""
READ_FRAMES = 32
"""Frames whose attention is read together for the times of words, 1.5 s of speech: each pass loads the layers' weights once."""
LEAST_COLUMNS = 64
"""A prompt takes at least as long as one of so many columns."""
HELD_ROUNDS = 4
"""While a short text has not been heard, only every so many rounds begin a segment of another kind, or generate for those who can wait:
about one until it is heard."""
FRAMES_BETWEEN_PAUSES = 8
"""However many short texts come, a long one that nobody hears gets as many frames done in each slot that it is given."""
SHORT_ONES_SHARE = 4
"""A quarter of the queue's places is for short requests alone."""


def _may_be_paused(job: Job, now: float) -> bool:
    """Whether a running job's listener is well ahead, or has nothing to hear of a long text anyway; the latter not again and again."""
    assert job.sequence is not None
    if not job.unheard and is_ahead(job, now):
        return True
    silent = job.unheard or job.audible_until <= now
    return silent and not job.short and (job.paused_at is None or len(job.sequence.frames) >= job.paused_at + FRAMES_BETWEEN_PAUSES)


def ended_by(error: Exception) -> str:
    """What is said of an engine that an error has ended."""
    return f"the engine ended: {type(error).__name__}: {error}"


class Scheduler:
    """Jobs waiting, running and voicing. One class, since all its methods change the same queues under one lock.

    Any thread may call `submit`, `extend`, `complete`, `wake` and `close`; only the engine's thread calls the other methods.
    `slots` jobs run at once; up to `queue` more wait. `ending` says why the engine is closed. A short request that finds no slot free gets
    that of a segment whose listener is well ahead: it is paused, and continues later with the same frames.
    """

    def __init__(self, checkpoint: Checkpoint, runner: Runner, prompting: Prompting, slots: int, queue: int) -> None:
        self.running: list[Job] = []
        self.voicing: list[Job] = []
        self.waiting = WaitingJobs(slots)
        self.closed, self.ending = False, "the engine was closed"
        self._checkpoint, self._runner, self._prompting = checkpoint, runner, prompting
        self._slots, self._queue = slots, queue
        self._live: dict[RequestHandle, Job] = {}
        self._holds, self._held = checkpoint.device.type == "cpu", 0  # whether those who can wait do, and rounds that they have waited
        self._guarded: set[Job] = set()
        self._retry_times = RetryTimes(slots)
        self._changed = threading.Condition()
        for reason in FinishReason:  # that is 0 at first: a counter that begins at 1 has not grown
            metrics.REQUESTS.labels(reason)

    # -- from any thread -------------------------------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Queue a job. Raises Overloaded when too many wait already, EngineClosed after the end."""
        with self._changed:
            self._check_open(job.urgency is not Urgency.SHORT)
            if job.live:
                self._live[job.handle] = job
            self.waiting.add(job)
            self._changed.notify()

    def check_open(self, long: bool = False, coming: int = 0) -> None:
        """Raises as `submit` would for a short or a long text after `coming` other jobs, before the work of making one."""
        with self._changed:
            self._check_open(long, coming)

    def live_job(self, handle: RequestHandle) -> Job | None:
        """The live job of a handle, None when it has ended."""
        return self._live.get(handle)

    def extend(self, job: Job, voices: dict[Voice, Tensor], text: Text, gap: float) -> None:
        """Append text to a live job. Raises RequestError when the job has too much text."""
        with self._changed:
            if len(job.segments) + len(text.segments) > MAX_LIVE_SEGMENTS:
                raise RequestError(f"more than {MAX_LIVE_SEGMENTS:,} pieces of text in one request; begin another", "text")
            job.add_text(voices, text, gap)
            if job.status is JobStatus.PARKED:  # for its listener, the audio starts anew
                job.heard, job.submitted, job.starting = 0.0, time.monotonic(), True
                self._requeue(job)
                self._changed.notify()

    def complete(self, handle: RequestHandle) -> None:
        """Record that no more text will come for a live job."""
        with self._changed:
            if job := self._live.get(handle):
                job.open = False
                self._changed.notify()

    def wake(self) -> None:
        """Make the engine check its jobs: one was cancelled."""
        with self._changed:
            self._changed.notify()

    def close(self, error: Exception | None = None) -> None:
        """Make the engine end, because of `error` if there is one."""
        with self._changed:
            if error is not None:
                self.ending = ended_by(error)
            self.closed = True
            self._changed.notify()

    def _check_open(self, long: bool, coming: int = 0) -> None:
        if self.closed:
            raise EngineClosed(self.ending)
        reading = [job for job in self.waiting if not job.handle.is_behind()]
        behind = len(self.waiting) - len(reading)
        # The free slots belong to the first jobs in the queue.
        waiting = len(self.running) + len(self.voicing) + len(reading) + coming - self._slots
        places = self._queue - long * (self._queue // SHORT_ONES_SHARE)
        if waiting < places and behind < MAX_BEHIND:
            return
        metrics.REFUSED.inc()
        seconds = self._retry_times.next((*self.running, *self.voicing, *reading))
        raise Overloaded(f"{waiting + behind} requests are waiting already; try again in about {math.ceil(seconds)} s", seconds)

    # -- in the engine's thread ------------------------------------------------------------------------------------

    def wait_for_work(self) -> bool:
        """Sleep until there is something to do. False when the engine is closed."""
        with self._changed:
            while not (self.closed or self.running or self.voicing or any(self._wanted(job) for job in (*self.waiting, *self._parked()))):
                self._observe_idle()
                self._changed.wait()
            return not self.closed

    def wait_for_change(self, seconds: float) -> None:
        """Sleep for so long, or until a request comes or is cancelled."""
        with self._changed:
            self._changed.wait(seconds)

    def _wanted(self, job: Job) -> bool:
        return job.finished or (job.status is JobStatus.WAITING and not job.handle.is_behind())

    def schedule(self) -> None:
        """End cancelled jobs, then admit waiting ones and prefill: up to PREFILL columns in all, so that no long prompt holds up running jobs.

        On a CPU one prompt at most: whoever comes meanwhile waits for all of them.
        """
        self._end_finished()
        columns = 0
        while columns < PREFILL and (jobs := self._staged()):
            try:
                columns += max(self._runner.prefill(), LEAST_COLUMNS)
            except Exception as e:  # for example out of memory: it affects only those whose prompts are computed
                for job in jobs:
                    self.fail(job, self._device_fault(e))
            started = [job for job in jobs if job.sequence is not None and job.sequence.slot >= 0]
            for job in started:
                job.status = JobStatus.DECODING
                job.prefilled = job.prefilled or time.monotonic()
            if started and self._runner.can_leave_out:
                break
        self._held = self._held + 1 if self._others_wait() else 0

    @property
    def held(self) -> bool:
        """Whether this round is for a short text that has not been heard, and for those whose sound runs out."""
        return self._held > 0

    @property
    def short_one_waits(self) -> bool:
        """Whether a short text has come that this round should not keep waiting: on a CPU, as for `_others_wait`."""
        with self._changed:
            return self._holds and self.waiting.has_short

    def _others_wait(self) -> bool:
        """Whether a short text that has not been heard has this round to itself, which it has in all but one of HELD_ROUNDS.

        Only on a CPU: on a GPU a round takes as long without the others.
        """
        return self._holds and self._held < HELD_ROUNDS - 1 and any(job.urgent for job in self.running)

    def wanted_first(self) -> list[Sequence] | None:
        """Whose frames are wanted before all others': while a short text has not been heard, its own and those of listeners who run out.

        None when all are wanted, or when leaving some out saves nothing.
        """
        if not self.held or not self._runner.can_leave_out:
            return None
        now = time.monotonic()
        decoding = [job for job in self.running if job.status is JobStatus.DECODING]
        wanted = [job for job in decoding if job.urgent or (job.audio and runs_out(job, now))]
        return [job.sequence for job in wanted if job.sequence and not job.sequence.finish]

    def sounding(self) -> list[Job]:
        """The jobs whose segment has begun: they have frames to become sound, or will have some soon."""
        return [*self.voicing, *self.running, *(job for job in self.waiting if job.sequence)]

    def finish_segment(self, job: Job) -> None:
        """Take a job whose sequence has finished out of its slot: other jobs may go first. The rest of its sound is still to come."""
        if not self.attempt(job, job.finish_segment):
            return
        self._retry_times.finished(job.columns, time.monotonic() - job.began)
        if not self.read_times(job, ended=True):
            return
        if not job.spoken or job.open or (job.guard and job.guard.stopped):
            self._keep_prefix(job)
        self._free_slot(job)
        job.status = JobStatus.VOICING
        with self._changed:
            self.running.remove(job)
            self.voicing.append(job)

    def read_times(self, job: Job, *, ended: bool) -> bool:
        """Read from the model's attention when the characters of a segment, which has its slot, were spoken: of READ_FRAMES frames at a time,
        and at its end of the rest; all at its end where a guard judges it. When that fails, end the job and return False.
        """
        frames = job.spoken_frames
        if not self._checkpoint.defaults.alignment_heads:
            return True
        try:
            if job.guard and ended and frames:
                self._read_take(job, job.guard, frames)
            elif job.times and not job.guard:
                while (unread := len(frames) - job.times.read_frames) >= READ_FRAMES or (ended and unread > 0):
                    first = frames.start + job.times.read_frames
                    self._read(job, job.times, range(first, first + min(READ_FRAMES, unread)))
                if ended:
                    job.times.end()
        except Exception as e:  # for example out of memory: it affects only this job
            self.fail(job, self._device_fault(e))
            return False
        return True

    def _read_take(self, job: Job, guard: Guard, frames: range) -> None:
        text, pieces = self._prompting.text_columns(job.request, job.turns[-2])
        attention = self._attention(job, text, frames, self._checkpoint.defaults.guard_heads)
        bounds = character_bounds(guard.text, pieces, token_starts(attention))
        guard.read(pieces, attention, bounds, of_words(guard.text, pieces, attention))

    def _read(self, job: Job, times: SegmentTimes, frames: range) -> None:
        segment = job.segments[(len(job.turns) - 1) // 2]
        text, pieces = times.columns = times.columns or self._prompting.text_columns(job.request, segment)
        times.read(pieces, self._attention(job, text, frames))

    def _attention(self, job: Job, text: range, frames: range, heads: tuple[AlignmentHead, ...] = ()) -> np.ndarray:
        """The attention of a segment's frames, to the columns `text` of the segment and the one behind, where it goes at the text's end.

        It is that of the alignment heads unless others are named.
        """
        assert job.sequence is not None
        segment = job.segments[(len(job.turns) - 1) // 2]
        first = job.sequence.prompt.shape[1] - segment.shape[1]
        after = range(first + text.start, first + text.stop + 1)
        return self._runner.text_attention(job.sequence, after, frames, heads or self._checkpoint.defaults.alignment_heads).numpy()

    def settle(self) -> None:
        """Advance the jobs whose segment is heard to its end: to the next segment, to waiting for text, or to their end."""
        for job in self._guarded:
            job.deliver_due()
        for job in [job for job in self.voicing if not job.sound_pending]:
            if job.guard and self._is_spoken_anew(job, job.guard):
                continue
            job.finish_sound()
            with self._changed:
                self.voicing.remove(job)
                if not job.spoken:
                    self._requeue(job)
                elif job.open:
                    job.status = JobStatus.PARKED
            if job.status is JobStatus.PARKED:
                job.say_spoken()
            elif job.spoken:
                self._end(job, None, job.reason)

    def _is_spoken_anew(self, job: Job, guard: Guard) -> bool:
        """Queue a segment once more if its take was bad. Otherwise send it; text behind a fault of it becomes the next segment."""
        if guard.is_rejected(job.audio):
            with self._changed:
                self.voicing.remove(job)
                job.reject_take()
                self._requeue(job)
            return True
        begin = job.send_take()
        if begin < len(guard.text):
            rest = self._prompting.builder(job.request).segment(guard.text[begin:])
            with self._changed:
                job.add_rest(rest, begin)
        return False

    def attempt(self, job: Job, work: Callable[[], None]) -> bool:
        """Do a job's work. When that raises GenerationError, end the job with it and return False."""
        try:
            work()
        except GenerationError as e:
            self.fail(job, e)
            return False
        return True

    def fail(self, job: Job, error: Exception) -> None:
        """End one job with an error."""
        self._retire(job, FinishReason.ERROR, error)

    def fail_running(self, error: Exception) -> None:
        """The device failed: no slot can be trusted, but the next request may well succeed. Raises the error if the device is lost."""
        if is_lost(self._checkpoint.device):
            raise error
        for job in self.sounding():
            if job.status is not JobStatus.WAITING or (job.vocoder and job.vocoder.flying):  # a paused one has lost nothing
                self.fail(job, self._device_fault(error))

    def end_all(self) -> None:
        """End every job: the engine is closed."""
        with self._changed:
            self.closed = True
            for job in (*self.running, *self.voicing, *self.waiting, *self._parked()):
                self._end(job, EngineClosed(self.ending), FinishReason.ERROR)
            self.waiting.clear()
            self.running.clear()
            self.voicing.clear()

    def observe(self) -> None:
        """Set the metrics for the number of jobs."""
        metrics.RUNNING.set(len(self.running))
        metrics.WAITING.set(len(self.waiting))
        metrics.POSITIONS.set(self._runner.positions)
        metrics.SLOTS_FREE.set(self._slots - len(self.running))
        with self._changed:
            oldest = min((job.submitted for job in self.waiting if not job.admitted), default=None)
        metrics.OLDEST_WAITING.set(time.monotonic() - oldest if oldest is not None else 0)

    def _observe_idle(self) -> None:
        metrics.RUNNING.set(0)
        metrics.OLDEST_WAITING.set(0)
        metrics.SLOTS_FREE.set(self._slots)

    def _parked(self) -> list[Job]:
        return [job for job in self._live.values() if job.status is JobStatus.PARKED]

    def _end_finished(self) -> None:
        for job in [j for j in self.sounding() if j.handle.cancelled]:
            self._retire(job, FinishReason.CANCELLED)
        with self._changed:
            over = [j for j in (*self.waiting, *self._parked()) if j.finished]
            for job in over:
                if job.status is JobStatus.WAITING:
                    self.waiting.remove(job)
        for job in over:
            self._end(job, None, FinishReason.CANCELLED if job.handle.cancelled else job.reason)

    def _staged(self) -> list[Job]:
        """The jobs whose prompts are computed next, after as many waiting ones are admitted as the runner takes."""
        while self._runner.can_stage and (job := self._admit()):
            try:
                if job.status is JobStatus.DECODING:
                    self._resume(job)
                else:
                    self._start_segment(job)
            except GenerationError as e:
                self.fail(job, e)
            except Exception as e:  # for example out of memory: it affects only this job
                self.fail(job, self._device_fault(e))
        return [job for job in self.running if job.status is JobStatus.PREFILLING]

    def _admit(self) -> Job | None:
        """Take the waiting job that goes next, when a slot is free for it."""
        with self._changed:
            paused = len(self.running) == self._slots and self.waiting.has_short and self._pause_one()
            if not paused and self._others_wait() and not self.waiting.a_short_one_goes_next():
                return None
            job = self.waiting.take(len(self.running), short=paused) if self._runner.free else None
            if job is None:
                return None
            self.running.append(job)
            job.status = JobStatus.DECODING if job.sequence else JobStatus.PREFILLING
            return job

    def _pause_one(self) -> bool:
        """Pause the segment whose listener has most still to hear, if that is plenty; else a long text that nobody has heard yet, or whose
        listener hears nothing anyway. Returns whether there was one.

        Only while there is memory for its keys and values. A short text that is not heard is never paused: it would be the next to go again.
        """
        now = time.monotonic()
        may = [job for job in self.running if job.status is JobStatus.DECODING and _may_be_paused(job, now)]
        job = max(may, key=lambda job: (is_ahead(job, now), job.unheard, job.audible_until), default=None)
        if not (job and job.sequence and self._fits(job.sequence) and self._runner.pause(job.sequence)):
            return False
        job.paused_at = len(job.sequence.frames)
        self.running.remove(job)
        self._requeue(job)
        return True

    def _resume(self, job: Job) -> None:
        assert job.sequence is not None
        self._runner.resume(job.sequence)
        job.began += time.monotonic() - job.queued  # as if it had not been paused

    def _start_segment(self, job: Job) -> None:
        job.next_segment()
        if job.times:
            job.times.delay = self._checkpoint.defaults.alignment_delay
        if job.guard:
            self._guarded.add(job)
            _, pieces = self._prompting.text_columns(job.request, job.turns[-1])
            job.guard.begin(b"".join(pieces).decode(), job.fixed[job.number], job.references)
        prompt, limit = self._prompting.prompt(job.request, job.fixed[job.number], job.voice_turns)
        self._runner.stage(job.start_sequence(prompt, limit, self._checkpoint.codec))

    def _keep_prefix(self, job: Job) -> None:
        """Keep the KV cache of the segments so far while there is memory for it; otherwise it is computed again."""
        assert job.sequence is not None
        reused = self._checkpoint.defaults.history != 0
        job.kv_prefix = self._runner.kv_prefix(job.sequence) if reused and self._fits(job.sequence) else None

    def _fits(self, sequence: Sequence) -> bool:
        """Whether there is memory to keep the KV cache of a sequence without a slot."""
        with self._changed:
            kept = sum(job.kept_bytes for job in (*self.voicing, *self.waiting, *self._parked()))
        return kept + self._runner.kv_prefix_bytes(sequence) <= self._runner.kv_prefix_budget

    def _requeue(self, job: Job) -> None:
        job.status = JobStatus.WAITING
        self.waiting.add(job)

    def _retire(self, job: Job, reason: FinishReason, error: Exception | None = None) -> None:
        with self._changed:
            if job.status is JobStatus.WAITING:  # paused
                self.waiting.remove(job)
            else:
                (self.voicing if job.status is JobStatus.VOICING else self.running).remove(job)
        try:
            if job.sequence is not None:
                job.sequence.finish = FinishReason.ERROR if error else job.sequence.finish
                self._free_slot(job)
        except Exception as e:  # the device is gone, and the engine ends with it
            self.ending = ended_by(e)
            self._end(job, EngineClosed(self.ending), FinishReason.ERROR)
            raise
        self._end(job, error, reason)

    def _free_slot(self, job: Job) -> None:
        sequence, job.sequence = job.sequence, None
        assert sequence is not None
        metrics.FRAMES.inc(len(sequence.frames))
        self._runner.remove(sequence)

    def _end(self, job: Job, error: Exception | None, reason: FinishReason) -> None:
        self._live.pop(job.handle, None)
        self._guarded.discard(job)
        job.end(error, reason)

    def _device_fault(self, error: Exception) -> GenerationError:
        return GenerationError(f"generation failed on {self._checkpoint.device}: {type(error).__name__}: {error}")

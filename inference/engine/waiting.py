"""Which waiting request gets the next free slot, and when a refused one should come back."""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator

from inference.engine.job import Job, Urgency

FEWEST_SLOTS_TO_KEEP_ONE = 4
"""With at least this many slots, one is kept for short requests while there are more requests than slots."""
FIRST_GUESS = 0.1
"""Seconds that one text column takes to speak, before any segment has been finished."""
MOST_ROUNDS = 4
"""However many callers are refused, none is sent away for longer than it takes to speak what there is so many times."""
MAX_RETRY_SECONDS = 30.0
"""Nobody is sent away for longer: the pace that other texts had is wrong by a few times, and right again seconds after the queue was full.
Who comes too early is told anew; while all have been sent away for too long, nobody is spoken to."""


class WaitingJobs:
    """Jobs that wait for a slot, in the order in which they came.

    Short requests go first, and then the first segments of long ones, so a short request waits for segments that run, never for a queue of
    long texts. Later segments go in the order in which their listeners' audio runs out; of those who have none left, the one that waits
    longest. So that a stream of short requests cannot stop the others, one of them goes after every `slots` jobs that were preferred to it,
    into the next slot that becomes free; one that was made free for a short request, by pausing a job, is that request's all the same.
    A job whose listener is behind with reading does not go at all. Later segments are new ones, or such as were paused.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._jobs: list[Job] = []
        self._passed_over = 0

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs)

    def add(self, job: Job) -> None:
        """Queue a job. One whose segment was paused goes before those of its kind that have not begun."""
        job.queued = time.monotonic()
        self._jobs.insert(0 if job.sequence else len(self._jobs), job)

    def remove(self, job: Job) -> None:
        """Take a job out that is not wanted any more."""
        self._jobs.remove(job)

    def clear(self) -> None:
        """Take all jobs out."""
        self._jobs.clear()

    def a_short_one_goes_next(self) -> bool:
        """Whether a short request would get the next free slot."""
        preferred, others, _ = self._next()
        return bool(preferred and preferred.urgency is Urgency.SHORT and not (others and self._passed_over >= self._slots))

    @property
    def has_short(self) -> bool:
        """Whether a short request could go now."""
        preferred, _, _ = self._next()
        return bool(preferred and preferred.urgency is Urgency.SHORT)

    def take(self, running: int, *, short: bool = False) -> Job | None:
        """Take out the job that goes next, beside `running` others, or the next `short` one; None when none may."""
        if running >= self._slots:
            return None
        preferred, others, ready = self._next()
        if preferred is None:
            return None
        if others and self._passed_over >= self._slots and not short:
            job = min(others, key=lambda job: job.queued)
        elif preferred.urgency is not Urgency.SHORT and self._keeps_slot(running, ready):
            return None
        else:
            job = preferred
        self._passed_over = self._passed_over + 1 if others and job is preferred else 0
        self._jobs.remove(job)
        return job

    def _next(self) -> tuple[Job | None, list[Job], int]:
        """The job that is preferred, those of other kinds that would be next, and how many jobs could go now."""
        ready = [job for job in self._jobs if not job.handle.is_behind()]
        first = [next((job for job in ready if job.urgency is urgency), None) for urgency in (Urgency.SHORT, Urgency.FIRST)]
        later = (job for job in ready if job.urgency is Urgency.LATER)
        each = [job for job in (*first, min(later, key=lambda job: max(job.queued, job.audible_until), default=None)) if job]
        return (each[0] if each else None), each[1:], len(ready)

    def _keeps_slot(self, running: int, ready: int) -> bool:
        """Whether the last free slot is kept for a short request."""
        return self._slots >= FEWEST_SLOTS_TO_KEEP_ONE and running == self._slots - 1 and running + ready > self._slots


PREPARING_SECONDS = 1.0
"""About how long the first of many long texts is prepared."""


class RetryTimes:
    """Tells each refused caller when the queue will have a place for it: when the next job ends whose place nobody else was promised.

    The slots are shared about equally, and a job that ends is followed by another. So a job with `c` columns of text left ends when each of
    the `n` jobs has had as many: after `n * c / slots` columns of a slot's time. When there are more callers than jobs, a caller is told of
    the end of a job that will begin then.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._seconds_per_column: float | None = None
        self._promised: list[float] = []

    def finished(self, columns: int, seconds: float) -> None:
        """Record how long a segment of `columns` text columns had a slot."""
        taken = seconds / columns
        self._seconds_per_column = taken if self._seconds_per_column is None else 0.9 * self._seconds_per_column + 0.1 * taken

    def next(self, jobs: Iterable[Job]) -> float:
        """Seconds after which the next refused caller should come back: whole ones, as HTTP has them, from 1 to MAX_RETRY_SECONDS.

        `jobs` are all that run, or that wait and may go; there are none while all are being prepared.
        """
        now, pace = time.monotonic(), self._seconds_per_column or FIRST_GUESS
        left = sorted(job.columns_left(now, pace) for job in jobs)
        if not left:
            return PREPARING_SECONDS
        total, latest = sum(left), MOST_ROUNDS * len(left) - 1
        self._promised = [at for at in self._promised if at > now]
        for number in range(latest + 1):
            rounds, place = divmod(number, len(left))
            seconds = float(max(1, math.ceil(pace * (rounds * total + len(left) * left[place]) / self._slots)))
            # Only promises up to then need one of the places up to then; nobody may ever come for those of a time when hardly anything ended.
            if bisect_right(self._promised, now + seconds) <= number:
                break
        seconds = min(seconds, MAX_RETRY_SECONDS)
        self._promised = sorted((*self._promised, now + seconds))[: latest + 1]
        return seconds

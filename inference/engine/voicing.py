"""Which requests' frames become sound in a round: nobody's first sound waits behind what others need later."""

from __future__ import annotations

from collections.abc import Iterable

from inference.engine.job import Job
from inference.engine.vocoder import LARGEST_CHUNK

AHEAD_SECONDS = 0.15
"""A listener who has more than this still to hear can wait while somebody else has heard nothing yet."""


SOON_SECONDS = 0.05
"""About as long as a first sound takes once its request has a slot, when the others' passes wait for it."""


def is_ahead(job: Job, now: float) -> bool:
    """Whether a listener has enough still to hear to wait for a while."""
    return job.audible_until > now + AHEAD_SECONDS


def runs_out(job: Job, now: float) -> bool:
    """Whether a listener will soon have nothing to hear.

    One who has nothing already can wait for some rounds longer, unless the text is short.
    """
    return not job.unheard and not is_ahead(job, now) and (job.short or job.audible_until > now)


def choose(jobs: Iterable[Job], now: float, frames: int, beside: int | None, held: bool) -> dict[Job, int]:
    """The jobs that have a pass of the vocoder now, and its frames: about `frames` in all, and at least one pass when any may have one.

    First those who have heard nothing of a short text, then those whose sound runs out soonest, or who have heard nothing of a long one.
    While a short text has not been heard, listeners who are ahead wait, and the others together have `beside` frames; in a round that is
    `held` for the short text, only those whose sound `runs_out` at once. With None nobody waits: passes run beside the model's frames, and whoever
    comes waits for those on their way at most.
    """
    jobs = list(jobs)
    beside, somebody_waits = beside or LARGEST_CHUNK, beside is not None and any(job.urgent for job in jobs)

    def may(job: Job) -> bool:
        if job.urgent or not somebody_waits:
            return True
        return runs_out(job, now) and job.audible_until <= now + SOON_SECONDS if held else not is_ahead(job, now)

    due = [job for job in jobs if job.sound_due and may(job)]
    due.sort(key=lambda job: (0, job.submitted) if job.urgent else (1, 0 if job.unheard else job.audible_until))
    passes: dict[Job, int] = {}
    for job in due:
        assert job.vocoder is not None
        if somebody_waits and not job.urgent:
            frames = min(frames, beside)
        size = job.vocoder.next_frames(min(beside, LARGEST_CHUNK) if somebody_waits else LARGEST_CHUNK)
        frames -= size
        if passes and frames < 0:
            break
        passes[job] = size
    return passes

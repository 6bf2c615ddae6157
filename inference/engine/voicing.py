"""Which requests' frames become sound in a round: nobody's first sound waits behind what others need later."""

from __future__ import annotations

from collections.abc import Sequence as Seq

from inference.engine.job import Job, JobStatus

AHEAD_SECONDS = 0.5
"""A listener who has more than this still to hear can wait while somebody else has heard nothing yet."""


def choose(jobs: Seq[Job], now: float, frames: int) -> list[Job]:
    """The jobs that have a pass of the vocoder now, with about `frames` frames in all and at least one job when any may have one.

    First those who have heard nothing, then those whose sound runs out soonest. While somebody has heard nothing, segments that are still
    being generated wait if their listeners are well ahead.
    """
    somebody_waits = any(job.unheard for job in jobs)
    due = [job for job in jobs if job.sound_due and not (somebody_waits and _can_wait(job, now))]
    due.sort(key=lambda job: (not job.unheard, job.audible_until))
    chosen: list[Job] = []
    for job in due:
        assert job.vocoder is not None
        frames -= job.vocoder.next_frames
        if chosen and frames < 0:
            break
        chosen.append(job)
    return chosen


def _can_wait(job: Job, now: float) -> bool:
    return not job.unheard and job.status is not JobStatus.VOICING and job.audible_until > now + AHEAD_SECONDS

"""What the engine counts of listeners who had nothing to hear. Time stands still but for what a test lets pass."""

import numpy as np
import pytest
from prometheus_client import REGISTRY

from inference import SpeechRequest
from inference.engine import job as job_module
from inference.engine.request import FinishReason
from inference.engine.stream import MAX_UNREAD
from inference.model.config import SAMPLE_RATE
from tests.inference.engine.by_hand import ByHand

SECOND = np.zeros(SAMPLE_RATE, np.float32)


def counted(name, **labels):
    return REGISTRY.get_sample_value(f"fishserve_{name}", labels) or 0


@pytest.fixture
def clock(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(job_module.time, "monotonic", lambda: clock[0])
    return clock


@pytest.fixture
def job(golden, clock):  # noqa: ARG001 - its times begin with this clock
    engine = ByHand(golden, slots=1)
    engine.submit(SpeechRequest("Hello."), lambda _: None)
    return next(iter(engine._scheduler.waiting))


@pytest.fixture
def unread(job):
    """How many chunks the listener has not read, in a list of one."""
    unread = [0]
    job.handle._unread = lambda: unread[0]
    return unread


def gaps(job):
    """The buckets of gaps that grew when the job ended, and the seconds that were counted."""

    def values():
        return [counted("longest_gap_seconds_bucket", le=le) for le in ("0.05", "0.2", "0.5", "+Inf")]

    before = values()
    job.end(None, FinishReason.STOP)
    return [int(now - then) for now, then in zip(values(), before, strict=True)]


def test_sound_that_comes_in_time_has_no_gap(job, clock):
    for seconds in (5.0, 0.9, 0.5):
        clock[0] += seconds
        job.deliver_chunk(SECOND)
    assert gaps(job) == [1, 1, 1, 1]


def test_the_longest_silence_decides_and_all_of_them_are_summed(job, clock):
    total = counted("underrun_seconds_total")
    for seconds in (5.0, 1.3, 1.1):
        clock[0] += seconds
        job.deliver_chunk(SECOND)
    assert counted("underrun_seconds_total") - total == pytest.approx(0.4)
    assert gaps(job) == [0, 0, 1, 1]


def test_who_stops_reading_makes_no_gap(job, clock, unread):
    job.deliver_chunk(SECOND)
    unread[0] = MAX_UNREAD + 1
    assert job.handle.is_behind()
    unread[0] = 0
    assert not job.handle.is_behind()
    clock[0] += 60
    job.deliver_chunk(SECOND)
    clock[0] += 1.1
    job.deliver_chunk(SECOND)
    assert gaps(job) == [0, 1, 1, 1]


def test_what_never_sounded_is_not_counted(job):
    assert gaps(job) == [0, 0, 0, 0]


def test_free_slots_and_the_oldest_waiting_request_are_shown(golden, clock):
    engine = ByHand(golden, slots=2)
    for _ in range(3):
        engine.submit(SpeechRequest("Hello.", seed=1, max_new_tokens=40), lambda _: None)
    for job in engine._scheduler.waiting:
        job.submitted = clock[0]
    clock[0] += 2
    for _ in range(2):  # a prompt each
        engine.turn()
    assert (counted("slots_free"), counted("oldest_waiting_seconds")) == (0, 2)
    engine.finish()
    assert (counted("slots_free"), counted("oldest_waiting_seconds")) == (2, 0)

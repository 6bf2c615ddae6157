"""Who goes next, and when who was refused comes back: the rules alone, on jobs that speak nothing."""

import math
from collections import Counter
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engine import waiting
from inference.engine.job import Urgency
from inference.engine.waiting import MAX_RETRY_SECONDS, MOST_ROUNDS, RetryTimes, WaitingJobs

PACE = 0.1
"""Seconds for which a segment has a slot, for each of its columns."""


class Clock:
    now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(waiting, "time", clock)
    return clock


class Speech:
    """A job of `segments` segments, each of which has a slot for `length` seconds and gives `sound` seconds to hear."""

    def __init__(self, name, segments, length=10, sound=5.0, behind=False):
        self.name, self.left, self.length, self.sound = name, segments, length, sound
        self.sequence = None
        self.starting, self.queued, self.audible_until, self.ends = True, 0.0, 0.0, math.inf
        self.short = segments == 1
        self.handle = SimpleNamespace(is_behind=lambda: behind)

    @property
    def urgency(self):
        return Urgency.LATER if not self.starting else Urgency.SHORT if self.short else Urgency.FIRST

    def columns_left(self, now, pace):
        columns = self.length / PACE
        runs = max(0.1 * columns, columns - (now - self.ends + self.length) / pace) if self.ends < math.inf else 0
        return self.left * columns + runs


class Slots:
    """An engine that needs no model: `second` lets a second pass."""

    def __init__(self, slots, clock):
        self.slots, self.clock, self.waiting, self.running, self.started = slots, clock, WaitingJobs(slots), [], []
        self.done, self.retry_times = [], RetryTimes(slots)

    def add(self, job):
        self.waiting.add(job)

    def second(self):
        for job in [j for j in self.running if j.ends <= self.clock.now]:
            self.running.remove(job)
            self.retry_times.finished(job.length / PACE, job.length)
            job.ends = math.inf
            (self.waiting.add if job.left else self.done.append)(job)
        while job := self.waiting.take(len(self.running)):
            job.left, job.starting, job.ends = job.left - 1, False, self.clock.now + job.length
            job.audible_until = max(job.audible_until, self.clock.now) + job.sound
            self.running.append(job)
            self.started.append(job.name)
        self.clock.now += 1


@pytest.mark.parametrize("spoken", [2, 200])
@pytest.mark.parametrize("long_ones", [1, 8, 40, 400])
def test_a_short_request_waits_for_segments_that_run_and_not_for_a_queue(clock, long_ones, spoken):
    slots = Slots(8, clock)
    for n in range(long_ones):
        slots.add(Speech(f"long{n}", 50, length=10 + n % 5))
    for _ in range(spoken):
        slots.second()
    slots.add(Speech("short", 1))
    for _ in range(15 if long_ones == 8 else 1):  # eight use all slots, until one of their segments ends; of more, one slot is kept
        slots.second()
    assert "short" in slots.started


def test_without_others_every_slot_is_used(clock):
    slots = Slots(8, clock)
    for n in range(8):
        slots.add(Speech(n, 5))
    for _ in range(35):
        slots.second()
        assert len(slots.running) == 8


@given(data=st.data(), slots=st.integers(1, 9), jobs=st.lists(st.integers(1, 6), min_size=1, max_size=30))
def test_everybody_goes_on_and_first_segments_keep_their_order(data, slots, jobs):
    """Whatever comes and however it is mixed: first segments start as they came, and nobody is passed over for ever."""
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waiting, "time", clock)
        engine = Slots(slots, clock)
        for name, segments in enumerate(jobs):
            engine.add(Speech(name, segments, data.draw(st.integers(1, 20)), data.draw(st.floats(0, 30))))
            for _ in range(data.draw(st.integers(0, 5))):
                engine.second()
        for _ in range(20 * sum(jobs) + 100):
            engine.second()
    began = list(dict.fromkeys(engine.started))
    for short in (True, False):
        assert [name for name in began if (jobs[name] == 1) is short] == [name for name, n in enumerate(jobs) if (n == 1) is short]
    assert Counter(engine.started) == Counter(dict(enumerate(jobs)))
    assert not engine.running


@pytest.mark.parametrize("slots", [1, 2, 8])
def test_an_endless_stream_of_short_requests_does_not_stop_a_long_one(clock, slots):
    engine = Slots(slots, clock)
    long = Speech("long", 10)
    engine.add(long)
    for n in range(2000):
        if len(engine.waiting) < 4:
            engine.add(Speech(n, 1))
        engine.second()
    assert long in engine.done
    passed = [i for i, name in enumerate(engine.started) if name == "long"]
    assert all(b - a <= 2 * slots + 2 for a, b in pairwise(passed))


def test_a_slot_made_free_for_a_short_request_is_its_own_and_the_next_one_is_for_whoever_was_passed_over(clock):  # noqa: ARG001
    jobs = WaitingJobs(2)
    jobs.add(Speech("long", 5))
    for n in range(5):
        jobs.add(Speech(n, 1))
    assert [jobs.take(1).name for _ in range(2)] == [0, 1]
    assert jobs.has_short
    assert not jobs.a_short_one_goes_next()
    assert jobs.take(1, short=True).name == 2
    assert [jobs.take(1).name for _ in range(2)] == ["long", 3]


def test_whose_audio_runs_out_first_goes_first(clock):
    jobs = WaitingJobs(1)
    for name, until in (("a", 1030.0), ("b", 1010.0), ("c", 1020.0)):
        job = Speech(name, 1)
        job.starting, job.audible_until = False, until
        jobs.add(job)
    assert [jobs.take(0).name for _ in range(3)] == ["b", "c", "a"]
    # Who hears nothing any more is not in a greater hurry for having heard nothing longer.
    for name, until in (("a", 900.0), ("b", 100.0), ("c", 500.0)):
        job = Speech(name, 1)
        job.starting, job.audible_until = False, until
        jobs.add(job)
        clock.now += 1
    assert [jobs.take(0).name for _ in range(3)] == ["a", "b", "c"]


def test_who_does_not_read_does_not_go_and_stops_nobody(clock):  # noqa: ARG001 - the jobs' times
    jobs = WaitingJobs(2)
    jobs.add(Speech("deaf", 1, behind=True))
    jobs.add(Speech("other", 1))
    assert jobs.take(0).name == "other"
    assert jobs.take(1) is None
    assert len(jobs) == 1


def obey(engine, room, callers, segments):
    """Callers who come back when they are told, until all have been taken: how long that took, and how often each was refused."""
    clock, refused = engine.clock, Counter()
    began, due = clock.now, dict.fromkeys(range(callers), clock.now)
    while due:
        for caller in [c for c, at in due.items() if at <= clock.now]:
            if len(engine.running) + len(engine.waiting) < room:
                engine.add(Speech(f"caller{caller}", segments, length=2))
                del due[caller]
            else:
                refused[caller] += 1
                due[caller] = clock.now + engine.retry_times.next((*engine.running, *engine.waiting))
        engine.second()
    return clock.now - began, refused


@pytest.mark.parametrize("remembered", [PACE / 5, PACE, 3 * PACE])
@pytest.mark.parametrize("segments", [1, 2, 5])
def test_a_crowd_that_obeys_keeps_the_slots_busy(clock, remembered, segments):
    """150 callers of 72 places come at once: all have been taken before the slots could have spoken for all, if the pace was right."""
    engine = Slots(8, clock)
    engine.retry_times.finished(100, 100 * remembered)
    seconds, refused = obey(engine, 72, 150, segments)
    assert seconds <= 150 * segments * 2 / 8 * max(1, remembered / PACE) + 10
    assert sum(refused.values()) <= 3 * 150


@given(
    lengths=st.lists(st.integers(1, 30), min_size=8, max_size=60), slots=st.integers(1, 8), callers=st.integers(1, 40),
    segments=st.integers(1, 5), remembered=st.floats(PACE / 10, 10 * PACE), strangers=st.integers(0, 200), deaf=st.integers(1, 100_000),
)  # fmt: skip
def test_callers_who_come_back_when_told_are_taken_whatever_was_before(lengths, slots, callers, segments, remembered, strangers, deaf):
    """As many as may wait do. Before, the pace was another one, and strangers were refused beside very long texts and never came back."""
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waiting, "time", clock)
        engine, room = Slots(slots, clock), len(lengths)
        engine.retry_times.finished(100, 100 * remembered)
        for _ in range(strangers):
            assert engine.retry_times.next([Speech("deaf", deaf)]) <= MAX_RETRY_SECONDS
        for n, left in enumerate(lengths):
            engine.add(Speech(n, left, length=2))
        seconds, refused = obey(engine, room, callers, segments)
    busy = 2 * (sum(lengths) + callers * segments) / slots
    assert seconds <= busy + 4 * MAX_RETRY_SECONDS
    assert max(refused.values(), default=0) <= 8 + seconds / 10
    assert sum(refused.values()) <= callers * (6 + seconds / MAX_RETRY_SECONDS)


def test_promises_for_later_take_none_of_the_places_that_come_first(clock):  # noqa: ARG001
    times = RetryTimes(2)
    times.finished(40, 40 * PACE)
    for _ in range(20):
        assert times.next([Speech("long", 1000)] * 2) == MAX_RETRY_SECONDS
    assert [times.next([Speech("short", 1, length=4)] * 2) for _ in range(4)] == [4, 4, 8, 8]


def test_a_place_that_comes_at_once_is_promised_to_one_caller_until_he_comes(clock):
    times, ends = RetryTimes(1), Speech("ends", 0)
    times.finished(40, 40 * PACE)
    assert times.next([ends, Speech("short", 1, length=4)]) == 1
    clock.now += 0.5
    assert times.next([ends, Speech("short", 1, length=4)]) == 8


def test_a_refused_crowd_that_never_comes_back_takes_no_memory(clock):  # noqa: ARG001
    times = RetryTimes(2)
    for _ in range(1000):
        times.next([Speech("long", 30), Speech("short", 1)])
    assert len(times._promised) <= MOST_ROUNDS * 2

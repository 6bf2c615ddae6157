import asyncio
import statistics
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.load import Sample, closed_loop, open_loop, poisson
from bench.prompts import prompts
from bench.serving import Objective, audio_per_second, requests_per_second
from inference.errors import GenerationError


def test_an_open_loop_charges_a_stalled_server_for_everyone_it_kept_waiting(clock):
    """The server answers one at a time and at once, but its first answer takes 0.4 s. Most requests come while it stalls."""
    samples, arrivals, stall = [], [0.01 * i for i in range(40)], 0.4

    async def main():
        turn, first = asyncio.Lock(), True

        async def speak(_, heard):
            nonlocal first
            async with turn:
                if first:
                    first = False
                    await asyncio.sleep(stall)
                heard(1.0)

        await open_loop(speak, prompts(), arrivals, samples)

    clock.run(main())
    assert [s.due for s in samples] == arrivals
    assert [s.first_audio for s in samples] == pytest.approx([max(0.0, stall - due) for due in arrivals], abs=1e-6)
    assert statistics.median(s.first_audio for s in samples) > 0.15  # a closed loop's client would have seen one slow answer of forty


def test_an_open_loop_charges_for_what_it_could_not_send_in_time(clock):
    """Even when the stall is in the generator's own thread, so that requests are sent late, they count from when they were due."""
    samples = []

    async def speak(_, heard):
        if not samples:
            clock.stall(0.3)
        heard(1.0)

    clock.run(open_loop(speak, prompts(), [0.0, 0.1, 0.2], samples))
    assert [s.first_audio for s in samples] == pytest.approx([0.3, 0.2, 0.1], abs=1e-6)
    assert samples[-1].waited is None


def test_an_open_loop_does_not_wait_for_ever(clock):
    samples = []

    async def speak(prompt, heard):
        heard(1.0)
        await asyncio.sleep(60 if prompt.bucket == "medium" else 0)

    clock.run(open_loop(speak, prompts(), [0.0, 0.01], samples, drain=0.2))
    assert [(s.bucket, bool(s.error)) for s in sorted(samples, key=lambda s: s.due)] == [("short", False), ("medium", True)]
    assert not any(s.continuous for s in samples if s.error)


def test_a_closed_loop_keeps_as_many_busy_as_there_are_clients(clock):
    samples, busy, most = [], 0, 0

    async def speak(_, heard):
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0.02)
        heard(0.5)
        busy -= 1
        return 0.01

    clock.run(closed_loop(speak, prompts(), 3, 0.19, samples))
    assert most == 3
    assert len(samples) == 30
    assert all(s.due == s.sent and s.waited == pytest.approx(0.01) and s.continuous for s in samples)
    once = []
    clock.run(closed_loop(speak, prompts(), 3, 0, once))
    assert len(once) == 3


def test_errors_are_samples_and_the_load_goes_on(clock):
    samples = []

    async def speak(prompt, heard):
        if prompt.number % 2:
            raise GenerationError("no")
        if prompt.bucket != "short":
            heard(1.0)

    clock.run(open_loop(speak, prompts(), [0.0] * 4, samples))
    assert [s.error for s in sorted(samples, key=lambda s: len(s.times))].count(None) == 1
    assert {s.error for s in samples} == {"no", "no audio came", None}


def test_a_client_that_is_refused_waits_before_it_asks_again(clock):
    samples = []

    async def refuse(*_):
        raise GenerationError("full")

    clock.run(closed_loop(refuse, prompts(), 2, 0.3, samples))
    assert 4 <= len(samples) <= 8


def test_what_was_measured_is_kept_when_the_loop_is_cut_short(clock):
    samples = []

    async def speak(_, heard):
        await asyncio.sleep(0.01)
        heard(1.0)

    async def main():
        async with asyncio.timeout(0.3):
            await closed_loop(speak, prompts(), 2, 60, samples)

    with pytest.raises(TimeoutError):
        clock.run(main())
    assert len(samples) > 4
    assert all(s.error is None for s in samples)


@given(st.floats(1, 50), st.integers(0, 100))
def test_arrivals_are_in_order_and_in_time(rate, seed):
    arrivals = poisson(rate, 5.0, seed)
    assert arrivals == sorted(arrivals)
    assert all(0 < t < 5 for t in arrivals)


def test_arrivals_are_a_poisson_process():
    arrivals = poisson(20, 200)
    assert len(arrivals) == pytest.approx(4000, rel=0.06)
    gaps = [b - a for a, b in pairwise(arrivals)]
    assert statistics.stdev(gaps) == pytest.approx(statistics.mean(gaps), rel=0.1)  # exponential gaps scatter as much as they last


def sample(times, durations, due=0.0):
    return Sample("short", "en", 10, due, due, list(times), list(durations), max(times, default=0.0))


def test_throughput_counts_what_came_within_the_window():
    samples = [sample([1.0, 2.0, 3.0], [1.0, 2.0, 4.0]), sample([0.5, 9.0], [1.0, 1.0])]
    assert audio_per_second(samples, 0, 2) == 2
    assert audio_per_second(samples, 2, 4) == 2
    assert requests_per_second(samples, 4) == 0.25


def test_pieces_of_one_chunk_are_no_gaps():
    assert sample([1.0, 1.001, 1.5], [0.1] * 3).gaps == pytest.approx([0.499])


def test_an_objective_needs_sound_soon_and_then_without_a_pause():
    objective = Objective(first_audio=0.5, share=0.5)
    good, late, starved = sample([0.4, 1.0], [1, 1]), sample([0.6, 1.0], [1, 1]), sample([0.4, 1.5], [1, 1])
    assert [objective.kept(s) for s in (good, late, starved, sample([], []))] == [True, False, False, False]
    assert objective.met([good, late])
    assert not objective.met([good, late, starved])
    assert objective.met([])

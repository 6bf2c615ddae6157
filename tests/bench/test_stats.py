import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.stats import head_start, median_interval, percentiles, ratio_interval

numbers = st.floats(0.001, 1000)


@given(st.lists(numbers, min_size=1, max_size=200))
def test_percentiles_rise_and_lie_within_what_was_measured(values):
    found = percentiles(values)
    known = [found[p] for p in ("p50", "p90", "p95", "p99", "max") if found[p] is not None]
    assert known == sorted(known)
    assert min(values) <= known[0]
    assert known[-1] == max(values)
    assert found["n"] == len(values)


@pytest.mark.parametrize(("p", "needed"), [("p50", 1), ("p90", 10), ("p95", 20), ("p99", 100)])
def test_a_percentile_is_not_given_where_the_count_cannot_show_it(p, needed):
    assert percentiles([1.0] * (needed - 1))[p] is None
    assert percentiles([1.0] * needed)[p] == 1


def listener_starves(times, durations, waits):
    """A listener, millisecond by millisecond: starts `waits` after the first chunk, and starves when there is nothing to play."""
    started = times[0] + waits
    for played in range(sum(durations)):
        arrived = sum(d for t, d in zip(times, durations, strict=True) if t <= started + played)
        if played == arrived:
            return True
    return False


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 30)), min_size=1, max_size=8), st.integers(0, 20))
def test_continuity_is_what_a_listener_hears(chunks, start):
    times, durations = [], []
    for gap, duration in chunks:
        times.append((times[-1] if times else start) + gap)
        durations.append(duration)
    needed = head_start(times, durations)
    assert needed == int(needed)
    assert listener_starves(times, durations, 0) == (needed > 0)
    assert not listener_starves(times, durations, int(needed))
    if needed:
        assert listener_starves(times, durations, int(needed) - 1)


def test_without_sound_nobody_waits():
    assert head_start([], []) == 0


def test_the_medians_interval_says_how_sure_it_is():
    assert median_interval([3.0, 1.0, 2.0]) == (1, 3, 0.75)
    assert median_interval(range(6)) == (0, 5, 1 - 2 / 2**6)
    assert median_interval(range(9))[:2] == (1, 7)
    assert median_interval([5.0]) == (5, 5, 0)
    assert math.isnan(median_interval([])[0])


@given(st.lists(numbers, min_size=1, max_size=30))
def test_the_medians_interval_holds_the_median(values):
    low, high, sure = median_interval(values)
    assert low <= np.median(values) <= high
    assert 0 <= sure < 1
    assert len(values) < 6 or sure >= 0.95


@given(st.lists(numbers, min_size=2, max_size=30))
def test_a_thing_beside_itself_has_a_ratio_of_one(values):
    ratio, low, high = ratio_interval(values, values)
    assert ratio == 1
    assert low <= 1 <= high


def test_two_runs_of_the_same_thing_rarely_differ_and_of_different_things_do():
    generator = np.random.default_rng(1)

    def held(factor):
        intervals = [ratio_interval(*generator.lognormal(0, 0.3, (2, 25)) * np.array([[1], [factor]])) for _ in range(60)]
        return sum(low <= 1 <= high for _, low, high in intervals)

    assert held(1.0) >= 54
    assert held(2.0) == 0


def test_nothing_has_no_ratio():
    assert ratio_interval([], [1.0]) is None
    assert ratio_interval([0.0, 0.0], [1.0]) is None

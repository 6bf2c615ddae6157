"""When words are heard, from the text and the energy of the sound."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from inference.engine.times import HOP, SegmentTimes, character_times
from inference.model.config import SAMPLE_RATE
from inference.text.words import spoken_lines

HOP_SECONDS = HOP / SAMPLE_RATE


def sound(*parts):
    """Hops of noise and of silence: (whether it is loud, how many)."""
    return np.concatenate([np.random.default_rng(n).normal(0, 0.1 * loud, hops * HOP) for n, (loud, hops) in enumerate(parts)])


def words_of(text, *parts):
    line = spoken_lines(text, [text], str)[0]
    return SegmentTimes(line, 10.0).heard(sound(*parts), ended=True)


def test_times_run_from_the_first_sound_to_the_last():
    first, second = words_of("aaaa bbbb", (False, 10), (True, 100), (False, 20))
    assert (first.start, second.end) == (pytest.approx(10 + 10 * HOP_SECONDS), pytest.approx(10 + 110 * HOP_SECONDS))
    assert first.end == pytest.approx(second.start) == pytest.approx(10 + 60 * HOP_SECONDS)


def test_a_pause_is_put_between_words_and_rather_after_punctuation():
    words = words_of("one two three, four five", (True, 70), (False, 30), (True, 30))
    assert [w.text for w in words] == ["one", "two", "three", "four", "five"]
    assert words[2].end == pytest.approx(10 + 70 * HOP_SECONDS)
    assert words[3].start == pytest.approx(10 + 100 * HOP_SECONDS)


def test_a_short_silence_may_be_within_a_word():
    (word,) = words_of("stop", (True, 20), (False, 5), (True, 10))
    assert word.end - word.start == pytest.approx(35 * HOP_SECONDS)


def test_nothing_is_known_before_the_segment_ends_and_each_word_comes_once():
    line = spoken_lines("one two", ["one two"], str)[0]
    times = SegmentTimes(line, 0.0)
    assert times.heard(sound((True, 40)), ended=False) == ()
    assert [w.text for w in times.heard(sound((True, 40)), ended=True)] == ["one", "two"]
    assert times.heard(np.zeros(0, np.float32), ended=True) == ()


def read(text, bounds, *parts):
    times = SegmentTimes(spoken_lines(text, [text], str)[0], 10.0)
    times._bounds = np.array(bounds) * HOP_SECONDS
    return times.heard(sound(*parts), ended=True)


def test_what_attention_says_counts_instead_of_the_estimate():
    first, second = read("ab cd", [0, 20, 35, 35, 60, 80], (True, 80))
    assert (first.start, first.end) == (10, pytest.approx(10 + 35 * HOP_SECONDS))
    assert (second.start, second.end) == (pytest.approx(10 + 35 * HOP_SECONDS), pytest.approx(10 + 80 * HOP_SECONDS))
    assert first.precision == second.precision == "word"


def test_no_word_begins_in_silence_or_lasts_into_a_pause():
    first, second = read("ab, cd", [0, 20, 45, 50, 60, 80, 100], (False, 8), (True, 22), (False, 28), (True, 30), (False, 12))
    assert (first.start, first.end) == (pytest.approx(10 + 8 * HOP_SECONDS), pytest.approx(10 + 30 * HOP_SECONDS))
    assert (second.start, second.end) == (pytest.approx(10 + 60 * HOP_SECONDS), pytest.approx(10 + 88 * HOP_SECONDS))


def test_a_click_is_no_sound():
    first, *_ = words_of("aaaa bbbb", (True, 1), (False, 9), (True, 100))
    assert first.start == pytest.approx(10 + 10 * HOP_SECONDS)


@given(st.text(min_size=1), arrays(np.float32, st.integers(0, 60), elements=st.floats(0, 1, width=32)), st.data())
def test_read_times_never_fall_and_stay_within_the_sound(text, energy, data):
    bounds = np.sort(data.draw(arrays(np.float64, len(text) + 1, elements=st.floats(0, 1))))
    times = character_times(text, energy, True, bounds).reshape(-1)
    assert times.shape == (2 * len(text),)
    assert (np.diff(times) >= 0).all()
    assert (times >= 0).all()
    assert (times <= len(energy) * HOP_SECONDS + 1e-9).all()


@given(st.text(min_size=1), st.lists(st.tuples(st.sampled_from([0.0, 1e-5, 0.5, 1.0]), st.integers(1, 40)), max_size=12), st.data())
def test_times_that_are_read_during_the_segment_are_those_of_its_end(text, runs, data):
    energy = np.repeat([loud for loud, _ in runs], [hops for _, hops in runs]) if runs else np.zeros(0)
    bounds = np.sort(data.draw(arrays(np.float64, len(text) + 1, elements=st.floats(0, 5))))
    whole = character_times(text, energy, True, bounds)
    for hops in range(0, len(energy) + 1, 16):
        known = bounds[: data.draw(st.integers(0, len(bounds)))]
        part = character_times(text, energy[:hops], False, known)
        assert len(part) <= max(0, len(known) - 1)
        assert (part == whole[: len(part)]).all()
        assert (part <= hops * HOP_SECONDS).all()


@given(st.text(min_size=1), arrays(np.float32, st.integers(0, 60), elements=st.floats(0, 1, width=32)))
def test_times_never_fall_and_stay_within_the_sound(text, energy):
    times = character_times(text, energy, ended=True)
    assert times.shape == (len(text), 2)
    flat = times.reshape(-1)
    assert (np.diff(flat) >= 0).all()
    assert (flat >= 0).all()
    assert (flat <= len(energy) * HOP_SECONDS + 1e-9).all()


def test_words_that_attention_places_come_during_the_segment_but_for_the_last():
    text = "one two three four"
    times = SegmentTimes(spoken_lines(text, [text], str)[0], 0.0)
    pieces = [text[n : n + 1].encode() for n in range(len(text))]
    attention = np.eye(len(text) + 1)[np.repeat(np.arange(len(text)), 5)][None]  # five frames for each letter
    given = []
    for frames in range(0, 90, 30):
        times.read(pieces, attention[:, frames : frames + 30])
        given.append([w.text for w in times.heard(sound((True, 4 * 30)), ended=False)])
    times.end()
    last = times.heard(np.zeros(0), ended=True)
    assert given == [["one"], ["two"], ["three"]]
    assert [(w.text, w.ends_line) for w in last] == [("four", True)]


def test_attention_that_follows_behind_the_sound_is_taken_to_be_earlier_but_at_the_end():
    text, frames = "ab cd", 10
    attention = np.eye(len(text) + 1)[np.repeat([0, 1, 2, 3, 4], frames)][None]
    found = []
    for delay in (0.0, 0.1):
        times = SegmentTimes(spoken_lines(text, [text], str)[0], 0.0)
        times.delay = delay
        times.read([c.encode() for c in text], attention)
        times.end()
        found.append(times.heard(sound((True, 4 * 5 * frames)), ended=True))
    (first, second), (early_first, early_second) = found
    assert early_first.start == first.start == 0
    assert early_second.start == pytest.approx(second.start - 0.1)
    assert early_second.end == second.end

"""What the detectors of the guard find, and that they look at each frame once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engine.guard import (
    LEAST_REPEATED,
    LONGEST_BLOCK,
    MAX_VOICES,
    REPETITIONS,
    SHORTEST_COPY,
    SILENCE_SECONDS,
    Fault,
    Finding,
    Loops,
    Paces,
    Sound,
    of_codes,
    of_length,
    of_words,
    score,
)
from inference.model.config import SAMPLE_RATE, SAMPLES_PER_FRAME

TEXT = "A sentence of about thirty letters, and a few more."


def first_loop(codes):
    """As `Loops` finds it, by comparing each frame with every earlier one within reach: (frames until it is noticed, where it begins)."""
    for end in range(1, len(codes) + 1):
        for lag in range(1, min(LONGEST_BLOCK, end - 1) + 1):
            run = 0
            while end - run - lag > 0 and codes[end - 1 - run] == codes[end - 1 - run - lag]:
                run += 1
            if run >= max(REPETITIONS * lag, LEAST_REPEATED):
                return end, end - run
    return None


def found_loop(codes):
    loops = Loops()
    for number, code in enumerate(codes, 1):
        if found := loops.add(code):
            return number, found.good_frames
    return None


@given(
    before=st.lists(st.integers(0, 30), max_size=30),
    block=st.lists(st.integers(0, 30), min_size=1, max_size=LONGEST_BLOCK),
    times=st.integers(1, 6),
)
def test_a_loop_is_found_where_comparing_everything_finds_it(before, block, times):
    codes = [*before, *block * times]
    assert found_loop(codes) == first_loop(codes)


@pytest.mark.parametrize("period", [1, 2, 9, LONGEST_BLOCK])
def test_the_frames_before_the_first_repetition_are_good(period):
    codes = [1000 + i for i in range(10)] + list(range(period)) * 40
    assert found_loop(codes)[1] == 10 + period


def test_a_word_said_three_times_is_no_loop():
    word = list(range(12))
    assert found_loop([*word * 3, 50, 51, *word]) is None


def codes(frames, seed=0):
    return np.random.default_rng(seed).integers(0, 1000, (8, frames))


@pytest.mark.parametrize("block", [SHORTEST_COPY, 12, LONGEST_BLOCK])
@pytest.mark.parametrize("changed", [0.0, 0.2])
def test_a_block_that_comes_twice_is_found(block, changed):
    once, twice, random = codes(20), codes(block, 1), np.random.default_rng(2)
    again = np.where(random.random(twice.shape) < changed, codes(block, 3), twice)
    (found,) = of_codes(TEXT, np.concatenate((once, twice, again, once[:, ::-1]), axis=1))
    assert (found.fault, round(found.seconds * 21.5)) == (Fault.REPEATED, block)


def test_frames_that_stay_as_they_are_and_blocks_far_apart_are_nothing_said_twice():
    assert of_codes(TEXT, np.repeat(codes(6), 30, axis=1)) == []
    assert of_codes(TEXT, np.concatenate((codes(12), codes(100, 1), codes(12)), axis=1)) == []
    assert [of_codes(TEXT, codes(frames)) for frames in (0, 1, 9)] == [[], [], []]


def test_words_that_the_text_has_twice_may_be_said_twice():
    twice = np.concatenate((codes(20), codes(20)), axis=1)
    for text in ("Very, very good.", "It was the boat the boat hit.", "Knock! KNOCK!", "商量商量。"):
        assert of_codes(text, twice) == []
    assert of_codes("Everything is very good, very.", twice)


def looked_at(places, text=TEXT):
    """Attention of one head that looks at one letter of the text after the other."""
    attention = np.full((1, len(places), len(text)), 0.01)
    attention[0, np.arange(len(places)), places] = 1
    return attention


def test_looking_back_in_the_text_is_to_say_words_twice():
    pieces, straight = [c.encode() for c in TEXT], list(range(len(TEXT)))
    assert of_words(TEXT, pieces, looked_at(straight)) == []
    assert [f.fault for f in of_words(TEXT, pieces, looked_at([*straight[:24], *straight[11:]]))] == [Fault.REPEATED]
    astray = [*straight[:24], 11, *straight[24:]]
    assert of_words(TEXT, pieces, looked_at(astray)) == []


def test_equal_words_of_a_text_may_be_taken_for_each_other():
    text = "Speak it as often as you can."
    straight, first, second = list(range(len(text))), text.index("as "), text.rindex("as ")
    other = [*straight[:second], first, first + 1, *straight[second + 2 :]]
    assert of_words(text, [c.encode() for c in text], looked_at(other, text)) == []
    again = [*straight[: second + 3], *straight[first:]]
    assert [f.fault for f in of_words(text, [c.encode() for c in text], looked_at(again, text))] == [Fault.REPEATED]


def test_letters_that_no_frame_looks_at_were_left_out():
    pieces, straight = [c.encode() for c in TEXT], list(range(len(TEXT)))
    (found,) = of_words(TEXT, pieces, looked_at([*straight[:20], *straight[30:]]))
    assert (found.fault, found.good_frames) == (Fault.SKIPPED, 20)


def test_what_is_kept_does_not_grow_with_the_take():
    """So that a frame costs the same however long the take is."""
    loops, sound = Loops(), Sound()

    def sizes():
        return [np.size(value) for part in (loops, sound) for value in vars(part).values()]

    before = sizes()
    for code in np.random.default_rng(0).integers(0, 1000, 5000):
        loops.add(int(code))
        sound.add(np.full(SAMPLES_PER_FRAME, 0.1, np.float32))
    assert sizes() == before


def tone(seconds, loudness=0.3):
    frames = round(seconds * SAMPLE_RATE / SAMPLES_PER_FRAME)
    return (loudness * np.sin(np.arange(frames * SAMPLES_PER_FRAME) / 30)).astype(np.float32)


def in_pieces(samples, frames):
    sound, found = Sound(), None
    for start in range(0, len(samples), frames * SAMPLES_PER_FRAME):
        found = found or sound.add(samples[start : start + frames * SAMPLES_PER_FRAME])
    return found, sound.ended()


@given(
    before=st.floats(0.5, 3),
    silence=st.floats(0.1, 4),
    level=st.sampled_from((0.0, 0.001)),
    after=st.floats(0.1, 1),
    frames=st.integers(1, 40),
)
def test_a_long_silence_is_found_however_the_sound_comes(before, silence, level, after, frames):
    parts = tone(before), tone(silence, level), tone(after)
    found, ended = in_pieces(np.concatenate(parts), frames)
    length = len(parts[1]) / SAMPLE_RATE
    if abs(length - SILENCE_SECONDS) > 0.1:
        assert (found is not None) == (length > SILENCE_SECONDS)
    if found:
        assert found.fault is Fault.SILENCE
        assert abs(found.good_frames - len(parts[0]) / SAMPLES_PER_FRAME) <= 1
    assert not ended


def test_silence_before_and_behind_speech_is_too_long_as_well():
    assert in_pieces(np.concatenate((tone(3, 0), tone(1))), 8)[0] == Finding(Fault.SILENCE, 0, SILENCE_SECONDS)
    assert in_pieces(np.concatenate((tone(1), tone(3, 0))), 8)[0].fault is Fault.SILENCE


@pytest.mark.parametrize(
    ("samples", "fault"), [(tone(1, 0), Fault.EMPTY), (tone(0.05), Fault.EMPTY), (tone(1, 3).clip(-1, 1), Fault.CLIPPED)]
)
def test_sound_that_is_nothing_or_clipped(samples, fault):
    assert [f.fault for f in in_pieces(samples, 8)[1]] == [fault]


def test_no_sound_at_all_is_empty():
    assert [f.fault for f in Sound().ended()] == [Fault.EMPTY]


def test_a_length_is_judged_by_the_text():
    need = Paces().need(b"", TEXT)
    assert need.least < need.usual < need.most
    assert of_length(round(need.usual), need) == []
    assert [f.fault for f in of_length(int(need.least) - 1, need)] == [Fault.TOO_SHORT]
    assert [f.fault for f in of_length(int(need.most) + 1, need)] == [Fault.TOO_LONG]
    assert [f.fault for f in of_length(round(need.usual), need, ends=False)] == [Fault.NO_END]


@pytest.mark.parametrize(("text", "words"), [("$1,234,567.89", 16), ("FBI and BBC", 7), ("0800 555 0134", 11)])
def test_digits_and_capitals_may_be_words(text, words):
    """At four words a second or two."""
    need = Paces().need(b"", text)
    assert of_length(round(words / 4 * 21.5), need) == []
    assert of_length(round(words / 2 * 21.5), need) == []


def test_a_voice_has_its_own_pace():
    paces = Paces()
    first = paces.need(b"slow", TEXT)
    for _ in range(200):
        paces.learn(b"slow", TEXT, round(2 * first.usual))
        paces.learn(b"slow", "Call 0800 555 0134.", 1000)  # says nothing
    assert paces.need(b"slow", TEXT).usual == pytest.approx(2 * first.usual, rel=0.1)
    assert paces.need(b"other", TEXT) == first


def test_a_reference_says_the_pace_of_a_voice_that_was_never_heard():
    paces = Paces()
    usual = paces.need(b"", TEXT).usual
    paces.introduce(b"fast", TEXT, round(usual / 1.5))
    paces.introduce(b"fast", TEXT, 10_000)
    assert paces.need(b"fast", TEXT).usual == pytest.approx(usual / 1.5, rel=0.03)


def test_few_voices_are_remembered():
    paces = Paces()
    for number in range(MAX_VOICES + 50):
        paces.learn(str(number).encode(), TEXT, 100)
        paces.introduce(f"r{number}".encode(), TEXT, 100)
    assert len(paces._heard) == MAX_VOICES


def test_a_take_with_more_wrong_has_a_higher_score():
    short, loop = Finding(Fault.TOO_SHORT, 3, 2.0), Finding(Fault.LOOP, 3, 9.0)
    assert score([]) < score([short]) < score([loop]) < score([short, loop])

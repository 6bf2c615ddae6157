"""Pulses that are moved, and found again."""

from types import SimpleNamespace

import numpy as np
import pytest
import soxr
import torch
from hypothesis import given
from hypothesis import strategies as st

from inference.model.config import SAMPLE_RATE, SAMPLES_PER_FRAME
from training.pulses import MAX_PULSES, MIN_PULSES, VOICED_HZ, _between, align, count, cycles, expected_pulses, moved, pitch_of
from training.shards import CodedUtterance
from training.speech import TEACHER_HOP, TEACHER_RATE, Sentence, Utterance, sound_of

COUNTS = st.lists(st.integers(MIN_PULSES, MAX_PULSES), min_size=1, max_size=12).map(np.array)


@given(COUNTS)
def test_each_frame_begins_with_a_pulse_and_has_a_whole_number_of_them(counts):
    phase = cycles(counts)
    assert np.allclose(phase[::SAMPLES_PER_FRAME], np.cumsum(counts) - counts)
    ends = phase[SAMPLES_PER_FRAME - 1 :: SAMPLES_PER_FRAME] + counts / SAMPLES_PER_FRAME
    assert np.allclose(ends, np.cumsum(counts), atol=1e-4)


@given(COUNTS)
def test_the_rate_goes_from_the_last_frames_to_this_ones(counts):
    rate = np.diff(cycles(counts)) * SAMPLES_PER_FRAME
    assert np.allclose(rate[SAMPLES_PER_FRAME - 2 :: SAMPLES_PER_FRAME], counts, atol=0.05)
    assert np.abs(np.diff(rate)).max(initial=0) <= 4 * np.abs(np.diff(counts)).max(initial=0) / SAMPLES_PER_FRAME + 1e-6


def test_a_frame_is_expected_to_have_as_many_pulses_as_its_voiced_part_at_its_pitch():
    counts = np.array([5.4, 4.6, 9, 3])
    pitch = np.repeat(counts, SAMPLES_PER_FRAME) * SAMPLE_RATE / SAMPLES_PER_FRAME
    pitch[2 * SAMPLES_PER_FRAME : 2 * SAMPLES_PER_FRAME + 1500] = 0
    pitch[3 * SAMPLES_PER_FRAME :] = VOICED_HZ - 1
    assert expected_pulses(pitch) == pytest.approx([5.4, 4.6, 9, 0])


def walk(rng, frames):
    """Numbers of pulses that change as those of speech do."""
    return np.clip(9 + np.cumsum(rng.integers(-1, 2, frames)), 6, 14)


def test_pulses_are_counted_where_the_pitch_is_half_a_pulse_off():
    rng = np.random.default_rng(0)
    counts = walk(rng, 24)
    phase = cycles(counts)
    wave = sum(np.cos(2 * np.pi * h * phase + h) / h for h in range(1, 8))
    off = np.repeat(counts + rng.uniform(-0.6, 0.6, len(counts)), SAMPLES_PER_FRAME) * SAMPLE_RATE / SAMPLES_PER_FRAME
    assert (count(wave, off)[1:] == counts[1:]).all()


def test_pulses_are_counted_where_the_voice_begins_and_ends_within_a_frame():
    counts = np.array([9, 9, 9, 10, 10, 10])
    wave = np.cos(2 * np.pi * cycles(counts))
    pitch = np.repeat(counts, SAMPLES_PER_FRAME) * SAMPLE_RATE / SAMPLES_PER_FRAME
    silent = np.s_[: SAMPLES_PER_FRAME * 3 // 2], np.s_[-SAMPLES_PER_FRAME // 2 :]
    for part in silent:
        wave[part] = pitch[part] = 0
    found = count(wave, pitch)[1:] - counts[1:]
    assert (found[1:-1] == 0).all()
    assert (np.abs(found) <= 1).all()


def sentence(counts, rng):
    """A vowel of flat harmonics with a little noise, whose pitch is about that of the pulses."""
    steps = int(len(counts) * SAMPLES_PER_FRAME / SAMPLE_RATE * TEACHER_RATE / TEACHER_HOP) + 1
    times = (np.arange(steps) + 0.5) * TEACHER_HOP / TEACHER_RATE * SAMPLE_RATE / SAMPLES_PER_FRAME
    pitch = np.interp(times, np.arange(len(counts)) + 0.5, counts) * SAMPLE_RATE / SAMPLES_PER_FRAME
    flat = np.zeros((601, steps), np.float32)
    return Sentence([flat - 3, flat, flat - 9, flat - 9, rng.uniform(-3, 3, flat.shape).astype(np.float32), pitch], flat[0], flat[0])


def test_the_teachers_pulses_are_where_they_were_moved():
    rng = np.random.default_rng(1)
    counts = walk(rng, 16)
    spoken = sentence(counts, rng)
    wave = moved([spoken], cycles(counts), 0, seed=0)
    pitch = np.repeat(counts, SAMPLES_PER_FRAME) * SAMPLE_RATE / SAMPLES_PER_FRAME
    assert len(wave) == len(pitch)
    assert (count(wave, pitch)[1:-1] == counts[1:-1]).all()
    assert (count(wave, pitch + SAMPLE_RATE / SAMPLES_PER_FRAME)[1:-1] == counts[1:-1]).all()


def varied(rng, frames):
    """A sentence of noise, of harmonics with phases, and of what has a phase of its own; its voice is silent at both ends."""
    *spectra, pitch = sentence(walk(rng, frames), rng).spectra
    pitch[:6] = pitch[-6:] = 0
    middles = zip((-3, 0, -4, -5, 0), (1, 0.5, 1, 1, 3), strict=True)
    drawn = [rng.normal(middle, width, spectra[0].shape).astype(np.float32) for middle, width in middles]
    return Sentence([*drawn, pitch], spectra[0][0], spectra[0][0])


@pytest.mark.parametrize("start", [0, 3000])
def test_with_their_own_phases_the_teachers_sentences_are_what_they_are(start):
    rng = np.random.default_rng(2)
    sentences = [varied(rng, frames) for frames in (9, 12)]
    own = sound_of(sentences, seed=0)
    wanted = soxr.resample(own, TEACHER_RATE, SAMPLE_RATE, quality="HQ")[start:-SAMPLES_PER_FRAME]
    at = (start + np.arange(len(wanted))) * TEACHER_RATE / SAMPLE_RATE
    hz = np.concatenate([_between(one.spectra[-1]) for one in sentences])
    phase = np.interp(at, np.arange(len(own)), np.cumsum(np.maximum(hz, VOICED_HZ)) / TEACHER_RATE)
    first = len(_between(sentences[0].spectra[-1]))  # where the second begins anew
    phase = np.where(at < first, phase, phase - np.cumsum(np.maximum(hz, VOICED_HZ))[first - 1] / TEACHER_RATE)
    assert np.abs(moved(sentences, phase, start, seed=0) - wanted)[SAMPLES_PER_FRAME:].max() < 0.01 * np.abs(wanted).max()
    assert np.allclose(pitch_of(sentences, start, len(wanted)), hz[at.astype(int)])


@pytest.mark.parametrize("frames", [None, 3])
def test_an_utterance_is_left_out_where_the_teacher_says_something_else(frames):
    """Nothing any more, as of a text that is too long for it, or a sound of another length."""
    said = [] if frames is None else [sentence(np.full(12, 9), np.random.default_rng(3))]
    teacher, nothing = SimpleNamespace(sentences=lambda _: said), torch.zeros(0)
    code = CodedUtterance(b"", torch.zeros(frames or 1, 8, dtype=torch.int16), nothing, nothing)
    assert align(None, teacher, Utterance("", None, nothing, nothing, nothing), code, 0) is None

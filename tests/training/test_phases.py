"""Phases of pulses, and a head that learns to tell them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inference.model.config import SAMPLES_PER_FRAME
from training.encoder import MelAutoencoder, codec_config
from training.head import trainable_codec
from training.machine import Machine
from training.phases import CROP, CROPS, MOST_OFF, RATES, PhaseReadouts, PhaseTraining, Pulsed, cycles_within, is_voiced, own_counts
from training.pulses import FEWEST, MAX_PULSES, cycles
from training.recipe import Recipe

COUNTS = st.lists(st.integers(FEWEST, MAX_PULSES), min_size=2, max_size=8).map(np.array)


@given(COUNTS)
def test_phases_within_frames_are_those_of_the_pulses(counts):
    """A whole number of cycles apart: a frame begins with a pulse."""
    last, now = torch.from_numpy(counts[:-1])[None], torch.from_numpy(counts[1:])[None]
    within = cycles_within(last, now, SAMPLES_PER_FRAME)[0].numpy()
    before, after = (cycles(counts)[SAMPLES_PER_FRAME + k : len(counts) * SAMPLES_PER_FRAME + k] for k in (0, 1))
    middle = (before[:-1] + after[: len(before) - 1]) / 2
    off = np.abs((within[: len(middle)] - middle + 0.5) % 1 - 0.5)
    assert off.max() < 1e-3


def test_a_frame_is_voiced_where_its_sound_is_of_its_pulses():
    counts = np.array([5, 5, 9, 9, 4, 4])
    wave = sum(np.cos(2 * np.pi * h * cycles(counts)) / h for h in range(1, 6)) * 3000
    wave[2 * SAMPLES_PER_FRAME : 3 * SAMPLES_PER_FRAME] = 0
    noise = np.random.default_rng(0).normal(0, 3000, SAMPLES_PER_FRAME)
    wave[4 * SAMPLES_PER_FRAME : 5 * SAMPLES_PER_FRAME] = noise
    found = is_voiced(torch.from_numpy(wave.astype(np.int16)).view(-1, SAMPLES_PER_FRAME), torch.from_numpy(counts))
    assert found.tolist() == [True, True, False, True, False, True]


@given(st.floats(0, 30), st.integers(0, 10_000))
def test_its_own_numbers_are_near_the_pitch(expected, seed):
    logits = 10 * torch.randn(MAX_PULSES + 1, generator=torch.Generator().manual_seed(seed))
    found = int(own_counts(logits, torch.tensor(expected)))
    assert FEWEST <= found <= MAX_PULSES
    allowed = [n for n in range(FEWEST, MAX_PULSES + 1) if abs(n - expected) <= MOST_OFF]
    assert not allowed or found in allowed


def test_of_these_it_takes_the_likeliest():
    logits = torch.zeros(3, MAX_PULSES + 1)
    logits[0, 6] = logits[1, 4] = 5
    logits[2, 9] = 50
    assert own_counts(logits, torch.tensor([5.4, 4.6, 5.2])).tolist() == [6, 4, 5]


def test_a_number_that_the_pitch_is_sure_of_stays():
    """A voice at 6 pulses a frame is not moved to 5 or 7, however sure of these the readout is."""
    logits = torch.zeros(1, MAX_PULSES + 1)
    logits[0, [5, 7]] = 50
    assert own_counts(logits, torch.tensor([6.2])).tolist() == [6]


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    torch.manual_seed(0)
    recipe = Recipe.smoke(tmp_path_factory.mktemp("phases"))
    encoder = MelAutoencoder(codec_config(recipe.encoder, recipe.head), recipe.encoder.pre_bound_scale)
    torch.save({"model": encoder.state_dict(), "steps": 0}, recipe.folder / "encoder.pt")
    codec, _ = trainable_codec(recipe)
    return PhaseTraining(codec, recipe.head, Machine(step_seconds=0.1))


def pulsed(frames, low, high):
    """Codes that say nothing but the number of pulses, and sound of these."""
    counts = np.repeat(np.random.default_rng(0).integers(low, high + 1, frames // 20), 20)
    wave = sum(np.cos(2 * np.pi * h * cycles(counts)) for h in range(1, 6)) * 2000
    wave, counts = torch.from_numpy(wave.astype(np.int16)).view(-1, SAMPLES_PER_FRAME), torch.from_numpy(counts)
    return Pulsed(counts[:, None].repeat(1, 8) * 37, wave, counts, is_voiced(wave, counts))


def test_readouts_learn_a_number_and_a_phase(training):
    teacher, others = pulsed(400, 8, 10), pulsed(400, 3, 6)
    assert others.voiced.float().mean() > 0.9
    torch.manual_seed(0)
    _, before = training._loss(teacher, others)
    training.run(teacher, others, 12.0)
    _, after = training._loss(teacher, others)
    assert after.shape == (6,)
    assert after[0] < 0.93 < before[0]  # 1 is to know nothing
    true = others.counts[:200].numpy()
    named = training.counts(others.codes[:200], true + 0.5)  # so that this number and the next are as near
    assert set(named - true) <= {0, 1}
    assert (named == true).mean() > 0.7


def test_outputs_are_of_the_frames_that_are_drawn(training):
    speech = pulsed(400, 3, 6)
    codes, frames = speech.drawn(CROPS, CROP, training.r)
    assert frames.shape == (CROPS, CROP)
    assert codes.shape == (CROPS, training.r.context + CROP, 8)
    first, second = training._outputs(training.codec, training.fsq, codes)
    assert (first.shape[2], second.shape[2]) == tuple(CROP * rate for rate in RATES)
    assert PhaseReadouts.of(training.r.channels).counts(first).shape == (CROPS, CROP, MAX_PULSES + 1)

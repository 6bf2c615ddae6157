"""The median pitch of sounds whose pitch is known."""

import numpy as np
import pytest

from inference.model.config import SAMPLE_RATE
from training.pitch import median_pitch

TIME = np.arange(SAMPLE_RATE) / SAMPLE_RATE


def pulses(hertz):
    """A second of a voice: pulses through one resonance at 700 Hz."""
    wave = np.zeros(SAMPLE_RATE)
    wave[(np.arange(int(hertz)) * SAMPLE_RATE / hertz).astype(int)] = 1
    return np.convolve(wave, np.exp(-TIME[:800] * 400) * np.sin(2 * np.pi * 700 * TIME[:800]))[:SAMPLE_RATE].astype(np.float32)


@pytest.mark.parametrize("hertz", [70, 110, 180, 240, 350])
def test_pulses_have_their_rate(hertz):
    assert median_pitch(pulses(hertz)) == pytest.approx(hertz, rel=0.03)


@pytest.mark.parametrize("hertz", [80, 150, 200, 300])
def test_a_tone_has_its_frequency(hertz):
    assert median_pitch(np.sin(2 * np.pi * hertz * TIME).astype(np.float32)) == pytest.approx(hertz, rel=0.03)


@pytest.mark.parametrize("rate", [16_000, 24_000])
def test_it_hears_other_rates(rate):
    time = np.arange(rate) / rate
    assert median_pitch(np.sin(2 * np.pi * 150 * time).astype(np.float32), rate) == pytest.approx(150, rel=0.03)


@pytest.mark.parametrize("wave", [np.sin(2 * np.pi * 20 * TIME), TIME], ids=["rumble", "drift"])
def test_what_is_too_slow_for_a_voice_has_none(wave):
    assert median_pitch(wave.astype(np.float32)) == 0


def test_silence_beside_a_voice_does_not_count():
    assert median_pitch(np.concatenate((np.zeros(3 * SAMPLE_RATE, np.float32), pulses(150)))) == pytest.approx(150, rel=0.03)


@pytest.mark.parametrize("samples", [0, 1, 100, SAMPLE_RATE])
def test_silence_and_noise_have_none(samples):
    assert median_pitch(np.zeros(samples, np.float32)) == 0
    assert median_pitch(np.random.default_rng(0).normal(size=samples).astype(np.float32)) == 0

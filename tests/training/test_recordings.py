"""What a clip is like when people have recorded it."""

import math

import pytest
import torch

from inference.model.codec import HOP, LogMel
from inference.model.config import SAMPLE_RATE
from training.recordings import FLOOR, Recording, recorded
from training.shards import HOPS_PER_FRAME
from training.speech import Utterance

BINS, HOPS = 160, 400
PLAIN = Recording(pace=1, echo=0, decay=0.3, curve=torch.zeros(BINS), noise=torch.full((BINS,), -50.0))


def generator():
    return torch.Generator().manual_seed(1)


@pytest.fixture(scope="module")
def mel():
    """A second of two tones between silence, (BINS, HOPS)."""
    time = torch.arange(HOPS * HOP) / SAMPLE_RATE
    tones = 0.1 * torch.sin(2 * math.pi * 200 * time) + 0.05 * torch.sin(2 * math.pi * 3_000 * time)
    return LogMel(BINS)((tones * ((time > 1) & (time < 2)))[None])[0]


def test_a_recording_of_nothing_changes_nothing(mel):
    assert torch.allclose(PLAIN.of(mel, generator()), mel, atol=1e-3)


@pytest.mark.parametrize("pace", [0.8, 0.9, 1.25])
def test_pace_changes_the_length_and_not_what_is_heard(mel, pace):
    heard = Recording(pace, 0, 0.3, PLAIN.curve, PLAIN.noise).of(mel, generator())
    assert heard.shape == (BINS, HOPS_PER_FRAME * round(HOPS / pace / HOPS_PER_FRAME))
    assert heard[:, int(HOPS / pace * 0.43)].argmax() == mel[:, int(HOPS * 0.43)].argmax()


def test_an_echo_falls_by_60_decibels_in_its_time(mel):
    decay = 0.5
    heard = Recording(1, 1, decay, PLAIN.curve, PLAIN.noise).of(mel, generator())
    loudest, end = int(mel.max(1).values.argmax()), int(2.05 * SAMPLE_RATE / HOP)
    hops = int(decay / 2 * SAMPLE_RATE / HOP)
    fallen = 20 / math.log(10) * float(heard[loudest, end] - heard[loudest, end + hops])
    assert fallen == pytest.approx(60 * hops * HOP / SAMPLE_RATE / decay, abs=0.5)


def test_a_microphone_adds_its_curve_and_noise_fills_the_silence(mel):
    curve, noise = torch.linspace(-1, 1, BINS), torch.full((BINS,), -3.0)
    loud, silent = int(1.5 * SAMPLE_RATE / HOP), 5
    heard = Recording(1, 0, 0.3, curve, PLAIN.noise).of(mel, generator())
    assert torch.allclose(heard[:, loud], mel[:, loud] + curve, atol=1e-2)
    heard = Recording(1, 0, 0.3, PLAIN.curve, noise).of(mel, generator())
    level = 0.5 * float((2 * mel[:, loud - 20 : loud + 20]).exp().mean().log())
    assert float(heard[:, silent].mean()) == pytest.approx(level - 3, abs=0.5)


def test_a_speaker_always_has_the_same_microphone(mel):
    said = Utterance("Hello.", None, mel.half(), torch.zeros(HOPS, dtype=torch.uint8), torch.zeros(HOPS))
    once, again, other, elsewhere = (recorded(said, speaker, seed) for speaker, seed in ((1, 1), (1, 1), (1, 2), (2, 1)))
    assert torch.equal(once.mel, again.mel)
    assert once.mel.shape == other.mel.shape != elsewhere.mel.shape
    loud = [one.mel[:, int(0.45 * one.mel.shape[1]) : int(0.55 * one.mel.shape[1])].float().mean(1) for one in (once, other, elsewhere)]
    same, different = ((loud[0] - one).abs().mean() for one in loud[1:])
    assert same < 0.1
    assert different > 0.3
    assert not torch.equal(once.mel, other.mel)
    for heard in (once, other, elsewhere):
        assert heard.mel.dtype == torch.float16
        assert heard.mel.isfinite().all()
        assert float(heard.mel.min()) >= math.log(FLOOR) - 0.01
        assert heard.mel.shape[1] % HOPS_PER_FRAME == 0
        assert len(heard.bytes) == len(heard.phonemes) == heard.mel.shape[1]

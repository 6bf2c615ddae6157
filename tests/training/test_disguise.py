"""Other speakers, made of the teacher."""

import numpy as np
import pytest
import torch

from inference.model.config import SAMPLES_PER_FRAME
from training.disguise import LOUDNESS, Disguised, Speaker, by_pitch, disguised, speaker
from training.pulses import FEWEST
from training.speech import HOP, Sentence, Teacher

TEXT = "We will walk to the station in the morning, and my brother will buy a new guitar."
ITSELF = Speaker(1, 1, 0, 0, 0, 0.05)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return Disguised(tmp_path_factory.mktemp("disguise"))


@pytest.fixture(scope="module")
def sentence(tmp_path_factory):
    return Teacher(tmp_path_factory.mktemp("teacher")).sentences(TEXT)[0]


def test_the_teacher_disguised_as_itself_is_the_teacher(sentence):
    same = disguised(sentence, ITSELF)
    assert all(np.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in zip(same.spectra, sentence.spectra, strict=True))
    assert not ITSELF.readout.any()


def period(wave):
    """Samples between two pulses: the median over loud pieces of 46 ms of the lag at which a piece is most like itself."""
    pieces = wave[: len(wave) // 2048 * 2048].reshape(-1, 2048)
    spectra = np.abs(np.fft.rfft(pieces[pieces.std(1) > wave.std()], 4096, axis=1)) ** 2
    return np.median(np.fft.irfft(spectra, axis=1)[:, 120:600].argmax(1)) + 120


def sound_of(teacher, who):
    """What `who` says, in [-1, 1], with pulses by its pitch."""
    said = teacher.speak(TEXT, who, seed=1)
    codes = torch.zeros(said.mel.shape[1] * HOP // SAMPLES_PER_FRAME, 8, dtype=torch.int16)
    made = teacher.aligned(TEXT, who, seed=1, codes=codes, counts=by_pitch)
    assert len(made.wave) == SAMPLES_PER_FRAME * len(codes) == SAMPLES_PER_FRAME * len(made.counts)
    return said, made.wave.numpy() / 32768, made.counts.numpy()


@pytest.mark.parametrize("times", [0.8, 1.25])
def test_the_pitch_moves_and_words_keep_their_time(teacher, times):
    (as_is, wave, _), (moved, other, _) = (sound_of(teacher, Speaker(p, 1, 0, 0, 0, 0.05)) for p in (1, times))
    assert moved.mel.shape[1] == pytest.approx(as_is.mel.shape[1], abs=4)
    assert period(wave) / period(other) == pytest.approx(times, rel=0.1)


def test_formants_move_by_the_factor(sentence):
    hill = np.exp(-(((np.arange(601) - 200) / 20) ** 2))[:, None] * np.ones(len(sentence.phonemes), np.float32)
    moved = disguised(
        Sentence([hill.astype(np.float32), *sentence.spectra[1:]], sentence.phonemes, sentence.characters), Speaker(1, 0.8, 0, 0, 0, 0.05)
    )
    assert moved.spectra[0][:, 0].argmax() == pytest.approx(160, abs=1)


def test_a_flat_voice_has_one_pitch(sentence):
    pitch = disguised(sentence, Speaker(1, 1, 0, -1, 0, 0.05)).spectra[-1]
    voiced = pitch[sentence.spectra[-1] > 40]
    assert np.ptp(voiced) < 1e-3 * voiced.mean()


@pytest.mark.parametrize("times", [0.5, 0.7])
def test_a_code_frame_has_as_many_pulses_as_its_number_says(teacher, times):
    _, wave, counts = sound_of(teacher, Speaker(times, 1, 0, -1, 0, 0.05))
    assert SAMPLES_PER_FRAME / period(wave) == pytest.approx(np.median(counts[counts > FEWEST]), abs=0.05)


def test_an_utterance_is_as_loud_as_its_speaker_and_fits_the_mel(teacher):
    for number in range(3):
        who = speaker(number)
        said, wave, _ = sound_of(teacher, who)
        assert 0.6 * who.loudness < wave.std() < 1.5 * who.loudness
        assert LOUDNESS[0] < who.loudness < LOUDNESS[1]
        assert said.wave is None
        assert len(said.bytes) == len(said.phonemes) == said.mel.shape[1]
    assert teacher.speak("", ITSELF, seed=0) is None


def test_speakers_are_always_the_same_and_half_of_them_low():
    assert speaker(5) == speaker(5) != speaker(6)
    low = [speaker(n).pitch < 0.73 for n in range(400)]
    assert 0.4 < np.mean(low) < 0.6

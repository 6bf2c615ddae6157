"""Other speakers, made of the teacher."""

import numpy as np
import pytest

from training.disguise import LOUDNESS, Disguised, Speaker, disguised, speaker
from training.speech import HOP, Sentence, Teacher

TEXT = "We will walk to the station in the morning, and my brother will buy a new guitar."
ITSELF = Speaker(1, 1, 0, 0, 0)


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


@pytest.mark.parametrize("times", [0.8, 1.25])
def test_the_pitch_moves_and_words_keep_their_time(teacher, times):
    as_is, moved = (teacher.speak(TEXT, Speaker(p, 1, 0, 0, 0), seed=1, keep_wave=True) for p in (1, times))
    assert moved.mel.shape[1] == pytest.approx(as_is.mel.shape[1], abs=4)
    assert period(as_is.wave.numpy() / 32768) / period(moved.wave.numpy() / 32768) == pytest.approx(times, rel=0.1)


def test_formants_move_by_the_factor(sentence):
    hill = np.exp(-(((np.arange(601) - 200) / 20) ** 2))[:, None] * np.ones(len(sentence.phonemes), np.float32)
    moved = disguised(
        Sentence([hill.astype(np.float32), *sentence.spectra[1:]], sentence.phonemes, sentence.characters), Speaker(1, 0.8, 0, 0, 0)
    )
    assert moved.spectra[0][:, 0].argmax() == pytest.approx(160, abs=1)


def test_a_flat_voice_has_one_pitch(sentence):
    pitch = disguised(sentence, Speaker(1, 1, 0, -1, 0)).spectra[-1]
    voiced = pitch[sentence.spectra[-1] > 40]
    assert np.ptp(voiced) < 1e-3 * voiced.mean()


def test_an_utterance_is_as_loud_as_any_and_fits_the_mel(teacher):
    for number in range(3):
        said = teacher.speak(TEXT, speaker(number), seed=number, keep_wave=True)
        wave = said.wave.numpy() / 32768
        assert 0.6 * LOUDNESS < wave.std() < 1.5 * LOUDNESS
        assert said.mel.shape[1] * HOP == len(wave)
        assert len(said.bytes) == len(said.phonemes) == said.mel.shape[1]
    assert teacher.speak("", ITSELF, seed=0, keep_wave=False) is None


def test_speakers_are_always_the_same_and_half_of_them_low():
    assert speaker(5) == speaker(5) != speaker(6)
    low = [speaker(n).pitch < 0.73 for n in range(400)]
    assert 0.4 < np.mean(low) < 0.6

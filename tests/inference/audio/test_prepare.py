import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference import AudioError
from inference.audio.prepare import LONGEST, SHORTEST, prepare

RATE = 44_100


def tone(seconds, level=0.1):
    return (level * np.sin(np.arange(int(seconds * RATE)) * 0.05)).astype(np.float32)


def quiet(seconds):
    return np.zeros(int(seconds * RATE), np.float32)


def test_silence_around_it_goes_but_a_breath():
    clip = prepare(np.concatenate((quiet(2), tone(2), quiet(0.5), tone(1), quiet(3))))
    assert len(clip) / RATE == pytest.approx(3.5 + 2 * 0.1, abs=0.02)


def test_a_little_speech_is_found_in_a_long_silence_with_clicks():
    noise = 1e-4 * np.random.default_rng(0).standard_normal(60 * RATE).astype(np.float32)
    noise[20 * RATE : 22 * RATE] += tone(2, 0.05)
    noise[[21 * RATE, 21 * RATE + 9000]] = 1.0
    assert len(prepare(noise)) / RATE == pytest.approx(2.2, abs=0.02)


@pytest.mark.parametrize("level", [0.003, 0.1, 0.9])
def test_every_clip_is_as_loud(level):
    clip = prepare(np.concatenate((tone(2, level), quiet(1))))
    assert 20 * np.log10(np.sqrt(np.mean(clip[: 2 * RATE] ** 2))) == pytest.approx(-23, abs=0.2)


def test_pauses_and_a_room_s_noise_do_not_make_it_louder():
    noise = 0.001 * np.random.default_rng(0).standard_normal(10 * RATE).astype(np.float32)
    noise[: 2 * RATE] += tone(2)
    clip = prepare(noise)
    assert 20 * np.log10(np.sqrt(np.mean(clip[: 2 * RATE] ** 2))) == pytest.approx(-23, abs=0.5)


def test_what_was_prepared_stays_as_it_is():
    once = prepare(np.concatenate((quiet(2), tone(0.8), quiet(0.5))))
    np.testing.assert_allclose(prepare(once), once, atol=1e-6)


def test_peaks_are_never_cut():
    clicks = 0.001 * np.ones(2 * RATE, np.float32)
    clicks[::4410] = 0.5
    assert np.abs(prepare(clicks)).max() <= 0.99


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (quiet(3), "silent: the loudest half second of its 3.0 s reaches -120 dB"),
        (quiet(0), "silent"),
        (tone(0.5), "lasts 0.5 s without the silence"),
        (tone(91), "lasts 91.0 s"),
    ],
)  # fmt: skip
def test_what_cannot_be_imitated_is_refused_with_the_figures(samples, words):
    with pytest.raises(AudioError, match=words):
        prepare(samples)


@given(st.floats(0, 3), st.floats(0, 3), st.floats(0, 1), st.floats(1e-6, 1))
def test_any_clip_is_made_fit_or_refused(before, loud, after, level):
    samples = np.concatenate((quiet(before), tone(loud, level), quiet(after)))
    try:
        clip = prepare(samples)
    except AudioError:
        return
    assert clip.dtype == np.float32
    assert np.isfinite(clip).all()
    assert SHORTEST <= len(clip) / RATE <= LONGEST
    assert np.abs(clip).max() <= 0.99 + 1e-6

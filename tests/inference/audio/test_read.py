import io

import numpy as np
import pytest
import soundfile

from inference import AudioError
from inference.audio.read import read_clip, resample
from tests.conftest import golden_tensors

RESAMPLE = golden_tensors("mel/resample.safetensors")


def tone(rate, seconds=0.5, channels=1):
    t = np.arange(int(rate * seconds)) / rate
    return np.repeat(0.3 * np.sin(2 * np.pi * 440 * t)[:, None], channels, axis=1).astype(np.float32)


def file(samples, rate, **kind):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, **kind)
    return buffer.getvalue()


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_rate_and_channels_become_mono_at_44100(rate, channels):
    clip = read_clip(file(tone(rate, channels=channels), rate, format="WAV", subtype="FLOAT"))
    assert clip.dtype == np.float32
    assert abs(len(clip) - 22_050) <= 1
    np.testing.assert_allclose(clip[2000:20_000], tone(44_100)[2000:20_000, 0], atol=2e-3)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_common_formats_are_read(kind, tmp_path):
    path = tmp_path / "clip"
    path.write_bytes(file(tone(44_100), 44_100, format=kind))
    assert abs(len(read_clip(path)) - 22_050) < 3000  # MP3 pads


@pytest.mark.parametrize("rate", [16000, 24000, 48000])
def test_resampling_comes_close_to_the_reference(rate):
    """soxr is another filter than torchaudio's: below the reference's roll-off they agree to a few thousandths."""
    ours = resample(RESAMPLE[f"{rate}.in"].numpy(), rate, 44_100)
    theirs = RESAMPLE[f"{rate}.out44100"].numpy()
    assert abs(len(ours) - len(theirs)) <= 1
    n = min(len(ours), len(theirs))
    difference = (ours[:n] - theirs[:n])[300 : n - 300]
    assert np.sqrt(np.mean(difference**2)) < 0.1 * np.sqrt(np.mean(theirs**2))


def test_a_clip_of_ten_minutes_and_more_is_refused():
    with pytest.raises(AudioError, match="lasts 601 s"):
        read_clip(file(np.zeros(601 * 8000, np.float32), 8000, format="WAV"))


@pytest.mark.parametrize("content", [b"", b"hello, I am text", b"RIFF\x00\x00\x00\x00WAVE", bytes(1000)], ids=repr)
def test_what_is_not_audio_is_refused(content):
    with pytest.raises(AudioError):
        read_clip(content)


def test_a_clip_without_sound_or_with_nan_is_refused():
    with pytest.raises(AudioError, match="0 samples"):
        read_clip(file(np.zeros(0, np.float32), 44_100, format="WAV"))
    with pytest.raises(AudioError, match="not numbers"):
        read_clip(file(np.full(1000, np.nan, np.float32), 44_100, format="WAV", subtype="FLOAT"))


def test_a_clip_that_is_not_there_or_is_a_directory(tmp_path):
    with pytest.raises(AudioError, match="does not exist|not audio"):
        read_clip(tmp_path / "nothing.wav")
    with pytest.raises(AudioError):
        read_clip(tmp_path)

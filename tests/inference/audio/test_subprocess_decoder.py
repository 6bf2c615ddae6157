import io

import numpy as np
import pytest
import soundfile

from inference import AudioError
from inference.audio.prepare import prepare
from inference.audio.read import read_clip
from inference.audio.subprocess_decoder import decode_in_subprocess

SOUND = (0.3 * np.sin(np.arange(2 * 44_100) * 0.05)).astype(np.float32)


def wav(samples):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 44_100, format="WAV")
    return buffer.getvalue()


def test_it_is_read_as_in_this_process(tmp_path):
    np.testing.assert_array_equal(decode_in_subprocess(wav(SOUND), fit=False), read_clip(wav(SOUND)))
    np.testing.assert_array_equal(decode_in_subprocess(wav(SOUND)), prepare(read_clip(wav(SOUND))))
    (tmp_path / "clip.wav").write_bytes(wav(SOUND))
    np.testing.assert_array_equal(decode_in_subprocess(tmp_path / "clip.wav"), decode_in_subprocess(wav(SOUND)))


@pytest.mark.parametrize(
    ("content", "words"), [(b"nonsense", "the clip is not audio that can be read here"), (wav(SOUND * 0), "silent"), (b"", "not audio")]
)
def test_a_refusal_comes_back_in_words(content, words):
    with pytest.raises(AudioError, match=words):
        decode_in_subprocess(content)


def test_a_file_is_named(tmp_path):
    with pytest.raises(AudioError, match=r"nothing\.wav does not exist"):
        decode_in_subprocess(tmp_path / "nothing.wav")


def test_what_breaks_the_decoder_is_refused():
    """A channel order of its own, which PyAV 17.1 to 18.1 frees twice. Where that is mended it is read."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.repeat(SOUND[:, None], 8, axis=1), 44_100, format="CAF")
    content = bytearray(buffer.getvalue())
    order = b"".join(n.to_bytes(4, "big") + bytes(16) for n in (4, 3, 2, 1, 5, 6, 10, 11))
    chunk = b"chan" + (12 + len(order)).to_bytes(8, "big") + bytes(8) + (8).to_bytes(4, "big") + order
    start = content.index(b"data")
    try:
        assert len(decode_in_subprocess(bytes(content[:start] + chunk + content[start:]))) > 0
    except AudioError as e:
        assert "broke its decoder" in str(e)


def test_what_takes_too_long_is_given_up(monkeypatch):
    monkeypatch.setattr("inference.audio.subprocess_decoder.SECONDS", 0.01)
    with pytest.raises(AudioError, match="not be decoded within"):
        decode_in_subprocess(wav(SOUND))

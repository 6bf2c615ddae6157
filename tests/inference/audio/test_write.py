import io
import struct

import numpy as np
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from inference.audio.write import pcm16, wav, wav_header

samples = st.lists(st.floats(-1, 1, width=32), max_size=50).map(lambda x: np.array(x, np.float32))


@given(samples)
def test_a_wav_reads_back(x):
    data, rate = soundfile.read(io.BytesIO(wav(x, 44_100)), dtype="float32")
    assert rate == 44_100
    np.testing.assert_allclose(data, x, atol=1 / 32768)


def test_full_scale_does_not_wrap():
    assert np.frombuffer(pcm16(np.array([1.0, -1.0, 1.5], np.float32)), "<i2").tolist() == [32767, -32768, 32767]


def test_sizes_are_true_when_known_and_all_ones_when_not():
    whole, streamed = wav_header(44_100, 100), wav_header(44_100)
    assert len(whole) == len(streamed) == 44
    assert struct.unpack_from("<I", whole, 4) == (136,)
    assert struct.unpack_from("<I", whole, 40) == (100,)
    assert struct.unpack_from("<I", streamed, 4) == struct.unpack_from("<I", streamed, 40) == (0xFFFFFFFF,)

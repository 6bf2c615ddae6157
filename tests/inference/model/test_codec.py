import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference import AudioError
from inference.model.codec import DECODE_FRAMES, EVEN_FRAMES, CodecStream, History, LogMel, check_codes, decode_streams, mel_filters
from tests.conftest import GOLDEN, golden_json, golden_tensors

EXPECTED = golden_tensors("codec_tiny/expected.safetensors")
MEL = golden_tensors("mel/mel.safetensors")
WAVES = [w["wave"] for w in golden_json("codec_tiny/expected.json") if "wave" in w]


def wave(path):
    return torch.from_numpy(soundfile.read(path, dtype="float32")[0])[None]


@pytest.mark.parametrize("i", range(3))
def test_mel_of_the_real_size_equals_the_reference(i):
    path = next((GOLDEN / "mel").glob(f"mel{i}_*.wav"))
    mel = LogMel(160)(wave(path))[0]
    torch.testing.assert_close(mel, MEL[f"{i}.mel"], atol=2e-3, rtol=0)  # near silence the logarithm amplifies rounding
    assert (mel - MEL[f"{i}.mel"]).abs().median() < 5e-5


def test_filters_and_window_equal_the_reference():
    torch.testing.assert_close(mel_filters(160), MEL["filterbank"].float(), atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(LogMel(160).window, MEL["window"], atol=1e-6, rtol=0)


@pytest.mark.parametrize(("i", "name"), list(enumerate(WAVES)))
def test_encoding_equals_the_reference(golden, i, name):
    codec, x = golden.codec, wave(GOLDEN / "codec_tiny" / name)
    mel = codec.spec_transform(x)
    torch.testing.assert_close(mel[0], EXPECTED[f"{i}.mel"], atol=2e-3, rtol=0)
    features = codec.backbone(mel)
    if f"{i}.backbone" in EXPECTED:
        torch.testing.assert_close(features[0], EXPECTED[f"{i}.backbone"], atol=1e-4, rtol=0)
    torch.testing.assert_close(codec.quantizer.reduce(features)[0], EXPECTED[f"{i}.latent"], atol=1e-4, rtol=0)
    codes = codec.encode(x)[0]
    stable = EXPECTED[f"{i}.code_margin"] >= 1e-3  # nearer to a rounding boundary a code may differ
    assert torch.equal(codes[stable], EXPECTED[f"{i}.codes"][stable].long())


@pytest.mark.parametrize("i", range(3))
def test_reconstruction_equals_the_reference(golden, i):
    decoded = golden.codec.decode(EXPECTED[f"{i}.codes"].long()[None])[0]
    torch.testing.assert_close(decoded, EXPECTED[f"{i}.reconstruction"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("j", range(2))
def test_decoding_random_codes_equals_the_reference(golden, j):
    codes = EXPECTED[f"dec{j}.codes"].long()[None]
    torch.testing.assert_close(golden.codec.decode(codes)[0], EXPECTED[f"dec{j}.wave"], atol=1e-4, rtol=0)
    if f"dec{j}.z_upsampled" in EXPECTED:
        torch.testing.assert_close(golden.codec.quantizer.decode(codes, History())[0], EXPECTED[f"dec{j}.z_upsampled"], atol=1e-4, rtol=0)


@settings(max_examples=12)
@given(st.data())
def test_streams_in_any_mix_and_chunking_equal_the_whole(golden, data):
    codec = golden.codec
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    utterances = [torch.from_numpy(rng.integers(0, 1000, (8, n))) for n in data.draw(st.lists(st.integers(1, 24), min_size=1, max_size=4))]
    streams, done, heard = [codec.stream() for _ in utterances], [0] * len(utterances), [[] for _ in utterances]
    while any(d < u.shape[1] for d, u in zip(done, utterances, strict=True)):
        live = [i for i, u in enumerate(utterances) if done[i] < u.shape[1]]
        chosen = data.draw(st.lists(st.sampled_from(live), min_size=1, unique=True))
        frames = data.draw(st.integers(1, min(utterances[i].shape[1] - done[i] for i in chosen)))
        codes = torch.stack([utterances[i][:, done[i] : done[i] + frames] for i in chosen])
        for i, samples in zip(chosen, decode_streams([streams[i] for i in chosen], codes), strict=True):
            heard[i].append(samples)
            done[i] += frames
    for u, chunks in zip(utterances, heard, strict=True):
        torch.testing.assert_close(torch.cat(chunks), codec.decode(u[None])[0], atol=1e-5, rtol=0)


def test_one_stream_frame_by_frame(golden):
    codes = EXPECTED["dec1.codes"].long()
    stream: CodecStream = golden.codec.stream()
    heard = torch.cat([stream.decode(codes[:, i : i + 1]) for i in range(codes.shape[1])])
    torch.testing.assert_close(heard, EXPECTED["dec1.wave"], atol=1e-4, rtol=0)


def test_a_stream_keeps_what_it_needs_and_no_more(golden):
    stream = golden.codec.stream()
    stream.decode(torch.zeros(8, 16, dtype=torch.int64))
    kept = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in stream.past}
    assert sum(kept.values()) == sum(t.numel() * 4 for t in stream.past)
    before = [t.shape for t in stream.past]
    stream.decode(torch.zeros(8, 3, dtype=torch.int64))
    assert [t.shape for t in stream.past] == before


def test_a_long_decode_in_pieces_equals_one_at_once(golden):
    codes = torch.from_numpy(np.random.default_rng(3).integers(0, 1000, (1, 8, 70)))
    torch.testing.assert_close(golden.codec.decode(codes), golden.codec.decode_next(codes, History()), atol=1e-5, rtol=0)


@pytest.mark.parametrize("frames", [1, EVEN_FRAMES - 1, EVEN_FRAMES, EVEN_FRAMES + 1, DECODE_FRAMES + 5])
def test_a_decode_of_any_length_computes_a_few_lengths(golden, frames):
    """Each new length would cost memory for good."""
    codes, seen = torch.arange(8 * frames).view(1, 8, frames) * 37 % 1000, []
    codec = golden.codec
    hook = codec.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[-1]))
    wave = codec.decode(codes)
    hook.remove()
    torch.testing.assert_close(wave, codec.decode_next(codes, History()), atol=1e-5, rtol=0)
    assert wave.shape == (1, 2048 * frames)
    assert [length % (4 * EVEN_FRAMES) for length in seen] == [0] * len(seen)  # the head gets four features a frame


def test_too_short_a_wave_is_refused(golden):
    with pytest.raises(AudioError, match="768 samples are too few"):
        golden.codec.encode(torch.zeros(1, 768))
    assert golden.codec.encode(torch.zeros(1, 769)).shape == (1, 8, 1)


@pytest.mark.parametrize(
    "codes", [torch.zeros(7, 3, dtype=int), torch.zeros(8), torch.zeros(8, 2), torch.full((8, 2), 1000), torch.full((8, 2), -1)], ids=str
)
def test_codes_that_cannot_be_decoded_are_refused(codes):
    with pytest.raises(AudioError):
        check_codes(codes, 8)

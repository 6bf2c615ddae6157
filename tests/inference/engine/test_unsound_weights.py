"""Finite weights that are so large that what is computed from them is not: one clear error for whoever asks, and nothing for their neighbours."""

import contextlib

import numpy as np
import pytest
import torch

from inference import SpeechEngine, SpeechRequest
from inference.errors import AudioError, GenerationError
from inference.model import checkpoint as checkpoints
from inference.model import random_checkpoint
from tests.conftest import CODEC_FILE

HUGE = 3e38


@pytest.fixture
def spoilt(tmp_path):
    """Loads a tiny checkpoint of whose tensors some, by their file and how their names begin, were made huge."""

    def load(file, change):
        random_checkpoint.write(tmp_path / "tiny", "tiny", 1)
        path = tmp_path / "tiny" / file
        tensors = torch.load(path, weights_only=True)
        change(tensors)
        torch.save(tensors, path)
        return checkpoints.load(tmp_path / "tiny", torch.device("cpu"), tmp_path / "copies")

    return load


def spoil(beginning):
    def change(tensors):
        names = [name for name in tensors if name.startswith(beginning) and not name.endswith("bias")]
        assert names
        for name in names:
            tensors[name] = torch.full_like(tensors[name], HUGE)

    return change


@pytest.mark.parametrize("beginning", ["layers.", "fast_layers.", "output", "fast_output", "embeddings", "norm"])
def test_a_model_that_overflows_ends_each_request_with_one_error(spoilt, beginning):
    with SpeechEngine(spoilt("model.pth", spoil(beginning)), slots=2) as engine:
        for seed in range(3):
            with contextlib.suppress(GenerationError):  # or it is spoken after all
                assert np.isfinite(engine.synthesize(SpeechRequest("Hello there.", seed=seed, max_new_tokens=8)).samples).all()


def test_a_decoder_that_is_damaged_in_memory_ends_each_request_with_one_error(spoilt):
    """Or in the copy that a checkpoint's second start reads."""
    checkpoint = spoilt(CODEC_FILE, lambda _: None)
    with torch.no_grad():
        next(checkpoint.codec.head.parameters()).fill_(torch.nan)
    with SpeechEngine(checkpoint, slots=2) as engine:
        for seed in range(3):
            with pytest.raises(GenerationError, match="not numbers"):
                engine.synthesize(SpeechRequest("Hello there.", seed=seed, max_new_tokens=8))
        with pytest.raises(AudioError, match="not numbers"):
            engine.decode(np.zeros((8, 4), np.int64))


def test_an_encoder_that_overflows_makes_no_voice(spoilt):
    with SpeechEngine(spoilt(CODEC_FILE, spoil("backbone.")), slots=2) as engine:
        with pytest.raises(AudioError, match="not numbers"):
            engine.encode(np.sin(np.arange(44_100) * 0.1).astype(np.float32))
        assert engine.synthesize(SpeechRequest("Hello there.", seed=1, max_new_tokens=8)).samples.any()


def test_a_token_whose_embedding_is_damaged_harms_only_who_says_it(spoilt):
    checkpoint = spoilt("model.pth", lambda _: None)
    (token,) = set(checkpoint.tokenizer.encode("z"))
    with torch.no_grad():
        checkpoint.lm.embeddings.weight[token] = torch.nan
    good = SpeechRequest("Hello there.", seed=1, max_new_tokens=20)
    with SpeechEngine(checkpoint, slots=4) as engine:
        alone = engine.synthesize(good).samples
        ended = [engine.stream(SpeechRequest("zzz zzz", seed=seed, max_new_tokens=20)) for seed in range(3)]
        np.testing.assert_allclose(engine.synthesize(good).samples, alone, atol=1e-5)
        for stream in ended:
            with pytest.raises(GenerationError, match="not numbers"):
                list(stream)

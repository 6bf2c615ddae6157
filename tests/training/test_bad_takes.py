"""Bad takes are bad in the one way that they say."""

import random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from inference.hub import EMBEDDED_VOICE
from training.bad_takes import copied, disturbed, doubled, nearly_copied

TEXT = "Where did the old boat go, and when?"


@pytest.mark.parametrize("words", [1, 2, 3])
@pytest.mark.parametrize("comma", [True, False])
def test_neighbouring_words_are_said_twice(words, comma):
    for seed in range(20):
        given, said = TEXT.split(), doubled(TEXT, words, comma, random.Random(seed)).split()
        begin = next(n for n in range(len(said)) if said[:n] + said[n + words :] == given)
        first, second = (" ".join(said[n : n + words]) for n in (begin, begin + words))
        assert first == second.rstrip(",?") + "," * comma or first == second
    assert doubled("Too short.", words, comma, random.Random(0)) is None


def test_frames_of_two_words_come_twice():
    codes, starts = np.arange(8 * 60).reshape(8, 60), np.array([0, 10, 22, 40])
    again = copied(codes, starts, codes, np.random.default_rng(0))
    assert np.array_equal(again, np.concatenate((codes[:, :40], codes[:, 10:]), axis=1))
    changed = nearly_copied(codes, starts, codes, np.random.default_rng(0)) != again
    assert 0.1 < changed[:, 40:70].mean() < 0.3
    assert not changed[:, :40].any()
    assert not changed[:, 70:].any()


@pytest.mark.parametrize(("noise", "sharpness"), [(0.5, 1.0), (0.0, 0.5)])
def test_only_the_slow_models_attention_is_disturbed(tmp_path, noise, sharpness):
    (before,) = map(load_file, EMBEDDED_VOICE.glob("model*.safetensors"))
    (after,) = map(load_file, disturbed(EMBEDDED_VOICE, tmp_path / "d", noise, sharpness).glob("model*.safetensors"))
    assert before.keys() == after.keys()
    for name, weight in before.items():
        same = torch.equal(weight, after[name])
        if "wqkv" in name and name.startswith("layers."):
            assert not same
        elif not (noise and name.startswith("layers.") and ".attention." in name):
            assert same, name
    if not noise:
        assert torch.equal(after["layers.0.attention.wqkv.weight"][:192], before["layers.0.attention.wqkv.weight"][:192] / 2)

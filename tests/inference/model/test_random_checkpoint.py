import re

import torch

from inference.model import checkpoint as checkpoints
from inference.model import random_checkpoint
from inference.model.codec import Codec
from inference.model.config import DualARConfig
from inference.model.dual_ar import DualAR
from inference.model.weights import unfold_weight_norm
from tests.conftest import CODEC_FILE, GOLDEN


def test_the_same_seed_writes_the_same_weights(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        random_checkpoint.write(tmp_path / name, "tiny", seed)
    a, b, c = (torch.load(tmp_path / n / "model.pth", weights_only=True) for n in "abc")
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert not torch.equal(a["norm.weight"], c["norm.weight"])


def official(name):
    lines = (GOLDEN / f"state_dict_{name}_1.5.txt").read_text().splitlines()
    return {name: [int(n) for n in re.findall(r"\d+", shape)] for name, shape in (line.split("\t") for line in lines)}


def test_the_full_shape_has_the_released_tensors():
    ranks, fields, codec = random_checkpoint.SHAPES["full"]
    config = DualARConfig.from_dict({"tie_word_embeddings": False, "codebook_size": 1024, "num_codebooks": 8} | fields)
    with torch.device("meta"):
        model = DualAR(config, ranks + 12)
    assert {n: list(t.shape) for n, t in model.state_dict().items()} == official("lm")
    released = unfold_weight_norm(Codec(codec).state_dict())
    assert {n: list(t.shape) for n, t in released.items()} == official("codec")


def test_the_codec_file_has_the_official_form(tmp_path):
    random_checkpoint.write(tmp_path, "tiny", 0)
    tensors = torch.load(tmp_path / CODEC_FILE, weights_only=True)
    assert tensors["head.ups.0.conv.parametrizations.weight.original0"].shape == (64, 1, 1)
    assert "head.ups.0.conv.weight" not in tensors


def test_the_noise_is_neither_silent_nor_clipped(tmp_path):
    random_checkpoint.write(tmp_path, "tiny", 0)
    loaded = checkpoints.load(tmp_path, torch.device("cpu"), tmp_path / "copies")
    wave = loaded.codec.decode(torch.randint(0, 1000, (1, 8, 20), generator=torch.Generator().manual_seed(0)))
    assert 0.01 < wave.std() < 0.5
    assert wave.abs().max() < 0.99

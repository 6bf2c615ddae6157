"""Writes checkpoints with random weights in the official file format, for tests and benchmarks. They speak noise."""

from __future__ import annotations

import base64
import json
import math
from dataclasses import asdict
from itertools import islice, product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inference.errors import CheckpointError
from inference.model.card import read_card
from inference.model.codec import Codec
from inference.model.config import SEMANTIC_TOKENS, CodecConfig, DualARConfig
from inference.model.dual_ar import DualAR
from inference.model.layout import CODEC_NAME
from inference.model.tokenizer import SPECIAL_TOKENS
from inference.model.weights import unfold_weight_norm

END_GAIN = {"tiny": 2.0, "full": 1.35}
"""Scale of the end token's output row relative to the others, for each shape: a sentence's noise then ends after one or a few seconds."""

_CARD = """---
license: apache-2.0
tags: [random-weights]
---
Random weights of the shape {shape!r}, seed {seed}, in FishSpeech 1.5's file format. They speak noise.
"""

_HEAD: dict[str, Any] = {
    "conv_pre_kernel": 13,
    "conv_post_kernel": 13,
    "upsample_kernels": (16, 16, 4, 4, 4),
    "resblock_kernels": (3, 7, 11),
    "units_per_resblock": 3,
}
_ENCODER: dict[str, Any] = {"n_mels": 160, "kernel_size": 7, "groups": 8, "downsample_factors": (2, 2)}

SHAPES: dict[str, tuple[int, dict[str, Any], CodecConfig]] = {
    "tiny": (
        512,
        {
            "dim": 64, "n_layer": 2, "n_head": 4, "n_local_heads": 2, "intermediate_size": 160, "n_fast_layer": 1,
            "max_seq_len": 4096, "vocab_size": 512 + len(SPECIAL_TOKENS) + SEMANTIC_TOKENS,
        },
        CodecConfig(depths=(1, 1, 2, 1), dims=(16, 24, 32, 48), head_channels=64, **_ENCODER, **_HEAD),
    ),
    "full": (
        100_000,
        {
            "dim": 1024, "n_layer": 24, "n_head": 16, "n_local_heads": 2, "intermediate_size": 4096, "n_fast_layer": 4,
            "max_seq_len": 8192, "vocab_size": 102_048,
        },
        CodecConfig(depths=(3, 3, 9, 3), dims=(128, 256, 384, 512), head_channels=512, **_ENCODER, **_HEAD),
    ),
}  # fmt: skip
"""Tokenizer ranks, language model fields and codec of each shape; "full" is FishSpeech 1.5's own."""


def config_of(shape: str, **changes: Any) -> DualARConfig:
    """The language model's configuration of a shape. `changes` replace its fields."""
    same = {"rope_base": 1e6, "norm_eps": 1e-6, "tie_word_embeddings": False, "codebook_size": 1024, "num_codebooks": 8}
    return DualARConfig.from_dict(same | SHAPES[shape][1] | changes)


def write(directory: Path, shape: str, seed: int, **changes: Any) -> None:
    """Write config.json, model.pth (BF16), tokenizer.tiktoken, special_tokens.json and the codec's .pth (FP32).

    `changes` replace fields of the language model's configuration; `num_codebooks` also sets the codec's groups.
    Raises CheckpointError rather than overwrite weights that are not random.
    """
    if (directory / "config.json").exists() and not read_card(directory).random:
        raise CheckpointError(f"{directory} holds a checkpoint that is not random; name another directory")
    ranks, _, codec = SHAPES[shape]
    config = config_of(shape, **changes)
    codec = CodecConfig(**(asdict(codec) | {"groups": config.num_codebooks}))
    directory.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    (directory / "config.json").write_text(json.dumps({"model_type": "dual_ar", **asdict(config)}, indent=1) + "\n")
    (directory / "README.md").write_text(_CARD.format(shape=shape, seed=seed))
    _write_tokenizer(directory, ranks)
    torch.save(_language_model(config, ranks, END_GAIN[shape], generator), directory / "model.pth")
    torch.save(_codec(codec, generator), directory / f"{CODEC_NAME}.pth")


def _write_tokenizer(directory: Path, ranks: int) -> None:
    """All single bytes, then byte pairs and triples until there are `ranks` tokens."""
    tokens = (bytes(t) for n in (1, 2, 3) for t in product(range(256), repeat=n))
    lines = (f"{base64.b64encode(t).decode()} {i}\n" for i, t in enumerate(islice(tokens, ranks)))
    (directory / "tokenizer.tiktoken").write_text("".join(lines))
    names = [*SPECIAL_TOKENS, *(f"semantic:{i}" for i in range(SEMANTIC_TOKENS))]
    specials = {f"<|{name}|>": ranks + i for i, name in enumerate(names)}
    (directory / "special_tokens.json").write_text(json.dumps(specials, indent=1) + "\n")


def _language_model(config: DualARConfig, ranks: int, end_gain: float, generator: torch.Generator) -> dict[str, Tensor]:
    model = DualAR.without_values(config, ranks + len(SPECIAL_TOKENS))
    tensors = {name: _random(name, p.shape, generator).to(torch.bfloat16) for name, p in model.named_parameters()}
    tensors["embeddings.weight" if config.tie_word_embeddings else "output.weight"][ranks + SPECIAL_TOKENS.index("im_end")] *= end_gain
    return tensors


def _random(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    z = torch.empty(shape).normal_(generator=generator)
    if name.endswith("norm.weight"):
        return 1 + 0.1 * z
    if name.endswith("bias"):
        return 0.1 * z
    if "embeddings" in name:
        return 0.5 * z
    return z * (2.5 if "output" in name else 1.0) / math.sqrt(shape[1])


def _codec(config: CodecConfig, generator: torch.Generator) -> dict[str, Tensor]:
    codec = Codec(config)
    with torch.no_grad():
        for name, p in codec.named_parameters():
            z = torch.empty(p.shape).normal_(generator=generator)
            p.copy_(_codec_weight(name, z, codec.get_submodule(name.rpartition(".")[0])))
    return unfold_weight_norm(codec.state_dict())


def _codec_weight(name: str, z: Tensor, module: nn.Module) -> Tensor:
    """Gains that keep the signal's size through the layers, so that the noise is neither silent nor clipped."""
    if name.endswith("gamma"):
        return 0.5 + 0.1 * z
    if "norm" in name or z.ndim == 1:
        return (1 + 0.1 * z) if name.endswith("weight") else 0.1 * z
    if isinstance(module, nn.ConvTranspose1d):
        return z / math.sqrt(module.in_channels * module.kernel_size[0] / module.stride[0])
    gain = 0.5 if ".convs2." in name else 1.5 if "project_in" in name or ".convs1." in name else 1.0
    return gain * z / math.sqrt(z[0].numel())

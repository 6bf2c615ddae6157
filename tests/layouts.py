"""Makes the layouts in which people have FishSpeech 1.5's weights, from an official directory. Written from the formats' description."""

import argparse
import json
import shutil
from pathlib import Path

import torch
from torch import Tensor

from tests.conftest import CODEC_FILE

LINEAR = ("wqkv", "wo", "w1", "w2", "w3", "output", "fast_output")
TABLES = ("embeddings", "codebook_embeddings", "fast_embeddings")


def copy_of(source: Path, target: Path, *without: str) -> Path:
    """The directory without some of its files."""
    shutil.copytree(source, target, ignore=lambda _, names: [n for n in names if n in without])
    return target


def weights_of(directory: Path) -> dict[str, Tensor]:
    return torch.load(directory / "model.pth", weights_only=True)


def talkative(directory: Path) -> Path:
    """Take the end token from a directory of random weights, so that what it says is as long as one asks for."""
    tensors = weights_of(directory)
    special = json.loads((directory / "special_tokens.json").read_text())
    tensors["output.weight"][special["<|im_end|>"]] = 0
    torch.save(tensors, directory / "model.pth")
    return directory


def merge_lora_output(source: Path, target: Path) -> Path:
    """All fields of the trainer's configuration, a flat model.pth in BF16, and no codec."""
    copy_of(source, target, CODEC_FILE)
    more = {
        "dropout": 0.1,
        "head_dim": 16,
        "use_gradient_checkpointing": True,
        "is_reward_model": False,
        "scale_codebook_embeddings": False,
    }
    config = json.loads((source / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | more))
    return target


def lightning(tensors: dict[str, Tensor], file: Path) -> Path:
    """A training checkpoint: weights under `model.`, and beside them what continues the training, objects of any class included."""
    moments = {
        index: {"step": torch.tensor(1000.0), "exp_avg": torch.zeros(t.shape), "exp_avg_sq": torch.zeros(t.shape)}
        for index, t in enumerate(tensors.values())
    }
    torch.save(
        {
            "epoch": 1, "global_step": 1000, "pytorch-lightning_version": "2.4.0",
            "state_dict": {f"model.{name}": t for name, t in tensors.items()},
            "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": argparse.Namespace(total=1)}},
            "callbacks": {"ModelCheckpoint": {"best_model_path": Path("a/b"), "kth_value": torch.tensor(1.0)}},
            "optimizer_states": [{"state": moments, "param_groups": [{"lr": 1e-4, "params": [0, 1]}]}],
            "lr_schedulers": [{"last_epoch": 1000}],
            "hyper_parameters": argparse.Namespace(lr=1e-4),
        },
        file,
    )  # fmt: skip
    return file


def adapter_of(tensors: dict[str, Tensor], rank: int = 8, seed: int = 3) -> dict[str, Tensor]:
    """Matrices A and B for each weight that FishSpeech's LoRA covers, in BF16, of a size that changes what is said."""
    generator = torch.Generator().manual_seed(seed)
    matrices = {}
    for name, t in tensors.items():
        stem = name.removesuffix(".weight")
        if stem.split(".")[-1] in LINEAR or stem in TABLES:
            rows, columns = t.shape[::-1] if stem in TABLES else t.shape
            matrices[f"{stem}.lora_A"] = (torch.randn(rank, columns, generator=generator) / columns**0.5).to(torch.bfloat16)
            matrices[f"{stem}.lora_B"] = (torch.randn(rows, rank, generator=generator) / 20).to(torch.bfloat16)
    return matrices


def merged(tensors: dict[str, Tensor], adapter: dict[str, Tensor], alpha: float = 16) -> dict[str, Tensor]:
    """W + alpha / rank B A, for embeddings transposed, in FP32."""
    result = {}
    for name, t in tensors.items():
        stem = name.removesuffix(".weight")
        result[name] = t.float()
        if f"{stem}.lora_A" in adapter:
            a, b = (adapter[f"{stem}.lora_{half}"].float() for half in "AB")
            change = (alpha / a.shape[0]) * (b @ a)
            result[name] = t.float() + (change.T if stem in TABLES else change)
    return result


def int8(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each linear weight as int8 with a BF16 scale for each row; the rest as it is."""
    result = dict(tensors)
    for name, t in tensors.items():
        stem = name.removesuffix(".weight")
        if stem.split(".")[-1] in LINEAR:
            scales = t.float().abs().amax(dim=1).clamp(min=1e-7) / 127.5
            result[name] = (t.float() / scales[:, None]).round().clamp(-128, 127).to(torch.int8)
            result[f"{stem}.scales"] = scales.to(torch.bfloat16)
    return result


def dequantised(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights that int8 weights stand for, in FP32."""
    return {
        name: t.float() * tensors[name.removesuffix("weight") + "scales"].float()[:, None] if t.dtype == torch.int8 else t
        for name, t in tensors.items()
        if not name.endswith(".scales")
    }


def tokenizer_json(directory: Path) -> None:
    """Replace tokenizer.tiktoken by the tokenizer.json of the same vocabulary."""
    from base64 import b64decode

    ranks = {b64decode(line.split()[0]): int(line.split()[1]) for line in (directory / "tokenizer.tiktoken").read_text().splitlines()}
    special = json.loads((directory / "special_tokens.json").read_text())
    plain = [b for b in range(256) if chr(b).isprintable() and b not in (0x20, 0xA0, 0xAD)]
    shifted = [b for b in range(256) if b not in plain]
    character = {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(shifted)}
    vocabulary = {"".join(character[b] for b in token): rank for token, rank in ranks.items()}
    added = [{"id": number, "content": name, "special": True} for name, number in special.items()]
    content = {"version": "1.0", "added_tokens": added, "model": {"type": "BPE", "vocab": vocabulary, "merges": []}}
    (directory / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    (directory / "tokenizer.tiktoken").unlink()

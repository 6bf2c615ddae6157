"""From training checkpoints to a checkpoint directory that fishserve loads like the real one: FP16 safetensors, official tensor names."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from inference.model.layout import CODEC_NAME
from inference.model.tokenizer import SEMANTIC_TOKENS, SPECIAL_TOKENS
from inference.model.weights import fold_weight_norm
from training.dual_ar import DualARTraining, Student
from training.machine import Machine
from training.recipe import Recipe

LIMIT_BYTES = 16_000_000


def export(recipe: Recipe, target: Path) -> None:
    """Write config, tokenizer, language model and codec. Raises ValueError when the files exceed their size limit."""
    target.mkdir(parents=True, exist_ok=True)
    training = DualARTraining(recipe, Machine())
    student = training.averaged()
    config = {"model_type": "dual_ar", **asdict(student.model.config)}
    (target / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    (target / "generation_config.json").write_text(json.dumps(asdict(recipe.defaults), indent=1) + "\n", encoding="utf-8")
    shutil.copyfile(recipe.folder / "tokenizer.tiktoken", target / "tokenizer.tiktoken")
    names = [*SPECIAL_TOKENS, *(f"semantic:{i}" for i in range(SEMANTIC_TOKENS))]
    ids = {f"<|{name}|>": training.tokenizer.special(name) for name in names}
    (target / "special_tokens.json").write_text(json.dumps(ids) + "\n", encoding="utf-8")
    write_language_model(student, target)
    codec = torch.load(recipe.folder / "head.pt", map_location="cpu", weights_only=True)["average"]
    write_codec(codec, target)
    size = sum(f.stat().st_size for f in target.iterdir())
    print(f"{target}: {size / 1e6:.2f} MB", flush=True)
    if size > LIMIT_BYTES:
        raise ValueError(f"{target} has {size} bytes; the voice in the box may have {LIMIT_BYTES}")


def write_language_model(student: Student, folder: Path) -> Path:
    """Write a language model in training, FP16, into the folder of a checkpoint, and return its path."""
    path = folder / "model.safetensors"
    _write(student.plain_state(), path)
    return path


def write_codec(average: dict[str, Tensor], folder: Path) -> Path:
    """Write a codec in training, FP16, into the folder of a checkpoint, and return its path."""
    path = folder / f"{CODEC_NAME}.safetensors"
    _write(fold_weight_norm({n: t for n, t in average.items() if "spec_transform" not in n}), path)
    return path


def _write(tensors: dict[str, Tensor], path: Path) -> None:
    save_file({n: t.detach().half().contiguous() for n, t in tensors.items()}, path)
    path.chmod(0o644)  # safetensors creates files that only their owner can read

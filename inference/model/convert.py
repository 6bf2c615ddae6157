"""Writes a checkpoint of any layout in the official one: the official file and tensor names, with weights as safetensors."""

from __future__ import annotations

import fnmatch
import json
import shutil
import tempfile
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from inference.errors import CheckpointError
from inference.model import tensor_file, weights
from inference.model.checkpoint import check_names
from inference.model.config import SEMANTIC_TOKENS, DualARConfig
from inference.model.dual_ar import DualAR
from inference.model.layout import CODEC_NAME, CODEC_PATTERN, Layout
from inference.model.tokenizer import SPECIAL_TOKENS, Tokenizer, read_ranks


def write(files: Layout, target: Path) -> None:
    """Write a directory that loads by itself and speaks as `files` do.

    Weights keep their precision, except that what was int8 or is changed by an adapter becomes FP32, which is exact.
    Raises CheckpointError when the checkpoint does not fit together, or `target` is not empty; OSError when it cannot be written.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CheckpointError(f"{target} exists and is not an empty directory; name another")
    config = DualARConfig.from_file(files.config)
    ranks = read_ranks(files.tokenizer)
    tensors = weights.language_model(files.weights, None, files.adapter)
    check_names(files.weights, DualAR.without_values(config, Tokenizer(ranks).semantic_begin), tensors.shapes)
    codec = weights.codec_names(tensor_file.read(files.codec).tensors)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fishserve-") as scratch:
        made = Path(scratch) / "checkpoint"
        made.mkdir()
        shutil.copyfile(files.config, made / "config.json")
        if files.defaults.is_file():
            shutil.copyfile(files.defaults, made / "generation_config.json")
        for name in ("README.md", "LICENSE*"):
            for card in files.weights.parent.glob(name):
                shutil.copyfile(card, made / card.name)
        _write_tokenizer(ranks, made)
        _save(tensors, made / "model.safetensors")
        official = fnmatch.fnmatch(files.codec.name, CODEC_PATTERN)
        _save(codec, made / f"{files.codec.stem if official else CODEC_NAME}.safetensors")
        if target.is_dir():
            target.rmdir()
        made.rename(target)


def _write_tokenizer(ranks: Mapping[bytes, int], target: Path) -> None:
    ordered = sorted(ranks.items(), key=lambda item: item[1])
    lines = (f"{b64encode(token).decode()} {rank}\n" for token, rank in ordered)
    (target / "tokenizer.tiktoken").write_text("".join(lines), encoding="ascii")
    names = [*SPECIAL_TOKENS, *(f"semantic:{i}" for i in range(SEMANTIC_TOKENS))]
    specials = {f"<|{name}|>": len(ranks) + i for i, name in enumerate(names)}
    (target / "special_tokens.json").write_text(json.dumps(specials, indent=1) + "\n", encoding="utf-8")


def _save(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write tensors; those that share their memory get their own."""
    seen: set[int] = set()
    whole: dict[str, Tensor] = {}
    for name, stored in tensors.items():
        tensor = stored.contiguous()
        place = tensor.untyped_storage().data_ptr()
        whole[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    save_file(whole, file, metadata={"format": "pt"})

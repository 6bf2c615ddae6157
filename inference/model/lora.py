"""LoRA adapters (arXiv:2106.09685), as FishSpeech 1.5's fine-tuning writes them, added to the weights they were trained for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from inference.errors import CheckpointError
from inference.model import tensor_file
from inference.model.layout import Adapter

_SUFFIXES = (".lora_A", ".lora_B")


def is_lora(name: str) -> bool:
    """Whether a tensor belongs to an adapter."""
    return name.endswith(_SUFFIXES)


class Lora:
    """The matrices of an adapter by the weight that they change: A (rank, in) and B (out, rank)."""

    def __init__(self, adapter: Adapter, pairs: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        self.adapter, self._pairs = adapter, pairs

    @property
    def ranks(self) -> list[int]:
        """The ranks that occur; usually one."""
        return sorted({a.shape[0] for a, _ in self._pairs.values()})

    @property
    def names(self) -> list[str]:
        """The weights that the adapter changes."""
        return list(self._pairs)

    def check(self, base: Mapping[str, tuple[int, ...]]) -> None:
        """Compare with the names and shapes of a model. Raises CheckpointError naming the first weight that differs."""
        for name, (a, b) in self._pairs.items():
            if name not in base:
                raise CheckpointError(f"{self.adapter.file} was not made for this checkpoint: it changes {name}, which is not there")
            expected = base[name][::-1] if _is_table(name) else base[name]
            if (b.shape[0], a.shape[1]) != expected:
                found = (a.shape[1], b.shape[0]) if _is_table(name) else (b.shape[0], a.shape[1])
                raise CheckpointError(
                    f"{self.adapter.file} was not made for this checkpoint: its {name} is {found}, the checkpoint's is {base[name]}"
                )

    def added_to(self, name: str, weight: Tensor) -> Tensor:
        """The weight with the adapter's change, in FP32: BF16 sums lose part of a change of low rank. Others come back as they are."""
        if name not in self._pairs:
            return weight
        a, b = (matrix.float() for matrix in self._pairs[name])
        scale = self.adapter.alpha / a.shape[0]
        # The table of an embedding is (entries, dim), with A (rank, entries) and B (dim, rank).
        return torch.addmm(weight.float(), *((a.T, b.T) if _is_table(name) else (b, a)), alpha=scale)


def read_lora(adapter: Adapter) -> Lora:
    """Read an adapter. Raises CheckpointError when the file holds none, or one that is damaged."""
    file = adapter.file
    tensors = tensor_file.read(file).tensors
    found = {name.removeprefix("model."): t for name, t in tensors.items() if is_lora(name)}
    if not found:
        raise CheckpointError(f"{file} holds no LoRA matrices (its first tensor is {next(iter(tensors))}); a whole model is a --checkpoint")
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    for name in found:
        stem = name.rpartition(".")[0]
        if f"{stem}.weight" in pairs:
            continue
        a, b = (found.get(stem + suffix) for suffix in _SUFFIXES)
        if a is None or b is None:
            raise CheckpointError(f"{file} is damaged: it has {name} without its other half")
        for half in (a, b):
            _check_matrix(file, stem, half)
        if a.shape[0] != b.shape[1]:
            raise CheckpointError(f"{file} is damaged: {stem} has lora_A {tuple(a.shape)} and lora_B {tuple(b.shape)}, of two ranks")
        pairs[f"{stem}.weight"] = (a, b)
    return Lora(adapter, pairs)


def _check_matrix(file: Path, stem: str, matrix: Tensor) -> None:
    if matrix.ndim != 2 or not matrix.numel() or not matrix.is_floating_point() or matrix.dtype.itemsize < 2:
        raise CheckpointError(
            f"{file}: {stem} has a LoRA matrix {tuple(matrix.shape)} of {matrix.dtype}; two floating-point dimensions are needed"
        )
    if not matrix.isfinite().all():
        raise CheckpointError(f"{file}: the LoRA matrices of {stem} hold NaN or infinite values; training failed, or the file is damaged")


def _is_table(name: str) -> bool:
    return name.endswith("embeddings.weight")

"""The tensors of a checkpoint's language model and codec under their official names, whatever layout they were saved in.

Weights stay mapped files until they are asked for. The first load of a PyTorch archive writes a copy as safetensors, which later loads map.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from inference.errors import CheckpointError
from inference.model import tensor_file
from inference.model.layout import Adapter
from inference.model.lora import Lora, is_lora, read_lora

_COPY_FORMAT = "2"  # changes when the tensors kept in the safetensors copy would differ
_WEIGHT_NORM = ".parametrizations.weight.original"
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_Normalise = Callable[[Path, Mapping[str, Tensor]], dict[str, Tensor]]


class LanguageModelWeights(Mapping[str, Tensor]):
    """Weights by name, each computed when asked for: int8 times its scales, then what an adapter adds, both in FP32."""

    def __init__(self, tensors: Mapping[str, Tensor], lora: Lora | None = None) -> None:
        self._tensors, self._lora = tensors, lora
        self._names = [name for name in tensors if not _are_scales(name, tensors)]
        if lora is not None:
            lora.check(self.shapes)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each weight."""
        return {name: tuple(self._tensors[name].shape) for name in self._names}

    def __getitem__(self, name: str) -> Tensor:
        weight = self._tensors[name]
        if weight.dtype == torch.int8:
            weight = weight.float() * self._tensors[_scales_of(name)].float()[:, None]
        return weight if self._lora is None else self._lora.added_to(name, weight)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def language_model(file: Path, copies: Path | None, adapter: Adapter | None = None) -> LanguageModelWeights:
    """The language model of a file, with an adapter's change. `copies` is the folder for copies; None makes and uses none.

    Raises CheckpointError when the file is damaged or holds something else, or when the adapter was made for another model.
    """
    return LanguageModelWeights(_tensors(file, official_names, copies), None if adapter is None else read_lora(adapter))


def codec(file: Path, copies: Path | None) -> dict[str, Tensor]:
    """The codec of a file, weight norm folded. Raises CheckpointError."""
    return _tensors(file, lambda _, raw: fold_weight_norm(codec_names(raw)), copies)


def default_copies() -> Path:
    """The default folder for safetensors copies."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fishserve" / "weights"


def official_names(file: Path, raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A language model's tensors without a trainer's prefix, with q, k and v as one. Raises CheckpointError for what is no whole model."""
    tensors = {name.removeprefix("model."): t for name, t in raw.items()}
    if (matrix := next((t for name, t in tensors.items() if is_lora(name)), None)) is not None:
        raise CheckpointError(
            f"{file} is a LoRA adapter (rank {min(matrix.shape, default=0)}), which needs the model it was trained on: "
            f"name that as the checkpoint, and this file with --adapter (FISHSERVE_ADAPTER)"
        )
    if name := next((name for name in tensors if name.endswith(".scales_and_zeros")), None):
        raise CheckpointError(
            f"{file} is quantised to int4 ({name}), in a layout that depends on the GPU it was made on: "
            f"use the checkpoint it was made from, or an int8 version of that"
        )
    for name in [n for n in tensors if re.search(r"\.wq\.(weight|bias)$", n)]:
        parts = [name.replace(".wq.", f".{w}.") for w in ("wq", "wk", "wv")]
        if all(p in tensors for p in parts):
            tensors[name.replace(".wq.", ".wqkv.")] = torch.cat([tensors.pop(p) for p in parts])
    return tensors


def codec_names(raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A codec's tensors without a trainer's prefix, and without what else was trained."""
    if any("generator." in name for name in raw):
        return {name.replace("generator.", ""): t for name, t in raw.items() if "generator." in name}
    return dict(raw)


def fold_weight_norm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace each pair (g, v) by w = g * v / ||v||, the norm over all dimensions but the first (arXiv:1602.07868)."""
    folded = {name: t for name, t in tensors.items() if _WEIGHT_NORM not in name}
    for name, g in tensors.items():
        if name.endswith(_WEIGHT_NORM + "0"):
            base = name.removesuffix(_WEIGHT_NORM + "0")
            v = tensors.get(f"{base}{_WEIGHT_NORM}1")
            if v is None or v.ndim < 2 or g.numel() != v.shape[0]:
                raise CheckpointError(f"{name} has no matching direction {base}{_WEIGHT_NORM}1")
            norm = v.float().flatten(1).norm(dim=1).view(-1, *[1] * (v.ndim - 1))
            folded[f"{base}.weight"] = g.float().view_as(norm) * v.float() / norm
    return folded


def unfold_weight_norm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `fold_weight_norm` for the head's convolutions: the official file's form of a codec."""
    unfolded: dict[str, Tensor] = {}
    for name, t in tensors.items():
        if name.startswith("head.") and name.endswith(".conv.weight"):
            base = name.removesuffix(".weight")
            unfolded[f"{base}{_WEIGHT_NORM}0"] = t.flatten(1).norm(dim=1).view(-1, 1, 1)
            unfolded[f"{base}{_WEIGHT_NORM}1"] = t
        else:
            unfolded[name] = t
    return unfolded


def _scales_of(name: str) -> str:
    return name.removesuffix("weight") + "scales"


def _are_scales(name: str, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a tensor holds one scale for each row of an int8 weight."""
    weight = tensors.get(name.removesuffix("scales") + "weight") if name.endswith(".scales") else None
    return weight is not None and weight.dtype == torch.int8


def _tensors(file: Path, normalise: _Normalise, copies: Path | None) -> dict[str, Tensor]:
    """The normalised tensors of a file, from its safetensors copy where that is up to date."""
    if copies is None or file.suffix == ".safetensors":
        return _sound(file, normalise(file, tensor_file.read(file).tensors))
    if not file.is_file():
        raise CheckpointError(f"{file} is missing")
    stat = file.stat()
    origin = {"format": _COPY_FORMAT, "size": str(stat.st_size), "mtime_ns": str(stat.st_mtime_ns)}
    copy = copies / f"{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:24]}.safetensors"
    if copy.is_file():
        try:
            read = tensor_file.read(copy)
            if read.metadata == origin:
                return read.tensors
        except CheckpointError:
            pass  # replace an unreadable copy
    tensors = _sound(file, normalise(file, tensor_file.read(file).tensors))
    _write_copy(copy, tensors, origin)
    return tensors


def _sound(file: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for name, t in tensors.items():
        if t.dtype == torch.int8:
            scales = tensors.get(_scales_of(name))
            if t.ndim != 2 or scales is None or scales.dtype not in _FLOATS or scales.shape != t.shape[:1]:
                raise CheckpointError(f"{file}: {name} is int8, and {_scales_of(name)} does not hold one scale for each of its rows")
        elif t.dtype not in _FLOATS:
            raise CheckpointError(f"{file}: {name} is a tensor of {t.dtype}; weights are floating point, or int8 with scales")
        elif not t.isfinite().all():
            raise CheckpointError(f"{file}: {name} holds NaN or infinite values; the file is damaged")
    return tensors


def _write_copy(copy: Path, tensors: Mapping[str, Tensor], origin: dict[str, str]) -> None:
    """Write beside the target and rename, so that a reader never sees half a file. A copy that cannot be written is no error."""
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=copy.parent) as scratch:
            save_file({name: t.contiguous() for name, t in tensors.items()}, Path(scratch) / "copy", metadata=origin)
            os.replace(Path(scratch) / "copy", copy)
    except (OSError, SafetensorError, RuntimeError):
        pass  # no room, a read-only cache, or tensors that share memory

"""Which files a checkpoint consists of, whoever made it, and where they lie. Nothing is read here, and nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from inference.errors import CheckpointError

CODEC_NAME = "firefly-gan-vq-fsq-8x1024-21hz-generator"
CODEC_PATTERN = "firefly-gan-vq-fsq-*-generator.*"
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".ckpt")
DEFAULT_ALPHA = 16.0
"""Alpha of the only LoRA configuration that FishSpeech 1.5's code ships; adapters do not carry theirs."""


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter: a file of matrices A and B, of which alpha / rank times B A is added to the weights."""

    file: Path
    alpha: float = DEFAULT_ALPHA


@dataclass(frozen=True)
class Layout:
    """The files of a checkpoint. `path` is what was named: a directory, or a file of weights. `defaults` need not exist."""

    path: Path
    weights: Path
    config: Path
    tokenizer: Path
    codec: Path
    defaults: Path
    adapter: Adapter | None = None


def layout_of(path: Path, codec: Path | None = None, base: Path | None = None, adapter: Adapter | None = None) -> Layout:
    """The files of the checkpoint at `path`; `codec` replaces its codec, and `base` is the directory for what it lacks.

    Raises CheckpointError naming the first file that is in neither.
    """
    weights = weights_file(path)
    return Layout(
        path,
        weights,
        _first("config.json", weights.parent, base) or _lacks(weights.parent / "config.json"),
        tokenizer_file(weights.parent) or (base and tokenizer_file(base)) or _lacks(weights.parent / "tokenizer.tiktoken"),
        codec or codec_file(weights.parent) or (base and codec_file(base)) or _lacks(weights.parent / f"{CODEC_NAME}.pth"),
        _first("generation_config.json", weights.parent, base) or weights.parent / "generation_config.json",
        adapter,
    )


def lacking(path: Path) -> list[str]:
    """What is not beside a checkpoint's weights: of `config.json`, `a tokenizer` and `a codec`."""
    directory = weights_file(path).parent
    there = {
        "config.json": _first("config.json", directory, None), "a tokenizer": tokenizer_file(directory), "a codec": codec_file(directory),
    }  # fmt: skip
    return [what for what, file in there.items() if file is None]


def weights_file(path: Path) -> Path:
    """The language model's weights: the file itself, or in a directory `model.safetensors`, `model.pth`, or the only `.ckpt`."""
    if path.is_file():
        if path.suffix not in WEIGHT_SUFFIXES:
            raise CheckpointError(f"{path} is no file of weights; they end in {', '.join(WEIGHT_SUFFIXES)}")
        return path
    if path.suffix in WEIGHT_SUFFIXES and not path.exists():
        raise CheckpointError(f"{path} does not exist")
    if not path.is_dir():
        raise CheckpointError(
            f"{path} is not a directory; a checkpoint is a directory with config.json, model.pth, tokenizer.tiktoken and a codec"
        )
    for name in ("model.safetensors", "model.pth"):
        if (path / name).is_file():
            return path / name
    return _only(path, path.glob("*.ckpt")) or _lacks(path / "model.pth")


def tokenizer_file(directory: Path) -> Path | None:
    """`tokenizer.tiktoken`, or `tokenizer.json`."""
    return _first("tokenizer.tiktoken", directory, None) or _first("tokenizer.json", directory, None)


def codec_file(directory: Path) -> Path | None:
    """The codec's weights: `firefly-gan-vq-fsq-*-generator.safetensors`, or `.pth`."""
    files = {p.stem: p for suffix in (".pth", ".safetensors") for p in directory.glob(CODEC_PATTERN) if p.suffix == suffix}
    if len(files) > 1:
        raise CheckpointError(f"{directory} holds several codecs ({', '.join(sorted(files))}); keep the one that belongs to the model")
    return next(iter(files.values()), None)


def adapter_file(path: Path) -> Path:
    """The file of an adapter: the path itself, or the only file of weights in a directory. Raises CheckpointError."""
    if path.is_dir():
        found = _only(path, (p for p in path.iterdir() if p.suffix in WEIGHT_SUFFIXES))
        return found or _lacks(path / "*.ckpt")
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; an adapter is a file, or a directory with one, such as step_000001000.ckpt")
    return path


def _only(directory: Path, files: Iterable[Path]) -> Path | None:
    found = sorted(files)
    if len(found) > 1:
        raise CheckpointError(f"{directory} holds several files of weights ({', '.join(p.name for p in found[:8])}); name one of them")
    return found[0] if found else None


def _first(name: str, directory: Path, base: Path | None) -> Path | None:
    return next((d / name for d in (directory, base) if d is not None and (d / name).exists()), None)


def _lacks(file: Path) -> Path:
    raise CheckpointError(f"{file} is missing")

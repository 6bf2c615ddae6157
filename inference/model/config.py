"""The shapes of a FishSpeech 1.5 model: what `config.json` says, and what a codec's tensors imply."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from inference.errors import CheckpointError
from inference.text.segments import Chunk, Segmentation

if TYPE_CHECKING:  # the HTTP APIs read constants from here, in processes that do not need torch
    from torch import Tensor

SAMPLE_RATE = 44_100
SAMPLES_PER_FRAME = 2048
FRAMES_PER_SECOND = SAMPLE_RATE / SAMPLES_PER_FRAME
SEMANTIC_TOKENS = 1024
"""The tokenizer always has 1024 semantic tokens, whatever `codebook_size` says."""

FSQ_LEVELS = (8, 5, 5, 5)
SAMPLING_RANGES = {"temperature": (0, 2), "top_p": (0, 1), "repetition_penalty": (0.1, 2)}
MIN_SEGMENT_BYTES = 10
MAX_NATURAL_PAUSE = 5.0
"""Seconds."""
CODES_PER_GROUP = math.prod(FSQ_LEVELS)
"""A codec decodes codes 0..999; the language model's tables have 1024 rows."""


@dataclass(frozen=True)
class DualARConfig:
    """Shape of the Dual-AR language model. Defaults are those of the official reader."""

    vocab_size: int = 32000
    n_layer: int = 32
    n_head: int = 32
    n_local_heads: int = 32
    dim: int = 4096
    intermediate_size: int = 11008
    rope_base: float = 10000.0
    norm_eps: float = 1e-5
    max_seq_len: int = 2048
    tie_word_embeddings: bool = True
    attention_qkv_bias: bool = False
    codebook_size: int = 160
    num_codebooks: int = 4
    share_codebook_embeddings: bool = True
    n_fast_layer: int = 4
    fast_dim: int = 4096
    fast_n_head: int = 32
    fast_n_local_heads: int = 32
    fast_intermediate_size: int = 11008
    fast_attention_qkv_bias: bool = False

    @property
    def head_dim(self) -> int:
        """Size of one slow attention head; the `head_dim` of the file is ignored, as officially."""
        return self.dim // self.n_head

    @property
    def fast_head_dim(self) -> int:
        return self.fast_dim // self.fast_n_head

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> DualARConfig:
        """Read the fields of a `config.json`; missing and null fields take the official defaults.

        Raises CheckpointError when a value has the wrong type or the shape cannot exist.
        """
        given = {k: v for k, v in raw.items() if v is not None}
        if given.get("model_type", "dual_ar") != "dual_ar":
            raise CheckpointError(f"config.json has model_type {given['model_type']!r}; fishserve runs 'dual_ar' (FishSpeech 1.5)")
        shape: dict[str, Any] = {f.name: f.default for f in fields(cls)}
        shape |= {k: given[k] for k in shape if k in given}
        if given.get("n_local_heads", -1) == -1:
            shape["n_local_heads"] = shape["n_head"]
        if "intermediate_size" not in given and _is_number(shape["dim"]):
            shape["intermediate_size"] = _round_up(2 * 4 * int(shape["dim"]) // 3, 256)
        for name in ("dim", "n_head", "n_local_heads", "intermediate_size", "attention_qkv_bias"):
            if f"fast_{name}" not in given:
                shape[f"fast_{name}"] = shape[name]
        config = cls(**_checked(shape))
        config._check_shape()
        return config

    @classmethod
    def from_file(cls, path: Path) -> DualARConfig:
        """Read a `config.json`. Raises CheckpointError when it is missing, not JSON, or wrong."""
        return cls.from_dict(_read_object(path))

    def _check_shape(self) -> None:
        for prefix in ("", "fast_"):
            dim, heads, kv = (getattr(self, prefix + n) for n in ("dim", "n_head", "n_local_heads"))
            if dim % heads or (dim // heads) % 2:
                raise CheckpointError(f"config.json: {prefix}dim {dim} does not divide into {heads} heads of even size")
            if heads % kv:
                raise CheckpointError(f"config.json: {heads} {prefix}heads cannot share {kv} key/value heads evenly")
        if self.max_seq_len * self.head_dim > _MAX_ROPE:
            raise CheckpointError(f"config.json: {self.max_seq_len} positions of {self.head_dim} values a head are more than any model has")
        if self.codebook_size > SEMANTIC_TOKENS:
            raise CheckpointError(
                f"config.json: codebook_size {self.codebook_size} is above the tokenizer's {SEMANTIC_TOKENS} semantic tokens"
            )


class AlignmentHead(NamedTuple):
    """An attention head of the slow model, both numbers from 0."""

    layer: int
    head: int


HEADS = ("alignment_heads", "guard_heads")
"""The fields of `GenerationDefaults` that name heads."""


@dataclass(frozen=True)
class GenerationDefaults:
    """A checkpoint's defaults for values that a request leaves out: the optional `generation_config.json` beside its weights.

    The values here are those of the reference implementation. `normalize` first writes numbers and signs out as words, and with
    `spell_capitals` also acronyms and words in capitals. `chunk`, `max_segment_bytes` and the pauses are those of `Segmentation`.
    `history` is the number of columns of earlier segments that stay in the context: 0 for none, None for as many as fit.
    `alignment_heads` look at the text that each frame speaks: `[[layer, head], ...]` in the file; none if nobody knows such heads.
    They may follow behind the sound, by `alignment_delay` seconds. A guard against bad takes looks through `guard_heads`; without them,
    through the same.
    """

    temperature: float = 0.7
    top_p: float = 0.7
    repetition_penalty: float = 1.2
    normalize: bool = False
    spell_capitals: bool = False
    chunk: Chunk = "bytes"
    max_segment_bytes: int | None = None
    history: int | None = None
    clause_pause: float = 0.0
    sentence_pause: float = 0.0
    paragraph_pause: float = 0.0
    alignment_heads: tuple[AlignmentHead, ...] = ()
    alignment_delay: float = 0.0
    guard_heads: tuple[AlignmentHead, ...] = ()

    @classmethod
    def from_file(cls, path: Path) -> GenerationDefaults:
        """Read a `generation_config.json`; the values above when there is none. Raises CheckpointError when it is not JSON, or wrong."""
        if not path.exists():
            return cls()
        raw = _read_object(path)
        values = {name: default if raw.get(name) is None else raw[name] for name, default in asdict(cls()).items()}
        for name, (low, high) in SAMPLING_RANGES.items():
            if not _is_number(values[name]) or not low <= values[name] <= high:
                raise CheckpointError(f"{path}: {name} is {values[name]!r}; it must be a number between {low} and {high}")
        for name in ("normalize", "spell_capitals"):
            if not isinstance(values[name], bool):
                raise CheckpointError(f"{path}: {name} is {values[name]!r}; it must be true or false")
        if values["chunk"] not in get_args(Chunk):
            raise CheckpointError(f"{path}: chunk is {values['chunk']!r}; it must be one of {', '.join(get_args(Chunk))}")
        for name, least in (("max_segment_bytes", MIN_SEGMENT_BYTES), ("history", 0)):
            value = values[name]
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise CheckpointError(f"{path}: {name} is {value!r}; it must be null or a whole number of at least {least}")
        for name in ("clause_pause", "sentence_pause", "paragraph_pause"):
            if not _is_number(values[name]) or not 0 <= values[name] <= MAX_NATURAL_PAUSE:
                raise CheckpointError(f"{path}: {name} is {values[name]!r}; it must be between 0 and {MAX_NATURAL_PAUSE:.0f} seconds")
        if not _is_number(values["alignment_delay"]) or not 0 <= values["alignment_delay"] <= 1:
            raise CheckpointError(f"{path}: alignment_delay is {values['alignment_delay']!r}; it must be between 0 and 1 seconds")
        return cls(**values | {name: _heads(path, name, values[name]) for name in HEADS})

    @property
    def segmentation(self) -> Segmentation:
        """How this checkpoint's text is cut into segments."""
        return Segmentation(self.chunk, self.max_segment_bytes, self.clause_pause, self.sentence_pause, self.paragraph_pause)


@dataclass(frozen=True)
class CodecConfig:
    """Shape of the Firefly codec, inferred from its tensors: the official directory has no configuration file for it."""

    n_mels: int
    depths: tuple[int, ...]
    dims: tuple[int, ...]
    kernel_size: int
    groups: int
    downsample_factors: tuple[int, ...]
    head_channels: int
    conv_pre_kernel: int
    conv_post_kernel: int
    upsample_kernels: tuple[int, ...]
    resblock_kernels: tuple[int, ...]
    units_per_resblock: int

    @property
    def upsample_rates(self) -> tuple[int, ...]:
        """Firefly's transposed convolutions have kernels of twice their stride."""
        return tuple(k // 2 for k in self.upsample_kernels)

    @classmethod
    def from_state_dict(cls, tensors: Mapping[str, Tensor]) -> CodecConfig:
        """Infer the shape from tensor names and sizes (weight norm already folded).

        Raises CheckpointError naming the first missing tensor that the shape depends on.
        """

        def shape(name: str) -> tuple[int, ...]:
            if name not in tensors:
                raise CheckpointError(f"this is not a Firefly codec: tensor {name} is missing")
            found, dimensions = tuple(tensors[name].shape), 3 if "conv" in name else 2 if "project" in name else 1
            if len(found) != dimensions or 0 in found:
                raise CheckpointError(f"this is not a Firefly codec: tensor {name} has shape {found}, not {dimensions} dimensions")
            return found

        def count(pattern: str) -> int:
            found = {int(m[1]) for name in tensors if (m := re.match(pattern, name)) and len(m[1]) < 3}  # others are unexpected names
            return max(found, default=-1) + 1

        stem = shape("backbone.downsample_layers.0.0.conv.weight")
        stages = count(r"backbone\.stages\.(\d+)\.")
        ups = count(r"head\.ups\.(\d+)\.")
        kernels = count(r"head\.resblocks\.0\.blocks\.(\d+)\.")
        levels = shape("quantizer.residual_fsq.rvqs.0.project_in.weight")[0]
        if levels != len(FSQ_LEVELS):
            raise CheckpointError(f"the codec quantises to {levels} values a group; FishSpeech 1.5 has {len(FSQ_LEVELS)}")
        config = cls(
            n_mels=stem[1],
            depths=tuple(count(rf"backbone\.stages\.{i}\.(\d+)\.") for i in range(stages)),
            dims=tuple(shape(f"backbone.stages.{i}.0.gamma")[0] for i in range(stages)),
            kernel_size=stem[2],
            groups=count(r"quantizer\.residual_fsq\.rvqs\.(\d+)\."),
            downsample_factors=tuple(
                shape(f"quantizer.downsample.{i}.0.conv.weight")[2] for i in range(count(r"quantizer\.downsample\.(\d+)\."))
            ),
            head_channels=shape("head.conv_pre.conv.weight")[0],
            conv_pre_kernel=shape("head.conv_pre.conv.weight")[2],
            conv_post_kernel=shape("head.conv_post.conv.weight")[2],
            upsample_kernels=tuple(shape(f"head.ups.{i}.conv.weight")[2] for i in range(ups)),
            resblock_kernels=tuple(shape(f"head.resblocks.0.blocks.{b}.convs1.0.conv.weight")[2] for b in range(kernels)),
            units_per_resblock=count(r"head\.resblocks\.0\.blocks\.0\.convs1\.(\d+)\."),
        )
        config._check_shape()
        return config

    def _check_shape(self) -> None:
        hop = 512 * math.prod(self.downsample_factors)
        if math.prod(self.upsample_rates) != 512 or hop != SAMPLES_PER_FRAME:
            raise CheckpointError(
                f"the codec makes {math.prod(self.upsample_rates) * math.prod(self.downsample_factors)} samples a frame; "
                f"FishSpeech 1.5 has {SAMPLES_PER_FRAME}"
            )
        if self.n_mels > _MAX_MELS:
            raise CheckpointError(f"the codec hears {self.n_mels} bands; at most {_MAX_MELS} are computed")
        if not self.dims or self.dims[-1] % self.groups:
            raise CheckpointError(f"the codec's {self.dims} channels do not divide into {self.groups} groups")


_MOST = {"max_seq_len": 1 << 20, "vocab_size": 1 << 24, "n_layer": 1024, "n_fast_layer": 1024, "num_codebooks": 1024}
_MAX_MELS = 1024  # FishSpeech 1.5 has 160
_MAX_ROPE = 1 << 27  # FishSpeech 1.5 has 2^19
_MAX_FILE_BYTES = 4 << 20


def _checked(shape: Mapping[str, Any]) -> dict[str, Any]:
    """The values, converted to their declared types. Raises CheckpointError."""
    kinds = {f.name: str(f.type) for f in fields(DualARConfig)}
    checked: dict[str, Any] = {}
    for name, value in shape.items():
        kind = kinds[name]
        if kind == "bool":
            if not isinstance(value, bool):
                raise CheckpointError(f"config.json: {name} is {value!r}; true or false is needed")
            checked[name] = value
        elif not _is_number(value) or (kind == "int" and value != int(value)):
            raise CheckpointError(f"config.json: {name} is {value!r}; {'a whole number' if kind == 'int' else 'a number'} is needed")
        elif not 0 < value <= _MOST.get(name, 1 << 20 if kind == "int" else 1 << 40):
            raise CheckpointError(f"config.json: {name} is {value!r}, which no model can have")
        else:
            checked[name] = int(value) if kind == "int" else float(value)
    return checked


def _read_object(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise CheckpointError(f"{path} has {path.stat().st_size} bytes; at most {_MAX_FILE_BYTES} are read")
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing") from None
    except (OSError, ValueError, RecursionError) as e:
        raise CheckpointError(f"{path} cannot be read as JSON: {e}") from None
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path} holds a JSON {type(raw).__name__}, not an object")
    return raw


def _heads(path: Path, name: str, value: object) -> tuple[AlignmentHead, ...]:
    if not isinstance(value, list | tuple) or not all(_is_head(pair) for pair in value):
        raise CheckpointError(f"{path}: {name} is {value!r}; it must be a list of pairs [layer, head], both counted from 0")
    return tuple(AlignmentHead(*pair) for pair in value)


def _is_head(pair: object) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(type(n) is int and n >= 0 for n in pair)


def _is_number(value: object) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and math.isfinite(value))


def _round_up(n: int, multiple: int) -> int:
    return (n + multiple - 1) // multiple * multiple

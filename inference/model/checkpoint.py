"""Reads a FishSpeech 1.5 checkpoint directory, in any of its official variants, and places it on a device.

The precision policy is stated here and nowhere else. On CUDA every weight of the language model and of the codec's
decoder is FP16, verified after load; norms, softmax, logits and sampling compute in FP32; the codec's encoder, which
runs once a voice, stays FP32. On CPU everything is FP32.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from inference.errors import CheckpointError, PrecisionError
from inference.model.codec import Codec
from inference.model.config import CodecConfig, DualARConfig, GenerationDefaults
from inference.model.dual_ar import DualAR
from inference.model.tokenizer import Tokenizer
from inference.threads import run_in_short_lived_thread

CODEC_NAME = "firefly-gan-vq-fsq-8x1024-21hz-generator"
_COPY_FORMAT = "2"  # changes when the tensors kept in the safetensors copy would differ
_WEIGHT_NORM = ".parametrizations.weight.original"


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model: everything needed to turn prompts into codes and codes into samples. `codec_id` identifies its codec."""

    path: Path
    config: DualARConfig
    defaults: GenerationDefaults
    tokenizer: Tokenizer
    lm: DualAR
    codec: Codec
    device: torch.device
    codec_id: str


def precision(device: torch.device) -> torch.dtype:
    """The dtype of the language model's and the decoder's weights on a device."""
    return torch.float16 if device.type == "cuda" else torch.float32


@run_in_short_lived_thread
def load(path: Path, device: torch.device, copies: Path | None = None) -> Checkpoint:
    """Load a checkpoint directory onto a device.

    The first load writes a safetensors copy to `copies` (by default the user's cache folder), which later starts
    map into memory. Raises CheckpointError, in one message, when the checkpoint cannot be used.
    """
    if not path.is_dir():
        raise CheckpointError(
            f"{path} is not a directory; a checkpoint is a directory with config.json, model.pth, tokenizer.tiktoken and a codec"
        )
    config = DualARConfig.from_file(path / "config.json")
    defaults = GenerationDefaults.from_file(path / "generation_config.json")
    if beyond := [[*h] for h in defaults.alignment_heads if h.layer >= config.n_layer or h.head >= config.n_head]:
        raise CheckpointError(
            f"{path}: generation_config.json's alignment_heads name {beyond}; the model has {config.n_layer} layers of {config.n_head} heads"
        )
    tokenizer = Tokenizer.from_file(path / "tokenizer.tiktoken")
    if tokenizer.n_vocab > config.vocab_size:
        raise CheckpointError(f"{path}: the tokenizer has {tokenizer.n_vocab} ids but config.json's vocab_size is {config.vocab_size}")
    copies = copies or default_copies()
    codec = _load_codec(codec_file(path), copies)
    if codec.config.groups != config.num_codebooks:
        raise CheckpointError(f"{path}: the codec has {codec.config.groups} codebooks but the language model speaks {config.num_codebooks}")
    lm = _load_lm(model_file(path), config, tokenizer.semantic_begin, device, copies)
    codec_id = _identity(codec)
    _place_codec(codec, device)
    verify_precision(lm, codec, device)
    return Checkpoint(path, config, defaults, tokenizer, lm.eval(), codec.eval(), device, codec_id)


def _identity(codec: Codec) -> str:
    """12 hexadecimal digits that identify a codec: codes mean nothing to any codec but the one that made them.

    The hash covers the quantizer and, of the encoder, only biases and norms, since any training changes them. It leaves out the head.
    """
    digest = hashlib.sha256()
    encoder = {f"backbone.{name}": tensor for name, tensor in codec.backbone.state_dict().items() if tensor.ndim == 1}
    for name, tensor in sorted((encoder | codec.quantizer.state_dict()).items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def default_copies() -> Path:
    """The default folder for safetensors copies."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fishserve" / "weights"


def model_file(path: Path) -> Path:
    """The language model's weights: `model.pth`, or `model.safetensors`."""
    return _one_of(path, "model")


def codec_file(path: Path) -> Path:
    """The codec's weights: `firefly-gan-vq-fsq-*-generator.pth`, or `.safetensors`."""
    names = sorted({p.stem for p in path.glob("firefly-gan-vq-fsq-*-generator.*") if p.suffix in (".pth", ".safetensors")})
    if len(names) > 1:
        raise CheckpointError(f"{path} holds several codecs ({', '.join(names)}); keep the one that belongs to model.pth")
    return _one_of(path, names[0] if names else CODEC_NAME)


def verify_precision(lm: DualAR, codec: Codec, device: torch.device) -> None:
    """Raise PrecisionError naming every weight that breaks the policy."""
    dtype = precision(device)
    weights = [*lm.named_parameters(), *((n, p) for n, p in codec.named_parameters() if in_decoder(n))]
    wrong = [
        f"{name} is {str(p.dtype).removeprefix('torch.')} on {p.device.type}"
        for name, p in weights
        if p.dtype != dtype or p.device.type != device.type
    ]
    if wrong:
        raise PrecisionError(f"on {device.type} every weight must be {str(dtype).removeprefix('torch.')}; {'; '.join(wrong)}")


def in_decoder(name: str) -> bool:
    """Whether a codec tensor takes part in decoding."""
    return name.startswith(("head.", "quantizer.upsample.")) or ".project_out." in name


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


def _one_of(path: Path, stem: str) -> Path:
    for suffix in (".safetensors", ".pth"):
        if (path / (stem + suffix)).is_file():
            return path / (stem + suffix)
    raise CheckpointError(f"{path / stem}.pth is missing")


def _load_lm(file: Path, config: DualARConfig, semantic_begin: int, device: torch.device, copies: Path) -> DualAR:
    lm = DualAR.without_values(config, semantic_begin)
    tensors = _tensors(file, _normalise_lm, copies)
    _check_names(file, lm, tensors)
    dtype = precision(device)
    placed = {name: _cast(file, name, t, device, dtype) for name, t in tensors.items()}
    lm.load_state_dict(placed, assign=True)
    return lm.requires_grad_(False).to(device)


def _load_codec(file: Path, copies: Path) -> Codec:
    tensors = _tensors(file, _normalise_codec, copies)
    codec = Codec(CodecConfig.from_state_dict(tensors))
    _check_names(file, codec, tensors)
    codec.load_state_dict({name: _cast(file, name, t, torch.device("cpu"), torch.float32) for name, t in tensors.items()})
    return codec.requires_grad_(False)


def _place_codec(codec: Codec, device: torch.device) -> None:
    dtype = precision(device)
    codec.to(device)
    torch.backends.cudnn.allow_tf32 = False  # otherwise the encoder is not truly FP32, and codes differ from a CPU's
    codec.head.to(dtype)
    codec.head.lay_out()
    codec.quantizer.upsample.to(dtype)
    for rvq in codec.quantizer.residual_fsq.rvqs:
        rvq.project_out.to(dtype)
        rvq.scales = rvq.scales.to(dtype)
        rvq.layers[0].implicit_codebook = rvq.layers[0].implicit_codebook.to(dtype)
    codec.quantizer.lay_out()


def _cast(file: Path, name: str, tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    cast = tensor.to(device, dtype)
    if dtype == torch.float16 and not cast.isfinite().all():
        raise CheckpointError(f"{file}: {name} reaches {float(tensor.float().abs().max()):g}, beyond FP16's 65504")
    return cast


def _check_names(file: Path, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    expected = {name: tuple(p.shape) for name, p in module.state_dict().items()}
    problems = []
    if missing := sorted(expected.keys() - tensors.keys()):
        problems.append(f"missing: {', '.join(missing)}")
    if unexpected := sorted(tensors.keys() - expected.keys()):
        problems.append(f"unexpected: {', '.join(unexpected)}")
    if wrong := [n for n in sorted(expected.keys() & tensors.keys()) if expected[n] != tuple(tensors[n].shape)]:
        problems.append("wrong shape: " + ", ".join(f"{n} is {tuple(tensors[n].shape)}, expected {expected[n]}" for n in wrong))
    if problems:
        raise CheckpointError(f"{file} does not fit its configuration; " + "; ".join(problems))


def _normalise_lm(raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
    tensors = {name.removeprefix("model."): t for name, t in raw.items()}
    for name in [n for n in tensors if re.search(r"\.wq\.(weight|bias)$", n)]:
        parts = [name.replace(".wq.", f".{w}.") for w in ("wq", "wk", "wv")]
        if all(p in tensors for p in parts):
            tensors[name.replace(".wq.", ".wqkv.")] = torch.cat([tensors.pop(p) for p in parts])
    return tensors


def _normalise_codec(raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if any("generator." in name for name in raw):
        raw = {name.replace("generator.", ""): t for name, t in raw.items() if "generator." in name}
    return fold_weight_norm(raw)


def _tensors(file: Path, normalise: Callable[[Mapping[str, Tensor]], dict[str, Tensor]], copies: Path) -> dict[str, Tensor]:
    """The normalised tensors of a file, from its safetensors copy where that is up to date."""
    if file.suffix == ".safetensors":
        return _sound(file, normalise(_read_safetensors(file)[0]))
    stat = file.stat()
    origin = {"format": _COPY_FORMAT, "size": str(stat.st_size), "mtime_ns": str(stat.st_mtime_ns)}
    copy = copies / f"{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:24]}.safetensors"
    if copy.is_file():
        try:
            tensors, metadata = _read_safetensors(copy)
            if metadata == origin:
                return tensors
        except CheckpointError:
            pass  # replace an unreadable copy
    tensors = _sound(file, normalise(_read_pth(file)))
    _write_copy(copy, tensors, origin)
    return tensors


def _sound(file: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for name, t in tensors.items():
        if not t.is_floating_point() or t.layout != torch.strided:
            raise CheckpointError(f"{file}: {name} is a {t.layout} tensor of {t.dtype}; weights are dense floating point")
        if not t.isfinite().all():
            raise CheckpointError(f"{file}: {name} holds NaN or infinite values; the file is damaged")
    return tensors


def _read_pth(file: Path) -> dict[str, Tensor]:
    try:
        is_zip = zipfile.is_zipfile(file)
        if is_zip and (bad := zipfile.ZipFile(file).testzip()):
            raise CheckpointError(f"{file} is damaged: its part {bad} fails its checksum; download it again")
        raw = torch.load(file, map_location="cpu", weights_only=True, mmap=is_zip)
    except CheckpointError:
        raise
    except Exception as e:  # on a foreign file torch.load raises any exception of its parsers
        reason = str(e).strip().splitlines()[0][:200] if str(e).strip() else type(e).__name__
        raise CheckpointError(f"{file} is not a readable torch checkpoint ({reason}); download it again") from None
    if isinstance(raw, dict) and isinstance(raw.get("state_dict"), dict):
        raw = raw["state_dict"]
    if not isinstance(raw, dict) or not raw or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in raw.items()):
        raise CheckpointError(f"{file} does not hold a dictionary of named tensors")
    return raw


def _read_safetensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(file, framework="pt") as f:
            return {name: f.get_tensor(name) for name in f.keys()}, f.metadata() or {}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, ValueError) as e:
        raise CheckpointError(f"{file} is not a readable safetensors file: {e}") from None


def _write_copy(copy: Path, tensors: Mapping[str, Tensor], origin: dict[str, str]) -> None:
    """Write beside the target and rename, so that a reader never sees half a file. A copy that cannot be written is no error."""
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=copy.parent) as scratch:
            save_file({name: t.contiguous() for name, t in tensors.items()}, Path(scratch) / "copy", metadata=origin)
            os.replace(Path(scratch) / "copy", copy)
    except (OSError, SafetensorError, RuntimeError):
        pass  # no room, a read-only cache, or tensors that share memory

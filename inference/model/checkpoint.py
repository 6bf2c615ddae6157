"""Reads a FishSpeech 1.5 checkpoint, in any layout that `layout` and `weights` know, and places it on a device.

The precision policy is stated here and nowhere else. On CUDA every weight of the language model and of the codec's
decoder is FP16, verified after load; norms, softmax, logits and sampling compute in FP32; the codec's encoder, which
runs once a voice, stays FP32. On CPU everything is FP32.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from inference.errors import CheckpointError, PrecisionError
from inference.model import weights
from inference.model.codec import Backbone, Codec, Head
from inference.model.config import HEADS, CodecConfig, DualARConfig, GenerationDefaults
from inference.model.dual_ar import DualAR, WithoutInitialisation
from inference.model.layout import Layout, layout_of
from inference.model.tokenizer import Tokenizer
from inference.threads import run_in_short_lived_thread

MAX_LISTED = 3
"""How many tensors an error names."""


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model: everything needed to turn prompts into codes and codes into samples. `codec_id` identifies its codec."""

    files: Layout
    config: DualARConfig
    defaults: GenerationDefaults
    tokenizer: Tokenizer
    lm: DualAR
    codec: Codec
    device: torch.device
    codec_id: str

    @property
    def path(self) -> Path:
        """What was named: a directory, or a file of weights."""
        return self.files.path


def precision(device: torch.device) -> torch.dtype:
    """The dtype of the language model's and the decoder's weights on a device."""
    return torch.float16 if device.type == "cuda" else torch.float32


@run_in_short_lived_thread
def load(checkpoint: Path | Layout, device: torch.device, copies: Path | None = None) -> Checkpoint:
    """Load a checkpoint onto a device: a directory that holds all of it, or files in other places.

    The first load writes a safetensors copy to `copies` (by default the user's cache folder), which later starts
    map into memory. Raises CheckpointError, in one message, when the checkpoint cannot be used.
    """
    files = checkpoint if isinstance(checkpoint, Layout) else layout_of(checkpoint)
    path = files.path
    config = DualARConfig.from_file(files.config)
    defaults = GenerationDefaults.from_file(files.defaults)
    for name in HEADS:
        if beyond := [[*h] for h in getattr(defaults, name) if h.layer >= config.n_layer or h.head >= config.n_head]:
            raise CheckpointError(
                f"{path}: generation_config.json's {name} name {beyond}; the model has {config.n_layer} layers of {config.n_head} heads"
            )
    tokenizer = Tokenizer.from_file(files.tokenizer)
    if tokenizer.n_vocab > config.vocab_size:
        raise CheckpointError(f"{path}: the tokenizer has {tokenizer.n_vocab} ids but config.json's vocab_size is {config.vocab_size}")
    copies = copies or weights.default_copies()
    codec = _load_codec(files.codec, copies)
    if codec.config.groups != config.num_codebooks:
        raise CheckpointError(f"{path}: the codec has {codec.config.groups} codebooks but the language model speaks {config.num_codebooks}")
    lm = _load_lm(files, config, tokenizer.semantic_begin, device, copies)
    codec_id = _identity(codec)
    _place_codec(codec, device)
    verify_precision(lm, codec, device)
    return Checkpoint(files, config, defaults, tokenizer, lm.eval(), codec.eval(), device, codec_id)


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


def _load_lm(files: Layout, config: DualARConfig, semantic_begin: int, device: torch.device, copies: Path) -> DualAR:
    lm = DualAR.without_values(config, semantic_begin)
    tensors = weights.language_model(files.weights, copies, files.adapter)
    check_names(files.weights, lm, tensors.shapes)
    dtype = precision(device)
    placed = {name: _cast(files.weights, name, t, device, dtype) for name, t in tensors.items()}
    lm.load_state_dict(placed, assign=True)
    return lm.requires_grad_(False).to(device)


def _load_codec(file: Path, copies: Path) -> Codec:
    tensors = weights.codec(file, copies)
    shapes = {name: tuple(t.shape) for name, t in tensors.items()}
    config = CodecConfig.from_state_dict(tensors)
    with torch.device("meta"), WithoutInitialisation():  # a few small tensors could ask for any amount of memory
        convolutions = nn.ModuleDict({"backbone": Backbone(config), "head": Head(config)})
    check_names(file, convolutions, {name: shape for name, shape in shapes.items() if name.startswith(("backbone.", "head."))})
    codec = Codec(config)
    check_names(file, codec, shapes)
    codec.load_state_dict({name: _cast(file, name, t, torch.device("cpu"), torch.float32) for name, t in tensors.items()})
    return codec.requires_grad_(False)


def _place_codec(codec: Codec, device: torch.device) -> None:
    dtype = precision(device)
    codec.to(device)
    torch.backends.cudnn.allow_tf32 = False  # otherwise the encoder is not truly FP32, and codes differ from a CPU's
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False  # otherwise sums of FP16 products may be rounded to FP16
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


def check_names(file: Path, module: nn.Module, found: Mapping[str, tuple[int, ...]]) -> None:
    """Raise CheckpointError naming the tensors of a file that a module lacks, misses, or has in another shape."""
    expected = {name: tuple(p.shape) for name, p in module.state_dict().items()}
    problems = []
    if missing := sorted(expected.keys() - found.keys()):
        problems.append(f"missing: {_listed(missing)}")
    if unexpected := sorted(found.keys() - expected.keys()):
        problems.append(f"unexpected: {_listed(unexpected)}")
    if wrong := [n for n in sorted(expected.keys() & found.keys()) if expected[n] != found[n]]:
        problems.append("wrong shape: " + _listed([f"{n} is {found[n]}, expected {expected[n]}" for n in wrong]))
    if problems:
        raise CheckpointError(f"{file} does not fit its configuration; " + "; ".join(problems))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(name[:200] for name in names[:MAX_LISTED]) + more

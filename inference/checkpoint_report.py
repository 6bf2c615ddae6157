"""`fishserve checkpoint inspect`: what a path holds, what it lacks, and what loading it will do. It reads no weights and downloads no model."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from inference.errors import CheckpointError
from inference.hub import DEFAULT_REPOSITORY, local_base, locate_adapter, locate_codec
from inference.model import tensor_file
from inference.model.checkpoint import check_names
from inference.model.config import DualARConfig
from inference.model.dual_ar import DualAR
from inference.model.layout import codec_file, tokenizer_file, weights_file
from inference.model.lora import is_lora, read_lora
from inference.model.tensor_file import TensorFile
from inference.model.tokenizer import Tokenizer
from inference.model.weights import LanguageModelWeights, official_names


@dataclass(frozen=True)
class Finding:
    """One line of a report: about which part, what was found, and whether the checkpoint can be used with it."""

    part: str
    text: str
    good: bool = True


def report(path: Path, codec: str | None = None, adapter: str | None = None) -> list[Finding]:
    """What is at a path. The last finding says whether it loads. Errors become findings."""
    findings: list[Finding] = []
    try:
        weights = weights_file(path)
        content = tensor_file.read(weights, checked=False)
        findings.append(Finding("weights", _described(weights, content)))
        if any(map(is_lora, content.tensors)):
            return [*findings, *_adapter_alone(path)]
        findings.append(Finding("kind", _kind(weights, content)))
        parts = _parts(weights.parent, path, codec)
        findings += [Finding(part, text) for part, (_, text) in parts.items()]
        if model := _model(weights, content, parts["config"][0], parts["tokenizer"][0]):
            findings.append(Finding("shape", model))
        if adapter is not None:
            lora = read_lora(locate_adapter(adapter))
            LanguageModelWeights(official_names(weights, content.tensors), lora)
            ranks = ", ".join(map(str, lora.ranks))
            findings.append(
                Finding("adapter", f"{lora.adapter.file}: rank {ranks}, alpha {lora.adapter.alpha:g}, added to {len(lora.names)} weights")
            )
    except CheckpointError as e:
        return [*findings, Finding("result", f"cannot be loaded: {e}", good=False)]
    return [*findings, Finding("result", "loads as FP32 on a CPU, as FP16 on CUDA")]


def _described(file: Path, content: TensorFile) -> str:
    count = Counter(str(t.dtype).removeprefix("torch.") for t in content.tensors.values())
    numbers = sum(t.numel() for t in content.tensors.values()) / 1e6
    kinds = ", ".join(f"{number} of {name}" for name, number in count.most_common(4))
    ignored = f"; a training checkpoint, whose {', '.join(content.besides[:12])[:200]} are not read" if content.besides else ""
    return f"{file}: {content.format}, {len(content.tensors)} tensors ({kinds}), {numbers:.1f} M numbers{ignored}"


def _kind(file: Path, content: TensorFile) -> str:
    tensors = official_names(file, content.tensors)
    if any(t.dtype == torch.int8 for t in tensors.values()):
        return "quantised to int8; weights are multiplied by their scales when they are loaded"
    prefixed = any(name.startswith("model.") for name in content.tensors)
    return "a whole model" + (", whose names begin with `model.`, as a trainer saves them" if prefixed else "")


def _adapter_alone(path: Path) -> list[Finding]:
    lora = read_lora(locate_adapter(str(path)))
    ranks = ", ".join(map(str, lora.ranks))
    return [
        Finding(
            "kind",
            f"a LoRA adapter of rank {ranks} for {len(lora.names)} weights, such as {lora.names[0]}; it does not say its alpha, which is usually 16",
        ),
        Finding("result", f"loads with the checkpoint that it was trained on: --checkpoint BASE --adapter {path}"),
    ]


def _parts(directory: Path, path: Path, codec: str | None) -> dict[str, tuple[Path | None, str]]:
    """For each file besides the weights: where it is, if it is here, and a sentence."""
    base = local_base(path)
    config = directory / "config.json"
    here = {"config": config if config.is_file() else None, "tokenizer": tokenizer_file(directory), "codec": codec_file(directory)}
    there = {"config": base and base / "config.json", "tokenizer": base and tokenizer_file(base), "codec": base and codec_file(base)}
    parts: dict[str, tuple[Path | None, str]] = {}
    for part, file in here.items():
        if part == "codec" and codec is not None:
            parts[part] = (chosen := locate_codec(codec)), f"{chosen}, as FISHSERVE_CODEC says"
        elif file is not None:
            parts[part] = file, str(file)
        elif (other := there[part]) is not None:
            parts[part] = other, f"not beside the weights; {other} is used"
        else:
            remedy = "; FISHSERVE_CODEC names another" if part == "codec" else ""
            parts[part] = None, f"not beside the weights; that of {DEFAULT_REPOSITORY} is downloaded when it is loaded{remedy}"
    return parts


def _model(weights: Path, content: TensorFile, config: Path | None, tokenizer: Path | None) -> str | None:
    """The model's shape, once the tensors fit it. None without a configuration to compare with."""
    if config is None:
        return None
    c = DualARConfig.from_file(config)
    begin = 0 if tokenizer is None else Tokenizer.from_file(tokenizer).semantic_begin
    check_names(weights, DualAR.without_values(c, begin), LanguageModelWeights(official_names(weights, content.tensors)).shapes)
    return f"{c.n_layer} and {c.n_fast_layer} layers of {c.dim}, {c.vocab_size} tokens, {c.num_codebooks} codebooks; the weights fit it"

"""`fishserve doctor`: looks at everything a server will need and says what it found."""

from __future__ import annotations

import os
import platform
import re
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from inference import cuda_driver
from inference.cpu_threads import waiting
from inference.engine.captured import GRAPHS
from inference.engine.decode_step import Step
from inference.engine.device import USUAL_SLOTS, allowed_fast_layers, pick_device, use_threads, why_no_gpu
from inference.engine.runner import Runner
from inference.engine.vocoder import Vocoder
from inference.errors import FishserveError, RequestError
from inference.hub import EMBEDDED_VOICE, complete, locate, name_of
from inference.model import checkpoint as checkpoints
from inference.model import tensor_file
from inference.model.card import OFFICIAL_LICENCE, read_card
from inference.model.checkpoint import Checkpoint
from inference.model.config import DualARConfig
from inference.model.layout import Layout
from inference.settings import Settings

GIB = 1 << 30
_POSITIONS = 4096  # of cache for one request, in the memory estimate


def examine(settings: Settings, console: Console) -> bool:
    """Print a table of findings; True when nothing is wrong."""
    table = Table(show_header=False, box=None)
    healthy = True

    def row(name: str, finding: str, good: bool = True) -> None:
        nonlocal healthy
        healthy &= good
        table.add_row(Text("ok", "green") if good else Text("wrong", "bold red"), name, finding)

    row("fishserve", f"{_version()}, Python {platform.python_version()}, torch {torch.__version__}")
    try:
        chosen = pick_device(settings.device)
        row("device", _device(chosen))
        allowed_fast_layers(settings.fast_layers, settings.weights, chosen)
        driver = cuda_driver.find()
        if driver and chosen.type == "cuda":
            row("driver", f"{driver}; torch is built for CUDA {torch.version.cuda}")
        elif driver and settings.device == "auto":
            row("driver", f"the CPU computes: {why_no_gpu()}", good=False)
        row(
            "precision",
            f"{_name(checkpoints.precision(chosen))} weights for language model and decoder{_rounded(settings)}; "
            "norms, softmax, logits and sampling in float32",
        )
        path = locate(settings.checkpoint)
        files = complete(path, settings.codec, settings.adapter)  # raises when a file is missing
        row("model", _model(path))
        if files.codec.parent != files.weights.parent:
            row("codec", str(files.codec))
        if files.adapter is not None:
            row("adapter", f"{files.adapter.file}, alpha {files.adapter.alpha:g}")
        row("weights licence", _licence(path))
        needed, free = _needed(files, chosen), _free(chosen)
        row("memory", f"{_size(free)} free, about {_size(needed)} needed to load and speak one request", free > needed)
        started = time.perf_counter()
        loaded = checkpoints.load(files, chosen, settings.cache_dir)
        row(
            "checkpoint",
            f"{path}: complete, undamaged, {_parameters(loaded):.1f} M parameters, loaded in {time.perf_counter() - started:.1f} s",
        )
        if chosen.type == "cpu":
            threads = use_threads(loaded)
            row("threads", f"{threads.threads}: {threads.reason}")
            row("waiting", waiting())
            row("batches", _batches(loaded))
        else:
            runner, codec = Runner(loaded, 1, settings.weights, settings.fast_layers), Vocoder(loaded.codec).how
            how = f"frames: {runner.how}; prefill: {runner.prefill_how}; codec: {codec}"
            row("graphs", how, runner.how == runner.prefill_how == codec == GRAPHS)
    except FishserveError as e:
        row("device" if isinstance(e, RequestError) and e.param == "device" else "checkpoint", str(e), good=False)
    console.print(table)
    return healthy


def _version() -> str:
    try:
        return version("fishserve")
    except PackageNotFoundError:
        return "(not installed)"


def _rounded(settings: Settings) -> str:
    return ", its layers' rounded to 8 bits" if settings.weights == "int8" else ""


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device}: {torch.cuda.get_device_name(device)}"
    return "cpu"


def _model(path: Path) -> str:
    if path == EMBEDDED_VOICE:
        return "minnow, the bundled voice"
    return read_card(path).name or name_of(path)


def _licence(path: Path) -> str:
    card = read_card(path)
    if card.random:
        return f"{card.licence}; random weights, which speak noise"
    if card.licence:
        return f"{card.licence} (from the model card)"
    return f"no model card here; FishSpeech 1.5's own weights are {OFFICIAL_LICENCE}"


def _needed(files: Layout, device: torch.device) -> int:
    config = DualARConfig.from_file(files.config)
    size = checkpoints.precision(device).itemsize
    numbers = sum(t.numel() for t in tensor_file.read(files.weights, checked=False).tensors.values())
    half = 0 if device.type == "cuda" else 2 * numbers  # a CPU also keeps large matrices as FP16
    weights = numbers * size + half + files.codec.stat().st_size
    cache = 2 * config.n_layer * config.n_local_heads * config.head_dim * min(_POSITIONS, config.max_seq_len) * size
    return weights + cache


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / (1 << 20):.0f} MiB"


def _free(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    available = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text()) if Path("/proc/meminfo").exists() else None
    # On systems other than Linux, use the physical memory.
    return int(available[1]) * 1024 if available else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _batches(checkpoint: Checkpoint) -> str:
    """The weight layouts that give a request the same codes alone and in a batch, and their cost for a single request."""
    layouts = Step(checkpoint.lm, USUAL_SLOTS["cpu"]).layouts
    kinds = ", ".join(f"{count} matrices {name}" for name, count in layouts.names().items())
    padded = layouts.padded(1)
    cost = f"one row is multiplied as {padded}, which takes {layouts.cost(1):.2f} times as long" if padded > 1 else "at no cost"
    return f"{kinds}; tried on this processor ({torch.backends.cpu.get_cpu_capability()}): a request gets the same codes alone and among others, {cost}"


def _parameters(checkpoint: Checkpoint) -> float:
    modules = (checkpoint.lm, checkpoint.codec)
    return sum(p.numel() for m in modules for p in m.parameters()) / 1e6

"""Which kernels of a frame take how long on a GPU: its graph alone, without the host's work, kernel by kernel."""

from __future__ import annotations

import time
from typing import Any, get_args

import torch
from torch.profiler import ProfilerActivity, profile

from inference.engine.device import FastLayerKernels
from inference.engine.runner import WINDOW, Runner
from inference.engine.sampler import NONE
from inference.model.checkpoint import Checkpoint

LENGTH = 256
"""Positions that each row holds."""
REPLAYS, FRAMES, TURNS = 20, 10, 5
LISTED = 40
"""Kernels that are listed: more are the library's, a few microseconds each."""


@torch.inference_mode()
def profiled(checkpoint: Checkpoint, rows: int) -> dict[str, Any]:
    """How long an engine of so many rows takes to start, how its frames and prompts run, seconds of a frame, and of each kernel of one.

    A kernel is (name, launches a frame, seconds a frame). Without graphs there are no frames and no kernels.
    """
    device = checkpoint.device
    started = time.perf_counter()
    runner = Runner(checkpoint, rows)
    found: dict[str, Any] = {"rows": rows, "start_seconds": time.perf_counter() - started, "how": runner.how, "prefill": runner.prefill_how}
    graphs = runner._graphs
    if graphs is None:
        return found
    seconds = _replayed(checkpoint, runner, rows)
    kind = ProfilerActivity.CUDA if device.type == "cuda" else ProfilerActivity.CPU
    with profile(activities=[kind]) as traced:
        for _ in range(FRAMES):
            graphs.launch(rows).wait()
    of = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    kernels = sorted(((k.key, k.count / FRAMES, getattr(k, of) / FRAMES / 1e6) for k in traced.key_averages()), key=lambda k: -k[2])
    return found | {"seconds": seconds, "kernels": kernels[:LISTED]}


@torch.inference_mode()
def in_turns(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """Frames of one row with separate kernels for the fast layers and with one for all, in turns in this process.

    Each has `how` its frames run, how far its choices lie `behind` the eager step's likeliest, and the seconds of its frames.
    """
    ways = get_args(FastLayerKernels)
    runners = [Runner(checkpoint, 1, fast_layers=way) for way in ways]
    found = []
    for way, runner in zip(ways, runners, strict=True):
        behind = runner._graphs.check(runner._step, runner._speakable) if runner._graphs else None
        found.append({"fast_layers": way, "how": runner.how, "behind": behind, "seconds": []})
    for _ in range(TURNS):
        for one, runner in zip(found, runners, strict=True):
            if runner._graphs:
                one["seconds"] += _replayed(checkpoint, runner, 1)
    return found


def _replayed(checkpoint: Checkpoint, runner: Runner, rows: int) -> list[float]:
    """Seconds of a frame of this many rows, a few times: frames in a row on the device alone."""
    graphs, device = runner._graphs, checkpoint.device
    assert graphs is not None
    codebooks, begin = checkpoint.config.num_codebooks, checkpoint.tokenizer.semantic_begin
    runner._cache.both[:, :, :rows, :, : LENGTH + REPLAYS * FRAMES].normal_()
    for row in range(rows):
        codes = torch.randint(0, 1000, (codebooks,), generator=torch.Generator().manual_seed(row))
        column, history = torch.cat((codes[:1] + begin, codes)), torch.full((codebooks, WINDOW), NONE)
        graphs.place(row, column, LENGTH, row, 1, history, (0.7, 0.7, 1.2))
    for _ in range(5):
        graphs.launch(rows).wait()
    seconds = []
    for _ in range(REPLAYS):
        began = _now(device)
        for _ in range(FRAMES):
            last = graphs.launch(rows)
        last.wait()
        seconds.append((_now(device) - began) / FRAMES)
    return seconds


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()

"""Which kernels of a frame take how long on a GPU: its graph alone, without the host's work, kernel by kernel."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from inference.engine.runner import WINDOW, Runner
from inference.engine.sampler import NONE
from inference.model.checkpoint import Checkpoint

LENGTH = 256
"""Positions that each row holds."""
REPLAYS, FRAMES = 20, 10
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
    kind = ProfilerActivity.CUDA if device.type == "cuda" else ProfilerActivity.CPU
    with profile(activities=[kind]) as traced:
        for _ in range(FRAMES):
            graphs.launch(rows).wait()
    of = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    kernels = sorted(((k.key, k.count / FRAMES, getattr(k, of) / FRAMES / 1e6) for k in traced.key_averages()), key=lambda k: -k[2])
    return found | {"seconds": seconds, "kernels": kernels[:LISTED]}


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()

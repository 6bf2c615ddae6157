"""Times work on a device."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def timed(work: Callable[[], object], device: torch.device, seconds: float = 1.0, least: int = 5, most: int = 1000) -> list[float]:
    """Seconds of each run of `work`, repeated for about `seconds`, `least` to `most` times, after one run that does not count."""
    work()
    samples: list[float] = []
    until = now(device) + seconds
    while len(samples) < least or (len(samples) < most and now(device) < until):
        started = now(device)
        work()
        samples.append(now(device) - started)
    return samples


def now(device: torch.device) -> float:
    """The clock's seconds, after waiting for the device to finish its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()

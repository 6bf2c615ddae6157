"""Launches Triton's kernels, or compiles them instead. The only place that knows whether kernels may overlap."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

NARROW = 8
"""Up to this many rows a layer's products are our own, with norms and gates in them, and kernels overlap. On an H200 products of 8 rows take
20 µs a layer where the library's, norms and gates take 28; of 16 rows they are no faster (bench/results/gpu-products.json). The library's do
not overlap: among them a frame of 64 rows takes 2.35 ms if our kernels may, and 2.19 ms if not (bench/results/gpu-frame-variants.json).
"""
_overlap = True
"""Whether a kernel may begin before the last one has ended."""
_compiled_for: tuple[int, int] | None = None
"""The compute capability for which kernels are compiled instead of launched."""
_launches: list[Launch] | None = None


@dataclass(frozen=True)
class Launch:
    """A kernel that was compiled instead of launched, with its grid, and its constants and options by name."""

    kernel: str
    grid: tuple[int, ...]
    constants: dict[str, Any]
    compiled: Any


def power(n: int, least: int = 1) -> int:
    """The smallest power of two that is not less than `n` or `least`."""
    return max(least, triton.next_power_of_2(n))


def overlap(allowed: bool) -> None:
    """Let kernels overlap (programmatic dependent launch) where the device can, or not: for the whole process, as it is for the driver."""
    global _overlap  # noqa: PLW0603
    _overlap = allowed


@contextmanager
def compiling_for(capability: tuple[int, int], launches: list[Launch] | None = None) -> Iterator[None]:
    """In this block kernels are compiled for GPUs of this compute capability, and none is launched. `launches` gets each, in order."""
    global _compiled_for, _launches  # noqa: PLW0603
    _compiled_for, _launches = capability, launches
    try:
        yield
    finally:
        _compiled_for = _launches = None


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **named: Any) -> None:
    """Launch a kernel with these arguments, constants and options."""
    if _compiled_for is None:
        kernel[grid](*arguments, **named)
        return
    compiled = kernel.warmup(*arguments, grid=grid, **named)
    if _launches is not None:
        _launches.append(Launch(kernel.__name__.lstrip("_"), grid, named, compiled))


def on_gpu(x: Tensor) -> bool:
    """Whether kernels on `x` are machine code: else they run in Triton's interpreter."""
    return _compiled_for is not None or x.device.type == "cuda"


def options(x: Tensor, warps: int) -> dict[str, Any]:
    """The options of a launch on x (rows, ...). Programmatic dependent launch needs Hopper, and pays up to `NARROW` rows."""
    if not on_gpu(x):
        return {"PDL": False}
    pdl = _overlap and len(x) <= NARROW and (_compiled_for or torch.cuda.get_device_capability(x.device)) >= (9, 0)
    return {"PDL": pdl, "num_warps": warps, **({"launch_pdl": True} if pdl else {})}


def resident(x: Tensor, warps: int) -> dict[str, Any]:
    """The options of a launch on x (rows, ...) whose programs wait for each other: the driver begins all of them at once, or refuses.

    It begins when all earlier kernels have ended. `PDL` says whether the kernel may let the next one begin before its own end.
    """
    given = options(x, warps)
    given.pop("launch_pdl", None)
    return given | ({"launch_cooperative_grid": True} if on_gpu(x) else {})

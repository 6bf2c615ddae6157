"""Captures CUDA graphs in one way after the other until one works, and says which: a fallback to eager kernels must not be quiet."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from inference.engine import metrics

GRAPHS = "graphs"
T = TypeVar("T")
log = logging.getLogger("fishserve")


@dataclass(frozen=True)
class Captured(Generic[T]):
    """Graphs that were captured, or None. `how` says how the kernels run, in words, with the reasons where it is not the fastest way."""

    graphs: T | None
    how: str

    @property
    def fastest(self) -> bool:
        """Whether the first way worked."""
        return self.how == GRAPHS


def capture_first(
    part: str, slower: str, device: torch.device, ways: Sequence[tuple[str, Callable[[], T]]], failed: Callable[[], object]
) -> Captured[T]:
    """The graphs of the first of `ways` (name, and what captures and checks them) that works; none where all fail, and on a CPU.

    `part` names what runs, and `slower` says what it means that it runs eagerly. `failed` cleans up after each failure.
    """
    if device.type != "cuda":
        return Captured(None, "eager: graphs are for CUDA")
    reasons: list[str] = []
    for name, capture in ways:
        try:
            graphs = capture()
        except Exception as e:  # Triton, its compilers and the driver each raise their own kinds
            log.warning("%s: %s failed: %s: %s", part, name, type(e).__name__, e)
            reasons.append(f"{name} failed: {type(e).__name__}: {e}")
            failed()
            continue
        metrics.GRAPHS.labels(part).set(1)
        return Captured(graphs, "; ".join([name, *reasons]))
    log.warning("%s: CUDA graphs are not used, so that %s", part, slower)
    metrics.GRAPHS.labels(part).set(0)
    return Captured(None, "; ".join(["eager", *reasons]))

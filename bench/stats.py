"""The arithmetic behind every figure: percentiles with their counts, continuity, intervals of ratios. Knows numbers only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95


def percentiles(values: Sequence[float]) -> dict[str, float | int | None]:
    """Count, median, 90th, 95th and 99th percentile and the largest.

    A percentile that the count does not support is None: at least one value must lie beyond it, so the 95th needs 20 values.
    """
    found: dict[str, float | int | None] = {"n": len(values)}
    for p in (50, 90, 95, 99):
        enough = len(values) * (100 - p) >= 100 or (p == 50 and len(values) > 0)
        found[f"p{p}"] = float(np.percentile(values, p)) if enough else None
    return found | {"max": float(max(values)) if values else None}


def head_start(times: Sequence[float], durations: Sequence[float]) -> float:
    """Seconds a listener would have to wait after the first chunk to hear everything without a gap; 0 if none.

    Chunk i comes at `times[i]` seconds and lasts `durations[i]`. A player that starts at once has played the first i chunks
    `sum(durations[:i])` seconds later; if the next chunk comes after that, the player has run dry.
    """
    if not times:
        return 0.0
    needed = np.asarray(times) - times[0] - np.concatenate(([0.0], np.cumsum(durations)[:-1]))
    return max(0.0, float(needed.max()))


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Low and high end of an interval for the median, and the probability that the interval contains it.

    The i-th smallest and i-th largest of n values enclose the median with probability 1 - 2 P(Binomial(n, 1/2) < i), whatever the
    distribution. Below six values even the smallest and largest enclose it less often than in 95 of 100 cases; the probability says so.
    """
    ordered, n = sorted(values), len(values)
    if n == 0:
        return math.nan, math.nan, 0.0
    tails = np.cumsum([math.comb(n, k) for k in range(n // 2 + 1)]) / 2**n
    within = [i for i in range((n - 1) // 2 + 1) if 1 - 2 * tails[i] >= CONFIDENCE]
    i = max(within, default=0)
    return ordered[i], ordered[n - 1 - i], max(0.0, float(1 - 2 * tails[i]))


def ratio_interval(
    a: Sequence[float], b: Sequence[float], of: Callable[..., Any] = np.median, seed: int = 0
) -> tuple[float, float, float] | None:
    """The ratio of b's middle to a's, and a bootstrap interval (Efron 1979, percentiles of resampled ratios) around it.

    `of` computes the middle, and takes an `axis` as numpy's functions do. None when either is empty or the middle of `a` can be 0. The
    interval covers the scatter of the samples, not changes from one run to the next: two runs at different times may differ by more.
    """
    if not len(a) or not len(b):
        return None
    generator = np.random.default_rng(seed)
    middles = [of(generator.choice(np.asarray(x, float), (RESAMPLES, len(x))), axis=1) for x in (a, b)]
    if not middles[0].all() or not of(a, axis=0):
        return None
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(middles[1] / middles[0], (tail, 100 - tail))
    return float(of(b, axis=0) / of(a, axis=0)), float(low), float(high)

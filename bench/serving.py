"""Measures latency and throughput of any target, one load level after another."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

from bench.load import Sample, Speak, closed_loop, open_loop, poisson
from bench.prompts import Prompt, prompts
from bench.record import Record
from inference.errors import GenerationError

Step = Callable[[str, float | None], AbstractContextManager[None]]
"""Shows that a step with this name runs, and about how many seconds it takes."""
OWN_COST_SECONDS = 1.0
RATE_STEP = 1.5
MAX_RATES = 12


@dataclass(frozen=True)
class Objective:
    """A service level objective: the share of requests with first audio within `first_audio` seconds, then audio without a gap."""

    first_audio: float = 1.0
    share: float = 0.95

    def kept(self, sample: Sample) -> bool:
        """Whether one request met the objective."""
        return sample.continuous and sample.first_audio is not None and sample.first_audio <= self.first_audio

    def met(self, samples: Sequence[Sample]) -> bool:
        """Whether enough requests met it."""
        return sum(map(self.kept, samples)) >= self.share * len(samples)


async def own_cost(null: Speak, clients: int) -> dict[str, Any]:
    """The load generator's own cost: a closed loop of `clients` on a target that answers at once."""
    samples: list[Sample] = []
    await closed_loop(null, prompts(), clients, 0, [])
    await closed_loop(null, prompts(), clients, OWN_COST_SECONDS, samples)
    ended = sum(s.ended <= OWN_COST_SECONDS for s in samples)
    return {"clients": clients, "requests_per_second": ended / OWN_COST_SECONDS, "first_audio": [s.first_audio for s in samples]}


async def warm_up(speak: Speak, texts: Iterator[Prompt], clients: int, record: Record, step: Step) -> None:
    """Send one request per client, and record these samples separately. Raises GenerationError when none was answered."""
    samples: list[Sample] = []
    record.body["warmup"] = samples
    with step("warm-up", None):
        await closed_loop(speak, texts, clients, 0, samples)
    record.write()
    if all(s.error for s in samples):
        raise GenerationError(f"no request of the warm-up was answered: {samples[0].error}")


async def closed_levels(speak: Speak, texts: Iterator[Prompt], clients: Sequence[int], seconds: float, record: Record, step: Step) -> None:
    """A closed loop at each concurrency."""
    for n in clients:
        run: dict[str, Any] = {"loop": "closed", "clients": n}
        with _level(run, seconds, record), step(f"{n} client{'s'[: n > 1]}", seconds):
            await closed_loop(speak, texts, n, seconds, run["samples"])


async def open_levels(
    speak: Speak, texts: Iterator[Prompt], rate: float, seconds: float, objective: Objective, record: Record, step: Step
) -> None:
    """Open loops from `rate` requests a second on, each level 1.5 times as fast, until a level misses the objective.

    A level needs some twenty requests before a share of 95 % of them means much; slow levels therefore take longer than `seconds`.
    """
    for level in count():
        run: dict[str, Any] = {"loop": "open", "rate": rate}
        duration = max(seconds, min(20 / rate, 3 * seconds))
        with _level(run, duration, record), step(f"{rate:.2f} requests/s", duration):
            await open_loop(speak, texts, poisson(rate, duration, seed=level), run["samples"])
        run["met"] = objective.met(run["samples"]) if run["samples"] else None  # no arrivals: no verdict
        record.write()
        if run["met"] is False or level + 1 == MAX_RATES:
            return
        rate *= RATE_STEP


def one_client_rate(record: Record) -> float:
    """Requests a second that each client of the first level got."""
    first = record.runs[0]
    return len(first["samples"]) / max(s.ended for s in first["samples"]) / int(first["clients"])


@contextmanager
def _level(run: dict[str, Any], seconds: float, record: Record) -> Iterator[None]:
    """Record a run while it is measured: `window` is its number of seconds, fewer when it is cut short."""
    run["samples"] = []
    record.runs.append(run)
    started = time.perf_counter()
    try:
        yield
    finally:
        run["window"] = min(seconds, time.perf_counter() - started)
        record.write()


def requests_per_second(samples: Sequence[Sample], window: float) -> float:
    """Requests that ended within the window, for each second of it."""
    return sum(s.ended <= window and s.error is None for s in samples) / window


def audio_per_second(samples: Sequence[Sample], start: float, end: float) -> float:
    """Seconds of audio that came from `start` to `end`, for each second between them.

    It counts chunks, not requests: otherwise requests running at the end, up to a paragraph per client, would count for nothing or too
    much.
    """
    return sum(d for s in samples for t, d in zip(s.times, s.durations, strict=True) if start < t <= end) / (end - start)

"""Generates load in closed and open loops and times the responses. A target is a coroutine; this module knows neither engine nor HTTP.

All times are seconds since the load began. In an open loop latency counts from when a request was *due*, not from when it could be sent:
a server that stalls is charged for every client it kept waiting (no coordinated omission).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from bench.prompts import Prompt
from bench.stats import head_start
from inference.errors import FishserveError

TOGETHER = 0.005
"""Seconds: pieces that arrive from the network this close together count as one chunk."""
DRAIN = 120.0
"""Seconds after which an open loop stops waiting for its requests."""

PAUSE = 0.1
"""Seconds that a closed-loop client waits after a failure; otherwise it would send requests without end to a server that refuses at once.
"""

Heard = Callable[[float], None]
"""A target calls this for each chunk, with the chunk's seconds of audio."""
Speak = Callable[[Prompt, Heard], Awaitable[float | None]]
"""Speaks a prompt to its end; returns the seconds it waited before work on it began, or None where unknown. Raises FishserveError."""


@dataclass
class Sample:
    """One request: when it was due, was sent and ended, when each chunk came and how many seconds of audio it held.

    `queued` is the number of seconds from sending to first work, None where the target cannot know. `error` says why the request failed.
    """

    bucket: str
    language: str
    characters: int
    due: float
    sent: float
    times: list[float] = field(default_factory=list)
    durations: list[float] = field(default_factory=list)
    ended: float = 0.0
    queued: float | None = None
    error: str | None = None

    @property
    def first_audio(self) -> float | None:
        """Seconds from the due time to the first chunk."""
        return self.times[0] - self.due if self.times else None

    @property
    def audio(self) -> float:
        """Seconds of audio."""
        return sum(self.durations)

    @property
    def times_real_time(self) -> float | None:
        """Seconds of audio for each second from sending to the last chunk: the inverse of the real-time factor."""
        return self.audio / (self.times[-1] - self.sent) if self.times and self.times[-1] > self.sent else None

    @property
    def gaps(self) -> list[float]:
        """Seconds between chunks."""
        return [b - a for a, b in pairwise(self.times) if b - a > TOGETHER]

    @property
    def continuous(self) -> bool:
        """Whether a listener who starts at the first chunk hears everything without a gap."""
        return self.error is None and bool(self.times) and head_start(self.times, self.durations) == 0

    @property
    def waited(self) -> float | None:
        """Seconds from the due time to the first work on the request."""
        return None if self.queued is None else self.sent - self.due + self.queued


async def closed_loop(speak: Speak, prompts: Iterator[Prompt], clients: int, seconds: float, samples: list[Sample]) -> None:
    """Run `clients` that each send the next request once the last is answered, for `seconds`; then wait for running requests.

    With zero seconds each client sends one request. Each sample joins `samples` as it ends, so nothing is lost when the loop is cut short.
    """
    started = time.perf_counter()

    async def client() -> None:
        while True:
            await _take(speak, next(prompts), None, started, samples)
            if samples[-1].error is not None:
                await asyncio.sleep(PAUSE)
            if time.perf_counter() - started >= seconds:
                return

    await asyncio.gather(*(client() for _ in range(clients)))


async def open_loop(
    speak: Speak, prompts: Iterator[Prompt], arrivals: Sequence[float], samples: list[Sample], drain: float = DRAIN
) -> None:
    """Send a request at each of `arrivals`, in seconds from now, whether or not earlier requests were answered.

    A request that has not ended `drain` seconds after the last arrival becomes a sample with an error.
    """
    started, latest = time.perf_counter(), asyncio.get_running_loop().time() + max(arrivals, default=0.0) + drain
    async with asyncio.TaskGroup() as group:
        for due in arrivals:
            await asyncio.sleep(max(0.0, started + due - time.perf_counter()))
            group.create_task(_take(speak, next(prompts), due, started, samples, latest))


def poisson(rate: float, seconds: float, seed: int = 0) -> list[float]:
    """Arrivals of a Poisson process with `rate` a second, within `seconds`."""
    generator, arrivals, at = np.random.default_rng(seed), [], 0.0
    while (at := at + float(generator.exponential(1 / rate))) < seconds:
        arrivals.append(at)
    return arrivals


async def _take(
    speak: Speak, prompt: Prompt, due: float | None, started: float, samples: list[Sample], latest: float | None = None
) -> None:
    sent = time.perf_counter() - started
    sample = Sample(prompt.bucket, prompt.language, len(prompt.text), sent if due is None else due, sent)

    def heard(seconds: float) -> None:
        sample.times.append(round(time.perf_counter() - started, 6))
        sample.durations.append(seconds)

    try:
        async with asyncio.timeout_at(latest):
            sample.queued = await speak(prompt, heard)
        if not sample.times:
            sample.error = "no audio came"
    except FishserveError as e:
        sample.error = str(e)
    except TimeoutError:
        sample.error = "it had not ended when the measurement did"
    sample.ended = time.perf_counter() - started
    samples.append(sample)

"""Measures how long the SaaS API takes to accept a job, at a fixed arrival rate. Speaks HTTP only.

Through aiohttp: httpx takes five times the processor from what it measures, and as much again for each request that waits.
"""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import aiohttp

from bench.load import poisson
from bench.record import Record

WARM_UP = 3.0
"""Seconds at the same rate before the measurement begins."""
_TEXT = "The ferry leaves the harbour at a quarter past six, and whoever misses it has a long evening by the sea before them. " * 2
"""Takes longer to speak than the API waits for a result, so the API answers 202."""


async def measure(
    url: str,
    keys: list[str],
    rate: float,
    seconds: float,
    record: Record,
    step: Callable[[str, float | None], AbstractContextManager[None]],
) -> None:
    """Measure first the cost of a trivial response (`/healthz`), then jobs, `rate` a second, using the keys in turn."""
    connector, timeout = aiohttp.TCPConnector(limit=200), aiohttp.ClientTimeout(total=30)
    turns = itertools.cycle(keys)
    async with aiohttp.ClientSession(url, connector=connector, timeout=timeout) as client:

        async def nothing() -> int:
            async with client.get("/healthz") as answer:
                await answer.read()
                return answer.status

        async def job() -> int:
            headers = {"Authorization": f"Bearer {next(turns)}", "Idempotency-Key": uuid.uuid4().hex}
            async with client.post("/api/tts", json={"text": _TEXT}, headers=headers) as answer:
                await answer.read()
                return answer.status

        with step("warming up", WARM_UP):
            await _open_loop(job, rate, WARM_UP)
        for name, ask, expected, window in (("GET /healthz", nothing, 200, seconds / 4), ("POST /api/tts", job, 202, seconds)):
            with step(name, window):
                samples = await _open_loop(ask, rate, window)
            record.runs.append({"name": name, "rate": rate, "window": window, "expected": expected, "samples": samples})
            record.write()


async def _open_loop(ask: Callable[[], Any], rate: float, seconds: float) -> list[dict[str, Any]]:
    """Send requests at the arrivals of a Poisson process. Latency counts from when a request was due, not from when it could be sent."""
    samples: list[dict[str, Any]] = []
    began = time.perf_counter()

    async def one(due: float) -> None:
        sent = time.perf_counter() - began
        try:
            status: int | str = await ask()
        except (aiohttp.ClientError, TimeoutError) as e:
            status = type(e).__name__
        samples.append({"due": round(due, 5), "sent": round(sent, 5), "ended": round(time.perf_counter() - began, 5), "status": status})

    async with asyncio.TaskGroup() as group:
        for due in poisson(rate, seconds):
            await asyncio.sleep(max(0.0, began + due - time.perf_counter()))
            group.create_task(one(due))
    return samples

"""Requests with many voices, some of them far more popular than others: how often a server has computed a voice's prompt already."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.stats import percentiles
from inference.errors import RequestError
from inference.model.config import CODES_PER_GROUP

if TYPE_CHECKING:
    import httpx

TEXT = "The kettle is on."
FRAMES = 20
"""Frames of speech of each request."""
CODEBOOKS = 8
BYTES_PER_SECOND = 2 * 24_000
"""Of OpenAI's `pcm`."""
VOICE_SEED = 1
"""Each run asks for the same voices in the same order."""
LOOKUPS = "fishserve_prefix_lookups_total"


def _name(voice: int) -> str:
    return f"bench-{voice:04}"


def make_voices(directory: Path, voices: int, seconds: float) -> None:
    """Write voices of random codes into a voices directory. They sound like nothing, and cost what others cost."""
    for voice in range(voices):
        folder = directory / _name(voice)
        folder.mkdir(parents=True, exist_ok=True)
        codes = np.random.default_rng(voice).integers(0, CODES_PER_GROUP, (CODEBOOKS, round(seconds * 21.5)))
        np.save(folder / "codes.npy", codes)
        (folder / "text.txt").write_text(f"This is what voice number {voice} says.", encoding="utf-8")


async def measure_levels(url: str, voices: int, skew: float, levels: Sequence[int], seconds: float) -> list[dict[str, Any]]:
    """`measure` with each number of clients."""
    import httpx

    async with httpx.AsyncClient(timeout=httpx.Timeout(600, connect=10), trust_env=False) as client:
        return [await measure(client, url, voices, skew, clients, seconds) for clients in levels]


async def measure(client: httpx.AsyncClient, url: str, voices: int, skew: float, clients: int, seconds: float) -> dict[str, Any]:
    """A closed loop of `clients` for so many seconds, after as many to warm up. Voice n is asked for 1 / (n + 1)^skew times as often as the first.

    Returns the samples as `bench.load` has them, first audio in seconds, the share of prompts found, requests by status, each replica's
    prompts, and the share of this machine's processors that was used. Raises RequestError.
    """
    draw, weights = random.Random(VOICE_SEED), list(accumulate(1 / (rank + 1) ** skew for rank in range(voices)))
    start = time.monotonic()
    samples, statuses, warming_up = list[dict[str, Any]](), dict[int, int](), [0]

    def since() -> float:
        return round(time.monotonic() - start, 5)

    async def one() -> None:
        while (due := since()) < 2 * seconds:
            (voice,) = draw.choices(range(voices), cum_weights=weights)
            body = {"input": TEXT, "voice": _name(voice), "response_format": "pcm", "max_new_tokens": FRAMES}
            pieces: list[tuple[float, float]] = []
            async with client.stream("POST", f"{url}/v1/audio/speech", json=body) as response:
                async for piece in response.aiter_bytes():
                    pieces.append((since(), round(len(piece) / BYTES_PER_SECOND, 5)))
            if due < seconds:
                warming_up[0] += 1
                continue
            statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
            if response.status_code == 200:
                samples.append({"due": due, "times": [t for t, _ in pieces], "durations": [d for _, d in pieces], "ended": since()})

    async def halfway() -> tuple[dict[tuple[str, str], float], tuple[float, float]]:
        await asyncio.sleep(seconds)
        return await _lookups(client, url), processor_seconds()

    looking = asyncio.ensure_future(halfway())
    await asyncio.gather(*(one() for _ in range(clients)))
    before, (used, there) = await looking
    now_used, now_there = processor_seconds()
    grown = {key: value - before.get(key, 0) for key, value in (await _lookups(client, url)).items()}
    replicas = {replica: {result: grown.get((replica, result), 0) for result in ("hit", "miss")} for replica, _ in grown}
    hits, all_of_them = sum(r["hit"] for r in replicas.values()), sum(grown.values())
    if not all_of_them:
        raise RequestError(f"{url}/metrics counts no prompts of voices ({LOOKUPS}); did the server answer any request?")
    return {
        "loop": "closed", "clients": clients, "first_audio": percentiles([s["times"][0] - s["due"] for s in samples if s["times"]]),
        "hit_rate": hits / all_of_them, "statuses": statuses, "replicas": replicas, "warming_up": warming_up[0],
        "busy": round((now_used - used) / max(1e-9, now_there - there), 3), "samples": samples,
    }  # fmt: skip


def processor_seconds() -> tuple[float, float]:
    """What this machine's processors have worked, and how long they have been there, in one unit; zeros where Linux does not say."""
    try:
        times = [int(word) for word in Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0].split()[1:9]]
    except OSError:
        return 0.0, 0.0
    return float(sum(times) - times[3] - times[4]), float(sum(times))  # all but idle and waiting for a disk


async def _lookups(client: httpx.AsyncClient, url: str) -> dict[tuple[str, str], float]:
    """How many voices were looked up, by replica and result."""
    from prometheus_client.parser import text_string_to_metric_families

    page = (await client.get(f"{url}/metrics")).text
    samples = (sample for family in text_string_to_metric_families(page) for sample in family.samples if sample.name == LOOKUPS)
    return {(sample.labels.get("replica", ""), sample.labels["result"]): sample.value for sample in samples}

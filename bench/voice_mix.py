"""Requests with many voices, some of them far more popular than others: how often a server has computed a voice's prompt already."""

from __future__ import annotations

import asyncio
import random
import time
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


async def measure(client: httpx.AsyncClient, url: str, voices: int, skew: float, clients: int, seconds: float) -> dict[str, Any]:
    """A closed loop of `clients` for so many seconds, after as many to warm up. Voice n is asked for 1 / (n + 1)^skew times as often as the first.

    Returns first audio in seconds, the share of prompts found, requests by status, and each replica's prompts. Raises RequestError.
    """
    draw, weights = random.Random(1), list(accumulate(1 / (rank + 1) ** skew for rank in range(voices)))
    ends, first, statuses = time.monotonic() + 2 * seconds, list[float](), dict[int, int]()
    counted = ends - seconds

    async def one() -> None:
        while (began := time.monotonic()) < ends:
            (voice,) = draw.choices(range(voices), cum_weights=weights)
            body = {"input": TEXT, "voice": _name(voice), "response_format": "pcm", "max_new_tokens": FRAMES}
            async with client.stream("POST", f"{url}/v1/audio/speech", json=body) as response:
                heard = 0.0
                async for _ in response.aiter_bytes():
                    heard = heard or time.monotonic() - began
            if began >= counted:
                statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
                first.append(heard)

    async def halfway() -> dict[tuple[str, str], float]:
        await asyncio.sleep(seconds)
        return await _lookups(client, url)

    looking = asyncio.ensure_future(halfway())
    await asyncio.gather(*(one() for _ in range(clients)))
    before = await looking
    grown = {key: value - before.get(key, 0) for key, value in (await _lookups(client, url)).items()}
    replicas = {replica: {result: grown.get((replica, result), 0) for result in ("hit", "miss")} for replica, _ in grown}
    hits, all_of_them = sum(r["hit"] for r in replicas.values()), sum(grown.values())
    if not all_of_them:
        raise RequestError(f"{url}/metrics counts no prompts of voices; its model may ignore voices, as minnow does")
    return {"first_audio": percentiles(first), "hit_rate": hits / all_of_them, "statuses": statuses, "replicas": replicas}


async def _lookups(client: httpx.AsyncClient, url: str) -> dict[tuple[str, str], float]:
    """How many voices were looked up, by replica and result."""
    from prometheus_client.parser import text_string_to_metric_families

    page = (await client.get(f"{url}/metrics")).text
    samples = (sample for family in text_string_to_metric_families(page) for sample in family.samples if sample.name == LOOKUPS)
    return {(sample.labels.get("replica", ""), sample.labels["result"]): sample.value for sample in samples}

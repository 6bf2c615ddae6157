"""A siege: ordinary clients of all APIs, and attackers beside them; what the ordinary ones saw."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from bench.attack import ATTACKS, ON_SERVER, Target, probe
from bench.process_memory import MemoryOverTime
from inference.processes import end_with_parent

SHOPPERS, ATTACKERS = 56, 8
"""Clients who speak now and then, and those who attack beside them."""
BUSY = 0.5
"""The share of its time that the server would be busy with the shoppers, if it spoke to one at a time."""
RESTS_SECONDS = 15.0
"""How long an attacker rests at most."""
SETTLES_SECONDS = 10
"""After so many without a request each process has given back what it does not need."""
SIEGE = tuple(name for name in ON_SERVER if name not in ("150 callers of a full queue", "whole reply of 350 MB"))
"""The attacks of a siege: the others ask for so much speech that everybody has less, as with any customer."""
SENTENCES = (1, 2, 3, 4)
"""What a shopper's text may have."""
DOORS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/v1/audio/speech", {"input": "", "response_format": "mp3"}), ("/v1/audio/speech", {"input": "", "stream_format": "sse"}),
    ("/v1/text-to-speech/default/stream", {"text": ""}), ("/v1/tts", {"text": "", "format": "opus"}),
    ("/v1/text-to-speech/default/stream-input", {}),
)  # fmt: skip


async def siege(target: Target, seconds: float, attackers: int) -> dict[str, Any]:
    """Ordinary clients of all doors for some time, with attackers beside them: what the ordinary ones, and a probe of /health, saw."""
    heard: list[float] = []
    answers: Counter[str] = Counter()
    waits, peak, before = [0.0], [0], target.memory()
    memory = MemoryOverTime(target.processes)
    rng = random.Random(attackers)

    async def speak(client: httpx.AsyncClient, door: tuple[str, dict[str, Any]], sentences: int) -> tuple[int, float]:
        """The status, and the seconds until the first byte of audio."""
        text, (path, body) = "The boat leaves at nine in the morning. " * sentences, door
        if path.endswith("stream-input"):
            return 200, await _first_of_socket(target, path, text)
        field, began, first = "text" if "text" in body else "input", time.monotonic(), 0.0
        async with client.stream("POST", path, json=body | {field: text}) as response:
            async for _ in response.aiter_bytes():
                first = first or time.monotonic() - began
        return response.status_code, first

    async def shop(client: httpx.AsyncClient, door: tuple[str, dict[str, Any]], rests: float) -> None:
        while True:
            await asyncio.sleep(rng.expovariate(1 / rests))  # so that there are as many at the beginning as later
            try:
                status, first = await speak(client, door, rng.choice(SENTENCES))
                answers[str(status)] += 1
                if status == 200:
                    heard.append(first)
            except (httpx.HTTPError, WebSocketException) as e:
                answers[type(e).__name__] += 1

    async with target.client() as client:
        for _ in range(2):  # the first time it is cold, and clients who come as seldom as that would make are another load
            began = time.monotonic()
            for sentences in SENTENCES:
                await speak(client, DOORS[0], sentences)
        rests = SHOPPERS * (time.monotonic() - began) / len(SENTENCES) / BUSY
        work = [asyncio.ensure_future(shop(client, DOORS[number % len(DOORS)], rests)) for number in range(SHOPPERS)]
        work += [asyncio.ensure_future(probe(target, waits, peak)), asyncio.ensure_future(memory.watch())]
        with _attackers(target, attackers):
            await asyncio.sleep(seconds)
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
    await asyncio.sleep(SETTLES_SECONDS)
    memory.take()
    heard.sort()
    waits.sort()
    return {
        "attackers": attackers, "seconds": seconds, "shoppers_rest_seconds": round(rests, 1), "answers": dict(answers), "first_audio_p50": round(_at(heard, 0.5), 3),
        "first_audio_p95": round(_at(heard, 0.95), 3), "health_p99": round(_at(waits, 0.99), 3), "health_longest": round(waits[-1], 3),
        "memory_mb": {"before": round(before / 1e6), "peak": round(peak[0] / 1e6), "after": round(target.memory() / 1e6)},
        "memory_by_process_mb": memory.told(),
    }  # fmt: skip


@contextlib.contextmanager
def _attackers(target: Target, number: int) -> Iterator[None]:
    """Attackers in a process that computes when nobody else does: those of a network compute elsewhere."""
    process = multiprocessing.get_context("spawn").Process(target=_attack_on, args=(os.getpid(), target, number), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def _attack_on(parent: int, target: Target, number: int) -> None:
    async def attack(seed: int) -> None:
        mood = random.Random(seed)
        while True:
            with contextlib.suppress(httpx.HTTPError, OSError, asyncio.IncompleteReadError):
                await ATTACKS[mood.choice(SIEGE)](target)
            await asyncio.sleep(mood.uniform(0, RESTS_SECONDS))

    async def attack_all() -> None:
        await asyncio.gather(*map(attack, range(number)))

    end_with_parent(parent)
    os.nice(19)
    if hasattr(os, "sched_setscheduler"):  # woken, even a nice process computes for milliseconds before it gives way
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    asyncio.run(attack_all())


async def _first_of_socket(target: Target, path: str, text: str) -> float:
    """Seconds until the first audio of ElevenLabs' WebSocket."""
    async with connect(target.url.replace("http", "ws", 1) + path, additional_headers=target.headers, max_size=None) as socket:
        began, first = time.monotonic(), 0.0
        for piece in (" ", text, ""):
            await socket.send(json.dumps({"text": piece}))
        async for message in socket:
            if json.loads(message).get("audio"):
                first = first or time.monotonic() - began
    return first


def _at(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))] if values else 0.0

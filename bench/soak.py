"""A long run of everything that goes wrong in production: mixed lengths, clients that leave, clients that stop reading, slots that turn to NaN, a device that fails.

It reaches into the engine to break it, and checks three things: memory stays flat, every row and every position is freed, and
every accepted request ends exactly once.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
import torch

from bench.prompts import BUCKETS, Prompt, prompts
from inference import Audio, Overloaded, Reference, SpeechEngine, SpeechRequest, Voice
from inference.engine.runner import Runner, Sequence
from inference.engine.stream import RequestHandle
from inference.errors import EngineClosed, RequestError
from inference.model.config import CODES_PER_GROUP

if TYPE_CHECKING:
    from bench.record import Record

STATM = Path("/proc/self/statm")
SAMPLE_SECONDS = 2.0
FLAT = 1.02
"""The most memory that the last quarter of the time may take, relative to the second quarter."""
VOICES = 80
"""With minnow and 8 rows, more voices than the prefix cache holds, so that some are dropped and computed again."""
DRAIN_SECONDS = 300
"""Time limit for the requests that still run at the end."""
FEWEST_SAMPLES = 3
"""Fewest memory samples in a quarter of the time for a statement about growth."""


class Client:
    """One request and its outcome. The client cancels `leaves` seconds after submitting; a `deaf` client never reads before that."""

    def __init__(self, engine: SpeechEngine, request: SpeechRequest, leaves: float | None, deaf: bool) -> None:
        self.leaves = None if leaves is None else time.monotonic() + leaves
        self.ends, self.unread, self.deaf, self.reason = 0, 0, deaf, "never ended"
        self.handle: RequestHandle | None = engine.submit(request, self._deliver, unread=lambda: self.unread)

    def _deliver(self, item: Audio | Exception | None) -> None:
        if isinstance(item, Audio):
            self.unread += self.deaf
        else:
            self.ends += 1

    def go_on(self, now: float) -> bool:
        """Cancel if it is time; return whether the request still runs. Drops the handle of an ended request, and its codes."""
        assert self.handle is not None
        if self.ends:
            self.reason, self.handle = self.handle.finish_reason or self.reason, None
            return False
        if self.leaves is not None and now >= self.leaves:
            self.handle.cancel()
        return True


def soak(
    engine: SpeechEngine,
    seconds: float,
    clients: int,
    seed: int,
    record: Record,
    step: Callable[[str, float | None], AbstractContextManager[None]],
    least: int = 1,
) -> bool:
    """Keep `clients` requests in flight for `seconds` and until there were at least `least` faults; then wait for them.

    Returns whether all checks passed; the record says which failed. Raises RequestError where the process cannot read its own memory use.
    """
    if not STATM.exists():
        raise RequestError(f"the soak reads its memory from {STATM}, which is not here; run it on Linux")
    runner = engine._runner  # the engine drops it when it ends
    rng, texts = random.Random(seed), prompts(BUCKETS, ("en", "de", "zh"))
    voices = [_voice(engine, rng) for _ in range(VOICES)]
    outcomes: Counter[str] = Counter()
    clients_ever: list[Client] = []
    running: list[Client] = []
    memory: list[dict[str, float]] = []
    started = sampled = asked = time.monotonic()
    with step("soak", seconds), _broken(engine, random.Random(seed + 1)) as faults:
        while engine.alive and time.monotonic() - asked < DRAIN_SECONDS:
            now = time.monotonic()
            asking = now - started < seconds or faults.total() < least
            if not asking and not running:
                break
            asked = now if asking else asked
            while asking and len(running) < clients:
                try:
                    running.append(_client(engine, next(texts), rng, voices))
                    clients_ever.append(running[-1])
                except (Overloaded, EngineClosed) as e:
                    outcomes[type(e).__name__] += 1
                    break
            running = [c for c in running if c.go_on(now)]
            if now - sampled >= SAMPLE_SECONDS:
                memory.append({"at": now - started, **_memory(engine, runner)})
                sampled = now
            time.sleep(0.005)
    left = {
        "slots": len(runner.sequences),
        "positions": runner.positions,
        "running": len(engine._scheduler.running),
        "waiting": len(engine._scheduler.waiting),
    }
    growth = _growth(memory, seconds)
    outcomes.update(c.reason for c in clients_ever)
    not_once = sum(c.ends != 1 for c in clients_ever)
    well = engine.alive and not any(left.values()) and not not_once and (growth is None or growth <= FLAT)
    record.runs.append(
        {"accepted": len(clients_ever), "outcomes": dict(outcomes), "faults": dict(faults), "ended_not_once": not_once, "left": left,
         "alive": engine.alive, "memory": memory, "growth": growth, "well": well}
    )  # fmt: skip
    return well


def _client(engine: SpeechEngine, prompt: Prompt, rng: random.Random, voices: list[Voice]) -> Client:
    voice = rng.choice(voices) if rng.random() < 0.5 else Voice()
    limit = rng.choice((None, 5, 60))
    request = SpeechRequest(prompt.text, voice, seed=prompt.number, max_new_tokens=limit)
    deaf = rng.random() < 0.05
    return Client(engine, request, rng.uniform(0, 3) if deaf or rng.random() < 0.2 else None, deaf)


def _voice(engine: SpeechEngine, rng: random.Random) -> Voice:
    """A reference of noise, 1 to 6 seconds long."""
    codes = np.random.default_rng(rng.randrange(2**32)).integers(
        0, CODES_PER_GROUP, (engine.checkpoint.config.num_codebooks, rng.randint(20, 130))
    )
    return Voice((Reference(codes, "What was said there."),))


@contextmanager
def _broken(engine: SpeechEngine, rng: random.Random) -> Iterator[Counter[str]]:
    """While the block runs, every 200th step poisons a row, and every 1000th fails as a device does. Counts the faults by kind."""
    runner, counts = engine._runner, Counter[str]()
    whole = runner.step

    def step(only: list[Sequence] | None = None) -> None:
        if runner.sequences and rng.random() < 1 / 200:
            counts["poisoned row"] += 1
            runner._cache.v[:, rng.choice(runner.sequences).slot, :, 0] = torch.nan
        if rng.random() < 1 / 1000:
            counts["failed device"] += 1
            raise RuntimeError("the soak let the device fail")
        whole(only)

    with patch.object(runner, "step", step):
        yield counts


def _memory(engine: SpeechEngine, runner: Runner) -> dict[str, float]:
    """Resident MiB, MiB on the device, bytes of cached voices."""
    resident = int(STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    cuda = torch.cuda.memory_allocated() if engine.checkpoint.device.type == "cuda" else 0
    return {"resident": resident / 2**20, "device": cuda / 2**20, "voices": runner._prefixes.bytes}


def _growth(memory: list[dict[str, float]], seconds: float) -> float | None:
    """Memory in the last quarter of the time divided by that in the second: the larger ratio of host and device.

    None if the run is too short.
    """
    second = [m for m in memory if seconds / 4 <= m["at"] < seconds / 2]
    last = [m for m in memory if 3 * seconds / 4 <= m["at"] < seconds]
    if min(len(second), len(last)) < FEWEST_SAMPLES:
        return None
    means: list[Any] = [(statistics.mean(m[k] for m in second), statistics.mean(m[k] for m in last)) for k in ("resident", "device")]
    return max(float(b / a) for a, b in means if a)

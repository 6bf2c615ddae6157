"""A model of a cluster in discrete events: what routing, autoscaling and cold starts cost with 10 to 10,000 replicas.

A replica gives each of its streams a frame per step, and a step takes `base + each * streams` seconds: the engine in one line. Where a
voice is not in the replica's cache, its prompt is computed first, for which the others wait. Times come from a record of
`fishserve bench latency`; nothing here runs an engine.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, count
from typing import Any

import numpy as np
import simpy

from inference.cluster.ring import Ring, bounded, least_loaded

FRAMES_PER_SECOND = 21.53
FIRST_FRAMES = 4
"""Frames of the first chunk that a listener hears."""
SLOTS = 8
Events = Generator[simpy.Event, Any, None]
"""A process of the simulation: it waits for events."""
CONTROL_SECONDS = 1.0
"""How often the autoscaler looks."""


@dataclass(frozen=True)
class Service:
    """Seconds: of a step with n streams `base + each * n`, before the first frame `start`, of a voice's prompt `prefill`."""

    base: float
    each: float
    start: float
    prefill: float

    def step(self, streams: int) -> float:
        return self.base + self.each * streams


def fitted(record: dict[str, Any], prefill: float) -> Service:
    """Service times from the closed loops of a record. Raises ValueError when it has fewer than two levels."""
    points = []
    for run in record["runs"]:
        if run["loop"] == "closed":
            paces = [
                (s["ended"] - s["times"][0]) / (sum(s["durations"][1:]) * FRAMES_PER_SECOND) for s in run["samples"] if len(s["times"]) > 1
            ]
            points.append((run["clients"], float(np.median(paces)), run["samples"]))
    if len(points) < 2:
        raise ValueError("the record has fewer than two closed loops")
    each, base = (max(0.0, float(v)) for v in np.polyfit([n for n, _, _ in points], [pace for _, pace, _ in points], 1))
    first = float(np.median([s["times"][0] - s["due"] for s in min(points, key=lambda p: p[0])[2] if s["times"]]))
    return Service(base, each, max(0.0, first - FIRST_FRAMES * (base + each)), prefill)


@dataclass(frozen=True)
class Mix:
    """Requests a second of a Poisson process, the mean seconds of their audio (exponential), and how voices are drawn (Zipf)."""

    rate: float
    audio: float = 6.0
    voices: int = 1000
    skew: float = 1.0


@dataclass(frozen=True)
class Fleet:
    """Replicas and what each has: slots, places in its queue, and voices that its cache holds. `most` and `cold` are for autoscaling."""

    replicas: int
    slots: int = 8
    queue: int = 16
    cached: int = 50
    routing: str = "voice"
    most: int | None = None
    cold: float = 30.0


@dataclass
class Outcome:
    """What a run came to. `first` are seconds to first audio, `replica_seconds` what was paid for."""

    first: list[float] = field(default_factory=list)
    hits: int = 0
    misses: int = 0
    refused: int = 0
    replica_seconds: float = 0.0

    @property
    def hit_rate(self) -> float:
        return self.hits / max(1, self.hits + self.misses)


@dataclass
class _Stream:
    voice: str
    frames: float
    arrived: float


class _Replica:
    """Streams that share a processor. `spoken` counts the frames that a stream would have that was there from the beginning."""

    def __init__(self, env: simpy.Environment, service: Service, fleet: Fleet, outcome: Outcome) -> None:
        self._env, self._service, self._fleet, self._outcome = env, service, fleet, outcome
        self._streams: list[tuple[float, int, Callable[[], None] | None]] = []
        self._numbers, self._version = count(), 0
        self._spoken = self._at = self._blocked_until = 0.0
        self._voices: OrderedDict[str, None] = OrderedDict()
        self.running, self.waiting = 0, deque[_Stream]()

    @property
    def load(self) -> int:
        return self.running + len(self.waiting)

    def take(self, stream: _Stream) -> bool:
        """Begin or queue a stream; False when the queue is full."""
        if self.running < self._fleet.slots:
            self._begin(stream)
        elif len(self.waiting) < self._fleet.queue:
            self.waiting.append(stream)
        else:
            return False
        return True

    def _begin(self, stream: _Stream) -> None:
        self._advance()
        if stream.voice in self._voices:
            self._outcome.hits += 1
        else:
            self._outcome.misses += 1
            self._blocked_until = max(self._blocked_until, self._env.now) + self._service.prefill
        self._voices[stream.voice] = None
        self._voices.move_to_end(stream.voice)
        if len(self._voices) > self._fleet.cached:
            self._voices.popitem(last=False)
        self.running += 1
        began = self._spoken + self._service.start / self._service.step(self.running)
        heard = lambda: self._outcome.first.append(self._env.now - stream.arrived)  # noqa: E731
        heapq.heappush(self._streams, (began + min(FIRST_FRAMES, stream.frames), next(self._numbers), heard))
        heapq.heappush(self._streams, (began + stream.frames, next(self._numbers), None))
        self._plan()

    def _advance(self) -> None:
        """Count the frames since the last event; none are made while a prompt is computed."""
        began = min(max(self._at, self._blocked_until), self._env.now)
        if self.running:
            self._spoken += (self._env.now - began) / self._service.step(self.running)
        self._at = self._env.now

    def _plan(self) -> None:
        """Wake up when the next stream is first heard or ends."""
        self._version += 1
        if self._streams:
            frames = max(0.0, self._streams[0][0] - self._spoken)
            wait = max(0.0, self._blocked_until - self._env.now) + frames * self._service.step(self.running)
            version = self._version
            self._env.timeout(wait).callbacks.append(lambda _: self._wake(version))

    def _wake(self, version: int) -> None:
        if version != self._version:
            return
        self._advance()
        while self._streams and self._streams[0][0] <= self._spoken + 1e-6:
            _, _, heard = heapq.heappop(self._streams)
            if heard:
                heard()
            else:
                self.running -= 1
        while self.waiting and self.running < self._fleet.slots:
            self._begin(self.waiting.popleft())
        self._plan()


class _Cluster:
    def __init__(self, env: simpy.Environment, service: Service, fleet: Fleet, outcome: Outcome) -> None:
        self._env, self._service, self._fleet, self._outcome = env, service, fleet, outcome
        self._turn = count()
        self.replicas: dict[str, _Replica] = {}
        self._starting = 0
        self._add(fleet.replicas)

    def _add(self, replicas: int = 1) -> None:
        for _ in range(replicas):
            self.replicas[f"replica-{next(self._turn)}"] = _Replica(self._env, self._service, self._fleet, self._outcome)
        self._ring, self._names = Ring(self.replicas), list(self.replicas)

    def route(self, stream: _Stream) -> None:
        """Offer a stream to up to three replicas, as the doors do."""
        for name in self._order(stream.voice):
            if self.replicas[name].take(stream):
                return
        self._outcome.refused += 1

    def _order(self, voice: str) -> Sequence[str]:
        if self._fleet.routing == "round_robin":
            first = next(self._turn)
            return [self._names[(first + i) % len(self._names)] for i in range(min(3, len(self._names)))]
        loads = _Loads(self.replicas, self._names)
        if self._fleet.routing == "voice":
            return bounded(self._ring.order(voice), loads, self._fleet.slots // 2)
        return least_loaded(self._names, loads)

    def scale(self) -> Events:
        """Add replicas while there are more requests than slots, as `fishserve cluster` does after 5 s; each is cold for a while."""
        above = 0.0
        while True:
            yield self._env.timeout(CONTROL_SECONDS)
            wanted = math.ceil(sum(r.load for r in self.replicas.values()) / self._fleet.slots)
            there = len(self.replicas) + self._starting
            above = above + CONTROL_SECONDS if wanted > there else 0.0
            if above >= 5 and there < (self._fleet.most or 0):
                self._env.process(self._start(min(wanted, self._fleet.most or 0) - there))
            self._outcome.replica_seconds += CONTROL_SECONDS * (len(self.replicas) + self._starting)

    def _start(self, replicas: int) -> Events:
        self._starting += replicas
        yield self._env.timeout(self._fleet.cold)
        self._starting -= replicas
        self._add(replicas)


class _Loads(dict[str, int]):
    """The loads of replicas, read when asked for; `values` are those of a random few, whose mean is about that of all."""

    def __init__(self, replicas: dict[str, _Replica], names: list[str]) -> None:
        few = names if len(names) <= 64 else random.sample(names, 64)
        super().__init__({name: replicas[name].load for name in few})
        self._replicas = replicas

    def __missing__(self, name: str) -> int:
        return self._replicas[name].load


def simulate(fleet: Fleet, mix: Mix, service: Service, seconds: float, seed: int = 0, *, burst: float = 1.0, warm: float = 0.1) -> Outcome:
    """Run a fleet for so many seconds; the share `warm` of them is not counted. From the middle on there are `burst` times as many requests."""
    random.seed(seed)
    draw, env, outcome = random.Random(seed + 1), simpy.Environment(), Outcome()
    cluster = _Cluster(env, service, fleet, outcome)
    weights = list(accumulate(1 / (rank + 1) ** mix.skew for rank in range(mix.voices)))
    names = [str(i) for i in range(mix.voices)]

    def arrive() -> Events:
        while True:
            yield env.timeout(draw.expovariate(mix.rate * (burst if env.now > seconds / 2 else 1.0)))
            (voice,) = draw.choices(names, cum_weights=weights)
            cluster.route(_Stream(voice, max(FIRST_FRAMES, draw.expovariate(1 / mix.audio) * FRAMES_PER_SECOND), env.now))

    env.process(arrive())
    if fleet.most is not None:
        env.process(cluster.scale())
    env.run(seconds * warm)
    outcome.first.clear()
    outcome.hits = outcome.misses = outcome.refused = 0
    env.run(seconds)
    return outcome


LOAD = 0.7
"""The share of a replica's speed that requests use."""
VOICES_A_REPLICA = 100


def table(service: Service, replicas: Sequence[int], cached: int, seconds: float) -> Iterator[dict[str, Any]]:
    """Rows: each routing at each size, with 100 voices a replica; at the first size a long burst of twice the requests, too.

    Bursts are met with as many replicas as before, or up to twice as many.
    """
    for n in replicas:
        mix = Mix(LOAD * n * speed(service, SLOTS) / Mix.audio, voices=VOICES_A_REPLICA * n)
        for routing in ("voice", "least_loaded", "round_robin"):
            outcome = simulate(Fleet(n, SLOTS, cached=cached, routing=routing), mix, service, seconds)
            yield {"case": "steady", "replicas": n, "routing": routing} | _row(outcome)
        for most, cold in ((n, 0.0), (2 * n, 5.0), (2 * n, 30.0)) if n == replicas[0] else ():
            outcome = simulate(Fleet(n, SLOTS, cached=cached, most=most, cold=cold), mix, service, 10 * seconds, burst=2.0)
            case = f"burst, replicas cold for {cold:.0f} s" if most > n else "burst, no autoscaling"
            yield {"case": case, "replicas": n, "routing": "voice"} | _row(outcome)


def speed(service: Service, slots: int) -> float:
    """Seconds of audio that a replica with all its slots taken makes in a second."""
    return slots / (service.step(slots) * FRAMES_PER_SECOND)


def _row(outcome: Outcome) -> dict[str, Any]:
    p50, p95, p99 = (round(float(v), 4) for v in np.percentile(outcome.first, (50, 95, 99)))
    asked = len(outcome.first) + outcome.refused
    return {
        "requests": asked, "hit_rate": round(outcome.hit_rate, 4), "first_audio_p50": p50, "first_audio_p95": p95, "first_audio_p99": p99,
        "refused": round(outcome.refused / asked, 4),
    }  # fmt: skip

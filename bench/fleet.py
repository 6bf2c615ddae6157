"""A model of a cluster in discrete events: what routing, autoscaling and cold starts cost with 10 to 10,000 replicas.

A replica gives each of its streams a frame per step, and a step takes `base + each * streams` seconds: the engine in one line. Where a
voice is not in the replica's cache, its prompt is computed first, for which the others wait. Times come from a record of `fishserve bench`;
nothing here runs an engine.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, count
from typing import Any

import numpy as np
import simpy

from inference.cluster.ring import Ring, bounded, least_loaded, most
from inference.model.config import FRAMES_PER_SECOND

FIRST_FRAMES = 4
"""Frames of the first chunk that a listener hears."""
SLOTS = 8
Events = Generator[simpy.Event, Any, None]
"""A process of the simulation: it waits for events."""
CONTROL_SECONDS = 1.0
"""How often the autoscaler looks."""
LOOK_BACK, UP_SECONDS, DOWN_SECONDS = 10, 5.0, 300.0
"""Its rule, as `inference.cluster.application` sets it: looks in a mean, and how long more or fewer replicas must be wanted."""
RETRY_SECONDS = 0.01
"""How soon a client of a closed loop asks again when it was refused."""
HISTORY = 6
"""Earlier requests for each place in a cache: they fill the caches of `simulate(..., filled=True)`."""


@dataclass(frozen=True)
class Service:
    """Seconds: of a step with n streams `base + each * n`, before the first frame `start`, of a voice's prompt `prefill`."""

    base: float
    each: float
    start: float
    prefill: float

    def step(self, streams: float) -> float:
        return self.base + self.each * streams


def fitted(record: dict[str, Any], prefill: float) -> Service:
    """Service times from the closed loops of a record. Raises ValueError when it has fewer than two levels."""
    points = []
    for run in record["runs"]:
        if run["loop"] == "closed":
            points.append((run["clients"], pace(run["samples"]), run["samples"]))
    if len(points) < 2:
        raise ValueError("the record has fewer than two closed loops")
    each, base = (max(0.0, float(v)) for v in np.polyfit([n for n, _, _ in points], [pace for _, pace, _ in points], 1))
    first = float(np.median([s["times"][0] - s["due"] for s in min(points, key=lambda p: p[0])[2] if s["times"]]))
    return Service(base, each, max(0.0, first - FIRST_FRAMES * (base + each)), prefill)


def pace(samples: Sequence[dict[str, Any]]) -> float:
    """Seconds for each frame after the first chunk of a stream, the median of a record's samples."""
    streams = [s for s in samples if len(s["times"]) > 1]
    return float(np.median([(s["ended"] - s["times"][0]) / (sum(s["durations"][1:]) * FRAMES_PER_SECOND) for s in streams]))


def speed(service: Service, slots: int) -> float:
    """Seconds of audio that a replica with all its slots taken makes in a second."""
    return slots / (service.step(slots) * FRAMES_PER_SECOND)


@dataclass(frozen=True)
class Mix:
    """Requests a second of a Poisson process, the mean seconds of their audio, and how voices are drawn (Zipf).

    Audio is exponential, or one of `lengths`. `voice_seed` makes all runs ask for the same voices in the same order. `shape` multiplies the rate, by the second. With `clients` there is no rate: so many
    clients ask again whenever their speech has ended.
    """

    rate: float = 1.0
    audio: float = 6.0
    voices: int = 1000
    skew: float = 1.0
    lengths: Sequence[float] = ()
    voice_seed: int | None = None
    shape: Callable[[float], float] = lambda _: 1.0
    clients: int = 0

    @property
    def weights(self) -> list[float]:
        """How often a voice or one before it is asked for, not normalised."""
        return list(accumulate(1 / (rank + 1) ** self.skew for rank in range(self.voices)))


@dataclass(frozen=True)
class Fleet:
    """Replicas and what each has: slots, places in its queue, and voices that its cache holds.

    With `most` it is scaled between `replicas` and so many, to `busy` requests each, and a new replica is `cold` seconds late.
    `share` is how much of a common machine one busy replica uses; replicas that together want more than all of it are slower.
    """

    replicas: int
    slots: int = SLOTS
    queue: int = 16
    cached: int = 50
    routing: str = "voice"
    most: int | None = None
    busy: float = SLOTS / 4
    cold: float = 30.0
    share: float = 0.0


@dataclass
class Outcome:
    """What a run came to. `first` are seconds to first audio, `refused` the times of refusals, `replica_seconds` what was paid for.

    `spilled` requests went to another replica than their voice's; `sizes` are the numbers of replicas, each minute.
    """

    first: list[float] = field(default_factory=list)
    hits: int = 0
    misses: int = 0
    spilled: int = 0
    refused: list[float] = field(default_factory=list)
    replica_seconds: float = 0.0
    sizes: list[int] = field(default_factory=list)

    @property
    def hit_rate(self) -> float:
        return self.hits / max(1, self.hits + self.misses)


@dataclass
class _Stream:
    """`ended` is called when all was heard or the request refused, with whether it was heard."""

    voice: str
    frames: float
    arrived: float
    ended: Callable[[bool], None]


class _Replica:
    """Streams that share a processor. `_spoken` counts the frames that a stream would have that was there from the beginning."""

    def __init__(self, cluster: _Cluster) -> None:
        self._cluster, self._env = cluster, cluster.env
        self._service, self._fleet, self._outcome = cluster.service, cluster.fleet, cluster.outcome
        self._streams: list[tuple[float, int, bool, _Stream]] = []
        self._numbers, self._version = count(), 0
        self._spoken = self._at = self._blocked_until = 0.0
        self.voices: OrderedDict[str, None] = OrderedDict()
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

    def has(self, voice: str) -> bool:
        """Look a voice up, and keep it: whether it was there."""
        found = voice in self.voices
        self.voices[voice] = None
        self.voices.move_to_end(voice)
        if len(self.voices) > self._fleet.cached:
            self.voices.popitem(last=False)
        return found

    def advance(self) -> None:
        """Count the frames since the last event; none are made while a prompt is computed."""
        began = min(max(self._at, self._blocked_until), self._env.now)
        if self.running:
            self._spoken += (self._env.now - began) / self._step()
        self._at = self._env.now

    def plan(self) -> None:
        """Wake up when the next stream is first heard or ends."""
        self._version += 1
        if self._streams:
            frames = max(0.0, self._streams[0][0] - self._spoken)
            wait = max(0.0, self._blocked_until - self._env.now) + frames * self._step()
            version = self._version
            self._env.timeout(wait).callbacks.append(lambda _: self._wake(version))

    def _step(self) -> float:
        return self._service.step(self.running) * self._cluster.slowness

    def _begin(self, stream: _Stream) -> None:
        self.advance()
        if self.has(stream.voice):
            self._outcome.hits += 1
        else:
            self._outcome.misses += 1
            self._blocked_until = max(self._blocked_until, self._env.now) + self._service.prefill * self._cluster.slowness
        self.running += 1
        began = self._spoken + self._service.start / self._service.step(self.running)
        heapq.heappush(self._streams, (began + min(FIRST_FRAMES, stream.frames), next(self._numbers), True, stream))
        heapq.heappush(self._streams, (began + stream.frames, next(self._numbers), False, stream))
        if self.running == 1:
            self._cluster.share_with(self, 1)
        self.plan()

    def _wake(self, version: int) -> None:
        if version != self._version:
            return
        self.advance()
        ended = []
        while self._streams and self._streams[0][0] <= self._spoken + 1e-6:
            _, _, is_first, stream = heapq.heappop(self._streams)
            if is_first:
                self._outcome.first.append(self._env.now - stream.arrived)
            else:
                self.running -= 1
                self._cluster.ongoing -= 1
                ended.append(stream)
        if ended and not self.running:
            self._cluster.share_with(self, -1)
        while self.waiting and self.running < self._fleet.slots:
            self._begin(self.waiting.popleft())
        self.plan()
        for stream in ended:
            stream.ended(True)


class _Loads(Mapping[str, int]):
    """The loads of replicas, read when asked for."""

    def __init__(self, replicas: dict[str, _Replica], names: list[str]) -> None:
        self._replicas, self._names = replicas, names

    def __getitem__(self, name: str) -> int:
        return self._replicas[name].load

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class _Cluster:
    """The replicas, the router and the autoscaler. `ongoing` are the requests that run and wait, `slowness` what a common machine costs."""

    def __init__(self, env: simpy.Environment, service: Service, fleet: Fleet, outcome: Outcome) -> None:
        self.env, self.service, self.fleet, self.outcome = env, service, fleet, outcome
        self._numbers, self._turn = count(), count()
        self._replicas: dict[str, _Replica] = {}
        self._leaving: list[_Replica] = []
        self._starting = self._busy = self.ongoing = 0
        self.slowness = 1.0
        self._add(fleet.replicas)

    def _add(self, replicas: int) -> None:
        for _ in range(replicas):
            self._replicas[f"replica-{next(self._numbers)}"] = _Replica(self)
        self._is_changed()

    def _is_changed(self) -> None:
        self._ring, self._names = Ring(self._replicas), list(self._replicas)
        self._loads = _Loads(self._replicas, self._names)

    def fill(self, voices: Sequence[str], draw: random.Random) -> None:
        """Leave in the caches what earlier requests for these voices would have left there if no replica had been full."""
        owners: dict[str, str] = {}
        for voice in voices:
            if self.fleet.routing == "voice":
                owner = owners.get(voice) or owners.setdefault(voice, next(self._ring.order(voice)))
            else:
                owner = draw.choice(self._names)
            self._replicas[owner].has(voice)

    def route(self, stream: _Stream) -> None:
        """Offer a stream to up to three replicas, as the doors do."""
        for name in self._order(stream.voice):
            if self._replicas[name].take(stream):
                self.ongoing += 1
                return
        self.outcome.refused.append(self.env.now)
        stream.ended(False)

    def _order(self, voice: str) -> Sequence[str]:
        if self.fleet.routing == "round_robin":
            first = next(self._turn)
            return [self._names[(first + i) % len(self._names)] for i in range(min(3, len(self._names)))]
        if self.fleet.routing == "least_loaded":
            return least_loaded(self._names, self._loads)
        limit = most(self.ongoing, len(self._names), self.fleet.slots // 2)
        offered = bounded(self._ring.order(voice), self._loads, limit)
        self.outcome.spilled += offered[0] != next(self._ring.order(voice))
        return offered

    def share_with(self, changed: _Replica, more: int) -> None:
        """A replica became busy or idle: on a common machine the others get slower or faster."""
        self._busy += more
        slowness = max(1.0, self._busy * self.fleet.share)
        if slowness != self.slowness:
            others = [r for r in (*self._replicas.values(), *self._leaving) if r is not changed]
            for replica in others:
                replica.advance()
            self.slowness = slowness
            for replica in others:
                replica.plan()

    def scale(self) -> Events:
        """Ray Serve's rule: as many replicas as have `busy` requests each; each new one is cold for a while, each old one ends its streams."""
        seen = deque[int](maxlen=LOOK_BACK)
        more = fewer = 0.0
        for second in count():
            yield self.env.timeout(CONTROL_SECONDS)
            seen.append(self.ongoing)
            there = len(self._names) + self._starting
            wanted = math.ceil(sum(seen) / len(seen) / self.fleet.busy)
            wanted = max(self.fleet.replicas, min(wanted, self.fleet.most or self.fleet.replicas))
            more = more + CONTROL_SECONDS if wanted > there else 0.0
            fewer = fewer + CONTROL_SECONDS if wanted < there else 0.0
            if more >= UP_SECONDS:
                self.env.process(self._start(wanted - there))
            elif fewer >= DOWN_SECONDS:
                self._stop(there - wanted)
            self._leaving = [replica for replica in self._leaving if replica.load]
            self.outcome.replica_seconds += CONTROL_SECONDS * (there + len(self._leaving))
            if second % 60 == 0:
                self.outcome.sizes.append(len(self._names))

    def _start(self, replicas: int) -> Events:
        self._starting += replicas
        yield self.env.timeout(self.fleet.cold)
        self._starting -= replicas
        self._add(replicas)

    def _stop(self, replicas: int) -> None:
        for name in self._names[max(1, len(self._names) - replicas) :]:
            self._leaving.append(self._replicas.pop(name))
        self._is_changed()


def simulate(
    fleet: Fleet, mix: Mix, service: Service, seconds: float, seed: int = 0, *, warm: float = 0.1, filled: bool = False
) -> Outcome:
    """Run a fleet for so many seconds, of which the share `warm` is not counted. `filled`: caches begin as earlier requests left them."""
    random.seed(seed)
    draw, env, outcome = random.Random(seed + 1), simpy.Environment(), Outcome()
    draw_voices = draw if mix.voice_seed is None else random.Random(mix.voice_seed)
    cluster, weights, names = _Cluster(env, service, fleet, outcome), mix.weights, [str(i) for i in range(mix.voices)]
    if filled:
        cluster.fill(draw.choices(names, cum_weights=weights, k=HISTORY * fleet.cached * fleet.replicas), draw)

    def request(ended: Callable[[bool], None]) -> None:
        (voice,) = draw_voices.choices(names, cum_weights=weights)
        audio = draw.choice(mix.lengths) if mix.lengths else draw.expovariate(1 / mix.audio)
        cluster.route(_Stream(voice, max(FIRST_FRAMES, audio * FRAMES_PER_SECOND), env.now, ended))

    def arrive() -> Events:
        while True:
            yield env.timeout(draw.expovariate(mix.rate * mix.shape(env.now)))
            request(lambda _: None)

    def again(was_heard: bool) -> None:
        env.timeout(0 if was_heard else RETRY_SECONDS).callbacks.append(lambda _: request(again))

    for _ in range(mix.clients):
        again(True)
    if not mix.clients:
        env.process(arrive())
    if fleet.most is not None:
        env.process(cluster.scale())
    if warm:
        env.run(seconds * warm)
    outcome.first.clear()
    outcome.refused.clear()
    outcome.hits = outcome.misses = outcome.spilled = 0
    env.run(seconds)
    return outcome

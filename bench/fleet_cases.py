"""What is asked of the model of a cluster: its sizes, prompts, bursts and days, and whether it agrees with a cluster that was measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bench.fleet import SLOTS, Fleet, Mix, Outcome, Service, fitted, pace, simulate, speed
from bench.voice_mix import VOICE_SEED
from inference.errors import RequestError

ROUTINGS = ("voice", "least_loaded", "round_robin")
LOAD = 0.7
"""The share of a replica's speed that requests use."""
VOICES_A_REPLICA = 100
MIN_SECONDS = 10.0
SIZED = 100
"""Replicas of the cases of prompts."""
PREFILLS = (0.02, 0.05, 0.1, 0.2, 0.4)
BURST_REPLICAS, BURST_BEGIN, BURST_SECONDS = 10, 120.0, 300.0
"""Bursts begin after two minutes and last for five."""
BURST_LOADS = (0.5, 0.6, 0.7)
"""Loads of the fewest replicas that a burst doubles."""
COLDS = (0.0, 5.0, 15.0, 30.0, 60.0, 120.0)
BUSY = (8, 4, 3, 2)
"""Requests of a replica that a day's autoscaler aims at."""
DAY_SECONDS, DAY_PEAK, DAY_AUDIO = 86_400.0, 10, 30.0
"""A day has its peak at noon, where `DAY_PEAK` replicas are loaded by `LOAD`, and a tenth of that at night."""


def simulated(
    record: dict[str, Any], prefill: float, replicas: Sequence[int], cached: int, measured: Sequence[tuple[str, dict[str, Any]]]
) -> Iterator[dict[str, Any]]:
    """Rows of all cases, for replicas that are as fast as the record's; where clusters were `measured`, of those instead.

    Raises RequestError for a record that says too little.
    """
    try:
        service = fitted(record, prefill)
    except ValueError as e:
        raise RequestError(f"the record does not say how fast a replica is: {e}") from None
    if not measured:
        return cases(service, replicas, cached)
    return checked(service, cached, measured)


def cases(service: Service, replicas: Sequence[int], cached: int) -> Iterator[dict[str, Any]]:
    """Rows: each routing at each size and with prompts of several lengths, bursts met by replicas that start, and a day."""
    for n in replicas:
        for routing in ROUTINGS:
            yield _sized("size", n, routing, service, cached)
    for prefill in PREFILLS:
        for routing in ROUTINGS:
            costly = Service(service.base, service.each, service.start, prefill)
            yield _sized("prompt", SIZED, routing, costly, cached) | {"prefill": prefill}
    for load in BURST_LOADS:
        yield from (_burst(load, cold, service, cached) for cold in COLDS)
    yield _day(None, service, cached)
    yield from (_day(busy, service, cached) for busy in BUSY)


def _mix(replicas: int, load: float, service: Service) -> Mix:
    return Mix(load * replicas * speed(service, SLOTS) / Mix.audio, voices=VOICES_A_REPLICA * replicas)


def _sized(case: str, replicas: int, routing: str, service: Service, cached: int) -> dict[str, Any]:
    """Requests enough for a 99th percentile, and some seconds of them."""
    mix = _mix(replicas, LOAD, service)
    outcome = simulate(
        Fleet(replicas, cached=cached, routing=routing), mix, service, max(MIN_SECONDS, 20_000 / mix.rate), warm=0.25, filled=True
    )
    return {"case": case, "replicas": replicas, "routing": routing} | row(outcome)


def _burst(load: float, cold: float, service: Service, cached: int) -> dict[str, Any]:
    """Twice the requests from one moment on, and as many replicas more as that takes, each of which starts for `cold` seconds."""
    mix = _mix(BURST_REPLICAS, load, service)
    mix = Mix(mix.rate, voices=mix.voices, shape=lambda t: 1.0 if t < BURST_BEGIN else 2.0)
    fleet = Fleet(BURST_REPLICAS, cached=cached, most=4 * BURST_REPLICAS, cold=cold)
    seconds = BURST_BEGIN + BURST_SECONDS
    outcome = simulate(fleet, mix, service, seconds, warm=BURST_BEGIN / seconds, filled=True)
    lasted = max(outcome.refused, default=BURST_BEGIN) - BURST_BEGIN
    return {"case": "burst", "replicas": BURST_REPLICAS, "load": load, "cold": cold, "refusing": round(lasted, 1)} | row(outcome)


def _day(busy: float | None, service: Service, cached: int) -> dict[str, Any]:
    """A day of longer texts; without `busy` the replicas of its peak run all day."""
    peak = LOAD * DAY_PEAK * speed(service, SLOTS) / DAY_AUDIO
    day = Mix(peak, DAY_AUDIO, VOICES_A_REPLICA * DAY_PEAK, shape=lambda t: 0.55 - 0.45 * math.cos(2 * math.pi * t / DAY_SECONDS))
    scaled = Fleet(1, cached=cached, most=2 * DAY_PEAK, busy=busy or SLOTS, cold=30.0)
    fleet = scaled if busy else Fleet(DAY_PEAK, cached=cached, most=DAY_PEAK)
    outcome = simulate(fleet, day, service, DAY_SECONDS, warm=0)
    hours = {"replica_hours": round(outcome.replica_seconds / 3600, 1), "sizes": outcome.sizes[::10]}
    return {"case": "day", "replicas": DAY_PEAK, "busy": busy} | hours | row(outcome)


def checked(service: Service, cached: int, measured: Sequence[tuple[str, dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """Rows: what `fishserve bench voices` measured of clusters, (routing, record) each, and what the model says of the same load.

    The replicas share one machine. How much slower that makes their steps is read from the measured streams, since nothing else says what
    other programs took meanwhile.
    """
    for routing, record in measured:
        asked = record["settings"]
        for run in record["runs"]:
            lengths = [sum(sample["durations"]) for sample in run["samples"]]
            mix = Mix(voices=asked["voices"], skew=asked["skew"], lengths=lengths, voice_seed=VOICE_SEED, clients=run["clients"])
            replicas = len(run["replicas"])
            share = pace(run["samples"]) / service.step(run["clients"] / replicas) / replicas
            fleet = Fleet(replicas, cached=cached, routing=routing, share=share)
            same = {"replicas": fleet.replicas, "clients": run["clients"], "routing": routing}
            first, requests = run["first_audio"], sum(run["statuses"].values())
            percentiles = {f"first_audio_{p}": first[p] and round(first[p], 4) for p in ("p50", "p95", "p99")}
            refused = sum(n for status, n in run["statuses"].items() if status != "200") / requests
            counted = {"share": round(share, 3), "requests": requests, "hit_rate": round(run["hit_rate"], 4), "refused": refused}
            yield {"case": "measured"} | same | counted | percentiles
            runs = [simulate(fleet, mix, service, 2 * asked["seconds"], seed, warm=0.5) for seed in range(20)]
            yield {"case": "simulated", **same} | row(_together(runs), len(runs)) | {"hit_rates": [round(r.hit_rate, 4) for r in runs]}


def _together(runs: Sequence[Outcome]) -> Outcome:
    """Several runs of the same load as one."""
    return Outcome(
        [first for run in runs for first in run.first], sum(r.hits for r in runs), sum(r.misses for r in runs),
        sum(r.spilled for r in runs), [at for run in runs for at in run.refused], sum(r.replica_seconds for r in runs),
    )  # fmt: skip


def row(outcome: Outcome, runs: int = 1) -> dict[str, Any]:
    """What a row says of an outcome; requests are those of one of `runs`."""
    p50, p95, p99 = (round(float(v), 4) for v in np.percentile(outcome.first, (50, 95, 99)))
    asked = len(outcome.first) + len(outcome.refused)
    return {
        "requests": asked // runs, "hit_rate": round(outcome.hit_rate, 4), "first_audio_p50": p50, "first_audio_p95": p95,
        "first_audio_p99": p99, "refused": round(len(outcome.refused) / asked, 4),
        "spilled": round(outcome.spilled / max(1, outcome.hits + outcome.misses), 4),
    }  # fmt: skip

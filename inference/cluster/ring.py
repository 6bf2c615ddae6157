"""Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, arXiv:1608.01350): which replicas a voice prefers."""

from __future__ import annotations

import bisect
import hashlib
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice

POINTS = 64
"""Points of each replica on the ring: with more, the shares of the replicas are more equal."""
BOUND = 1.25
"""A voice leaves a replica whose load is above this many times the mean."""
CANDIDATES = 3
"""How many replicas a request is offered, the preferred one first."""
SAMPLE = 32
"""Replicas whose loads are compared."""


def _place(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest())


@lru_cache(maxsize=20_000)
def _points(replica: str) -> list[tuple[int, str]]:
    """A replica's points. They are kept, since the ring is made anew whenever a replica comes or goes."""
    return [(_place(f"{replica}/{i}"), replica) for i in range(POINTS)]


class Ring:
    """The replicas on a circle. Adding or removing one moves only the voices of its own arcs."""

    def __init__(self, replicas: Iterable[str] = ()) -> None:
        points = sorted(point for replica in set(replicas) for point in _points(replica))
        self._places = [place for place, _ in points]
        self._replicas = [replica for _, replica in points]

    def order(self, key: str) -> Iterator[str]:
        """All replicas, beginning with the one that the key belongs to, in an order that depends on the key alone."""
        start = bisect.bisect_right(self._places, _place(key))
        seen: set[str] = set()
        for i in range(len(self._replicas)):
            replica = self._replicas[(start + i) % len(self._replicas)]
            if replica not in seen:
                seen.add(replica)
                yield replica


def most(total: int, replicas: int, keep: int) -> int:
    """The load below which a replica may take one more request when `replicas` of them have `total` requests.

    That is `BOUND` times the mean, the new request included, and at least `keep`.
    """
    return max(keep, math.ceil(BOUND * (total + 1) / replicas))


def bounded(order: Iterable[str], loads: Mapping[str, int], limit: int) -> list[str]:
    """The first replicas of `order` with loads below `limit`, at most `CANDIDATES`; where there are fewer, then the least loaded others."""
    free = list(islice((replica for replica in order if loads[replica] < limit), CANDIDATES))
    return free + least_loaded([replica for replica in loads if replica not in free], loads)[: CANDIDATES - len(free)]


def least_loaded(replicas: Sequence[str], loads: Mapping[str, int]) -> list[str]:
    """The replicas with the lowest loads of a random few, at most `CANDIDATES`: among equals chance decides, and many need no sorting."""
    few = random.sample(replicas, min(len(replicas), SAMPLE))
    return sorted(few, key=loads.__getitem__)[:CANDIDATES]

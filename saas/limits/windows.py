"""Moving windows counted in this process, by a clock that never jumps: `limits` counts by the wall clock, which may be set back by a day."""

from __future__ import annotations

import time
from collections import deque

from limits import RateLimitItem
from limits.util import WindowStats


class LocalWindows:
    """As limits' MovingWindowRateLimiter. Keeps the moments of requests in their window, and forgets names that were idle for one."""

    def __init__(self) -> None:
        self._hits: dict[str, deque[float]] = {}

    async def hit(self, limit: RateLimitItem, *names: str) -> bool:
        """Count a request; False when the window has no room for it."""
        now, key = time.monotonic(), limit.key_for(*names)
        self._forget(now, limit.get_expiry())
        hits = self._hits.pop(key, deque())
        self._hits[key] = hits  # the last to be forgotten
        _leave(hits, now - limit.get_expiry())
        if len(hits) >= limit.amount:
            return False
        hits.append(now)
        return True

    async def test(self, limit: RateLimitItem, *names: str) -> bool:
        """Whether the window has room for a request."""
        return len(self._current(limit, *names)) < limit.amount

    async def get_window_stats(self, limit: RateLimitItem, *names: str) -> WindowStats:
        """When the window has room again, by the wall clock of this moment, and for how many requests it has room now."""
        hits, now = self._current(limit, *names), time.monotonic()
        return WindowStats(time.time() + (hits[0] + limit.get_expiry() - now if hits else 0.0), limit.amount - len(hits))

    def _current(self, limit: RateLimitItem, *names: str) -> deque[float]:
        hits = self._hits.get(limit.key_for(*names), deque())
        _leave(hits, time.monotonic() - limit.get_expiry())
        return hits

    def _forget(self, now: float, seconds: float) -> None:
        """Names are in the order of their last request; all windows here are equally long."""
        while self._hits:
            first = next(iter(self._hits))
            if self._hits[first] and self._hits[first][-1] > now - seconds:
                return
            del self._hits[first]


def _leave(hits: deque[float], before: float) -> None:
    while hits and hits[0] <= before:
        hits.popleft()

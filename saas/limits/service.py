"""Rate limits, counted in Redis or Valkey, or in this process alone. If Redis does not answer, this process counts,
except where that would let someone guess: those requests are refused."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Literal, TypeVar

from fastapi import Request
from limits import RateLimitItem, RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from limits.errors import StorageError
from redis.asyncio import ConnectionPool

from saas.auth.caller import Caller
from saas.errors import ApiError
from saas.limits.windows import LocalWindows
from saas.observability import metrics
from saas.settings import Settings

Answer = TypeVar("Answer")
Windows = LocalWindows | MovingWindowRateLimiter
Kind = Literal["any", "speech", "sensitive"]
Guess = Literal["key", "password"]
PAUSE = 2.0
"""Seconds to wait after Redis failed before asking it again."""
REDIS_SECONDS = 0.5
"""Seconds without an answer after which Redis counts as failed."""
OPEN_RETRY_SECONDS = 2
"""When a caller with too many open requests should come back."""
_FORWARDED = ("cf-connecting-ip", "x-forwarded-for", "forwarded")


class Limiter:
    """Counts in moving windows of a minute. Owns its connections to Redis."""

    def __init__(self, settings: Settings) -> None:
        self._proxies = settings.proxies
        self._limits: dict[str, RateLimitItem] = {
            "any": RateLimitItemPerMinute(settings.requests_per_minute),
            "speech": RateLimitItemPerMinute(settings.speech_per_minute),
            "speech of a key": RateLimitItemPerMinute(settings.key_speech_per_minute),
            "sensitive": RateLimitItemPerMinute(settings.sensitive_per_minute),
            "report": RateLimitItemPerMinute(settings.sensitive_per_minute),
            "key": RateLimitItemPerMinute(settings.failures_per_minute),
            "password": RateLimitItemPerMinute(settings.sensitive_per_minute),
        }
        self._open: Counter[str] = Counter()
        self._most_open = settings.requests_at_once
        for kind in (*self._limits, "at once", "uncounted"):  # that is 0 at first: a counter that begins at 1 has not grown
            metrics.LIMITED.labels(kind)
        self._here = LocalWindows()
        self._pool: ConnectionPool | None = None
        self._shared: Windows = self._here
        self._asleep_until = 0.0
        if settings.redis_url:
            self._pool = ConnectionPool.from_url(
                _redis(settings.redis_url), socket_connect_timeout=REDIS_SECONDS, socket_timeout=REDIS_SECONDS
            )
            options: dict[str, Any] = {"connection_pool": self._pool}  # its annotations leave this option out
            storage = RedisStorage("redis://", wrap_exceptions=True, implementation="redispy", key_prefix="fishserve", **options)
            self._shared = MovingWindowRateLimiter(storage)

    @contextmanager
    def open(self, caller: Caller) -> Iterator[None]:
        """Count a request as open, in this process alone. Raises ApiError 429 when the caller has as many as are allowed."""
        user = str(caller.user_id)
        if self._open[user] >= self._most_open:
            metrics.LIMITED.labels("at once").inc()
            raise ApiError(
                429, f"{self._most_open} requests at once are allowed, and that many are open; try again when one of them has ended",
                "too_many_at_once", headers={"Retry-After": str(OPEN_RETRY_SECONDS)},
            )  # fmt: skip
        self._open[user] += 1
        try:
            yield
        finally:
            self._open[user] -= 1
            if not self._open[user]:
                del self._open[user]

    async def close(self) -> None:
        """Close the connections to Redis."""
        if self._pool is not None:
            await self._pool.aclose()

    async def hit(self, kind: Kind, caller: Caller, request: Request) -> None:
        """Count a caller's request. Raises ApiError: 429 above the limit, 503 when a sensitive request cannot be counted."""
        if kind == "speech" and caller.key_id is not None:
            await self._take("speech of a key", str(caller.key_id), request)
        await self._take(kind, str(caller.user_id), request)

    async def hit_report(self, request: Request) -> None:
        """Count a report of misuse by its address. Raises ApiError 429 above the limit."""
        await self._take("report", self.address(request), request)

    async def may_try(self, address: str, what: Guess = "key") -> None:
        """Raises ApiError 429 after too many wrong attempts from an address, and 503 when wrong passwords cannot be counted."""
        limit = self._limits[what]
        try:
            allowed = await self._ask(lambda limiter: limiter.test(limit, what, address), alone=what == "key")
        except StorageError:
            raise _uncounted() from None
        if not allowed:
            metrics.LIMITED.labels(what).inc()
            raise await self._refusal(limit, what, address)

    async def failed(self, address: str, what: Guess = "key") -> None:
        """Record a wrong key or password from an address."""
        await self._ask(lambda limiter: limiter.hit(self._limits[what], what, address))

    def address(self, request: Request) -> str:
        """As `host`; for IPv6 the network, since a client has all of it."""
        found = self._host(request)
        if isinstance(found, IPv6Address):
            return str(ip_network((found, 64), strict=False))
        return str(found)

    def host(self, request: Request) -> str | None:
        """The client's address: the peer's, or the one that a trusted proxy reports. None where there is none, as over a socket file."""
        found = self._host(request)
        return str(found) if found is not None else None

    def _host(self, request: Request) -> IPv4Address | IPv6Address | None:
        found = _parsed(request.client.host if request.client else "")
        if found is not None and any(found in network for network in self._proxies):
            found = _parsed(request.headers.get("cf-connecting-ip", "")) or found
        return found

    async def _take(self, kind: str, name: str, request: Request) -> None:
        limit = self._limits[kind]
        try:
            allowed = await self._ask(lambda limiter: limiter.hit(limit, kind, name), alone=kind != "sensitive")
        except StorageError:
            raise _uncounted() from None
        if not allowed:
            metrics.LIMITED.labels(kind).inc()
            raise await self._refusal(limit, kind, name)
        if kind != "any":
            wait, left = await self._window(limit, kind, name)
            if left <= int(request.state.more_headers.get("X-RateLimit-Remaining", left)):  # of two limits, report the nearer one
                request.state.more_headers.update(_headers(limit, wait, left))

    async def _refusal(self, limit: RateLimitItem, kind: str, name: str) -> ApiError:
        wait, left = await self._window(limit, kind, name)
        return ApiError(
            429, f"{limit.amount} a minute are allowed, and that many were asked for; try again in {wait} s", "rate_limited",
            headers={"Retry-After": str(wait)} | _headers(limit, wait, left),
        )  # fmt: skip

    async def _window(self, limit: RateLimitItem, kind: str, name: str) -> tuple[int, int]:
        """Seconds until the window has room again, and how many more requests it allows now.

        Never more than the window has, though the clocks of Redis' other users, by which it counts, may be ahead.
        """
        window = await self._ask(lambda limiter: limiter.get_window_stats(limit, kind, name))
        return min(limit.get_expiry(), max(1, math.ceil(window.reset_time - time.time()))), max(0, window.remaining)

    async def _ask(self, question: Callable[[Windows], Awaitable[Answer]], *, alone: bool = True) -> Answer:
        """Ask Redis. If it does not answer, count in this process when `alone`, else raise StorageError."""
        try:
            if time.monotonic() < self._asleep_until:
                raise StorageError(ConnectionError("it failed just now"))
            return await question(self._shared)
        except StorageError:
            if time.monotonic() >= self._asleep_until:
                metrics.LIMITER_FAILURES.inc()
                self._asleep_until = time.monotonic() + PAUSE
            if not alone:
                raise
            return await question(self._here)


def _uncounted() -> ApiError:
    metrics.LIMITED.labels("uncounted").inc()
    words = "requests cannot be counted just now, and this one must be; try again in a few seconds"
    return ApiError(503, words, "unavailable", headers={"Retry-After": "5"})


def is_local(request: Request) -> bool:
    """Whether the request comes from this machine itself, and not through a proxy on it."""
    peer = _parsed(request.client.host if request.client else "")
    return peer is not None and peer.is_loopback and not any(name in request.headers for name in _FORWARDED)


def _headers(limit: RateLimitItem, wait: int, left: int) -> dict[str, str]:
    return {"X-RateLimit-Limit": str(limit.amount), "X-RateLimit-Remaining": str(left), "X-RateLimit-Reset": str(wait)}


def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(address.strip())
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found


def _redis(url: str) -> str:
    return url.replace("valkey", "redis", 1) if url.startswith("valkey") else url

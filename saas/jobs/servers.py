"""The fishserve servers that speak: which of them may have work, how much each has, and which gets the next request.

A server that dies is noticed by the request that it fails; `look` notices the rest, and that it is back. Knows nothing of speech.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import get_args
from urllib.parse import urlsplit

import httpx

from saas.jobs.backend import BackendUnavailable, Fault
from saas.observability import metrics

log = logging.getLogger(__name__)
LOOK_SECONDS = 2.0
"""Seconds between two looks at all servers, and how long each may take to answer."""
DEFAULT_SLOTS, MAX_SLOTS = 8, 4096
"""Slots of a server that has not said how many it has, and the most that is believed."""
FULL_SECONDS, KEY_SECONDS = 1.0, 60.0
"""How long a server gets no work after it was full and named no time, and after it refused the key: a person must give another one."""
MAX_TRIES = 3
"""Servers that a request tries while none may have work: many requests must not become many more."""
DNS = "dns+"
"""Before an address of the settings: each IP address that its name has is a server."""


class Server:
    """One server. `running` is how many requests this process has there, `slots` how many it speaks at once.

    `url` has no slash at its end; `label` is what metrics call the address of the settings.
    """

    def __init__(self, url: str, label: str) -> None:
        self.url, self.running, self.slots, self.trouble = url, 0, DEFAULT_SLOTS, ""
        self.name, self._label, self._rests_until = _name(url), label, 0.0

    @property
    def usable(self) -> bool:
        """Whether it may have work: it answers, is ready, and is not resting."""
        return not self.trouble and time.monotonic() >= self._rests_until

    def works(self) -> None:
        """It has answered as it should."""
        if self.trouble:
            log.warning("the server that speaks at %s is ready again", self.name)
        self.trouble = ""

    def fails(self, trouble: str) -> None:
        """It gets no work until it works again."""
        if not self.trouble:
            log.warning("the server that speaks at %s gets no work for now: %s", self.name, trouble)
        self.trouble = trouble

    def refused(self, error: BackendUnavailable, status: int) -> None:
        """It did not take a request. One that is full rests for as long as it said, one that is not ready until it is."""
        metrics.SERVER_FAULTS.labels(self._label, error.fault).inc()
        if error.fault == "key":
            log.error("the server that speaks at %s refuses FISHSERVE_KEY: it gets no work for %.0f s", self.name, KEY_SECONDS)
            self._rests_until = time.monotonic() + KEY_SECONDS
        elif status == 429:
            self._rests_until = time.monotonic() + min(error.seconds or FULL_SECONDS, KEY_SECONDS)
        else:
            self.fails(str(error))

    @contextmanager
    def busy(self) -> Iterator[None]:
        """One request more, as long as this lasts."""
        self.running += 1
        metrics.SERVER_RUNNING.labels(self._label).inc()
        try:
            yield
        finally:
            self.running -= 1
            metrics.SERVER_RUNNING.labels(self._label).dec()


class Address:
    """One address of the settings, and the servers there: one, or as many as its name has IP addresses."""

    def __init__(self, url: str) -> None:
        self._url, self._is_name = url.removeprefix(DNS), url.startswith(DNS)
        self.label = _name(self._url)
        self.servers: list[Server] = [] if self._is_name else [Server(url, self.label)]
        for fault in get_args(Fault):  # that is 0 at first: a counter that begins at 1 has not grown
            metrics.SERVER_FAULTS.labels(self.label, fault)

    async def resolve(self) -> None:
        """Learn which servers there are. Those whose addresses are gone get no new work, and keep what they have."""
        if not self._is_name:
            return
        parts = urlsplit(self._url)
        assert parts.hostname
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
        except TimeoutError:
            return
        except (OSError, UnicodeError) as e:
            if isinstance(e, socket.gaierror) and e.errno == socket.EAI_AGAIN:
                return  # no name server has answered: that says nothing of those we know
            found = []
        known = {server.url: server for server in self.servers}
        hosts = sorted({(str(to[0]), int(to[1])) for *_, to in found})
        urls = [f"http://{f'[{host}]' if ':' in host else host}:{port}{parts.path}" for host, port in hosts]
        self.servers = [known.get(url) or Server(url, self.label) for url in urls]

    def tell(self) -> None:
        """Tell the metrics how many of its servers are up."""
        metrics.SERVERS_UP.labels(self.label).set(sum(not server.trouble for server in self.servers))


class Servers:
    """The servers at all addresses of the settings, of which there is at least one."""

    def __init__(self, http: httpx.AsyncClient, urls: Sequence[str]) -> None:
        self._http, self._addresses = http, [Address(url) for url in urls]

    @property
    def slots(self) -> int:
        """How many requests those that may have work speak at once; of all servers while none may, and 0 while there are none."""
        return sum(server.slots for server in self._candidates())

    def in_turn(self) -> Iterator[Server]:
        """Servers for one request until one takes it: the least loaded first. While none may have work, a few of them."""
        left = self._candidates()
        if not any(server.usable for server in left):
            left = random.sample(left, min(len(left), MAX_TRIES))
        while left:
            chosen = min(left, key=lambda server: (server.running / server.slots, random.random()))
            left.remove(chosen)
            yield chosen

    async def look(self) -> None:
        """Find all servers, and ask them whether they are ready."""
        await asyncio.gather(*(address.resolve() for address in self._addresses))
        await asyncio.gather(*(self._look_at(server) for address in self._addresses for server in address.servers))
        for address in self._addresses:
            address.tell()

    async def _look_at(self, server: Server) -> None:
        try:
            answer = await self._http.get(f"{server.url}/ready", timeout=LOOK_SECONDS)
        except httpx.HTTPError as e:
            server.fails(f"it does not answer: {type(e).__name__}")
            return
        if answer.status_code != 200:
            server.fails(f"/ready answers {answer.status_code}")
            return
        server.slots = _slots(answer) or server.slots
        server.works()

    def _candidates(self) -> list[Server]:
        every = [server for address in self._addresses for server in address.servers]
        return [server for server in every if server.usable] or every


def _name(url: str) -> str:
    """Host, port and path: what a log and metrics may show of an address."""
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2] + parts.path


def _slots(answer: httpx.Response) -> int | None:
    """The slots that a server says it has; None if it says nothing that can be believed."""
    try:
        said = answer.json().get("slots")
    except (ValueError, AttributeError):
        return None
    return said if isinstance(said, int) and 1 <= said <= MAX_SLOTS else None

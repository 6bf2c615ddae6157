"""Requests to machines that strangers name: each connection goes to the very address that was checked."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from concurrent.futures import Executor
from functools import cache, partial

import httpx

from inference.errors import FishserveError

_PUBLIC_IPV6 = ipaddress.IPv6Network("2000::/3")


class UnknownHost(FishserveError):
    """A name server knows no such machine, or does not answer."""


class PrivateHost(FishserveError):
    """A name leads into a private network."""


async def public_address(host: str, port: int, threads: Executor, *, loopback: bool = False) -> str:
    """The IP address of a host all of whose addresses are public, or with `loopback` this machine's.

    A name server that does not answer holds up one of `threads`. Raises UnknownHost, PrivateHost.
    """
    ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    try:
        found = await asyncio.get_running_loop().run_in_executor(threads, ask)
    except (OSError, ValueError, UnicodeError):
        raise UnknownHost(f"the machine of an address is not known: {host[:100]}") from None
    addresses = [str(entry[4][0]) for entry in found]
    if not all(is_public(address) or (loopback and ipaddress.ip_address(address).is_loopback) for address in addresses):
        raise PrivateHost(f"an address leads into a private network: {host[:100]}")
    return addresses[0]


def is_public(address: str) -> bool:
    """Whether an IP address is on the public internet. In IPv6 that is 2000::/3, except 6to4 addresses, which embed an IPv4 address."""
    found = ipaddress.ip_address(address)
    return found.is_global and not found.is_multicast and (found.version == 4 or (found in _PUBLIC_IPV6 and found.sixtofour is None))


@cache
def certificates() -> ssl.SSLContext:
    """Certificates of all authorities. Reading them takes 30 ms of a core, too long for every request."""
    return httpx.create_ssl_context()


class Pinned(httpx.AsyncHTTPTransport):
    """Connects to one IP address; the request still names the URL's host, and the certificate must match that name."""

    def __init__(self, address: str) -> None:
        super().__init__(verify=certificates())
        self._address = address

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request to that address."""
        request.extensions["sni_hostname"] = request.url.host
        request.url = request.url.copy_with(host=self._address)  # the Host header is set already
        return await super().handle_async_request(request)

"""The socket a server listens on, opened before any other work, and the URL that reaches it."""

from __future__ import annotations

import errno
import ipaddress
import resource
import socket
from contextlib import suppress

from inference.errors import ConfigurationError

_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
_BACKLOG = 1024
_LAST_PORT = 65535
_DESCRIPTORS = 65_536


def listen(host: str, port: int, variable: str) -> socket.socket:
    """Open a listening socket; port 0 takes any free port. `variable` names the setting of the port.

    Clients that connect before the server is ready wait. From then on this process and those it starts may have as many connections as
    the machine permits. Raises ConfigurationError saying what to change.
    """
    _allow_descriptors()
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as e:
        raise ConfigurationError(
            f"cannot listen on {host!r}: {e.strerror or e}; give an address of this machine, such as 127.0.0.1"
        ) from None
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    family, *_, address = found[0]
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as e:
        listening.close()
        raise ConfigurationError(_refusal(e, host, port, variable)) from None
    return listening


def url_of(host: str, port: int) -> str:
    """The URL that reaches a server from its own machine."""
    name = _EVERY_ADDRESS.get(host, host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only the machine itself can reach the address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _allow_descriptors() -> None:
    """Each connection is a descriptor, and the usual soft limit is 1,024 of them: one client with as many idle ones would stop a server."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # the machine may permit less than it says; then it stays as it is
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _refusal(e: OSError, host: str, port: int, variable: str) -> str:
    if e.errno == errno.EADDRINUSE:
        other = next((p for p in range(port + 1, min(port + 100, _LAST_PORT)) if _is_free(host, p)), None)
        return f"port {port} is in use" + (f"; set {variable}={other}" if other else f"; set {variable} to another")
    if e.errno == errno.EADDRNOTAVAIL:
        return f"cannot listen on {host}: this machine has no such address; 127.0.0.1 is this machine alone, 0.0.0.0 every address it has"
    if e.errno in (errno.EACCES, errno.EPERM):
        return f"cannot listen on port {port}: ports below 1024 need root; set {variable} to a higher one"
    return f"cannot listen on {host}:{port}: {e.strerror or e}"


def _is_free(host: str, port: int) -> bool:
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        with socket.socket(found[0][0]) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(found[0][4])
    except OSError:
        return False
    return True

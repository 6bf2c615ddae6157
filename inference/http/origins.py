"""Keeps the pages of other sites away from a server that has no keys, such as one on a visitor's own machine."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from urllib.parse import urlsplit

from fastapi.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

OPEN = frozenset(["/health", "/ready", "/ping", "/healthz", "/readyz"])
"""Paths that tell nothing and change nothing; probes ask for them by any name."""
_LOCAL_ENDINGS = (".localhost", ".local", ".internal", ".lan", ".home.arpa")
"""Names that no public name server answers for."""


class OwnPagesOnly:
    """Answers 403 to what a browser sends for a page of another site. For a server without keys: a key is what such a page does not have.

    A browser names the page's origin in `Origin` when it opens a WebSocket or changes anything. It does not when a page reads from its own
    host, and a page of any site can make this server its own host, through a name server of its own (DNS rebinding). So the name in `Host`
    must be one that no stranger can own: an IP address, a name without a dot, a local one, or one of `hosts`. `origins` are let through.
    """

    def __init__(
        self, app: ASGIApp, origins: list[str], hosts: list[str], refuse: Callable[[str, int, str], Response],
        hints: tuple[str, str] = (
            "FISHSERVE_HOSTS={} makes it so, and keys make that needless", "FISHSERVE_CORS_ORIGINS names those that may",
        ),
    ) -> None:  # fmt: skip
        """`hints` say which settings let a host, and an origin, through."""
        self._app, self._origins, self._refuse = app, frozenset(origin.lower() for origin in origins), refuse
        self._hints = hints
        self._hosts = frozenset([*hosts, *(urlsplit(origin).hostname or "" for origin in origins)])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wrong = None if scope["type"] == "lifespan" or scope["path"] in OPEN else self._wrong(scope)
        if wrong is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # before accepting it: the client sees 403
        else:
            await self._refuse(scope["path"], 403, wrong)(scope, receive, send)

    def _wrong(self, scope: Scope) -> str | None:
        """Why a request is refused, or None."""
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = _name(host)
        if not ("*" in self._hosts or name in self._hosts or _is_nobodys(name)):
            return f"this server is not known as {name[:80]!r}; {self._hints[0].format(name[:80])}"
        origin = headers.get(b"origin", b"").decode("latin-1").lower()
        reads = scope["type"] == "http" and scope["method"] in ("GET", "HEAD", "OPTIONS")
        if (
            not origin
            or reads
            or "*" in self._origins
            or origin in self._origins
            or _without_port(origin.partition("://")[2]) == _without_port(host)
        ):
            return None
        return f"pages of {origin[:80]!r} may not use this server; {self._hints[1]}"


def _without_port(host: str) -> str:
    """A host and port without the port that the scheme implies."""
    return host.removesuffix(":443").removesuffix(":80")


def _name(host: str) -> str:
    """`Host` without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # a bracket too many
        return "invalid."


def _is_nobodys(name: str) -> bool:
    """Whether no stranger can have a name server answer for this name."""
    if "." not in name or name.rstrip(".").endswith(_LOCAL_ENDINGS):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True

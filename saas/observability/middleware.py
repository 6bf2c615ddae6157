"""Middleware around every request: duration, unexpected errors, security headers."""

from __future__ import annotations

import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from saas.observability import metrics, reports

_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-site",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
"""Default headers. A route's own value of a header wins."""


class Watch:
    """Measures requests, reports unexpected errors, and adds the default headers and a route's `request.state.more_headers` to answers."""

    def __init__(self, app: ASGIApp, *, https: bool) -> None:
        self._app = app
        self._always = _ALWAYS | ({"Strict-Transport-Security": "max-age=31536000"} if https else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        more: dict[str, str] = {}
        scope.setdefault("state", {})["more_headers"] = more
        began, status = time.monotonic(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message.get("headers", ()))
                there = {name.lower() for name, _ in headers}
                added = [(n.lower().encode(), v.encode("latin-1")) for n, v in (self._always | more).items()]
                message["headers"] = headers + [(n, v) for n, v in added if n not in there]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as e:
            reports.report(e, route=_route(scope))
            raise
        finally:
            metrics.REQUESTS.labels(_method(scope), _route(scope), status).inc()
            metrics.SECONDS.labels(_route(scope)).observe(time.monotonic() - began)


def _route(scope: Any) -> str:
    """The route's path as the code writes it; a client's path would create a metric series for each address."""
    return getattr(scope.get("route"), "path", None) or "none"


def _method(scope: Any) -> str:
    return scope["method"] if scope["method"] in ("GET", "POST", "PATCH", "DELETE", "PUT", "HEAD", "OPTIONS") else "other"

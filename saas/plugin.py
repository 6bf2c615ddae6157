"""The SaaS API before a running server's own doors: `fishserve serve --plugin saas`. One process, one port; the doors answer the API alone."""

from __future__ import annotations

import hmac
import secrets
from contextlib import AbstractAsyncContextManager

from starlette.types import ASGIApp, Receive, Scope, Send

from saas import web
from saas.app import complete, create_app
from saas.settings import Settings, read

PROBES = frozenset(["/health", "/ready", "/ping"])
"""What asks here is told of the engine; `/healthz` and `/readyz` are of the API."""


class Plugin:
    """Made before the server starts, from the API's own settings. Raises ConfigurationError for what is missing in them."""

    def __init__(self, url: str) -> None:
        """`url` reaches the server from its own machine."""
        self._key = secrets.token_urlsafe(32)
        given = {"fishserve_url": url, "fishserve_key": self._key, "runpod_endpoint_id": ""}
        settings: Settings = read(**given)
        complete(settings)
        self.app = web.address(settings)
        """Where people find the app, or that it is not built."""
        self.api = create_app(settings)

    def before(self, doors: ASGIApp) -> ASGIApp:
        """The app that the server has instead of its doors: whoever has the key that only this process knows is let through to them."""
        expected = f"Bearer {self._key}".encode()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            sent = dict(scope.get("headers", ())).get(b"authorization", b"")
            inside = scope["type"] != "lifespan" and (scope["path"] in PROBES or hmac.compare_digest(sent, expected))
            await (doors if inside else self.api)(scope, receive, send)

        return app

    def lifespan(self) -> AbstractAsyncContextManager[object]:
        """The API lives as long as the server's app does."""
        return self.api.router.lifespan_context(self.api)

"""The SaaS API in front of a server's own HTTP APIs: `fishserve serve --plugin saas`.

One process, one port; the server's own APIs answer only the SaaS API.
"""

from __future__ import annotations

import hmac
import secrets
from contextlib import AbstractAsyncContextManager

from starlette.types import ASGIApp, Receive, Scope, Send

from saas import web
from saas.app import complete, create_app
from saas.settings import Settings, read

PROBES = frozenset(["/health", "/ready", "/ping"])
"""Requests to these paths report on the engine; `/healthz` and `/readyz` report on the API."""


class Plugin:
    """Created before the server starts, from the API's own settings. Raises ConfigurationError for missing settings."""

    def __init__(self, url: str) -> None:
        """`url` is the server's address on its own machine."""
        self._key = secrets.token_urlsafe(32)
        given = {"fishserve_url": url, "fishserve_key": self._key, "runpod_endpoint_id": ""}
        settings: Settings = read(**given)
        complete(settings)
        self.app = web.address(settings)
        """The app's address, or a note that the app is not built."""
        self.keep_alive_seconds = settings.keep_alive_seconds
        self.api = create_app(settings)

    def before(self, doors: ASGIApp) -> ASGIApp:
        """The app that the server runs instead of `doors`. It passes requests with a key that only this process knows to `doors`."""
        expected = f"Bearer {self._key}".encode()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            sent = dict(scope.get("headers", ())).get(b"authorization", b"")
            inside = scope["type"] != "lifespan" and (scope["path"] in PROBES or hmac.compare_digest(sent, expected))
            await (doors if inside else self.api)(scope, receive, send)

        return app

    def lifespan(self) -> AbstractAsyncContextManager[object]:
        """The API lives as long as the server's app does."""
        return self.api.router.lifespan_context(self.api)

"""Runs the SaaS API on uvicorn, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import gc
from contextlib import suppress

import uvicorn
from rich.console import Console

from inference.http.log import quiet_uvicorn
from inference.http.protocols import HTTPProtocol
from inference.listening import listen, url_of
from saas import web
from saas.app import complete, create_app
from saas.observability import logs
from saas.settings import Settings

LICENCE = (
    "FishSpeech 1.5's weights are licensed CC BY-NC-SA 4.0: you may not sell what they speak, unless Fish Audio permits it or other weights speak. "
    "Say what permits it in FISHSERVE_SAAS_MODEL_LICENCE."
)
"""A notice that a seller must not miss."""


def serve(settings: Settings, console: Console, hint: str = "`fishserve saas check` checks the setup") -> None:
    """Serve until SIGTERM or Ctrl-C. Raises ConfigurationError."""
    if settings.environment == "production" and settings.stripe_secret_key and not settings.model_licence:
        console.print(LICENCE, style="bold red")
    app = create_app(settings)
    complete(settings)
    gc.collect()
    gc.freeze()  # what was imported stays: a full collection would walk through it, and delay every answer by a tenth of a second
    listening = listen(settings.host, settings.port, "FISHSERVE_SAAS_PORT")
    app_at = web.address(settings)
    console.print(f"{url_of(settings.host, listening.getsockname()[1])}  (the app: {app_at}; {hint}; GET /healthz /readyz)")
    logs.start()
    quiet_uvicorn()
    config = uvicorn.Config(
        app, http=HTTPProtocol, log_config=None, log_level="warning", access_log=False, server_header=False, proxy_headers=False, timeout_graceful_shutdown=30,
        timeout_keep_alive=settings.keep_alive_seconds,
    )  # fmt: skip
    with suppress(KeyboardInterrupt):  # uvicorn raises it again when all requests have ended
        uvicorn.Server(config).run([listening])

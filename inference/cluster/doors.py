"""The HTTP APIs as the ingress deployment of Ray Serve."""

from __future__ import annotations

import asyncio
import multiprocessing
import re
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inference import tracing
from inference.cluster.metric_pages import merged
from inference.cluster.serve_channel import ServeChannel
from inference.http.log import quiet_uvicorn
from inference.http.metrics import exposition
from inference.server.app import create_app, refusal
from inference.server.remote_engine import Engines, RemoteEngine
from inference.server.shutdown import InFlight
from inference.server.sockets import DRAINING
from inference.settings import read

METRICS_SECONDS = 5.0
APP = "fishserve"
ENGINE, DOORS = "Engine", "Doors"
_ENDED = ("DEPLOY_FAILED", "UNHEALTHY")
_ERROR_CLASS = re.compile(r"^inference\.errors\.\w+: ")
_SHUTTING_DOWN = "the server is shutting down; try again in a few seconds"
_SERVICE_RESTART = 1012
"""RFC 6455's registry: the client may connect again."""


class OneRequestId:
    """Ray Serve's proxy gives each request its id, and puts it into the response: here the app does not say it once more."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_without(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [(name, value) for name, value in message["headers"] if name != b"x-request-id"]
            await send(message)

        await self._app(scope, receive, send_without)


class Draining:
    """Once `draining` is set, new requests get 503, new WebSockets are closed, and idle ones end. What runs is left alone."""

    def __init__(self, app: ASGIApp, draining: asyncio.Event) -> None:
        self._app, self._draining = app, draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            scope[DRAINING] = self._draining
        if scope["type"] == "lifespan" or not self._draining.is_set() or scope["path"] in ("/health", "/metrics"):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "code": _SERVICE_RESTART, "reason": _SHUTTING_DOWN})
        else:
            await refusal(scope["path"], 503, _SHUTTING_DOWN, {"Retry-After": "5"})(scope, receive, send)


class Doors:
    """The deployment `Doors`: the same app as a single server's, over the cluster's engines."""

    def __init__(self, engine: DeploymentHandle[Any], settings: dict[str, Any], may_sleep: bool) -> None:
        self._engine, self._settings, self._may_sleep = engine, settings, may_sleep
        self._running, self._draining = multiprocessing.Value("i", 0), asyncio.Event()

    def __del__(self) -> None:
        """Ray Serve calls this when the doors have finished their requests."""
        tracing.stop()

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        quiet_uvicorn()
        tracing.start()
        channel = ServeChannel(self._engine, deployment_error, may_sleep=self._may_sleep)
        app = create_app(Engines([RemoteEngine(channel)]), read(**self._settings), metrics=self._metrics)
        app.state.server.voices.start()
        app.add_middleware(InFlight, count=self._running)
        app.add_middleware(Draining, draining=self._draining)
        app.add_middleware(OneRequestId)
        return app

    async def drain(self) -> int:
        """Take no new requests from now on. Returns how many run."""
        self._draining.set()
        return self._running.value

    async def _metrics(self) -> tuple[bytes, str]:
        """The metrics of all engine replicas that answer, each with the label `replica`."""
        try:
            found = await self._engine.broadcast("exposition").results_async(timeout_s=METRICS_SECONDS, return_exceptions=True)
        except (TimeoutError, RayError, RayServeException):  # no replica runs
            found = []
        return merged([page for page in found if isinstance(page, tuple)]), exposition()[1]


def deployment_error(name: str = ENGINE) -> str | None:
    """Why no replica of a deployment runs, when Ray Serve has given up on them."""
    application = serve.status().applications.get(APP)
    deployment = application and application.deployments.get(name)
    if deployment and deployment.status in _ENDED and not deployment.replica_states.get("RUNNING"):
        why = deployment.message.strip().splitlines()[-1] if deployment.message else deployment.status
        return f"the {'engines' if name == ENGINE else 'doors'} cannot run: {_ERROR_CLASS.sub('', why)}"
    return None

"""What machines ask: whether it lives, whether it can work, and what it measured."""

from __future__ import annotations

import hmac
import time

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from inference.server.metrics import exposition
from saas.database import Refused, Unavailable
from saas.errors import ApiError
from saas.limits.service import is_local
from saas.state import Here, State

KEPT = 2.0
"""Seconds for which the database's answer is kept, since anybody may ask for it."""


def router() -> APIRouter:
    """/healthz, /readyz and /metrics."""
    routes = APIRouter(tags=["running it"])
    last: tuple[float, dict[str, object]] = (float("-inf"), {})

    @routes.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process is alive. Says nothing about what it needs."""
        return {"status": "ok"}

    @routes.get("/readyz")
    async def readyz(state: Here) -> JSONResponse:
        """200 when the database answers and has the rules this version was written for, 503 otherwise."""
        nonlocal last
        if time.monotonic() - last[0] > KEPT:
            last = (time.monotonic(), await _readiness(state))
        return JSONResponse(last[1], 200 if last[1]["status"] == "ready" else 503)

    @routes.get("/metrics")
    async def metrics(request: Request, state: Here) -> Response:
        """Prometheus text format; to this machine alone, or with FISHSERVE_SAAS_METRICS_KEY as a bearer token."""
        key = state.settings.metrics_key
        sent = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not (is_local(request) if key is None else hmac.compare_digest(sent.encode(), key.get_secret_value().encode())):
            raise ApiError(404, "there is nothing here")
        content, media_type = exposition()
        return Response(content, media_type=media_type)

    return routes


async def _readiness(state: State) -> dict[str, object]:
    try:
        health = await state.database.call("health")
    except Unavailable:
        return {"status": "unready", "database": "cannot be reached"}
    except Refused as e:
        return {"status": "unready", "database": e.message}
    safe = bool(health.get("rls_ok")) and bool(health.get("definer_ok"))
    return {
        "status": "ready" if safe else "unready",
        "database": "ok" if safe else "its rules are not as they must be; run `fishserve saas check`",
    }

"""The routes for machines: health, readiness and metrics."""

from __future__ import annotations

import hmac

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from inference.http.metrics import exposition
from saas.errors import ApiError
from saas.limits.service import is_local
from saas.state import AppState

router = APIRouter(tags=["running it"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process is alive. This says nothing about the services that it needs."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(state: AppState) -> JSONResponse:
    """200 when the database answers and has the rules that this version needs; 503 otherwise."""
    found = await state.readiness.ask(state.database)
    return JSONResponse(found, 200 if found["status"] == "ready" else 503)


@router.get("/metrics")
async def metrics(request: Request, state: AppState) -> Response:
    """Prometheus text format. Only for this machine or, if FISHSERVE_SAAS_METRICS_KEY is set, for requests with it as a bearer token."""
    key = state.settings.metrics_key
    sent = request.headers.get("authorization", "").removeprefix("Bearer ")
    if not (is_local(request) if key is None else hmac.compare_digest(sent.encode(), key.get_secret_value().encode())):
        raise ApiError(404, "there is nothing here")
    await state.figures.refresh(state.database)
    content, media_type = exposition()
    return Response(content, media_type=media_type)

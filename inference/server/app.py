"""The public API over one engine: the doors, what watches over them, and how errors look."""

from __future__ import annotations

import math

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inference.errors import EngineClosed, FishserveError, Overloaded, RequestError, VoiceNotFound
from inference.server import openai
from inference.server.metrics import exposition
from inference.server.replies import Speaker, error_response
from inference.voices.store import VoiceStore


def create_app(speaker: Speaker, voices: VoiceStore, max_body_bytes: int) -> FastAPI:
    """The public API over one engine."""
    app = FastAPI(title="fishserve", summary="FishSpeech 1.5 text to speech", redirect_slashes=False)
    app.add_middleware(BodyLimit, limit=max_body_bytes)
    _register_errors(app)
    app.include_router(openai.router(speaker, voices))

    @app.get("/health")
    async def health() -> dict[str, str]:
        """The process is alive. Says nothing about the model."""
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> JSONResponse:
        """200 once the model is loaded and warm, 503 before and when it has failed."""
        state = await speaker.state()
        return JSONResponse(state, 200 if state["status"] == "ready" else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Prometheus text format."""
        content, media_type = exposition()
        return Response(content, media_type=media_type)

    return app


class BodyLimit:
    """Refuses larger request bodies with 413 before they are read whole."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app, self._limit = app, limit
        self._message = f"the request body is larger than {limit:,} bytes"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = 0

        async def limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._limit:
                raise HTTPException(413, self._message)
            return message

        declared = dict(scope.get("headers", ())).get(b"content-length", b"")
        if declared.isdigit() and int(declared) > self._limit:
            await error_response(413, self._message)(scope, receive, send)
        else:
            await self._app(scope, limited if scope["type"] == "http" else receive, send)


def _register_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, e: RequestValidationError) -> JSONResponse:
        first = e.errors()[0]
        if first["type"] == "model_attributes_type":
            return error_response(400, "the request body is not a JSON object; send one, with Content-Type: application/json")
        where = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
        if first["type"] == "json_invalid":
            return error_response(400, "the request body is not valid JSON")
        value = "" if first["type"] == "missing" or not where else f" is {str(first['input'])[:80]!r}"
        return error_response(400, f"{'.'.join(where) or 'the request body'}{value}: {first['msg']}", where[0] if where else None)

    @app.exception_handler(HTTPException)
    async def http(_: Request, e: HTTPException) -> JSONResponse:
        return error_response(e.status_code, str(e.detail), headers=dict(e.headers) if e.headers else None)

    @app.exception_handler(FishserveError)
    async def refused(_: Request, e: FishserveError) -> JSONResponse:
        if isinstance(e, VoiceNotFound):
            return error_response(404, str(e), "voice")
        if isinstance(e, RequestError):
            return error_response(400, str(e), "input" if e.param == "text" else e.param)
        if isinstance(e, Overloaded):
            return error_response(429, str(e), headers={"Retry-After": str(max(1, math.ceil(e.retry_after)))})
        return error_response(503 if isinstance(e, EngineClosed) else 500, str(e))

    @app.exception_handler(Exception)
    async def broken(_: Request, e: Exception) -> JSONResponse:
        return error_response(500, f"an error inside the server ({type(e).__name__}); its log says more")

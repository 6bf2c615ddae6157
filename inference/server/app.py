"""The public API over one engine: the doors, what watches over them, and how errors look."""

from __future__ import annotations

import math

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inference.errors import EngineClosed, FishserveError, Overloaded, RequestError, VoiceNotFound
from inference.server import elevenlabs, openai
from inference.server.metrics import exposition
from inference.server.replies import Speaker
from inference.voices.store import VoiceStore


def create_app(speaker: Speaker, voices: VoiceStore, max_body_bytes: int) -> FastAPI:
    """The public API over one engine."""
    app = FastAPI(title="fishserve", summary="FishSpeech 1.5 text to speech", redirect_slashes=False)
    app.add_middleware(BodyLimit, limit=max_body_bytes)
    _register_errors(app)
    for door in (openai, elevenlabs):
        app.include_router(door.router(speaker, voices))

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
            await _error(scope["path"], 413, self._message)(scope, receive, send)
        else:
            await self._app(scope, limited if scope["type"] == "http" else receive, send)


def _error(path: str, status: int, message: str, param: str | None = None, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error in the shape that the clients of a path know."""
    if path.startswith(elevenlabs.PATHS):
        return elevenlabs.error(status, message, headers)
    return openai.error(status, message, param, headers)


def _register_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, e: RequestValidationError) -> JSONResponse:
        first = e.errors()[0]
        if first["type"] == "model_attributes_type":
            return _error(request.url.path, 400, "the request body is not a JSON object; send one, with Content-Type: application/json")
        where = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
        if first["type"] == "json_invalid":
            return _error(request.url.path, 400, "the request body is not valid JSON")
        value = "" if first["type"] == "missing" or not where else f" is {str(first['input'])[:80]!r}"
        return _error(request.url.path, 400, f"{'.'.join(where) or 'the request body'}{value}: {first['msg']}", where[0] if where else None)

    @app.exception_handler(HTTPException)
    async def http(request: Request, e: HTTPException) -> JSONResponse:
        return _error(request.url.path, e.status_code, str(e.detail), headers=dict(e.headers) if e.headers else None)

    @app.exception_handler(FishserveError)
    async def refused(request: Request, e: FishserveError) -> JSONResponse:
        if isinstance(e, VoiceNotFound):
            return _error(request.url.path, 404, str(e), "voice")
        if isinstance(e, RequestError):
            return _error(request.url.path, 400, str(e), "input" if e.param == "text" else e.param)
        if isinstance(e, Overloaded):
            return _error(request.url.path, 429, str(e), headers={"Retry-After": str(max(1, math.ceil(e.retry_after)))})
        return _error(request.url.path, 503 if isinstance(e, EngineClosed) else 500, str(e))

    @app.exception_handler(Exception)
    async def broken(request: Request, e: Exception) -> JSONResponse:
        return _error(request.url.path, 500, f"an error inside the server ({type(e).__name__}); its log says more")

"""The HTTP application over one engine: routers, middleware and error formats."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from inference import tracing
from inference.errors import (
    DictionaryExists,
    DictionaryNotFound,
    EngineClosed,
    FishserveError,
    NotReady,
    Overloaded,
    RequestError,
    VoiceExists,
    VoiceNotFound,
)
from inference.http.bodies import BodyLimit
from inference.http.error_responses import complaint, error
from inference.http.gzip_bodies import GzipBodies
from inference.http.keys import Guard, Keys
from inference.http.log import PROBES, RequestLog
from inference.http.metrics import exposition
from inference.http.origins import OwnPagesOnly
from inference.http.pieces import Pieces
from inference.server import (
    elevenlabs,
    elevenlabs_account,
    elevenlabs_lexicons,
    elevenlabs_live,
    fish,
    fish_live,
    fish_references,
    kokoro,
    openai,
    page,
    realtime,
)
from inference.server.audio_responses import PING, EngineClient
from inference.server.elevenlabs_keys import KeyInFirstMessage
from inference.server.references import References
from inference.server.state import State
from inference.server.word_times import HEADER, OMITTED
from inference.settings import Settings
from inference.voices.choice import open_store
from inference.voices.dictionaries import DictionaryStore
from inference.voices.notice import VOICE_NOTICE

EXPOSED = ("X-Sample-Rate", HEADER, OMITTED, VOICE_NOTICE, "X-Request-Id", "Retry-After")
"""Headers that pages of other origins may read."""
UPLOADS = ("/v1/references/", "/v1/tts", "/v1/vqgan/", "/v1/voices/add", "/model")
"""Request bodies on these paths may contain clips, so they may be larger."""


def create_app(
    engine: EngineClient, settings: Settings, *, guarded: bool = False, metrics: Callable[[], Awaitable[tuple[bytes, str]]] | None = None
) -> FastAPI:
    """The public API over one engine. `guarded`: an app in front of it decides who may use it.

    `metrics` returns the page of metrics and its media type; by default that of this server's processes.
    """
    app = FastAPI(title="fishserve", summary="FishSpeech 1.5 text to speech", redirect_slashes=False)
    engine = tracing.TracedEngine(engine) if tracing.is_on() else engine
    app.add_middleware(Pieces)
    app.add_middleware(
        BodyLimit, limit=settings.max_body_bytes, refuse=refusal, larger=UPLOADS, larger_limit=settings.max_upload_bytes, many=fish.MANY_VALUES,
    )  # fmt: skip
    app.add_middleware(GzipBodies, refuse=refusal)
    if settings.keys_file is not None and not guarded:
        app.add_middleware(Guard, keys=Keys(settings.keys_file), refuse=refusal)
        app.add_middleware(KeyInFirstMessage)
    elif not guarded:
        app.add_middleware(OwnPagesOnly, origins=settings.origins, hosts=settings.host_names, refuse=refusal)
    if settings.origins:
        app.add_middleware(CORSMiddleware, allow_origins=settings.origins, allow_methods=["*"], allow_headers=["*"], expose_headers=EXPOSED)
    app.add_middleware(HeadAsGet)
    app.add_middleware(RequestLog, refuse=refusal)  # the middleware added last runs first
    if tracing.is_on():
        app.add_middleware(tracing.TraceRequests, untraced=PROBES)
    _register_errors(app)
    voices = open_store(settings.voices_dir, settings.voices_bucket)
    app.state.server = State(engine, voices, References(engine, voices, settings.aliases), DictionaryStore(settings.voices_dir))
    for door in (
        openai,
        realtime,
        elevenlabs_account,
        elevenlabs,
        elevenlabs_lexicons,
        elevenlabs_live,
        fish,
        fish_live,
        fish_references,
        kokoro,
    ):
        app.include_router(door.router)
    app.include_router(page.router)

    @app.get("/health", tags=["running it"])
    async def health() -> dict[str, str]:
        """The process is alive. Says nothing about the model."""
        return {"status": "ok"}

    @app.get("/ready", tags=["running it"])
    async def ready() -> JSONResponse:
        """200 once the model is loaded and warm; 503 while it loads and after it has failed."""
        state = await engine.state()
        return JSONResponse(state, 200 if state["status"] == "ready" else 503)

    @app.get("/ping", tags=["running it"], response_class=Response, responses={204: {}, 503: {}})
    async def ping() -> Response:
        """For RunPod's load balancer: 204 while the model loads, 200 when it is ready, 503 when it has failed."""
        return Response(status_code=PING[(await engine.state())["status"]])

    @app.get("/metrics", tags=["running it"])
    async def metrics_page() -> Response:
        """Prometheus text format."""
        content, media_type = await metrics() if metrics else exposition()
        return Response(content, media_type=media_type)

    return app


class HeadAsGet:
    """Answers HEAD as GET; the HTTP server leaves out the body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_head = scope["type"] == "http" and scope["method"] == "HEAD"
        await self._app({**scope, "method": "GET"} if is_head else scope, receive, send)


def refusal(path: str, status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """An error of a middleware."""
    return _error(path, status, message, headers=headers)


def _error(path: str, status: int, message: str, param: str | None = None, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error in the format that the clients of this path expect."""
    for door in (elevenlabs, fish, fish_references):
        if path.startswith(door.PATHS):
            return door.error(status, message, headers)
    return error(status, message, param, headers)


def _register_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, e: RequestValidationError) -> JSONResponse:
        message, param = complaint(e.errors()[0])
        return _error(request.url.path, 400, message, param)

    @app.exception_handler(HTTPException)
    async def http(request: Request, e: HTTPException) -> JSONResponse:
        return _error(request.url.path, e.status_code, str(e.detail), headers=dict(e.headers) if e.headers else None)

    @app.exception_handler(FishserveError)
    async def refused(request: Request, e: FishserveError) -> JSONResponse:
        if isinstance(e, VoiceNotFound | DictionaryNotFound):
            return _error(request.url.path, 404, str(e), e.param)
        if isinstance(e, VoiceExists | DictionaryExists):
            return _error(request.url.path, 409, str(e), e.param)
        if isinstance(e, RequestError):
            return _error(request.url.path, 400, str(e), "input" if e.param == "text" else e.param)
        if isinstance(e, Overloaded):
            return _error(request.url.path, 429, str(e), headers={"Retry-After": str(max(1, math.ceil(e.retry_after)))})
        if isinstance(e, NotReady):
            return _error(request.url.path, 503, str(e), headers={"Retry-After": "5"})
        return _error(request.url.path, 503 if isinstance(e, EngineClosed) else 500, str(e))

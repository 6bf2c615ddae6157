"""OpenTelemetry traces: a span for each request and one for each of its stages, sent by OTLP over HTTP to OTEL_EXPORTER_OTLP_ENDPOINT.

Without that variable nothing of OpenTelemetry is imported. Spans never hold text, API keys, audio or the names of voices.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from inference.extras import explained

if TYPE_CHECKING:
    import numpy as np
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import SpanKind, Tracer
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from inference.engine.request import Audio, MoreText, SpeechRequest
    from inference.server.audio_responses import EngineClient

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
END_SECONDS = 2.0
"""How long the end of a process may wait for a receiver that does not answer."""
log = logging.getLogger("fishserve")
_provider: TracerProvider | None = None
_tracer: Tracer | None = None
_current: ContextVar[TracedRequest | None] = ContextVar("fishserve-request", default=None)


def is_on() -> bool:
    """Whether a receiver is named."""
    return bool(os.environ.get(ENDPOINT))


def start() -> None:
    """Begin to send this process's spans, if a receiver is named. At most 2,048 wait; further ones push out the oldest. Not before a fork.

    Where OpenTelemetry is not installed, or its variables cannot be used, a warning says so.
    """
    global _provider, _tracer
    if _tracer is not None or not is_on():
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
    except ModuleNotFoundError as e:
        log.warning("no traces are sent: %s", explained(e, "otel", f"{ENDPOINT} is set, which"))
        return

    class Exporter(OTLPSpanExporter):
        """Says once that the receiver does not take spans, and once that it does again."""

        taken = True

        def export(self, spans: Sequence[Any]) -> SpanExportResult:
            result = super().export(spans)
            if (taken := result is SpanExportResult.SUCCESS) is not self.taken:
                self.taken = taken
                log.warning("the receiver at %s %s", ENDPOINT, "takes traces again" if taken else "takes no traces; they are dropped")
            return result

    for name in ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk._shared_internal"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # they would say so in several lines every ten seconds
    own = Resource.create({"service.name": "fishserve", "host.name": socket.gethostname(), "process.pid": os.getpid()})
    provider = TracerProvider(resource=own.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    try:
        provider.add_span_processor(BatchSpanProcessor(Exporter()))
    except ValueError as e:
        log.warning("no traces are sent: a variable OTEL_... cannot be used: %s", e)
        return
    _provider, _tracer = provider, provider.get_tracer("fishserve")


def stop() -> None:
    """Send what waits, for END_SECONDS at most."""
    global _provider, _tracer  # noqa: PLW0603 - one for a process, as its metrics are
    if _provider is not None:
        ending = threading.Thread(target=_provider.shutdown, daemon=True)
        ending.start()
        ending.join(END_SECONDS)
        _provider = _tracer = None


def traceparent() -> str:
    """The W3C `traceparent` of the request that is being answered; empty when there is none, or no traces are sent."""
    request = _current.get()
    return request.traceparent if request else ""


def record_stages(parent: str, stages: Sequence[tuple[str, float, float]]) -> None:
    """Record stages that have ended, as children of the `traceparent`: the name of each, and when it began and ended (`time.monotonic`)."""
    if _tracer is None or not parent:
        return
    context, offset = _context({"traceparent": parent}), time.time_ns() - time.monotonic_ns()
    for name, began, ended in stages:
        _tracer.start_span(name, context, start_time=offset + int(1e9 * began)).end(offset + int(1e9 * ended))


class Stage:
    """A stage of the request that is being answered, from the first `begin` to the first `end`."""

    def __init__(self, name: str) -> None:
        self._name, self._began, self._ended = name, 0.0, False

    def begin(self) -> None:
        self._began = self._began or time.monotonic()

    def end(self) -> None:
        if not self._ended:
            self._ended = True
            record_stages(traceparent(), [(self._name, self._began, time.monotonic())])


class TracedRequest:
    """The span of a request, and what is learned of it until it ends."""

    def __init__(self, tracer: Tracer, name: str, kind: SpanKind, carrier: Mapping[str, str]) -> None:
        """`carrier` may have `traceparent` and `tracestate`, of the span that this one belongs to."""
        from opentelemetry.trace.propagation import set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._span = tracer.start_span(name, _context(carrier), kind)
        self.headers: dict[str, str] = {}
        """Those that hand the trace on."""
        TraceContextTextMapPropagator().inject(self.headers, set_span_in_context(self._span))
        self.characters, self.seconds, self.voice, self.model = 0, 0.0, "", ""

    @property
    def traceparent(self) -> str:
        return self.headers.get("traceparent", "")

    def asks(self, request: SpeechRequest) -> None:
        """It has asked an engine for speech."""
        self.characters += len(request.text)
        self.voice = _voice_kind(request)

    def end(self, name: str, attributes: Mapping[str, Any], error: str = "") -> None:
        """`error` is a type or a status, never a message, which may hold text."""
        own = {"model": self.model, "voice": self.voice, "characters": self.characters, "audio_seconds": round(self.seconds, 3)}
        found: dict[str, Any] = {f"fishserve.{key}": value for key, value in own.items()} if self.voice else {}
        found |= {key: value for key, value in attributes.items() if value is not None} | ({"error.type": error} if error else {})
        self._span.update_name(name)
        self._span.set_attributes(found)
        if error:
            from opentelemetry.trace import Status, StatusCode

            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


@contextmanager
def call(name: str, **attributes: str) -> Iterator[dict[str, str]]:
    """A call to another service: part of the request that is being answered, or the beginning of a trace. Yields the headers to send with it."""
    if _tracer is None:
        yield {}
        return
    from opentelemetry.trace import SpanKind

    caller, error = _current.get(), ""
    traced = TracedRequest(_tracer, name, SpanKind.CLIENT, caller.headers if caller else {})
    try:
        yield traced.headers
    except BaseException as e:
        error = type(e).__name__
        raise
    finally:
        traced.end(name, attributes, error)


class TraceRequests:
    """Middleware: a span for each HTTP request and each WebSocket, but for those to `untraced` paths."""

    def __init__(self, app: ASGIApp, untraced: frozenset[str]) -> None:
        self._app, self._untraced = app, untraced

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _tracer is None or scope["type"] == "lifespan" or scope["path"] in self._untraced:
            await self._app(scope, receive, send)
            return
        from opentelemetry.trace import SpanKind

        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        method, status, error = scope.get("method", "WEBSOCKET"), None, ""
        traced = TracedRequest(_tracer, method, SpanKind.SERVER, headers)

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "websocket.close":
                status = message.get("code", 1000)
            await send(message)

        mark = _current.set(traced)
        try:
            await self._app(scope, receive, noted)
        except BaseException as e:
            error = type(e).__name__
            raise
        finally:
            _current.reset(mark)
            route = getattr(scope.get("route"), "path", None)  # as written in the code: a URL may hold a user's text
            status_name = "http.response.status_code" if scope["type"] == "http" else "fishserve.close_code"
            known = {"http.request.method": scope.get("method"), "http.route": route, status_name: status}
            if status is not None and (500 <= status < 600 or status == 1011):
                error = error or str(status)
            traced.end(f"{method} {route}" if route else method, known, error)


class TracedEngine:
    """An `EngineClient` that counts, for the spans of requests, what they ask for and get."""

    def __init__(self, engine: EngineClient) -> None:
        self._engine = engine

    async def astream(self, request: SpeechRequest, more: AsyncIterator[str | MoreText] | None = None) -> AsyncIterator[Audio]:
        traced = _current.get()
        if traced:
            traced.asks(request)
            more = more and _counted(more, traced)
        chunks: Any = self._engine.astream(request, more)
        async with aclosing(chunks):
            async for chunk in chunks:
                if traced:
                    traced.seconds += chunk.seconds
                yield chunk

    async def encode(self, wave: np.ndarray) -> np.ndarray:
        return await self._engine.encode(wave)

    async def decode(self, codes: np.ndarray) -> np.ndarray:
        return await self._engine.decode(codes)

    async def state(self) -> dict[str, Any]:
        state = await self._engine.state()
        if traced := _current.get():
            traced.model = str(state.get("model", ""))
        return state


async def _counted(more: AsyncIterator[str | MoreText], traced: TracedRequest) -> AsyncIterator[str | MoreText]:
    async for text in more:
        traced.characters += len(text if isinstance(text, str) else text.text)
        yield text


def _voice_kind(request: SpeechRequest) -> str:
    """What speaks: the default voice, another stored one, a clip that came with the request, or several of these."""
    if request.voices:
        return "several"
    if request.voice.name == "default" or not request.voice.references:
        return "default"
    return "stored" if request.voice.name else "clip"


def _context(carrier: Mapping[str, str]) -> Any:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract(carrier)

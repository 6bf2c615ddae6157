"""A receiver of OpenTelemetry's traces, which reads OTLP over HTTP with OpenTelemetry's own protobuf classes."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from inference import tracing
from tests.waiting import wait

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


class Span(NamedTuple):
    name: str
    trace: str
    id: str
    parent: str
    began: int
    ended: int
    kind: int
    error: bool
    attributes: dict[str, Any]
    resource: dict[str, Any]


class Receiver:
    """Listens at `url`. While `open` is not set, it takes requests and answers none. `bodies` are what it was sent."""

    def __init__(self, port: int = 0) -> None:
        self.bodies: list[bytes] = []
        self.open = threading.Event()
        self.open.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.open.wait()
                receiver.bodies.append(body)
                self.send_response(200 if self.path == "/v1/traces" else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                """The sender gave up waiting."""

        self._server = Server(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self.open.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def spans(self) -> list[Span]:
        found = []
        for body in list(self.bodies):
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                own = _values(resource.resource.attributes)
                for s in (s for scope in resource.scope_spans for s in scope.spans):
                    ids = s.trace_id.hex(), s.span_id.hex(), s.parent_span_id.hex()
                    times = s.start_time_unix_nano, s.end_time_unix_nano
                    found.append(Span(s.name, *ids, *times, s.kind, s.status.code == 2, _values(s.attributes), own))
        return found

    def of(self, trace: str, count: int) -> dict[str, Span]:
        """The spans of a trace by name, once so many have come."""
        return wait(lambda: found if len(found := {s.name: s for s in self.spans if s.trace == trace}) >= count else None)


def _values(attributes: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in attributes}


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A receiver to which this process sends its spans."""
    receiver = Receiver()
    monkeypatch.setenv(tracing.ENDPOINT, receiver.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    tracing.start()
    yield receiver
    tracing.stop()
    receiver.close()

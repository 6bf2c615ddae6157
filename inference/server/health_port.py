"""A second port that answers /ping alone, as RunPod's load balancer may ask for."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from inference.server.audio_responses import PING

IDLE_SECONDS, MAX_CONNECTIONS = 5, 32
"""How long a connection may send nothing; connections at once, further ones are closed."""


class HealthPort(ThreadingHTTPServer):
    """Answers in the background. `status` returns loading, ready or failed."""

    def __init__(self, host: str, port: int, status: Callable[[], str]) -> None:
        class Ping(BaseHTTPRequestHandler):
            timeout = IDLE_SECONDS

            def do_GET(self) -> None:
                self.send_response(PING[status()] if self.path.partition("?")[0] == "/ping" else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._connections = threading.Semaphore(MAX_CONNECTIONS)
        super().__init__((host, port), Ping)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, if there are not too many."""
        if self._connections.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

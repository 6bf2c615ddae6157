"""A second port that answers /ping alone, as RunPod's load balancer may ask for."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from inference.server.audio_responses import PING


class HealthPort(ThreadingHTTPServer):
    """Answers in the background. `status` returns loading, ready or failed."""

    def __init__(self, host: str, port: int, status: Callable[[], str]) -> None:
        class Ping(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(PING[status()] if self.path.partition("?")[0] == "/ping" else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), Ping)
        threading.Thread(target=self.serve_forever, daemon=True).start()

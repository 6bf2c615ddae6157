"""A port that answers one question in the background, for machines: few connections, none of them for long."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

IDLE_SECONDS, MAX_CONNECTIONS = 5, 32
"""How long a connection may send or take nothing; connections at once, further ones are closed."""


class SmallServer(ThreadingHTTPServer):
    """`answer` is given the path without its query, and returns a status, a body and its media type."""

    def __init__(self, host: str, port: int, answer: Callable[[str], tuple[int, bytes, str]]) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = IDLE_SECONDS

            def do_GET(self) -> None:
                status, body, media_type = answer(self.path.partition("?")[0])
                self.send_response(status)
                if media_type:
                    self.send_header("Content-Type", media_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._connections = threading.Semaphore(MAX_CONNECTIONS)
        super().__init__((host, port), Handler)
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

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves, or takes too long, is no error."""

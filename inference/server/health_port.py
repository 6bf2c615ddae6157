"""A second port that answers /ping alone, as RunPod's load balancer may ask for."""

from __future__ import annotations

from collections.abc import Callable

from inference.http.small_server import SmallServer
from inference.server.audio_responses import PING


def health_port(host: str, port: int, status: Callable[[], str]) -> SmallServer:
    """Answers in the background. `status` returns loading, ready or failed."""
    return SmallServer(host, port, lambda path: (PING[status()] if path == "/ping" else 404, b"", ""))

"""A port for machines, held by clients that say nothing."""

import contextlib
import socket
import threading

import httpx

from inference.http.small_server import MAX_CONNECTIONS, SmallServer
from tests.waiting import wait


def test_idle_connections_hold_few_threads_and_end():
    with SmallServer("127.0.0.1", 0, lambda path: (200, path.encode(), "text/plain")) as server, contextlib.ExitStack() as stack:
        url = f"http://127.0.0.1:{server.server_port}"
        threads = threading.active_count()
        for _ in range(3 * MAX_CONNECTIONS):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.server_port)))

        def answers():
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"{url}/a?b").text == "/a"
            return False

        wait(answers)
        assert threading.active_count() - threads <= MAX_CONNECTIONS
        server.shutdown()

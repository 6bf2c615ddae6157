"""HTTP requests over connections that a test holds in its own hand: to leave when it wants, or to ask twice."""

import contextlib
import json
import socket
from http.client import HTTPConnection

from tests.waiting import HANG_SECONDS

UVICORN_KEEPS = 5
"""Seconds that uvicorn's own default leaves an idle connection open."""


def post(port: int, path: str, body: object, **headers: str) -> socket.socket:
    """The connection on which a request was sent. Close it to leave."""
    content = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall("\r\n".join((*lines, "", "")).encode() + content)
    return connection


def kept_connection(port: int, path: str) -> HTTPConnection:
    """A connection that has had one answer and is still open."""
    connection = HTTPConnection("127.0.0.1", port, timeout=HANG_SECONDS)
    connection.connect()
    connection.auto_open = 0  # another connection would hide that this one was closed
    connection.request("GET", path)
    connection.getresponse().read()
    return connection


def status_again(connection: HTTPConnection, path: str) -> int:
    """The status of one more request over the same connection, which ends then."""
    with contextlib.closing(connection):
        connection.request("GET", path)
        return connection.getresponse().status

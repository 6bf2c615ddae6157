"""HTTP requests whose client can leave whenever a test wants it to."""

import json
import socket


def post(port: int, path: str, body: object, **headers: str) -> socket.socket:
    """The connection on which a request was sent. Close it to leave."""
    content = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall("\r\n".join((*lines, "", "")).encode() + content)
    return connection

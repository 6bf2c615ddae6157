"""What one connection may send and how long it may take to read: on a real uvicorn, over real sockets."""

import asyncio
import contextlib
import socket
import struct
import threading
import time

import pytest
import uvicorn
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from inference.http import protocols
from inference.http.protocols import HTTPProtocol, WebSocketProtocol
from tests.waiting import HANG_SECONDS, wait

LARGE = 5_000_000


class App:
    """Answers with the body's length, `/large` with much, `/stream` without a length, `/fault` with a part; echoes the length of each WebSocket message. Notes who has left."""

    def __init__(self):
        self.gone, self.messages = [], []

    async def __call__(self, scope, receive, send):
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            while (message := await receive())["type"] == "websocket.receive":
                self.messages.append(len(message.get("bytes") or message.get("text") or b""))
                await send({"type": "websocket.send", "text": str(self.messages[-1])})
            return
        size = 0
        while (message := await receive())["type"] == "http.request":
            size += len(message["body"])
            if not message["more_body"]:
                break
        if message["type"] == "http.disconnect":
            self.gone.append(scope["path"])
            return
        content = b"x" * LARGE if scope["path"] == "/large" else b"%d" % size
        length = [] if scope["path"] in ("/stream", "/fault") else [(b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": 200, "headers": length})
        if scope["path"] == "/fault":
            await send({"type": "http.response.body", "body": b"a part", "more_body": True})
            raise RuntimeError("the rest cannot be made")
        for start in range(0, len(content), 10_000):
            await send({"type": "http.response.body", "body": content[start : start + 10_000], "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        self.gone.append("answered")


class Running:
    def __init__(self):
        self.app, self.socket = App(), socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        config = uvicorn.Config(
            self.app, http=HTTPProtocol, ws=WebSocketProtocol, ws_per_message_deflate=False, ws_max_size=100_000, log_config=None, lifespan="off",
        )  # fmt: skip
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=lambda: asyncio.run(self.server.serve([self.socket])))
        self.thread.start()
        wait(lambda: self.server.started)

    def send(self, *pieces):
        """The answer to raw bytes, until the connection is closed; b"" without one."""
        with socket.create_connection(("127.0.0.1", self.port), HANG_SECONDS) as client, contextlib.suppress(ConnectionError):
            with contextlib.suppress(ConnectionError):
                for piece in pieces:
                    client.sendall(piece)
            return b"".join(iter(lambda: client.recv(4096), b""))
        return b""

    def connections(self):
        return len(self.server.server_state.connections)


@pytest.fixture
def running():
    running = Running()
    yield running
    running.server.should_exit = True
    running.thread.join()


def test_usual_requests_are_answered(running):
    once = b"Host: x\r\nConnection: close\r\n"
    for head in (b"GET /a HTTP/1.1\r\n" + once + b"\r\n", b"GET /a HTTP/1.1\r\n" + once + b"Cookie: " + b"c" * 30_000 + b"\r\n\r\n"):
        assert running.send(head).startswith(b"HTTP/1.1 200")
    many = b"".join(b"X-%d: y\r\n" % n for n in range(90))
    assert running.send(b"GET / HTTP/1.1\r\n" + once + many + b"\r\n").startswith(b"HTTP/1.1 200")
    body = b"".join(b"1\r\n.\r\n" for _ in range(100_000))  # 600 kB of framing around 100 kB
    answer = running.send(b"POST / HTTP/1.1\r\n" + once + b"Transfer-Encoding: chunked\r\n\r\n", body, b"0\r\nA: b\r\n\r\n")
    assert answer.endswith(b"\r\n\r\n100000")


def test_clients_of_http_1_0_get_no_chunks(running):
    head, _, body = running.send(b"POST /stream HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc").partition(b"\r\n\r\n")
    assert (body, b"connection: close" in head, b"transfer-encoding" in head) == (b"3", True, False)
    head, _, body = running.send(b"GET /large HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").partition(b"\r\n\r\n")
    assert (len(body), b"content-length: 5000000" in head, b"transfer-encoding" in head) == (LARGE, True, False)
    assert running.send(b"HEAD /stream HTTP/1.0\r\n\r\n").endswith(b"\r\n\r\n")
    assert running.send(b"GET /stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").endswith(b"1\r\n0\r\n0\r\n\r\n")


def test_a_part_is_never_taken_for_the_whole_by_a_client_of_http_1_0(running):
    with socket.create_connection(("127.0.0.1", running.port), HANG_SECONDS) as client:
        client.sendall(b"GET /fault HTTP/1.0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            while client.recv(4096):
                pass


@pytest.mark.parametrize(
    "pieces",
    [
        [b"GET /", b"a" * 1_000_000],
        [b"GET / HTTP/1.1\r\nA: ", b"b" * 1_000_000],
        [b"GET / HTTP/1.1\r\n", b"a: b\r\n" * 200_000],
        [b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 101 + b"\r\n"],
        [b"GET / HTTP/1.1\r\nA: " + b"b" * 70_000 + b"\r\n\r\n"],
        [b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n.\r\n0\r\n", b"a: b\r\n" * 200_000],
        [b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n.\r\n0\r\nA: ", b"b" * 1_000_000],
        [b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"a" * 1_000_000],
    ],
    ids=["url", "header", "headers", "101 headers", "whole", "trailers", "trailer", "extension"],
)
def test_too_much_beside_the_body_is_refused(running, pieces):
    assert running.send(*pieces)[:12] in (b"HTTP/1.1 431", b"")
    wait(lambda: not running.connections())
    assert "answered" not in running.app.gone


def test_what_is_no_http_is_refused(running):
    assert running.send(b"\x16\x03\x01 hello\r\n\r\n").startswith(b"HTTP/1.1 400")


def test_who_does_not_read_is_disconnected(running, monkeypatch):
    monkeypatch.setattr(protocols, "WRITE_SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", running.port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(1) == b"H"  # it is being answered
        wait(lambda: not running.connections())


def test_who_reads_slowly_gets_all(running, monkeypatch):
    monkeypatch.setattr(protocols, "WRITE_SECONDS", 5)
    with socket.create_connection(("127.0.0.1", running.port), HANG_SECONDS) as client:
        client.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        size = 0
        while piece := client.recv(100_000):
            size += len(piece)
            time.sleep(0.005)
    assert size > LARGE


def frame(opcode, payload=b"", fin=True):
    """A client's WebSocket frame (RFC 6455, section 5.2), masked with zeros."""
    length = len(payload)
    size = bytes([0x80 | length]) if length < 126 else bytes([0x80 | 126]) + struct.pack("!H", length)
    return bytes([(0x80 if fin else 0) | opcode]) + size + bytes(4) + payload


@contextlib.contextmanager
def raw_socket(running):
    with socket.create_connection(("127.0.0.1", running.port), HANG_SECONDS) as client:
        client.sendall(
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert client.recv(1000).startswith(b"HTTP/1.1 101")
        yield client


def test_messages_come_in_order_however_they_are_cut(running):
    sizes = [0, 1, 125, 126, 5000, 60_000, 7, 99_999]
    with connect(f"ws://127.0.0.1:{running.port}", max_size=None) as client:
        for size in sizes:
            client.send(b"m" * size)
        client.send([b"part", b"of", b"one"])
        assert [int(client.recv()) for _ in range(len(sizes) + 1)] == [*sizes, 9]
        client.ping().wait(HANG_SECONDS)


def test_a_message_that_is_too_large_ends_the_connection(running):
    with connect(f"ws://127.0.0.1:{running.port}") as client:
        with contextlib.suppress(ConnectionClosed):
            client.send(b"m" * 200_000)
        with pytest.raises(ConnectionClosed) as closed:
            client.recv()
    assert closed.value.rcvd.code == 1009


@pytest.mark.parametrize("flood", [frame(9), frame(10), frame(0, fin=False)], ids=["pings", "pongs", "fragments"])
def test_a_flood_of_frames_that_bring_nothing_ends_the_connection(running, flood):
    with raw_socket(running) as client:
        if flood[0] == 0:
            client.sendall(frame(2, b"begin", fin=False))
        with contextlib.suppress(ConnectionError):
            client.sendall(flood * 20_000)
        with contextlib.suppress(ConnectionError):
            while client.recv(65_536):
                pass
    wait(lambda: not running.connections())


def test_a_flood_of_messages_waits_for_the_application_and_for_others(running):
    """Beside it another connection is answered: it is parsed a slice at a time."""
    with raw_socket(running) as client:
        sender = threading.Thread(target=lambda: contextlib.suppress(OSError) and client.sendall(frame(2, b"m") * 30_000))
        sender.start()
        reader = threading.Thread(target=lambda: [client.recv(65_536) for _ in range(2)])
        reader.start()
        answers = [running.send(b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") for _ in range(5)]
        assert all(a.startswith(b"HTTP/1.1 200") for a in answers)
        received = 0
        while len(running.app.messages) < 30_000:
            received += len(client.recv(65_536))
        sender.join()
        reader.join()
    assert set(running.app.messages) == {1}

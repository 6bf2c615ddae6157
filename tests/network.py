"""A bad network between a client and a server: it carries bytes slowly, in small pieces, or not to the end."""

from __future__ import annotations

import contextlib
import socket
import threading
import time


class Network:
    """A proxy to a port of this machine. Each direction carries `piece` bytes at a time, waits `pause` seconds between, and breaks after `cut`.

    The first direction is to the server, the second from it.
    """

    def __init__(self, port: int, piece: tuple[int, int] = (65_536, 65_536), pause: tuple[float, float] = (0, 0), cut: tuple[float, float] = (float("inf"),) * 2) -> None:  # fmt: skip
        self._to, self._piece, self._pause, self._cut = port, piece, pause, cut
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.port = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Network:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for connection in self._open:
            self._break(connection)
        for thread in self._threads:
            thread.join()
        for connection in self._open:
            connection.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listening.accept()[0]
                server = socket.create_connection(("127.0.0.1", self._to))
                self._open += [client, server]
                for direction, ends in enumerate(((client, server), (server, client))):
                    self._threads.append(threading.Thread(target=self._carry, args=(direction, *ends), daemon=True))
                    self._threads[-1].start()

    def _carry(self, direction: int, source: socket.socket, target: socket.socket) -> None:
        left = self._cut[direction]
        with contextlib.suppress(OSError):
            while left > 0 and (piece := source.recv(int(min(self._piece[direction], left)))):
                target.sendall(piece)
                left -= len(piece)
                time.sleep(self._pause[direction])
            if left <= 0:
                self._break(source)
        self._break(target)

    @staticmethod
    def _break(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

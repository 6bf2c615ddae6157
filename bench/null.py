"""Engines and servers that answer at once, to measure the cost of the load generator itself.

python -m bench.null    serves OpenAI's and Fish Audio's routes on a free port of 127.0.0.1, which it prints
"""

from __future__ import annotations

import asyncio
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from inference.audio.write import wav_header
from inference.model.config import SAMPLE_RATE

if TYPE_CHECKING:
    from inference import RequestHandle, SpeechRequest
    from inference.engine.stream import Item

CHUNKS, CHUNK_SAMPLES = 8, 8192
"""The number of chunks of a sentence of a few seconds, and the samples of each."""


class NullTarget:
    """Delivers silence from a separate thread, as the engine does."""

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[Callable[[Item], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._deliver, daemon=True)
        self._thread.start()

    def submit(
        self,
        request: SpeechRequest,  # noqa: ARG002 - the engine's signature
        deliver: Callable[[Item], None],
        *,
        unread: Callable[[], int] = int,
    ) -> RequestHandle:
        """The same interface as the engine's `submit`."""
        from inference import RequestHandle

        self._asked.put(deliver)
        return RequestHandle(deliver, lambda: None, unread)

    def close(self) -> None:
        """End the thread."""
        self._asked.put(None)
        self._thread.join()

    def _deliver(self) -> None:
        import numpy as np

        from inference import Audio

        silence = Audio(np.zeros(CHUNK_SAMPLES, np.float32))
        while (deliver := self._asked.get()) is not None:
            for _ in range(CHUNKS):
                deliver(silence)
            deliver(None)


@contextmanager
def null_server() -> Iterator[str]:
    """Run a null server in a separate process; yield its URL."""
    # A separate session, so that Ctrl-C reaches only this process, which then ends the server.
    process = subprocess.Popen([sys.executable, "-m", "bench.null"], stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.terminate()
        process.communicate()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    chunk = _http_chunk(bytes(2 * CHUNK_SAMPLES))
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            await reader.readexactly(int(length[1]) if length else 0)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nTransfer-Encoding: chunked\r\n\r\n")
            writer.write(_http_chunk(wav_header(SAMPLE_RATE)))
            for _ in range(CHUNKS):
                writer.write(chunk)
                await writer.drain()
            writer.write(_http_chunk(b""))
    except (asyncio.IncompleteReadError, ConnectionError):  # the client has left
        writer.close()


def _http_chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


async def _serve() -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve())

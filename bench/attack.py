"""Attacks on a running server, each with a small input: what it answers, how long others wait meanwhile, how much memory it takes.

Only for a server on this machine. Every attack is bounded, and leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import struct
import time
import uuid
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from inference.errors import RequestError

LONGEST_SECONDS = 90.0
"""An attack that still holds the server then is given up."""
PROBE_SECONDS = 0.05
LONG = "This is a sentence that takes a while, and the next one is just as long. " * 300
MANY = 50_000_000
"""Bytes of the attacks that send a lot."""
CHUNK = 65_536
_JSON, _MSGPACK = "application/json", "application/msgpack"


class Target:
    """The attacked server. Raises RequestError where it is not on this machine."""

    def __init__(self, url: str, key: str | None) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname not in ("127.0.0.1", "::1", "localhost"):
            raise RequestError(f"{url} is not on this machine; attack a server of yours, as http://127.0.0.1:8080")
        self.url, self.host, self.port = url.rstrip("/"), parts.hostname, parts.port or 80
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._sessions: set[int] = set()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A raw connection."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    def head(self, request: str, *lines: str) -> bytes:
        """The beginning of a raw request; its headers are still open."""
        headers = [f"Host: {self.host}", *(f"{k}: {v}" for k, v in self.headers.items()), *lines]
        return "\r\n".join([f"{request} HTTP/1.1", *headers, ""]).encode()

    async def send(self, *pieces: bytes | Iterable[bytes]) -> str:
        """Send raw bytes and return the answer's status, or how the connection ended."""
        async with self.connection() as (reader, writer):
            try:
                for piece in pieces:
                    for part in [piece] if isinstance(piece, bytes) else piece:
                        writer.write(part)
                        await writer.drain()
                        if reader.at_eof():
                            break
                line = await reader.readline()
            except ConnectionError:
                line = b""
        return line.split(b" ")[1].decode() if line.startswith(b"HTTP/") else "closed"

    def client(self) -> httpx.AsyncClient:
        """An HTTP client without limits of its own. It leaves idle connections before a server ends them, which would look like a fault."""
        limits = httpx.Limits(max_connections=None, keepalive_expiry=2)
        return httpx.AsyncClient(base_url=self.url, headers=self.headers, timeout=None, limits=limits)

    def processes(self) -> list[int]:
        """The numbers of the server's processes; none where they cannot be found.

        They are looked for once: among hundreds of connections that takes 30 ms, for which whoever measures first audio here would wait.
        """
        if not (found := _of_sessions(self._sessions)):
            self._sessions = _sessions_of_listener(self.port)
            found = _of_sessions(self._sessions)
        return found

    def memory(self) -> int:
        """Bytes of memory of all the server's processes, with shared pages counted for each."""
        return sum(map(_resident, self.processes()))


async def _head_url(target: Target) -> str:
    return await target.send(b"GET /", _repeated(b"a", MANY))


async def _head_one(target: Target) -> str:
    return await target.send(target.head("GET /") + b"A: ", _repeated(b"a", MANY))


async def _head_many(target: Target) -> str:
    return await target.send(target.head("GET /"), _repeated(b"a: b\r\n", MANY))


async def _trailers(target: Target) -> str:
    head = target.head("POST /v1/tts", "Transfer-Encoding: chunked") + b"\r\n1\r\n{\r\n0\r\n"
    return await target.send(head, _repeated(b"a: b\r\n", MANY))


async def _patterns(target: Target) -> str:
    texts = (
        "# a" + " " * 99_000 + "x", "a\n- |- |" + " " * 99_000 + "x", "<sub " + "alias='" * 14_000, "a" + "\n" * 99_000 + "x",
        "# a" + " #" * 49_000 + "x",
    )  # fmt: skip
    async with target.client() as client:
        speaking = [asyncio.ensure_future(_first_audio(client, text)) for text in texts]
        await asyncio.sleep(0.2)
        _, beside = await _first_audio(client, "A short text.")
        begun = [seconds for _, seconds in await asyncio.gather(*speaking)]
    return f"heard after at most {max(begun):.1f} s; a short text beside them after {beside:.1f} s"


async def _compressed(target: Target) -> str:
    async with _socket(target, "permessage-deflate") as (reader, writer, answer):
        if b"permessage-deflate" not in answer:
            return "not negotiated"
        packer = zlib.compressobj(wbits=-12)
        content = packer.compress(b"\xdd\x00\xff\xff\xff" + b"\x90" * 16_000_000) + packer.flush(zlib.Z_SYNC_FLUSH)
        writer.write(_frame(0x42, content[:-4]))
        return "accepted" if await reader.read(100) else "closed"


async def _socket_values(target: Target) -> str:
    async with _socket(target) as (reader, writer, _):
        writer.write(_frame(2, b"\xdd\x00\xff\xff\xff" + b"\x90" * 16_000_000))
        return "answered with an error" if b"error" in await reader.read(1000) else "closed"


async def _socket_flood(target: Target) -> str:
    ends = []
    for first, repeated in ((b"", _frame(9, b"")), (b"", _frame(10, b"")), (_frame(0x02, b"", fin=False), _frame(0, b"", fin=False))):
        async with _socket(target) as (reader, writer, _):
            with contextlib.suppress(ConnectionError):
                writer.write(first)
                for part in _repeated(repeated, 4_000_000):
                    writer.write(part)
                    await writer.drain()
                while await reader.read(CHUNK):
                    pass
            ends.append("closed")
    return ", ".join(ends)


async def _whole_reply(target: Target) -> str:
    async with target.client() as client:
        text = " ".join(["Hi. [pause:10s]"] * 99)
        body = {"input": text, "response_format": "wav", "stream": False, "speed": 0.25, "max_new_tokens": 5}
        async with client.stream("POST", "/v1/audio/speech", json=body) as response:
            size = sum([len(piece) async for piece in response.aiter_bytes()])
    return f"{response.status_code}, {size / 1e6:.0f} MB"


async def _bodies(target: Target) -> str:
    bodies = (
        ("/v1/tts", b"[" + b"[]," * 8_000_000 + b"[]]", _JSON), ("/v1/tts", b"\xdd\x01\x60\x00\x00" + b"\x90" * 23_000_000, _MSGPACK),
        ("/v1/audio/speech", b'{"input":[' + b"[]," * 600_000 + b"[]]}", _JSON), ("/v1/references/add", b"&" * 24_000_000, "application/x-www-form-urlencoded"),
    )  # fmt: skip
    async with target.client() as client:
        done = [await client.post(path, content=content, headers={"Content-Type": kind}) for path, content, kind in bodies]
    return ", ".join(str(response.status_code) for response in done)


async def _pages(target: Target) -> str:
    async with target.client() as client:
        written = await client.post(
            "/v1/references/delete", content=b"{}", headers={"Origin": "https://evil.example", "Content-Type": "text/plain"}
        )
        read = await client.get("/v1/references/list", headers={"Host": "evil.example"})
    socket = await target.send(target.head("GET /v1/tts/live", "Origin: https://evil.example", *_UPGRADE) + b"\r\n")
    return f"change {written.status_code}, own name {read.status_code}, socket {socket}"


async def _deaf(target: Target) -> str:
    """Clients who read nothing: asyncio stops taking from a connection once 128 KB wait in its reader."""
    body = json.dumps({"input": LONG, "response_format": "pcm"}).encode()
    head = target.head("POST /v1/audio/speech", f"Content-Type: {_JSON}", f"Content-Length: {len(body)}")
    async with AsyncExitStack() as stack:
        for _ in range(64):
            _, writer = await stack.enter_async_context(target.connection())
            writer.write(head + b"\r\n" + body)
        async with target.client() as client:
            status, seconds = await _first_audio(client, "A short text.")
            await asyncio.sleep(10)
    return f"a short text beside them: {status} after {seconds:.1f} s"


async def _long_texts(target: Target) -> str:
    async with target.client() as client:
        alone = min([(await _first_audio(client, "A short text."))[1] for _ in range(3)])

        async def listen(seed: int) -> None:
            async with client.stream("POST", "/v1/audio/speech", json={"input": LONG, "response_format": "pcm", "seed": seed}) as response:
                async for _ in response.aiter_bytes():
                    pass

        crowd = [asyncio.ensure_future(listen(seed)) for seed in range(40)]
        try:
            await asyncio.sleep(5)
            beside = [(await _first_audio(client, "A short text."))[1] for _ in range(5)]
        finally:
            for listener in crowd:
                listener.cancel()
            await asyncio.gather(*crowd, return_exceptions=True)
    middle = sorted(beside)[2]
    return f"first audio alone {alone:.2f} s, beside 40 long texts {middle:.2f} s ({middle / alone:.1f} times), at most {max(beside):.2f} s"


async def _obeying(target: Target) -> str:
    """More callers than the queue has places, who come back when they are told."""
    tries: list[int] = []

    async def call(client: httpx.AsyncClient, number: int) -> None:
        for attempt in range(1, 50):
            response = await client.post("/v1/audio/speech", json={"input": "Hello there. " * 8, "seed": number, "response_format": "pcm"})
            if response.status_code != 429:
                tries.append(attempt)
                return
            await asyncio.sleep(float(response.headers["Retry-After"]))

    async with target.client() as client:
        await asyncio.gather(*(call(client, number) for number in range(150)))
    return f"150 callers were answered after at most {max(tries)} tries, on average {sum(tries) / len(tries):.1f}"


async def _idle(target: Target) -> str:
    async with AsyncExitStack() as stack:
        for number in range(400):
            _, writer = await stack.enter_async_context(target.connection())
            writer.write(b"GET / HTTP/1.1\r\nA: " if number % 2 else b"")
        async with target.client() as client:
            status, seconds = await _first_audio(client, "A short text.")
    return f"a short text beside 400 of them: {status} after {seconds:.1f} s"


async def _webhooks(target: Target) -> str:
    async with target.client() as client:

        async def post(_: int) -> int:
            query = {"job": str(uuid.uuid4()), "token": uuid.uuid4().hex, "mark": uuid.uuid4().hex}
            return (await client.post("/api/webhook/runpod", params=query, json={"id": "x"})).status_code

        done = [status for _ in range(20) for status in await asyncio.gather(*map(post, range(50)))]
    return ", ".join(f"{count:,} answered {status}" for status, count in Counter(done).items())


ATTACKS: dict[str, Callable[[Target], Awaitable[str]]] = {
    "URL of 50 MB": _head_url,
    "header of 50 MB": _head_one,
    "8 million headers": _head_many,
    "8 million trailers": _trailers,
    "texts that patterns take long for": _patterns,
    "compressed message": _compressed,
    "message of 16 million lists": _socket_values,
    "pings, pongs, empty fragments": _socket_flood,
    "whole reply of 350 MB": _whole_reply,
    "bodies of millions of values": _bodies,
    "page of another site": _pages,
    "64 clients that never read": _deaf,
    "40 long texts": _long_texts,
    "150 callers of a full queue": _obeying,
    "400 idle connections": _idle,
    "1,000 webhooks that nobody signed": _webhooks,
}
ON_SAAS = (
    "URL of 50 MB", "header of 50 MB", "8 million headers", "8 million trailers", "bodies of millions of values", "400 idle connections",
    "1,000 webhooks that nobody signed",
)  # fmt: skip
"""Those on the SaaS API, which has no sockets, and limits how often a user may speak."""
ON_SERVER = tuple(name for name in ATTACKS if name != "1,000 webhooks that nobody signed")
QUICK = (
    "URL of 50 MB",
    "8 million headers",
    "8 million trailers",
    "compressed message",
    "pings, pongs, empty fragments",
    "page of another site",
)
"""Those that take a second or two."""


async def attacks_on(target: Target) -> tuple[str, ...]:
    """The names of the attacks for this server: a SaaS API, or a speech server."""
    async with target.client() as client:
        with contextlib.suppress(httpx.HTTPError):
            if (await client.get("/healthz")).status_code == 200:
                return ON_SAAS
    return ON_SERVER


async def measure(target: Target, names: Iterable[str], add: Callable[[dict[str, Any]], None]) -> bool:
    """Run attacks one after the other, and `add` a row for each; returns whether the server lives and speaks afterwards."""
    for name in names:
        before, waits, peak = target.memory(), [0.0], [0]
        probing = asyncio.ensure_future(probe(target, waits, peak))
        began = time.monotonic()
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                answer = await ATTACKS[name](target)
        except TimeoutError:
            answer = f"not over after {LONGEST_SECONDS:.0f} s"
        except httpx.HTTPError as e:
            answer = type(e).__name__
        seconds = time.monotonic() - began
        probing.cancel()
        await asyncio.gather(probing, return_exceptions=True)
        row = {
            "attack": name, "answer": answer, "seconds": round(seconds, 1), "health_held_seconds": round(max(waits), 3),
            "memory_grew_mb": round((max(peak[0], target.memory()) - before) / 1e6),
        }  # fmt: skip
        add(row)
    async with target.client() as client:
        try:
            status, _ = await _first_audio(client, "It still speaks.")
        except httpx.HTTPError:
            return False
    return status == 200


async def probe(target: Target, waits: list[float], peak: list[int]) -> None:
    """Ask for /health all the time, each on a connection of its own."""
    while True:
        began = time.monotonic()
        waits.append(0.0)
        asking = asyncio.ensure_future(target.send(target.head("GET /health", "Connection: close") + b"\r\n"))
        while not asking.done():
            waits[-1] = time.monotonic() - began
            await asyncio.wait((asking,), timeout=PROBE_SECONDS)
        waits[-1] = time.monotonic() - began
        peak[0] = max(peak[0], target.memory())
        await asyncio.sleep(PROBE_SECONDS)


async def _first_audio(client: httpx.AsyncClient, text: str) -> tuple[int, float]:
    """The status of the answer, and the seconds until the first of its bytes."""
    began = time.monotonic()
    async with client.stream("POST", "/v1/audio/speech", json={"input": text, "response_format": "pcm"}) as response:
        async for _ in response.aiter_bytes():
            break
    return response.status_code, time.monotonic() - began


_UPGRADE = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")


@asynccontextmanager
async def _socket(target: Target, extension: str = "") -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]]:
    async with target.connection() as (reader, writer):
        offered = (f"Sec-WebSocket-Extensions: {extension}",) if extension else ()
        writer.write(target.head("GET /v1/tts/live", *_UPGRADE, *offered) + b"\r\n")
        yield reader, writer, await reader.readuntil(b"\r\n\r\n")


def _frame(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """A client's WebSocket frame (RFC 6455, section 5.2), masked with zeros."""
    size = len(payload)
    length = struct.pack("!B", 0x80 | size) if size < 126 else struct.pack("!BQ", 0x80 | 127, size)
    return bytes([(0x80 if fin else 0) | opcode]) + length + bytes(4) + payload


def _repeated(piece: bytes, size: int) -> Iterable[bytes]:
    block = piece * (CHUNK // len(piece))
    return (block for _ in range(size // len(block)))


def _sessions_of_listener(port: int) -> set[int]:
    """The session of whoever listens on a port, from /proc."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if int(fields[1].rpartition(":")[2], 16) == port and fields[3] == "0A":
                    inodes.add(f"socket:[{fields[9]}]")
    own = os.getsid(0)
    return {_session(pid) for pid in _processes() if inodes & set(_descriptors(pid))} - {own, 0}


def _of_sessions(sessions: set[int]) -> list[int]:
    return [pid for pid in _processes() if _session(pid) in sessions]


def _processes() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()] if Path("/proc").is_dir() else []


def _descriptors(pid: int) -> list[str]:
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return 0


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0

import asyncio
import gzip

import pytest
from fastapi.responses import Response
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from inference.http.bodies import BodyLimit
from inference.http.gzip_bodies import GzipBodies

LIMIT = 200_000


def refuse(_: str, status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return PlainTextResponse(message, status, headers)


async def echo(request: Request) -> Response:
    return Response(await request.body())


app = GzipBodies(BodyLimit(Starlette(routes=[Route("/", echo, methods=["POST"])]), LIMIT, refuse), refuse)


def post(content, encoding="gzip", piece=1000):
    """The status and the body of the reply to a body that arrives in pieces."""
    pieces = [content[i : i + piece] for i in range(0, len(content), piece)] or [b""]
    incoming = [{"type": "http.request", "body": p, "more_body": i < len(pieces)} for i, p in enumerate(pieces, 1)]
    heard = []

    async def receive():
        return incoming.pop(0) if incoming else {"type": "http.disconnect"}

    async def send(message):
        heard.append(message)

    headers = [(b"content-encoding", encoding.encode()), (b"content-length", b"%d" % len(content))]
    asyncio.run(app({"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers}, receive, send))
    return heard[0]["status"], b"".join(m.get("body", b"") for m in heard[1:])


@pytest.mark.parametrize("text", [b"", b"Hello there.", bytes(LIMIT), bytes(range(256)) * 700], ids=len)
@pytest.mark.parametrize("piece", [1, 17, 1000, 1_000_000])
def test_a_gzip_body_arrives_as_it_was_written(text, piece):
    packed = gzip.compress(text)
    if len(packed) / piece < 2000:
        assert post(packed, piece=piece) == (200, text)
        assert post(packed, " GZIP ", piece) == (200, text)


def test_other_bodies_pass_as_they_are():
    assert post(b"Hello.", "") == post(b"Hello.", "identity") == (200, b"Hello.")


@pytest.mark.parametrize(
    ("content", "encoding", "status", "words"),
    [
        (gzip.compress(bytes(LIMIT + 1), mtime=0), "gzip", 413, "larger than 200,000 bytes"),
        (gzip.compress(bytes(50_000_000), mtime=0), "gzip", 413, "larger than 200,000 bytes"),
        (b"Hello.", "gzip", 400, "not valid gzip"),
        (gzip.compress(b"Hello.", mtime=0)[:-3], "gzip", 400, "ends too early"),
        (b"", "gzip", 400, "ends too early"),
        (gzip.compress(b"Hello.", mtime=0) + b"more", "gzip", 400, "bytes after the end"),
        (b"Hello.", "br", 415, "Content-Encoding is 'br'; send the body uncompressed or with gzip"),
        (b"Hello.", "gzip, gzip", 415, "Content-Encoding is 'gzip, gzip'"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_gzip_or_too_large_is_refused(content, encoding, status, words):
    answer, message = post(content, encoding)
    assert (answer, words in message.decode()) == (status, True)

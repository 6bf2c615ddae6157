"""Lines of the log as people read them on a terminal; as JSON they are tested in test_running.py."""

import asyncio
import logging
import re
import sys
from contextlib import aclosing

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

from inference.http.log import RequestLog, quiet_uvicorn

app = FastAPI()
app.add_middleware(RequestLog, refuse=lambda _, status, words: PlainTextResponse(words, status))


@app.get("/voices/{name}")
def voice(name: str):
    if name == "broken":
        raise ValueError("a-private-text")
    return PlainTextResponse("hello")


@pytest.fixture
def lines(monkeypatch, capsys):
    """Ask for paths: the lines that a terminal shows."""

    async def ask(paths):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
            for path in paths:
                await client.get(path, headers={"X-Request-Id": "mine"})

    def lines(*paths):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        asyncio.run(ask(paths))
        return capsys.readouterr().err.splitlines()

    return lines


def test_a_terminal_gets_words(lines):
    (line,) = lines("/voices/anna", "/health")
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d GET /voices/\{name\} 200, [\d.]+ ms, first byte [\d.]+ ms, 5 bytes, id mine",
        line,
    )


def test_an_error_names_its_type_and_place_and_not_its_words(lines):
    broken, unknown = lines("/voices/broken", "/private")
    assert re.search(r"500, .*, ValueError at .*test_log\.py:\d+, id mine", broken)
    assert " GET unknown path 404, " in unknown
    assert "private" not in broken + unknown


async def leave_generators_open(kept):
    async def inner():
        try:
            yield
        finally:
            await asyncio.sleep(0)

    async def outer():
        async with aclosing(inner()) as pieces:
            async for piece in pieces:
                yield piece

    kept.append(outer())
    await anext(kept[0])


@pytest.mark.parametrize("quiet", [False, True])
def test_a_loop_that_ends_says_nothing_of_generators_that_others_close(monkeypatch, caplog, quiet):
    for name in ("asyncio", "uvicorn.error"):
        monkeypatch.setattr(logging.getLogger(name), "filters", [])
    if quiet:
        quiet_uvicorn()
    asyncio.run(leave_generators_open(kept := []))
    assert kept
    assert ("already running" in caplog.text) is not quiet

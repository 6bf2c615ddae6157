"""Lines of the log as people read them on a terminal; as JSON they are tested in test_running.py."""

import asyncio
import re
import sys

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

from inference.http.log import RequestLog

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

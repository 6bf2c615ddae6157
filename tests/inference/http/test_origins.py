"""Which pages, and under which names, may use a server without keys."""

import asyncio

import pytest
from fastapi.responses import PlainTextResponse

from inference.http.origins import OwnPagesOnly


async def app(scope, _receive, send):
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
    else:
        await PlainTextResponse("done")(scope, _receive, send)


def answer(method="POST", path="/v1/voices", host="127.0.0.1:8080", origin=None, origins=(), hosts=()):
    """The status of the answer, and its words; to a WebSocket 101 or 403."""
    sent, scope = (
        [],
        {"type": "websocket" if method == "WS" else "http", "method": method, "path": path, "headers": [(b"host", host.encode())]},
    )
    if origin is not None:
        scope["headers"].append((b"origin", origin.encode()))

    async def send(message):
        sent.append(message)

    guard = OwnPagesOnly(app, list(origins), list(hosts), lambda _, status, words: PlainTextResponse(words, status))
    asyncio.run(guard(scope, None, send))
    if method == "WS":
        return 101 if sent[0]["type"] == "websocket.accept" else 403, ""
    return sent[0]["status"], sent[1]["body"].decode()


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8080",
        "127.0.0.1",
        "[::1]:8080",
        "localhost:8080",
        "LOCALHOST",
        "tts",
        "tts:80",
        "192.168.1.7:8080",
        "gpu.local",
        "a.b.internal",
        "",
    ],
)
def test_names_that_no_stranger_can_own_are_answered(host):
    assert answer("GET", host=host)[0] == 200
    assert answer("POST", host=host)[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.com:8080", "127.0.0.1.evil.com", "localhost.evil.com", "evil.com.", "1.2.3", "[evil", "gpu.local.evil.com"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "WS"])
def test_names_that_a_stranger_could_own_are_refused(host, method):
    """A page of evil.com whose name server says 127.0.0.1 has this server as its own origin."""
    assert answer(method, host=host, origin=f"http://{host}")[0] == 403
    assert answer(method, host=host)[0] == 403


def test_a_name_can_be_made_known():
    assert answer(host="tts.example.com", hosts=["tts.example.com"])[0] == 200
    assert answer(host="tts.example.com", hosts=["*"])[0] == 200
    assert answer(host="tts.example.com", origins=["https://tts.example.com"])[0] == 200
    status, words = answer(host="tts.example.com", hosts=["other.example.com"])
    assert status == 403
    assert "FISHSERVE_HOSTS=tts.example.com" in words


@pytest.mark.parametrize("path", ["/health", "/ready", "/ping"])
def test_probes_may_use_any_name(path):
    assert answer("GET", path, host="anything.example.com")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "WS"])
@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.com",
        "null",
        "http://127.0.0.1:9999",
        "https://127.0.0.1.evil.com:8080",
        "file://",
        "http://localhost:8080",
        "http://x@y:z",
    ],
)
def test_other_pages_can_change_nothing_and_open_no_socket(method, origin):
    assert answer(method, origin=origin)[0] == 403


@pytest.mark.parametrize("method", ["POST", "DELETE", "WS"])
def test_our_own_page_and_programs_can(method):
    done = 101 if method == "WS" else 200
    assert answer(method)[0] == done
    assert answer(method, origin="http://127.0.0.1:8080")[0] == done
    assert answer(method, host="tts.local", origin="https://tts.local")[0] == done  # a proxy speaks TLS
    assert answer(method, host="tts.local:443", origin="https://tts.local")[0] == done
    assert answer(method, origin="https://shop.example", origins=["https://shop.example"])[0] == done
    assert answer(method, origin="https://shop.example", origins=["*"])[0] == done


def test_reading_is_the_browsers_business():
    """Another site's page may ask, and does not get to see the answer (CORS)."""
    assert answer("GET", origin="https://evil.com")[0] == 200

"""Traces of a real server: the HTTP process and the engine's each send their spans of one request."""

import httpx
import ormsgpack
import pytest
from websockets.sync.client import connect

from inference import tracing
from tests.inference.server.conftest import Server
from tests.otlp import PARENT, TRACE, TRACEPARENT, Receiver
from tests.waiting import HANG_SECONDS, wait

STAGES = ["queue", "prefill", "first frame", "vocoder", "encode"]
SPEECH = "POST /v1/audio/speech"


@pytest.fixture(scope="module")
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="module")
def traced(receiver, checkpoint, voices):
    settings = {
        tracing.ENDPOINT: receiver.url, "OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        "OTEL_SERVICE_NAME": "speech-in-the-shop",
    }  # fmt: skip
    with Server(checkpoint, voices, **settings).wait_ready() as server:
        yield server


def speak(server, headers=None, **body):
    body = {"input": "A private text.", "max_new_tokens": 20, "response_format": "wav"} | body
    return httpx.post(f"{server.url}/v1/audio/speech", json=body, headers=headers, timeout=HANG_SECONDS)


def test_a_request_is_a_span_with_its_stages(traced, receiver):
    answer = speak(traced, {"traceparent": TRACEPARENT, "Authorization": "Bearer a-private-key"}, voice="anna")
    assert answer.status_code == 200
    found = receiver.of(TRACE, 6)
    request = found.pop(SPEECH)
    assert request.parent == PARENT
    assert request.attributes == {
        "http.request.method": "POST", "http.route": "/v1/audio/speech", "http.response.status_code": 200, "fishserve.model": "tiny",
        "fishserve.voice": "stored", "fishserve.characters": 15, "fishserve.audio_seconds": pytest.approx((len(answer.content) - 44) / (2 * 44_100), abs=0.001),
    }  # fmt: skip
    assert set(found) == set(STAGES)
    assert {span.parent for span in found.values()} == {request.id}
    assert [s.name for s in sorted(found.values(), key=lambda s: (s.began, s.ended))] == STAGES
    assert len({s.resource["process.pid"] for s in (request, *found.values())}) == 2
    assert request.resource["process.pid"] == found["encode"].resource["process.pid"]
    assert request.resource["service.name"] == found["queue"].resource["service.name"] == "speech-in-the-shop"
    second = 10**9  # the clocks of two processes are not read at once
    assert all(request.began - second < s.began <= s.ended < request.ended + second for s in found.values())


def test_a_refused_request_and_a_socket_are_spans_too(traced, receiver):
    assert speak(traced, voice="nobody").status_code == 404
    wait(lambda: any(s.attributes.get("http.response.status_code") == 404 and not s.error for s in receiver.spans))
    with connect(
        f"ws://127.0.0.1:{traced.port}/v1/tts/live", additional_headers={"traceparent": TRACEPARENT.replace(TRACE, "5" * 32)}
    ) as s:
        start = {"event": "start", "request": {"text": "", "format": "pcm", "max_new_tokens": 20}}
        for event in (start, {"event": "text", "text": "One sentence. "}, {"event": "text", "text": "And one more. "}, {"event": "stop"}):
            s.send(ormsgpack.packb(event))
        while ormsgpack.unpackb(s.recv(HANG_SECONDS))["event"] != "finish":
            pass
    found = receiver.of("5" * 32, 6)
    socket = found.pop("WEBSOCKET /v1/tts/live")
    assert set(found) == set(STAGES)
    assert socket.attributes["fishserve.characters"] > 20
    assert socket.attributes["fishserve.voice"] == "default"


def test_a_receiver_that_hangs_or_is_gone_stops_no_request(traced, receiver):
    receiver.open.clear()
    assert {speak(traced).status_code for _ in range(5)} == {200}
    receiver.close()
    assert {speak(traced).status_code for _ in range(5)} == {200}
    again = Receiver(receiver.port)
    try:

        def arrives():
            assert speak(traced, {"traceparent": TRACEPARENT.replace(TRACE, "7" * 32)}).status_code == 200
            return any(s.trace == "7" * 32 for s in again.spans)

        wait(arrives)
        assert not any(b"private" in body or b"anna" in body for body in (*receiver.bodies, *again.bodies))
    finally:
        again.close()
    words = traced.words()  # of two processes, of which each says only what is new: a receiver that hung may answer as it closes
    assert words.count("takes no traces") <= words.count("takes traces again") + 2


def test_a_server_that_ends_sends_its_last_spans(checkpoint, voices):
    receiver = Receiver()
    with Server(checkpoint, voices, **{tracing.ENDPOINT: receiver.url, "OTEL_BSP_SCHEDULE_DELAY": "1000000"}).wait_ready() as server:
        assert speak(server, {"traceparent": TRACEPARENT}).status_code == 200
        assert receiver.bodies == []
    found = receiver.of(TRACE, 6)
    receiver.close()
    assert set(found) == {SPEECH, *STAGES}

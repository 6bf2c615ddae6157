"""A server at the other end of a bad network: what arrives is right, and what breaks off ends."""

import httpx
import ormsgpack
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.network import Network
from tests.texts import ENDLESS, LONG
from tests.waiting import HANG_SECONDS, wait


def speak(url, **body):
    body = {"input": "Hello.", "max_new_tokens": 10, "seed": 1, "response_format": "wav"} | body
    return httpx.post(f"{url}/v1/audio/speech", json=body, timeout=HANG_SECONDS)


@pytest.mark.parametrize("stream", [True, False])
def test_bytes_that_come_one_by_one_are_the_same(server, stream):
    whole = speak(server.url, stream=stream)
    with Network(server.port, piece=(1, 700), pause=(0.0005, 0.0005)) as network:
        slow = speak(network.url, stream=stream)
    assert slow.status_code == 200
    assert slow.content == whole.content


@pytest.mark.parametrize("cut", [200, 5_000, 60_000])
def test_a_reply_that_breaks_off_is_no_whole_file_and_its_request_ends(server, cut):
    with Network(server.port, cut=(float("inf"), cut)) as network, pytest.raises(httpx.TransportError):
        speak(network.url, input=ENDLESS)
    wait(lambda: server.metric("fishserve_requests_running") + server.metric("fishserve_requests_waiting") == 0)


@pytest.mark.parametrize("cut", [1, 60, 200])
def test_a_request_that_breaks_off_is_not_begun(server, cut):
    def ended():
        return sum(server.metric("fishserve_requests_total", reason=reason) for reason in ("stop", "length", "cancelled", "error"))

    before = ended()
    with Network(server.port, cut=(cut, float("inf"))) as network, pytest.raises(httpx.TransportError):
        speak(network.url, input=LONG)
    assert speak(server.url).status_code == 200
    wait(lambda: ended() == before + 1)


def test_a_conversation_over_a_slow_line_is_spoken_and_one_that_breaks_ends(server):
    request = {"text": "", "format": "pcm", "seed": 1, "max_new_tokens": 10}

    def converse(url):
        pieces = []
        with connect(f"{url.replace('http', 'ws')}/v1/tts/live") as client:
            for event in ({"event": "start", "request": request}, {"event": "text", "text": "Hello there. And again. "}, {"event": "stop"}):
                client.send(ormsgpack.packb(event))
            while (answer := ormsgpack.unpackb(client.recv()))["event"] == "audio":
                pieces.append(answer["audio"])
        assert answer == {"event": "finish", "reason": "stop"}
        return b"".join(pieces)

    whole = converse(server.url)
    with Network(server.port, piece=(3, 997), pause=(0.0005, 0.0005)) as network:
        assert converse(network.url) == whole
    with Network(server.port, cut=(float("inf"), 10_000)) as network, pytest.raises(ConnectionClosed):
        converse(network.url)
    wait(lambda: server.metric("fishserve_requests_running") == 0)

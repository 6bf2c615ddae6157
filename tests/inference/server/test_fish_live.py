"""Fish Audio's WebSocket: several utterances on one connection, and the formats that today's clients ask for."""

import asyncio
import contextlib
import io

import av
import httpx
import ormsgpack
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from inference import RequestError
from inference.audio.encode import FORMATS
from inference.server.fish_live import Conversation
from inference.server.references import References
from inference.server.state import State
from inference.voices.dictionaries import DictionaryStore
from inference.voices.store import VoiceStore
from tests.waiting import HANG_SECONDS

START = {"event": "start", "request": {"text": "", "format": "pcm", "max_new_tokens": 20}}
LIVEKIT = {
    "text": "", "chunk_length": 100, "format": "wav", "sample_rate": 24_000, "mp3_bitrate": 64, "opus_bitrate": 64_000, "references": [],
    "reference_id": None, "normalize": True, "latency": "balanced", "prosody": None, "top_p": 0.7, "temperature": 0.7,
    "features": ["quality-guard"],
}  # fmt: skip
"""What livekit-plugins-fishaudio 1.8.9 sends unless it is told otherwise."""


@contextlib.contextmanager
def conversation(server):
    """Sends events, and returns what comes back until something is true of it."""
    with connect(f"ws://127.0.0.1:{server.port}/v1/tts/live", max_size=None) as socket:

        def talk(*events, until=lambda heard: heard[-1]["event"] == "finish"):
            with contextlib.suppress(ConnectionClosed):  # it may refuse the first and be gone
                for event in events:
                    socket.send(ormsgpack.packb(event))
            heard = [ormsgpack.unpackb(socket.recv(HANG_SECONDS))]
            while not until(heard):
                heard.append(ormsgpack.unpackb(socket.recv(HANG_SECONDS)))
            return heard

        yield talk


def audio(heard):
    return b"".join(event["audio"] for event in heard if event["event"] == "audio")


def text(words):
    return {"event": "text", "text": words}


STOP, FLUSH = {"event": "stop"}, {"event": "flush"}


def test_one_connection_speaks_one_text_after_another(minnow):
    """LiveKit keeps the socket and starts its next text there."""
    start = {"event": "start", "request": {"text": "", "format": "pcm", "temperature": 0.0, "top_p": 1.0, "seed": 1}}
    with conversation(minnow) as talk:
        first, second, third = (talk(start, text("The kettle is on. "), FLUSH, STOP) for _ in range(3))
        quiet = talk(start, STOP)
    assert [heard[-1] for heard in (first, second, third, quiet)] == [{"event": "finish", "reason": "stop"}] * 4
    assert len(audio(first)) > 44_100
    assert [len(audio(heard)) for heard in (second, third, quiet)] == [len(audio(first))] * 2 + [0]


def test_texts_sent_at_once_are_spoken_in_turn(minnow):
    with conversation(minnow) as talk:
        heard = talk(
            *[START, text("One."), STOP, START, text("Two."), STOP],
            until=lambda heard: [e["event"] for e in heard].count("finish") == 2,
        )
    assert [e.get("reason") for e in heard if e["event"] == "finish"] == ["stop", "stop"]
    assert heard[0]["event"] == "audio"


def test_after_an_error_the_connection_ends(minnow):
    with conversation(minnow) as talk:
        assert talk(START, text(3))[-1] == {"event": "finish", "reason": "error"}
        with pytest.raises(Exception, match="1000"):
            talk(START)


@pytest.mark.parametrize("asked", [{"reference_id": "nobody"}, {"temperature": 9}, {"prosody": {"volume": 99}}], ids=str)
def test_what_cannot_be_spoken_is_refused_before_there_is_any_text(minnow, asked):
    with conversation(minnow) as talk:
        error, finish = talk({"event": "start", "request": asked})
    assert error["event"] == "error"
    assert next(iter(asked.values())) == "nobody" or "is" in error["error"]
    assert finish["reason"] == "error"


@pytest.mark.parametrize("kind", ["wav", "pcm", "mp3", "opus"])
def test_livekits_request_is_spoken_in_every_format_it_knows(minnow, kind):
    rate = {"opus": 48_000, "mp3": 32_000}.get(kind, 24_000)
    request = LIVEKIT | {"format": kind, "sample_rate": rate}
    with conversation(minnow) as talk:
        live = audio(talk({"event": "start", "request": request}, text("Hello there. "), FLUSH, STOP))
    whole = httpx.post(f"{minnow.url}/v1/tts", content=ormsgpack.packb(request | {"text": "Hello there."}),
                       headers={"Content-Type": "application/msgpack"}, timeout=HANG_SECONDS)  # fmt: skip
    assert whole.status_code == 200, whole.text
    for content in (live, whole.content):
        assert seconds(kind, content, rate) > 0.3


@pytest.mark.parametrize(
    ("kind", "asked"),
    [("pcm", {"sample_rate": 8000}), ("pcm", {"prosody": {"speed": 1.3}}), ("mp3", {}), ("mp3", {"mp3_bitrate": 192}), ("opus", {})],
    ids=str,
)
def test_a_flush_holds_nothing_back(minnow, kind, asked):
    """All of the sound comes before there is any other text."""
    request = {"text": "", "format": kind, "temperature": 0.0, "top_p": 1.0, **asked}
    rate = asked.get("sample_rate") or (FORMATS[kind].rates or [44_100])[0]
    native = request | {"format": "pcm", "sample_rate": 44_100, "text": "The kettle is on. "}
    whole = seconds("pcm", httpx.post(f"{minnow.url}/v1/tts", json=native, timeout=HANG_SECONDS).content, 44_100)
    with conversation(minnow) as talk:
        heard = talk(
            {"event": "start", "request": request}, text("The kettle is on. "), FLUSH,
            until=lambda heard: seconds(kind, audio(heard), rate) > whole - 0.001,
        )  # fmt: skip
    assert {event["event"] for event in heard} == {"audio"}


def seconds(kind, content, rate):
    if kind == "pcm":
        return len(content) / 2 / rate
    try:
        with av.open(io.BytesIO(content)) as container:
            assert container.streams.audio[0].rate == rate
            return sum(frame.samples for frame in container.decode(audio=0)) / rate
    except av.FFmpegError:  # too little to know what it is
        return 0


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        ({"format": "opus", "opus_bitrate": 64_000}, 200, ""),
        ({"format": "opus", "opus_bitrate": 64}, 200, ""),
        ({"format": "opus", "opus_bitrate": -1000}, 200, ""),
        ({"format": "mp3", "mp3_bitrate": 64_000}, 200, ""),
        ({"format": "mp3", "sample_rate": 32_000}, 200, ""),
        ({"format": "wav", "mp3_bitrate": 7, "opus_bitrate": 7}, 200, ""),
        ({"format": "opus", "opus_bitrate": 7}, 400, "opus_bitrate is 7; it can be 24, 32, 48, 64 kbit/s"),
        ({"format": "mp3", "mp3_bitrate": 128_001}, 400, "mp3_bitrate is 128001; it can be 64, 128, 192 kbit/s"),
        ({"reference_id": ["anna"]}, 200, ""),
        ({"reference_id": ["anna", "default"]}, 200, ""),
        ({"reference_id": ["default"] * 17}, 400, "reference_id lists 17 voices; at most 16"),
        ({"reference_id": ["anna", 5]}, 400, "reference_id lists something else than names of voices"),
        ({"reference_id": []}, 200, ""),
        ({"references": [[], {"audio": "", "text": ""}]}, 400, "references lists something else than lists of clips"),
        ({"references": ["clip"]}, 400, "references.0 is 'clip': Input should be an object"),
        ({"references": [[]]}, 200, ""),
        ({"references": [[], []]}, 200, ""),
        ({"speaker_ids": ["eve"]}, 200, ""),
        ({"prosody": {"normalize_loudness": True}, "features": ["quality-guard"], "min_chunk_length": 50}, 200, ""),
    ],
    ids=str,
)
def test_newer_values_are_understood_and_unused_ones_ignored(minnow, asked, status, words):
    response = httpx.post(f"{minnow.url}/v1/tts", json={"text": "Hi.", "max_new_tokens": 5} | asked, timeout=HANG_SECONDS)
    assert response.status_code == status, response.text
    assert status == 200 or words in response.json()["message"]


class Chatty:
    """A client that goes on talking whatever it hears, for a while."""

    def __init__(self):
        says = [START, *[{"event": "text", "text": "Hi. There. "}] * 300]
        self.says, self.heard, self.scope = iter(says), [], {}

    async def receive(self):
        await asyncio.sleep(0)
        if (event := next(self.says, None)) is None:
            await asyncio.Event().wait()
        return {"type": "websocket.receive", "bytes": ormsgpack.packb(event)}

    async def send_bytes(self, content):
        self.heard.append(ormsgpack.unpackb(content)["event"])

    async def close(self):
        self.heard.append("close")


class Failing:
    """Ends with an error after so many turns of the loop."""

    def __init__(self, turns):
        self.turns = turns

    async def state(self):
        return {"status": "ready", "codec": "any"}

    async def astream(self, request, more):
        for _ in range(self.turns):
            await asyncio.sleep(0)
        raise RequestError("too much")
        yield request, more


def test_a_client_that_goes_on_talking_hears_of_an_error_all_the_same(tmp_path):
    """A cancellation that comes at the same time as a message was lost (asyncio.wait_for in Python 3.11), and nobody heard the end."""
    voices = VoiceStore(tmp_path)

    async def hold(conversation):
        async with asyncio.timeout(HANG_SECONDS):
            await conversation.hold()

    for turns in range(12):
        client = Chatty()
        engine = Failing(turns)
        asyncio.run(hold(Conversation(client, State(engine, voices, References(engine, voices), DictionaryStore(tmp_path)))))
        assert client.heard == ["error", "finish", "close"]

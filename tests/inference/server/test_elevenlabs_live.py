"""ElevenLabs' two WebSockets: asked by its own client, and with the messages that LiveKit's and Pipecat's clients send."""

import base64
import contextlib
import json

import httpx
import numpy as np
import pytest
from elevenlabs.client import ElevenLabs
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.inference.server.test_fish_live import seconds
from tests.waiting import HANG_SECONDS, wait

SENTENCE = "The kettle is on. "


@contextlib.contextmanager
def socket(server, kind="multi-stream-input", voice="default", **query):
    """`talk` sends messages, and returns what comes back until something is true of it."""
    words = "&".join(f"{k}={v}" for k, v in ({"output_format": "pcm_44100", "seed": 1} | query).items())
    with connect(f"ws://127.0.0.1:{server.port}/v1/text-to-speech/{voice}/{kind}?{words}", max_size=None) as opened:

        def talk(*messages, until=lambda heard: heard[-1].get("isFinal") or "error" in heard[-1]):
            with contextlib.suppress(ConnectionClosed):  # it may refuse the first and be gone
                for message in messages:
                    opened.send(json.dumps(message) if isinstance(message, dict) else message)
            heard = [json.loads(opened.recv(HANG_SECONDS))]
            while not until(heard):
                heard.append(json.loads(opened.recv(HANG_SECONDS)))
            return heard

        talk.socket = opened
        yield talk


def closed(talk):
    """The code that the server closes with, once it does."""
    with pytest.raises(ConnectionClosed) as end:
        while True:
            talk.socket.recv(HANG_SECONDS)
    return end.value.rcvd.code


def audio(heard, context=None):
    return b"".join(base64.b64decode(m["audio"]) for m in heard if m.get("audio") and m.get("contextId") == context)


def finals(heard):
    return [m.get("contextId") for m in heard if m.get("isFinal")]


@pytest.fixture(scope="module")
def whole(minnow):
    """The sentence as HTTP says it."""
    body = {"text": SENTENCE, "seed": 1}
    return httpx.post(
        f"{minnow.url}/v1/text-to-speech/default?output_format=pcm_44100", json=body, timeout=HANG_SECONDS
    ).content  # fmt: skip


def same(a, b):
    return len(a) == len(b) and np.abs(np.frombuffer(a, "<i2").astype(int) - np.frombuffer(b, "<i2")).max() <= 4


@pytest.mark.filterwarnings("ignore:ConnectionClosed.code is deprecated")  # the client's own
def test_their_own_client_hears_a_text_as_it_is_written(minnow, whole):
    client = ElevenLabs(base_url=minnow.url, api_key="any")
    client.text_to_speech._ws_base_url = minnow.url.replace("http", "ws")  # it asks for TLS, whatever the address says
    heard = b"".join(client.text_to_speech.convert_realtime("default", text=iter(["The kettle ", "is on."]), output_format="pcm_44100"))
    assert 0.5 < seconds("pcm", heard, 44_100) < 2 * seconds("pcm", whole, 44_100)


def test_one_context_speaks_until_the_empty_text(minnow, whole):
    with socket(minnow, "stream-input") as talk:
        heard = talk({"text": " ", "voice_settings": {}}, {"text": "The kettle "}, {"text": " "}, {"text": "is on. "}, {"text": ""})
        assert closed(talk) == 1000
    assert same(audio(heard), whole)
    assert heard[-1] | {"audio": None, "isFinal": True, "alignment": None, "normalizedAlignment": None} == heard[-1]
    assert all(m["isFinal"] is None for m in heard[:-1])


def test_a_flush_speaks_at_once_and_holds_nothing_back(minnow, whole):
    with socket(minnow, "stream-input") as talk:
        first = talk({"text": SENTENCE, "flush": True}, until=lambda heard: len(audio(heard)) >= len(whole))
        second = talk({"text": SENTENCE}, {"text": "", "flush": True}, until=audio)
    assert same(audio(first), whole)
    assert audio(second)


def test_auto_mode_speaks_each_sentence_at_once(minnow, whole):
    with socket(minnow, auto_mode="true") as talk:
        heard = talk({"text": "The kettle ", "context_id": "a"}, {"text": "is on. ", "context_id": "a"},
                     until=lambda heard: len(audio(heard, "a")) >= len(whole))  # fmt: skip
    assert same(audio(heard, "a"), whole)


def test_livekits_messages_are_spoken_and_the_connection_serves_the_next_text(minnow, whole):
    with socket(minnow) as talk:
        for context in ("one", "two"):
            heard = talk(
                {"text": " ", "voice_settings": {}, "context_id": context},
                {"text": "The kettle ", "context_id": context}, {"text": "is on. ", "context_id": context},
                {"text": "", "context_id": context, "flush": True}, {"context_id": context, "close_context": True},
            )  # fmt: skip
            assert same(audio(heard, context), whole)
            assert finals(heard) == [context]


def test_pipecats_messages_are_spoken_and_kept_alive(minnow, whole):
    with socket(minnow, model_id="eleven_flash_v2_5", auto_mode="true") as talk:
        heard = talk(
            {"text": ""}, {"text": " ", "context_id": "a"}, {"text": "The kettle is on.", "context_id": "a"},
            {"context_id": "a", "flush": True}, {"text": "", "context_id": "a"}, {"text": ""},
            until=lambda heard: len(audio(heard, "a")) >= len(whole),
        )  # fmt: skip
        assert finals(heard) == []
        assert talk({"context_id": "a", "close_context": True})[-1]["isFinal"] is True
        talk.socket.send(json.dumps({"text": "", "context_id": "a"}))  # late: it opens nothing
        talk.socket.send(json.dumps({"close_socket": True}))
        assert closed(talk) == 1000


def test_contexts_are_spoken_side_by_side_and_closed_alone(minnow, whole):
    with socket(minnow) as talk:
        heard = talk(
            *[{"text": SENTENCE, "context_id": c, "flush": True} for c in "abc"], {"context_id": "b", "close_context": True},
            until=lambda heard: finals(heard) == ["b"] and all(len(audio(heard, c)) >= len(whole) for c in "abc"),
        )  # fmt: skip
        assert all(same(audio(heard, c), whole) for c in "abc")
        heard = talk({"close_socket": True}, until=lambda heard: len(finals(heard)) == 2)
        assert sorted(finals(heard)) == ["a", "c"]
        assert closed(talk) == 1000


def test_a_context_closed_before_its_flush_says_no_more(minnow):
    with socket(minnow) as talk:
        heard = talk({"text": "What is never said", "context_id": "a"}, {"context_id": "a", "close_context": True})
    assert heard == [{"audio": None, "isFinal": True, "alignment": None, "normalizedAlignment": None, "contextId": "a"}]


def test_signs_alone_are_a_short_silence(minnow, whole):
    with socket(minnow) as talk:
        heard = talk({"text": "... ", "context_id": "a", "flush": True}, {"context_id": "a", "close_context": True})
        assert (audio(heard, "a"), finals(heard)) == (bytes(2 * 8820), ["a"])
        heard = talk(
            {"text": "... ", "context_id": "b", "flush": True}, {"text": SENTENCE, "context_id": "b", "flush": True},
            {"text": "... ", "context_id": "b", "flush": True}, {"context_id": "b", "close_context": True},
        )  # fmt: skip
        assert same(audio(heard, "b"), bytes(2 * 8820) + whole)


def test_an_inactive_client_is_told_and_its_contexts_end(minnow, whole):
    with socket(minnow, "stream-input", inactivity_timeout=0.2) as talk:
        assert talk({"text": "And then "})[-1]["error"] == "input_timeout_exceeded"
        assert closed(talk) == 1008
    with socket(minnow, inactivity_timeout=0.2) as talk:
        assert finals(talk({"text": "And then ", "context_id": "a"})) == ["a"]
        heard = talk({"text": SENTENCE, "context_id": "a", "flush": True})
    assert finals(heard) == ["a"]
    assert same(audio(heard, "a"), whole)


@pytest.mark.parametrize(
    ("query", "messages", "kind", "words"),
    [
        ({"voice": "nobody"}, [], "voice_id_does_not_exist", "no voice 'nobody'"),
        ({"output_format": "mp3_1_1"}, [], "invalid_request", "output_format is 'mp3_1_1'"),
        ({"inactivity_timeout": 181}, [], "invalid_request", "inactivity_timeout is '181'"),
        ({}, ["{"], "invalid_request", "not valid JSON"),
        ({}, [b"\xff"], "invalid_request", ""),
        ({}, [{"text": 3}], "invalid_request", "text is '3'"),
        ({}, [{"text": "\ud800"}], "invalid_request", "the message is not valid JSON"),
        ({}, [json.dumps({"x": [[]] * 300_000})], "invalid_request", "more than 1,000,000 characters"),
        ({}, ["[" * 900_000], "invalid_request", "not valid JSON"),
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["stream-input", "multi-stream-input"])
def test_what_cannot_be_ends_the_connection_with_a_reason(minnow, path, query, messages, kind, words):
    with socket(minnow, path, **query) as talk:
        error = talk(*messages)[-1]
        assert closed(talk) == 1008
    assert (error["error"], error["code"]) == (kind, 1008)
    assert words in error["message"]


def test_an_error_in_one_context_leaves_the_others_alone(minnow, whole):
    wrong = {"text": "Hi. ", "context_id": "a", "voice_settings": {"speed": 9}}
    with socket(minnow) as talk:
        assert (talk(wrong)[-1]["contextId"], talk(wrong)[-1]["error"]) == ("a", "invalid_request")
        heard = talk({"text": SENTENCE, "context_id": "b", "flush": True}, {"context_id": "b", "close_context": True})
    assert same(audio(heard, "b"), whole)


def test_more_contexts_than_there_may_be_are_refused(minnow):
    with socket(minnow) as talk:
        error = talk(*[{"text": "And then ", "context_id": str(n)} for n in range(17)])[-1]
        assert (error["contextId"], "16 contexts" in error["message"]) == ("16", True)
        assert finals(talk({"context_id": "3", "close_context": True})) == ["3"]


def test_a_client_that_leaves_cancels_its_contexts(minnow):
    before = minnow.metric("fishserve_requests_total", reason="cancelled")
    with socket(minnow) as talk:
        talk(*[{"text": SENTENCE * 50, "context_id": c, "flush": True} for c in "ab"],
             until=lambda heard: audio(heard, "a") and audio(heard, "b"))  # fmt: skip
    wait(lambda: minnow.metric("fishserve_requests_total", reason="cancelled") >= before + 2, "speech went on without its client")

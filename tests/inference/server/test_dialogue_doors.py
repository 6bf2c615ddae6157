"""A dialogue through each API: one request, two voices, one file, and the pause at the change as long as it was asked for."""

import base64
import itertools
import json

import httpx
import numpy as np
import ormsgpack
import pytest
from websockets.sync.client import connect

from inference.model.config import SAMPLE_RATE
from inference.voices.notice import VOICE_NOTICE
from tests.inference.server.test_elevenlabs_live import audio as eleven_audio
from tests.inference.server.test_elevenlabs_live import socket
from tests.inference.server.test_fish_live import STOP, conversation
from tests.inference.server.test_fish_live import audio as fish_audio
from tests.inference.server.test_fish_live import text as fish_text
from tests.inference.server.test_realtime import audio as realtime_audio
from tests.inference.server.test_realtime import events, say, session
from tests.waiting import HANG_SECONDS

TEXT = "Good day. [voice:anna][pause:700ms] Good night."
SPEAKERS = "<|speaker:1|>Good day. <|speaker:0|>[pause:700ms] Good night."
UNKNOWN = "Good day. [voice:eve] Good night."


def post(server, path, **body):
    return httpx.post(f"{server.url}{path}", json={"seed": 1} | body, timeout=HANG_SECONDS)


def fish_live(server, text, **fields):
    start = {"event": "start", "request": {"text": "", "format": "pcm", "seed": 1} | fields}
    with conversation(server) as talk:
        return talk(start, *(fish_text(text[n : n + 9]) for n in range(0, len(text), 9)), STOP)


def eleven_live(server, text):
    with socket(server, "stream-input") as talk:
        return talk({"text": " "}, *({"text": text[n : n + 9]} for n in range(0, len(text), 9)), {"text": ""})


def realtime(server, text):
    with session(server) as connection:
        say(connection, text)
        return events(connection)


DOORS = {
    "OpenAI": lambda s, text: post(s, "/v1/audio/speech", input=text, response_format="pcm", sample_rate=SAMPLE_RATE).content,
    "Kokoro": lambda s, text: base64.b64decode(
        post(s, "/dev/captioned_speech", input=text, response_format="pcm", sample_rate=SAMPLE_RATE, stream=False).json()["audio"]
    ),
    "Fish": lambda s, text: post(s, "/v1/tts", text=text, format="pcm").content,
    "ElevenLabs": lambda s, text: post(s, "/v1/text-to-speech/default/stream?output_format=pcm_44100", text=text).content,
    "Fish live": lambda s, text: fish_audio(fish_live(s, text)),
    "ElevenLabs live": lambda s, text: eleven_audio(eleven_live(s, text)),
}


ONE_PAUSE = pytest.approx([0.78], abs=0.11)
"""0.7 s are between two voices, and what minnow says may begin and end with perfect silence."""


def pauses(content, rate=SAMPLE_RATE):
    """The seconds of each stretch of perfect silence of 100 ms and more: the shortest pause that a server adds has 150, and speech has its own."""
    runs = ((silent, len(list(run))) for silent, run in itertools.groupby(np.frombuffer(content, "<i2") == 0))
    return [round(n / rate, 3) for silent, n in runs if silent and n > rate / 10]


@pytest.fixture(scope="module")
def alone(minnow):
    """What is said in a request without other voices."""
    return post(minnow, "/v1/tts", text="Good day. [pause:700ms] Good night.", format="pcm").content


@pytest.mark.parametrize("door", DOORS)
def test_a_dialogue_has_the_pause_that_was_asked_for(minnow, alone, door):
    spoken = DOORS[door](minnow, TEXT)
    assert pauses(spoken) == ONE_PAUSE
    assert len(spoken) > 2 * 1.5 * SAMPLE_RATE
    first = len(alone) // 8 * 2  # minnow's first voice says the same, whoever speaks next
    assert np.abs(np.frombuffer(spoken[:first], "<i2").astype(int) - np.frombuffer(alone[:first], "<i2")).max() <= 4


def test_the_realtime_api_speaks_a_dialogue(minnow):
    assert pauses(realtime_audio(realtime(minnow, TEXT)), 24_000) == ONE_PAUSE


def test_fishs_lists_of_voices_are_named_by_numbers(minnow):
    listed = {"reference_id": ["anna", "default"], "text": SPEAKERS, "format": "pcm"}
    packed = httpx.post(
        f"{minnow.url}/v1/tts",
        content=ormsgpack.packb(listed | {"seed": 1}),
        headers={"Content-Type": "application/msgpack"},
        timeout=HANG_SECONDS,
    )
    assert packed.headers[VOICE_NOTICE]
    assert pauses(packed.content) == ONE_PAUSE
    live = fish_audio(fish_live(minnow, SPEAKERS, reference_id=["anna", "default"]))
    assert pauses(live) == ONE_PAUSE
    alone = {"reference_id": ["anna"], "format": "pcm"}
    assert post(minnow, "/v1/tts", **alone, text="<|speaker:0|>Hi.").content == post(minnow, "/v1/tts", **alone, text="Hi.").content
    unknown = post(minnow, "/v1/tts", **listed | {"text": "<|speaker:2|>Hi."})
    assert (unknown.status_code, "'speaker:2'" in unknown.json()["message"]) == (404, True)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/audio/speech", {"input": UNKNOWN}),
        ("/v1/audio/speech", {"input": UNKNOWN, "stream_format": "sse"}),
        ("/dev/captioned_speech", {"input": UNKNOWN}),
        ("/v1/tts", {"text": UNKNOWN}),
        ("/v1/tts", {"text": "Hi.", "reference_id": ["anna", "eve"]}),
        ("/v1/tts/stream/with-timestamp", {"text": UNKNOWN}),
        ("/v1/text-to-speech/default", {"text": UNKNOWN}),
        ("/v1/text-to-speech/default/stream/with-timestamps", {"text": UNKNOWN}),
        ("/v1/audio/speech", {"input": "[voice:../../etc]Hi."}),
    ],
)
def test_an_unknown_voice_is_refused_before_anything_is_spoken(minnow, path, body):
    answer = post(minnow, path, **body)
    assert answer.status_code == 404
    assert "there is no voice" in answer.text
    assert "known voices: default, anna" in answer.text


def test_too_many_voices_are_refused(minnow):
    answer = post(minnow, "/v1/audio/speech", input="".join(f"[voice:v{n}]Hi." for n in range(17)))
    assert (answer.status_code, "17 voices; at most 16" in answer.text) == (400, True)


def test_sockets_say_that_a_voice_is_unknown(minnow):
    *_, error, finish = fish_live(minnow, UNKNOWN)
    assert "no voice 'eve'" in error["error"]
    assert finish == {"event": "finish", "reason": "error"}
    assert eleven_live(minnow, UNKNOWN)[-1]["error"] == "voice_id_does_not_exist"
    with session(minnow) as connection:
        say(connection, UNKNOWN)
        assert "no voice 'eve'" in events(connection, "error")[-1].error.message


def test_words_of_a_dialogue_are_heard_on_their_sides_of_the_pause(minnow):
    answer = post(minnow, "/v1/audio/speech", input=TEXT, response_format="pcm", sample_rate=SAMPLE_RATE, word_timestamps=True)
    words = json.loads(answer.headers["X-Word-Timestamps"])
    assert [word["word"] for word in words] == ["Good", "day", "Good", "night"]
    assert words[2]["start_ms"] - words[1]["end_ms"] >= 700


def test_a_socket_that_names_a_voice_later_goes_on_with_it(minnow):
    with connect(f"ws://127.0.0.1:{minnow.port}/v1/tts/live", max_size=None) as opened:
        for event in (
            {"event": "start", "request": {"text": "", "format": "pcm", "seed": 1}},
            fish_text("Good day."),
            {"event": "flush"},
            fish_text("[voice:anna]"),
            {"event": "flush"},
            fish_text("[pause:700ms] Good night."),
            STOP,
        ):
            opened.send(ormsgpack.packb(event))
        heard = [ormsgpack.unpackb(opened.recv(HANG_SECONDS))]
        while heard[-1]["event"] != "finish":
            heard.append(ormsgpack.unpackb(opened.recv(HANG_SECONDS)))
    assert heard[-1]["reason"] == "stop"
    assert pauses(fish_audio(heard)) == ONE_PAUSE

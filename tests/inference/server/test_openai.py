"""OpenAI's door as programs use it that were written for other servers: Open WebUI, LiveKit, Pipecat."""

import asyncio
import io

import httpx
import numpy as np
import openai
import pytest
import soundfile

from inference import RequestError
from inference.audio.encode import FORMATS, Encoder
from inference.engine.request import Audio, SpeechRequest
from inference.server import audio_responses
from inference.server.app import create_app
from inference.server.audio_responses import encoded, started
from inference.settings import Settings
from tests.inference.server.conftest import Server
from tests.waiting import HANG_SECONDS

NULLS = ("speed", "response_format", "stream", "stream_format", "chunk_length", "voice", "sample_rate", "seed", "model", "instructions")


def speak(server, **body):
    body = {"input": "Hello.", "max_new_tokens": 20, "seed": 1} | body
    return httpx.post(f"{server.url}/v1/audio/speech", json=body, timeout=HANG_SECONDS)


def test_null_means_the_default(server):
    plain, nulls = speak(server), speak(server, **dict.fromkeys(NULLS))
    assert nulls.status_code == 200, nulls.text
    assert nulls.headers["content-type"] == plain.headers["content-type"] == "audio/mpeg"
    assert speak(server, **dict.fromkeys(NULLS) | {"seed": 1}).content == plain.content
    assert "input: Field required" in speak(server, input=None).json()["error"]["message"]


def test_voices_are_listed_as_open_webui_reads_them(server):
    found = httpx.get(f"{server.url}/v1/audio/voices").json()["voices"]
    assert {v["id"]: v["name"] for v in found} == {"default": "default", "anna": "anna"}  # Open WebUI's own line
    assert httpx.get(f"{server.url}/v1/audio/voices?legacy=true").json() == {"voices": ["default", "anna"]}


def test_models_are_listed_for_everybody_in_their_format(server):
    name = httpx.get(f"{server.url}/ready").json()["model"]
    assert httpx.get(f"{server.url}/v1/audio/models").json() == {"models": [{"id": name, "name": name}]}
    assert [m["id"] for m in httpx.get(f"{server.url}/v1/models", headers={"Authorization": "Bearer any"}).json()["data"]] == [name]
    # Open WebUI's engine for ElevenLabs: its key's header is all that tells it from OpenAI's clients.
    assert [m["model_id"] for m in httpx.get(f"{server.url}/v1/models", headers={"xi-api-key": "any"}).json()] == [name]


@pytest.mark.parametrize("path", ["/health", "/ready", "/ping", "/v1/models", "/v1/audio/voices"])
def test_head_is_answered_as_get_without_a_body(server, path):
    head, get = httpx.head(f"{server.url}{path}"), httpx.get(f"{server.url}{path}")
    assert (head.status_code, head.headers.get("content-type"), head.content) == (200, get.headers.get("content-type"), b"")
    assert httpx.head(f"{server.url}/v1/audio/speech").status_code == 405


@pytest.mark.parametrize("text", ["...", "🎉", "---", "%", "$", "?!", "**", "[pause:1s]"])
@pytest.mark.parametrize(
    ("path", "field"), [("/v1/audio/speech", "input"), ("/v1/tts", "text"), ("/v1/text-to-speech/default?output_format=wav_44100", "text")]
)
def test_signs_alone_are_a_short_silence(server, path, field, text):
    body = {field: text, "response_format": "wav", "format": "wav", "stream": False}
    response = httpx.post(f"{server.url}{path}", json=body, timeout=HANG_SECONDS)
    assert response.status_code == 200, response.text
    samples, rate = soundfile.read(io.BytesIO(response.content))
    assert (len(samples), rate, np.abs(samples).max()) == (8820, 44_100, 0)


@pytest.mark.parametrize("kind", FORMATS)
def test_silence_is_a_file_in_every_format(server, kind):
    if kind not in ("ulaw", "alaw"):
        assert len(speak(server, input="...", response_format=kind).content) > 100


def test_no_text_at_all_and_wrong_fields_are_still_refused(server):
    for body in ({"input": ""}, {"input": " \n"}):
        assert "nothing to speak" in speak(server, **body).json()["error"]["message"]
    assert "temperature is 9" in speak(server, input="...", temperature=9).json()["error"]["message"]
    assert "100,000" in speak(server, input="." * 100_001).json()["error"]["message"]


@pytest.fixture(scope="module")
def named(checkpoint, voices):
    settings = {
        "FISHSERVE_VOICE_ALIASES": "alloy=anna, 21m00Tcm4TlvDq8ikWAM = anna,lost=nobody",
        "FISHSERVE_CORS_ORIGINS": "https://a.example",
    }
    with Server(checkpoint, voices, **settings).wait_ready() as server:
        yield server


def test_other_names_can_mean_a_stored_voice(named):
    anna = speak(named, voice="anna").content
    assert speak(named, voice="alloy").content == anna != speak(named, voice="nova").content
    assert speak(named, voice="nova").content == speak(named, voice="default").content
    path = f"{named.url}/v1/text-to-speech/21m00Tcm4TlvDq8ikWAM"
    assert httpx.post(path, json={"text": "Hello."}, timeout=HANG_SECONDS).status_code == 200
    assert "no voice 'nobody'" in speak(named, voice="lost").json()["error"]["message"]


def test_pages_may_read_the_headers_that_matter(named):
    answer = httpx.post(
        f"{named.url}/v1/audio/speech", json={"input": "...", "response_format": "pcm"}, headers={"Origin": "https://a.example"},
        timeout=HANG_SECONDS,
    )  # fmt: skip
    assert answer.headers["x-sample-rate"] == "24000"
    assert {"X-Sample-Rate", "X-Voice-Notice"} <= set(answer.headers["access-control-expose-headers"].split(", "))


def test_every_reply_says_its_rate(server):
    for body in ({}, {"stream": False}, {"stream_format": "sse"}, {"response_format": "opus"}, {"input": "..."}):
        assert speak(server, **body).headers["x-sample-rate"] == ("48000" if "response_format" in body else "44100")


def test_openais_client_retrieves_a_model_by_any_name(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any") as client:
        assert client.models.retrieve("gpt-4o-mini-tts").id == "gpt-4o-mini-tts"


class Queued:
    """An engine in which a request waits until it is let go."""

    def __init__(self):
        self.free, self.error, self.closed = asyncio.Event(), None, False

    async def state(self):
        return {"status": "ready", "model": "tiny", "codec": "tiny"}

    async def astream(self, _request):
        try:
            await self.free.wait()
            if self.error:
                raise self.error
            yield Audio(np.full(4096, 0.5, np.float32))
        finally:
            self.closed = True


class Patient:
    """An HTTP request whose client does not leave."""

    def __init__(self):
        self.scope = {}

    async def receive(self):
        await asyncio.Event().wait()


@pytest.mark.parametrize("kind", ["mp3", "opus", "aac", "flac", "wav", "pcm"])
def test_a_client_that_has_to_wait_hears_something_again_and_again(monkeypatch, kind):
    """LiveKit's client disconnects after 5 s without a byte."""
    monkeypatch.setattr(audio_responses, "FIRST_BYTE_SECONDS", 0.001)

    async def heard():
        engine = Queued()
        audio = await started(engine, SpeechRequest("Hello."), Patient(), streamed=True)
        pieces = encoded(audio, Encoder(kind))
        early = [await anext(pieces) for _ in range(6)]
        engine.free.set()
        late = [piece async for piece in pieces]
        return early, late, engine.closed

    early, late, closed = asyncio.run(heard())
    assert all(early)
    assert sum(map(len, late)) > 100
    assert closed


def test_a_client_that_leaves_while_it_waits_ends_the_request(monkeypatch):
    monkeypatch.setattr(audio_responses, "FIRST_BYTE_SECONDS", 0.001)

    async def left():
        engine = Queued()
        pieces = encoded(await started(engine, SpeechRequest("Hello."), Patient(), streamed=True), Encoder("mp3"))
        await anext(pieces)
        await pieces.aclose()
        return engine.closed

    assert asyncio.run(left())


def test_an_error_that_comes_soon_has_a_status_and_a_whole_file_waits(monkeypatch):
    async def refused(streamed):
        engine = Queued()
        engine.error = RequestError("too much")
        asyncio.get_running_loop().call_soon(engine.free.set)
        await started(engine, SpeechRequest("Hello."), Patient(), streamed=streamed)

    with pytest.raises(RequestError, match="too much"):
        asyncio.run(refused(streamed=True))
    monkeypatch.setattr(audio_responses, "FIRST_BYTE_SECONDS", 0.001)
    with pytest.raises(RequestError, match="too much"):
        asyncio.run(refused(streamed=False))


def test_what_the_saas_api_asks_for_begins_with_speech(monkeypatch, tmp_path):
    """It counts and charges every sample of `/v1/tts`, and waits without a byte."""
    monkeypatch.setattr(audio_responses, "FIRST_BYTE_SECONDS", 0.001)

    async def spoken():
        engine = Queued()
        app = create_app(engine, Settings(voices_dir=tmp_path))
        asyncio.get_running_loop().call_later(0.1, engine.free.set)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as http:
            return await http.post("/v1/tts", json={"text": "Hello.", "format": "pcm", "streaming": True})

    response = asyncio.run(spoken())
    assert response.status_code == 200, response.text
    assert len(response.content) == 2 * 4096

"""Fish Audio's door, spoken to by both generations of its client, over HTTP and over WebSocket."""

import asyncio
import base64
import concurrent.futures
import contextlib
import io
import json
import re
import threading
from pathlib import Path

import fish_audio_sdk as legacy
import fishaudio
import httpx
import numpy as np
import ormsgpack
import pytest
import soundfile
from fishaudio.types import FlushEvent, TTSConfig
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from inference.hub import EMBEDDED_VOICE
from tests.waiting import HANG_SECONDS, wait

SENTENCES = ["The kettle is on. ", "Tea will be ready soon."]
GREEDY = {"temperature": 0.0, "top_p": 1.0}
LIKE_MINNOW = TTSConfig(**GREEDY, repetition_penalty=1.0)  # the newer client always sends one


@pytest.fixture(scope="module")
def server(minnow):
    return minnow


@pytest.fixture(scope="module")
def clip(server):
    """Three seconds of speech as a WAV file, and what is said in it."""
    text = "The quick brown fox jumps over the lazy dog."
    response = httpx.post(f"{server.url}/v1/tts", json={"text": text, "seed": 1}, timeout=HANG_SECONDS)
    return response.content, text


@pytest.fixture(scope="module")
def client(server):
    with contextlib.closing(fishaudio.FishAudio(api_key="any", base_url=server.url)) as client:
        yield client


@contextlib.contextmanager
def old(server):
    with legacy.Session("any", base_url=server.url) as session:
        yield session


def raw(server, **body):
    return httpx.post(f"{server.url}/v1/tts", json={"format": "pcm"} | GREEDY | body, timeout=HANG_SECONDS)


def seconds(pcm):
    return len(pcm) / 2 / 44_100


def same(pcm, other):
    """The same sound, but for the last bits: which neighbours and which memory it had decides how sums are rounded."""
    return len(pcm) == len(other) and np.abs(np.frombuffer(pcm, "<i2").astype(int) - np.frombuffer(other, "<i2")).max() <= 4


# -- HTTP ------------------------------------------------------------------------------------------------------------------------


def test_both_clients_hear_the_same(server, client):
    expected = raw(server, text=SENTENCES[0]).content
    assert 0.5 < seconds(expected) < 5
    new = client.tts.convert(text=SENTENCES[0], format="pcm", config=LIKE_MINNOW)
    with old(server) as session:
        former = b"".join(session.tts(legacy.TTSRequest(text=SENTENCES[0], format="pcm", **GREEDY)))
    assert same(new, expected)
    assert same(former, expected)


def test_both_async_clients_hear_the_same(server):
    async def hear():
        async with fishaudio.AsyncFishAudio(api_key="any", base_url=server.url) as c:
            new = await c.tts.convert(text=SENTENCES[0], format="pcm", config=LIKE_MINNOW)
        async with legacy.Session("any", base_url=server.url) as session:
            request = legacy.TTSRequest(text=SENTENCES[0], format="pcm", **GREEDY)
            former = b"".join([chunk async for chunk in session.tts.awaitable(request)])
        return new, former

    expected = raw(server, text=SENTENCES[0]).content
    assert [same(heard, expected) for heard in asyncio.run(hear())] == [True, True]


@pytest.mark.parametrize("kind", ["wav", "mp3", "opus"])
def test_every_format_has_all_of_the_sound(server, kind, client):
    content = client.tts.convert(text=SENTENCES[0], format=kind, config=LIKE_MINNOW)
    samples, rate = soundfile.read(io.BytesIO(content))
    assert len(samples) / rate == pytest.approx(seconds(raw(server, text=SENTENCES[0]).content), abs=0.06)


def test_a_wav_has_true_sizes_unless_it_is_streamed(server):
    whole, streamed = (raw(server, text="Hello.", format="wav", streaming=s) for s in (None, True))
    assert int.from_bytes(whole.content[40:44], "little") == len(whole.content) - 44
    assert streamed.content[40:44] == b"\xff" * 4
    assert same(streamed.content[44:], whole.content[44:])


def test_a_voice_that_the_model_hardly_follows_is_said_to_be(server, clip):
    """minnow follows little but its pitch."""
    audio, text = clip
    inline = {"references": [{"audio": base64.b64encode(audio).decode(), "text": text}]}
    short = {"max_new_tokens": 5}
    for path, body, noted in [
        ("/v1/tts", {"text": "Hi.", **short}, False),
        ("/v1/tts", {"text": "Hi.", "reference_id": "anna", **short}, True),
        ("/v1/tts", {"text": "Hi.", "streaming": False, **inline, **short}, True),
        ("/v1/audio/speech", {"input": "Hi.", **short}, False),
        ("/v1/audio/speech", {"input": "Hi.", "voice": "alloy", **short}, False),
        ("/v1/audio/speech", {"input": "Hi.", "voice": "anna", **short}, True),
        ("/v1/audio/speech", {"input": "Hi.", "voice": "anna", "stream_format": "sse", **short}, True),
        ("/v1/text-to-speech/default", {"text": "Hi."}, False),
        ("/v1/text-to-speech/anna", {"text": "Hi."}, True),
    ]:
        answer = httpx.post(f"{server.url}{path}", json=body, timeout=HANG_SECONDS)
        assert answer.status_code == 200, answer.text
        assert ("follows the pitch" in answer.headers.get("x-voice-notice", "")) is noted, (path, body)


@pytest.mark.parametrize(
    "sent", [{"json": {"title": "new"}}, {"data": {"title": "new"}}, {"files": {"title": (None, "new")}}], ids=lambda s: next(iter(s))
)
def test_a_voice_is_renamed_by_json_and_by_a_form(server, clip, sent):
    audio, text = clip
    made = httpx.post(f"{server.url}/model", data={"title": "old", "texts": text}, files={"voices": audio}, timeout=HANG_SECONDS)
    assert made.status_code == 201, made.text
    try:
        changed = httpx.patch(f"{server.url}/model/old", **sent)
        assert (changed.status_code, changed.json()["_id"]) == (200, "new")
    finally:
        httpx.delete(f"{server.url}/model/new")
    wrong = httpx.patch(f"{server.url}/model/anna", content=b"{", headers={"Content-Type": "application/json"})
    assert wrong.status_code == 400
    assert httpx.patch(f"{server.url}/model/anna", json={"title": 3}).status_code == 400


def test_speed_and_volume_are_kept(server):
    plain = np.frombuffer(raw(server, text="Hello.").content, "<i2").astype(float)
    quiet = np.frombuffer(raw(server, text="Hello.", prosody={"volume": -20}).content, "<i2")
    fast = raw(server, text="Hello.", prosody={"speed": 2}).content
    np.testing.assert_allclose(quiet, plain / 10, atol=2)
    assert seconds(fast) == pytest.approx(len(plain) / 2 / 44_100, abs=0.1)


def test_bit_rates_are_kept(server):
    text = SENTENCES[0] * 3
    small, large = (len(raw(server, text=text, format="mp3", mp3_bitrate=rate).content) for rate in (64, 192))
    assert large == pytest.approx(3 * small, rel=0.1)


def test_a_reference_sent_along_changes_the_voice_and_counts_once(server, clip, client):
    audio, text = clip
    config = TTSConfig(format="pcm", references=[fishaudio.types.ReferenceAudio(audio=audio, text=text)], repetition_penalty=1.0, **GREEDY)
    packed = client.tts.convert(text=SENTENCES[1], config=config)
    assert not same(packed, raw(server, text=SENTENCES[1]).content)
    assert same(client.tts.convert(text=SENTENCES[1], config=config), packed)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"text": ""}, 400, "nothing to speak"),
        ({"text": 3}, 400, "text is '3'"),
        ({"text": [3]}, 400, "text is a list: "),
        ({}, 400, "text: Field required"),
        ({"text": "hi", "reference_id": "../../etc"}, 404, "no voice"),
        ({"text": "hi", "references": [{"audio": "%%%", "text": "x"}]}, 400, "references.0.audio"),
        ({"text": "hi", "references": [{"audio": "QUJD", "text": "x"}]}, 400, "not audio"),
        ({"text": "hi", "format": "ogg"}, 400, "format is 'ogg'"),
        ({"text": "hi", "prosody": {"speed": 9}}, 400, "speed is 9"),
        ({"text": "hi", "prosody": {"volume": 99}}, 400, "volume is 99"),
        ({"text": "hi", "top_p": 7}, 400, "top_p is 7"),
        ({"text": "hi", "chunk_length": 1}, 400, "chunk_length is 1"),
        ([], 400, "Input should be"),
    ],
    ids=str,
)
@pytest.mark.parametrize("packed", [False, True])
def test_bad_input_gets_one_sentence(server, body, status, words, packed):
    content = {"content": ormsgpack.packb(body), "headers": {"Content-Type": "application/msgpack"}} if packed else {"json": body}
    response = httpx.post(f"{server.url}/v1/tts", **content, timeout=HANG_SECONDS)
    assert response.status_code == status
    assert words in response.json()["message"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200), kind=st.sampled_from(["application/msgpack", "application/json", ""]))
def test_any_bytes_get_an_answer(server, content, kind):
    for path in ("/v1/tts", "/v1/vqgan/encode", "/v1/vqgan/decode"):
        response = httpx.post(f"{server.url}{path}", content=content, headers={"Content-Type": kind}, timeout=HANG_SECONDS)
        assert response.status_code in (200, 400)


def test_the_clients_raise_their_own_errors(server, client):
    with pytest.raises(fishaudio.exceptions.NotFoundError, match="no voice 'nobody'"):
        client.tts.convert(text="Hello.", reference_id="nobody")
    with pytest.raises(legacy.HttpCodeErr) as error, old(server) as session:
        list(session.tts(legacy.TTSRequest(text="Hello.", reference_id="nobody")))
    assert error.value.status == 404


def test_the_pages_example_runs(server):
    page = (Path(__file__).parents[3] / "docs/fish.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    names = {}
    exec(code.replace("http://127.0.0.1:8080", server.url).replace("    ...", "    heard = chunk"), names)
    names["client"].close()
    assert len(names["audio"]) > 1000
    assert names["heard"]


# -- voices, codes, credit ---------------------------------------------------------------------------------------------------------


def test_voices_are_made_listed_used_renamed_and_deleted(server, clip, client):
    audio, text = clip
    voices = client.voices
    made = voices.create(title="carla", voices=[audio], texts=[text])
    assert (made.id, made.state, made.author.nickname) == ("carla", "trained", "fishserve")
    with old(server) as session:
        assert [m.title for m in session.list_models(self_only=True).items] == ["default", "anna", "carla"]
        assert session.get_model("carla").id == "carla"
    assert voices.list(title="carl").total == 1
    assert voices.list(page_size=1, page_number=3).items[0].id == "carla"
    spoken = client.tts.convert(text=SENTENCES[1], reference_id="carla", format="pcm", config=LIKE_MINNOW)
    assert not same(spoken, raw(server, text=SENTENCES[1]).content)
    voices.update("carla", title="bella")
    with pytest.raises(fishaudio.exceptions.NotFoundError):
        voices.get("carla")
    voices.delete("bella")
    assert [v.id for v in voices.list().items] == ["default", "anna"]


@pytest.mark.parametrize(
    ("title", "texts", "words"), [("../x", ["hi"], "'../x'"), ("anna", [], "1 voices and 0 texts"), ("default", ["hi"], "default")]
)
def test_a_voice_that_cannot_be_made_says_why(clip, title, texts, words, client):
    with pytest.raises(fishaudio.exceptions.APIError, match=words):
        client.voices.create(title=title, voices=[clip[0]], texts=texts)


def test_codes_and_back(server, clip):
    def post(path, body):
        response = httpx.post(
            f"{server.url}/v1/vqgan/{path}",
            content=ormsgpack.packb(body),
            headers={"Content-Type": "application/msgpack"},
            timeout=HANG_SECONDS,
        )
        assert response.headers["content-type"] == "application/msgpack"
        return ormsgpack.unpackb(response.content)

    samples, _ = soundfile.read(io.BytesIO(clip[0]))
    (codes,) = post("encode", {"audios": [clip[0]]})["tokens"]
    (sound,) = post("decode", {"tokens": [codes]})["audios"]
    assert len(codes) == 8
    assert len(sound) // 2 == 2048 * len(codes[0]) == pytest.approx(len(samples), abs=2048)
    for tokens, words in (
        ([[1], [2, 3]], "different lengths"),
        ([[5000]] * 8, "5000"),
        ([[1]], "(8, frames)"),
        ([[1] * 3000] * 8, "tokens.0.0 is a list: List should have at most 1937 items"),
        ([], "at least 1 item"),
        ([["x"]], "tokens.0.0.0 is 'x'"),
        ([[-1]], "tokens.0.0.0 is '-1'"),
        ([[2**31]], "tokens.0.0.0 is '2147483648'"),
    ):
        response = httpx.post(f"{server.url}/v1/vqgan/decode", json={"tokens": [tokens]})
        assert response.status_code == 400
        assert words in response.json()["message"]


def test_of_a_body_full_of_faults_the_first_is_enough(server):
    """Each of a million used to be written down, in a gigabyte, while nobody else was answered."""

    def memory():
        return sum(p.memory_info().rss for p in server.members())

    before = memory()
    body = ormsgpack.packb({"tokens": [[[None] * 1900] * 60] * 2})
    response = httpx.post(
        f"{server.url}/v1/vqgan/decode", content=body, headers={"Content-Type": "application/msgpack"}, timeout=HANG_SECONDS
    )
    assert response.status_code == 400
    assert "tokens.0.0.0 is 'None'" in response.json()["message"]
    assert memory() - before < 300e6


def test_there_is_credit(server, client):
    assert client.account.get_credits().credit > 0
    assert client.account.get_package().balance > 0
    with old(server) as session:
        assert session.get_api_credit().credit > 0
        assert session.get_package().total > 0


# -- WebSocket ---------------------------------------------------------------------------------------------------------------------


def test_both_clients_speak_text_as_it_comes(server, client):
    expected = raw(server, text="".join(SENTENCES), chunk_length=25).content
    pieces = ["The ket", "tle is", " on. ", "Tea will be ", "ready soon."]
    new = b"".join(client.tts.stream_websocket(iter(pieces), format="pcm", config=LIKE_MINNOW))
    with legacy.WebSocketSession("any", base_url=server.url) as session:
        former = b"".join(session.tts(legacy.TTSRequest(text="", format="pcm", **GREEDY), iter(pieces)))
    assert same(new, expected)
    assert same(former, expected)


def test_both_async_clients_speak_text_as_it_comes(server):
    async def pieces():
        for piece in SENTENCES:
            yield piece

    async def hear():
        async with fishaudio.AsyncFishAudio(api_key="any", base_url=server.url) as c:
            stream = c.tts.stream_websocket(pieces(), format="pcm", config=LIKE_MINNOW)
            new = b"".join([chunk async for chunk in stream])
        async with legacy.AsyncWebSocketSession("any", base_url=server.url) as session:
            request = legacy.TTSRequest(text="", format="pcm", **GREEDY)
            former = b"".join([chunk async for chunk in session.tts(request, pieces())])
        return new, former

    expected = raw(server, text="".join(SENTENCES), chunk_length=25).content
    assert [same(heard, expected) for heard in asyncio.run(hear())] == [True, True]


@pytest.mark.parametrize("flush", [True, False])
def test_the_first_sentence_is_heard_before_the_second_is_written(server, flush, client):
    heard = threading.Event()

    def pieces():
        yield SENTENCES[0]
        yield FlushEvent() if flush else "Tea "
        assert heard.wait(HANG_SECONDS)
        yield SENTENCES[1]

    total = 0
    for chunk in client.tts.stream_websocket(pieces(), format="pcm", config=LIKE_MINNOW):
        total += len(chunk)
        heard.set()
    assert total / 2 / 44_100 > seconds(raw(server, text=SENTENCES[0]).content)


def test_an_mp3_over_a_socket_is_one_file(server, client):
    content = b"".join(client.tts.stream_websocket(iter(SENTENCES), format="mp3", config=LIKE_MINNOW))
    samples, rate = soundfile.read(io.BytesIO(content))
    expected = seconds(raw(server, text="".join(SENTENCES), chunk_length=25).content)
    # Where the speech had to wait for text, after one sentence or after both, 0.16 s of silence pushed out what came before.
    assert expected - 0.01 < len(samples) / rate < expected + 0.4


def test_a_pause_is_silence_in_what_is_streamed(server, client):
    natural = json.loads((EMBEDDED_VOICE / "generation_config.json").read_text())["sentence_pause"]  # which the pause replaces
    plain = np.frombuffer(raw(server, text="".join(SENTENCES), chunk_length=25).content, "<i2")
    for spoken in (
        raw(server, text="[pause:500ms]".join(SENTENCES), chunk_length=25).content,
        b"".join(
            client.tts.stream_websocket(iter([SENTENCES[0] + '<break time="0.5s"/>', SENTENCES[1]]), format="pcm", config=LIKE_MINNOW)
        ),
    ):
        samples = np.frombuffer(spoken, "<i2")
        assert len(samples) == len(plain) + 22_050 - round(natural * 44_100)
        first = len(raw(server, text=SENTENCES[0]).content) // 2
        assert not samples[first : first + 22_050].any()


def test_nothing_said_is_nothing_heard(client):
    assert list(client.tts.stream_websocket(iter(["", " ", ""]))) == []
    signs = b"".join(client.tts.stream_websocket(iter(["", " ...", ""]), format="pcm"))
    assert signs == bytes(2 * 8820)


def talk(server, *messages):
    """The events that come back for some messages: maps are packed, other things are sent as they are."""
    with connect(f"ws://127.0.0.1:{server.port}/v1/tts/live", max_size=None) as socket:
        with contextlib.suppress(ConnectionClosed):
            for message in messages:
                socket.send(ormsgpack.packb(message) if isinstance(message, dict) else message)
        events = [ormsgpack.unpackb(socket.recv(HANG_SECONDS))]
        while events[-1]["event"] != "finish":
            events.append(ormsgpack.unpackb(socket.recv(HANG_SECONDS)))
        return events


START = {"event": "start", "request": {"text": "", "format": "pcm", "max_new_tokens": 20}}


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([b"\xc1"], "not valid msgpack"),
        (["text"], "not an event"),
        ([{"no": "event"}], "not an event"),
        ([{"event": "text", "text": "hi"}], "must be 'start'"),
        ([{"event": "start", "request": 3}], "must be 'start'"),
        ([{"event": "start", "request": {"format": "ogg"}}], "format is 'ogg'"),
        ([{"event": "start", "request": {"reference_id": "nobody", "text": "hi"}}, {"event": "stop"}], "no voice 'nobody'"),
        ([{"event": "start", "request": {"temperature": 9, "text": "hi"}}, {"event": "stop"}], "temperature is 9"),
        ([START, {"event": "text", "text": 3}], "no text"),
        ([{"event": "start", "request": {"temperature": 9}}], "temperature is 9"),
        ([{"event": "start", "request": {"chunk_length": 10**9}}], "chunk_length is 1000000000"),
        ([{"event": "start", "request": {"prosody": {"speed": 9}}}], "speed is 9"),
        ([{"event": "start", "request": {"text": "a. " * 40_000}}], "100,000"),
        ([START, {"event": "text", "text": "a. " * 40_000}], "100,000"),
        ([START, {"event": "text", "text": "." * 10_000_000}], "10,000,000"),
    ],
    ids=lambda m: str(m)[:60],
)
def test_what_cannot_be_ends_the_connection_with_a_reason(server, messages, words):
    *_, error, finish = talk(server, *messages)
    assert error["event"] == "error"
    assert words in error["error"]
    assert finish == {"event": "finish", "reason": "error"}


events = st.one_of(
    st.fixed_dictionaries({"event": st.sampled_from(["start", "text", "flush", "stop", "odd"])}, optional={"text": st.text(max_size=30)}),
    st.dictionaries(st.text(max_size=5), st.none() | st.integers(-9, 9) | st.text(max_size=5), max_size=3),
    st.binary(max_size=30),
    st.text(max_size=10),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(begun=st.booleans(), messages=st.lists(events, max_size=6))
def test_any_messages_get_an_end(server, begun, messages):
    got = talk(server, *([START] if begun else []), *messages, {"event": "stop"}, b"\xc1")
    assert got[-1]["event"] == "finish"
    assert {e["event"] for e in got} <= {"audio", "error", "finish"}


def test_a_client_that_leaves_cancels_its_request(server):
    before = server.metric("fishserve_requests_total", reason="cancelled")
    with connect(f"ws://127.0.0.1:{server.port}/v1/tts/live") as socket:
        socket.send(ormsgpack.packb({"event": "start", "request": {"text": SENTENCES[0] * 50, "format": "pcm"}}))
        socket.send(ormsgpack.packb({"event": "flush"}))
        assert ormsgpack.unpackb(socket.recv(HANG_SECONDS))["event"] == "audio"
    wait(lambda: server.metric("fishserve_requests_total", reason="cancelled") > before, "the request went on without its client")


def test_connections_that_wait_for_text_keep_nobody_waiting(server):
    """More of them than there are rows, each in the middle of what it says."""
    with contextlib.ExitStack() as stack:
        for _ in range(12):
            socket = stack.enter_context(connect(f"ws://127.0.0.1:{server.port}/v1/tts/live"))
            socket.send(ormsgpack.packb({"event": "start", "request": {"text": "Hello.", "format": "pcm"}}))
            socket.send(ormsgpack.packb({"event": "flush"}))
            assert ormsgpack.unpackb(socket.recv(HANG_SECONDS))["event"] == "audio"
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            assert all(r.status_code == 200 for r in pool.map(lambda _: raw(server, text="Hello."), range(4)))

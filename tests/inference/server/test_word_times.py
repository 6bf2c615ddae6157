"""When each word is heard, as the speech APIs say it."""

import base64
import io
import itertools
import json

import av
import httpx
import ormsgpack
import pytest
from websockets.sync.client import connect

from inference.server.word_times import HEADER, MAX_HEADER_BYTES, OMITTED, CharacterTimes, header
from inference.text.words import Word
from tests.inference.server.test_elevenlabs_live import finals, socket
from tests.waiting import HANG_SECONDS

TEXT = "Hi there, **it** is $5. [pause:0.5s] Then go."
WORDS = ["Hi", "there", "it", "is", "$5", "Then", "go"]


def post(server, path, **body):
    return httpx.post(f"{server.url}{path}", json={"seed": 1} | body, timeout=HANG_SECONDS)


def seconds(content):
    with av.open(io.BytesIO(content)) as container:
        return sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))


def events(answer):
    return [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n") if line]


@pytest.fixture(scope="module")
def openai_header(minnow):
    answer = post(minnow, "/v1/audio/speech", input=TEXT, response_format="wav", word_timestamps=True)
    return json.loads(answer.headers[HEADER]), answer.content


def assert_in_order(times, whole):
    flat = list(itertools.chain(*times))
    assert flat == sorted(flat)
    assert 0 <= flat[0] < flat[-1] <= whole


def test_openais_door_names_the_words_in_a_header(openai_header):
    words, content = openai_header
    assert [w["word"] for w in words] == WORDS
    assert_in_order([(w["start_ms"], w["end_ms"]) for w in words], 1000 * seconds(content) + 1)
    assert words[5]["start_ms"] - words[4]["end_ms"] >= 500


def test_openais_events_have_the_same_words(minnow, openai_header):
    answer = post(minnow, "/v1/audio/speech", input=TEXT, response_format="wav", word_timestamps=True, stream_format="sse")
    found = [w for event in events(answer) if event["type"] == "speech.audio.words" for w in event["words"]]
    assert [(w["word"], round(1000 * w["start"]), round(1000 * w["end"])) for w in found] == [tuple(w.values()) for w in openai_header[0]]
    assert all(TEXT[w["start_char"] : w["end_char"]] == w["word"] for w in found)


def test_words_come_while_their_sentence_is_still_spoken_and_are_the_same_in_every_stream(minnow):
    text = "The old keeper of the lighthouse climbed the long stairs every evening when the sun went down behind the sea."
    answer = post(minnow, "/v1/audio/speech", input=text, response_format="pcm", word_timestamps=True, stream_format="sse")
    kinds = [event["type"] for event in events(answer)]
    assert kinds.index("speech.audio.words") < len(kinds) - 1 - kinds[::-1].index("speech.audio.delta")
    assert kinds.count("speech.audio.words") > 2
    found = [w for event in events(answer) if event["type"] == "speech.audio.words" for w in event["words"]]
    assert [w["word"] for w in found] == text.rstrip(".").split()
    whole = post(minnow, "/v1/audio/speech", input=text, response_format="pcm", word_timestamps=True)
    assert [(w["word"], round(1000 * w["start"]), round(1000 * w["end"])) for w in found] == [
        tuple(w.values()) for w in json.loads(whole.headers[HEADER])
    ]


def test_nobody_is_told_the_times_without_asking(minnow):
    answer = post(minnow, "/v1/audio/speech", input="Hi.", response_format="wav", stream_format="sse")
    assert {event["type"] for event in events(answer)} == {"speech.audio.delta", "speech.audio.done"}


@pytest.mark.parametrize(("kind", "speed"), [("mp3", 0.5), ("pcm", 2.0)])
def test_speed_counts(minnow, openai_header, kind, speed):
    body = {"input": TEXT, "response_format": kind, "speed": speed, "sample_rate": 44_100}
    found = json.loads(post(minnow, "/v1/audio/speech", word_timestamps=True, **body).headers[HEADER])
    assert [w["start_ms"] for w in found] == [pytest.approx(w["start_ms"] / speed, abs=2) for w in openai_header[0]]


def test_a_header_has_a_limit():
    words = [Word("wörd", 0, 4, n, n + 1, "word ") for n in range(200)]
    assert header(words) == {
        OMITTED: str(
            len(json.dumps([{"word": "wörd", "start_ms": 1000 * n, "end_ms": 1000 * n + 1000} for n in range(200)], separators=(",", ":")))
        )
    }
    assert int(header(words)[OMITTED]) > MAX_HEADER_BYTES
    assert json.loads(header(words[:3])[HEADER])[2] == {"word": "wörd", "start_ms": 2000, "end_ms": 3000}


@pytest.mark.parametrize("stream", [True, False])
def test_kokoros_captioned_speech(minnow, openai_header, stream):
    answer = post(minnow, "/dev/captioned_speech", model="kokoro", input=TEXT, response_format="wav", stream=stream)
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert (len(lines) > 1) == stream
    assert {line["audio_format"] for line in lines} == {"audio/wav"}
    assert b"".join(base64.b64decode(line["audio"]) for line in lines)[44:] == openai_header[1][44:]
    found = [t for line in lines for t in line["timestamps"]]
    assert [(t["word"], round(1000 * t["start_time"]), round(1000 * t["end_time"])) for t in found] == [
        tuple(w.values()) for w in openai_header[0]
    ]


def absolute(chunks):
    """The words of Fish's chunks, with times of the whole audio in ms. A later alignment of a chunk would replace an earlier one."""
    latest = {c["chunk_seq"]: c for c in chunks if c["alignment"]}
    return [
        (s["text"], round(1000 * (c["chunk_audio_offset_sec"] + s["start"])), round(1000 * (c["chunk_audio_offset_sec"] + s["end"])))
        for c in latest.values()
        for s in c["alignment"]["segments"]
    ]


def close_to(found, words):
    return [f[0] for f in found] == [w["word"] for w in words] and all(
        abs(a - b) <= 2 for f, w in zip(found, words, strict=True) for a, b in zip(f[1:], (w["start_ms"], w["end_ms"]), strict=True)
    )


def test_fishs_events_have_the_words_of_each_chunk(minnow, openai_header):
    answer = post(minnow, "/v1/tts/stream/with-timestamp", text=TEXT, format="wav")
    assert answer.headers["content-type"].startswith("text/event-stream")
    chunks = events(answer)
    assert b"".join(base64.b64decode(c["audio_base64"]) for c in chunks)[44:] == openai_header[1][44:]
    assert close_to(absolute(chunks), openai_header[0])
    contents = [c["content"] for c in chunks if c["alignment"]]
    assert ("".join(contents), contents[-1]) == (TEXT, "[pause:0.5s] Then go.")
    assert sum(c["alignment"]["audio_duration"] for c in chunks if c["alignment"]) == pytest.approx(seconds(openai_header[1]), abs=0.01)


def fish_live(server, path, *texts):
    heard = []
    with connect(f"ws://127.0.0.1:{server.port}{path}", max_size=None) as opened:
        request = {"text": "", "format": "wav", "seed": 1}
        sent = ({"event": "start", "request": request}, *({"event": "text", "text": t} for t in texts), {"event": "stop"})
        for event in sent:
            opened.send(ormsgpack.packb(event))
        while (event := ormsgpack.unpackb(opened.recv(HANG_SECONDS)))["event"] == "audio":
            heard.append(event)
    return heard


def test_fishs_socket_has_them_as_the_text_comes(minnow):
    texts = ("... One is $5. ", "Two", " is it.")
    heard = fish_live(minnow, "/v1/tts/live/with-timestamp", *texts)
    found = absolute(heard)
    assert [f[0] for f in found] == ["One", "is", "$5", "Two", "is", "it"]
    assert_in_order([f[1:] for f in found], 1000 * sum(len(e["audio"]) - 44 * (n == 0) for n, e in enumerate(heard)) / 88_200 + 1)
    assert "".join(e["content"] for e in heard) == "".join(texts)
    assert "alignment" not in fish_live(minnow, "/v1/tts/live", "Hi.")[0]


def test_a_listener_who_interrupts_fishs_socket_learns_what_was_heard(minnow):
    text = "One two three. " * 40
    with connect(f"ws://127.0.0.1:{minnow.port}/v1/tts/live/with-timestamp", max_size=None) as opened:

        def talk(*events, until):
            for event in events:
                opened.send(ormsgpack.packb(event))
            heard = [ormsgpack.unpackb(opened.recv(HANG_SECONDS))]
            while not until(heard[-1]):
                heard.append(ormsgpack.unpackb(opened.recv(HANG_SECONDS)))
            return heard

        start = {"event": "start", "request": {"text": text, "format": "pcm", "seed": 1}}
        heard = talk(start, {"event": "stop"}, until=lambda e: e.get("alignment"))
        heard += talk({"event": "cancel", "played_sec": 0.7}, until=lambda e: e["event"] == "finish")
        finish, words = heard[-1], absolute(heard[:-1])
        assert finish["reason"] == "cancelled"
        assert finish["audio_sec"] == pytest.approx(sum(len(e["audio"]) for e in heard[:-1]) / 88_200, abs=0.01)
        last = [name for name, begins, _ in words if begins < 700][-1]
        assert (finish["last_word"]["word"], finish["last_word"]["start"] < 0.7) == (last, True)
        assert len(absolute(heard[:-1])) < 120
        again = talk(start | {"request": {"text": "Hi.", "format": "pcm"}}, {"event": "stop"}, until=lambda e: e["event"] == "finish")
        assert again[-1]["reason"] == "stop"
        assert again[-1]["last_word"]["word"] == "Hi"
        unheard = talk(start, {"event": "cancel"}, until=lambda e: e["event"] == "finish")
        assert unheard[-1]["reason"] == "cancelled"


@pytest.mark.parametrize(
    ("field", "query"), [("alignment", {}), ("normalizedAlignment", {}), ("normalizedAlignment", {"sync_alignment": "true"})]
)
def test_elevenlabs_sockets_count_from_the_alignment_before_or_as_livekit_wants_from_the_beginning(minnow, field, query):
    texts = ("Hi there. ", "It is $5. ")
    with socket(minnow, **query) as talk:
        sent = [{"text": text, "context_id": "a", "flush": True} for text in texts]
        heard = talk({"text": " ", "context_id": "a", "voice_settings": {}}, *sent, {"context_id": "a", "close_context": True})
    assert finals(heard) == ["a"]
    assert (heard[-1]["lastWord"]["word"], heard[-1]["lastWord"]["start_char"]) == ("$5", len("Hi there. It is ") + 1)
    found = [m[field] for m in heard if m.get(field)]
    assert "".join(c for a in found for c in a["chars"]).strip() == (
        "Hi there. It is $5." if field == "alignment" else "Hi there. It is five dollars."
    )
    assert {len(a["chars"]) for a in found} == {len(a["charStartTimesMs"]) for a in found} == {len(a["charDurationsMs"]) for a in found}
    clock = last = 0
    for a in found:
        for start, length in zip(a["charStartTimesMs"], a["charDurationsMs"], strict=True):
            assert clock + start >= last
            last = clock + start + length
        clock = 0 if query else last
    pcm = b"".join(base64.b64decode(m["audio"]) for m in heard if m.get("audio"))
    assert last == pytest.approx(1000 * len(pcm) / 88_200, abs=2)


def test_pipecats_clock_and_words_are_right(minnow):
    """As Pipecat reads alignments: a word is complete at a space, and only an alignment that completes one moves its clock."""
    with socket(minnow, auto_mode="true") as talk:
        sent = [{"text": text, "context_id": "a", "flush": True} for text in ("One.", " Two is $5.", " Three.")]
        heard = talk({"text": " ", "context_id": "a"}, *sent, {"context_id": "a", "close_context": True})
    clock, partial, began, words = 0, "", 0, []
    for a in (m["alignment"] for m in heard if not m["isFinal"] and m["alignment"]):
        complete = False
        for char, start in zip(a["chars"], a["charStartTimesMs"], strict=True):
            if char == " ":
                complete |= bool(partial)
                words += [(partial, began)] if partial else []
                partial = ""
            else:
                began = began if partial else clock + start
                partial += char
        clock += (a["charStartTimesMs"][-1] + a["charDurationsMs"][-1]) * complete
    pcm = b"".join(base64.b64decode(m["audio"]) for m in heard if m.get("audio"))
    assert ([w for w, _ in words], partial) == (["One.", "Two", "is", "$5.", "Three."], "")
    assert clock == pytest.approx(1000 * len(pcm) / 88_200, abs=2)
    assert [t for _, t in words] == sorted(t for _, t in words)


def test_elevenlabs_sockets_leave_them_out_on_demand(minnow):
    with socket(minnow, sync_alignment="false") as talk:
        heard = talk({"text": "Hi. ", "context_id": "a", "flush": True}, {"context_id": "a", "close_context": True})
    assert not any(m["alignment"] or m["normalizedAlignment"] for m in heard)


def test_characters_of_a_stream_are_the_text():
    text, times = "我有3个。他.5走(了)  x", CharacterTimes()
    words = [Word(text[n : n + 1], n, n + 1, n, n + 1, "") for n in (0, 1, 2, 3, 5, 8, 10, 14)]
    parts = [times.next(text, words[:4], 4), times.next(text, words[4:5], 6), times.next(text, words[5:], 16), times.rest(text)]
    assert "".join(c for part in parts for c in part.characters) == text
    assert [t for part in parts for t in part.starts] == sorted(t for part in parts for t in part.starts)

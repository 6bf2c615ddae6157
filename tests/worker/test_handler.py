"""The worker's handler without RunPod around it, on the bundled voice."""

import asyncio
import json

import pytest

from inference import SpeechEngine
from inference.voices.notice import PITCH_ONLY
from inference.voices.store import VoiceStore
from tests.inference.server.conftest import voices  # noqa: F401 - a fixture
from tests.otlp import PARENT, TRACE, TRACEPARENT, receiver  # noqa: F401 - a fixture
from worker.handler import Handler
from worker.storage import Storage


@pytest.fixture(scope="module")
def handler(voices):  # noqa: F811 - a fixture
    with SpeechEngine.load(device="cpu") as engine:
        yield Handler(engine, VoiceStore(voices), Storage(), lambda *_: None)


@pytest.mark.parametrize(("voice", "warning"), [({}, None), ({"voice": "default"}, None), ({"voice": "anna"}, PITCH_ONLY)])
def test_a_voice_that_the_model_hardly_follows_is_reported(handler, voice, warning):
    async def run():
        return [piece async for piece in handler({"id": "1", "input": {"text": "Hello there.", "format": "wav"} | voice})]

    (result,) = asyncio.run(run())
    assert result.get("warning") == warning


def test_a_job_continues_the_trace_of_who_sent_it(handler, receiver):  # noqa: F811 - a fixture
    async def run():
        return [piece async for piece in handler({"id": "1", "input": {"text": "Hello.", "format": "wav", "traceparent": TRACEPARENT}})]

    assert "error" not in asyncio.run(run())[0]
    found = receiver.of(TRACE, 5)
    assert set(found) == {"queue", "prefill", "first frame", "vocoder", "job"}
    assert {span.parent for span in found.values()} == {PARENT}


def test_a_text_may_name_the_workers_voices(handler):
    async def run(text):
        return [piece async for piece in handler({"id": "1", "input": {"text": text, "format": "wav", "seed": 1}})]

    (one,), (both,) = (
        asyncio.run(run(text)) for text in ("Good day. [voice:anna]Good night.", "Good day. [voice:anna][pause:2s]Good night.")
    )
    assert both["seconds"] - one["seconds"] == pytest.approx(2 - 0.6, abs=0.01)
    assert both["warning"] == PITCH_ONLY
    assert asyncio.run(run("Good day. [voice:eve]Good night."))[0]["error"].startswith("there is no voice 'eve'")


def test_a_job_whose_engine_has_ended_gets_no_answer(voices):  # noqa: F811 - a fixture
    """RunPod gives it to another worker, as this one ends."""

    async def run():
        with SpeechEngine.load(device="cpu") as engine:
            handler = Handler(engine, VoiceStore(voices), Storage(), lambda *_: None)
            job = handler({"id": "1", "input": {"text": "Hello there. " * 50, "format": "wav", "stream": True}})
            assert "audio" in await anext(job)
            engine._scheduler.close(RuntimeError("device lost"))
            answers = asyncio.ensure_future(collect(job))
            while not handler.left:
                await asyncio.sleep(0.01)
            answers.cancel()
            await asyncio.gather(answers, return_exceptions=True)
            assert handler.left == 0
            return engine.ending

    async def collect(job):
        async for piece in job:
            assert "error" not in piece

    assert asyncio.run(run()) == "the engine ended: RuntimeError: device lost"


@pytest.mark.parametrize(
    ("limit", "given", "words"),
    [("MAX_RESULT_BYTES", {"stream": True}, "more than 1,000 bytes"), ("INLINE_BYTES", {}, "give an upload, or stream")],
)
def test_a_result_that_becomes_too_large_ends_the_job_at_once(handler, monkeypatch, limit, given, words):
    monkeypatch.setattr(f"worker.handler.{limit}", 1000)

    async def run():
        job = {"id": "1", "input": {"text": "Hello there. " * 50, "format": "wav"} | given}
        return [piece async for piece in handler(job)]

    *pieces, last = asyncio.run(run())
    assert words in last["error"]
    assert len(pieces) < 3


def test_a_full_disk_ends_the_job_in_words(handler, monkeypatch):
    monkeypatch.setattr("tempfile.TemporaryFile", lambda buffering: open("/dev/full", "r+b", buffering=buffering))  # noqa: SIM115

    async def run():
        return [piece async for piece in handler({"id": "1", "input": {"text": "Hello there.", "format": "wav"}})]

    (result,) = asyncio.run(run())
    assert result == {"error": "the file cannot be kept on this worker's disk: No space left on device"}


def test_captions_are_in_the_result_and_count_speed_and_what_was_cut(handler, monkeypatch):
    text = "It costs $5. **Really**. " * 3

    async def run(**given):
        (result,) = [piece async for piece in handler({"id": "1", "input": {"text": text, "format": "opus", "captions": "json"} | given})]
        return result

    whole = asyncio.run(run(speed=2.0))
    words = json.loads(whole["captions"])["words"]
    assert [w["word"] for w in words] == ["It", "costs", "$5", "Really"] * 3
    assert words[-2]["start"] < words[-1]["end"] <= whole["seconds"] + 0.0005 < 2 * words[-1]["end"]
    cut = asyncio.run(run(max_seconds=2))
    assert 0 < len(json.loads(cut["captions"])["words"]) < len(words)
    assert json.loads(cut["captions"])["words"][-1]["end"] <= 2
    within = asyncio.run(run(text="Hello there.", seed=7, max_seconds=0.5))
    assert (within["seconds"], within["partial"]) == (0.5, True)
    assert json.loads(within["captions"])["words"][0]["word"] == "Hello"
    monkeypatch.setattr("worker.handler.MAX_CAPTIONS", 100)
    large = asyncio.run(run())
    assert "captions" not in large
    assert large["captions_omitted"] > 500

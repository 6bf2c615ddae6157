import asyncio
import gc
import json
import subprocess
import sys
import threading
import weakref
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference import (
    AudioError,
    CheckpointError,
    EngineClosed,
    GenerationError,
    Reference,
    RequestError,
    SpeechEngine,
    SpeechRequest,
    Voice,
    hub,
)
from inference.engine import prompting, vocoder, voicing
from inference.engine.device import pick_device
from inference.model.config import SAMPLE_RATE, SAMPLES_PER_FRAME, GenerationDefaults
from inference.text.split import split
from tests.conftest import GOLDEN, golden_json, voice_of
from tests.inference.engine.by_hand import endless
from tests.waiting import HANG_SECONDS, wait

LONG = "One sentence here. Another one there! And is this the third? Yes, it is. Then comes a fifth, with a comma."


def reference(text, voice=None, **fields):
    return SpeechRequest(text, voice or Voice(), temperature=0, compat="reference", **fields)


WITH_SYSTEM = [r for r in golden_json("lm_tiny/greedy.json") if r["prompt"] != "plain_no_system"]  # that one is the runner's to show


@pytest.mark.parametrize("run", WITH_SYSTEM, ids=lambda r: f"{r['prompt']}-{r['repetition_penalty']}")
def test_greedy_codes_equal_the_reference(engine, prompts, run):
    prompt = prompts[run["prompt"]]
    fields = {"repetition_penalty": run["repetition_penalty"], "max_new_tokens": run["max_new_tokens"], "chunk_length": 2000}
    codes = engine.generate_codes(reference(prompt["text"], voice_of(prompt), **fields))
    assert codes.tolist() == run["emitted_codes"]


@pytest.mark.parametrize("run", golden_json("lm_tiny/long_runs.json"), ids=lambda r: r["text"][:12])
def test_long_texts_equal_the_reference(engine, prompts, monkeypatch, run):
    monkeypatch.setattr(prompting, "REFERENCE_MAX_LENGTH", run["max_length"])
    voice = voice_of(prompts["one_ref"]) if run["refs"] else Voice()
    fields = {"repetition_penalty": run["rep"], "max_new_tokens": run["max_new_tokens"]}
    codes = engine.generate_codes(reference(run["text"], voice, chunk_length=run["chunk"] if run["iterative"] else 2000, **fields))
    assert codes.tolist() == np.concatenate([s["codes"] for s in run["segments"]], axis=1).tolist()


def test_from_clip_to_speech_equals_the_reference(engine):
    case = golden_json("e2e/e2e.json")
    references = tuple(Reference(engine.encode(soundfile.read(GOLDEN / "codec_tiny" / w, dtype="float32")[0]), t) for w, t in case["refs"])
    fields = {"repetition_penalty": case["rep"], "chunk_length": case["chunk"], "max_new_tokens": case["max_new_tokens"]}
    stream = engine.stream(reference(case["text"], Voice(references), **fields))
    samples = np.concatenate([chunk.samples for chunk in stream])
    assert stream.codes.tolist() == np.concatenate([s["codes"] for s in case["segments"]], axis=1).tolist()
    np.testing.assert_allclose(samples, soundfile.read(GOLDEN / "e2e/expected.wav", dtype="float32")[0], atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_streamed_audio_is_the_decoded_codes(engine, seed):
    request = SpeechRequest("Hello there.", seed=seed, max_new_tokens=70)
    stream = engine.stream(request)
    samples = np.concatenate([chunk.samples for chunk in stream])
    np.testing.assert_allclose(samples, engine.decode(stream.codes).samples, atol=1e-5)
    assert np.array_equal(stream.codes, engine.generate_codes(request))
    assert np.array_equal(samples, engine.synthesize(request).samples)


def test_every_spoken_frame_is_kept_and_the_end_frame_dropped(engine):
    ours, theirs = SpeechRequest("Hello.", temperature=0, max_new_tokens=40), reference("Hello.", max_new_tokens=40)
    stream = engine.stream(ours)
    frames = sum(len(chunk.samples) for chunk in stream) // 2048
    assert frames == stream.codes.shape[1]
    if stream.finish_reason == "length":
        assert frames == 40
        assert engine.generate_codes(theirs).shape[1] == 39


@settings(max_examples=4)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 40)), min_size=2, max_size=6))
def test_a_seed_fixes_the_codes_whatever_runs_beside(engine, wanted):
    requests = [SpeechRequest(f"Text number {seed}.", seed=seed, max_new_tokens=n) for seed, n in wanted]
    alone = [engine.generate_codes(r) for r in requests]
    streams = [engine.stream(r) for r in requests]
    for stream, codes in zip(streams, alone, strict=True):
        list(stream)
        assert np.array_equal(stream.codes, codes)


def test_without_a_seed_every_call_differs(engine):
    request = SpeechRequest("Hello.", max_new_tokens=30)
    assert not np.array_equal(engine.generate_codes(request), engine.generate_codes(request))


def test_the_first_chunk_is_short(engine):
    sizes = [len(chunk.samples) // 2048 for chunk in engine.stream(SpeechRequest(LONG, seed=1, max_new_tokens=40))]
    assert sizes[0] == vocoder.FIRST_CHUNK
    assert max(sizes) <= vocoder.LARGEST_CHUNK


def test_an_async_stream_is_the_same(engine):
    async def collect():
        stream = engine.astream(request)
        chunks = [chunk.samples async for chunk in stream]
        assert np.array_equal(stream.codes, engine.generate_codes(request))
        assert stream.finish_reason in ("stop", "length")
        assert 0 <= stream.queued_seconds < HANG_SECONDS
        assert [chunk async for chunk in stream] == []  # the end stays the end
        return chunks

    request = SpeechRequest("Hello.", seed=3, max_new_tokens=40)
    assert np.array_equal(np.concatenate(asyncio.run(collect())), engine.synthesize(request).samples)
    assert np.array_equal(asyncio.run(engine.asynthesize(request)).samples, engine.synthesize(request).samples)


def settled(engine):
    wait(lambda: not (engine._scheduler.running or engine._scheduler.waiting), "the request was not cancelled")


@pytest.mark.parametrize("way", ["cancel", "with", "drop", "async close", "async with", "async drop", "async cancelled"])
def test_a_request_nobody_wants_any_more_ends(golden, monkeypatch, way):
    request = endless(golden, monkeypatch)
    with SpeechEngine(golden, slots=1) as engine:
        if way.startswith("async"):

            async def leave():
                stream = engine.astream(request)
                await anext(stream)
                if way == "async close":
                    await stream.aclose()
                elif way == "async with":
                    async with stream:
                        pass
                elif way == "async cancelled":
                    waiting = asyncio.ensure_future(_all(stream))
                    await asyncio.sleep(0)
                    waiting.cancel()
                    await asyncio.wait((waiting,))
                    assert waiting.cancelled()
                    settled(engine)

            asyncio.run(leave())
            gc.collect()
        else:
            stream = engine.stream(request)
            next(stream)
            if way == "cancel":
                stream.cancel()
                assert sum(len(c.samples) for c in stream) // 2048 < 200
                assert stream.finish_reason == "cancelled"
            elif way == "with":
                with stream:
                    pass
            else:
                del stream
                gc.collect()
        settled(engine)
        assert engine.synthesize(SpeechRequest("Next.", max_new_tokens=5)).samples.size


async def _all(stream):
    return [chunk async for chunk in stream]


def test_a_request_can_be_cancelled_while_it_waits(golden, monkeypatch):
    request = endless(golden, monkeypatch)
    monkeypatch.setattr(voicing, "AHEAD_SECONDS", 1e9)  # nobody is paused: it waits, however late this thread comes to cancel it
    with SpeechEngine(golden, slots=1) as engine:
        running, waiting = engine.stream(request), engine.stream(request)
        next(running)
        waiting.cancel()
        assert list(waiting) == []
        assert waiting.finish_reason == "cancelled"
        running.cancel()


def test_more_requests_than_rows_all_end(engine):
    streams = [engine.stream(SpeechRequest("Hello.", seed=i, max_new_tokens=5 + i)) for i in range(13)]
    assert [len(list(s)) > 0 for s in streams] == [True] * 13
    assert {s.finish_reason for s in streams} <= {"stop", "length"}


def test_a_closed_engine_says_so(golden, monkeypatch):
    request = endless(golden, monkeypatch)
    engine = SpeechEngine(golden, slots=1)
    stream = engine.stream(request)
    next(stream)
    engine.close()
    with pytest.raises(EngineClosed):
        list(stream)
    with pytest.raises(EngineClosed):
        engine.stream(request)
    engine.close()


def test_a_failing_device_fails_what_ran_and_not_what_comes(golden, monkeypatch):
    with SpeechEngine(golden, slots=2) as engine:
        request = SpeechRequest("Hello.", seed=1, max_new_tokens=30)
        good = engine.generate_codes(request)

        def fail(*_):
            raise RuntimeError("out of memory")

        with monkeypatch.context() as broken:
            broken.setattr(engine._runner._step, "token_logits", fail)
            with pytest.raises(GenerationError, match="out of memory"):
                engine.generate_codes(request)
        assert np.array_equal(engine.generate_codes(request), good)


def test_a_callback_that_fails_ends_its_own_request_alone(engine):
    def refuse(_):
        raise RuntimeError("loop is closed")

    request = SpeechRequest("Hello.", seed=1, max_new_tokens=40)
    expected = engine.generate_codes(request)
    bad, good = engine.submit(SpeechRequest("Other.", max_new_tokens=900), refuse), engine.stream(request)
    list(good)
    assert np.array_equal(good.codes, expected)
    settled(engine)
    assert bad.finish_reason in ("cancelled", "stop")  # the latter when it ended with the very chunk that was refused


def test_a_device_that_is_gone_ends_every_request_and_says_why(golden, monkeypatch):
    request = endless(golden, monkeypatch)
    monkeypatch.setattr(voicing, "AHEAD_SECONDS", 1e9)  # nobody is paused

    def fail(*_):
        raise RuntimeError("device lost")

    engine = SpeechEngine(golden, slots=1)
    running, waiting = engine.stream(request), engine.stream(request)
    next(running)
    monkeypatch.setattr(engine._runner._cache, "clear", fail)
    monkeypatch.setattr(engine._runner._step, "token_logits", fail)
    with pytest.raises(EngineClosed, match="device lost"):
        list(running)
    with pytest.raises(EngineClosed, match="device lost"):
        list(waiting)
    assert not engine.alive
    with pytest.raises(EngineClosed, match="device lost"):
        engine.stream(request)


@pytest.mark.parametrize("lost", [False, True])
def test_a_codec_that_fails_is_an_error_and_on_a_lost_device_the_end(golden, monkeypatch, lost):
    def fail(*_):
        raise RuntimeError("illegal address")

    with SpeechEngine(golden, slots=1) as engine:
        monkeypatch.setattr(engine.checkpoint.codec, "decode", fail)
        monkeypatch.setattr("inference.engine.engine.is_lost", lambda _: lost)
        with pytest.raises(EngineClosed if lost else GenerationError, match="illegal address"):
            engine.decode(np.zeros((8, 3), np.int64))
        assert engine.alive is not lost


def test_samples_that_are_not_numbers_fail_their_request(golden, monkeypatch):
    with SpeechEngine(golden, slots=1) as engine:
        decode = engine._vocoder.decode_due
        monkeypatch.setattr(engine._vocoder, "decode_due", lambda *due: ((s, w * np.nan) for s, w in decode(*due)))
        with pytest.raises(GenerationError, match="not numbers"):
            engine.synthesize(SpeechRequest("Hello.", max_new_tokens=9))


def test_no_segment_runs_past_its_limit(engine):
    codes = engine.generate_codes(SpeechRequest(LONG, seed=1, chunk_length=25, max_new_tokens=1))
    assert codes.shape[1] == len(split(LONG, 25))


def test_a_reference_run_that_fills_the_context_says_so(golden_directory, tmp_path):
    for file in golden_directory.iterdir():
        (tmp_path / file.name).symlink_to(file)
    raw = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(raw | {"max_seq_len": 256}))
    with (
        SpeechEngine.load(tmp_path, "cpu", slots=1) as engine,
        pytest.raises(GenerationError, match=r"no room for speech in the model's 256"),
    ):
        engine.generate_codes(reference(LONG, chunk_length=30, max_new_tokens=60))


def test_a_closed_engine_gives_its_memory_back(golden):
    """Even one that is still held, as a failed test holds it by its traceback."""
    engine = SpeechEngine(golden, slots=1)
    engine.generate_codes(SpeechRequest("Hello.", max_new_tokens=3))
    parts = [weakref.ref(part) for part in (engine._runner, engine._runner._cache.both, engine._runner._step, engine._vocoder)]
    engine.close()
    assert [part() for part in parts] == [None] * 4
    whole = weakref.ref(engine)
    del engine
    assert whole() is None


def test_garbage_does_not_outlive_the_engines_that_ran_beside_it(golden_directory):
    """What is frozen is never collected, so that garbage that an engine found or met was kept for ever."""
    code = (
        "import gc, sys, weakref; from inference import SpeechEngine\n"
        "class Cycle:\n    def __init__(self): self.me = self\n"
        "def frozen(): return gc.get_freeze_count() > 10_000\n"
        "gc.disable(); found = weakref.ref(Cycle())\n"
        "one = SpeechEngine.load(sys.argv[1], 'cpu', slots=1); assert found() is None and frozen()\n"
        "met = Cycle(); two = SpeechEngine.load(sys.argv[1], 'cpu', slots=1); seen = weakref.ref(met); del met\n"
        "gc.collect(); assert seen() is None\n"
        "one.close(); one.close(); assert frozen()\n"
        "two.close(); assert gc.get_freeze_count() == 0"
    )
    subprocess.run([sys.executable, "-c", code, golden_directory], check=True, timeout=HANG_SECONDS)


def test_an_engine_left_open_ends_with_its_script(golden_directory):
    code = (
        "import sys; from inference import SpeechEngine, SpeechRequest\n"
        "stream = SpeechEngine.load(sys.argv[1], 'cpu').stream(SpeechRequest('Hello. ' * 50)); next(stream)"
    )
    assert subprocess.run([sys.executable, "-c", code, golden_directory], check=False, timeout=HANG_SECONDS).returncode == 0


def test_the_numbers_are_given_when_there_is_no_room(engine):
    with pytest.raises(RequestError, match=r"text segment \(\d+\) and speech to come \(2040\) do not fit in the model's 2048"):
        engine.stream(SpeechRequest("Hello.", max_new_tokens=2040))
    voice = Voice((Reference(np.zeros((8, 1900), int), "long"),))
    with pytest.raises(RequestError, match="use a shorter reference"):
        engine.stream(SpeechRequest("Hello.", voice))


@pytest.mark.parametrize(
    "codes",
    [np.zeros((7, 9), int), np.zeros((8, 9)), np.zeros(8, int), np.full((8, 9), 1024), np.full((8, 9), -1)],
    ids=lambda c: f"{c.shape}{c.dtype}",
)
def test_a_voice_of_another_model_is_refused(engine, codes):
    with pytest.raises(RequestError, match="the voice's codes"):
        engine.stream(SpeechRequest("Hello.", Voice((Reference(codes, "text"),))))


def test_extra_codebooks_and_a_leading_dimension_are_dropped(engine, prompts):
    codes = np.array(prompts["one_ref"]["refs"][0]["codes"])
    more = np.concatenate((codes, codes[:1]))[None]
    request, same = (SpeechRequest("Hello.", Voice((Reference(c, "text"),)), temperature=0, max_new_tokens=9) for c in (codes, more))
    assert np.array_equal(engine.generate_codes(request), engine.generate_codes(same))


@pytest.mark.parametrize("seconds", [0, 0.4, 91, 600])
def test_a_reference_too_short_or_too_long_is_refused(engine, seconds):
    with pytest.raises(AudioError, match=r"0\.5 to 90 s are needed"):
        engine.voice(np.zeros(int(seconds * 44_100), np.float32), "text")


@pytest.mark.parametrize(
    "wave", [np.zeros((2, 44_100), np.float32), np.full(44_100, np.nan, np.float32), np.zeros(100, np.float32)], ids=lambda w: str(w.shape)
)
def test_a_wave_that_cannot_be_encoded_is_refused(engine, wave):
    with pytest.raises(AudioError):
        engine.encode(wave)


def test_another_sample_rate_is_refused(engine):
    with pytest.raises(AudioError, match="24000 Hz"):
        engine.encode(np.zeros(24_000, np.float32), 24_000)


def test_undecodable_codes_are_refused(engine):
    with pytest.raises(AudioError, match="decodes 0 to 999"):
        engine.decode(np.full((8, 2), 1000))
    assert engine.decode(np.zeros((8, 0), int)).samples.size == 0


def test_many_threads_may_use_one_engine(engine):
    request = SpeechRequest("Hello.", seed=5, max_new_tokens=20)
    expected, results = engine.synthesize(request).samples, []
    threads = [threading.Thread(target=lambda: results.append(engine.synthesize(request).samples)) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(results) == 6
    for samples in results:
        np.testing.assert_allclose(samples, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["tpu", "cuda:99", "meta", "cpu:x"])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(RequestError, match="device"):
        pick_device(name)


def test_nothing_to_load_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "EMBEDDED_VOICE", tmp_path / "none")
    with pytest.raises(CheckpointError, match=r"fishaudio/fish-speech-1\.5"):
        SpeechEngine.load()


@pytest.fixture
def by_sentence(golden):
    """An engine whose checkpoint wants one sentence a segment, no history, and a pause of 0.25 s."""
    defaults = GenerationDefaults(chunk="sentence", history=0, sentence_pause=0.25, paragraph_pause=0.5)
    with SpeechEngine(replace(golden, defaults=defaults), slots=2) as engine:
        yield engine


def test_without_history_each_sentence_sees_only_itself(by_sentence):
    prompts = []
    stage = by_sentence._runner.stage
    by_sentence._runner.stage = lambda sequence: (prompts.append(sequence.prompt), stage(sequence))[1]
    by_sentence.generate_codes(SpeechRequest("One thing. Another thing.", seed=1, max_new_tokens=9))
    builder = by_sentence._prompting.builder(SpeechRequest("x"))
    expected = [torch.cat((builder.system(), builder.segment(text)), dim=1) for text in ("One thing.", "Another thing.")]
    assert all(map(torch.equal, prompts, expected))


def test_a_limited_history_keeps_the_turns_that_fit(golden):
    fixed, turns = torch.zeros(9, 10), [torch.zeros(9, n) for n in (5, 20, 5, 20, 5)]
    with SpeechEngine(replace(golden, defaults=GenerationDefaults(history=30)), slots=1) as engine:
        prompt, _ = engine._prompting.prompt(SpeechRequest("x", max_new_tokens=9), fixed, turns)
        assert prompt.shape[1] == 10 + 25 + 5


def test_sentences_have_the_checkpoints_pauses_between_them(by_sentence):
    request = SpeechRequest("One thing. Another thing.\n\nA third.", seed=1, max_new_tokens=9)
    speech, codes = by_sentence.synthesize(request).samples, by_sentence.generate_codes(request)
    assert len(speech) == codes.shape[1] * SAMPLES_PER_FRAME + round(0.75 * SAMPLE_RATE)


def test_text_that_comes_later_has_the_same_pauses(by_sentence):
    request = SpeechRequest("One thing. ", seed=1, max_new_tokens=9)

    async def spoken(*texts):
        async def more():
            for text in texts:
                yield text

        return [chunk.samples async for chunk in by_sentence.astream(request, more())]

    whole = by_sentence.synthesize(replace(request, text="One thing. Another thing.\n\nA third.")).samples
    late = np.concatenate(asyncio.run(spoken("Another thing.\n\n", "A third.")))
    assert len(late) == len(whole)
    np.testing.assert_allclose(late, whole, atol=1e-5)  # after a wait for text the chunks begin small, which rounds in another way

"""The words that the engine delivers with the audio."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from inference import SpeechEngine, SpeechRequest
from inference.engine.request import Audio
from inference.errors import GenerationError
from inference.model.config import SAMPLE_RATE, AlignmentHead

TEXT = "One word costs $3.50. [pause:1.5s] Then **bold** words, and 12 more words [pause:0.5s]"
WORDS = ["One", "word", "costs", "$3.50", "Then", "bold", "words", "and", "12", "more", "words"]
REQUEST = SpeechRequest(TEXT, seed=1, normalize=True, chunk_length=20, max_new_tokens=25, words=True)


@pytest.fixture(scope="module")
def spoken(engine):
    return list(engine.stream(REQUEST))


def test_words_are_in_order_within_the_audio_and_are_the_texts_own(spoken):
    audio = Audio.joined(spoken)
    assert [w.text for w in audio.words] == WORDS
    assert all(TEXT[w.start_char : w.end_char] == w.text for w in audio.words)
    times = [t for w in audio.words for t in (w.start, w.end)]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] <= audio.seconds - 0.5


def test_a_whole_speech_has_the_words_of_its_stream(engine, spoken):
    whole = engine.synthesize(REQUEST)
    joined = Audio.joined(spoken)
    assert whole.words == joined.words
    assert np.array_equal(whole.samples, joined.samples)


def test_words_change_no_sound_and_come_only_if_asked_for(engine, spoken):
    plain = list(engine.stream(replace(REQUEST, words=False)))
    assert not any(chunk.words for chunk in plain)
    assert all(len(chunk.samples) for chunk in plain)
    assert np.array_equal(Audio.joined(plain).samples, Audio.joined(spoken).samples)


@pytest.fixture(scope="module")
def reading(golden):
    """An engine whose checkpoint says which heads follow the text."""
    defaults = replace(golden.defaults, alignment_heads=(AlignmentHead(1, 0), AlignmentHead(2, 3)))
    with SpeechEngine(replace(golden, defaults=defaults), slots=2) as engine:
        yield engine


@pytest.mark.parametrize("compat", [None, "reference"])
def test_words_that_attention_places_are_in_order_within_the_same_sound(engine, reading, compat):
    request = replace(REQUEST, text=TEXT if compat is None else "One two, three. Four", compat=compat)
    estimated, read = engine.synthesize(request), reading.synthesize(request)
    assert np.array_equal(estimated.samples, read.samples)
    assert [w.text for w in read.words] == [w.text for w in estimated.words]
    assert {w.precision for w in estimated.words} == {"segment"}
    assert {w.precision for w in read.words} == {"word"}
    times = [t for w in read.words for t in (w.start, w.end)]
    assert times == sorted(times)
    assert 0 <= times[0] <= times[-1] <= read.seconds


def test_attention_that_cannot_be_read_ends_that_request_alone(reading, monkeypatch):
    def fail(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(reading._runner, "text_attention", fail)
    with reading.stream(replace(REQUEST, text="Others go on. " * 9, words=False)) as other:
        next(other)
        with pytest.raises(GenerationError, match="out of memory"):
            reading.synthesize(REQUEST)
        assert sum(len(chunk.samples) for chunk in other)
    assert other.finish_reason == "length"


def test_a_segments_words_come_at_its_end_and_lie_within_it(spoken):
    at = begins = 0.0
    for chunk in spoken:
        at += chunk.seconds
        if chunk.words:
            assert chunk.words[0].start >= begins
            assert chunk.words[-1].end <= at + 1e-9
            begins = at


def test_a_pause_lies_between_two_words(engine):
    request = replace(REQUEST, text="One. [pause:1.5s] Two.", chunk_length=200)
    audio = engine.synthesize(request)
    alone = engine.synthesize(replace(request, text="One."))
    first, second = audio.words
    assert first == alone.words[0]
    assert second.start >= alone.seconds + 1.5
    silent = audio.samples[len(alone.samples) : len(alone.samples) + round(1.5 * SAMPLE_RATE)]
    assert not silent.any()


def test_words_of_text_that_comes_later_count_on(engine):
    async def later():
        yield " Then two $5 words."
        yield " And three."

    async def words():
        request = replace(REQUEST, text="First one.", chunk_length=200)
        return Audio.joined([chunk async for chunk in engine.astream(request, later())])

    audio = asyncio.run(words())
    text = "First one. Then two $5 words. And three."
    assert [w.text for w in audio.words] == ["First", "one", "Then", "two", "$5", "words", "And", "three"]
    assert all(text[w.start_char : w.end_char] == w.text for w in audio.words)
    assert audio.words[-1].end <= audio.seconds


def test_the_references_own_reading_has_words_too(engine):
    audio = engine.synthesize(replace(REQUEST, text="One word costs $3.", compat="reference", normalize=None))
    assert [w.text for w in audio.words] == ["One", "word", "costs", "$3"]

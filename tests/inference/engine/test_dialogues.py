"""One request, several voices: each of them says what it says alone, with exact pauses between."""

import asyncio

import numpy as np
import pytest

from inference import Reference, RequestError, SpeechRequest, Voice, VoiceNotFound
from inference.engine.request import MoreText
from inference.model.config import SAMPLE_RATE
from inference.text.dialogue import TURN_SECONDS
from inference.text.pronunciation import Pronunciations, Rule

GREEDY = {"temperature": 0.0, "repetition_penalty": 1.0, "max_new_tokens": 8}


def voice(seed):
    return Voice((Reference(np.random.default_rng(seed).integers(0, 1000, (8, 12)), f"What number {seed} says."),), f"v{seed}")


ANNA, BOB = voice(1), voice(2)
VOICES = {"anna": ANNA, "bob": BOB}


def silence(seconds):
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


def assert_same(spoken, expected):
    """But for the last bits: what is heard first is made in smaller chunks."""
    assert len(spoken) == len(expected)
    np.testing.assert_allclose(spoken, expected, atol=1e-5)


@pytest.fixture(scope="module")
def alone(engine):
    """What the two say when they are alone."""
    made = {
        name: engine.synthesize(SpeechRequest(text, who, **GREEDY)).samples
        for name, (text, who) in {"one": ("One.", ANNA), "two": ("Two is more.", BOB), "bob": ("One.", BOB)}.items()
    }
    assert len(made["one"]) != len(made["bob"]) or not np.array_equal(made["one"], made["bob"])  # it is heard who speaks
    return made


@pytest.mark.parametrize(
    ("text", "first", "pause"),
    [
        ("[voice:anna]One.[voice:bob]Two is more.", Voice(), TURN_SECONDS),
        ("One. [voice:bob] Two is more.", ANNA, TURN_SECONDS),
        ("[voice:anna]One.[pause:700ms][voice:bob]Two is more.", Voice(), 0.7),
        ("[voice:anna]One.[voice:bob][pause:0s]Two is more.", BOB, 0.0),
    ],
)
def test_a_dialogue_is_what_each_voice_says_alone(engine, alone, text, first, pause):
    spoken = engine.synthesize(SpeechRequest(text, first, voices=VOICES, **GREEDY)).samples
    assert_same(spoken, np.concatenate([alone["one"], silence(pause), alone["two"]]))


def test_a_list_of_speakers_is_named_by_numbers(engine, alone):
    voices = {"speaker:0": ANNA, "speaker:1": BOB}
    spoken = engine.synthesize(SpeechRequest("<|speaker:1|>Two is more.<|speaker:0|>One.", ANNA, voices=voices, **GREEDY)).samples
    assert_same(spoken, np.concatenate([alone["two"], silence(TURN_SECONDS), alone["one"]]))


def test_a_voice_goes_on_where_it_left_off(engine):
    """Its earlier turns are before it in the context, and nobody else's."""
    both = engine.generate_codes(
        SpeechRequest("[voice:anna]One.[voice:bob]Two is more.[voice:anna]Three.[voice:bob]Four.", voices=VOICES, **GREEDY)
    )
    anna, bob = (
        engine.generate_codes(SpeechRequest(text, who, **GREEDY))
        for text, who in (("One.[pause:1s]Three.", ANNA), ("Two is more.[pause:1s]Four.", BOB))
    )
    one, two = (engine.generate_codes(SpeechRequest(text, who, **GREEDY)).shape[1] for text, who in (("One.", ANNA), ("Two is more.", BOB)))
    expected = [anna[:, :one], bob[:, :two], anna[:, one:], bob[:, two:]]
    assert np.array_equal(both, np.concatenate(expected, axis=1))


def live(engine, request, *more):
    async def texts():
        for text in more:
            yield text

    async def speak():
        return [chunk async for chunk in engine.astream(request, texts())]

    return np.concatenate([chunk.samples for chunk in asyncio.run(speak())])


def test_text_that_comes_later_goes_on_in_its_voice_and_may_name_others(engine, alone):
    request = SpeechRequest("One. [voice:bob]", ANNA, voices={"bob": BOB}, **GREEDY)
    whole = np.concatenate([alone["one"], silence(TURN_SECONDS), alone["two"]])
    assert_same(live(engine, request, "Two is more."), whole)
    assert_same(live(engine, SpeechRequest("One.", ANNA, **GREEDY), MoreText("[voice:bob]Two is more.", {"bob": BOB})), whole)


def test_a_voice_that_later_text_does_not_have_ends_the_speech_with_a_sentence(engine):
    with pytest.raises(VoiceNotFound, match="names the voice 'eve'"):
        live(engine, SpeechRequest("One.", ANNA, **GREEDY), "[voice:eve]Two.")
    with pytest.raises(RequestError, match="at most 16"):
        live(engine, SpeechRequest("One.", ANNA, **GREEDY), *(MoreText("Two.", {f"v{n}": BOB}) for n in range(17)))


def test_unusable_codes_of_any_voice_are_refused_before_anything_is_spoken(engine):
    bad = Voice((Reference(np.full((8, 3), 5000), "bad"),), "bad")
    with pytest.raises(RequestError, match="codes run from 5000"):
        engine.stream(SpeechRequest("One. [voice:bad]Two.", ANNA, voices={"bad": bad}, **GREEDY))


def test_words_and_terms_of_a_dialogue_are_those_of_its_text(engine):
    text = "[voice:anna]SQL is old. [voice:bob]So is SQL."
    rules = Pronunciations((Rule("SQL", "sequel"), Rule("SQL", "ess queue ell", voice="v2")))
    audio = engine.synthesize(SpeechRequest(text, voices=VOICES, words=True, pronunciations=rules, **GREEDY))
    assert [(w.text, w.spoken.strip()) for w in audio.words] == [
        ("SQL", "sequel"), ("is", "is"), ("old", "old."), ("So", "So"), ("is", "is"), ("SQL", "ess queue ell."),
    ]  # fmt: skip
    assert all(text[w.start_char : w.end_char] == w.text for w in audio.words)

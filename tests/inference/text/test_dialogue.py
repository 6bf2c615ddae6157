"""Marks of voices in a text, and the silence where another voice goes on."""

import pytest

from inference import RequestError, SpeechRequest, Voice, VoiceNotFound
from inference.text.dialogue import MAX_VOICES, TURN_SECONDS, voice_names
from inference.text.script import script, speakable
from inference.text.segments import Segmentation
from inference.text.sentence_buffer import SentenceBuffer

SENTENCES = Segmentation("sentence", 200, 0.15, 0.6, 0.9)


def lines_of(text, segmentation=SENTENCES, **options):
    lines, last = script(text, 200, normalize=False, segmentation=segmentation, **options)
    return [(line.voice, line.text, line.silence) for line in lines], last


def test_a_mark_says_who_speaks_what_follows_up_to_the_next_mark():
    text = "Once. [voice:anna]Hello. There. [voice: bob ] Twice.\n\nLater. [voice:bob] And so on."
    assert lines_of(text)[0] == [
        (None, "Once.", 0), ("anna", "Hello.", 0.6), ("anna", "There.", 0.6), ("bob", "Twice.", 0.6), ("bob", "Later.", 0.9),
        ("bob", "And so on.", 0.6),
    ]  # fmt: skip


def test_another_voice_goes_on_after_a_short_silence_where_the_model_makes_the_pauses():
    assert lines_of("One, [voice:anna]two. [voice:anna] Three. [voice:bob]Four.", Segmentation())[0] == [
        (None, "One,", 0), ("anna", "two.", TURN_SECONDS), ("anna", "Three.", 0), ("bob", "Four.", TURN_SECONDS)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "change", ["[pause:1.5s][voice:bob]", "[voice:bob][pause:1.5s]", "[voice:eve][pause:0.5s][voice:bob]<break time='1s'/>"]
)
def test_a_pause_at_a_change_is_exact(change):
    assert lines_of(f"One. {change} Two.")[0][1] == ("bob", "Two.", 1.5)


def test_no_pause_at_a_change_can_be_asked_for():
    assert lines_of("Once. [pause:0s][voice:bob] Twice. Three.")[0][1:] == [("bob", "Twice.", 0), ("bob", "Three.", 0.6)]


def test_marks_at_the_ends_are_silent():
    assert lines_of("[voice:anna] One. [voice:bob] [voice:eve]") == ([("anna", "One.", 0)], 0.0)
    assert not speakable("[voice:anna] ... <|speaker:1|>")
    with pytest.raises(RequestError, match="nothing to speak"):
        SpeechRequest("[voice:anna]", voices={"anna": Voice()})


def test_speakers_are_marks_only_where_there_is_a_list_of_voices():
    text = "<|speaker:1|>Hello. <|speaker:0|>Hi."
    assert lines_of(text, speakers=True)[0] == [("speaker:1", "Hello.", 0), ("speaker:0", "Hi.", 0.6)]
    assert "speaker" in lines_of(text)[0][0][1]
    assert voice_names(text) == []
    assert voice_names(text, speakers=True) == ["speaker:1", "speaker:0"]
    with pytest.raises(VoiceNotFound, match="'speaker:2'"):
        SpeechRequest("<|speaker:2|>Hi.", voices={"speaker:0": Voice(), "speaker:1": Voice()})


def test_a_voice_that_a_request_does_not_have_is_refused():
    with pytest.raises(VoiceNotFound, match="names the voice 'eve'"):
        SpeechRequest("[voice:eve]Hi.", voices={"anna": Voice()})
    with pytest.raises(RequestError, match="17 voices; at most 16"):
        SpeechRequest("Hi.", voices={f"v{n}": Voice() for n in range(MAX_VOICES + 1)})
    SpeechRequest("[voice:eve]Hi.", compat="reference")


def test_the_number_of_marks_is_limited():
    assert len(lines_of("[voice:anna]One. " * 1000)[0]) == 1000
    with pytest.raises(RequestError, match="more than 1,000 marks"):
        lines_of("[voice:anna]One. " * 1001)


def test_the_words_of_a_dialogue_are_those_of_its_text():
    text = "One [voice:anna]two [pause:1s] three. [voice:bob]Four"
    request = SpeechRequest(text, voices={"anna": Voice(), "bob": Voice()}, normalize=False)
    lines, _ = script(text, 200, normalize=False)
    from inference.model.config import GenerationDefaults

    words = [word for line in request.spoken_words(lines, GenerationDefaults()) for word in line.words]
    assert [word.text for word in words] == ["One", "two", "three", "Four"]
    assert all(text[word.start_char : word.end_char] == word.text for word in words)


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_text_that_comes_in_pieces_keeps_its_marks(size):
    text, buffer, said = (
        "Hello there, friend. [voice:anna]And hello to you, too. <|speaker:1|>Good. [voice:bob]So long, and thanks",
        SentenceBuffer(200),
        "",
    )
    for start in range(0, len(text), size):
        said += buffer.feed(text[start : start + size])
    assert said + buffer.flush() == text


def test_a_mark_alone_waits_for_its_text():
    buffer = SentenceBuffer(200)
    assert buffer.feed("[voice:anna]") == ""
    assert not buffer.holds_signs
    assert buffer.flush() == ""
    buffer.feed("Hello.")
    assert buffer.flush() == "[voice:anna]Hello."

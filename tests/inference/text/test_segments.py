import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.text.script import Line, script
from inference.text.segments import Segmentation, pause_after, segments
from inference.text.sentence_buffer import SentenceBuffer

SENTENCES = Segmentation("sentence", clause_pause=0.1, sentence_pause=0.3, paragraph_pause=0.6)


def test_a_sentence_is_a_segment_with_the_pause_of_its_end():
    text = "It rains here. Does it? So it is!\n\nThe next paragraph."
    assert segments(text, 100, SENTENCES) == [
        ("It rains here.", 0.3), ("Does it?", 0.3), ("So it is!", 0.6), ("The next paragraph.", 0.3),
    ]  # fmt: skip


def test_a_long_sentence_is_cut_after_clauses_into_parts_of_about_equal_length():
    text = "If you cannot eat nuts or eggs, please tell the cook, and she will prepare something else for you."
    assert segments(text, 60, SENTENCES) == [
        ("If you cannot eat nuts or eggs, please tell the cook,", 0.1),
        ("and she will prepare something else for you.", 0.3),
    ]


def test_a_long_clause_is_cut_before_a_conjunction_else_between_words():
    assert segments("the old man walked home and the dog ran after him", 30, SENTENCES) == [
        ("the old man walked home", 0.0), ("and the dog ran after him", 0.0),
    ]  # fmt: skip
    assert [s for s, _ in segments("one two three four five six", 10, SENTENCES)] == ["one two", "three four", "five six"]
    assert [len(s) for s, _ in segments("x" * 25, 10, SENTENCES)] == [9, 9, 7]


def test_very_short_sentences_are_spoken_with_the_next_one():
    assert [s for s, _ in segments("Oh. I see. Hmm… Well.", 100, SENTENCES)] == ["Oh. I see.", "Hmm… Well."]
    assert [s for s, _ in segments("Oh.\n\nI see.", 100, SENTENCES)] == ["Oh.", "I see."]


@pytest.mark.parametrize(("text", "seconds"), [("a, ", 0.1), ("a.” ", 0.3), ("a\n", 0.3), ("a.\n \n", 0.6), ("a ", 0.0), ("好。", 0.3)])
def test_the_pause_is_that_of_the_end(text, seconds):
    assert pause_after(text, SENTENCES) == seconds


def test_a_pause_that_is_asked_for_replaces_the_natural_one():
    lines, last = script("One thing. [pause:2s] Two things. Three things.", 200, normalize=False, segmentation=SENTENCES)
    assert lines == [Line("One thing.", 0), Line("Two things.", 2), Line("Three things.", 0.3)]
    assert last == 0


def test_the_lower_of_both_limits_counts():
    text = "One thing here, and another thing there."
    narrow = Segmentation("sentence", max_segment_bytes=25)
    assert len(script(text, 200, normalize=False, segmentation=narrow)[0]) == 2
    assert len(script(text, 15, normalize=False, segmentation=narrow)[0]) == 3


@given(st.text(st.sampled_from("ab c,.!?\n–é好。"), max_size=200), st.integers(10, 60))
def test_no_letter_is_lost_and_no_segment_is_too_long(text, length):
    cut = segments(text, length, SENTENCES)
    assert [c for s, _ in cut for c in s if c.isalnum()] == [c for c in text if c.isalnum()]
    assert all(len(s.encode()) <= length for s, _ in cut)


@given(st.lists(st.sampled_from(["Oh. ", "It is so. ", "Is it, then? ", "No!\n\n", "We said: yes. ", "Hmm… ", "A b. "]), max_size=12))
def test_streamed_text_has_the_segments_of_the_whole(sentences):
    incoming, streamed = SentenceBuffer(200), []
    for character in "".join(sentences):
        streamed.append(incoming.feed(character))
    streamed.append(incoming.flush())
    whole = [s for s, _ in segments("".join(sentences), 200, SENTENCES)]
    assert [s for piece in streamed if piece for s, _ in segments(piece, 200, SENTENCES)] == whole

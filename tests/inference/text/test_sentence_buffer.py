import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.text.sentence_buffer import SentenceBuffer


def fed(pieces, length=200):
    incoming = SentenceBuffer(length)
    return [r for p in pieces if (r := incoming.feed(p))], incoming.flush()


def test_a_sentence_is_complete_when_the_next_begins():
    assert fed(["Hel", "lo. ", "How", " are you? I", " am"]) == (["Hello. ", "How are you? "], "I am")
    assert fed(["Mr. ", "Smith is 3", ".5 km. ", "Yes."]) == (["Mr. Smith is 3.5 km. "], "Yes.")


def test_a_long_sentence_goes_in_parts():
    ready, rest = fed(["so many words, ", "and then more ", "of them ", "without an end"], 20)
    assert ready == ["so many words, and then more ", "of them without an "]
    assert rest == "end"


@pytest.mark.parametrize("pieces", [[], ["", " "], ["..."], ["[pause:1s]"], ["😀"]])
def test_where_nothing_can_be_spoken_nothing_is(pieces):
    assert fed(pieces) == ([], "")


def test_a_pause_stays_with_what_follows():
    assert fed(["[pause:1s] ", "Hello. ", "You"]) == (["[pause:1s] Hello. "], "You")


@given(st.lists(st.text(st.sampled_from("ab .,!?。\n"), max_size=8), max_size=30), st.integers(10, 40))
def test_no_letter_is_lost_or_moved(pieces, length):
    ready, rest = fed(pieces, length)
    assert [c for c in "".join(ready) + rest if c.isalnum()] == [c for c in "".join(pieces) if c.isalnum()]

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


def test_a_sentence_waits_for_the_first_word_of_the_next_which_may_belong_to_it():
    assert fed(["am Ende 3. O", "kt", "ober. ", "Nun ", "ja"]) == (["am Ende 3. Oktober. "], "Nun ja")


def test_a_long_sentence_goes_in_parts():
    ready, rest = fed(["so many words, ", "and then more ", "of them ", "without an end"], 20)
    assert ready == ["so many words, ", "and then more of "]
    assert rest == "them without an end"


PLAIN = "word " * 39


@pytest.mark.parametrize(
    ("whole", "never_apart"),
    [
        (PLAIN + "and the meeting will end at 10:30.", "10:30."),
        (PLAIN + "as is said in [the report](https://example.com/a) of last year", "[the report](https://example.com/a)"),
        (PLAIN + "as is said in [the long report](https://exam", "[the long report](https://exam"),
        (PLAIN + 'and then <break time="1s"/> it goes on', '<break time="1s"/>'),
        (PLAIN + "and then [pause: 1s] it goes on", "[pause: 1s]"),
        (PLAIN + "which costs 10 000 000 dollars in all", "10 000 000"),
        (PLAIN + "https://example.com/" + "a" * 300, "https://example.com/" + "a" * 300),
    ],
)
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_a_long_sentence_is_not_cut_inside_a_number_a_link_or_a_tag(whole, never_apart, step):
    ready, rest = fed([whole[i : i + step] for i in range(0, len(whole), step)])
    assert "".join(ready) + rest == whole
    assert any(never_apart in part for part in [*ready, rest])
    assert len(rest.split()) > 1 or rest == never_apart


@pytest.mark.parametrize("step", [1, 5, 1000])
def test_a_bold_passage_of_several_sentences_stays_whole(step):
    whole = "So. **Note this. It is bold.** Next one. And so"
    ready, rest = fed([whole[i : i + step] for i in range(0, len(whole), step)])
    assert "".join(ready) + rest == whole
    assert any("**Note this. It is bold.**" in part for part in ready)


def test_text_without_blanks_does_not_wait_for_them():
    ready, rest = fed(list("文" * 250))
    assert ready == ["文" * 201]
    assert len(rest) == 49


@pytest.mark.parametrize("pieces", [[], ["", " "], ["..."], ["[pause:1s]"], ["😀"]])
def test_where_nothing_can_be_spoken_nothing_is(pieces):
    assert fed(pieces) == ([], "")


@pytest.mark.parametrize(
    ("text", "signs"), [("", False), (" \n", False), ("... ", True), ("😀", True), ("[pause:1s]", True), ("a...", False)]
)
def test_signs_alone_are_told_from_nothing(text, signs):
    incoming = SentenceBuffer(200)
    incoming.feed(text)
    assert incoming.holds_signs is signs


def test_a_pause_stays_with_what_follows():
    assert fed(["[pause:1s] ", "Hello. ", "You", " all"]) == (["[pause:1s] Hello. "], "You all")


@given(st.lists(st.text(st.sampled_from("ab .,!?。\n"), max_size=8), max_size=30), st.integers(10, 40))
def test_no_letter_is_lost_or_moved(pieces, length):
    ready, rest = fed(pieces, length)
    assert [c for c in "".join(ready) + rest if c.isalnum()] == [c for c in "".join(pieces) if c.isalnum()]

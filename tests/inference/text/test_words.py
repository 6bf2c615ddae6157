"""Which characters of a text each spoken word comes from."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inference.errors import RequestError
from inference.text.captions import characters
from inference.text.script import script, spoken_words
from inference.text.segments import Segmentation
from inference.text.words import Word

SENTENCES = Segmentation("sentence", 200)


def lines_of(text, length=200, *, normalize=True):
    lines, _ = script(text, length, normalize=normalize, spell_capitals=normalize, segmentation=SENTENCES)
    return spoken_words(text, lines, normalize=normalize, spell_capitals=normalize, language="en")


def said(text, **options):
    return [(word.text, word.spoken.strip()) for line in lines_of(text, **options) for word in line.words]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It costs $3.50.", [("It", "It"), ("costs", "costs"), ("$3.50", "three dollars and fifty cents.")]),
        ("Dr. Smith ran 5km.", [("Dr", "Doctor"), ("Smith", "Smith"), ("ran", "ran"), ("5km", "five kilometers.")]),
        ("On Nov. 5, 2024", [("On", "On"), ("Nov", "November"), ("5", "fifth,"), ("2024", "twenty twenty-four")]),
        ("Call (555) 123-4567, NASA!", [("Call", "Call"), ("555) 123-4567", "five five five, one two three, four five six seven,"), ("NASA", "nassa!")]),
        ("5 + 3 & -5%", [("5", "five"), ("+", "plus"), ("3", "three"), ("&", "and"), ("-5%", "minus five percent")]),
        ("12 12 12", [("12", "twelve")] * 3),
        ("**Bold** see [the docs](https://a.example/b?c=1) <b>now</b>", [("Bold", "Bold"), ("see", "see"), ("the", "the"), ("docs", "docs"), ("now", "now")]),
        ("Hi there [pause:1s] you 😀 two", [("Hi", "Hi"), ("there", "there"), ("you", "you"), ("two", "two")]),
        ("mother-in-law's half", [("mother-in-law's", "mother-in-law's"), ("half", "half")]),
        ("我有3个。", [("我", "我"), ("有", "有"), ("3", "三"), ("个", "个。")]),
        ("Das kostet 3,50 € am 5. Mai.", [("Das", "Das"), ("kostet", "kostet"), ("3,50", "drei Euro fünfzig"), ("am", "am"), ("5", "fünften"), ("Mai", "Mai.")]),
    ],
)  # fmt: skip
def test_each_written_word_has_what_is_said_for_it(text, expected):
    assert said(text) == expected


def test_words_of_a_text_that_is_read_as_it_is_are_its_words():
    text = "It costs 3 dollars, doesn't it? Yes — it “does”."
    assert [w for w, _ in said(text, normalize=False)] == ["It", "costs", "3", "dollars", "doesn't", "it", "Yes", "it", "does"]


def test_what_is_said_for_all_words_of_a_line_is_the_line():
    for line in lines_of('"Well," he said, "$5 is (nearly) 10% of it." So there... Done!'):
        assert "".join(word.spoken for word in line.words).strip() == line.text


def test_a_long_text_is_compared_piece_by_piece():
    text = "Chapter 12 has 3 cats, and 1,024 more of them cost $2.50 each. " * 300
    words = [word.text for line in lines_of(text) for word in line.words]
    assert words == ["Chapter", "12", "has", "3", "cats", "and", "1,024", "more", "of", "them", "cost", "$2.50", "each"] * 300


pieces = st.lists(
    st.text() | st.sampled_from(["$3.50 ", "Dr. No", "[pause:1s]", "**b** ", "5% & 6", "<b>x</b>", "我有3个。", ". ", "\n\n", "½"])
)


@given(pieces.map("".join), st.booleans())
@example("0 0", True)
@example("a & b 1-2", True)
def test_words_are_in_order_and_never_overlap(text, normalize):
    try:
        lines = lines_of(text, 40, normalize=normalize)
    except RequestError:
        return
    at, words = 0, []
    for line in lines:
        place = 0
        for word in line.words:
            assert at <= word.start_char < word.end_char <= len(text)
            assert place <= word.begin < word.end <= len(line.text)
            assert text[word.start_char : word.end_char] == word.text
            at, place = word.end_char, word.end
            words.append(Word(word.text, word.start_char, word.end_char, len(words), len(words) + 1, word.spoken))
    found = characters(text, words, 0, len(text), (0, len(words)))
    assert "".join(found.characters) == text
    assert found.starts == sorted(found.starts)
    assert all(a <= b for a, b in zip(found.starts, found.ends, strict=True))

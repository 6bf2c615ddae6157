import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.text.clean import clean
from inference.text.split import split
from tests.conftest import golden_json

CASES = golden_json("text_cases.json")


@pytest.mark.parametrize("case", CASES["clean"], ids=lambda c: repr(c["text"])[:20])
def test_clean_equals_the_reference(case):
    assert clean(case["text"]) == case["out"]


@pytest.mark.parametrize("case", CASES["split"], ids=lambda c: f"{c['length']} {c['text'][:12]!r}")
def test_split_equals_the_reference(case):
    assert split(case["text"], case["length"], compat=True) == case["out"]


prose = st.text(st.sampled_from("aZ é你，。,.!?;'<>_f0123456789😀🇫\n\t-") | st.characters(exclude_categories=["Cs"]), max_size=300)


def letters(text):
    return [c for c in text if c.isalnum()]


@given(prose, st.integers(10, 300))
def test_no_letter_is_lost(text, length):
    assert letters("".join(split(text, length))) == letters(clean(text))


@given(prose, st.integers(10, 300))
def test_segments_have_something_to_speak_and_keep_to_the_length(text, length):
    for segment in split(text, length):
        assert segment == segment.strip()
        assert not set(segment) <= set(string.whitespace + string.punctuation)
        assert len(segment.encode()) < length + 4  # a hard cut ends after the character that reaches the length


@given(prose)
def test_what_fits_is_not_cut(text):
    assert len(split(text, 2000)) <= 1


def test_the_point_in_a_number_does_not_end_a_sentence():
    assert split("It is 3.14. Yes.", 12) == ["It is 3.14.", "Yes."]


def test_the_references_own_mark_in_a_text_is_kept():
    assert split("<1_f_2> stays", 50) == ["<1_f_2> stays"]
    assert split("<1_f_2> goes", 50, compat=True) == ["1.2 goes"]

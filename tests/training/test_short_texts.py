"""What counts as understood, of letters and short sentences."""

import pytest

from training.short_texts import CASES, is_right


@pytest.mark.parametrize("heard", ["They said that the FBI was late.", "the F.B.I. was late", "f b i"])
def test_letters_are_right_however_they_are_written(heard):
    assert is_right("FBI", heard)


@pytest.mark.parametrize(
    ("wanted", "heard"), [("ID", "They said that the idea was late."), ("no", "Now."), ("no I have to go home", "I have to go home.")]
)
def test_other_words_are_wrong(wanted, heard):
    assert not is_right(wanted, heard)


def test_every_text_would_be_right_if_it_were_heard_as_wanted():
    assert all(is_right(wanted, f"Well, {wanted}, yes.") for texts in CASES.values() for _, wanted in texts)

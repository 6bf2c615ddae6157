import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference import RequestError
from inference.text.script import Line, script, speakable


def lines(text, length=200, normalize=False):
    return script(text, length, normalize=normalize)


@pytest.mark.parametrize(
    ("mark", "seconds"),
    [
        ("[pause:1.2s]", 1.2), ("[pause:800ms]", 0.8), ("[PAUSE: 2 S ]", 2), ('<break time="500ms"/>', 0.5), ("<break time='1s' />", 1),
        ("<break/>", 0.5), ('<break strength="strong"/>', 0.75), ('<break strength="x-weak" time="3s"></break>', 3), ("[pause:0s]", 0), ("[pause:10s]", 10),
    ],
)  # fmt: skip
def test_marks_are_silence_between_what_is_spoken(mark, seconds):
    assert lines(f"Hello.{mark}World.") == ([Line("Hello.", 0), Line("World.", seconds)], 0)


def test_pauses_add_up_and_stand_at_either_end():
    assert lines("[pause:1s] Hi. [pause:1s]<break/> there [pause:2s]") == ([Line("Hi.", 1), Line("there", 1.5)], 2)


def test_line_breaks_are_spaces():
    assert lines("One\n\ttwo.\n\nThree.")[0] == [Line("One two. Three.", 0)]


def test_numbers_become_words_where_asked_for():
    assert lines("It is 5 km.", normalize=True)[0] == [Line("It is five kilometers.", 0)]
    assert lines("It is 5 km.")[0] == [Line("It is 5 km.", 0)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hi [pause:abc] you", r"\[pause:abc\] is not a pause; write \[pause:1.2s\]"),
        ("Hi [pause:11s] you", "consecutive pauses total 11.0 s; the limit is 10 s"),
        ("Hi [pause:6s] [pause:6s] you", "12.0 s; the limit is 10 s"),
        ("Hi <break time='1h'/> you", "is not a pause"),
        ("Hi[pause:1ms]" * 101, "101 pauses; at most 100"),
        ("[pause:1s]", "nothing to speak"),
        ("😀 **", "nothing to speak"),
        ("<p></p>", "nothing to speak"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(text, words):
    with pytest.raises(RequestError, match=words):
        lines(text)


@given(st.lists(st.sampled_from(["Hello. ", "one two", "[pause:100ms]", "**x**", "。", "5", "😀", "\n"]), max_size=12))
def test_no_pause_and_no_word_is_lost(parts):
    text = "".join(parts)
    if not speakable(text):
        with pytest.raises(RequestError):
            lines(text)
        return
    spoken, last = lines(text, 20)
    assert sum(line.silence for line in spoken) + last == pytest.approx(0.1 * parts.count("[pause:100ms]"))
    heard = [c for line in spoken for c in line.text if c.isalnum()]
    assert heard == [c for part in parts if part != "[pause:100ms]" for c in part if c.isalnum()]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Hello\u200b, \x07wor\u00adld\ufeff.", "Hello, world."),
        ("Blank \u3164\u2800  \u00a0 runs\v\f are one.", "Blank runs are one."),
        ("Private \ue000 and \ufffd lost.", "Private and lost."),
        ("Well!!!!!!!! So.......", "Well!!! So..."),
        ("می\u200cروم و क्\u200dष", "می\u200cروم و क्\u200dष"),
    ],
)
def test_what_has_no_sound_does_not_reach_the_model(text, said):
    assert " ".join(line.text for line in lines(text)[0]) == said

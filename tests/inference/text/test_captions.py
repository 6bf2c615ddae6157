"""Captions from words with their times."""

import io
import json

import av
import pytest

from inference.text.captions import MAX_LINE, MAX_SECONDS, cues, srt, vtt, words_json
from inference.text.script import script, spoken_words
from inference.text.words import Word


def timed(text, each=0.3):
    lines, _ = script(text, 1000, normalize=False)
    (line,) = spoken_words(text, lines, normalize=False, spell_capitals=False, language="en")
    words = line.words
    return [Word(w.text, w.start_char, w.end_char, n * each, (n + 1) * each, w.spoken) for n, w in enumerate(words)]


def read_back(name, content):
    """What FFmpeg reads: each caption's text, and its start and end in seconds."""
    with av.open(io.BytesIO(content.encode()), format=name) as container:
        stream = container.streams[0]
        found = []
        for packet in container.demux(stream):
            if packet.size:
                start = float(packet.pts * stream.time_base)
                found.append((bytes(packet).decode(), start, start + float(packet.duration * stream.time_base)))
        return found


LONG = (
    "It was the best of times, it was the worst of times, it was the age of wisdom. "
    "Short & sweet. (Really?) “Yes,” he said — “it is **bold** and [linked](https://a.example/b).”"
)


@pytest.mark.parametrize(("name", "made"), [("srt", srt), ("webvtt", vtt)])
def test_ffmpeg_reads_captions_back(name, made):
    words = timed(LONG)
    expected = [("\n".join(cue.lines), cue.start, cue.end) for cue in cues(LONG, words)]
    found = read_back(name, made(LONG, words))
    unescaped = [(text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"), start, end) for text, start, end in found]
    assert [text for text, *_ in unescaped] == [text for text, *_ in expected]
    assert [times for _, *times in unescaped] == [pytest.approx(times, abs=1e-3) for _, *times in expected]


def test_captions_end_with_sentences_and_have_no_markup():
    shown = [" ".join(cue.lines) for cue in cues(LONG, timed(LONG))]
    assert shown == [
        "It was the best of times, it was the worst of times, it was the age of wisdom.",
        "Short & sweet.",
        "(Really?)",
        "“Yes,” he said — “it is bold and linked.”",
    ]


def test_lines_are_short_and_captions_do_not_stay_long():
    text = "word " * 100 + "a" * 60 + " end."
    for cue in cues(text, timed(text)):
        assert len(cue.lines) <= 2
        assert all(len(line) <= MAX_LINE or " " not in line for line in cue.lines)
        assert cue.end - cue.start <= MAX_SECONDS


def test_a_long_pause_begins_another_caption():
    one, two = timed("one two", each=3)
    late = Word(two.text, two.start_char, two.end_char, 8.0, 9.0, two.spoken)
    assert [cue.lines for cue in cues("one two", [one, late])] == [("one",), ("two",)]


def test_no_words_make_empty_files():
    assert (srt("...", []), vtt("...", [])) == ("", "WEBVTT\n\n")


def test_words_are_json():
    assert json.loads(words_json("Hi $5", timed("Hi $5"))) == {
        "text": "Hi $5",
        "precision": "segment",
        "words": [
            {"word": "Hi", "start": 0.0, "end": 0.3, "start_char": 0, "end_char": 2},
            {"word": "$5", "start": 0.3, "end": 0.6, "start_char": 3, "end_char": 5},
        ],
    }

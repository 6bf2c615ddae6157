"""Captions from words with their times: SubRip (SRT), WebVTT, and JSON; and the time of every character."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import regex

from inference.text.words import Word

MAX_LINE, MAX_LINES = 42, 2
"""Characters in a line of a caption and lines in a caption, as television and streaming services have them."""
MAX_SECONDS, MAX_GAP_SECONDS = 7.0, 1.0
"""The longest caption, and the longest pause within one."""
_SENTENCE_END = regex.compile(r"""[\p{Sentence_Break=STerm}\p{Sentence_Break=ATerm}…][\p{Pe}\p{Pf}"']*\s*\Z""")
_MARKUP = regex.compile(r"<[^<>]*>|\[pause:[^\[\]]*\]|\]\([^()]*\)|[*_`~#|\\\[\]]+", regex.IGNORECASE)
_TO_SPACE = regex.compile(r"(?:.*\s)?(?(?<=\s)|.*)", regex.DOTALL)
_PUNCTUATION = regex.compile(r"(?:(?![<>\[\]{}])[\p{P}\s])*+")


class Cue(NamedTuple):
    """One caption: its lines, and when it is shown, in seconds."""

    lines: tuple[str, ...]
    start: float
    end: float


def cues(text: str, words: Sequence[Word]) -> list[Cue]:
    """Captions for the words of a text. They end with sentences where they can, and have no markup."""
    shown = _shown(text, words)
    groups: list[list[int]] = []
    for n, word in enumerate(words):
        if groups:
            first, last = words[groups[-1][0]], words[groups[-1][-1]]
            ended = _SENTENCE_END.search(shown[n - 1]) or word.start - last.end > MAX_GAP_SECONDS or word.end - first.start > MAX_SECONDS
            if not ended and len(_lines([shown[i] for i in (*groups[-1], n)])) <= MAX_LINES:
                groups[-1].append(n)
                continue
        groups.append([n])
    return [Cue(_lines([shown[i] for i in group]), words[group[0]].start, words[group[-1]].end) for group in groups]


def srt(text: str, words: Sequence[Word]) -> str:
    """A SubRip file."""
    return "".join(
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{chr(10).join(cue.lines)}\n\n"
        for number, cue in enumerate(cues(text, words), 1)
    )


def vtt(text: str, words: Sequence[Word]) -> str:
    """A WebVTT file."""
    return "WEBVTT\n\n" + "".join(
        f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{_escaped(chr(10).join(cue.lines))}\n\n" for cue in cues(text, words)
    )


def words_json(text: str, words: Sequence[Word]) -> str:
    """The text and its words as JSON. Times are seconds; `precision` says how exact they are."""
    return json.dumps({"text": text, "precision": precision(words), "words": [as_json(word) for word in words]}, ensure_ascii=False)


def as_json(word: Word) -> dict[str, Any]:
    """A word as a JSON object, with times in seconds to the millisecond."""
    return {
        "word": word.text, "start": round(word.start, 3), "end": round(word.end, 3), "start_char": word.start_char, "end_char": word.end_char,
    }  # fmt: skip


def precision(words: Iterable[Word]) -> str:
    """The least exact of the words' precisions."""
    return "word" if all(word.precision == "word" for word in words) else "segment"


class Format(NamedTuple):
    """A format of captions: `write` takes a text and its words."""

    write: Callable[[str, Sequence[Word]], str]
    media_type: str


CAPTION_FORMATS = {
    "srt": Format(srt, "application/x-subrip"),
    "vtt": Format(vtt, "text/vtt"),
    "json": Format(words_json, "application/json"),
}
KEY_SUFFIX = ".captions"
"""In a bucket, the captions of a file are at its key with this behind it."""


class Characters(NamedTuple):
    """Each character of a text, and when it is heard, in seconds."""

    characters: list[str]
    starts: list[float]
    ends: list[float]


def characters(text: str, words: Sequence[Word], begin: int, end: int, span: tuple[float, float]) -> Characters:
    """The characters `begin` to `end` of a text, from one moment to another. Words share their time among their characters.

    What is not heard, such as spaces and markup, takes no time: it is at the end of the word before. What is behind the last word lasts
    to the end.
    """
    found = Characters([], [], [])
    at = span[0]
    for word in words:
        _add(found, text[begin : word.start_char], at, at)
        _add(found, word.text, word.start, word.end)
        begin, at = word.end_char, word.end
    _add(found, text[begin:end], at, span[1])
    return found


def joined(parts: Iterable[Characters]) -> Characters:
    """Parts that follow each other as one."""
    found = Characters([], [], [])
    for part in parts:
        found.characters.extend(part.characters)
        found.starts.extend(part.starts)
        found.ends.extend(part.ends)
    return found


def spoken_characters(words: Sequence[Word], until: float) -> Characters:
    """The characters of what was said for the words, numbers and signs as words. What is behind the last word of a line lasts to `until`."""
    found = Characters([], [], [])
    for n, word in enumerate(words, 1):
        said = word.spoken.rstrip()
        _add(found, said, word.start, word.end)
        _add(found, word.spoken[len(said) :], word.end, until if n == len(words) and word.ends_line else word.end)
    return found


def _add(found: Characters, text: str, start: float, end: float) -> None:
    borders = [start + (end - start) * n / len(text) for n in range(len(text))] + [end] if text else []
    found.characters.extend(text)
    found.starts.extend(borders[:-1])
    found.ends.extend(borders[1:])


def _shown(text: str, words: Sequence[Word]) -> list[str]:
    """Each word with the punctuation around it and the space behind it, without markup."""
    borders = [(0, 0), *((w.start_char, w.end_char) for w in words), (len(text), len(text))]
    gaps = [_glue(text[a[1] : b[0]]) for a, b in pairwise(borders)]
    behind = [_TO_SPACE.match(gap)[0] for gap in gaps[1:-1]]  # what is behind the last space belongs to the next word
    before = [gap[len(b) :] for gap, b in zip(gaps[1:-1], behind, strict=True)]
    return ["".join(parts) for parts in zip([gaps[0], *before], (w.text for w in words), [*behind, gaps[-1]], strict=True)] if words else []


def _glue(between: str) -> str:
    """What is shown of the characters between two words: their punctuation, or a space for markup."""
    plain = " ".join(("|" + _MARKUP.sub("", between) + "|").split())[1:-1]
    return plain if _PUNCTUATION.fullmatch(plain) else " "


def _lines(shown: list[str]) -> tuple[str, ...]:
    """Words in as few lines as they fit in, of about the same length."""
    whole = "".join(shown).strip()
    fewest = _wrapped(shown, MAX_LINE)
    if len(fewest) == 1:
        return (whole,)
    width = next(w for w in range(len(whole) // len(fewest), MAX_LINE + 1) if len(_wrapped(shown, w)) == len(fewest) or w == MAX_LINE)
    return tuple(_wrapped(shown, width))


def _wrapped(shown: list[str], width: int) -> list[str]:
    lines = [""]
    for word in shown:
        if lines[-1] and len((lines[-1] + word).rstrip()) > width:
            lines.append("")
        lines[-1] += word
    return [line.strip() for line in lines]


def _clock(seconds: float, point: str) -> str:
    ms = round(seconds * 1000)
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}{point}{ms % 1000:03}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

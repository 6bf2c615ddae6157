"""Turns input text into spoken segments and pauses: the only path from text to the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby

import regex

from inference.errors import RequestError
from inference.text.clean import clean, sayable
from inference.text.dialogue import MAX_MARKS, SPEAKER, TURN_SECONDS, VOICE, has_brackets, marked_voice, without_marks
from inference.text.language import ENGLISH, language_at_end
from inference.text.letters import plain_letters, speakable_words
from inference.text.markup import plain
from inference.text.normalize import normalize as words
from inference.text.pronunciation import Pronounced
from inference.text.segments import AS_MUCH_AS_FITS, Segmentation, segments
from inference.text.split import split
from inference.text.words import SpokenLine, spoken_lines

MAX_PAUSE_SECONDS, MAX_PAUSES = 10.0, 100
"""Seconds of consecutive pauses in total; number of pauses in one text."""
STRENGTHS = {"none": 0.0, "x-weak": 0.1, "weak": 0.25, "medium": 0.5, "strong": 0.75, "x-strong": 1.0}
"""Seconds for each strength of SSML's `<break>`."""
_PAUSE = regex.compile(r"\[pause:([^\[\]\n]{0,40})\]|<break\b([^<>]{0,200})/?>(?:\s*</break>)?", regex.IGNORECASE)
_MARK = regex.compile(rf"{_PAUSE.pattern}|{VOICE}|(?!){SPEAKER}", regex.IGNORECASE)
_MARK_WITH_SPEAKERS = regex.compile(rf"{_PAUSE.pattern}|{VOICE}|{SPEAKER}", regex.IGNORECASE)
_TIME = regex.compile(r"\s*(\d{1,6}(?:\.\d{1,6})?)\s*(ms|s)\s*", regex.IGNORECASE)
_ATTRIBUTE = regex.compile(r"""\b(time|strength)\s*=\s*["']([^"']*)["']""", regex.IGNORECASE)


Pronounce = Callable[[str, str, str | None], Pronounced]
"""Replaces terms in a part of the text; it takes the language of a sentence that shows none, and the name in the mark of the part's voice."""


@dataclass(frozen=True)
class Line:
    """Text spoken in one go, the seconds of silence before it, and where the part of the text between two marks is that it belongs to.

    `voice` is the name in the last mark of a voice before it. `language` is that of a sentence of its part that shows none.
    """

    text: str
    silence: float
    part: tuple[int, int] = field(default=(0, 0), compare=False)
    voice: str | None = None
    language: str = field(default=ENGLISH, compare=False)


def speakable(text: str) -> bool:
    """Whether the text has a letter or a digit outside its pauses and its marks of voices."""
    return any(map(str.isalnum, without_marks(_PAUSE.sub("", text)) if has_brackets(text) else text))


def script(
    text: str,
    length: int,
    *,
    normalize: bool,
    spell_capitals: bool = False,
    segmentation: Segmentation = AS_MUCH_AS_FITS,
    language: str = ENGLISH,
    speakers: bool = False,
    pronounce: Pronounce | None = None,
) -> tuple[list[Line], float]:
    """The lines of a text, each at most `length` UTF-8 bytes where the text allows, and the seconds of silence after the last.

    `[pause:1.2s]` and SSML's `<break time="500ms"/>` are pauses; they replace the pause that `segmentation` puts there. `[voice:anna]` says who
    speaks what follows, and with `speakers` also `<|speaker:0|>`. `normalize` writes
    numbers and signs out as words of each sentence's language, which is `language` until a sentence shows another; with `spell_capitals` also
    acronyms and words in capitals. Raises RequestError for an invalid pause, and when there is nothing to speak.
    """
    length = min(length, segmentation.max_segment_bytes or length)
    lines: list[Line] = []
    silence, start, pauses, marks = 0.0, 0, 0, 0
    asked, gap, voice = False, 0.0, None
    for mark in (*(_MARK_WITH_SPEAKERS if speakers else _MARK).finditer(text), None):
        end = mark.start() if mark else len(text)
        before, said = language, pronounce(text[start:end], language, voice).text if pronounce else text[start:end]
        part, language = _read(said, normalize, spell_capitals, language)
        cut = segments(part, length, segmentation) if segmentation.chunk == "sentence" else [(s, 0.0) for s in split(part, length)]
        if lines and lines[-1].voice != voice:
            gap = max(gap, TURN_SECONDS)
        gap = 0.0 if asked else gap
        for segment, pause in cut:
            said = " ".join(segment.split())  # a model that never saw a line break says odd things at one
            lines.append(Line(said, silence + gap, (start, end), voice, before))
            silence, asked, gap = 0.0, False, pause
        if mark is None:
            break
        start = mark.end()
        if (name := marked_voice(mark, 3)) is not None:
            voice, marks = name, marks + 1
            if marks > MAX_MARKS:
                raise RequestError(f"the text has more than {MAX_MARKS:,} marks of voices, as many as one request may have", "text")
            continue
        silence, asked, pauses = silence + _seconds(mark), True, pauses + 1
        if silence > MAX_PAUSE_SECONDS:
            raise RequestError(f"consecutive pauses total {silence:.1f} s; the limit is {MAX_PAUSE_SECONDS:.0f} s", "text")
    if pauses > MAX_PAUSES:
        raise RequestError(f"the text has {pauses} pauses; at most {MAX_PAUSES} are made in one request", "text")
    if not lines:
        raise RequestError("there is nothing to speak: the text is empty or only white space and punctuation", "text")
    return lines, silence


def spoken_words(
    text: str, lines: list[Line], *, normalize: bool, spell_capitals: bool, language: str, pronounce: Pronounce | None = None
) -> list[SpokenLine]:
    """The words of each line that `script` made of `text`; `language` is that of a part that shows none."""
    found = []
    for (start, end), group in groupby(lines, lambda line: line.part):
        part, of_part = text[start:end], list(group)
        pronounced = pronounce(part, of_part[0].language, of_part[0].voice) if pronounce else Pronounced(part)
        shown = language_at_end(pronounced.text, language) if normalize else language

        def read(some: str, shown: str = shown) -> str:
            return _read(some, normalize, spell_capitals, shown)[0]

        spoken = spoken_lines(pronounced.text, [line.text for line in of_part], lru_cache(None)(read))
        found += [line.later(start) for line in pronounced.as_sent(part, spoken)]
    return found


def _read(part: str, normalize: bool, spell_capitals: bool, language: str) -> tuple[str, str]:
    """The text without its markup, with numbers and signs as words where they are to be, and the language at its end."""
    part = sayable(plain(part))
    if not normalize:
        return part, language
    part = clean(plain_letters(part))
    part, language = words(part, language), language_at_end(part, language)
    return speakable_words(part) if spell_capitals else part, language


def _seconds(mark: regex.Match[str]) -> float:
    asked = mark[1]
    if asked is None:
        given = {name.lower(): value for name, value in _ATTRIBUTE.findall(mark[2])}
        if "time" not in given:
            return STRENGTHS.get(given.get("strength", "medium").lower(), STRENGTHS["medium"])
        asked = given["time"]
    time = _TIME.fullmatch(asked)
    if time is None:
        raise RequestError(f'{mark[0][:80]} is not a pause; write [pause:1.2s], [pause:800ms] or <break time="1.2s"/>', "text")
    return float(time[1]) / (1000 if time[2].lower() == "ms" else 1)

"""Word times in the forms that several speech APIs share: a response header, and the characters of a stream piece by piece."""

from __future__ import annotations

import json
from collections.abc import Sequence

import regex

from inference.text.captions import Characters, characters
from inference.text.words import Word

HEADER, OMITTED = "X-Word-Timestamps", "X-Word-Timestamps-Omitted"
MAX_HEADER_BYTES = 4096
"""Proxies and clients refuse larger headers."""
_BEHIND = regex.compile(r"(?:(?![-−.]\d)[\p{P}--[\p{Ps}\p{Pi}%‰&@#]])*\s?", regex.V1)
"""What is behind a word and cannot begin the next one."""


def header(words: Sequence[Word]) -> dict[str, str]:
    """The words as a response header, or, where they are too many for one, a header with their bytes."""
    times = [{"word": w.text, "start_ms": round(1000 * w.start), "end_ms": round(1000 * w.end)} for w in words]
    value = json.dumps(times, separators=(",", ":"))  # ASCII alone, as headers have to be
    return {HEADER: value} if len(value) <= MAX_HEADER_BYTES else {OMITTED: str(len(value))}


class CharacterTimes:
    """The characters of a text with their times, as its words come. Joined, they are the text."""

    def __init__(self) -> None:
        self._given, self._at = 0, 0.0

    def next(self, text: str, words: Sequence[Word], until: float) -> Characters:
        """The characters up to the last of these words and the blank behind it, which lasts to `until`; none without words.

        `text` is all the text there is so far.
        """
        if not words:
            return Characters([], [], [])
        return self._up_to(_BEHIND.match(text, words[-1].end_char).end(), text, words, until)

    def rest(self, text: str) -> Characters:
        """The characters behind the last word."""
        return self._up_to(len(text), text, (), self._at)

    def _up_to(self, end: int, text: str, words: Sequence[Word], until: float) -> Characters:
        found = characters(text, words, self._given, end, (self._at, until))
        self._given, self._at = end, until
        return found

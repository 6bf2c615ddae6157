"""Word times in the forms that several speech APIs share: a response header, and the characters of a stream piece by piece."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import inf
from typing import Any

import regex

from inference.text.captions import Characters, as_json, characters
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
        """The characters up to the last of these words and the blank behind it; none without words. That of a line's last word lasts to `until`.

        `text` is all the text there is so far.
        """
        if not words:
            return Characters([], [], [])
        until = until if words[-1].ends_line else words[-1].end
        return self._up_to(_BEHIND.match(text, words[-1].end_char).end(), text, words, until)

    def rest(self, text: str) -> Characters:
        """The characters behind the last word."""
        return self._up_to(len(text), text, (), self._at)

    def _up_to(self, end: int, text: str, words: Sequence[Word], until: float) -> Characters:
        found = characters(text, words, self._given, end, (self._at, until))
        self._given, self._at = end, until
        return found


class Sent:
    """What was sent of a speech, for agents that are interrupted: `seconds` of the file, and the words that are known in them."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._words: list[Word] = []

    def add(self, words: Sequence[Word], until: float) -> None:
        """More was sent: the file up to `until` seconds."""
        self._words += words
        self.seconds = until

    def last_word(self, played: float = inf) -> Word | None:
        """The last word that had begun after so many seconds; None before the first one."""
        return next((word for word in reversed(self._words) if word.start < played), None)

    def summary(self, played: float = inf) -> dict[str, Any]:
        """What a client is told at the end: the seconds sent, and the last word heard by somebody who played so many of them."""
        word = self.last_word(played)
        return {"audio_sec": round(self.seconds, 3), "last_word": as_json(word) if word else None}


def up_to(text: str, word: Word | None) -> str:
    """The text as it was sent up to a word, with the punctuation behind it; "" for None."""
    return text[: _BEHIND.match(text, word.end_char).end()].rstrip() if word else ""

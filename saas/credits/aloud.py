"""How much speech a text is: its letters once numbers and signs are words, and the silence that it asks for. Knows no price."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

import regex

from inference.errors import RequestError
from inference.text.markup import plain
from inference.text.script import script, speakable

INSTANT = 500
"""A text of so many characters is read in about a millisecond; a longer one is read in a thread."""
SYLLABLE, NUMBER, SIGN = 3, 11, 8
"""Letters that a character stands for: a syllable or a word of its own, a digit or a number ("nine trillion"), a sign ("percent")."""
_MAX_LINE = 1_000_000
_KINDS = regex.compile(
    r"(?P<syllable>[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Bopomofo}\p{Ethiopic}\p{Yi}\p{Vai}\p{Cherokee}\p{Canadian_Aboriginal}"
    r"\p{Bamum}\p{Tangut}\p{Nushu}\p{Khitan_Small_Script}\p{Linear_A}\p{Linear_B}\p{Cypriot}\p{Cypro_Minoan}\p{Cuneiform}"
    r"\p{Egyptian_Hieroglyphs}\p{Anatolian_Hieroglyphs}\p{Mende_Kikakui}])|(?P<number>\p{N})|(?P<sign>\p{S})"
)
_WEIGHTS = {"syllable": SYLLABLE, "number": NUMBER, "sign": SIGN}


@dataclass(frozen=True)
class Aloud:
    """A text as it is read out: its length in letters of English, and seconds of silence from pauses in it."""

    letters: int
    silence: float


def has_speech(text: str) -> bool:
    """Whether a text has a letter or a digit to speak, once its markup and its pauses are gone."""
    return speakable(text) and speakable(plain(text))


def aloud(text: str) -> Aloud:
    """Read a text as the engine will, with numbers and signs written out. One that the engine will refuse is measured as it is written."""
    try:
        lines, after = script(text, _MAX_LINE, normalize=True, spell_capitals=True)
    except RequestError:
        return Aloud(_letters(text), 0.0)
    return Aloud(sum(_letters(line.text) for line in lines) + len(lines) - 1, round(sum(line.silence for line in lines) + after, 3))


def _letters(text: str) -> int:
    """Letters of English that take as long to say."""
    plain = unicodedata.normalize("NFKC", text)  # a ligature as its letters, a half-width kana as a kana
    return len(plain) + sum(_WEIGHTS[str(m.lastgroup)] - 1 for m in _KINDS.finditer(plain))

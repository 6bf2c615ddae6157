"""Splits long text into segments that the model speaks one after another. Lengths are in UTF-8 bytes."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable, Sequence

import regex

from inference.text.clean import clean
from inference.text.sentences import sentences

_FLOAT = re.compile(r"(?<!\d)(\d++)\.(\d+)")  # looks at each digit once, however many there are
# A number's decimal point must not end a sentence, so it is hidden during the cut, by marks as long as the reference implementation's
# own `<`, `_f_` and `>`. The reference also turns such marks in the user's text into a point.
_HIDDEN = "\x02{}\x03\x03\x03{}\x04"
_UNHIDE = re.compile(r"\x02(\d+)\x03\x03\x03(\d+)\x04")
_REFERENCE_MARK = re.compile(r"<(\d+)_f_(\d+)>")
_CLAUSES = regex.compile(r"(?>.*?(?:[,;:–—](?=\s)|[，、；：،؛՝፣፤၊])[\p{Sentence_Break=Close}]*+\s*+)|.+", regex.DOTALL)
_WORDS = regex.compile(r"\S*+\s++|\S++")
_SILENT = frozenset(string.whitespace + string.punctuation)


def split(text: str, length: int, *, compat: bool = False) -> list[str]:
    """Segments of `text`, each at most `length` bytes where the text allows, and each with something to speak.

    Cuts after sentences where possible, else after clauses, else after words, else between characters. It never cuts a piece
    shorter than `length`, and joins short pieces. `compat=True` reproduces the reference implementation's behaviour exactly.
    """
    if not compat:
        pieces: Iterable[str] = _each_long([clean(text)], length, sentences)
        for cut in (_CLAUSES.findall, _WORDS.findall, lambda p: _chop_one(regex.findall(r"\X", p), length)):
            pieces = _each_long(pieces, length, cut)
        return [s for s in _join(pieces, length) if any(map(str.isalnum, s))]
    text = _FLOAT.sub(lambda m: _HIDDEN.format(m[1], m[2]), clean(text))
    pieces = _cut([text], length, ".!?。！？")
    pieces = [_REFERENCE_MARK.sub(r"\1.\2", _UNHIDE.sub(r"\1.\2", p)) for p in pieces]
    pieces = _cut(pieces, length, ",，")
    pieces = _cut(pieces, length, " ")
    pieces = _each_long(pieces, length, lambda p: _chop_one(p, length))
    return [s for s in _join(pieces, length) if not _SILENT.issuperset(s)]


def _size(text: str) -> int:
    return len(text.encode("utf-8"))


def _cut(pieces: Iterable[str], length: int, marks: str) -> list[str]:
    """Cut pieces longer than `length` after each mark."""
    return _each_long(pieces, length, lambda p: re.findall(f"[^{re.escape(marks)}]*[{re.escape(marks)}]|[^{re.escape(marks)}]+", p))


def _each_long(pieces: Iterable[str], length: int, cut: Callable[[str], list[str]]) -> list[str]:
    return [part for p in pieces for part in (cut(p) if _size(p) > length else [p])]


def _chop_one(characters: Sequence[str], length: int) -> list[str]:
    parts, start, size = [], 0, 0
    for i, character in enumerate(characters, 1):
        size += _size(character)
        if size >= length:
            parts.append("".join(characters[start:i]))
            start, size = i, 0
    return [*parts, "".join(characters[start:])] if start < len(characters) else parts


def _join(pieces: Iterable[str], length: int) -> list[str]:
    segments, current = [], ""
    for piece in pieces:
        if _size(current) + _size(piece) > length:
            segments.append(current)
            current = ""
        current += piece
    return [s.strip() for s in (*segments, current)]

"""Words with their times, and which characters of a text each spoken word comes from.

No rule of reading keeps track of positions. The text as sent and the text as spoken are compared instead: words that are equal in both hold
the comparison in place, and what was read in other words between them, such as "$3.50", becomes one word.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from itertools import accumulate, pairwise
from typing import Literal, NamedTuple

import regex

Precision = Literal["segment", "word"]
"""How exact a word's times are: those of "word" are read from the model's attention, those of "segment" are estimated between the exact bounds
of the text spoken in one go.
"""
_WINDOW = 24
"""Words that are compared at once where two texts differ; more, if these have nothing in common."""
_READ_TOGETHER = 3
"""Words that one rule of reading may turn into others together, as in "10 a.m. EST"."""
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_ONE = rf"[{_UNSPACED}--\p{{P}}\p{{M}}]\p{{M}}*"
"""In scripts without spaces each letter counts as a word."""
_WRITTEN = regex.compile(rf"{_ONE}|[^\s{_UNSPACED}()\[\]{{}}<>\"“”„«»—–…|。、，！？；：「」『』（）【】《》]+", regex.V1)
_MARKS = r"[\p{P}\p{S}--[\p{Sc}%‰&@#+=°×÷±√²³]]"
_BEFORE, _MARK = regex.compile(rf"(?:(?![-−.]\d){_MARKS})*+", regex.V1), regex.compile(_MARKS, regex.V1)
_ATOM = regex.compile(rf"{_ONE}|[[\p{{L}}\p{{M}}\p{{N}}]--[{_UNSPACED}]]+", regex.V1)
Read = Callable[[str], str]
"""How a piece of text is read aloud."""


@dataclass(frozen=True)
class Word:
    """A word of a text, and when it is heard: `start` and `end` are seconds from the beginning of the audio.

    `text` is what was sent, from character `start_char` up to but not including `end_char`. `spoken` is what was said for it, which may be
    several words, as for "$3.50", with the punctuation and the space behind it. `ends_line`: it is the last word of what is spoken in one go.
    """

    text: str
    start_char: int
    end_char: int
    start: float
    end: float
    spoken: str
    precision: Precision = "segment"
    ends_line: bool = False

    def moved(self, seconds: float = 0.0, characters: int = 0) -> Word:
        """The same word, so much later in the audio and in the text."""
        return replace(
            self, start=self.start + seconds, end=self.end + seconds,
            start_char=self.start_char + characters, end_char=self.end_char + characters,
        )  # fmt: skip


class SpokenWord(NamedTuple):
    """Characters of the text as sent, and the characters of a line that are spoken for them; both ends are exclusive.

    `spoken` reaches to the line's next word.
    """

    text: str
    spoken: str
    start_char: int
    end_char: int
    begin: int
    end: int


@dataclass(frozen=True)
class SpokenLine:
    """Text spoken in one go, and its words, in order."""

    text: str
    words: tuple[SpokenWord, ...]

    def later(self, characters: int) -> SpokenLine:
        """The same line of a text that has so many more characters before it."""
        moved = (w._replace(start_char=w.start_char + characters, end_char=w.end_char + characters) for w in self.words)
        return SpokenLine(self.text, tuple(moved))

    def rest(self, begin: int) -> SpokenLine:
        """The part of the line from character `begin` on. A word that `begin` is within is wholly there."""
        left = (w._replace(begin=max(0, w.begin - begin), end=w.end - begin) for w in self.words if w.end > begin)
        return SpokenLine(self.text[begin:], tuple(left))


class _Written(NamedTuple):
    """A word as sent, and its letters and digits in comparable form."""

    start: int
    end: int
    atoms: tuple[str, ...]


class _Atom(NamedTuple):
    """A run of letters and digits in a line. `begins` says that a space is before it."""

    line: int
    begin: int
    end: int
    begins: bool
    key: str


def spoken_lines(text: str, lines: Sequence[str], read: Read) -> list[SpokenLine]:
    """The words of each of the `lines` that are spoken for `text`. `read` returns how a part of the text would be read.

    Words are in order and never overlap. A word whose reading is cut across two lines belongs to the first of them.
    """
    written = _written(text, read)
    atoms = [
        _Atom(n, m.start(), m.end(), not line[max(0, m.start() - 1) : m.start()].strip(), _key(m[0]))
        for n, line in enumerate(lines)
        for m in _ATOM.finditer(line)
    ]
    owners, joined = _aligned(text, written, atoms, read)
    firsts: list[int] = []
    for n in range(len(written)):
        firsts.append(firsts[-1] if n in joined else n)
    ends = {first: word.end for first, word in zip(firsts, written, strict=True)}
    found: list[list[SpokenWord]] = [[] for _ in lines]
    last, at = -1, 0
    for atom, owner in zip(atoms, owners, strict=True):
        if owner is None:
            continue
        if (first := firsts[owner]) != last:
            start, end = written[first].start, ends[first]
            found[atom.line].append(SpokenWord(text[start:end], "", start, end, atom.begin, atom.end))
            last, at = first, atom.line
        elif atom.line == at:
            found[at][-1] = found[at][-1]._replace(end=atom.end)
    return [SpokenLine(line, _with_spoken(line, words)) for line, words in zip(lines, found, strict=True)]


def _with_spoken(line: str, words: list[SpokenWord]) -> tuple[SpokenWord, ...]:
    """The words, each with all that is said up to the next one; the first one also with what is before it."""
    borders = [0, *(word.begin for word in words[1:]), len(line)]
    said = [line[a:b] for a, b in pairwise(borders)]
    return tuple(
        word._replace(spoken=s if s[-1:].isspace() or b < len(line) else s + " ")
        for word, s, b in zip(words, said, borders[1:], strict=False)
    )


def _written(text: str, read: Read) -> list[_Written]:
    """The words of a text that may be spoken."""
    words = []
    for m in _WRITTEN.finditer(text):
        start, end = _BEFORE.match(m[0]).end(), len(m[0])
        while end > start and _MARK.match(m[0], end - 1):
            end -= 1
        word = m[0][start:end]
        atoms = _keys(word) or (_keys(read(word)) if word else ())  # "&" has no letters, and is heard
        if atoms:
            words.append(_Written(m.start() + start, m.start() + end, atoms))
    return words


def _aligned(text: str, written: list[_Written], atoms: list[_Atom], read: Read) -> tuple[list[int | None], set[int]]:
    """For each spoken atom the number of its written word, never falling; and the words that are read together with the one before."""
    a = [key for word in written for key in word.atoms]
    of = [n for n, word in enumerate(written) for _ in word.atoms]
    starts = {n: i for i, n in reversed(list(enumerate(of)))}
    b = [atom.key for atom in atoms]
    pairs: dict[int, int] = {}
    borders = [(0, 0), (len(a), len(b))]
    i = j = 0
    while i < len(a) and j < len(b):
        if a[i] == b[j]:
            pairs[i] = j
            i, j = i + 1, j + 1
        elif starts[of[i]] == i and (together := _read_together(text, written, of[i], b, j, read)):
            past, end = starts.get(of[i] + together[0], len(a)), j + together[1]
            pairs |= _common(a[i:past], b[j:end], i, j)
            borders += [(i, j), (past, end)]
            i, j = past, end
        elif place := _next_common(a, b, i, j):
            i, j = place
        else:
            break
    owners: list[int | None] = [None] * len(b)
    joined: set[int] = set()
    for i, j in pairs.items():
        owners[j] = of[i]
    for (i, j), (i_end, j_end) in pairwise(sorted({*pairs.items(), *borders})):
        matched = pairs.get(i) == j
        begin, words = j + matched, sorted(set(of[i + matched : i_end]))
        if words:
            joined |= _share(owners, words, begin, atoms[begin:j_end])
        elif of:  # nothing was written for what is said here: it belongs to the word before
            owners[begin:j_end] = [of[max(0, i + matched - 1)]] * (j_end - begin)
    return owners, joined


def _read_together(text: str, written: list[_Written], word: int, b: list[str], j: int, read: Read) -> tuple[int, int] | None:
    """How many written words from `word` on are read as the next spoken atoms, and how many atoms these are."""
    before = written[word - 1].end if word else 0
    start = written[word].start - len(text[before : written[word].start].rpartition(" ")[2])  # with its bracket, if it has one
    for count in range(1, _READ_TOGETHER + 1):
        if word + count > len(written):
            return None
        end = written[word + count].start if word + count < len(written) else len(text)
        said = _keys(read(text[start:end]))
        if said and list(said) == b[j : j + len(said)]:
            return count, len(said)
    return None


def _next_common(a: list[str], b: list[str], i: int, j: int) -> tuple[int, int] | None:
    """The next place at which the two go on in the same way, or None."""
    size = _WINDOW
    while True:
        block = SequenceMatcher(None, a[i : i + size], b[j : j + 2 * size], autojunk=False).get_matching_blocks()[0]
        if block.size:
            return i + block.a, j + block.b
        if i + size >= len(a) and j + 2 * size >= len(b):
            return None
        size *= 2


def _common(a: list[str], b: list[str], i: int, j: int) -> dict[int, int]:
    """The places at which the two are the same, in order; `i` and `j` are the numbers of their first items."""
    blocks = SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks()
    return {i + m.a + n: j + m.b + n for m in blocks for n in range(m.size)}


def _share(owners: list[int | None], words: list[int], begin: int, said: list[_Atom]) -> set[int]:
    """Give the atoms that are said from number `begin` on to the written words, one to one where there are as many spoken words.

    Otherwise all belong together; then it returns the words to join to the one before.
    """
    spoken = list(accumulate((atom.begins for atom in said[1:]), initial=0))
    if not said or spoken[-1] + 1 == len(words):
        owners[begin : begin + len(said)] = [words[n] for n in spoken[: len(said)]]
        return set()
    owners[begin : begin + len(said)] = [words[0]] * len(said)
    return set(words[1:])


def _keys(text: str) -> tuple[str, ...]:
    return tuple(_key(m[0]) for m in _ATOM.finditer(text))


def _key(atom: str) -> str:
    return unicodedata.normalize("NFKC", atom).casefold()

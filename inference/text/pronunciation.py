"""Replaces terms of a text by other words, and knows which characters of the text these stand for.

A text is cut into words and signs, and each run of them is looked up in a tree of all terms: the time does not depend on how many there are.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import regex

from inference.errors import RequestError
from inference.text.language import language
from inference.text.sentences import sentences
from inference.text.words import SpokenLine, SpokenWord

MAX_RULES = 1000
"""In one dictionary."""
MAX_TERM, MAX_REPLACEMENT, MAX_LABEL = 100, 500, 64
"""Characters of a term, of its replacement, and of the name of a voice or a language."""
MAX_REPLACED = 100_000
"""Characters of a text once its terms are replaced."""
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_KATAKANA = r"[\p{Katakana}ーｰ]"
_LETTER = rf"[[\p{{L}}\p{{M}}\p{{N}}_\u200c\u200d]--[{_UNSPACED}]--{_KATAKANA}]"
_TOKEN = regex.compile(
    rf"(?P<tag></?[A-Za-z!][^<>]{{0,300}}>)|(?P<space>\s+)|(?P<one>[{_UNSPACED}]\p{{M}}*+)"
    rf"|(?P<word>{_KATAKANA}++\p{{M}}*+|{_LETTER}++(?:(?:['’](?![sS](?!{_LETTER}))|(?<=\p{{N}})[.,](?=\p{{N}})){_LETTER}++)*+)"
    rf"|(?P<genitive>(?<={_LETTER})['’][sS](?!{_LETTER}))|(?P<sign>.)",
    regex.V1 | regex.DOTALL,
)
"""In scripts without spaces each letter is a word. "don't" and "3.5" are one word, and "SQL's" is "SQL" and its ending."""
_MARKS = regex.compile(r"[\[\]<>\p{C}--[\u200c\u200d\s]]", regex.V1)
"""What a replacement must not have: it could become markup."""


@dataclass(frozen=True)
class Rule:
    """A `term`, and the `replacement` that is spoken for it. Raises RequestError for what cannot be one.

    It holds for whole words: in texts of one `language` (two letters) alone, or of one `voice`, if they are given. A term without capitals is
    found in capitals, too, and one with capitals only as it is written; `case_sensitive` decides instead if it is given.
    """

    term: str
    replacement: str
    language: str | None = None
    voice: str | None = None
    case_sensitive: bool | None = None

    def __post_init__(self) -> None:
        if not 0 < len(self.term) <= MAX_TERM or self.term != self.term.strip() or any("\ud800" <= c <= "\udfff" for c in self.term):
            raise RequestError(f"{self.term[:40]!r} cannot be a term; it has 1 to {MAX_TERM} characters, and no space at its ends", "rules")
        if "<" in self.term or "[" in self.term:
            raise RequestError(f"the term {self.term[:40]!r} has a bracket of markup, < or [", "rules")
        said = self.replacement
        if not 0 < len(said) <= MAX_REPLACEMENT or not any(map(str.isalnum, said)) or _MARKS.search(said):
            raise RequestError(
                f"{said[:40]!r} cannot be spoken for {self.term[:40]!r}; a replacement has 1 to {MAX_REPLACEMENT} characters, "
                "some letter or digit, and no brackets [ ] < >",
                "rules",
            )
        for name, value in (("language", self.language), ("voice", self.voice)):
            if value is not None and not 0 < len(value) <= MAX_LABEL:
                raise RequestError(f"{value[:40]!r} cannot be the {name} of the term {self.term[:40]!r}", "rules")

    @property
    def exact(self) -> bool:
        """Whether capitals and small letters of the term have to be as they are written."""
        return self.term != self.term.lower() if self.case_sensitive is None else self.case_sensitive

    def fields(self) -> dict[str, Any]:
        """The fields that are given, as files and APIs have them."""
        found = {name: getattr(self, name) for name in ("term", "replacement", "language", "voice", "case_sensitive")}
        return {name: value for name, value in found.items() if value is not None}


class Place(NamedTuple):
    """Characters `begin` to `end` of a text that are spoken for the characters `start` to `stop` of the text as sent."""

    begin: int
    end: int
    start: int
    stop: int


@dataclass(frozen=True)
class Pronounced:
    """A text in which terms are replaced, and where, in order."""

    text: str
    places: tuple[Place, ...] = ()

    def as_sent(self, sent: str, lines: Sequence[SpokenLine]) -> list[SpokenLine]:
        """The lines of this text with the words of the text as it was sent. Words that stand for one term become one, in the first line of them."""
        if not self.places:
            return list(lines)
        found: list[list[SpokenWord]] = [[] for _ in lines]
        at = -1
        for number, line in enumerate(lines):
            for word in line.words:
                start, stop = self._start(word.start_char), self._stop(word.end_char)
                last = found[at][-1] if at >= 0 else None
                if last is None or start >= last.end_char:
                    found[number].append(word._replace(text=sent[start:stop], start_char=start, end_char=stop))
                    at = number
                    continue
                stop = max(stop, last.end_char)
                end = word.end if at == number else last.end  # the words of one term may be cut in two lines
                text, spoken = sent[last.start_char : stop], last.spoken + word.spoken
                found[at][-1] = last._replace(text=text, end_char=stop, end=end, spoken=spoken)
        return [SpokenLine(line.text, tuple(words)) for line, words in zip(lines, found, strict=True)]

    def _start(self, at: int) -> int:
        """Where in the text as sent something begins that begins at `at` here."""
        number = bisect_right(self.places, at, key=lambda place: place.begin) - 1
        if number < 0:
            return at
        place = self.places[number]
        return place.start if at < place.end else at - place.end + place.stop

    def _stop(self, at: int) -> int:
        """Where in the text as sent something ends that ends before `at` here."""
        number = bisect_left(self.places, at, key=lambda place: place.begin) - 1
        if number < 0:
            return at
        place = self.places[number]
        return place.stop if at <= place.end else at - place.end + place.stop


class _Token(NamedTuple):
    start: int
    end: int
    kind: str
    key: str


@dataclass(frozen=True)
class Pronunciations:
    """Rules, of which the first one counts that fits a term, and one for a language or a voice before one for all."""

    rules: tuple[Rule, ...] = ()

    def __add__(self, other: Pronunciations) -> Pronunciations:
        return Pronunciations(self.rules + other.rules)

    def applied(self, text: str, otherwise: str, voice: str) -> Pronounced:
        """`text` with its terms replaced, for a voice. `otherwise` is the language of a sentence that shows none.

        The longest term goes first, from left to right, and what was replaced is not looked at again. Tags stay as they are. Raises
        RequestError when the text becomes too long.
        """
        if not self.rules:
            return Pronounced(text)
        tokens = list(_tokens(text))
        tree, languages = _tree(self.rules), _Languages(text, otherwise) if any(rule.language for rule in self.rules) else None
        parts: list[str] = []
        places: list[Place] = []
        copied = length = number = 0
        while number < len(tokens):
            found = self._longest(text, tokens, number, tree, languages, voice)
            if found is None:
                number += 1
                continue
            rule, after = found
            start, stop = tokens[number].start, tokens[after - 1].end
            said = " ".join(rule.replacement.split())
            begin = length + start - copied
            parts += [text[copied:start], said]
            copied, length, number = stop, begin + len(said), after
            places.append(Place(begin, length, start, stop))
            if length > MAX_REPLACED:
                raise RequestError(
                    f"with its pronunciations the text has more than {MAX_REPLACED:,} characters, as many as are spoken in one request",
                    "text",
                )
        return Pronounced("".join([*parts, text[copied:]]), tuple(places))

    def _longest(
        self, text: str, tokens: list[_Token], number: int, tree: dict[Any, Any], languages: _Languages | None, voice: str
    ) -> tuple[Rule, int] | None:
        """The rule of the longest term that begins with a token, and the number of the token behind it."""
        if tokens[number].kind == "sign" and number and tokens[number - 1].kind in _WITHIN:
            return None  # ".NET" in "ASP.NET"
        found: tuple[Rule, int] | None = None
        at = number
        while at < len(tokens) and (below := tree.get(tokens[at].key)) is not None:
            tree, at = below, at + 1
            ends = tokens[at - 1].kind != "sign" or at == len(tokens) or tokens[at].kind not in _WITHIN
            if ends and None in tree:
                written = _spaced(text[tokens[number].start : tokens[at - 1].end])
                shown = languages and languages.at(tokens[number].start)
                asked = product((voice, None), (shown, None), (written, None))
                found = next(((rule, at) for keys in asked if (rule := tree[None].get(keys))), found)
        return found


_WITHIN = ("word", "genitive")


class _Languages:
    """The language of each sentence of a text, found once it is asked for."""

    def __init__(self, text: str, otherwise: str) -> None:
        self._text, self._otherwise = text, otherwise
        self._ends: list[int] = []
        self._names: list[str] = []

    def at(self, place: int) -> str:
        """The language of the sentence at a place."""
        if not self._ends:
            end, name = 0, self._otherwise
            for sentence in sentences(self._text):
                end, name = end + len(sentence), language(sentence, name)
                self._ends.append(end)
                self._names.append(name)
        return self._names[bisect_right(self._ends, place)]


def _tokens(text: str) -> Iterator[_Token]:
    for m in _TOKEN.finditer(text):
        kind = str(m.lastgroup)
        yield _Token(m.start(), m.end(), kind, " " if kind == "space" else "" if kind == "tag" else _key(m[0]))


@lru_cache(16)
def _tree(rules: tuple[Rule, ...]) -> dict[Any, Any]:
    """The terms as nested dictionaries, from word to word; None leads to the rules of a term that ends there.

    These are found by voice, language, and how the term is written, each of which may be None, for any.
    """
    root: dict[Any, Any] = {}
    for rule in rules:
        node = root
        for token in _tokens(rule.term):
            node = node.setdefault(token.key, {})
        node.setdefault(None, {}).setdefault((rule.voice, rule.language, _spaced(rule.term) if rule.exact else None), rule)
    return root


def _key(text: str) -> str:
    return _normal(_normal(text).casefold()).replace("’", "'")


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _spaced(text: str) -> str:
    return " ".join(_normal(text).replace("’", "'").split())


def rules_from(given: Any) -> tuple[Rule, ...]:
    """The rules in a list of objects, as files have them. Raises RequestError."""
    if not isinstance(given, list) or not all(isinstance(rule, dict) for rule in given):
        raise RequestError('rules are a list of objects such as {"term": "SQL", "replacement": "sequel"}', "rules")
    rules = []
    for rule in given:
        if wrong := next((name for name in rule if name not in Rule.__dataclass_fields__), None):
            raise RequestError(
                f"{str(wrong)[:40]!r} is not a field of a rule; its fields are {', '.join(Rule.__dataclass_fields__)}", "rules"
            )
        for name in ("term", "replacement", "language", "voice"):
            if not isinstance(rule.get(name), str) and (name in ("term", "replacement") or rule.get(name) is not None):
                raise RequestError(f"a rule has no {name}, or one that is no text", "rules")
        if not isinstance(rule.get("case_sensitive"), bool | None):
            raise RequestError("case_sensitive of a rule is neither true nor false", "rules")
        rules.append(Rule(**rule))
    return checked(rules)


def checked(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """The rules of one dictionary. Raises RequestError when there are too many."""
    found = tuple(rules)
    if len(found) > MAX_RULES:
        raise RequestError(f"there are {len(found):,} rules; a dictionary has at most {MAX_RULES:,}", "rules")
    return found

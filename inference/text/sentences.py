"""Finds sentence ends in any script: Unicode's terminator classes, and exceptions such as abbreviations."""

from __future__ import annotations

import regex

_MARKS = regex.compile(
    r"""([\p{Sentence_Break=STerm}\p{Sentence_Break=ATerm}…\u037e]++) (?:[\p{Pe}\p{Pf}"']|“(?=\s|\Z)|[\x20\u00a0\u202f]»)*+ (\s*+) | \n\s*\n\s*""",
    regex.VERBOSE,
)
_FULL = regex.compile(r"[\p{Sentence_Break=STerm}\u037e]")
_LAST_WORD = regex.compile(r"[\p{L}\p{M}.]+\Z|(?<!\w)\d{1,2}\Z")
_ORDINAL = regex.compile(
    r"\b(?:der|die|das|den|dem|des|am|vom|zum|zur|beim|im|(?:[mds]?ein|kein|ihr|unser|jed|dies)(?:e[nmrs]?)?)\s\d{1,2}\Z", regex.IGNORECASE
)
"""German: "der 2. Weltkrieg"."""
_INITIALS = regex.compile(r"(?:\p{Lu}\.)+\p{Lu}|(\p{Lu})\1")
"""J.R.R., and Spanish plurals such as EE. UU."""
_OPENER = regex.compile(
    r"(?:The|A|An|I|You|He|She|It|We|They|This|That|These|There|But|And|So|In|On|At|My|His|Her|Our|Its|El|La|Los|Las|Es)\b"
)
"""Words that begin a sentence and no name."""
_MONTH = regex.compile(r"(?:Jan|Feb|Mär|Apr|Mai|Jun|Jul|Aug|Sep|Okt|Nov|Dez)")
_ABBREVIATIONS = frozenset(
    """
    mr mrs ms dr prof rev gen gov sen rep sgt capt lt col st ft jr sr sec ch vs e.g i.e approx dept est fig no vol pp ed al inc ltd co corp ave blvd rd mt
    jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri sat sun a.m p.m u.s
    z.b d.h u.a bzw ca evtl ggf nr str usw vgl hr fr m mme mlle ex env p.ex sra srta dra ud uds pág núm sig sig.ra dott ecc pag
    exmo bijv d.w.z dhr mevr np m.in tzw ul т.е т.д т.п г ул им
    mio mrd std tel inkl bzgl apr janv févr juil déc mm avda dña sres págs avv ing dott.ssa sig.na dra bv o.a m.b.t blz tzn ok godz al тыс руб
    напр см просп стр гг د
    проф акад доц св пл кв корп гл ст табл обл вв ок św inż mgr ks im pl hab
    """.split()  # noqa: SIM905 - a list of so many strings is harder to read
)
"""In lower case, without the last full stop."""
_BEFORE_NUMBERS = frozenset(["no", "art", "tab", "rys", "poz", "ust", "рис", "тел"])
"""Those that are words, too, and abbreviations only before a number."""


def sentences(text: str) -> list[str]:
    """`text` cut after each sentence, including its closing quotes and the white space after it; joined, the parts are the text.

    A full stop ends a sentence only before white space, but not after an abbreviation or an initial, nor before a lower-case letter.
    """
    parts, start = [], 0
    for found in _MARKS.finditer(text):
        if found.end() < len(text) and _ends(text, found):
            parts.append(text[start : found.end()])
            start = found.end()
    return [*parts, text[start:]] if start < len(text) else parts


def _ends(text: str, found: regex.Match[str]) -> bool:
    marks, space = found[1], found[2]
    if marks is None:  # an empty line
        return True
    continued = bool(space) and text[found.end()].islower()
    if not marks.isascii() and _FULL.search(marks):
        return not continued
    return bool(space) and not continued and not (marks == "." and _abbreviates(text, found.start(), found.end()))


def _abbreviates(text: str, point: int, behind: int) -> bool:
    """Whether the full stop at `point` belongs to the word before it."""
    last = _LAST_WORD.search(text, max(0, point - 12), point)
    word = last[0] if last else ""
    if word.isdigit():  # "am 3. Oktober"
        return _MONTH.match(text, behind) is not None or _ORDINAL.search(text, max(0, point - 12), point) is not None
    if word.lower() in _BEFORE_NUMBERS:  # "No. 5", but "I said no. He left."
        return text[behind : behind + 1].isdigit()
    initial = len(word) == 1 and word != "I" and word != word.swapcase()
    initials = _INITIALS.fullmatch(word) is not None and _OPENER.match(text, behind) is None
    return initial or initials or word.lower() in _ABBREVIATIONS

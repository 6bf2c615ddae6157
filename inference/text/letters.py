"""Letters as a small English model can read them: styled letters become plain ones, acronyms the names of their letters."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

import regex

_INVISIBLE = "\u00ad\u200b\u200c\u200d\u2060\ufeff\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_STYLES = ("<font>", "<wide>", "<narrow>", "<noBreak>", "<compat>", "<circle>")
_STYLED = regex.compile(r"[^\x00-\x7f]")
_NAMES = dict(
    zip(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        "ay bee see dee ee eff gee aitch eye jay kay ell em en oh pee cue are ess tee you vee doubleyou ex why zee".split(),  # noqa: SIM905
        strict=True,
    )
)


def plain_letters(text: str) -> str:
    """`text` with bold, fullwidth and circled letters and digits and ligatures in plain form, and without invisible characters.

    Superscripts, fractions and signs stay as they are: they do not mean the plain digit.
    """
    return _STYLED.sub(lambda m: _plain(m[0]), text)


@lru_cache(4096)
def _plain(character: str) -> str:
    if character in _INVISIBLE:
        return ""
    if unicodedata.decomposition(character).split(" ")[0] not in _STYLES:
        return character
    folded = unicodedata.normalize("NFKC", character)
    return folded if folded.isascii() and (folded.isalnum() or folded == " " or character >= "\uff00") else character


_APOSTROPHE = "['’]"
_DOTTED = regex.compile(r"(?<![\w.])(?:[A-Z]\.){2,}(?!\w)")
_INITIAL = regex.compile(r"(?<![\w.'’])([A-Z])\. (?=([A-Z][\w'’]*))")
_CAPITALS = regex.compile(rf"(?<![\w'’])[A-Z]+(?:(?<=[A-Z]{{2}}){_APOSTROPHE}?s|{_APOSTROPHE}[A-Z]+)?(?![\w'’])")
_RUN = regex.compile(rf"{_CAPITALS.pattern}(?:[^\w\n.!?]+{_CAPITALS.pattern})+")
_HUM = regex.compile(r"\b([Hh])[Mm]+\b")
_SENTENCE_START = regex.compile(r"(?:\A|[.!?…:\n])[\s\p{Ps}\p{Pi}\"']*\Z")
_WORDS = frozenset(
    """
    all am an and any are as at bad be big but by can day did do end far few for get go got had has he her hey hi him his hot how if in
    is its just let may me my new no not now of off oh old on one only open or our out own per put red run say see set she so stop the
    them then there they this to too top try two up use very wait was way we well what when where which who why will with yes yet you your
    """.split()  # noqa: SIM905 - a list of so many strings is harder to read
)
"""In capitals these are still words, even amid lower-case text; "US" and "IT" are not."""
_SPOKEN = frozenset("aids asap fifa laser nasa nato okay opec pin radar ram rom scuba sim unesco unicef".split())  # noqa: SIM905
_RESPELLED = {"ok": "okay", "nasa": "nassa"}
_START = regex.compile(r"(?:[bcdfghjklmnpqrstvwxz]|[bcfgps]l|[bcdfgptw]r|s[ckmnptw]|[ct]h|sh|wh|th|[dt]w|qu|s[cpt]r|spl|kn|wr|ph)?[aeiouy]")


def speakable_words(text: str) -> str:
    """`text` with all-capital words put in lower case, and with acronyms and single letters spelled as letter names.

    Adjacent words in capitals are read as words if they can be pronounced. "Hmm" becomes "hum", which has a vowel.
    """
    text = _HUM.sub(lambda m: m[1] + "um", text)
    text = _INITIAL.sub(_initial, text)
    text = _DOTTED.sub(_dotted, text)
    text = _RUN.sub(_shouted, text)
    return _CAPITALS.sub(lambda m: _word(m, shouted=False), text)


def spell(letters: str) -> str:
    """The names of the letters A to Z, one after the other."""
    return " ".join(_NAMES[letter] for letter in letters)


def _initial(m: regex.Match[str]) -> str:
    """Remove the full stop of an initial, but keep the one in "Plan B. The next step"."""
    return m[0] if m[1] == "I" or m[2] == "I" or m[2].lower() in _WORDS else spell(m[1]) + " "


def _dotted(m: regex.Match[str]) -> str:
    ends = not m.string[m.end() :].strip()
    return spell(m[0].replace(".", "")) + "." * ends


def _shouted(run: regex.Match[str]) -> str:
    words = regex.findall(r"[A-Z]{2,}", run[0])
    shouted = any(w.lower() in _WORDS or (len(w) > 3 and w.lower() not in _SPOKEN and _pronounceable(w)) for w in words)
    before = run.string[: run.start()][-20:]
    return _CAPITALS.sub(lambda m: _word(m, shouted=True, before=before), run[0]) if shouted else run[0]


def _word(m: regex.Match[str], *, shouted: bool, before: str = "") -> str:
    capitals = regex.match(r"[A-Z]+", m[0])[0]
    small, ending = capitals.lower(), m[0][len(capitals) :]
    opens = _SENTENCE_START.search(before + m.string[: m.start()][-20:]) is not None
    if len(capitals) == 1:
        return _single(m, shouted) + ending.lower()
    if small in _RESPELLED:
        small = _RESPELLED[small]
    elif not (small in _WORDS or small in _SPOKEN or ending[1:].isupper() or (_pronounceable(capitals) and (shouted or len(small) > 3))):
        return spell(capitals) + ending
    return (small.capitalize() if opens else small) + ending.lower()


def _single(m: regex.Match[str], shouted: bool) -> str:
    """Read a single letter: "I" and the article "a" are words; other letters become their names."""
    if m[0][0] == "I":
        return "I"
    if m[0] == "A" and (m.string[m.end() : m.end() + 1] == " " or shouted):
        return "a" if shouted and m.start() else "A"
    return spell(m[0][0])


def _pronounceable(capitals: str) -> bool:
    return _START.match(capitals.lower()) is not None and regex.search(r"[^AEIOUY]{4}", capitals) is None

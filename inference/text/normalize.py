"""Expands English numbers, money, dates, times, units and abbreviations into words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache

from num2words import num2words

_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
_SHORT_MONTHS = {"Jan": 0, "Feb": 1, "Mar": 2, "Apr": 3, "Jun": 5, "Jul": 6, "Aug": 7, "Sept": 8, "Sep": 8, "Oct": 9, "Nov": 10, "Dec": 11}
_TITLES = {"Mr": "Mister", "Mrs": "Missus", "Dr": "Doctor", "St": "Saint"}
_POINTED_TITLES = {"Prof.": "Professor", "Capt.": "Captain", "Gen.": "General", "Sgt.": "Sergeant", "Rev.": "Reverend"}
_ABBREVIATIONS = {
    "vs.": "versus",
    "etc.": "et cetera",
    "e.g.": "for example",
    "i.e.": "that is",
    "approx.": "approximately",
    "Jr.": "Junior",
    "Sr.": "Senior",
    "Ave.": "Avenue",
    "Blvd.": "Boulevard",
    "Rd.": "Road",
    "Inc.": "Incorporated",
    "Ltd.": "Limited",
    "Co.": "Company",
    "dept.": "department",
}
_CLOSING = {"etc.", "Inc.", "Ltd.", "Ave.", "Rd.", "Blvd."}
"""After these a capital letter begins a new sentence."""
_UNITS = {
    "km/h": ("kilometer per hour", "kilometers per hour"),
    "mph": ("mile per hour", "miles per hour"),
    "km": ("kilometer", "kilometers"),
    "cm": ("centimeter", "centimeters"),
    "mm": ("millimeter", "millimeters"),
    "m": ("meter", "meters"),
    "kg": ("kilogram", "kilograms"),
    "mg": ("milligram", "milligrams"),
    "g": ("gram", "grams"),
    "lb": ("pound", "pounds"),
    "lbs": ("pound", "pounds"),
    "oz": ("ounce", "ounces"),
    "ft": ("foot", "feet"),
    "ml": ("milliliter", "milliliters"),
    "L": ("liter", "liters"),
    "hrs": ("hour", "hours"),
    "min": ("minute", "minutes"),
    "sec": ("second", "seconds"),
    "ms": ("millisecond", "milliseconds"),
    "KB": ("kilobyte", "kilobytes"),
    "MB": ("megabyte", "megabytes"),
    "GB": ("gigabyte", "gigabytes"),
    "TB": ("terabyte", "terabytes"),
    "Hz": ("hertz", "hertz"),
    "kHz": ("kilohertz", "kilohertz"),
    "MHz": ("megahertz", "megahertz"),
    "GHz": ("gigahertz", "gigahertz"),
    "°C": ("degree Celsius", "degrees Celsius"),
    "°F": ("degree Fahrenheit", "degrees Fahrenheit"),
    "°": ("degree", "degrees"),
}
_CURRENCIES = {
    "$": (("dollar", "dollars"), ("cent", "cents")),
    "€": (("euro", "euros"), ("cent", "cents")),
    "£": (("pound", "pounds"), ("penny", "pence")),
    "¥": (("yen", "yen"), ("sen", "sen")),
}
_SCALES = {"k": "thousand", "m": "million", "b": "billion", "bn": "billion"}
_SYMBOLS = {"&": "and", "@": "at", "=": "equals", "+": "plus", "%": "percent"}
_DENOMINATORS = {2: ("half", "halves"), 4: ("quarter", "quarters")}
_LONGEST = 15
"""Digits: a longer number is an identifier and is read digit by digit."""

Said = Callable[[re.Match[str]], str]


def _any(words: Iterable[str]) -> str:
    return "|".join(re.escape(w) for w in sorted(words, key=len, reverse=True))


_NUMBER = r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?"
_SIGN = r"[$€£¥]"
_MONTH = _any((*_MONTHS, *_SHORT_MONTHS))
_DAY = r"(?:0?[1-9]|[12][0-9]|3[01])"


def normalize(text: str) -> str:
    """`text` with digits and signs spelled out as English words, separated from their neighbours by spaces.

    No ASCII digit is left. Anything without a reading stays as it is.
    """
    for pattern, said in _RULES:
        text = pattern.sub(_apart(said), text)
    return text


def _apart(said: Said) -> Said:
    def spaced(m: re.Match[str]) -> str:
        words, before, after = said(m), m.string[max(0, m.start() - 1) : m.start()], m.string[m.end() : m.end() + 1]
        return " " * (before.isalnum() and words[:1].isalnum()) + words + " " * (words[-1:].isalnum() and after.isalnum())

    return spaced


def _cardinal(digits: str) -> str:
    """`12,345.60` -> twelve thousand three hundred forty-five point six zero."""
    whole, _, decimals = digits.replace(",", "").partition(".")
    if len(whole) > _LONGEST or (len(whole) > 1 and whole[0] == "0"):
        said = _digits(whole)
    else:
        said = _words(int(whole))
    return f"{said} point {_digits(decimals)}" if decimals else said


@lru_cache(4096)
def _words(n: int, to: str = "cardinal") -> str:
    return str(num2words(n, to=to)).replace(",", "").replace(" and ", " ").replace("oh-", "oh ")


def _digits(digits: str) -> str:
    return " ".join(_words(int(d)) for d in digits)


def _year(digits: str) -> str:
    return _words(int(digits), "year")


def _month(name: str) -> str:
    return _MONTHS[_SHORT_MONTHS[name]] if name in _SHORT_MONTHS else name


def _date(year: str, month: str, day: str) -> str | None:
    if not (1 <= int(month) <= 12 and 1 <= int(day) <= 31):
        return None
    return f"{_MONTHS[int(month) - 1]} {_words(int(day), 'ordinal')}, {_year(year)}"


def _clock(m: re.Match[str]) -> str:
    hour, minute = int(m["hour"]), int(m["minute"])
    half = f" and {_words(int(m['second']))} seconds" if m["second"] else ""
    half += f" {m['half'].lower()}.m." if m["half"] else ""
    if hour > 24 or minute > 59:
        return m[0]
    if minute == 0:
        said = _words(hour) if half else f"{_words(hour)} o'clock" if hour <= 12 else f"{_words(hour)} hundred"
    else:
        said = f"{_words(hour)} {'oh ' if minute < 10 else ''}{_words(minute)}"
    return said + half


def _money(m: re.Match[str]) -> str:
    (unit, units), (part, parts) = _CURRENCIES[m["sign"]]
    amount = m["amount"].replace(",", "")
    if m["scale"]:
        scale = m["scale"].lower()
        return f"{_cardinal(amount)} {_SCALES.get(scale, scale)} {units}"
    whole, _, cents = amount.partition(".")
    if len(cents) not in (0, 2):
        return f"{_cardinal(amount)} {units}"
    said = [] if not whole.strip("0") and int(cents or 0) else [f"{_cardinal(whole)} {unit if whole == '1' else units}"]
    if int(cents or 0):
        said.append(f"{_words(int(cents))} {part if int(cents) == 1 else parts}")
    return " and ".join(said)


def _fraction(m: re.Match[str]) -> str:
    over, under = int(m[1]), int(m[2])
    if not 0 < over < under <= 20:
        return f"{_cardinal(m[1])} {'slash ' if over <= under else ''}{_cardinal(m[2])}"
    one, many = _DENOMINATORS.get(under, (_words(under, "ordinal"), _words(under, "ordinal") + "s"))
    return f"{_words(over)} {one if over == 1 else many}"


def _decade(m: re.Match[str]) -> str:
    said = _year(m[1]) if len(m[1]) == 4 else _words(int(m[1]))
    return said[:-1] + "ies" if said.endswith("y") else said + "s"


def _abbreviation(m: re.Match[str]) -> str:
    rest = m.string[m.end() : m.end() + 2]
    ends = not rest.strip() or (m[1] in _CLOSING and rest[0] == " " and rest[1:].isupper())
    return _ABBREVIATIONS[m[1]] + "." * ends


def _rule(pattern: str, said: Said) -> tuple[re.Pattern[str], Said]:
    return re.compile(pattern), said


_RULES = [
    _rule(rf"\b({_any(_TITLES)})(?:\. (?=[A-Z])| (?=[A-Z][a-z]))", lambda m: _TITLES[m[1]] + " "),
    _rule(rf"\b({_any(_POINTED_TITLES)}) (?=[A-Z])", lambda m: _POINTED_TITLES[m[1]] + " "),
    _rule(rf"(?<![\w.])({_any(_ABBREVIATIONS)})(?!\w)", _abbreviation),
    _rule(r"\bNo\. ?(?=[0-9])|#(?=[0-9])", lambda _: "number "),
    _rule(r"\b([0-9]{4})-([0-9]{2})-([0-9]{2})\b", lambda m: _date(m[1], m[2], m[3]) or m[0]),
    _rule(r"\b([0-9]{1,2})/([0-9]{1,2})/([0-9]{4})\b", lambda m: _date(m[3], m[1], m[2]) or m[0]),
    _rule(r"\b(?:[0-9]{3}-)?[0-9]{3}-[0-9]{4}\b", lambda m: ", ".join(_digits(part) for part in m[0].split("-"))),
    _rule(rf"(?:(?<=[0-9%°])|(?<=°[CF])) ?[-–] ?(?={_SIGN}?[0-9])", lambda _: " to "),
    _rule(rf"(?<![\w.,)%°-])[-−](?={_SIGN}?[0-9])", lambda _: "minus "),
    _rule(rf"\b({_MONTH})\.? ({_DAY})(?:st|nd|rd|th)?\b(?![:.,]?[0-9])", lambda m: f"{_month(m[1])} {_words(int(m[2]), 'ordinal')}"),
    _rule(
        rf"(?<![\w.,:/$€£¥])(?:the )?({_DAY})(?:st|nd|rd|th)? (?:of )?({_MONTH})\b",
        lambda m: f"the {_words(int(m[1]), 'ordinal')} of {_month(m[2])}",
    ),
    _rule(
        r"\b(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2}))?(?: ?(?P<half>[AaPp])\.?[Mm]\b\.?)?(?![0-9])",
        _clock,
    ),
    _rule(r"(?<![\w.,])([0-9]{1,2}) ?([AaPp])\.?[Mm]\b\.?", lambda m: f"{_words(int(m[1]))} {m[2].lower()}.m."),
    _rule(
        rf"(?:\bUS)?(?P<sign>{_SIGN}) ?(?P<amount>{_NUMBER})(?: ?(?P<scale>(?i:thousand|million|billion|trillion)|[kKmMbB]|bn)\b)?", _money
    ),
    _rule(rf"(?<![\w.,])({_NUMBER}) ?€", lambda m: f"{_cardinal(m[1])} euro{'s' * (m[1] != '1')}"),
    _rule(rf"(?<![\w.,])({_NUMBER}) ?({_any(_UNITS)})(?!\w)", lambda m: f"{_cardinal(m[1])} {_UNITS[m[2]][m[1] != '1']}"),
    _rule(r"(?<![\w./])([0-9]{1,3})/([0-9]{1,3})(?![\w/])", _fraction),
    _rule(r"(?<![\w.,])'?([0-9]{2}|[12][0-9]{3})'?s\b", _decade),
    _rule(r"\b([0-9]+)(?:st|nd|rd|th)\b", lambda m: _words(int(m[1]), "ordinal") if len(m[1]) <= _LONGEST else _digits(m[1])),
    _rule(r"(?<![\w.,])(1[1-9][0-9]{2}|20[0-9]{2})(?![\w,]?[0-9]|\.[0-9]|[A-Za-z])", lambda m: _year(m[1])),
    _rule(_NUMBER, lambda m: _cardinal(m[0])),
    _rule(r" ?([&@=+%]) ?", lambda m: f" {_SYMBOLS[m[1]]} "),
    _rule(r" {2,}", lambda _: " "),
    _rule(r" (?=[.,;:!?](?:\s|$))| $", lambda _: ""),
]
"""In the order of application: rules that look at more of their surroundings come first."""

"""Writes English numbers, money, dates, times, units and abbreviations out as the words one would say."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

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
_TITLES = {"Mr": "Mister", "Mrs": "Missus", "Dr": "Doctor", "Prof": "Professor", "St": "Saint", "Capt": "Captain", "Gen": "General"}
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
_SYMBOLS = {"&": "and", "@": "at", "=": "equals", "+": "plus", "%": "percent"}
_DENOMINATORS = {2: ("half", "halves"), 4: ("quarter", "quarters")}
_LONGEST = 15
"""Digits: a longer number is an identifier and is read digit by digit."""


def _any(words: Iterable[str]) -> str:
    return "|".join(re.escape(w) for w in sorted(words, key=len, reverse=True))


_NUMBER = r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?"
_MINUS = r"(?<![\w.,)-])-(?=[0-9])"
_MONTH = _any((*_MONTHS, *_SHORT_MONTHS))


def normalize(text: str) -> str:
    """`text` with everything written in digits or signs spelled out in English, one space around what was added.

    No ASCII digit is left. What has no reading is left as it is.
    """
    for pattern, said in _RULES:
        text = pattern.sub(said, text)
    return text


def _cardinal(digits: str) -> str:
    """`12,345.60` -> twelve thousand three hundred forty-five point six zero."""
    whole, _, decimals = digits.replace(",", "").partition(".")
    if len(whole) > _LONGEST or (len(whole) > 1 and whole[0] == "0"):
        said = _digits(whole)
    else:
        said = _words(int(whole))
    return f"{said} point {_digits(decimals)}" if decimals else said


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
    half = f" {m['half'].lower()}.m." if m["half"] else ""
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
        return f"{_cardinal(amount)} {m['scale'].lower()} {units}"
    whole, _, cents = amount.partition(".")
    if len(cents) not in (0, 2):
        return f"{_cardinal(amount)} {units}"
    said = [] if int(whole) == 0 and int(cents or 0) else [f"{_cardinal(whole)} {unit if whole == '1' else units}"]
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


Said = Callable[[re.Match[str]], str]


def _rule(pattern: str, said: Said) -> tuple[re.Pattern[str], Said]:
    return re.compile(pattern), said


_RULES = [
    _rule(rf"\b({_any(_TITLES)})\.? (?=[A-Z])", lambda m: _TITLES[m[1]] + " "),
    _rule(rf"(?<![\w.])({_any(_ABBREVIATIONS)})(?!\w)", lambda m: _ABBREVIATIONS[m[1]]),
    _rule(r"\bNo\. ?(?=[0-9])|#(?=[0-9])", lambda _: "number "),
    _rule(r"\b([0-9]{4})-([0-9]{2})-([0-9]{2})\b", lambda m: _date(m[1], m[2], m[3]) or m[0]),
    _rule(r"\b([0-9]{1,2})/([0-9]{1,2})/([0-9]{4})\b", lambda m: _date(m[3], m[1], m[2]) or m[0]),
    _rule(rf"\b({_MONTH})\.? ([0-9]{{1,2}})(?:st|nd|rd|th)?\b(?![:.,]?[0-9])", lambda m: f"{_month(m[1])} {_words(int(m[2]), 'ordinal')}"),
    _rule(
        rf"\b(?:the )?([0-9]{{1,2}})(?:st|nd|rd|th)? (?:of )?({_MONTH})\b",
        lambda m: f"the {_words(int(m[1]), 'ordinal')} of {_month(m[2])}",
    ),
    _rule(r"\b(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})(?::[0-9]{2})?(?: ?(?P<half>[AaPp])\.?[Mm]\b\.?)?(?![0-9])", _clock),
    _rule(r"\b([0-9]{1,2}) ?([AaPp])\.?[Mm]\b\.?", lambda m: f"{_words(int(m[1]))} {m[2].lower()}.m."),
    _rule(rf"(?P<sign>[$€£¥]) ?(?P<amount>{_NUMBER})(?: (?P<scale>thousand|million|billion|trillion)\b)?", _money),
    _rule(_MINUS, lambda _: "minus "),
    _rule(rf"(?<![\w.,])({_NUMBER}) ?({_any(_UNITS)})(?!\w)", lambda m: f"{_cardinal(m[1])} {_UNITS[m[2]][m[1] != '1']}"),
    _rule(r"\b(?:[0-9]{3}-)?[0-9]{3}-[0-9]{4}\b", lambda m: ", ".join(_digits(part) for part in m[0].split("-"))),
    _rule(r"(?<![\w./])([0-9]{1,3})/([0-9]{1,3})(?![\w/])", _fraction),
    _rule(r"(?<!\w)['’]?([0-9]{2}|[12][0-9]{3})['’]?s\b", _decade),
    _rule(r"\b([0-9]+)(?:st|nd|rd|th)\b", lambda m: _words(int(m[1]), "ordinal") if len(m[1]) <= _LONGEST else _digits(m[1])),
    _rule(r"(?<=[0-9])\s?[-–]\s?(?=[0-9])", lambda _: " to "),
    _rule(r"(?<![\w.,])(1[1-9][0-9]{2}|20[0-9]{2})(?![\w,]?[0-9]|\.[0-9]|[A-Za-z])", lambda m: _year(m[1])),
    _rule(r"(?<=[A-Za-z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])", lambda _: " "),
    _rule(_NUMBER, lambda m: _cardinal(m[0])),
    _rule(r" ?([&@=+%]) ?", lambda m: f" {_SYMBOLS[m[1]]} "),
    _rule(r" {2,}| (?=[.,;:!?](?:\s|$))| $", lambda m: " " if len(m[0]) > 1 else ""),
]
"""In the order in which they are tried: what looks at more of its surroundings comes first."""

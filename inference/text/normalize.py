"""Expands numbers, money, dates, times and units into words; the rules here are English's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache

from num2words import num2words

from inference.text.language import ENGLISH, language
from inference.text.sentences import sentences

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
    "h": ("hour", "hours"),
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
    "mi": ("mile", "miles"),
    "yd": ("yard", "yards"),
    "nm": ("nanometer", "nanometers"),
    "µm": ("micrometer", "micrometers"),
    "μm": ("micrometer", "micrometers"),
    "m²": ("square meter", "square meters"),
    "km²": ("square kilometer", "square kilometers"),
    "m³": ("cubic meter", "cubic meters"),
    "m/s": ("meter per second", "meters per second"),
    "V": ("volt", "volts"),
    "W": ("watt", "watts"),
    "kW": ("kilowatt", "kilowatts"),
    "Wh": ("watt hour", "watt hours"),
    "kWh": ("kilowatt hour", "kilowatt hours"),
    "Mbps": ("megabit per second", "megabits per second"),
    "Gbps": ("gigabit per second", "gigabits per second"),
    "°C": ("degree Celsius", "degrees Celsius"),
    "°F": ("degree Fahrenheit", "degrees Fahrenheit"),
    "°": ("degree", "degrees"),
}
_CURRENCIES = {
    "$": (("dollar", "dollars"), ("cent", "cents")),
    "€": (("euro", "euros"), ("cent", "cents")),
    "£": (("pound", "pounds"), ("penny", "pence")),
    "¥": (("yen", "yen"), ("sen", "sen")),
    "₹": (("rupee", "rupees"), ("paisa", "paise")),
    "₩": (("won", "won"), ("jeon", "jeon")),
}
_CODES = {
    "USD": "US dollar", "CAD": "Canadian dollar", "AUD": "Australian dollar", "EUR": "euro", "GBP": "British pound", "CHF": "Swiss franc",
    "INR": "Indian rupee",
}  # fmt: skip
"""Three letters that stand before or behind an amount."""
_DOLLARS = {
    "US": "",
    "A": "Australian ",
    "AU": "Australian ",
    "C": "Canadian ",
    "CA": "Canadian ",
    "NZ": "New Zealand ",
    "HK": "Hong Kong ",
}
_SCALES = {"k": "thousand", "m": "million", "b": "billion", "bn": "billion"}
_SYMBOLS = {
    "&": "and", "@": "at", "=": "equals", "+": "plus", "%": "percent", "×": "times", "÷": "divided by", "±": "plus or minus",
    "≤": "is at most", "≥": "is at least", "≠": "is not", "≈": "is about", "√": "the square root of", "π": "pi", "²": "squared", "^": "to the power of", "³": "cubed",
}  # fmt: skip
_VULGAR = {"½": (1, 2), "⅓": (1, 3), "⅔": (2, 3), "¼": (1, 4), "¾": (3, 4), "⅕": (1, 5), "⅛": (1, 8), "⅜": (3, 8), "⅝": (5, 8), "⅞": (7, 8)}
_ROMANS = {r: n for n, r in enumerate("II III IV V VI VII VIII IX X XI XII XIII XIV XV XVI XVII XVIII XIX XX".split(), 2)}  # noqa: SIM905 - as above
_RULERS = frozenset(
    """
    Alexander Benedict Catherine Charles Edward Elizabeth Francis Frederick George Gregory Henry Innocent Ivan James John Leo Louis Mary
    Napoleon Nicholas Paul Peter Philip Pius Ramses Richard Thutmose Urban Victor Wilhelm William
    """.split()  # noqa: SIM905 - a list of so many strings is harder to read
)
"""After these a Roman numeral is an ordinal, "Henry the Eighth"; after other names a number, "World War two"."""
_COUNTED = (
    "people|users|views|downloads|customers|followers|subscribers|residents|inhabitants|players|copies|years|dollars|euros|pounds|jobs"
)
"""Before these "10m" is ten million."""
_DENOMINATORS = {2: ("half", "halves"), 4: ("quarter", "quarters")}
_LONGEST = 15
"""Digits: a longer number is an identifier and is read digit by digit."""

Said = Callable[[re.Match[str]], str]


def _any(words: Iterable[str]) -> str:
    return "|".join(re.escape(w) for w in sorted(words, key=len, reverse=True))


_NUMBER = r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?"
_SIGN = r"[$€£¥₹₩]"
_DIGIT = re.compile("[0-9]")
_MONTH = _any((*_MONTHS, *_SHORT_MONTHS))
_DAY = r"(?:0?[1-9]|[12][0-9]|3[01])"


def normalize(text: str, otherwise: str = ENGLISH) -> str:
    """`text` with digits and signs spelled out as words of each sentence's language, separated from their neighbours by spaces.

    A sentence that shows no language has that of the one before it; the first has `otherwise`. No ASCII digit is left. Anything without
    a reading stays as it is.
    """
    said = []
    for sentence in sentences(text):
        otherwise = language(sentence, otherwise)
        body = sentence.rstrip()
        said += [_english(body) if otherwise == ENGLISH else _other(body, otherwise), sentence[len(body) :]]
    return "".join(said).rstrip(" ")


def _english(text: str) -> str:
    numbers = _DIGIT.search(text) is not None
    for pattern, said, of_numbers in _RULES:
        if numbers or not of_numbers:
            text = pattern.sub(said, text)
    return text


def _other(text: str, name: str) -> str:
    from inference.text.normalize_locale import normalize_in  # needs CLDR's data, which most servers never read

    return normalize_in(text, name)


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
    half = f" and {_words(int(m['second']))} seconds" if int(m["second"] or 0) else ""
    half += f" {m['half'].lower()}.m." if m["half"] else ""
    if hour > 24 or minute > 59:
        return m[0]
    if hour == minute == 0 and not half:
        return "midnight"
    if minute == 0:
        said = _words(hour) if half else f"{_words(hour)} o'clock" if hour <= 12 else f"{_words(hour)} hundred"
    else:
        said = f"{_words(hour)} {'oh ' if minute < 10 else ''}{_words(minute)}"
    return said + half


def _money(m: re.Match[str]) -> str:
    (unit, units), (part, parts) = _CURRENCIES[m["sign"]]
    country = _DOLLARS[m["country"] or "US"]
    unit, units = country + unit, country + units
    if m["minus"]:
        return f"minus {_money_words(m, unit, units, part, parts)}"
    return _money_words(m, unit, units, part, parts)


def _money_words(m: re.Match[str], unit: str, units: str, part: str, parts: str) -> str:
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


def _by_digits(m: re.Match[str]) -> str:
    """Numbers whose groups are read digit by digit: phone numbers, ISBNs."""
    plus = "plus " * m[0].startswith("+")
    return plus + ", ".join(_digits(group) for group in re.findall(r"[0-9]+", m[0]))


def _pointed(m: re.Match[str]) -> str:
    """Numbers with several points: a date, an address of the Internet, thousands, or a version."""
    parts = m[1].split(".")
    if len(parts) == 3 and len(parts[2]) == 4 and (date := _date(parts[2], parts[1], parts[0])):
        return date
    if len(parts) == 4 and all(int(p) < 256 and str(int(p)) == p for p in parts):
        return " dot ".join(map(_cardinal, parts)) + (f", port {_cardinal(m[2][1:])}" if m[2] else "")
    port = f":{m[2][1:]}" if m[2] else ""
    if len(parts[0]) <= 3 and all(len(p) == 3 for p in parts[1:]):
        return _cardinal("".join(parts)) + port
    return " point ".join(map(_cardinal, parts)) + port


def _roman(m: re.Match[str]) -> str:
    number = _ROMANS[m[2]]
    return f"{m[1]} the {_words(number, 'ordinal').capitalize()}" if m[1] in _RULERS else f"{m[1]} {_words(number)}"


def _vulgar(m: re.Match[str]) -> str:
    over, under = _VULGAR[m[2]]
    one, many = _DENOMINATORS.get(under, (_words(under, "ordinal"), _words(under, "ordinal") + "s"))
    if not m[1]:
        return f"{_words(over)} {one if over == 1 else many}"
    return f"{_cardinal(m[1])} and {f'a {one}' if over == 1 else f'{_words(over)} {many}'}"


def _street(m: re.Match[str]) -> str:
    rest = m.string[m.end() :][:3].lstrip()
    return f"{m[1]} Street" + "." * (not rest or rest[0].isupper())


def _seconds(m: re.Match[str]) -> str:
    return f"{_cardinal(m[1])} second{'s' * (m[1] != '1')}"


def _decade(m: re.Match[str]) -> str:
    said = _year(m[2]) if m[2] else _words(int(m[1]))
    return said[:-1] + "ies" if said.endswith("y") else said + "s"


def _abbreviation(m: re.Match[str]) -> str:
    rest = m.string[m.end() : m.end() + 2]
    ends = not rest.strip() or (m[1] in _CLOSING and rest[0] == " " and rest[1:].isupper())
    return _ABBREVIATIONS[m[1]] + "." * ends


def _rule(pattern: str, said: Said, *, of_numbers: bool | None = None) -> tuple[re.Pattern[str], Said, bool]:
    """A pattern, what to say in its place, and whether it needs a digit to match: one that names digits does, unless told otherwise."""
    return re.compile(pattern), _apart(said), "[0-9]" in pattern if of_numbers is None else of_numbers


_RULES = [
    _rule(r"[\u00a0\u2007\u2009\u202f]", lambda _: " "),
    _rule(r"(?<=[a-z0-9] )([A-Z][a-z]+) St\.(?=\s|\Z)(?! (?:Paul|Louis)\b)", _street),
    _rule(rf"\b({_any(_TITLES)})(?:\. (?=[A-Z])| (?=[A-Z][a-z]))", lambda m: _TITLES[m[1]] + " "),
    _rule(rf"\b({_any(_POINTED_TITLES)}) (?=[A-Z])", lambda m: _POINTED_TITLES[m[1]] + " "),
    _rule(rf"(?<![\w.])({_any(_ABBREVIATIONS)})(?!\w)", _abbreviation),
    _rule(r"\bNo\. ?(?=[0-9])|#(?=[0-9])", lambda _: "number "),
    _rule(r"(?<=\b[Cc]hapter )0+(?=[1-9])|(?<=\b[Pp]art )0+(?=[1-9])", lambda _: ""),
    _rule(r"(?<![\w.,+$€£-])([2-9][0-9]{2})([0-9]{3})([0-9]{4})(?![\w-]|[.,][0-9])", lambda m: ", ".join(map(_digits, m.groups()))),
    _rule(r"\b([0-9]{4})-([0-9]{2})-([0-9]{2})\b", lambda m: _date(m[1], m[2], m[3]) or m[0]),
    _rule(r"\b([0-9]{4})/([0-9]{2})/([0-9]{2})\b", lambda m: _date(m[1], m[2], m[3]) or m[0]),
    _rule(r"\b([0-9]{1,2})/([0-9]{1,2})/([0-9]{4})\b", lambda m: _date(m[3], m[1], m[2]) or m[0]),
    _rule(r"(?<![\w-])([0-9]{1,2})-([0-9]{1,2})-([0-9]{4})\b(?!-)", lambda m: _date(m[3], m[1], m[2]) or m[0]),
    _rule(r"(?<![\w.+])(?:\+[0-9]{1,3}[ .-])?(?:\([0-9]{3}\) ?|[0-9]{3}[ .-])[0-9]{3}[ .-][0-9]{4}(?![\w-])", _by_digits),
    _rule(r"(?<!\w)\+[0-9]{1,3}(?:[ -][0-9]{2,4}){2,5}(?![\w-])", _by_digits),
    _rule(r"(?<![\w.-])(?:[0-9]{3}-[0-9]{4}|[0-9]+(?:-[0-9]+){2,5})(?![\w-])", _by_digits),
    _rule(r"(?<![\d.,])([0-9]{1,4}(?:\.[0-9]{1,4}){2,3})(:[0-9]{1,5})?(?![\w]|[.,][0-9])", _pointed),
    _rule(r"\b([0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3})\b(?!,[0-9])", lambda m: _cardinal(m[1])),
    _rule(r"(?<=[0-9]) ?[-–−] ?(?=[0-9.]{1,15} ?=)", lambda _: " minus "),
    _rule(r"(?<=[0-9]) ?[/÷] ?(?=[0-9.]{1,15} ?=)", lambda _: " over "),
    _rule(rf"(?:(?<=[0-9%°])|(?<=°[CF])) ?[-–] ?(?={_SIGN}?[0-9])", lambda _: " to "),
    _rule(rf"(?<![\w.,)%°$€£¥₹₩-])[-−](?={_SIGN}?[0-9])", lambda _: "minus "),
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
    _rule(r"€ ?([0-9]{1,3}(?:\.[0-9]{3})*),([0-9]{2})(?![0-9])", lambda m: f"€{m[1].replace('.', '')}.{m[2]}"),
    _rule(r"(?<![\w.,])([0-9]{1,3}(?:\.[0-9]{3})*),([0-9]{2}) ?€", lambda m: f"€{m[1].replace('.', '')}.{m[2]}"),
    _rule(
        rf"(?:\b(?P<country>{_any(_DOLLARS)})(?=\$))?(?P<sign>{_SIGN})(?P<minus>[-−])? ?(?P<amount>{_NUMBER}|\.[0-9]{{2}}(?![0-9]))"
        r"(?: ?(?P<scale>(?i:thousand|million|billion|trillion)|[kKmMbB]|bn)\b)?",
        _money,
    ),
    _rule(rf"(?<![\w.,])({_NUMBER}) ?€", lambda m: f"{_cardinal(m[1])} euro{'s' * (m[1] != '1')}"),
    _rule(rf"(?<![\w.,])({_NUMBER}) ?¢", lambda m: f"{_cardinal(m[1])} cent{'s' * (m[1] != '1')}"),
    _rule(rf"\b({_any(_CODES)}) ?({_NUMBER})", lambda m: f"{_cardinal(m[2])} {_CODES[m[1]]}{'s' * (m[2] != '1')}"),
    _rule(rf"(?<![\w.,])({_NUMBER}) ?({_any(_CODES)})\b", lambda m: f"{_cardinal(m[1])} {_CODES[m[2]]}{'s' * (m[1] != '1')}"),
    _rule(rf"(?<![\w.,])({_NUMBER}) ?([kKmM]|bn)(?= (?:{_COUNTED})\b)", lambda m: f"{_cardinal(m[1])} {_SCALES[m[2].lower()]}"),
    _rule(rf"(?<![\w.,])([0-9]+)? ?([{''.join(_VULGAR)}])", _vulgar, of_numbers=False),
    _rule(rf"\b([A-Z][a-z]+) ({_any(_ROMANS)})\b(?!['’.][\w])", _roman),
    _rule(
        rf"(?<![\w.,])({_NUMBER}) ?({_any(_UNITS)})(?![\w²³])(?:\.(?= [a-z]))?", lambda m: f"{_cardinal(m[1])} {_UNITS[m[2]][m[1] != '1']}"
    ),
    _rule(r"(?<![\w./])([0-9]{1,3})/([0-9]{1,3})(?![\w/])", _fraction),
    _rule(r"(?<![\w.,])(?:(?<=the )|')([0-9]0)'?s\b|(?<![\w.,])([12][0-9]{2}0)'?s\b", _decade),
    _rule(r"(?<![\w.,-])([0-9]{1,3}|[0-9]{1,3}\.[0-9]+) ?s\b(?!['’])", _seconds),
    _rule(r"(?<![\w.,:])([0-9]{1,2}):([0-9])(?![\w:-]|[.,][0-9]| to )", lambda m: f"{_cardinal(m[1])} to {_cardinal(m[2])}"),
    _rule(r"\b([0-9]+)(?:st|nd|rd|th)\b", lambda m: _words(int(m[1]), "ordinal") if len(m[1]) <= _LONGEST else _digits(m[1])),
    _rule(r"(?<![\w.,])(1[1-9][0-9]{2}|20[0-9]{2})(?![\w,]?[0-9]|\.[0-9]|[A-Za-z])", lambda m: _year(m[1])),
    _rule(_NUMBER, lambda m: _cardinal(m[0])),
    _rule(rf" ?([{''.join(_SYMBOLS)}]) ?", lambda m: f" {_SYMBOLS[m[1]]} "),
    _rule(r" {2,}", lambda _: " "),
    _rule(r" (?=[.,;:!?](?:\s|$))| $", lambda _: ""),
]
"""In the order of application: rules that look at more of their surroundings come first."""

"""Expands numbers, money, dates, times and units into words of other languages than English."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from functools import lru_cache, partial
from typing import TypeAlias

import regex
from babel import Locale as BabelLocale
from babel.dates import get_month_names
from babel.numbers import format_decimal
from babel.units import format_unit

from inference.text.locales import ARABIC_UNITS, CYRILLIC_UNITS, LOCALES, UNITS
from inference.text.numerals import LONGEST, cardinal, digits, korean_native, number, ordinal

Match: TypeAlias = "regex.Match[str]"
Rule: TypeAlias = "tuple[regex.Pattern[str], Callable[[Match], str]]"
_EASTERN = str.maketrans("٠١٢٣٤٥٦٧٨٩۰۱۲۳۴۵۶۷۸۹٫٬٪", "01234567890123456789.,%")
_LARGE = (
    "Millionen?|Milliarden?|millions?|milliards?|mill[oó]n(?:es)?|milion[ei]|miliard[oi]|milh(?:ão|ões)|bilh(?:ão|ões)|miljoen|miljard|"
    "tysi[ąę]c[ey]?|milion(?:y|ów)?|miliard(?:y|ów)?|тысяч[аи]?|миллион(?:а|ов)?|миллиард(?:а|ов)?|مليون|مليار|万|億|亿|만|억|mil"
)
_OF_WORD = {"fr": "de ", "es": "de ", "pt": "de ", "it": "di "}
"""Between millions and a noun: "cinq millions d'euros"."""
_KO_COUNTERS = "개|명|시간|시|살|번째|번|마리|잔|병|권|달|사람|장|대"
_ZH_MEASURES = "个|位|次|天|岁|小时|公里|块|本|只|条|张|件|人|倍|种|杯"
_DATIVE = r"\b(?:am|vom|zum|beim|im|dem|den|des|einem|einen|einer|eines|(?:in|an|auf|bei|mit|nach|seit|von|zu|aus|unter|über|vor) der)\s\Z"
_NOMINATIVE = r"\b(?:der|die|das)\s\Z"
_ROMAN = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}


def normalize_in(text: str, name: str) -> str:
    """`text`, in the language `name`, with digits and signs spelled out as that language's words. No ASCII digit is left."""
    if name == "ar":
        text = text.translate(_EASTERN)
    for pattern, said in _rules(name):
        text = pattern.sub(partial(_apart, said, LOCALES[name].spaced), text)
    return text


def _apart(said: Callable[[Match], str], spaced: bool, m: Match) -> str:
    words = said(m)
    if not spaced or words == m[0]:
        return words
    before, after = m.string[max(0, m.start() - 1) : m.start()], m.string[m.end() : m.end() + 1]
    particle = regex.match(r"\p{Hangul}", after) is not None  # Korean's follow a word without a space
    return " " * (before.isalnum() and words[:1].isalnum()) + words + " " * (words[-1:].isalnum() and after.isalnum() and not particle)


@lru_cache(4096)
def _unit_pattern(value: Decimal, unit: str, name: str) -> str:
    """A unit's name in the form that a number asks for, with `{}` where the number stands."""
    written = format_decimal(value, locale=name, decimal_quantization=False)
    pattern = format_unit(value, unit, "long", locale=name).replace(written, "{}").replace("\u00a0", " ")
    if name == "ko":
        return pattern.replace("{}", "{} ")
    return pattern if LOCALES[name].spaced else pattern.replace(" ", "")


class _Reader:
    """How one language reads each kind of written form."""

    def __init__(self, name: str) -> None:
        self.name, self.locale, self.cldr = name, LOCALES[name], BabelLocale(name)
        group, decimal = (regex.escape(signs) for signs in (self.locale.group, self.locale.decimal))
        self.number = rf"(?:[0-9]{{1,3}}(?:[{group}][0-9]{{3}})+(?![0-9])|[0-9]+)(?:[{decimal}][0-9]+)?"
        months = get_month_names("wide", "format", locale=name)
        self.months = [months[i] for i in range(1, 13)]
        self.units = {**UNITS, "km/u": "kilometer-per-hour", **(CYRILLIC_UNITS if name == "ru" else ARABIC_UNITS if name == "ar" else {})}

    def parts(self, written: str) -> tuple[str, str]:
        """The digits of a number before and after its decimal sign."""
        whole, *rest = regex.split(f"[{regex.escape(self.locale.decimal)}]", written)
        return regex.sub("[^0-9]", "", whole), "".join(rest)

    def say(self, written: str, gender: str = "") -> str:
        whole, decimals = self.parts(written)
        return number(whole, decimals, self.name, gender)

    def form(self, forms: tuple[str, ...], written: str) -> str:
        """The form of a noun after a number."""
        whole, decimals = self.parts(written)
        if len(forms) == 2:
            return forms[self.cldr.plural_form(int(whole[-LONGEST:])) != "one" or (bool(decimals) and self.name != "fr")]
        if decimals:
            return forms[1]
        return forms[{"one": 0, "two": 1, "few": 1}.get(self.cldr.plural_form(int(whole[-LONGEST:])), 2)]

    def unit(self, written: str, unit: str) -> str:
        whole, decimals = self.parts(written)
        value = Decimal(f"{whole[-LONGEST:]}.{decimals or 0}").normalize() if decimals.strip("0") else Decimal(whole[-LONGEST:])
        pattern = _unit_pattern(value, unit, self.name)
        gender = "f" if unit in self.locale.feminine else "m"
        return pattern.replace("{}", self.say(written, gender))

    def measured(self, m: Match) -> str:
        return self.unit(m[1], self.units[m[2]])

    def percent(self, m: Match) -> str:
        return self.locale.percent.replace("{}", self.say(m[1])) if self.locale.percent else self.unit(m[1], "percent")

    def money(self, m: Match) -> str:
        """`€5,50`, `5,50 €`, `5 Mio. €`."""
        written, sign, large = m["after"] or m["before"], m["sign_after"] or m["sign_before"], m["large"]
        units, cents = self.locale.money[sign]
        if large:
            of = _OF_WORD.get(self.name, "")
            noun = units[-1]
            of = "d'" if of == "de " and self.name == "fr" and noun[0] == "e" else of
            return self.joined(self.say(written, "m"), large, of + noun)
        whole, decimals = self.parts(written)
        if len(decimals) not in (0, 2) or self.name in ("zh", "ja", "ko"):
            return self.joined(self.say(written), units[-1])
        feminine = {"livre", "livres", "libra", "sterlina", "копейка"}
        said = self.joined(number(whole, "", self.name, "f" if units[0] in feminine else "m"), self.form(units, whole))
        if not int(decimals or 0):
            return said
        minor = self.joined(
            number(str(int(decimals)), "", self.name, "f" if cents[0] in feminine else "m"), self.form(cents, str(int(decimals)))
        )
        if self.name in ("de", "fr", "nl"):
            minor = cardinal(int(decimals), self.name)
        return minor if not int(whole) else said + self.locale.cents.replace("{}", minor)

    def joined(self, *words: str) -> str:
        return (" " if self.locale.spaced else "").join(words)

    def clock(self, m: Match) -> str:
        hour, minute = int(m["hour"]), int(m["minute"] or 0)
        if hour > 24 or minute > 59:
            return m[0]
        said, minutes = cardinal(hour, self.name, "f"), cardinal(minute, self.name, "f")
        full, half = self.locale.hours
        if self.name == "pl":
            before = regex.search(r"\b(?:o|od|po|do)(?: godz\.| godzinie| godziny)?\s\Z", m.string[: m.start()])
            said = ordinal(hour, "pl", "f", "l" if before else "n") if hour else "zero"
        elif self.name == "ko" and (native := korean_native(hour)) and hour <= 12:
            said = native
        elif self.name == "de" and hour == 1:
            said = "ein"
        elif self.name in ("fr", "es", "pt", "ru") and not minute:
            return self.unit(m["hour"].lstrip("0") or "0", "hour")
        elif self.name == "pt" and "h" in m[0]:
            said = self.unit(str(hour), "hour")
        elif self.name == "fr":
            full = half = "{}"
            said = self.unit(str(hour), "hour") + f" {minutes}"
        elif self.name == "ru":
            said = cardinal(hour, "ru")
            minutes = ("ноль " if minute < 10 else "") + cardinal(minute, "ru")
        elif self.name in ("zh",) and 0 < minute < 10:
            minutes = "零" + minutes
        return (half.replace("{}", said, 1).replace("{}", minutes, 1) if minute else full.replace("{}", said, 1)).strip()

    def date(self, m: Match) -> str:
        day, month, year = int(m["day"]), int(m["month"]), m["year"]
        if not (1 <= day <= 31 and 1 <= month <= 12):
            return m[0]
        return self.day_and_month(day, self.months[month - 1], year, m.string[: m.start()])

    def written_date(self, m: Match) -> str:
        return self.day_and_month(int(m["day"]), m["month"], m["year"] or "", m.string[: m.start()])

    def day_and_month(self, day: int, month: str, year: str, before: str) -> str:
        name = self.name
        if name in ("zh", "ja", "ko"):
            month = self.month(regex.sub("[^0-9]", "", month) or str(1 + self.months.index(month)))
        if name == "de":
            said = _german(ordinal(day, "de"), before, "r")
        elif name in ("ru", "pl"):
            said = ordinal(day, name, "m" if name == "pl" else "n", "g")
        elif name in ("fr", "it") and day == 1:
            said = ordinal(1, name)
        else:
            said = cardinal(day, name)
        pattern = self.locale.date if year else regex.split(r" (?:de )?\{year\}", self.locale.date)[0]
        return pattern.replace("{day}", said).replace("{month}", month).replace("{year}", self.year(year) if year else "")

    def month(self, digits_: str) -> str:
        """A month's name in East Asia: its number, with two exceptions in Korean."""
        irregular = {"6": "유월", "10": "시월"} if self.name == "ko" else {}
        return irregular.get(str(int(digits_)), cardinal(int(digits_), self.name) + {"ko": "월"}.get(self.name, "月"))

    def year(self, written: str) -> str:
        n = int(written)
        if self.name == "zh":
            return digits(written, "zh")
        if self.name == "ru":
            return ordinal(n, "ru", "m", "g")
        if self.name == "pl":
            words = cardinal(n, "pl").split()
            last = ordinal(n % 100, "pl", case="g").split() if n % 100 else []
            return " ".join([*words[: len(words) - len(last)], *last])
        if self.locale.years and 1100 <= n < 2000:
            said = f"{cardinal(n // 100, self.name)}hundert{cardinal(n % 100, self.name) if n % 100 else ''}"
            return said if self.name == "de" else said.replace("hundert", "honderd")
        return cardinal(n, self.name)


def _german(said: str, before: str, bare: str) -> str:
    """A German ordinal with the ending that the words before it ask for; `bare` is the ending without an article."""
    if regex.search(_DATIVE, before, regex.IGNORECASE):
        return said + "n"
    return said if regex.search(_NOMINATIVE, before, regex.IGNORECASE) else said + bare


def _roman(written: str) -> int:
    values = [_ROMAN[letter] for letter in written]
    return sum(-v if v < after else v for v, after in zip(values, [*values[1:], 0], strict=True))


@lru_cache
def _rules(name: str) -> list[Rule]:
    r, locale = _Reader(name), LOCALES[name]
    within = r"\w" if locale.spaced and name != "ko" else "0-9A-Za-z"
    free = rf"(?<![{within}.,])"

    def rule(pattern: str, said: Callable[[Match], str]) -> Rule:
        return regex.compile(pattern, regex.VERSION0), said

    signs = _any(locale.money)
    months = _any(m for m in r.months)
    rules = [rule(r"[\u00a0\u2007\u2009\u202f]", lambda _: " "), *(rule(*_abbreviation(a, w)) for a, w in _by_length(locale.abbreviations))]
    rules += [
        rule(r"(?<![0-9])(?P<year>[0-9]{4})[-/](?P<month>[0-9]{1,2})[-/](?P<day>[0-9]{1,2})(?![0-9])", r.date),
        rule(r"(?<![0-9.,])(?P<day>[0-9]{1,2})(?:\. ?|[/-])(?P<month>[0-9]{1,2})(?:\. ?|[/-])(?P<year>[0-9]{4})(?: г\.)?(?![0-9])", r.date),
    ]
    if name in ("zh", "ja", "ko"):
        rules += [
            rule(r"(?P<year>[0-9]{4}) ?[年년] ?(?P<month>[0-9]{1,2} ?[月월]) ?(?P<day>[0-9]{1,2}) ?[日일号]", r.written_date),
            rule(r"([0-9]{4})(?= ?[年년])", lambda m: r.year(m[1])),
            rule(r"([0-9]{1,2}) ?[月월](?! ?[가-힣]*간)", lambda m: r.month(m[1])),
        ]
    else:
        dot = r"\." if name in ("de",) else ""
        of = "(?: de)?" if name in ("es", "pt") else ""
        rules.append(
            rule(
                rf"{free}(?P<day>0?[1-9]|[12][0-9]|3[01]){dot}(?:º|er)?{of} (?P<month>{months})(?:{of} (?P<year>[12][0-9]{{3}})(?! ?{r.number})(?: г\.| года?)?)?(?!\w)",
                r.written_date,
            )
        )
    rules += _ordinals(name, rule)
    rules += [
        rule(r"(?<![\w.+])\+?(?:\([0-9]{2,4}\) ?)?[0-9]{2,4}(?:[ -][0-9]{2,4}){3,6}(?![\w-])", lambda m: _phone(m, r)),
        rule(
            rf"(?<![{within}.,:])(?P<hour>[0-9]{{1,2}})(?::(?P<minute>[0-9]{{2}})(?::00)?)(?: (?:Uhr|uur|h)\b)?(?![0-9:])", r.clock,
        ),
        rule(r"(?<![\w.,:])(?P<hour>[0-9]{1,2})(?:\.(?P<minute>[0-9]{2}))? (?:Uhr|uur)\b", r.clock),
    ]  # fmt: skip
    if name in ("fr", "pt"):
        rules.append(rule(r"(?<![\w.,:])(?P<hour>[0-9]{1,2}) ?h ?(?P<minute>[0-9]{2})?(?!\w)", r.clock))
    rules += [
        rule(r"(?<=[0-9]) ?[-–~〜] ?(?=[0-9])", lambda _: _between(name, locale.to))
        if name not in ("pl", "ru")
        else rule(r"(?<=[0-9]) [-–] (?=[0-9])", lambda _: "–"),
        rule(rf"(?<![{within}.,)%°-])[-−](?=[0-9])", lambda _: locale.minus + " " * locale.spaced),
        rule(
            rf"(?<![{within}.,])(?P<sign_before>{signs}) ?(?P<before>{r.number})(?: ?(?P<large>{_LARGE})(?!\w))?(?P<after>)(?P<sign_after>)|"
            rf"{free}(?P<after>{r.number})(?: ?(?P<large>{_LARGE}))? ?(?:d['’]|d[ei] )?(?P<sign_after>{signs})(?![A-Za-zА-я])",
            r.money,
        ),
        rule(rf"{free}({r.number}) ?[%％]", r.percent),
        rule(rf"{free}({r.number}) ?({_any(r.units)})(?![{within}²³/])", r.measured),
        *_before_nouns(name, r, rule),
        rule(
            rf"(?<![0-9.])(?!{r.number}(?![0-9.]))([0-9]+(?:\.[0-9]+){{2,}})(?![0-9])",
            lambda m: r.joined(*_alternate(m[1], name, locale.point)),
        ),
    ]
    if "." not in locale.decimal:
        rules.append(
            rule(
                rf"(?<![0-9.])(?!{r.number}(?![0-9.]))([0-9]+)\.([0-9]+)(?![0-9])",
                lambda m: r.joined(*_alternate(m[0], name, locale.point)),
            )
        )
    if name == "ko":
        rules.append(rule(rf"(?<![0-9.,제])([0-9]{{1,2}}) ?(?={_KO_COUNTERS})", lambda m: (korean_native(int(m[1])) or r.say(m[1])) + " "))
        rules.append(rule(rf"(?<![0-9.,제])({r.number}) ?(?={_KO_COUNTERS})", lambda m: r.say(m[1]) + " "))
    if name == "zh":
        rules.append(rule(r"(?<![0-9.,])1[0-9]{10}(?![0-9])", lambda m: digits(m[0], "zh")))  # a telephone number
        rules.append(rule(rf"(?<![0-9.第])2(?= ?(?:{_ZH_MEASURES}))", lambda _: "两"))
    if locale.years:
        rules.append(rule(r"(?<![\w.,])(1[1-9][0-9]{2})(?![\w,]|\.[0-9])", lambda m: r.year(m[1])))
    rules += [
        rule(r.number, lambda m: r.say(m[0])),
        rule(rf" ?([{regex.escape(''.join(locale.signs))}]) ?", lambda m: r.joined("", locale.signs[m[1]], "")),
        rule(r" {2,}", lambda _: " "),
        rule(r" (?=[.,;:!?…](?:\s|$))(?<![«»] )| $|(?<=^) ", lambda _: "")
        if name != "fr"
        else rule(r" {2,}| $|^ ", lambda m: "" if len(m[0]) == 1 else " "),
    ]
    return rules


def _before_nouns(name: str, r: _Reader, rule: Callable[[str, Callable[[Match], str]], Rule]) -> list[Rule]:
    """One and two, and numbers that end so, take the gender of the noun behind them; its ending shows which that is."""
    if name not in _NOUN_IS_FEMININE:
        return []

    def said(m: Match) -> str:
        two = m[1].endswith("2")
        feminine = _NOUN_IS_FEMININE[name][two]
        return r.say(m[1], "f" if regex.search(feminine, m[2]) else "m")

    kinds = {
        "ar": "(?:[3-9]|10)",
        "de": "1",
        "fr": "[0-9]{0,3}1",
        "pl": "(?:1|[0-9]{0,3}2)",
        "pt": "[0-9]{0,3}[12]",
        "ru": "[0-9]{0,3}[12]",
    }
    return [rule(rf"(?<![\w.,:])({kinds.get(name, '[0-9]{0,3}1')})(?= (\p{{L}}{{3,}}))", said)]


_NOUN_IS_FEMININE = {
    "de": (r"(?:e|ung|heit|keit|ion|tät|schaft)\Z",) * 2, "fr": (r"(?:heure|minute|seconde|tonne|fois|page|année|tion)s?\Z",) * 2,
    "es": (r"(?:as?|ci[oó]n(?:es)?|dad(?:es)?)\Z",) * 2, "it": (r"(?:a|zione|tà)\Z",) * 2, "pt": (r"(?:as?|ção|ções|dades?|vezes|vez)\Z",) * 2,
    "ar": (r"\A(?:دقائق|ساعات|ثوان|سنوات|مرات|ليال)",) * 2,
    "pl": (r"a\Z", r"(?:godziny|minuty|sekundy|osoby|strony|tony|mile|godzinach)\Z"), "ru": (r"[ая]\Z", r"[ыи]\Z"),
}  # fmt: skip
"""Endings of feminine nouns behind one, and behind two."""


def _between(name: str, word: str) -> str:
    return word if name in ("zh", "ja") else f"{word} " if name == "ko" else f" {word} "


def _alternate(written: str, name: str, point: str) -> list[str]:
    """The words of numbers with the point's name between them."""
    said = [number(part, "", name) for part in written.split(".")]
    return [word for part in said for word in (point, part)][1:]


def _phone(m: Match, r: _Reader) -> str:
    plus = f"{r.locale.signs['+']} " * m[0].startswith("+") if "+" in r.locale.signs else ""
    return plus + ", ".join(digits(group, r.name) for group in regex.findall("[0-9]+", m[0]))


def _ordinals(name: str, rule: Callable[[str, Callable[[Match], str]], Rule]) -> list[Rule]:
    if name == "de":
        return [rule(r"(?<![\w.,])([0-9]{1,3})\.(?= \p{L})", lambda m: _german(ordinal(int(m[1]), "de"), m.string[: m.start()], "r"))]
    if name == "fr":
        return [
            rule(r"\b([IVX]+)e(?= siècle)", lambda m: ordinal(_roman(m[1]), "fr")),
            rule(r"\b([0-9]{1,4})(?:e|er|ème|re|ère|nd|nde)\b", lambda m: ordinal(int(m[1]), "fr", "f" if m[0].endswith("re") else "m")),
        ]
    if name in ("es", "it", "pt"):
        return [
            rule(r"\b([0-9]{1,3})\.?([ºª])", lambda m: ordinal(int(m[1]), name, "f" if m[2] == "ª" else "m")),
            rule(r"(?<=\b(?:siglo|século|capítulo|capitolo) )([IVXL]+)\b", lambda m: cardinal(_roman(m[1]), name)),
            rule(r"\b([IVX]+)(?= secolo\b)", lambda m: ordinal(_roman(m[1]), name)),
        ]
    if name == "nl":
        return [rule(r"\b([0-9]{1,3})(?:e|de|ste)\b", lambda m: ordinal(int(m[1]), "nl"))]
    if name == "ru":
        kinds = {"й": ("m", "n"), "я": ("f", "n"), "е": ("n", "n"), "го": ("m", "g")}
        return [rule(r"\b([0-9]{1,4})-(?:ы|о)?(й|я|е|го)\b", lambda m: ordinal(int(m[1]), "ru", *kinds[m[2]]))]
    return []


def _abbreviation(written: str, words: str) -> tuple[str, Callable[[Match], str]]:
    before, _, rest = written.rpartition("<")
    body, _, after = rest.partition(">")
    ahead = {"": r"(?!\w)", "A": r"(?= ?\p{Lu})", "9": r"(?= ?[0-9])"}[after]
    behind = r"(?<=[0-9] )" if before else r"(?<![\w.])"

    def said(m: Match) -> str:
        ends = body.endswith(".") and not m.string[m.end() :].strip(" \n\"'”»)")
        return words + "." * ends

    first = f"[{body[0].lower()}{body[0].upper()}]" if body[0].islower() else regex.escape(body[0])
    return behind + first + regex.escape(body[1:]).replace(r"\ ", "[ ]") + ahead, said


def _by_length(abbreviations: Mapping[str, str]) -> list[tuple[str, str]]:
    return sorted(abbreviations.items(), key=lambda pair: -len(pair[0]))


def _any(words: Iterable[str]) -> str:
    return "|".join(regex.escape(w) for w in sorted(words, key=len, reverse=True))

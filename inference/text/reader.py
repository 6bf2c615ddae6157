"""How one language besides English reads each kind of written form: numbers, money, units, times and dates."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from functools import lru_cache
from typing import TypeAlias

import regex
from babel import Locale as BabelLocale
from babel.dates import get_month_names
from babel.numbers import format_decimal
from babel.units import format_unit

from inference.text.locales import ARABIC_UNITS, CYRILLIC_UNITS, LOCALES, UNITS
from inference.text.numerals import LONGEST, cardinal, digits, korean_native, number, ordinal

Match: TypeAlias = "regex.Match[str]"
_OF_WORD = {"fr": "de ", "es": "de ", "pt": "de ", "it": "di "}
"""Between millions and a noun: "cinq millions d'euros"."""
_ROMAN = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}
_DATIVE = r"\b(?:am|vom|zum|beim|im|dem|den|des|einem|einen|einer|eines|(?:in|an|auf|bei|mit|nach|seit|von|zu|aus|unter|über|vor) der)\s\Z"
_NOMINATIVE = r"\b(?:der|die|das)\s\Z"


@lru_cache(4096)
def unit_pattern(value: Decimal | int, unit: str, name: str) -> str:
    """A unit's name in the form that a number asks for, with `{}` where the number stands."""
    written = format_decimal(value, locale=name, decimal_quantization=False)
    pattern = format_unit(value, unit, "long", locale=name).replace(written, "{}").replace("\u00a0", " ")
    if name == "ko":
        return pattern.replace("{}", "{} ")
    return pattern if LOCALES[name].spaced else pattern.replace(" ", "")


def any_of(words: Iterable[str]) -> str:
    """A pattern for any of these words, the longest first."""
    return "|".join(regex.escape(w) for w in sorted(words, key=len, reverse=True))


def roman(written: str) -> int:
    """The value of a Roman numeral."""
    values = [_ROMAN[letter] for letter in written]
    return sum(-v if v < after else v for v, after in zip(values, [*values[1:], 0], strict=True))


class Reader:
    """One language. Its methods take the match of a rule of `normalize_locale` and return words."""

    def __init__(self, name: str) -> None:
        self.name, self.locale, self.cldr = name, LOCALES[name], BabelLocale(name)
        group, decimal = (regex.escape(signs) for signs in (self.locale.group, self.locale.decimal))
        self.number = rf"(?:[0-9]{{1,3}}(?:[{group}][0-9]{{3}})+(?![0-9])|[0-9]+)(?:[{decimal}][0-9]+)?"
        months = get_month_names("wide", "format", locale=name)
        self.months = [months[i] for i in range(1, 13)]
        self.units = {**UNITS, "km/u": "kilometer-per-hour", **(CYRILLIC_UNITS if name == "ru" else ARABIC_UNITS if name == "ar" else {})}

    def rules(self) -> list[tuple[str, Callable[[Match], str]]]:
        """Patterns of this language alone, which come before all others, and how each is read."""
        return []

    def plain(self, m: Match) -> str:
        """A number that is nothing else."""
        return self.say(m[0])

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
        pattern = unit_pattern(value, unit, self.name)
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
        if self.name == "ko" and (native := korean_native(hour)) and hour <= 12:
            said = native
        elif self.name == "de" and hour == 1:
            said = "ein"
        elif self.name in ("fr", "es", "pt") and not minute:
            return self.unit(m["hour"].lstrip("0") or "0", "hour")
        elif self.name == "pt" and "h" in m[0]:
            said = self.unit(str(hour), "hour")
        elif self.name == "fr":
            full = half = "{}"
            said = self.unit(str(hour), "hour") + f" {minutes}"
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
            said = german(ordinal(day, "de"), before, "r")
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
        if self.locale.years and 1100 <= n < 2000:
            said = f"{cardinal(n // 100, self.name)}hundert{cardinal(n % 100, self.name) if n % 100 else ''}"
            return said if self.name == "de" else said.replace("hundert", "honderd")
        return cardinal(n, self.name)


def german(said: str, before: str, bare: str) -> str:
    """A German ordinal with the ending that the words before it ask for; `bare` is the ending without an article."""
    if regex.search(_DATIVE, before, regex.IGNORECASE):
        return said + "n"
    return said if regex.search(_NOMINATIVE, before, regex.IGNORECASE) else said + bare

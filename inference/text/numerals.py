"""Says numbers in the languages of FishSpeech 1.5 besides English. num2words knows all but Chinese; this adds gender and what it lacks."""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache

import regex
from num2words import num2words

from inference.text.locales import LOCALES

LONGEST = 15
"""Digits: a longer number is an identifier and is read digit by digit."""
_ZH_DIGITS = "零一二三四五六七八九"
_KO_ONES = ("", "한", "두", "세", "네", "다섯", "여섯", "일곱", "여덟", "아홉")
_KO_TENS = ("", "열", "스물", "서른", "마흔", "쉰", "예순", "일흔", "여든", "아흔")
_AR_BEFORE_FEMININE = dict(zip(range(3, 11), ("ثلاث", "أربع", "خمس", "ست", "سبع", "ثماني", "تسع", "عشر"), strict=True))
_PAIRS = frozenset({"fr", "es", "it", "pt", "pl", "nl"})
"""Languages that say two decimals as one number: "trois virgule quatorze"."""


@lru_cache(4096)
def cardinal(n: int, name: str, gender: str = "") -> str:
    """The words of a number from 0 on. `gender` is "m" or "f" before a noun, "" for the number alone."""
    if name == "zh":
        return _chinese(n)
    if name == "ru":
        return str(num2words(n, lang="ru", gender=gender or "m"))
    if name == "ar":
        return _AR_BEFORE_FEMININE[n] if gender == "f" and n in _AR_BEFORE_FEMININE else " ".join(str(num2words(n, lang="ar")).split())
    said = str(num2words(n, lang=name)).replace("milione e ", "milione ").replace("milioni e ", "milioni ")
    if gender and n % 100 not in (11, 12):
        locale = LOCALES[name]
        for forms, digit in ((locale.one, 1), (locale.two, 2)):
            if forms and n % 10 == digit and not (name == "pl" and digit == 1 and n > 1):
                said = _before_noun(said, n, name, forms[gender == "f"])
    return said


def _before_noun(said: str, n: int, name: str, form: str) -> str:
    """`said` with its last word, or the end of that, in the form it has before a noun."""
    if n < 10:
        return form
    if name == "es":
        return regex.sub("veintiuno$", "veintiún" if form == "un" else "veintiuna", regex.sub(" uno$", f" {form}", said))
    if name in ("fr", "pt", "pl"):
        return regex.sub(r"(?<=[ -])\S[^ -]*$", form, said)
    return said


def ordinal(n: int, name: str, gender: str = "m") -> str:
    """The ordinal of a number in a gender, "m" or "f"; Russian's and Polish's are in `slavic`."""
    said = str(num2words(n, lang=name, to="ordinal"))
    if gender == "f" and name in ("es", "it", "pt"):
        return regex.sub(r"o\b", "a", said)
    return "première" if gender == "f" and name == "fr" and n == 1 else said


def digits(text: str, name: str) -> str:
    """Each digit of a number for itself."""
    return ("" if name in ("zh", "ja") else " ").join(cardinal(int(d), name) for d in text)


def number(whole: str, decimals: str, name: str, gender: str = "") -> str:
    """The words of a number whose whole part and decimals are given as digits."""
    if len(whole) > LONGEST or (len(whole) > 1 and whole[0] == "0"):
        said = digits(whole, name)
    else:
        said = cardinal(int(whole), name, "" if decimals else gender)
    if not decimals:
        return said
    if name == "ru" and len(decimals) <= 3 and len(whole) <= LONGEST and int(decimals):
        return str(num2words(Decimal(f"{int(whole)}.{decimals}"), lang="ru"))
    pair = name in _PAIRS and len(decimals) == 2 and decimals[0] != "0"
    blank = " " if LOCALES[name].spaced else ""
    return blank.join((said, LOCALES[name].comma, cardinal(int(decimals), name) if pair else digits(decimals, name)))


def korean_native(n: int) -> str | None:
    """Korean's own numbers before counters, 1 to 99."""
    if not 0 < n < 100:
        return None
    return "스무" if n == 20 else _KO_TENS[n // 10] + _KO_ONES[n % 10]


def _chinese(n: int) -> str:
    """Mandarin, as numbers are said: 105 is 一百零五, 12 is 十二."""
    if n == 0:
        return _ZH_DIGITS[0]
    groups, rest = [], n
    while rest:
        groups.append(rest % 10_000)
        rest //= 10_000
    said = ""
    for place in reversed(range(len(groups))):
        group = groups[place]
        if not group:
            continue
        if said and (group < 1000 or not groups[place + 1]):
            said += _ZH_DIGITS[0]
        said += _chinese_group(group) + ("", "万", "亿", "万亿")[place]
    return said[1:] if said.startswith("一十") else said


def _chinese_group(group: int) -> str:
    said, gap = "", False
    for unit, sign in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = group // unit % 10
        if digit:
            said += ("零" if gap and said else "") + _ZH_DIGITS[digit] + sign
            gap = False
        else:
            gap = bool(said)
    return said

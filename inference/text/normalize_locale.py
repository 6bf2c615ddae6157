"""Expands numbers, money, dates, times and units into words of other languages than English."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import TypeAlias

import regex

from inference.text.locales import LOCALES
from inference.text.numerals import cardinal, digits, korean_native, number, ordinal
from inference.text.reader import Match, Reader, any_of, german, roman
from inference.text.slavic_reader import SlavicReader

Rule: TypeAlias = "tuple[regex.Pattern[str], Callable[[Match], str]]"
_EASTERN = str.maketrans("٠١٢٣٤٥٦٧٨٩۰۱۲۳۴۵۶۷۸۹٫٬٪", "01234567890123456789.,%")
_LARGE = (
    "Millionen?|Milliarden?|millions?|milliards?|mill[oó]n(?:es)?|milion[ei]|miliard[oi]|milh(?:ão|ões)|bilh(?:ão|ões)|miljoen|miljard|"
    "tysi[ąę]c[ey]?|milion(?:y|ów)?|miliard(?:y|ów)?|тысяч[аи]?|миллион(?:а|ов)?|миллиард(?:а|ов)?|مليون|مليار|万|億|亿|만|억|mil"
)
_KO_COUNTERS = "개|명|시간|시|살|번째|번|마리|잔|병|권|달|사람|장|대"
_ZH_MEASURES = "个|位|次|天|岁|小时|公里|块|本|只|条|张|件|人|倍|种|杯"


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


@lru_cache
def _rules(name: str) -> list[Rule]:
    r, locale = (SlavicReader if name in ("ru", "pl") else Reader)(name), LOCALES[name]
    within = r"\w" if locale.spaced and name != "ko" else "0-9A-Za-z"
    free = rf"(?<![{within}.,])"

    def rule(pattern: str, said: Callable[[Match], str]) -> Rule:
        return regex.compile(pattern, regex.VERSION0), said

    signs = any_of(locale.money)
    months = any_of(m for m in r.months)
    short = [(a.endswith(">9"), rule(*_abbreviation(a, w))) for a, w in _by_length(locale.abbreviations)]
    rules = [rule(r"[\u00a0\u2007\u2009\u202f]", lambda _: " "), *(one for is_before_numbers, one in short if is_before_numbers)]
    rules += [*(rule(*own) for own in r.rules()), *(one for is_before_numbers, one in short if not is_before_numbers)]
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
                rf"{free}(?P<day>0?[1-9]|[12][0-9]|3[01]){dot}(?:º|er)?{of} (?P<month>(?i:{months}))(?:{of} (?P<year>[12][0-9]{{3}})(?! ?{r.number})(?: г\.| года?)?)?(?!\w)",
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
        rule(rf"{free}({r.number}) ?({any_of(r.units)})(?![{within}²³/])", r.measured),
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
        rule(r.number, r.plain),
        rule(rf" ?([{regex.escape(''.join(locale.signs))}]) ?", lambda m: r.joined("", locale.signs[m[1]], "")),
        rule(r" {2,}", lambda _: " "),
        rule(r" (?=[.,;:!?…](?:\s|$))(?<![«»] )| $|(?<=^) ", lambda _: "")
        if name != "fr"
        else rule(r" {2,}| $|^ ", lambda m: "" if len(m[0]) == 1 else " "),
    ]
    return rules


def _before_nouns(name: str, r: Reader, rule: Callable[[str, Callable[[Match], str]], Rule]) -> list[Rule]:
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
        "pt": "[0-9]{0,3}[12]",
    }
    return [rule(rf"(?<![\w.,:])({kinds.get(name, '[0-9]{0,3}1')})(?= (\p{{L}}{{3,}}))", said)]


_NOUN_IS_FEMININE = {
    "de": (r"(?:e|ung|heit|keit|ion|tät|schaft)\Z",) * 2, "fr": (r"(?:heure|minute|seconde|tonne|fois|page|année|tion)s?\Z",) * 2,
    "es": (r"(?:as?|ci[oó]n(?:es)?|dad(?:es)?)\Z",) * 2, "it": (r"(?:a|zione|tà)\Z",) * 2, "pt": (r"(?:as?|ção|ções|dades?|vezes|vez)\Z",) * 2,
    "ar": (r"\A(?:دقائق|ساعات|ثوان|سنوات|مرات|ليال)",) * 2,
}  # fmt: skip
"""Endings of feminine nouns behind one, and behind two."""


def _between(name: str, word: str) -> str:
    return word if name in ("zh", "ja") else f"{word} " if name == "ko" else f" {word} "


def _alternate(written: str, name: str, point: str) -> list[str]:
    """The words of numbers with the point's name between them."""
    said = [number(part, "", name) for part in written.split(".")]
    return [word for part in said for word in (point, part)][1:]


def _phone(m: Match, r: Reader) -> str:
    plus = f"{r.locale.signs['+']} " * m[0].startswith("+") if "+" in r.locale.signs else ""
    return plus + ", ".join(digits(group, r.name) for group in regex.findall("[0-9]+", m[0]))


def _ordinals(name: str, rule: Callable[[str, Callable[[Match], str]], Rule]) -> list[Rule]:
    if name == "de":
        return [rule(r"(?<![\w.,])([0-9]{1,3})\.(?= \p{L})", lambda m: german(ordinal(int(m[1]), "de"), m.string[: m.start()], "r"))]
    if name == "fr":
        return [
            rule(r"\b([IVX]+)e(?= siècle)", lambda m: ordinal(roman(m[1]), "fr")),
            rule(r"\b([0-9]{1,4})(?:e|er|ème|re|ère|nd|nde)\b", lambda m: ordinal(int(m[1]), "fr", "f" if m[0].endswith("re") else "m")),
        ]
    if name in ("es", "it", "pt"):
        return [
            rule(r"\b([0-9]{1,3})\.?([ºª])", lambda m: ordinal(int(m[1]), name, "f" if m[2] == "ª" else "m")),
            rule(r"(?<=\b(?:siglo|século|capítulo|capitolo) )([IVXL]+)\b", lambda m: cardinal(roman(m[1]), name)),
            rule(r"\b([IVX]+)(?= secolo\b)", lambda m: ordinal(roman(m[1]), name)),
        ]
    if name == "nl":
        return [rule(r"\b([0-9]{1,3})(?:e|de|ste)\b", lambda m: ordinal(int(m[1]), "nl"))]
    return []


def _abbreviation(written: str, words: str) -> tuple[str, Callable[[Match], str]]:
    before, _, rest = written.rpartition("<")
    body, _, after = rest.partition(">")
    ahead = {"": r"(?!\w)", "A": r"(?= ?\p{Lu})", "9": r"(?= ?[0-9])"}[after]
    behind = r"(?<=[0-9] )" if before else r"(?<![\w.])"

    def said(m: Match) -> str:
        ends = body.endswith(".") and not m.string[m.end() :].strip(" \n\"'”»)")
        begins = body[0].islower() and m[0][0].isupper()
        return (words[0].upper() + words[1:] if begins else words) + "." * ends

    first = f"[{body[0].lower()}{body[0].upper()}]" if body[0].islower() else regex.escape(body[0])
    return behind + first + regex.escape(body[1:]).replace(r"\ ", "[ ]") + ahead, said


def _by_length(abbreviations: Mapping[str, str]) -> list[tuple[str, str]]:
    return sorted(abbreviations.items(), key=lambda pair: -len(pair[0]))

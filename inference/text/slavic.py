"""Russian and Polish numerals, and the nouns that fishserve puts behind them, in the cases that a sentence asks for.

A case is its first letter: n(ominative), g(enitive), d(ative), a(ccusative), i(nstrumental), and l(ocative), Russian's prepositional.
Neither num2words nor CLDR's data as babel has it know the cases of Polish numerals, nor those of units.
"""

from __future__ import annotations

from functools import lru_cache

import regex
from num2words import num2words

from inference.text.numerals import cardinal

Forms = tuple[str, ...]
_ASKS = {
    "ru": {
        "g": "от до из без для около после у кроме более менее больше меньше свыше порядка вместо среди возле старше моложе выше ниже дороже "
        "дешевле длиннее короче тяжелее легче течение размере объёме объеме нет",
        "d": "к ко благодаря равен равна равно равны равняется",
        "a": "в во на за через про спустя",
        "i": "с со между над перед под",
        "l": "о об обо при",
    },
    "pl": {
        "g": "od do z ze bez dla około ok. koło powyżej poniżej obok u wśród spośród oprócz prócz podczas zamiast ciągu wysokości wartości",
        "d": "ku dzięki przeciw",
        "a": "za przez w we na o ponad",
        "i": "między pomiędzy nad pod przed poza",
        "l": "przy",
    },
}
_BEFORE = {
    name: [
        (
            case,
            regex.compile(
                rf"(?<![\w.])(?:{'|'.join(map(regex.escape, words.split()))}) (?:(?:минус|minus) )?(?:[0-9]+ (?:и|или|i|lub|a|-|–) )?\Z",
                regex.IGNORECASE,
            ),
        )
        for case, words in cases.items()
    ]
    for name, cases in _ASKS.items()
}
_BEFORE["pl"].insert(0, ("g", regex.compile(r"\bnie (?:ma|było|będzie) \Z", regex.IGNORECASE)))
_SHOWS = {
    "ru": {
        "i": r"(?:ами|ями)", "l": r"(?:ах|ях)", "d": r"(?<!\b(?:др|рекл|панор))(?:ам|ям)",
    },
    "pl": {"i": r"(?:a|ć|ź|ś)mi", "l": r"ach", "d": r"(?<!\b(?:at|dypl|idi))om"},
}  # fmt: skip
_BEHIND = {
    name: [
        (case, regex.compile(rf" (?:\p{{L}}+(?:ых|их|ым|им|ыми|ими|ych|ich|ym|im|ymi|imi) )?\p{{L}}{{2,}}{end}\b"))
        for case, end in ends.items()
    ]
    for name, ends in _SHOWS.items()
}
"""Endings of plurals that only one case has."""
_PERSONS = regex.compile(
    r" (?:\p{L}+ych |\p{L}+ich )?(?:mężczyzn|panów|ludzi|chłopców|uczniów|studentów|żołnierzy|pracowników|nauczycieli|lekarzy|kolegów|przyjaciół|"
    r"braci|synów|obywateli|mieszkańców|policjantów|klientów|użytkowników|turystów|gości|kandydatów|zawodników|graczy|sędziów|posłów)\b"
)
"""Polish: men are counted with the genitive's form."""
NEAR_CHARACTERS = 60
"""How far before and behind a number its case is looked for."""


def case_of(before: str, after: str, name: str) -> str:
    """The case of a number between these parts of a sentence."""
    before, after = before[-NEAR_CHARACTERS:], after[:NEAR_CHARACTERS]
    for case, noun in _BEHIND[name]:
        if noun.match(after):
            return case
    found = next((case for case, words in _BEFORE[name] if words.search(before)), "n")
    if name == "ru" and found == "i" and regex.search(r"\bсо? \Z", before, regex.IGNORECASE):
        return "g" if regex.match(r"[^.,;]{0,20} до\b", after) else "i"
    if name == "pl" and found in "na" and _PERSONS.match(after):
        return "g"
    return found


def is_singular(n: int, name: str) -> bool:
    """Whether a noun behind the number is in the singular: Russian's is behind 21, too."""
    return n == 1 or (name == "ru" and n % 10 == 1 and n % 100 != 11)


@lru_cache(4096)
def cardinal_in(n: int, name: str, case: str, gender: str) -> str:
    """The words of a number in a case, before a noun of a gender: "m", "f" or "n"."""
    if name == "ru":
        return str(num2words(n, lang="ru", case="p" if case == "l" else case, gender=gender or "m", animate=False))
    if case == "n" or (case == "a" and not (n == 1 and gender == "f")):
        return "jedno" if n == 1 and gender == "n" else cardinal(n, "pl", gender)
    if n == 1:
        return (
            {"g": "jednego", "d": "jednemu", "i": "jednym", "l": "jednym"}[case] if gender != "f" else "jedną" if case in "ai" else "jednej"
        )
    return " ".join(_polish_cardinal(word, case, gender) for word in cardinal(n, "pl").split())


_PL_SMALL = {
    "zero": ("zera", "zeru", "zerem", "zerze"), "dwa": ("dwóch", "dwóm", "dwoma", "dwóch"), "trzy": ("trzech", "trzem", "trzema", "trzech"),
    "cztery": ("czterech", "czterem", "czterema", "czterech"), "sto": ("stu",) * 4, "dwieście": ("dwustu",) * 4, "trzysta": ("trzystu",) * 4,
    "czterysta": ("czterystu",) * 4, "tysiąc": ("tysiąca", "tysiącowi", "tysiącem", "tysiącu"), "milion": ("miliona", "milionowi", "milionem", "milionie"),
    "miliard": ("miliarda", "miliardowi", "miliardem", "miliardzie"),
} | {few: (many, stem + "om", stem + "ami", stem + "ach") for stem, many in (("tysiąc", "tysięcy"), ("milion", "milionów"), ("miliard", "miliardów"))
     for few in (many, stem + ("e" if stem == "tysiąc" else "y"))} | {
    word: (stem + "u", stem + "u", stem + "oma", stem + "u")
    for word, stem in (
        ("pięć", "pięci"), ("sześć", "sześci"), ("siedem", "siedmi"), ("osiem", "ośmi"), ("dziewięć", "dziewięci"), ("dziesięć", "dziesięci"),
        ("dwanaście", "dwunast"), ("dwadzieścia", "dwudziest"), ("trzydzieści", "trzydziest"), ("czterdzieści", "czterdziest"),
    )
}  # fmt: skip
"""Genitive, dative, instrumental and locative."""


def _polish_cardinal(word: str, case: str, gender: str) -> str:
    if word == "dwa" and case == "i" and gender == "f":
        return "dwiema"
    if forms := _PL_SMALL.get(word):
        return forms["gdil".index(case)]
    if word.endswith("naście"):
        return word.removesuffix("naście") + ("nastoma" if case == "i" else "nastu")
    if word.endswith("dziesiąt"):
        return word.removesuffix("dziesiąt") + ("dziesięcioma" if case == "i" else "dziesięciu")
    if word.endswith("set"):
        return f"{_polish_cardinal(word.removesuffix('set'), 'g', '')}set"
    return word


def joining(n: int, name: str) -> str:
    """A number as the beginning of a word, such as "десяти" of "десятилетний"."""
    if name == "ru":
        alone = {1: "одно", 40: "сорока", 90: "девяносто", 100: "сто", 1000: "тысяче"}
        return alone.get(n) or cardinal_in(n, "ru", "g", "m").replace("девяноста", "девяносто").replace("ста ", "сто ").replace(" ", "")
    small = {"jeden": "jedno", "dwa": "dwu", "trzy": "trzy", "cztery": "cztero", "sto": "stu"}
    words = cardinal(n, "pl").split()
    return "".join(small.get(word) or _polish_cardinal(word, "g", "").removesuffix("u") + "o" for word in words)


def ordinal_in(n: int, name: str, case: str, gender: str = "m", plural: bool = False) -> str:
    """An ordinal in a case and a gender ("m", "f" or "n")."""
    if name == "ru":
        said = num2words(n, lang="ru", to="ordinal", case="p" if case == "l" else case, gender=gender, plural=plural, animate=False)
        return str(said).removeprefix("одна ")
    return " ".join(_polish_ordinal(word, case, "p" if plural else gender) for word in _polish_words(n))


def _polish_words(n: int) -> list[str]:
    return ["dwutysięczny"] if n == 2000 else str(num2words(n, lang="pl", to="ordinal")).split()


def _polish_ordinal(word: str, case: str, gender: str) -> str:
    if word[-1] not in "yi" or word in ("trzy", "cztery"):
        return word
    stem = word.removesuffix("y")
    if gender == "f":
        nominative = (stem.removesuffix("i") if stem.endswith("gi") else stem) + "a"
        return nominative if case == "n" else nominative[:-1] + "ą" if case in "ai" else stem + "ej"
    if gender == "p":
        return {"n": stem + "e", "a": stem + "e", "d": word + "m", "i": word + "mi"}.get(case, word + "ch")
    return {
        "n": stem + "e" if gender == "n" else word,
        "a": stem + "e" if gender == "n" else word,
        "g": stem + "ego",
        "d": stem + "emu",
    }.get(case, word + "m")


def decline(forms: Forms, case: str, singular: bool, name: str) -> str:
    """A counted noun in an oblique case. `forms` are those behind one, two and five; a noun may be several words, such as "градус Цельсия"."""
    words = [form.split(" ") for form in forms]
    if len({len(form) for form in words}) > 1:
        return forms[2]
    adjectives = {i for i, word in enumerate(words[2]) if word.endswith(("ых", "их", "ych", "ich")) and len(words[2]) > 1}
    noun = next(i for i in range(len(words[2])) if i not in adjectives)
    changes = {noun, *adjectives} if name == "ru" or adjectives else {noun}
    said = []
    for i, (one, few, many) in enumerate(zip(*words, strict=True)):
        if i not in changes:
            said.append(one)
        elif i in adjectives:
            said.append(_adjective(one, many, case, singular, name))
        else:
            said.append((_russian if name == "ru" else _polish)(one, few, many, case, singular))
    return " ".join(said)


def _adjective(one: str, many: str, case: str, singular: bool, name: str) -> str:
    if name == "ru":
        endings = (
            {"g": "ого", "d": "ому", "i": "ым", "l": "ом", "a": "ый"}
            if singular
            else {"g": "ых", "d": "ым", "i": "ыми", "l": "ых", "a": "ых"}
        )
        return one[:-2] + endings[case]
    if not singular:
        return many[:-1] + {"g": "h", "l": "h"}.get(case, "") if case in "gl" else many[:-2] + {"d": "m", "i": "mi", "a": "ch"}[case]
    return _polish_ordinal(one, case, "m")


def _russian(one: str, few: str, many: str, case: str, singular: bool) -> str:
    if one == few or case == "n":  # "евро"
        return one if singular else many
    if case == "a":
        return {"а": one[:-1] + "у", "я": one[:-1] + "ю"}.get(one[-1], one) if singular else many
    if case == "g":
        return few if singular else many
    stem, end = few[:-1], few[-1]  # the genitive of the singular
    soft = end == "я" or (end == "и" and stem[-1] not in "гкхжчшщ")
    if not singular:
        return stem + ("я" if soft else "а") + {"d": "м", "i": "ми", "l": "х"}[case]
    if end in "ая":
        return stem + {"d": "ю" if soft else "у", "i": "ем" if soft else "ом", "l": "е"}[case]
    return stem + {"d": "е", "i": "ей" if soft else "ой", "l": "е"}[case]


def _polish(one: str, few: str, many: str, case: str, singular: bool) -> str:
    if one == few:  # "euro"
        return one
    if one.endswith("y"):  # "złoty"
        return _polish_ordinal(one, case, "m" if singular else "p") if singular or case != "a" else few
    if not singular:
        return {"g": many, "a": few}.get(case) or few[:-1] + {"d": "om", "i": "ami", "l": "ach"}[case]
    if one.endswith("a"):
        back = one[:-1] + ("i" if one[-2] in "kgl" else "y")
        return {"g": back, "a": one[:-1] + "ę", "i": one[:-1] + "ą"}.get(case, one)
    stem = {"stopień": "stopni"}.get(one, one)
    return {"g": stem + "a", "i": stem + "em", "d": stem + "owi"}.get(case, one)

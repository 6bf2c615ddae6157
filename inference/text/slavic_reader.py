"""How Russian and Polish read written forms: `slavic` knows the cases, this module finds where they stand."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import regex

from inference.text.numerals import LONGEST, cardinal, digits
from inference.text.reader import Match, Reader, any_of, roman, unit_pattern
from inference.text.slavic import NEAR_CHARACTERS, Forms, cardinal_in, case_of, decline, is_singular, joining, ordinal_in

_COUNTED: dict[str, dict[str, tuple[Forms, str]]] = {
    "ru": {
        "чел.": (("человек", "человека", "человек"), "m"), "шт.": (("штука", "штуки", "штук"), "f"), "экз.": (("экземпляр", "экземпляра", "экземпляров"), "m"),
        "стр.": (("страница", "страницы", "страниц"), "f"),
        "коп.": (("копейка", "копейки", "копеек"), "f"), "коп": (("копейка", "копейки", "копеек"), "f"), "мин.": (("минута", "минуты", "минут"), "f"),
        "сек.": (("секунда", "секунды", "секунд"), "f"), "ч.": (("час", "часа", "часов"), "m"), "т": (("тонна", "тонны", "тонн"), "f"),
        "га": (("гектар", "гектара", "гектаров"), "m"), "м/с²": (("метр на секунду в квадрате", "метра на секунду в квадрате", "метров на секунду в квадрате"), "m"), "м/с": (("метр в секунду", "метра в секунду", "метров в секунду"), "m"),
        "°": (("градус", "градуса", "градусов"), "m"),
    },
    "pl": {
        "szt.": (("sztuka", "sztuki", "sztuk"), "f"), "os.": (("osoba", "osoby", "osób"), "f"), "godz.": (("godzina", "godziny", "godzin"), "f"),
        "min.": (("minuta", "minuty", "minut"), "f"), "sek.": (("sekunda", "sekundy", "sekund"), "f"), "str.": (("strona", "strony", "stron"), "f"),
        "egz.": (("egzemplarz", "egzemplarze", "egzemplarzy"), "m"), "gr": (("grosz", "grosze", "groszy"), "m"), "t": (("tona", "tony", "ton"), "f"),
        "ha": (("hektar", "hektary", "hektarów"), "m"), "°": (("stopień", "stopnie", "stopni"), "m"),
        "m/s": (("metr na sekundę", "metry na sekundę", "metrów na sekundę"), "m"),
    },
}  # fmt: skip
"""Abbreviated nouns behind a number, and their gender."""
_LARGE: dict[str, dict[str, tuple[Forms, str]]] = {
    "ru": {
        "тыс.": (("тысяча", "тысячи", "тысяч"), "f"), "млн": (("миллион", "миллиона", "миллионов"), "m"),
        "млрд": (("миллиард", "миллиарда", "миллиардов"), "m"), "трлн": (("триллион", "триллиона", "триллионов"), "m"),
    },
    "pl": {
        "tys.": (("tysiąc", "tysiące", "tysięcy"), "m"), "mln": (("milion", "miliony", "milionów"), "m"), "mld": (("miliard", "miliardy", "miliardów"), "m"),
        "bln": (("bilion", "biliony", "bilionów"), "m"),
    },
}  # fmt: skip
_YEAR = {
    "ru": {"год": "n", "года": "g", "годом": "i", "годе": "l"},
    "pl": {"rok": "n", "roku": "g", "rokiem": "i", "rokowi": "d"},
}
_YEAR_ALONE, _YEARS = ("год", "года", "году", "год", "годом", "году"), ("годы", "годов", "годам", "годы", "годами", "годах")
"""In the order of n, g, d, a, i, l."""
_CENTURY = {
    "ru": {"век": "n", "века": "g", "веку": "d", "веком": "i", "веке": "l", "веков": "g", "веках": "l"},
    "pl": {"wiek": "n", "wieku": "g", "wiekiem": "i", "wiekowi": "d", "wieków": "g", "wiekach": "l"},
}
_IN = {"ru": r"\b(?:в|во|о|об|на|при)\s\Z", "pl": r"\b(?:w|we|o|po|na|przy)\s\Z"}
"""Before a noun whose form may be the locative's."""
_NEAR = {"ru": r"\b(?:к|ко)\s\Z", "pl": r"\b(?:ku)\s\Z"}
_SINGULARS = {
    "ru": {
        "этаж": ("m", {"": "n", "е": "l", "у": "d", "ом": "i"}), "класс": ("m", {"": "n", "е": "l", "у": "d", "ом": "i"}),
        "курс": ("m", {"": "n", "е": "l", "у": "d", "ом": "i"}), "ряд": ("m", {"": "n", "у": "l"}), "век": ("m", {"": "n", "е": "l", "у": "d", "ом": "i"}),
    },
    "pl": {
        "raz": ("m", {"": "n"}), "piętr": ("n", {"o": "n", "ze": "l"}), "miejsc": ("n", {"e": "n", "u": "l"}), "klas": ("f", {"a": "n", "ie": "l"}),
        "stron": ("f", {"a": "n", "ie": "l"}),
    },
}  # fmt: skip
"""Nouns in the singular, behind a number that is therefore an ordinal: "на 5 этаже"."""
_SUFFIXES = {
    "й": ("m", "n"),
    "я": ("f", "n"),
    "е": ("n", "n"),
    "го": ("m", "g"),
    "му": ("m", "d"),
    "м": ("m", "l"),
    "ю": ("f", "a"),
    "х": ("p", "g"),
    "ми": ("p", "i"),
}
"""Russian ordinals' endings behind a hyphen: gender (p: plural) and case."""
_PLACES = {
    "ru": {"ул.": ("улица", "улицы", "улице"), "пл.": ("площадь", "площади", "площади"), "г.": ("город", "города", "городе")},
    "pl": {"ul.": ("ulica", "ulicy", "ulicy"), "al.": ("aleja", "alei", "alei"), "pl.": ("plac", "placu", "placu"), "godz.": ("godzina", "godziny", "godzinie")},
}  # fmt: skip
"""Abbreviations before a name, in the nominative, the genitive and the locative, which in Russian is also the dative here."""
_DAY = {"ru": {"d": "к|ко", "a": "по|на|за", "i": "перед|между"}, "pl": {"d": "ku", "i": "przed|między|po"}}
"""Words before a day of a month, and the case that they ask for."""
_HOUR = {"g": "o|od|po|do", "i": "przed|między", "a": "na"}
"""Polish words before an hour; its genitive and its locative are the same."""
_NAMES = {
    "ru": (("а", "я"), ("Екатерина", "Елизавета", "Мария", "Анна", "Виктория", "Глава", "Часть"), {"ы": ("f", "g"), "и": ("f", "g"), "е": ("f", "l"), "у": ("m", "d"), "ю": ("m", "d"), "ом": ("m", "i"), "ем": ("m", "i"), "ой": ("f", "i")}),
    "pl": (("a",), ("Elżbieta", "Katarzyna", "Maria", "Anna", "Jadwiga", "Część"), {"y": ("f", "g"), "i": ("f", "g"), "owi": ("m", "d"), "em": ("m", "i"), "ę": ("f", "a"), "ą": ("f", "i")}),
}  # fmt: skip


class SlavicReader(Reader):
    """Russian or Polish. One class, since each method reads one written form, and all use the same tables."""

    def case(self, m: Match) -> str:
        """The case of a number that is the match's beginning, as the words before the match and behind it ask."""
        return case_of(_before(m), _after(m), self.name)

    def counted(self, written: str, forms: Forms, gender: str, case: str) -> str:
        """A number and the noun that it counts."""
        whole, decimals = self.parts(written)
        if decimals or case == "n" or len(whole) > LONGEST:
            return f"{self.say(written, gender)} {self.form(forms, written)}"
        n = int(whole)
        one = is_singular(n, self.name)
        noun = self.form(forms, written) if case == "a" and not one else decline(forms, case, one, self.name)
        return f"{cardinal_in(n, self.name, case, gender)} {noun}"

    def measured(self, m: Match) -> str:
        return self._unit(m, self.units[m[2]])

    def percent(self, m: Match) -> str:
        return self._unit(m, "percent")

    def _unit(self, m: Match, unit: str) -> str:
        case = self.case(m)
        before, after = _before(m), _after(m)
        if (self.name == "ru" and "meter" in unit and regex.search(r"(?i)\bв \Z", before) and regex.match(" от ", after)) or (
            self.name == "pl" and unit in ("minute", "second", "hour") and regex.search(r"(?i)\bpo \Z", before)
        ):
            case = "l"  # "в пяти километрах от города", "po pięciu minutach"
        if self.parts(m[1])[1] or len(m[1]) > LONGEST:
            return self.unit(m[1], unit)
        one, few, many = (unit_pattern(n, unit, self.name).replace("{} ", "") for n in (1, 2, 5))
        forms = (one, few, many + "ов" * many.endswith(("грамм", "гигабайт", "мегабайт")))
        if self.name == "pl" and unit == "percent":
            inside = case == "a" and regex.search(r"\b[wW] \Z", before)
            forms, case = ((one, few, many), case) if case in "nag" and not inside else ((one, "procenty", many), "l" if inside else case)
        return self.counted(m[1], forms, "f" if unit in self.locale.feminine else "m", case)

    def money(self, m: Match) -> str:
        written, sign = m["after"] or m["before"], m["sign_after"] or m["sign_before"]
        whole, decimals = self.parts(written)
        if m["large"] or len(decimals) not in (0, 2):
            return super().money(m)
        units, cents = self.locale.money[sign]
        case, minor = self.case(m), str(int(decimals or 0))
        said = [] if decimals and not int(whole) else [self.counted(whole, units, "m", case)]
        if int(minor):
            said.append(self.counted(minor, cents, "f" if cents[0] == "копейка" else "m", case))
        return " ".join(said) + _stop(m, sign)

    def clock(self, m: Match) -> str:
        hour, minute = int(m["hour"]), int(m["minute"] or 0)
        if hour > 24 or minute > 59:
            return m[0]
        if self.name == "pl":
            case = _asked(_HOUR, regex.sub(r"(?:godz\.|godzin[ieyą]+) \Z", "", _before(m)), "n")
            said = ordinal_in(hour, "pl", case, "f") if hour else "zero"
            return f"{said} {cardinal(minute, 'pl')}" if minute else said
        case = self.case(m)
        if not minute:
            return self.counted(str(hour), ("час", "часа", "часов"), "m", case)
        return f"{cardinal_in(hour, 'ru', case, 'm')} {'ноль ' * (minute < 10)}{cardinal_in(minute, 'ru', case, 'm')}"

    def day_and_month(self, day: int, month: str, year: str, before: str) -> str:
        """The day is an ordinal, the month a genitive."""
        said = f"{self.day(day, before)} {month}"
        return f"{said} {self.year(year)}{' года' * (self.name == 'ru')}" if year else said

    def day(self, day: int, before: str) -> str:
        """A day of a month, in the case that the words before it ask for; alone it is a genitive: on that day."""
        case = _asked(_DAY[self.name], before, "g")
        return ordinal_in(day, self.name, case, "n" if self.name == "ru" else "m")

    def days(self, m: Match) -> str:
        """Several days of one month: `1-5 мая`, and the first day of `с 1 по 5 мая`."""
        before, first = _before(m), int(m[1])
        if m[2] is None:
            return self.day(first, before)
        one, other = (
            ordinal_in(n, self.name, case, "n" if self.name == "ru" else "m")
            for n, case in ((first, "g"), (int(m[2]), "ag"[self.name == "pl"]))
        )
        return f"с {one} по {other}" if self.name == "ru" else f"od {one} do {other}"

    def year(self, written: str) -> str:
        return ordinal_in(int(written), self.name, "g")

    def first_year(self, m: Match) -> str:
        """The first year of `с 2010 по 2015 год`."""
        return ordinal_in(int(m[1]), self.name, "g")

    def years(self, m: Match) -> str:
        """`2024 году`, `2024 г.`, `2010-2015 гг.`."""
        name, noun, before = self.name, m["noun"], _before(m)
        many = noun == "гг." or noun in _YEARS
        case = "ngdail"[_YEARS.index(noun)] if noun in _YEARS else _YEAR[name].get(noun, "")
        if noun in ("году", "roku") or not case:
            case = self._in_case(before, "d" if noun == "году" else "g" if noun == "roku" else "")
        if not case:
            asked = case_of(before, "", name)
            dated = regex.search(rf"\b(?:{'|'.join(self.months)})\s\Z", before, regex.IGNORECASE)
            case = asked if asked in "gd" else "g" if dated or name == "pl" else "n"
        if noun.endswith("."):
            noun = self._year_noun(case, many)
        between = m["between"].strip(" -–—") if m["to"] else ""
        said = f" {between or '–'} ".join(ordinal_in(int(year), name, case) for year in (m["from"], m["to"]) if year)
        return f"{said} {noun}{_stop(m, m['noun'])}"

    def _year_noun(self, case: str, many: bool) -> str:
        if self.name == "pl":
            return "rok" if case in "na" else "roku"
        return (_YEARS if many else _YEAR_ALONE)["ngdail".index(case)]

    def _in_case(self, before: str, otherwise: str) -> str:
        """The locative behind "in", the dative behind "towards", the accusative behind "for" and "through"."""
        if regex.search(_IN[self.name], before, regex.IGNORECASE) and not regex.search(r"(?i)\bna\s\Z|\bна\s\Z", before):
            return "l"
        if regex.search(_NEAR[self.name], before, regex.IGNORECASE):
            return "d"
        return "a" if not otherwise and regex.search(r"(?i)\b(?:на|за|по|na|za)\s\Z", before) else otherwise

    def centuries(self, m: Match) -> str:
        """`XIX веке`, `XX в.`, `XIX-XX вв.`."""
        name, noun, before = self.name, m["noun"], _before(m)
        case = (
            _CENTURY[name].get(noun)
            or self._in_case(before, "")
            or {"g": "g", "d": "d"}.get(case_of(before, "", name), "g" if before.strip() else "n")
        )
        case = "l" if noun in ("wieku",) and self._in_case(before, "g") == "l" else case
        if noun.endswith("."):
            ru = ("века", "веков", "векам", "века", "веками", "веках") if noun == "вв." else ("век", "века", "веку", "век", "веком", "веке")
            noun = dict(zip("ngdail", ru if name == "ru" else ("wiek", "wieku", "wiekowi", "wiek", "wiekiem", "wieku"), strict=True))[case]
        said = " – ".join(ordinal_in(roman(number), name, case) for number in (m[1], m[2]) if number)
        return f"{said} {noun}{_stop(m, m['noun'])}"

    def ruler(self, m: Match) -> str:
        """`Пётр I`, `Jana Pawła II`."""
        person, endings = m[1], _NAMES[self.name]
        gender, case = next(
            (kind for end, kind in sorted(endings[2].items(), key=lambda pair: -len(pair[0])) if person.endswith(end)),
            ("f", "n") if person in endings[1] else ("m", "g") if person.endswith(endings[0]) else ("m", "n"),
        )
        said = ordinal_in(roman(m[2]), self.name, case, gender)
        chapter = person in ("Глава", "Часть", "Том", "Раздел", "Część", "Tom", "Rozdział")
        return f"{person} {said if chapter else ' '.join(word.capitalize() for word in said.split())}"

    def large(self, m: Match) -> str:
        """`5 тыс. руб.`, `2,5 mln`."""
        forms, gender = _LARGE[self.name][next(short for short in _LARGE[self.name] if short.rstrip(".") == m[3].rstrip("."))]
        if self.parts(m[2])[1]:
            said = f"{self.say(m[2])} {forms[1] if self.name == 'ru' else decline(forms, 'g', True, 'pl')}"
        else:
            said = self.counted(m[2], forms, gender, self.case(m))
        sign = m["sign"] or m["front"]
        return said + (f" {self.locale.money[sign][0][2]}" if sign else "") + _stop(m, m["sign"] or m[3])

    def things(self, m: Match) -> str:
        """`5 чел.`, `120 str.`."""
        forms, gender = _COUNTED[self.name][m[2]]
        return self.counted(m[1], forms, gender, self.case(m)) + _stop(m, m[2])

    def place(self, m: Match) -> str:
        """`на ул. Мира`, `przy ul. Długiej`."""
        nominative, genitive, locative = _PLACES[self.name][m[1].lower()]
        before = _before(m)
        if regex.search(_IN[self.name], before, regex.IGNORECASE):
            return locative
        return {"g": genitive, "d": locative, "l": locative}.get(case_of(before, "", self.name), nominative)

    def suffixed(self, m: Match) -> str:
        """Russian: `2-й`, `5-го`, `90-х`."""
        n, after = int(m[1]), _after(m)
        gender, case = _SUFFIXES[m[2]]
        if m[2] == "й" and regex.match(r" \p{L}+[еиы]\b", after):
            gender, case = "f", "g"
        if m[2] == "е" and n >= 20 and n % 10 == 0 and not regex.match(" (?:мест|числ|окн|правил|заседани|издани)", after):
            gender = "p"
        said = ordinal_in(n, "ru", case, gender, plural=gender == "p")
        if not m["years"]:
            return said
        inside = regex.search(_IN["ru"], _before(m))
        return f"{said} {'годы' if case == 'n' else 'годах' if inside else 'годов'}{_stop(m, m['years'])}"

    def year_behind(self, m: Match) -> str:
        """Polish: `rok 1999`, `w roku 1999`."""
        inside = regex.search(_IN["pl"], _before(m), regex.IGNORECASE)
        return f"{m[1]} {ordinal_in(int(m[2]), 'pl', 'n' if m[1].lower() == 'rok' else 'l' if inside else 'g')}"

    def phone(self, m: Match) -> str:
        """`8 912 345-67-89`."""
        plus = f"{self.locale.signs['+']} " if m[1] else ""
        return plus + ", ".join(digits(group, self.name) for group in regex.findall("[0-9]+", m[0]))

    def compound(self, m: Match) -> str:
        """`10-летний`, `10-letni`: one word with the number."""
        return joining(int(m[1]), self.name) + m[2]

    def pointed(self, m: Match) -> str:
        """Polish: `5. runda`, `II wojny`."""
        n, noun, before = int(m[1]) if m[1].isdecimal() else roman(m[1]), m[2], _before(m)
        inside = regex.search(_IN["pl"], before, regex.IGNORECASE) is not None
        if noun.endswith("a"):
            gender, case = ("m", "g") if case_of(before, "", "pl") == "g" else ("f", "n")
        elif noun.endswith(("ę", "ą")):
            gender, case = "f", "a"
        elif noun.endswith("u") or (inside and regex.fullmatch(_PL_NOT_FEMININE, noun)):
            gender, case = "m", "l" if inside else "g"
        elif noun.endswith("em"):
            gender, case = "m", "i"
        elif noun.endswith(("y", "i")) or (inside and noun.endswith(("ie", "ce", "dze"))):
            gender, case = "f", "g"
        else:
            gender, case = "n" if noun.endswith(("o", "e", "um")) else "m", "n"
        return ordinal_in(n, "pl", case, gender)

    def decade(self, m: Match) -> str:
        """Polish: `latach 90.`."""
        case = {"lata": "n", "lat": "g", "latach": "l", "latami": "i"}[m[1].lower()]
        return f"{m[1]} {ordinal_in(int(m[2]), 'pl', case, plural=True)}"

    def plain(self, m: Match) -> str:
        whole, decimals = self.parts(m[0])
        before, after = _before(m), _after(m)
        if decimals or len(whole) > LONGEST or (len(whole) > 1 and whole[0] == "0"):
            return self.say(m[0])
        n, noun = int(whole), regex.match(r" (\p{L}{3,})", after)
        for stem, (gender, endings) in _SINGULARS.get(self.name, {}).items():
            if noun and n > 1 and noun[1].startswith(stem) and (case := endings.get(noun[1].removeprefix(stem))):
                return ordinal_in(n, self.name, case, gender)
        case = case_of(before, after, self.name)
        if noun and case in "na" and n % 10 in (2, 3, 4) and n % 100 not in (12, 13, 14) and regex.search(_MANY[self.name], noun[1]):
            case = "g"  # "не менее 2 часов"
        gender, case = _agreement(noun[1].lower(), n, case, self.name) if noun else ("", case)
        return cardinal_in(n, self.name, case, gender)

    def rules(self) -> list[tuple[str, Callable[[Match], str]]]:
        """The rules that come before those of every language."""
        name, months = self.name, "|".join(self.months)
        day, year, numeral = "(0?[1-9]|[12][0-9]|3[01])", "[12][0-9]{3}", "[IVX]+"
        large, things = (any_of(table[name]) for table in (_LARGE, _COUNTED))
        years = "год|года|году|годом|годе|годы|годов|годах|годам|годами|гг?[.]" if name == "ru" else "rok|roku|rokiem|rokowi|r[.]"
        centuries = "век|века|веку|веком|веке|веков|веках|вв?[.]" if name == "ru" else "wiek|wieku|wiekiem|wiekowi|wieków|wiekach|w[.]"
        rules = [
            (rf"(?<![\w.,:-]){day} ?[-–—] ?{day}(?= (?i:{months})\b)", self.days),
            (rf"(?<![\w.,:-]){day}()(?= (?:по|до|и|do|i|a) {day} (?i:{months})\b)", self._first_day),
            (rf"(?<![\w.,])({year})(?= (?:по|до|do) {year} (?:{years})(?!\w))", self.first_year),
            (rf"(?<![\w.,])(?P<from>{year})(?:(?P<between> ?[-–—] ?| и | i )(?P<to>{year}))? (?P<noun>{years})(?!\w)", self.years),
            (r"(?<![\w.+-])(?:([+]?)[78][ -]?[(]?[0-9]{3}[)]?[ -])?[0-9]{3}-[0-9]{2}-[0-9]{2}(?![\w-])", self.phone),
            (r"(?<![\w.,])([0-9]{1,4})-(\p{Ll}{4,})", self.compound),
            (rf"(?<!\w)({numeral})(?: ?[-–—] ?({numeral}))? (?P<noun>{centuries})(?!\w)", self.centuries),
            (rf"(?<!\w)(\p{{Lu}}\p{{Ll}}{{2,}}) ({numeral})(?!\w|[.]\w)", self.ruler),
            (
                rf"(?<![\w.,])(?:(?P<front>[$€£]) ?)?({self.number}) ?((?:{large})[.]?)(?: ?(?P<sign>{any_of(self.locale.money)}))?(?!\w)",
                self.large,
            ),
            (rf"(?<![\w.,])({self.number}) ?({things})(?![\w²³/])", self.things),
        ]
        rules.append((rf"(?<![\w.])((?i:{any_of(_PLACES[name])}))(?= \p{{Lu}}|(?<=godz[.]) [0-9])", self.place))
        if name == "ru":
            return [*rules, (r"\b([0-9]{1,4})-(?:ы|о|и|у)?(й|я|е|го|му|м|ю|х|ми)\b(?: (?P<years>гг[.]))?", self.suffixed)]
        return [
            *rules,
            (
                r"(?<=\b(?:[Oo]|[Oo]d|[Dd]o|[Pp]o|[Nn]a|[Pp]rzed) )(?P<hour>[0-9]{1,2})(?P<minute>)(?= (?:rano|wieczorem|po południu|w nocy)\b)",
                self.clock,
            ),
            (rf"\b((?i:roku?)) ({year})\b(?! ?[-–—])", self.year_behind),
            (r"\b((?i:lata|latach|latami|lat)) ((?:1[89]|20)?[1-9]0)\b[.]?", self.decade),
            (r"(?<![\w.,])([0-9]{1,3})[.](?= (\p{Ll}{3,}))", self.pointed),
            (r"(?<!\w)(I(?= wojn)|[IVX]{2,})(?= (\p{Ll}{3,}))", self.pointed),
        ]

    def _first_day(self, m: Match) -> str:
        return self.day(int(m[1]), _before(m))


def _agreement(noun: str, n: int, case: str, name: str) -> tuple[str, str]:
    """The gender of a noun in a sentence, by its ending behind one and two, and the case, which that may show, too."""
    one = is_singular(n, name)
    if name == "ru":
        if one:
            if noun.endswith(("у", "ю")) and case in "na":
                return "f", "a"
            endings = {"g": ("ы", "и"), "d": ("е", "и"), "i": ("ой", "ей", "ью"), "l": (), "a": ("у", "ю"), "n": ("а", "я")}[case]
            return ("n" if case in "na" and noun.endswith(("о", "ие", "ье")) else "f" if noun.endswith(endings) else "m"), case
        return ("f" if n % 10 == 2 and noun.endswith(("ы", "и")) else "m"), case
    if one:
        if noun.endswith("ę") and case == "a":
            return "f", "a"
        case = "l" if case == "a" and noun.endswith(("u", "ie")) else case
        endings = {"g": ("y", "i"), "d": ("ie", "i", "y"), "i": ("ą",), "l": ("i", "y"), "a": ("ę",), "n": ("a",)}[case]
        return ("n" if case in "na" and noun.endswith(("o", "e", "um")) else "f" if noun.endswith(endings) else "m"), case
    return ("f" if regex.search(_PL_FEMININE, noun) or (case == "i" and regex.search(_PL_FEMININE_I, noun)) else "m"), case


_MANY = {
    "ru": r"(?:ов|ев|ей|минут|секунд|книг|человек|лет|недель|стран|страниц|тонн)\Z", "pl": r"(?:ów|godzin|osób|minut|sekund|książek|stron|miesięcy|tygodni|lat)\Z",
}  # fmt: skip
"""Genitives of the plural, which behind two to four no other case explains."""
_PL_NOT_FEMININE = r"(?:piętrz|mieści|świeci|etapi|sezoni|akapici|artykul|tomi|kwartal|plani|rozdzial)e"
_PL_FEMININE = (
    r"(?:godziny|minuty|sekundy|osoby|strony|tony|mile|kobiety|kawy|herbaty|wody|butelki|łyżki|siostry|ręce|nogi|noce|rzeczy|części|grupy|firmy|"
    r"rodziny|ulice|próby|doby|zmiany|książki|córki|klasy|szkoły|cje|sje|zje|ości|czki|szki|żki|łki|yny|iny)\Z"
)
_PL_FEMININE_I = r"(?:cjami|siostrami|córkami|osobami|kobietami|godzinami|minutami|książkami|czkami|inami|nogami|rękami)\Z"


def _before(m: Match) -> str:
    """The last words before a match: to look at all of them for each number would take minutes in a long text."""
    return m.string[max(0, m.start() - NEAR_CHARACTERS) : m.start()]


def _after(m: Match) -> str:
    return m.string[m.end() : m.end() + NEAR_CHARACTERS]


def _asked(words: Mapping[str, str], before: str, otherwise: str) -> str:
    """The case whose words stand before a number."""
    return next(
        (case for case, any_word in words.items() if regex.search(rf"(?i)(?<!\w)(?:{any_word})\s\Z", before[-NEAR_CHARACTERS:])), otherwise
    )


def _stop(m: Match, short: str) -> str:
    """The full stop of an abbreviation that also ends the sentence."""
    return "." * (short.endswith(".") and not _after(m).strip(" \n\"'”»)"))

"""How languages besides English say signs, money, times and abbreviations; libraries know the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Forms = tuple[str, ...]
"""A noun after one, after several, and for Russian and Polish also after many: Unicode's plural categories one, (few,) many."""


@dataclass(frozen=True)
class Locale:
    """One language. `{}` stands for the number's words. An empty `percent` is a unit.

    `decimal` is written between a number's whole and its decimals and `group` between thousands (in a class of a regular expression).
    `comma` and `point` are their names. `one` are the masculine and the feminine form of a trailing one before a noun, and `two` those
    of two, where they differ from the number's own words. `hours` has a pattern for a full hour and one with minutes. In `abbreviations`,
    "M.>A" is read before a capital letter only, "n.>9" before a number, "9<r." behind one.
    """

    decimal: str
    group: str
    comma: str
    point: str
    minus: str
    to: str
    percent: str
    hours: tuple[str, str]
    date: str
    cents: str = " {}"
    one: tuple[str, str] | None = None
    two: tuple[str, str] | None = None
    feminine: frozenset[str] = frozenset()
    money: Mapping[str, tuple[Forms, Forms]] = field(default_factory=dict)
    signs: Mapping[str, str] = field(default_factory=dict)
    abbreviations: Mapping[str, str] = field(default_factory=dict)
    years: bool = False
    spaced: bool = True


_FEMININE = {
    "de": "minute second hour ton mile week", "fr": "minute second hour ton ounce pound", "es": "hour ton mile ounce pound week",
    "it": "hour ton ounce pound", "pt": "hour ton mile ounce pound week", "pl": "minute second hour ton mile", "ru": "minute second hour ton mile",
    "ar": "minute second hour",
}  # fmt: skip
"""Units, in CLDR's names, whose noun is feminine."""


def _feminine(name: str) -> frozenset[str]:
    return frozenset(_FEMININE[name].split())


def _abbreviations(text: str) -> dict[str, str]:
    """Lines of `abbreviation=words`."""
    return dict(line.strip().split("=") for line in text.strip().splitlines())


LOCALES: dict[str, Locale] = {
    "de": Locale(
        ",", ". ", "Komma", "Punkt", "minus", "bis", "{} Prozent", ("{} Uhr", "{} Uhr {}"), "{day} {month} {year}",
        one=("ein", "eine"), feminine=_feminine("de"), years=True,
        money={
            "€": (("Euro", "Euro"), ("Cent", "Cent")), "$": (("Dollar", "Dollar"), ("Cent", "Cent")), "£": (("Pfund", "Pfund"), ("Pence", "Pence")),
            "CHF": (("Franken", "Franken"), ("Rappen", "Rappen")),
        },
        signs={"²": "hoch zwei", "^": "hoch", "&": "und", "=": "gleich", "+": "plus", "×": "mal", "÷": "geteilt durch", "§": "Paragraf", "@": "at", "½": "einhalb"},
        abbreviations=_abbreviations("""
            z. B.=zum Beispiel
            z.B.=zum Beispiel
            d. h.=das heißt
            d.h.=das heißt
            u. a.=unter anderem
            u.a.=unter anderem
            usw.=und so weiter
            bzw.=beziehungsweise
            ca.=circa
            evtl.=eventuell
            ggf.=gegebenenfalls
            vgl.=vergleiche
            Nr.=Nummer
            Dr.=Doktor
            Prof.=Professor
            Mio.=Millionen
            Mrd.=Milliarden
            Str.=Straße
            St.>A=Sankt
            Std.=Stunden
        """),
    ),
    "fr": Locale(
        ",", " .", "virgule", "point", "moins", "à", "{} pour cent", ("{} heures", "{} heures {}"), "{day} {month} {year}",
        one=("un", "une"), feminine=_feminine("fr"), cents=" {}",
        money={
            "€": (("euro", "euros"), ("centime", "centimes")), "$": (("dollar", "dollars"), ("cent", "cents")),
            "£": (("livre", "livres"), ("penny", "pence")), "CHF": (("franc", "francs"), ("centime", "centimes")),
        },
        signs={"²": "au carré", "^": "puissance", "&": "et", "=": "égale", "+": "plus", "×": "fois", "÷": "divisé par", "@": "arobase", "½": "un demi"},
        abbreviations=_abbreviations("""
            M.>A=Monsieur
            MM.=Messieurs
            Mme=Madame
            Mlle=Mademoiselle
            Dr>A=Docteur
            etc.=et cetera
            p. ex.=par exemple
            c.-à-d.=c'est-à-dire
            n°=numéro
            N°=numéro
            av. J.-C.=avant Jésus-Christ
            apr. J.-C.=après Jésus-Christ
            env.=environ
            bd>A=boulevard
            av.>A=avenue
            janv.=janvier
            févr.=février
            juil.=juillet
            sept.=septembre
            oct.=octobre
            nov.=novembre
            déc.=décembre
        """),
    ),
    "es": Locale(
        ",", ". ", "coma", "punto", "menos", "a", "{} por ciento", ("{} horas", "{} y {}"), "{day} de {month} de {year}",
        one=("un", "una"), feminine=_feminine("es"), cents=" con {}",
        money={
            "€": (("euro", "euros"), ("céntimo", "céntimos")), "$": (("dólar", "dólares"), ("centavo", "centavos")),
            "£": (("libra", "libras"), ("penique", "peniques")),
        },
        signs={"²": "al cuadrado", "^": "elevado a", "&": "y", "=": "igual a", "+": "más", "×": "por", "÷": "dividido por", "@": "arroba", "½": "medio"},
        abbreviations=_abbreviations("""
            Sr.=señor
            Sra.=señora
            Srta.=señorita
            Sres.=señores
            Dr.=doctor
            Dra.=doctora
            D.>A=don
            Dña.=doña
            Ud.=usted
            Uds.=ustedes
            EE. UU.=Estados Unidos
            EE.UU.=Estados Unidos
            etc.=etcétera
            p. ej.=por ejemplo
            núm.=número
            n.º=número
            N.º=número
            pág.=página
            págs.=páginas
            a. C.=antes de Cristo
            d. C.=después de Cristo
            Avda.=avenida
            aprox.=aproximadamente
        """),
    ),
    "it": Locale(
        ",", ". ", "virgola", "punto", "meno", "a", "{} per cento", ("{}", "{} e {}"), "{day} {month} {year}",
        one=("un", "una"), feminine=_feminine("it"), cents=" e {}",
        money={
            "€": (("euro", "euro"), ("centesimo", "centesimi")), "$": (("dollaro", "dollari"), ("centesimo", "centesimi")),
            "£": (("sterlina", "sterline"), ("penny", "pence")),
        },
        signs={"²": "al quadrato", "^": "alla", "&": "e", "=": "uguale", "+": "più", "×": "per", "÷": "diviso", "@": "chiocciola", "½": "mezzo"},
        abbreviations=_abbreviations("""
            Sig.=signor
            Sig.ra=signora
            Sig.na=signorina
            Dott.=dottor
            Dott.ssa=dottoressa
            Prof.=professor
            Avv.=avvocato
            Ing.=ingegner
            ecc.=eccetera
            p. es.=per esempio
            pag.>9=pagina
            n.>9=numero
            a.C.=avanti Cristo
            d.C.=dopo Cristo
        """),
    ),
    "pt": Locale(
        ",", ". ", "vírgula", "ponto", "menos", "a", "{} por cento", ("{} horas", "{} e {}"), "{day} de {month} de {year}",
        one=("um", "uma"), two=("dois", "duas"), feminine=_feminine("pt"), cents=" e {}",
        money={
            "€": (("euro", "euros"), ("cêntimo", "cêntimos")), "R$": (("real", "reais"), ("centavo", "centavos")),
            "$": (("dólar", "dólares"), ("centavo", "centavos")), "£": (("libra", "libras"), ("pêni", "pence")),
        },
        signs={"²": "ao quadrado", "^": "elevado a", "&": "e", "=": "igual a", "+": "mais", "×": "vezes", "÷": "dividido por", "@": "arroba", "½": "meio"},
        abbreviations=_abbreviations("""
            Sr.=senhor
            Sra.=senhora
            Srta.=senhorita
            Dr.=doutor
            Dra.=doutora
            Prof.=professor
            Exmo.=excelentíssimo
            etc.=etcetera
            p. ex.=por exemplo
            n.º=número
            nº=número
            pág.=página
            Av.=avenida
            a.C.=antes de Cristo
            d.C.=depois de Cristo
            aprox.=aproximadamente
        """),
    ),
    "nl": Locale(
        ",", ". ", "komma", "punt", "min", "tot", "{} procent", ("{} uur", "{} uur {}"), "{day} {month} {year}", years=True,
        money={
            "€": (("euro", "euro"), ("cent", "cent")), "$": (("dollar", "dollar"), ("cent", "cent")), "£": (("pond", "pond"), ("pence", "pence")),
        },
        signs={"²": "kwadraat", "^": "tot de macht", "&": "en", "=": "is gelijk aan", "+": "plus", "×": "keer", "÷": "gedeeld door", "@": "apenstaartje", "½": "een half"},
        abbreviations=_abbreviations("""
            bijv.=bijvoorbeeld
            bv.=bijvoorbeeld
            d.w.z.=dat wil zeggen
            enz.=enzovoort
            o.a.=onder andere
            m.b.t.=met betrekking tot
            t/m=tot en met
            dhr.=de heer
            mevr.=mevrouw
            dr.=dokter
            prof.=professor
            nr.=nummer
            ca.=circa
            blz.=bladzijde
            a.u.b.=alstublieft
        """),
    ),
    "pl": Locale(
        ",", " .", "przecinek", "kropka", "minus", "do", "{} procent", ("{}", "{} {}"), "{day} {month} {year}",
        one=("jeden", "jedna"), two=("dwa", "dwie"), feminine=_feminine("pl"),
        money={
            "zł": (("złoty", "złote", "złotych"), ("grosz", "grosze", "groszy")), "€": (("euro", "euro", "euro"), ("cent", "centy", "centów")),
            "$": (("dolar", "dolary", "dolarów"), ("cent", "centy", "centów")), "£": (("funt", "funty", "funtów"), ("pens", "pensy", "pensów")),
        },
        signs={"²": "do kwadratu", "^": "do potęgi", "&": "i", "=": "równa się", "+": "plus", "×": "razy", "÷": "podzielić przez", "@": "małpa", "½": "pół"},
        abbreviations=_abbreviations("""
            np.=na przykład
            tzn.=to znaczy
            itd.=i tak dalej
            itp.=i tym podobne
            ok.>9=około
            dr>A=doktor
            prof.=profesor
            ul.=ulica
            al.>A=aleja
            godz.=godzina
            str.>9=strona
            s.>9=strona
            nr>9=numer
            art.>9=artykuł
            ust.>9=ustęp
            pkt>9=punkt
            rys.>9=rysunek
            tab.>9=tabela
            poz.>9=pozycja
            tel.>9=telefon
            tj.=to jest
            tzw.=tak zwany
            m.in.=między innymi
            wg=według
            pt.=pod tytułem
            im.>A=imienia
            pl.>A=plac
            os.>A=osiedle
            św.>A=święty
            ks.>A=ksiądz
            mgr>A=magister
            inż.>A=inżynier
            dr hab.=doktor habilitowany
            hab.=habilitowany
            gen.>A=generał
            br.=bieżącego roku
            p.n.e.=przed naszą erą
            n.e.=naszej ery
            9<r.=roku
        """),
    ),
    "ru": Locale(
        ",", " ", "запятая", "точка", "минус", "до", "", ("{} часов", "{} {}"), "{day} {month} {year} года",
        one=("один", "одна"), two=("два", "две"), feminine=_feminine("ru"),
        money={
            "₽": (("рубль", "рубля", "рублей"), ("копейка", "копейки", "копеек")),
            "руб.": (("рубль", "рубля", "рублей"), ("копейка", "копейки", "копеек")),
            "руб": (("рубль", "рубля", "рублей"), ("копейка", "копейки", "копеек")),
            "р.": (("рубль", "рубля", "рублей"), ("копейка", "копейки", "копеек")),
            "€": (("евро", "евро", "евро"), ("цент", "цента", "центов")), "$": (("доллар", "доллара", "долларов"), ("цент", "цента", "центов")),
            "£": (("фунт", "фунта", "фунтов"), ("пенс", "пенса", "пенсов")),
        },
        signs={"²": "в квадрате", "^": "в степени", "&": "и", "=": "равно", "+": "плюс", "×": "умножить на", "÷": "разделить на", "@": "собака", "№": "номер", "½": "половина"},
        abbreviations=_abbreviations("""
            т. е.=то есть
            т.е.=то есть
            и т. д.=и так далее
            и т.д.=и так далее
            и т. п.=и тому подобное
            и т.п.=и тому подобное
            и др.=и другие
            т. к.=так как
            т.к.=так как
            напр.=например
            см.=смотри
            ул.=улица
            просп.=проспект
            им.=имени
            стр.>9=страница
            с.>9=страница
            рис.>9=рисунок
            табл.>9=таблица
            гл.>9=глава
            ст.>9=статья
            п.>9=пункт
            т.>9=том
            д.>9=дом
            кв.>9=квартира
            корп.>9=корпус
            тел.>9=телефон
            ок.>9=около
            т. н.=так называемый
            т.н.=так называемый
            в т. ч.=в том числе
            в т.ч.=в том числе
            и пр.=и прочее
            до н. э.=до нашей эры
            до н.э.=до нашей эры
            н. э.=нашей эры
            н.э.=нашей эры
            г.>A=город
            пл.>A=площадь
            пр-т=проспект
            обл.=область
            р-н=район
            проф.=профессор
            акад.=академик
            доц.=доцент
            д-р=доктор
            г-н=господин
            г-жа=госпожа
            св.>A=святой
            9<г.=года
            гг.=годы
        """),
    ),
    "ar": Locale(
        ".٫", ",٬", "فاصلة", "نقطة", "ناقص", "إلى", "{} بالمئة", ("{}", "{} و {}"), "{day} {month} {year}", feminine=_feminine("ar"), cents=" و {}",
        money={"$": (("دولار", "دولارات", "دولار"), ("سنت", "سنتات", "سنت")), "€": (("يورو", "يورو", "يورو"), ("سنت", "سنتات", "سنت"))},
        signs={"&": "و", "=": "يساوي", "+": "زائد", "×": "ضرب", "÷": "على", "½": "نصف"},
        abbreviations={"د.": "دكتور", "إلخ": "إلى آخره"},
    ),
    "ja": Locale(
        ".", ",", "点", "点", "マイナス", "から", "{}パーセント", ("{}時", "{}時{}分"), "{year}年{month}{day}日", spaced=False, cents="{}",
        money={
            "円": (("円", "円"), ("銭", "銭")), "¥": (("円", "円"), ("銭", "銭")), "￥": (("円", "円"), ("銭", "銭")),
            "$": (("ドル", "ドル"), ("セント", "セント")), "€": (("ユーロ", "ユーロ"), ("セント", "セント")),
        },
        signs={"&": "アンド", "=": "イコール", "+": "プラス", "×": "かける", "÷": "わる", "℃": "度", "½": "二分の一"},
    ),
    "ko": Locale(
        ".", ",", "점", "점", "마이너스", "에서", "{} 퍼센트", ("{} 시", "{} 시 {} 분"), "{year}년 {month} {day}일", cents=" {}",
        money={
            "₩": (("원", "원"), ("전", "전")), "원": (("원", "원"), ("전", "전")), "$": (("달러", "달러"), ("센트", "센트")),
            "€": (("유로", "유로"), ("센트", "센트")),
        },
        signs={"&": "앤드", "=": "는", "+": "더하기", "×": "곱하기", "÷": "나누기", "½": "이분의 일"},
    ),
    "zh": Locale(
        ".", ",，", "点", "点", "负", "到", "百分之{}", ("{}点", "{}点{}分"), "{year}年{month}{day}日", spaced=False, cents="{}",
        money={
            "元": (("元", "元"), ("分", "分")), "¥": (("元", "元"), ("分", "分")), "￥": (("元", "元"), ("分", "分")),
            "$": (("美元", "美元"), ("美分", "美分")), "€": (("欧元", "欧元"), ("欧分", "欧分")), "£": (("英镑", "英镑"), ("便士", "便士")),
        },
        signs={"&": "和", "=": "等于", "+": "加", "×": "乘以", "÷": "除以", "℃": "摄氏度", "½": "二分之一"},
    ),
}  # fmt: skip
UNITS = {
    "km/h": "kilometer-per-hour", "km²": "square-kilometer", "m²": "square-meter", "m³": "cubic-meter", "km": "kilometer", "cm": "centimeter",
    "mm": "millimeter", "m": "meter", "kg": "kilogram", "mg": "milligram", "g": "gram", "l": "liter", "L": "liter", "ml": "milliliter",
    "h": "hour", "min": "minute", "s": "second", "ms": "millisecond", "°C": "celsius", "kW": "kilowatt", "kWh": "kilowatt-hour",
    "W": "watt", "V": "volt", "Hz": "hertz", "kHz": "kilohertz", "MHz": "megahertz", "GHz": "gigahertz", "KB": "kilobyte", "MB": "megabyte",
    "GB": "gigabyte", "TB": "terabyte",
}  # fmt: skip
"""Signs of units, with the ends of CLDR's names for them."""
CYRILLIC_UNITS = {
    "км/ч": "kilometer-per-hour", "км²": "square-kilometer", "м²": "square-meter", "км": "kilometer", "см": "centimeter", "мм": "millimeter",
    "м": "meter", "кг": "kilogram", "г": "gram", "л": "liter", "мл": "milliliter", "ч": "hour", "мин": "minute", "сек": "second",
    "кВт": "kilowatt", "ГБ": "gigabyte", "МБ": "megabyte",
}  # fmt: skip
ARABIC_UNITS = {"كم": "kilometer", "كغ": "kilogram", "كجم": "kilogram", "سم": "centimeter", "م": "meter", "°م": "celsius"}

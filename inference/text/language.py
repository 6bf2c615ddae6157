"""Finds the language of a sentence by its script, and for Latin letters by frequent short words.

A detector with a model, such as lingua, is better at single words, but weighs 100 MB and more.
"""

from __future__ import annotations

from collections import Counter

import regex

from inference.text.sentences import sentences

ENGLISH = "en"
_SCRIPTS = {
    "ja": regex.compile(r"[\p{Hiragana}\p{Katakana}]"),
    "ko": regex.compile(r"\p{Hangul}"),
    "zh": regex.compile(r"\p{Han}"),
    "ar": regex.compile(r"[\p{Arabic}&&\p{L}]", regex.V1),
    "ru": regex.compile(r"\p{Cyrillic}"),
}
"""In the order in which they are looked for: Japanese has Han characters, too."""
_LATIN = regex.compile(r"\p{Latin}")
_FEW = 0.3
"""A name in another script, up to this share of all letters, does not make a sentence one of that language."""
_WORD = regex.compile(r"(?<![\w.])\p{Latin}(?:[\p{Latin}\p{M}]++|(?!\.))(?!\w)")
"""A letter with a full stop is an abbreviation."""
_WORDS = {
    "en": """
        a about after again all also always am an and any are around as at away back be because been before being between both but by call came
        can come could day did do does done down each even every few find first for found from get give go good great had has have he help her
        here him his how i if in into is it its just keep know last left let like little long look made make man many may me mean meet more
        most much must my name need never new next no not nothing now of off old on once one only open or other our out over own part people
        per place please plus put read really right said same saw say see she should show small so some still such take tell than thank that the
        their them then there these they thing think this those three time to today tomorrow too took two under until up us use very wait
        want war was way we well went were what when where which while who why will with without word work world would year yes yet you your
    """,
    "de": """
        aber als am an auch auf aus bei beim bin bis das dass dem den der des die doch du ein eine einem einen einer es für gegen geht hat
        haben hier ich ihr im in ist ja kein keine kostet man mehr mit nach nicht nie noch nur oder ohne schon sehr sich sie sind so über um und
        uns vom von vor war waren was wenn wie wir wird wurde zu zum zur zwischen heute morgen uhr seit jahre jahren
    """,
    "fr": """
        à au aux avec ce ces cette coûte dans de depuis des du elle elles en est et été être fait il ils je jusqu l'a la le les leur mais
        ne nous on ont ou où par pas plus pour près qu que qui sa sans se ses son sont sous sur tout très tu un une vers vous a est
        aujourd'hui demain heures ans y
    """,
    "es": """
        a al como con cuesta de del desde donde dos el ella en entre era es esta está este esto fue ha hace hasta hay la las le les lo los
        más me mi muy no nos o para pero por porque que se ser si sin son su sus también tiene todo tu un una uno y ya años hoy mañana
    """,
    "it": """
        a ai al alla alle anche che ci come con da dal dalla de degli dei del della delle di dove è ed e era fa fino fu gli ha hanno
        ho i il in io la le lo ma mi nel nella non o per perché più quando questa questo se si sono su sua suo sul tra un una uno anni oggi
        domani circa
    """,
    "nl": """
        aan als bij dan dat de der deze die dit door een en er geen had heb hebben heeft het hij hoe ik in is je kan kost maar meer met mij
        na naar niet nog nu of om onder ons ook op over te tot uit uur van veel voor was wat we wij worden wordt zal ze zich zij zijn jaar
        vandaag morgen
    """,
    "pl": """
        a ale bez był była było być co czy dla do i ich ile ja jak jest jeszcze już kosztuje ku ma mnie na nad nie niż o od on ona oni po
        pod przed przez przy są się ta tak tam te to tu ty tylko w we więc z za ze że lat roku dziś jutro godzinie godziny około wynosi
    """,
    "pt": """
        a ao aos às até com como custa da das de desde dia do dos e é ela ele em entre era essa esse esta está este eu foi há isso já mais
        mas me meu muito na não nas no nos o os ou para pela pelo por porque que quem se sem ser são seu sua também tem um uma você anos
        hoje amanhã às
    """,
}
"""What people write most: articles, pronouns, prepositions, forms of "to be", and words beside prices and times."""
_HAS = {
    "de": regex.compile(r"[ßäöü]"),
    "fr": regex.compile(r"[çœèêùûîâ]|\b(?:[dljmnst]|qu)['’](?=[aeéèêiouhy])"),
    "es": regex.compile(r"[ñ¿¡]"),
    "it": regex.compile(r"[òìù]|\b(?:l|un|d|dell|nell|all)['’](?=[aeiou])"),
    "nl": regex.compile(r"ij|\boe|ë"),
    "pl": regex.compile(r"[ąęłńśźżć]"),
    "pt": regex.compile(r"[ãõ]|ç[ãõa]"),
}
_LANGUAGES_OF = {word: [name for name, words in _WORDS.items() if word in words.split()] for word in " ".join(_WORDS.values()).split()}


def language(sentence: str, otherwise: str = ENGLISH) -> str:
    """The language of a sentence, in two letters: en, zh, ja, de, fr, es, ko, ar, ru, nl, it, pl or pt; `otherwise` where nothing shows it."""
    if other := None if sentence.isascii() else _by_script(sentence):
        return "ja" if (other, otherwise) == ("zh", "ja") else other
    likely = _latin(sentence)
    return (
        otherwise if not likely or otherwise in likely else ENGLISH if ENGLISH in likely else likely[0] if len(likely) == 1 else otherwise
    )


def _by_script(sentence: str) -> str | None:
    """The language of a sentence that is mostly in another script than Latin."""
    letters = {name: len(script.findall(sentence)) for name, script in _SCRIPTS.items()}
    least = _FEW * (len(_LATIN.findall(sentence)) + sum(letters.values()))
    if letters["ja"] and letters["ja"] + letters["zh"] > least:
        return "ja"
    return next((name for name, many in letters.items() if many > least), None)


def _latin(sentence: str) -> list[str]:
    """The languages with most words and letters in a sentence; several where these are as likely, none where nothing shows any."""
    scores: Counter[str] = Counter()
    for word in _WORD.findall(sentence):
        if len(word) > 1 and word.isupper():  # "OS" and "AM" are no words
            continue
        for name in _LANGUAGES_OF.get(word.lower(), ()):
            scores[name] += 2 * (word != "i" or name != ENGLISH)
    small = sentence.lower()
    for name, mark in _HAS.items():
        scores[name] += 3 * (mark.search(small) is not None)
    most = max(scores.values())
    return [name for name, score in scores.items() if score == most > 0]


def language_at_end(text: str, otherwise: str = ENGLISH) -> str:
    """The language that a text's last sentences show; `otherwise` where none of them shows any."""
    return next((name for sentence in reversed(sentences(text)) if (name := language(sentence, ""))), otherwise)

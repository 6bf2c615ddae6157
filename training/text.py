"""What is read aloud: WordNet's usage examples and glosses, and sentences filled into templates. Knows nothing of sound.

Everything follows from one seed. The held-out sentences are set aside before anything else is drawn. All text is spelled out in
words, in the form that minnow's `normalize` produces.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from inference.text.normalize import normalize
from training.recipe import TextRecipe

HELD_OUT = Path(__file__).with_name("held_out.json")
"""Hand-written test sentences: numbers, names, questions, everyday and long ones."""
PARAGRAPHS = Path(__file__).with_name("paragraphs.json")
"""Hand-written test paragraphs of 300 to 900 characters: news, dialogue, instructions, narration, lists. Nothing is trained on them."""
EXAMPLES = Path(__file__).parents[1] / "inference/server/page/examples.js"
"""The playground's examples, as JSON in a JavaScript module."""
TEMPLATES = Path(__file__).with_name("templates.json")
TEST_SENTENCES = 60

_PLAIN = re.compile(r"^[A-Za-z][A-Za-z ,;'.!?-]+$")
_QUESTION = re.compile(r"(who|what|when|where|why|how|is|are|do|does|did|can|could|will|would|shall|have|has)\b", re.IGNORECASE)


@dataclass(frozen=True)
class TestSentence:
    """A sentence that is never trained on, and the kind of reading it tests."""

    text: str
    kind: str


@dataclass(frozen=True)
class Corpus:
    """All texts. `train` is in the order in which the teacher speaks it, so that any prefix is a fair mixture."""

    test: tuple[TestSentence, ...]
    validation: tuple[str, ...]
    train: tuple[str, ...]


def corpus(recipe: TextRecipe) -> Corpus:
    """Draw the whole corpus. Raises FileNotFoundError when WordNet is not installed (Debian: wordnet-base)."""
    rng = random.Random(recipe.seed)
    examples, glosses = wordnet(recipe.wordnet)
    rng.shuffle(examples)
    rng.shuffle(glosses)
    test = [TestSentence(**t) for t in json.loads(HELD_OUT.read_text(encoding="utf-8"))]
    plain_tests = TEST_SENTENCES - len(test)
    held = [s for s in examples if 5 <= len(s.split()) <= 14][: plain_tests + recipe.validation]
    test += [TestSentence(punctuate(s, random.Random(i)), "plain") for i, s in enumerate(held[:plain_tests])]
    validation = [punctuate(s, random.Random(i)) for i, s in enumerate(held[plain_tests:])]
    taken = {_bare(s) for s in (*held, *(t.text for t in test))}
    plain = [s for s in examples if _bare(s) not in taken]
    generator = Generator(rng)
    made = [s for s in (*generator.sentences(recipe.generated), *generator.everyday(recipe.everyday)) if _bare(s) not in taken]
    spoken = [*(punctuate(s, rng) for s in plain), *made, *_joined(plain, made, recipe.joined, rng)]
    rng.shuffle(spoken)
    train = _with_glosses(spoken, [punctuate(s, rng) for s in glosses if _bare(s) not in taken])
    return Corpus(tuple(test), tuple(map(normalize, validation)), tuple(dict.fromkeys(map(normalize, train))))


def wordnet(folder: Path) -> tuple[list[str], list[str]]:
    """Usage examples and glosses that read as plain text of 3 to 22 words, sorted."""
    examples: set[str] = set()
    glosses: set[str] = set()
    for part in ("noun", "verb", "adj", "adv"):
        for line in (folder / f"data.{part}").read_text(encoding="utf-8", errors="replace").splitlines():
            if "|" not in line or line.startswith(" "):
                continue
            tail = line.split("|", 1)[1]
            examples.update(quoted.strip() for quoted in re.findall(r'"([^"]+)"', tail))
            glosses.add(re.split(r'[;"(]', tail)[0].strip())
    return sorted(filter(_speakable, examples)), sorted(filter(_speakable, glosses))


def punctuate(sentence: str, rng: random.Random) -> str:
    """Give most sentences a capital letter and a final mark, as in typical requests; one in seven stays bare."""
    if rng.random() < 0.14:
        return sentence
    sentence = sentence[0].upper() + sentence[1:]
    if sentence[-1] in ".!?":
        return sentence
    if _QUESTION.match(sentence) and rng.random() < 0.7:
        return sentence + "?"
    return sentence.rstrip(",;") + ("!" if rng.random() < 0.05 else ".")


class Generator:
    """Fills templates such as `{f} paid {mo} for the {th}.` with names, numbers, dates and things."""

    def __init__(self, rng: random.Random) -> None:
        raw = json.loads(TEMPLATES.read_text(encoding="utf-8"))
        self._rng, self._words, self._templates = rng, raw["words"], raw["templates"]
        self._short, self._everyday = raw["short"], raw["everyday"]
        self._makers: dict[str, Callable[[], str]] = {
            "n": self._number,
            "s": lambda: str(rng.randint(2, 12)),
            "y": self._year,
            "t": self._clock,
            "mo": self._money,
            "d": self._date,
        }

    def sentences(self, count: int) -> list[str]:
        """`count` filled templates and six readings of every short phrase, each text once."""
        kinds = list(self._templates.values())
        made = [self.fill(self._rng.choice(self._rng.choice(kinds))) for _ in range(count)]
        return list(dict.fromkeys([*made, *(self.fill(s) for s in self._short for _ in range(6))]))

    def everyday(self, count: int) -> list[str]:
        """Greetings, requests and small talk, which dictionaries hardly contain. At most `count`, each text once."""
        return list(dict.fromkeys(self.fill(self._rng.choice(self._everyday)) for _ in range(count)))

    def fill(self, template: str) -> str:
        """One sentence from a template, with a capital first letter."""
        filled = re.sub(r"\{(\w+)\}", lambda m: self._make(m[1]), template)
        return (filled[0].upper() + filled[1:]).replace(".m..", ".m.")

    def _make(self, slot: str) -> str:
        return self._makers[slot]() if slot in self._makers else self._rng.choice(self._words[slot])

    def _number(self) -> str:
        r, kind = self._rng, self._rng.random()
        if kind < 0.35:
            return str(r.randint(2, 20))
        if kind < 0.7:
            return str(r.randint(21, 99))
        if kind < 0.85:
            return str(r.randint(100, 999))
        return f"{r.randint(1, 99)},{r.randint(0, 999):03d}" if kind < 0.93 else f"{r.randint(0, 99)}.{r.randint(1, 9)}"

    def _year(self) -> str:
        return str(self._rng.choice([self._rng.randint(1500, 1999), self._rng.randint(2000, 2030)]))

    def _clock(self) -> str:
        ends = ["", " a.m.", " p.m.", " in the morning", " in the afternoon"]
        return f"{self._rng.randint(1, 12)}:{self._rng.randrange(0, 60, 5):02d}{self._rng.choice(ends)}"

    def _money(self) -> str:
        r = self._rng
        cents = r.choice(["50", "25", "99", "75", "10", "95"])
        forms = [
            f"${r.randint(2, 99)}",
            f"${r.randint(1, 99)}.{cents}",
            f"${r.randint(100, 999)}",
            f"{r.randint(2, 90)} dollars",
            f"{r.randint(2, 99)} cents",
        ]
        return r.choice(forms)

    def _date(self) -> str:
        r, month = self._rng, self._rng.choice(self._words["m"])
        day, weekday = r.randint(1, 28), r.choice(self._words["w"])
        forms = [
            f"{month} {day}",
            f"{month} {ordinal(day)}",
            f"{month} {day}, {self._year()}",
            f"the {ordinal(day)} of {month}",
            f"{weekday}, {month} {ordinal(day)}",
        ]
        return r.choice(forms)


def ordinal(n: int) -> str:
    """1 -> 1st, 12 -> 12th, 22 -> 22nd."""
    suffix = "th" if 10 <= n % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{suffix}"


def _speakable(sentence: str) -> bool:
    return 3 <= len(sentence.split()) <= 22 and len(sentence) <= 130 and _PLAIN.match(sentence) is not None


def _bare(sentence: str) -> str:
    return normalize(sentence).lower().rstrip(".!?")


def _joined(plain: list[str], made: list[str], count: int, rng: random.Random) -> Iterator[str]:
    """Texts of two or three sentences, up to 200 characters, like the segments of a long request."""
    for _ in range(count):
        source = plain if rng.random() < 0.6 else made
        text = " ".join(punctuate(s, rng) for s in rng.sample(source, rng.choice([2, 2, 3])))
        if len(text) <= 200:
            yield text


def _with_glosses(spoken: list[str], glosses: list[str]) -> Iterator[str]:
    """One gloss after every second text, then the remaining glosses: rare words come early, but plain speech comes first."""
    rest = iter(glosses)
    for i, text in enumerate(spoken):
        yield text
        if i % 2 == 0 and (gloss := next(rest, None)) is not None:
            yield gloss
    yield from rest

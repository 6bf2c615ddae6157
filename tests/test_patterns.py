"""Every regular expression of the package takes time in proportion to the text: a client's text can hold up nobody.

Those of `inference.text` search in a text; all others match the whole of one.
"""

import importlib
import importlib.util
import pkgutil
import re
import time

import pytest
import regex

import inference
import saas
import worker

SHORT, TIMES = 250, 8
FAR_FROM_LINEAR = 4
"""How many times longer than in proportion the long text may take; a quadratic pattern takes 8 times longer, a cubic one 64 times."""
LEAST_SECONDS = 0.001
"""Of a core: below this there is nothing to compare."""
BOUNDED = ("script._TIME", "sentences._LAST_WORD")
"""Patterns of `inference.text` that match at one place, or search in a few characters alone."""
SAMPLES = {r"\s": " ", r"\d": "1", r"\w": "a", r"\S": "a", r"\D": "a", r"\W": "-", r"\X": "a", r"\n": "\n", r"\t": "\t", ".": "a"}
# A class, a property, an escape, a repetition, an assertion or the head of a group, or a plain character.
PART = regex.compile(
    r"\[\^?\]?(?:\\.|\[[^\]]*\]|[^\]\\])*\]|\\[pP]\{[^}]*\}|\\[xu][0-9a-f]+|\\.|\{\d*,?\d*\}|\(\?[^:=!>)]*[:=!>)]|.", regex.DOTALL
)
LETTERS = tuple("aA10.,;:!?-–_*#|/\\'\"()[]<>&`~=+@$%é字あ…•\n\t€😀\xad\u200b ")


def patterns():
    found = {}
    for package in (inference, saas, worker):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.endswith("__main__") or module.name == "inference.engine.kernels":
                continue
            if module.name.startswith("inference.cluster.") and not importlib.util.find_spec(
                "ray"
            ):  # an extra that `make cluster` installs
                continue
            for name, value in vars(importlib.import_module(module.name)).items():
                for number, pattern in enumerate(
                    value if isinstance(value, tuple | list) else value.values() if isinstance(value, dict) else [value]
                ):
                    if isinstance(pattern, re.Pattern | regex.Pattern) and isinstance(pattern.pattern, str):
                        found.setdefault(
                            (pattern.pattern, pattern.flags),
                            pytest.param(
                                pattern,
                                not module.name.startswith("inference.text") or f"{module.name}.{name}".endswith(BOUNDED),
                                id=f"{module.name}.{name}.{number}",
                            ),
                        )
    return list(found.values())


def pieces(pattern):
    """One text for each part of a pattern that stands for a character, in their order."""
    texts = []
    for part in PART.findall(pattern.pattern):
        if part.startswith("(?") or (len(part) == 1 and part in "()|*+?^$") or (part.startswith("{") and part != "{"):
            continue
        if part.startswith("[") or part.startswith((r"\p", r"\P")):
            one = regex.compile(part, regex.V1) if isinstance(pattern, regex.Pattern) else re.compile(part)
            texts.append(next((letter for letter in LETTERS if one.fullmatch(letter)), "x"))
        elif part in SAMPLES:
            texts.append(SAMPLES[part])
        elif part.startswith("\\"):
            texts.append("" if part[1] in "bBAZzGmM123" else part[1:] if len(part) == 2 else part.encode().decode("unicode-escape"))
        else:
            texts.append(part)
    return [text for text in texts if text]


def hostile(pattern):
    """Texts that begin as the pattern does and then repeat one of its parts, or two, without ever ending as it does."""
    texts = pieces(pattern)[:12]
    made = {}
    for at, text in enumerate(texts):
        head = "".join(texts[:at])
        for repeated in {text, "".join(texts[at : at + 2])}:
            made[head, repeated] = None
    return [(head, repeated) for head, repeated in made if repeated]


def seconds(pattern, text, whole):
    """Of this thread's processor time, the least of two tries."""
    taken = []
    for _ in range(2):
        began = time.thread_time()
        pattern.fullmatch(text) if whole else sum(1 for _ in pattern.finditer(text))
        taken.append(time.thread_time() - began)
    return min(taken)


@pytest.mark.parametrize(("pattern", "whole"), patterns())
def test_time_grows_with_the_text_alone(pattern, whole):
    for head, repeated in hostile(pattern):
        short, long = (head + repeated * (size // len(repeated)) + "\x00" for size in (SHORT, TIMES * SHORT))
        taken = seconds(pattern, long, whole)
        if taken > LEAST_SECONDS:
            assert taken < FAR_FROM_LINEAR * TIMES * seconds(pattern, short, whole), (head, repeated)


@pytest.mark.parametrize("slow", [r"^# (\S.*?)[ \t]*#*$", r"\n\s*\Z"])
def test_a_slow_pattern_is_found_out(slow):
    with pytest.raises(AssertionError):
        test_time_grows_with_the_text_alone(regex.compile(slow, regex.MULTILINE), whole=False)

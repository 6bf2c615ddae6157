"""What is spoken: a fixed public set of texts in four lengths and several languages, each made new by a number it begins with.

A server may cache its work for a prompt it has seen; a bench that repeats prompts would measure that cache instead of the model.
The first words differ, since servers usually cache a prefix.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.errors import RequestError

BUCKETS = ("short", "medium", "long", "paragraph")
"""About 2, 4, 10 and 30 seconds of English speech."""
TEXTS: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("prompts.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Prompt:
    """A text to speak, different from all others of this run. `number` also serves as its seed."""

    number: int
    bucket: str
    language: str
    text: str


def prompts(buckets: Sequence[str] = BUCKETS, languages: Sequence[str] = ("en",), first: int = 1000) -> Iterator[Prompt]:
    """An endless sequence of prompts: the buckets in turn, in each round the next language, numbered from `first`.

    The call itself raises RequestError for a bucket or a language that the set does not have.
    """
    for kind, given, known in (("bucket", buckets, BUCKETS), ("language", languages, tuple(TEXTS))):
        if strange := [name for name in given if name not in known] or ([""] if not given else []):
            raise RequestError(f"{kind} {strange[0]!r} is not one of {', '.join(known)}", kind)
    return _prompts(buckets, languages, first)


def _prompts(buckets: Sequence[str], languages: Sequence[str], number: int) -> Iterator[Prompt]:
    turn = 0
    while True:
        language = languages[turn % len(languages)]
        for bucket in buckets:
            texts = TEXTS[language][bucket]
            opening = TEXTS[language]["opening"].format(number)
            yield Prompt(number, bucket, language, f"{opening} {texts[turn // len(languages) % len(texts)]}")
            number += 1
        turn += 1

"""Tidies text before it is split and spoken: as FishSpeech 1.5's reference does, and without characters that have no sound."""

from __future__ import annotations

import re

import regex

_EMOJI = re.compile("[\U0001f600-\U0001f64f\U0001f300-\U0001f5ff\U0001f680-\U0001f6ff\U0001f1e0-\U0001f1ff]+")
_COMMAS = re.compile(",{2,}")
_QUOTES = str.maketrans({"‘": "'", "’": "'"})
_BLANK = regex.compile("[\u115f\u1160\u2800\u3164\uffa0]")
"""Letters without ink, which fill space."""
_NO_SOUND = regex.compile(r"[[\p{Cc}\p{Cf}\p{Co}\p{Cs}\ufffc\ufffd]--[\s\u0600-\u0605\u06dd\u070f\u08e2\u200c\u200d]]", regex.V1)
"""Control and format characters, private ones and placeholders; not white space, Arabic signs that are seen, and what Persian and Hindi
join letters with.
"""
_MARKS = regex.compile(r"([\p{P}\p{S}])\1{3,}")


def clean(text: str) -> str:
    """Strip white space at the ends, straighten single quotes, drop emoji, and reduce runs of commas to one."""
    return _COMMAS.sub(",", _EMOJI.sub("", text.strip().translate(_QUOTES)))


def sayable(text: str) -> str:
    """`text` without characters that have no sound, and with at most three of the same mark in a row."""
    return _MARKS.sub(r"\1\1\1", _NO_SOUND.sub("", _BLANK.sub(" ", text)))

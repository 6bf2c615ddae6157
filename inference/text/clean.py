"""Tidies text before it is split and spoken, as FishSpeech 1.5's reference does."""

from __future__ import annotations

import re

_EMOJI = re.compile("[\U0001f600-\U0001f64f\U0001f300-\U0001f5ff\U0001f680-\U0001f6ff\U0001f1e0-\U0001f1ff]+")
_COMMAS = re.compile(",{2,}")
_QUOTES = str.maketrans({"‘": "'", "’": "'"})


def clean(text: str) -> str:
    """Strip white space at the ends, straighten single quotes, drop emoji, and reduce runs of commas to one."""
    return _COMMAS.sub(",", _EMOJI.sub("", text.strip().translate(_QUOTES)))

"""Dialogue: marks in a text that say which voice speaks what follows."""

from __future__ import annotations

from collections.abc import Collection

import regex

TURN_SECONDS = 0.4
"""The silence where another voice takes over, unless the text asks for a pause there or the checkpoint makes a longer one."""
MAX_VOICES = 16
"""In one request, besides the one that begins."""
MAX_MARKS = 1000
"""In one text: each part between two marks is read by itself."""
VOICE = r"\[voice:([^\[\]\n]{0,100})\]"
"""Its group is the name of a voice."""
SPEAKER = r"<\|speaker:(\d{1,2})\|>"
"""Fish Audio's mark: its group is a number in the list of the request's voices."""
_MARK = regex.compile(f"{VOICE}|{SPEAKER}", regex.IGNORECASE)


def speaker(number: int | str) -> str:
    """The name of a voice in a list of voices. No stored voice has such a name."""
    return f"speaker:{int(number)}"


def marked_voice(found: regex.Match[str], first_group: int = 1) -> str | None:
    """The name in a mark; None where the match is none. `first_group` is the number of VOICE's group."""
    name, number = found[first_group], found[first_group + 1]
    return name.strip() if name is not None else speaker(number) if number is not None else None


def has_brackets(text: str) -> bool:
    """Whether a text may have marks of voices, or pauses. Most have none, and this takes no time, where looking for marks takes 0.4 ms for
    20,000 characters: the HTTP process does so several times for each request.
    """
    return "[" in text or "<" in text


def has_speakers(voices: Collection[str]) -> bool:
    """Whether `<|speaker:0|>` is a mark: only where a request has a list of voices."""
    return speaker(0) in voices


def voice_names(text: str, speakers: bool = False) -> list[str]:
    """The voices that the marks of a text name, in order, each once."""
    names = [marked_voice(m) for m in _MARK.finditer(text) if speakers or m[1] is not None] if has_brackets(text) else []
    return [name for name in dict.fromkeys(names) if name is not None]


def voice_at_end(text: str, speakers: bool = False) -> str | None:
    """The voice that speaks what follows a text; None if the text has no mark."""
    names = [marked_voice(m) for m in _MARK.finditer(text) if speakers or m[1] is not None]
    return names[-1] if names else None


def without_marks(text: str) -> str:
    """The text without its marks."""
    return _MARK.sub("", text)

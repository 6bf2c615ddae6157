"""What a voice's name and transcript may be, and the errors about them, for all stores of voices."""

from __future__ import annotations

import re
from collections.abc import Sequence

from inference.errors import RequestError, VoiceExists, VoiceNotFound

DEFAULT = "default"
"""The name for speech without a reference: the model's own voice."""
MAX_VOICES = 1000
"""Voices that clients may add: a clip of 90 s takes about 4 MB."""
MAX_TRANSCRIPT = 2000
"""Characters: more than anyone says in 90 s."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _-]{0,63}")


def is_name(name: str) -> bool:
    """Whether a stored voice can have this name."""
    return bool(_NAME.fullmatch(name)) and name != DEFAULT


def check_name(name: str) -> None:
    """Raises RequestError for what cannot be a voice's name."""
    if not is_name(name):
        raise RequestError(
            f"{name[:80]!r} cannot be a voice's name; it has 1 to 64 letters, digits, spaces, - and _, begins with a letter or digit, "
            f"and is not {DEFAULT!r}",
            "voice",
        )


def checked_transcript(text: str) -> str:
    """The transcript without the space around it. Raises RequestError."""
    text = text.strip()
    if not 0 < len(text) <= MAX_TRANSCRIPT:
        raise RequestError(f"the text has {len(text)} characters; what is said in the clip, 1 to {MAX_TRANSCRIPT}, is needed", "text")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise RequestError("the text holds a lone surrogate; it is not valid Unicode", "text")
    return text


def check_room(voices: int) -> None:
    """Raises RequestError when there are so many voices that there may be no more."""
    if voices >= MAX_VOICES:
        raise RequestError(f"there are {MAX_VOICES:,} voices already; delete some first", "voice")


def not_found(name: str, known: Sequence[str]) -> VoiceNotFound:
    """The error for a voice that there is not."""
    return VoiceNotFound(f"there is no voice {name[:80]!r}; known voices: {', '.join(known[:20])}", "voice")


def exists(name: str) -> VoiceExists:
    """The error for a name that is taken."""
    return VoiceExists(f"there is a voice {name!r} already; delete it first, or choose another name", "voice")


def gone(name: str) -> VoiceNotFound:
    """The error for a voice that another process deleted or renamed meanwhile."""
    return VoiceNotFound(f"there is no voice {name!r} any more", "voice")

"""Buffers text that arrives in pieces and releases complete sentences."""

from __future__ import annotations

import re

from inference.text.script import speakable
from inference.text.segments import join_short
from inference.text.sentences import sentences

_LAST_PAUSE = re.compile(r".*[\s,;:，、；：]", re.DOTALL)


class SentenceBuffer:
    """Releases each sentence once it is complete, and parts of a sentence that already has more than `length` characters."""

    def __init__(self, length: int) -> None:
        self._length, self._waiting = length, ""

    def feed(self, text: str) -> str:
        """Add text; return the text that can be spoken now, or "" for none yet. A sentence is complete when the next one has begun.

        Very short sentences wait for the next one, too.
        """
        self._waiting += text
        size = sum(map(len, join_short(sentences(self._waiting)[:-1])[:-1]))
        if not size and len(self._waiting) > self._length:
            pause = _LAST_PAUSE.match(self._waiting)
            size = pause.end() if pause else len(self._waiting)
        ready = self._waiting[:size]
        if not speakable(ready) and size <= self._length:  # it stays with the text that comes next
            return ""
        self._waiting = self._waiting[size:]
        return ready if speakable(ready) else ""

    def flush(self) -> str:
        """The remaining text, or "" when there is nothing to speak in it."""
        ready, self._waiting = self._waiting, ""
        return ready if speakable(ready) else ""

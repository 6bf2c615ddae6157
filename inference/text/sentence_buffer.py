"""Buffers text that arrives in pieces and releases complete sentences."""

from __future__ import annotations

import regex

from inference.text.dialogue import voice_names, without_marks
from inference.text.script import speakable
from inference.text.segments import join_short
from inference.text.sentences import sentences

MAX_WITHOUT_PLACE = 4
"""How many times `length` characters may wait when there is no place to cut them, as in a long address."""
_CLAUSE = regex.compile(r"[,;:–—]\s+|[，、；：]\s*")
_BLANK = regex.compile(r"(?<!\d)\s+|\s+(?![\d\s]|\Z)")
"""White space, but not inside a number, such as 10 000."""
_UNCUT = regex.compile(r"<[^<>]{0,300}(?:>|\Z)|\[[^\[\]]{0,300}(?:\Z|\](?:\([^()]{0,300}(?:\)|\Z))?)")
"""A tag, a pause, or a link, which may not be complete yet."""
_BEGUN = regex.compile(r"\S{12}|\S{1,11}\s|\S{0,11}?(?:\p{Lo}|\p{L}[.,;:!?])")
"""The first word of a sentence is complete: it may decide whether a sentence ended before it, as in "on 3. Oct|ober"."""
_NEEDS_NO_BLANK = regex.compile(r"\p{Lo}\Z")


class SentenceBuffer:
    """Releases each sentence once it is complete, and parts of a sentence that already has more than `length` characters."""

    def __init__(self, length: int) -> None:
        self._length, self._waiting = length, ""

    def feed(self, text: str) -> str:
        """Add text; return the text that can be spoken now, or "" for none yet. A sentence is complete when the next one has
        begun and its first word is there.

        Very short sentences wait for the next one, too.
        """
        self._waiting += text
        *complete, begun = sentences(self._waiting) or [""]
        if not _BEGUN.match(begun.lstrip()):
            complete = complete[:-1]
        size = sum(map(len, join_short(complete)[:-1]))
        if not size and len(self._waiting) > self._length:
            size = self._cut()
        ready = self._waiting[:size]
        bold = ready.count("**") % 2 == 1 and len(self._waiting) <= self._length  # a bold passage that has not ended goes whole
        if bold or (not speakable(ready) and size <= self._length):  # it stays with the text that comes next
            return ""
        self._waiting = self._waiting[size:]
        return ready if speakable(ready) else ""

    @property
    def waiting(self) -> int:
        """How many characters wait."""
        return len(self._waiting)

    @property
    def holds_signs(self) -> bool:
        """Whether the text that waits has signs alone, such as "..." or an emoji."""
        return bool(without_marks(self._waiting).strip()) and not speakable(self._waiting)

    def flush(self) -> str:
        """The remaining text, or "" when there is nothing to speak in it. Then a mark of a voice stays with the text that comes next."""
        ready, self._waiting = self._waiting, ""
        if speakable(ready):
            return ready
        if voice_names(ready, speakers=True):
            self._waiting = ready
        return ""

    def _cut(self) -> int:
        """How much of a long sentence goes now: up to a clause's end, else up to a blank that leaves more than a word behind, or 0.

        Numbers, tags, pauses and links stay whole.
        """
        text, length = self._waiting, self._length
        clauses, blanks = self._places(_CLAUSE), self._places(_BLANK)
        for places in (
            [end for end in clauses if end >= length // 3],
            [end for end in blanks if end <= len(text) - length // 4],
            blanks,
        ):
            if places:
                return places[-1]
        return len(text) if len(text) > MAX_WITHOUT_PLACE * length or _NEEDS_NO_BLANK.search(text) else 0

    def _places(self, where: regex.Pattern[str]) -> list[int]:
        """The ends of all matches outside of tags, pauses and links."""
        uncut = [found.span() for found in _UNCUT.finditer(self._waiting)]
        return [m.end() for m in where.finditer(self._waiting) if not any(start < m.end() < end for start, end in uncut)]

"""Notices an engine whose device never answers, so that its process can end and a supervisor can start another."""

from __future__ import annotations

from typing import Protocol

GIVE_UP_LOOKS = 30
"""An engine that was hanging at so many looks in a row, a second apart, will not come back."""


class Hangs(Protocol):
    """What may hang: see `inference.engine.engine.SpeechEngine`."""

    @property
    def hangs(self) -> bool:
        """Whether it hangs now."""
        ...


class Watchdog:
    """Counts looks instead of seconds: a process that was stopped for an hour has not looked, and gets its time again."""

    def __init__(self, engine: Hangs) -> None:
        self._engine, self._hanging = engine, 0

    def look(self) -> bool:
        """Whether the engine hangs now. Call it every second."""
        hangs = self._engine.hangs
        self._hanging = self._hanging + 1 if hangs else 0
        return hangs

    @property
    def gave_up(self) -> bool:
        """Whether the engine hangs for good. Its thread cannot be ended: end the process without waiting for threads (`os._exit`)."""
        return self._hanging >= GIVE_UP_LOOKS

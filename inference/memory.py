"""Gives the memory that a process has freed back to the system.

glibc keeps freed memory for the next that asks, in an arena for each of several threads: after a crowd of requests this was up to a third
of what a server held. This module imports no third-party package.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

GROWTH_BYTES = 32 << 20
"""Growth that is worth the work: giving 100 MB back takes 8 ms, in which other threads may wait for memory, and taking them again 40 ms."""
LOOK_SECONDS = 3.0


def give_back() -> None:
    """Return all pages that hold nothing to the system. Does nothing where the C library is not glibc."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


def resident() -> int:
    """Bytes of memory that this process holds; 0 where the system has no /proc."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


class Keeper:
    """Gives memory back when this process has grown."""

    def __init__(self) -> None:
        self._floor = resident()

    def look(self, *, settled: bool = False) -> None:
        """Give memory back if the process holds GROWTH_BYTES more than it needs.

        What stays after a `settled` look, when nothing runs, is what it needs; until then that is what it had at first.
        """
        if resident() > self._floor + GROWTH_BYTES:
            give_back()
            if settled:
                self._floor = resident()


@asynccontextmanager
async def giving_back() -> AsyncIterator[None]:
    """As long as this lasts, a task looks after this process's memory."""

    async def look() -> None:
        keeper = Keeper()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await asyncio.to_thread(keeper.look)

    task = asyncio.create_task(look())
    try:
        yield
    finally:
        task.cancel()

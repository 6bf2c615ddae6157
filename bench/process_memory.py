"""What each process of a server holds over time, from /proc: so one can see whether memory is flat, and where it is not."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

SAMPLE_SECONDS = 5.0
PARTS = 3
"""Parts of the time for which the least and the most are told: what only grows has a larger least in each."""
_WORDS = (("resource_tracker", "tracker"), ("inference.engine.reading", "reader"), ("spawn_main", "device"))
"""What the command of a process that was started anew has in it, and what the process is called here."""


class MemoryOverTime:
    """Samples of the memory of a server's processes, in bytes by what they do; `processes` finds their numbers.

    A page that several processes share counts in parts, so that the sum is what the server takes of the machine.
    """

    def __init__(self, processes: Callable[[], list[int]]) -> None:
        self._processes = processes
        self._samples: list[Counter[str]] = []

    def take(self) -> None:
        """Take a sample. It holds none of a process that has just ended, and nothing where the system has no /proc."""
        numbers = self._processes()
        self._samples.append(
            sum((Counter({name: 1024 * _number(pid, "smaps_rollup", "Pss:")}) for pid, name in named(numbers).items()), Counter())
        )

    async def watch(self) -> None:
        """Take samples until cancelled; in a thread, since the kernel adds up all pages of a process."""
        while True:
            await asyncio.to_thread(self.take)
            await asyncio.sleep(SAMPLE_SECONDS)

    def told(self) -> dict[str, dict[str, int | list[int]]]:
        """For all processes together and for each, in MB: the first sample, the least and the most of each part of the time, and the last
        sample, which is not of the last part. Needs PARTS + 1 samples; with fewer it is empty.
        """
        if len(self._samples) <= PARTS:
            return {}
        names = sorted({name for sample in self._samples for name in sample})
        sizes = {"all": [sample.total() for sample in self._samples]} | {name: [sample[name] for sample in self._samples] for name in names}
        return {name: _told(of) for name, of in sizes.items()}


def _told(sizes: list[int]) -> dict[str, int | list[int]]:
    *during, after = sizes
    parts = [during[len(during) * n // PARTS : len(during) * (n + 1) // PARTS] for n in range(PARTS)]
    least, most = ([_mb(of(part)) for part in parts] for of in (min, max))
    return {"start": _mb(during[0]), "least": least, "most": most, "after": _mb(after)}


def named(numbers: Sequence[int]) -> dict[int, str]:
    """What each process of a server does, by its number: their parent first forked the manager, then HTTP."""
    parent_of = {pid: _number(pid, "status", "PPid:") for pid in sorted(numbers, key=_started)}
    parent = max(parent_of, key=list(parent_of.values()).count, default=0)
    names, forked = {}, iter(("manager", "http"))
    for pid, above in parent_of.items():
        command = _read(pid, "cmdline")
        name = next((name for word, name in _WORDS if word in command), None)
        names[pid] = "parent" if pid == parent else name or (next(forked, "other") if above == parent else "other")
    return names


def _started(pid: int) -> int:
    """When it started, in clock ticks; 0 when it has ended. The numbers of processes begin again at their largest."""
    fields = _read(pid, "stat").rpartition(")")[2].split()
    return int(fields[19]) if fields else 0


def _number(pid: int, name: str, field: str) -> int:
    """The number in a field of one of a process's files; 0 when it has ended."""
    lines = (line.split() for line in _read(pid, name).splitlines())
    return next((int(words[1]) for words in lines if words[:1] == [field]), 0)


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _mb(size: int) -> int:
    return round(size / 1e6)

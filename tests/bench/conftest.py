"""A clock that waits for nobody: it jumps to the next timer as soon as there is nothing left to do."""

import asyncio
import selectors
from types import SimpleNamespace

import pytest


class Clock:
    """Runs coroutines in its own time, by which the bench measures them."""

    now = 0.0

    def time(self):
        return self.now

    def stall(self, seconds):
        """As if the thread had had no processor for so long."""
        self.now += seconds

    def run(self, work):
        with asyncio.Runner(loop_factory=self._loop) as runner:
            return runner.run(work)

    def _loop(self):
        loop = asyncio.SelectorEventLoop(Jumping(self))
        loop.time = self.time
        return loop


class Jumping(selectors.DefaultSelector):
    """Has the clock jump by what would have been waited for."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    def select(self, timeout=None):
        self.clock.stall(max(0.0, timeout or 0.0))
        return super().select(None if timeout is None else 0)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    for module in ("bench.load", "bench.serving"):
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(perf_counter=clock.time))
    return clock

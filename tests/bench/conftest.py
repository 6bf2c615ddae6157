"""A clock that waits for nobody: it jumps to the next timer as soon as there is nothing left to do."""

import asyncio
import selectors
from types import SimpleNamespace

import pytest


class Jumping(selectors.DefaultSelector):
    """Adds to `now` what would have been waited for."""

    now = 0.0

    def select(self, timeout=None):
        self.now += max(0.0, timeout or 0.0)
        return super().select(0 if timeout is not None else None)


class Clock:
    """Runs coroutines in its own time, by which the bench measures them."""

    def __init__(self):
        self.selector = Jumping()

    def time(self):
        return self.selector.now

    def stall(self, seconds):
        """As if the thread had had no processor for so long."""
        self.selector.now += seconds

    def run(self, work):
        with asyncio.Runner(loop_factory=self._loop) as runner:
            return runner.run(work)

    def _loop(self):
        loop = asyncio.SelectorEventLoop(self.selector)
        loop.time = self.time
        return loop


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    for module in ("bench.load", "bench.serving"):
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(perf_counter=clock.time))
    return clock

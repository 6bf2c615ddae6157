"""What a caller holds of a request: its handle, and the stream of audio."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from types import TracebackType

import numpy as np

from inference.engine.request import Audio

Item = Audio | Exception | None
"""What a request delivers: chunks of audio, then None, or the error that ended it."""


class RequestHandle:
    """The engine's and the caller's shared view of one request: is it still wanted, and how did it end?

    `finish_reason` is None while it runs, then "stop" when the model came to an end of its own, "length" when a
    limit cut it, "cancelled" or "error". `queued` are the seconds it waited before work on it began, None until then. `codes` (codebooks,
    frames) int64 are set when it ends. `unread` counts the chunks that were delivered and not yet taken.
    """

    def __init__(self, deliver: Callable[[Item], None], wake: Callable[[], None], unread: Callable[[], int]) -> None:
        self._deliver, self._wake, self.unread = deliver, wake, unread
        self.cancelled = False
        self.finish_reason: str | None = None
        self.queued: float | None = None
        self.codes: np.ndarray | None = None

    def cancel(self) -> None:
        """Stop within one decode step. May be called from any thread, any time, more than once."""
        if not self.cancelled and self.finish_reason is None:
            self.cancelled = True
            self._wake()

    def deliver(self, item: Item) -> None:
        """Hand an item to the caller. One whose callback fails, its event loop being closed say, wants no more."""
        try:
            self._deliver(item)
        except Exception:
            self.cancelled = True


class SpeechStream:
    """The audio of one request, chunk by chunk, in order. Leave early with `cancel()`, `with`, or by dropping it."""

    def __init__(self, ticket: RequestHandle, items: queue.SimpleQueue[Item]) -> None:
        self._ticket, self._items = ticket, items

    @property
    def finish_reason(self) -> str | None:
        """None while it runs, then "stop", "length" (a limit cut it), "cancelled" or "error"."""
        return self._ticket.finish_reason

    @property
    def codes(self) -> np.ndarray | None:
        """All codes spoken, (codebooks, frames) int64, once it has ended."""
        return self._ticket.codes

    def cancel(self) -> None:
        """Stop within one decode step. Chunks already made can still be read."""
        self._ticket.cancel()

    def __iter__(self) -> Iterator[Audio]:
        return self

    def __next__(self) -> Audio:
        item = self._items.get()
        if isinstance(item, Audio):
            return item
        self._items.put(item)  # the end stays the end, however often it is asked for
        if isinstance(item, Exception):
            raise item
        raise StopIteration

    def __enter__(self) -> SpeechStream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.cancel()

    def __del__(self) -> None:
        self.cancel()

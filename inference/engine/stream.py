"""What a caller holds of a request: its handle, and the stream of audio."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from inference.engine.request import Audio, FinishReason, MoreText, SpeechRequest

MAX_UNREAD, READ_ON = 8, 4
"""A request with more unread chunks than the first gets no further segment, until there are no more than the second. A chunk is up to 1.5 s."""
Item = Audio | Exception | None
"""What a request delivers: chunks of audio, then None, or the error that ended it."""


class RequestHandle:
    """The engine's and the caller's shared view of one request: is it still wanted, and how did it end?

    `finish_reason` is None while it runs. `stalled` says that the reader was too far behind since the last chunk. `queued_seconds` is how long it waited before work on it began, None until then. `codes` (codebooks,
    frames) int64 are set when it ends. `unread` counts the delivered chunks that wait to be read; a caller who passes it calls `was_read`.
    """

    def __init__(self, deliver: Callable[[Item], None], wake: Callable[[], None], unread: Callable[[], int]) -> None:
        self._deliver, self._wake, self._unread = deliver, wake, unread
        self._behind = self.cancelled = self.stalled = False
        self.finish_reason: FinishReason | None = None
        self.queued_seconds: float | None = None
        self.codes: np.ndarray | None = None

    def cancel(self) -> None:
        """Stop within one decode step. May be called from any thread, any time, more than once."""
        if not self.cancelled and self.finish_reason is None:
            self.cancelled = True
            self._wake()

    def is_behind(self) -> bool:
        """Whether so many chunks are unread that no more should be made now."""
        limit = READ_ON if self._behind else MAX_UNREAD
        self._behind = True  # first, so that the reader who reads between this line and the next one wakes the engine
        self._behind = self._unread() > limit
        self.stalled |= self._behind
        return self._behind

    def was_read(self) -> None:
        """The reader has taken a chunk: the engine goes on if it had waited for that. May be called from any thread."""
        if self._behind and self._unread() <= READ_ON:
            self._wake()

    def deliver(self, item: Item) -> None:
        """Hand an item to the caller. A callback that fails, for example because its event loop is closed, cancels the request."""
        try:
            self._deliver(item)
        except Exception:
            self.cancelled = True


class Submit(Protocol):
    """`SpeechEngine.submit`, or a substitute for it."""

    def __call__(self, request: SpeechRequest, deliver: Callable[[Item], None], *, unread: Callable[[], int] = int) -> RequestHandle: ...


class _Stream:
    """The parts that both kinds of stream share."""

    _handle: RequestHandle

    @property
    def finish_reason(self) -> FinishReason | None:
        """None while it runs."""
        return self._handle.finish_reason

    @property
    def codes(self) -> np.ndarray | None:
        """All codes spoken, (codebooks, frames) int64, once it has ended."""
        return self._handle.codes

    @property
    def queued_seconds(self) -> float | None:
        """How long it waited before work on it began, None until then."""
        return self._handle.queued_seconds

    def cancel(self) -> None:
        """Stop within one decode step. Chunks already generated can still be read."""
        if hasattr(self, "_handle"):  # not when the engine refused the request
            self._handle.cancel()

    def __del__(self) -> None:
        self.cancel()


class SpeechStream(_Stream):
    """The audio of one request, chunk by chunk, in order. Leave early with `cancel()`, `with`, or by dropping it."""

    def __init__(self, submit: Submit, request: SpeechRequest) -> None:
        self._items: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._handle = submit(request, self._items.put, unread=self._items.qsize)

    def __iter__(self) -> Iterator[Audio]:
        return self

    def __next__(self) -> Audio:
        item = self._items.get()
        if isinstance(item, Audio):
            self._handle.was_read()
            return item
        self._items.put(item)  # every later read gets the end again
        if isinstance(item, Exception):
            raise item
        raise StopIteration

    def __enter__(self) -> SpeechStream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.cancel()


class AsyncSpeechStream(_Stream):
    """The audio of one request for asyncio: `async for chunk in stream`.

    Leave early with `cancel()`, `async with`, or by dropping it. Cancelling the task that waits for a chunk cancels the request, too.
    """

    def __init__(self, submit: Submit, request: SpeechRequest) -> None:
        self._items: asyncio.Queue[Item] = asyncio.Queue()
        self._feeding: asyncio.Task[None] | None = None
        self._handle = submit(request, _deliverer(self._items), unread=self._items.qsize)

    def feed(
        self,
        more: AsyncIterator[str | MoreText],
        extend: Callable[[RequestHandle, str | MoreText], None],
        complete: Callable[[RequestHandle], None],
    ) -> None:
        """Append all text of `more` to the live request as it arrives. An error from `more` or `extend` ends the stream."""
        self._feeding = asyncio.ensure_future(_feed(self._handle, self._items, more, extend, complete))

    def cancel(self) -> None:
        """As SpeechStream.cancel; the stream also stops taking text."""
        super().cancel()
        if self._feeding is not None and not self._feeding.get_loop().is_closed():
            self._feeding.cancel()

    def __aiter__(self) -> AsyncIterator[Audio]:
        return self

    async def __anext__(self) -> Audio:
        try:
            item = await self._items.get()
        except asyncio.CancelledError:
            self.cancel()
            raise
        if isinstance(item, Audio):
            self._handle.was_read()
            return item
        self._items.put_nowait(item)  # every later read gets the end again
        self.cancel()
        if isinstance(item, Exception):
            raise item
        raise StopAsyncIteration

    async def __aenter__(self) -> AsyncSpeechStream:
        return self

    async def __aexit__(self, *_: Any) -> None:
        self.cancel()

    async def aclose(self) -> None:
        """As `cancel`, for `contextlib.aclosing`."""
        self.cancel()


def _deliverer(items: asyncio.Queue[Item]) -> Callable[[Item], None]:
    """Puts items into the running loop's queue from any thread. It keeps no reference to the stream, so a dropped stream is cancelled."""
    loop = asyncio.get_running_loop()

    def deliver(item: Item) -> None:
        loop.call_soon_threadsafe(items.put_nowait, item)

    return deliver


async def _feed(
    handle: RequestHandle,
    items: asyncio.Queue[Item],
    more: AsyncIterator[str | MoreText],
    extend: Callable[[RequestHandle, str | MoreText], None],
    complete: Callable[[RequestHandle], None],
) -> None:
    try:
        async for text in more:
            extend(handle, text)
        complete(handle)
    except Exception as e:
        items.put_nowait(e)

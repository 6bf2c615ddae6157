"""Endless work of one process: done again and again, whatever goes wrong in between. An item of a list that fails holds up no other."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Hashable
from typing import TypeVar

from inference.errors import FishserveError
from saas.database import DatabaseError, Refused, Unavailable
from saas.jobs.backend import BackendUnavailable
from saas.jobs.outcomes import POLL_SECONDS
from saas.observability import reports
from saas.storage.bucket import StorageError

log = logging.getLogger(__name__)
Item = TypeVar("Item")
FIRST_PAUSE, MAX_PAUSE = 2.0, 120.0
"""Seconds after which an item that failed is tried again: twice as many each time."""


async def again(work: Callable[[], Awaitable[None]], pause: float) -> None:
    """Repeat the work, with `pause` seconds in between, until this task is cancelled."""
    task = asyncio.current_task()
    assert task
    while not task.cancelling():  # a library may swallow a cancellation that arrives with its answer
        try:
            await work()
            await asyncio.sleep(pause)
        except (Unavailable, StorageError, Refused, BackendUnavailable) as e:
            log.warning("%s is tried again: %s", work.__name__, words(e))
            await asyncio.sleep(POLL_SECONDS)
        except Exception as e:
            log.error("%s is tried again after an error in this program: %s", work.__name__, type(e).__name__)
            reports.report(e, loop=work.__name__)
            await asyncio.sleep(POLL_SECONDS)


async def each(
    what: str, items: Collection[Item], work: Callable[[Item], Awaitable[object]],
    put_off: Callable[[Item, Exception], Awaitable[object]], at_once: int = 1, pause: float = 0,
) -> None:  # fmt: skip
    """Do the work for each item, beginning one every `pause` seconds. Those that fail are put off; the log has one line for all of them.

    Raises what `put_off` raises, which ends the round: then the database does not answer.
    """
    turns, failed = asyncio.Semaphore(at_once), list[Exception]()

    async def one(item: Item) -> None:
        async with turns:
            try:
                await work(item)
            except Exception as e:
                failed.append(e)
                if not isinstance(e, FishserveError | DatabaseError):
                    reports.report(e, loop=what)
                await put_off(item, e)

    try:
        async with asyncio.TaskGroup() as group:
            for item in items:
                group.create_task(one(item))
                await asyncio.sleep(pause)
    except BaseExceptionGroup as e:
        raise e.exceptions[0] from None
    finally:
        if failed:
            log.warning("%s: %d of %d failed and are tried again later; the first: %s", what, len(failed), len(items), words(failed[0]))


class Backoff:
    """When items that failed in this process are tried again, by a clock that never jumps."""

    def __init__(self) -> None:
        self._failed: dict[Hashable, tuple[int, float]] = {}

    async def put_off(self, item: Hashable, _: Exception) -> None:
        """An item has failed again."""
        times = self._failed.get(item, (0, 0.0))[0] + 1
        self._failed[item] = times, time.monotonic() + min(MAX_PAUSE, FIRST_PAUSE * 2 ** min(times - 1, 20))

    def waits(self, item: Hashable) -> bool:
        """Whether an item is not to be tried yet."""
        return item in self._failed and time.monotonic() < self._failed[item][1]

    def done(self, item: Hashable) -> None:
        """An item has succeeded."""
        self._failed.pop(item, None)

    def waiting(self) -> list[Hashable]:
        """All that are not to be tried yet. Those that nobody tried again for a long time are forgotten: they ended in another way."""
        long_ago = time.monotonic() - 2 * MAX_PAUSE
        self._failed = {item: (times, due) for item, (times, due) in self._failed.items() if due > long_ago}
        return [item for item in self._failed if self.waits(item)]


def words(error: Exception) -> str:
    """An error as it may appear in a log: our own messages, but only the type of other errors."""
    return str(error) if isinstance(error, FishserveError) else type(error).__name__

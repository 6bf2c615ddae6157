"""Endless work of one process: done again and again, whatever goes wrong in between."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from inference.errors import FishserveError
from saas.database import Refused, Unavailable
from saas.jobs.backend import BackendUnavailable
from saas.jobs.outcomes import POLL_SECONDS
from saas.observability import reports
from saas.storage.bucket import StorageError

log = logging.getLogger(__name__)


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


def words(error: Exception) -> str:
    """An error as it may appear in a log: our own messages, but only the type of other errors."""
    return str(error) if isinstance(error, FishserveError) else type(error).__name__

"""Sweeper: ends forgotten jobs and deletes files and texts that are not to be kept."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from saas.credits.repository import CreditRepository
from saas.jobs.dispatcher import Dispatcher
from saas.jobs.loop import each
from saas.jobs.outcomes import Outcomes
from saas.jobs.repository import JobRepository, JobRow
from saas.storage.bucket import Bucket, upload_key

SWEEP_SECONDS = 10.0
EXPIRE_SECONDS = 2 * 3600
"""Seconds after which a reservation ends, whatever its job's state: longer than any backend may take."""
_BATCH = 100


class Sweeper:
    """Cleans up after jobs."""

    def __init__(self, jobs: JobRepository, credits: CreditRepository, bucket: Bucket, dispatcher: Dispatcher, outcomes: Outcomes) -> None:
        self._jobs, self._credits, self._bucket, self._dispatcher, self._outcomes = jobs, credits, bucket, dispatcher, outcomes

    @property
    def tasks(self) -> list[Callable[[], Awaitable[None]]]:
        """What is to be done again and again. Each fails alone."""
        return [self.end_forgotten, self.expire_credits, self.expire_results, self.expire_texts, self.empty_outbox]

    async def end_forgotten(self) -> None:
        """End jobs that nobody finished, and stop what still works on them."""
        rows = await self._jobs.expire_reservations(EXPIRE_SECONDS)
        for row in rows:
            self._outcomes.tell(row["id"])
        await each("stopping forgotten jobs", rows, self._dispatcher.stop, _leave)

    async def expire_credits(self) -> None:
        """Take credits whose time is over."""
        await self._credits.expire()

    async def expire_results(self) -> None:
        """Put expired results on the list of objects to delete."""
        await self._jobs.expire_results()

    async def expire_texts(self) -> None:
        """Delete the texts of jobs that ended long ago."""
        while await self._jobs.expire_texts():
            pass

    async def empty_outbox(self) -> None:
        """Delete the objects whose rows are gone. Each stays on the list until the bucket says that it is deleted."""
        while keys := await self._jobs.objects_to_delete(_BATCH):
            await each("deleting objects", keys, self._delete, self._jobs.put_off_object)

    async def _delete(self, key: str) -> None:
        await self._bucket.delete(key)
        await self._bucket.delete(upload_key(key))  # a clip that was never checked is still there
        await self._jobs.object_deleted(key)


async def _leave(_: JobRow, __: Exception) -> None:
    """The job has ended, and what its backend still makes of it is deleted."""

"""Sweeper: ends forgotten jobs and deletes files and texts that are not to be kept."""

from __future__ import annotations

from saas.credits.repository import CreditRepository
from saas.jobs.dispatcher import Dispatcher
from saas.jobs.outcomes import Outcomes
from saas.jobs.repository import JobRepository
from saas.storage.bucket import Bucket, upload_key

SWEEP_SECONDS = 10.0
EXPIRE_SECONDS = 2 * 3600
"""Seconds after which a reservation ends, whatever its job's state: longer than any backend may take."""
_BATCH = 100


class Sweeper:
    """Cleans up after jobs."""

    def __init__(self, jobs: JobRepository, credits: CreditRepository, bucket: Bucket, dispatcher: Dispatcher, outcomes: Outcomes) -> None:
        self._jobs, self._credits, self._bucket, self._dispatcher, self._outcomes = jobs, credits, bucket, dispatcher, outcomes

    async def sweep(self) -> None:
        """End forgotten jobs and credits whose time is over, and delete files and texts that are not to be kept."""
        for row in await self._jobs.expire_reservations(EXPIRE_SECONDS):
            self._outcomes.tell(row["id"])
            await self._dispatcher.stop(row)
        await self._credits.expire()
        await self._jobs.expire_results()
        while await self._jobs.expire_texts():
            pass
        await self.empty_outbox()

    async def empty_outbox(self) -> None:
        """Delete the objects whose rows are gone. Each stays on the list until the bucket says that it is deleted."""
        while keys := await self._jobs.objects_to_delete(_BATCH):
            for key in keys:
                await self._bucket.delete(key)
                await self._bucket.delete(upload_key(key))  # a clip that was never checked is still there
                await self._jobs.object_deleted(key)

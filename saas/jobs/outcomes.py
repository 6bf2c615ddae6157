"""How jobs end: settled with a file in the bucket, or refunded. Wakes the requests that wait for a job's end."""

from __future__ import annotations

import asyncio
import time
from weakref import WeakValueDictionary

from saas.jobs.backend import Ending, Fault, Result
from saas.jobs.repository import JobRepository, JobRow
from saas.observability import metrics, reports
from saas.storage.bucket import Bucket

RUNNING = frozenset(["queued", "running"])
LEASE_SECONDS = 30
"""How long a process owns a job. It renews the lease while it works; a dead process does not."""
POLL_SECONDS = 2.0
"""Seconds between checks of the database for changes by other processes."""
ALARM_SECONDS = 600.0
"""Seconds between two alarms of the same kind."""


class Outcomes:
    """Ends jobs in the database. A job ends once: settling one that was refunded changes nothing, and its file is deleted."""

    def __init__(self, jobs: JobRepository, bucket: Bucket) -> None:
        self._jobs, self._bucket = jobs, bucket
        self._alarmed = float("-inf")
        self._events: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()
        self.room = asyncio.Event()
        """Set when a job has ended or come: there may be one to claim."""

    async def found(self, key: str) -> Result | None:
        """The result that the bucket already holds, from a process that died before it could report it."""
        stored = await self._bucket.head(key)
        return None if stored is None else Result.found(stored)

    async def settle(self, job_id: str, key: str, made: Result) -> None:
        """Charge a job whose file is in the bucket."""
        await self._jobs.settle(job_id, key, **made.model_dump())
        self.tell(job_id)

    async def settle_checked(self, job_id: str, key: str, made: Result) -> None:
        """As `settle`, but check first that the file is in the bucket; refund if it is not."""
        stored = await self._bucket.head(key)
        if stored is None or stored.bytes != made.bytes:
            await self.refund(job_id, "failed", "its result did not arrive; try again")
        else:
            await self.settle(job_id, key, made)

    async def refund(self, job_id: str, status: Ending, message: str, heard_seconds: float = 0) -> JobRow:
        """End a job without a result; its client pays for what it has heard. Returns the job, which may have been settled meanwhile."""
        row = await self._jobs.refund(job_id, status, message, heard_seconds)
        self.tell(job_id)
        return row

    def blame(self, backend: str, fault: Fault) -> None:
        """Count a failure of speech. A key that the backend refuses is an alarm: no retry helps until a person gives another one."""
        metrics.FAULTS.labels(backend, fault).inc()
        if fault == "key" and time.monotonic() - self._alarmed > ALARM_SECONDS:
            self._alarmed = time.monotonic()
            reports.alarm("the speech backend refuses the API key: nothing is spoken until it has a valid one", backend=backend)

    def event(self, job_id: str) -> asyncio.Event:
        """Set when the job ends in this process."""
        return self._events.setdefault(job_id, asyncio.Event())

    def tell(self, job_id: str) -> None:
        """Wake the requests that wait for the job's end, and the dispatcher: the user's next job may begin."""
        self.room.set()
        if event := self._events.pop(job_id, None):
            event.set()

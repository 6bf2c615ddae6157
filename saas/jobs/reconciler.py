"""Reconciler: learns how jobs at RunPod ended, by webhook and by asking."""

from __future__ import annotations

import hmac
import time
from contextlib import suppress
from typing import Any, cast

from saas.database import Refused
from saas.jobs.backend import Backend, BackendUnavailable, Fault, JobUnknown, Queued, Result, Terminated, Underway, sha256
from saas.jobs.loop import Backoff, each
from saas.jobs.outcomes import LEASE_SECONDS, RUNNING, Outcomes
from saas.jobs.repository import JobRepository, JobRow
from saas.storage.bucket import Bucket, result_key

RECONCILE_SECONDS = 10.0
FORGIVEN_SECONDS = 60.0
"""Seconds a backend may take to know a job it has accepted."""
_AT_ONCE = 16
_BATCH, _PAUSE = 128, 0.03
"""How many jobs a round asks about, and the seconds between two: asked about together they would hold up every request for a tenth of a second."""


class Reconciler:
    """Checks the jobs in the backend's own queue."""

    def __init__(self, jobs: JobRepository, bucket: Bucket, backend: Backend, outcomes: Outcomes) -> None:
        self._jobs, self._bucket, self._backend, self._outcomes = jobs, bucket, backend, outcomes
        self._backoff = Backoff()
        self._unknown: dict[str, float] = {}
        """When a job was first unknown to the backend, by a clock that never jumps: this machine's wall clock is not the database's."""

    async def webhook(self, job_id: str, token: str, mark: str, backend_id: Any) -> None:
        """Handle RunPod's report that a job has ended. The sender must have the job's token, and RunPod itself must confirm the report.

        `mark` keeps strangers from the database. Raises Refused 404, BackendUnavailable, Unavailable: then RunPod retries the webhook,
        and `reconcile` asks in any case.
        """
        if not isinstance(self._backend, Queued) or not hmac.compare_digest(mark.encode(), self._backend.token(job_id, token).encode()):
            raise Refused(404, "there is no such job")
        row = await self._jobs.of_token(job_id, sha256(token))
        if not isinstance(backend_id, str):
            return
        if row["status"] in RUNNING and row["backend_id"] is None:  # the process that sent the job died before it could record it
            row = await self._jobs.start(job_id, self._backend.name, backend_id=backend_id)
        await self._look(row, backend_id)

    async def reconcile(self) -> None:
        """Ask RunPod about every job it has, since webhooks get lost."""
        if not isinstance(self._backend, Queued):
            return
        waiting = [str(job_id) for job_id in self._backoff.waiting()]
        rows = await self._jobs.running(_BATCH, waiting)
        known = {row["id"] for row in rows} | set(waiting)
        self._unknown = {job_id: since for job_id, since in self._unknown.items() if job_id in known}

        async def look(row: JobRow) -> None:
            await self._look(row, str(row["backend_id"]))
            self._backoff.done(row["id"])

        async def put_off(row: JobRow, e: Exception) -> None:
            if isinstance(e, BackendUnavailable):
                self._outcomes.blame(self._backend.name, e.fault)
            await self._backoff.put_off(row["id"], e)

        ours = [row for row in rows if row["backend"] == self._backend.name and row["backend_id"]]
        await each("asking about jobs", ours, look, put_off, _AT_ONCE, _PAUSE)

    async def made(self, row: JobRow) -> float:
        """Seconds of audio that the backend says it has made of a job; 0 where it does not answer."""
        if isinstance(self._backend, Queued) and row["status"] == "running" and row["backend_id"]:
            with suppress(BackendUnavailable, JobUnknown):
                outcome = await self._backend.status(row["backend_id"], None, row["options"].get("speed", 1.0))
                return outcome.seconds if isinstance(outcome, Underway | Result) else 0.0
        return 0.0

    async def _look(self, row: JobRow, backend_id: str) -> None:
        key = result_key(row["user_id"], row["id"], row["options"].get("format", "mp3"))
        if row["status"] not in RUNNING:
            if row["object_key"] != key:  # too late: the job was refunded or deleted
                await self._bucket.delete(key)
            return
        own = backend_id == row["backend_id"]
        fault: Fault = "failed"
        try:
            outcome = await cast(Queued, self._backend).status(backend_id, key, row["options"].get("speed", 1.0))
        except JobUnknown:
            now = time.monotonic()
            if not own or now - self._unknown.setdefault(row["id"], now) < FORGIVEN_SECONDS:
                return
            outcome, fault = Terminated("failed", "it was lost on the way; try again"), "lost"
        if isinstance(outcome, Underway):
            await self._jobs.renew_lease(row["id"], LEASE_SECONDS, outcome.seconds)  # next time, other jobs are checked first
        elif isinstance(outcome, Result):
            await self._outcomes.settle_checked(row["id"], key, outcome)
        elif own:
            # A second job for the same text, sent by a process that died, may have stored a result; its file is as good.
            if made := await self._outcomes.found(key):
                await self._outcomes.settle(row["id"], key, made)
            else:
                if outcome.status == "failed":
                    self._outcomes.blame(self._backend.name, fault)
                ended = await self._outcomes.refund(row["id"], outcome.status, outcome.message)
                if ended["object_key"] != key:  # no process settled it meanwhile
                    await self._bucket.delete(key)  # its worker may have uploaded a file to a presigned URL

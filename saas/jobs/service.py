"""Jobs, from paid-for text to a file or a refund. All durable state is in the database and the bucket.

A process may die at any line. Other processes then find its work: a job that was not sent on is claimed again when its lease ends, RunPod
is asked about each job it has, and a file in the bucket is settled instead of generated twice.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from contextlib import suppress
from datetime import datetime
from typing import Any, get_args

from inference.errors import FishserveError
from inference.text.captions import KEY_SUFFIX
from saas.credits.aloud import INSTANT, aloud
from saas.credits.repository import CreditRepository
from saas.database import Database, Unavailable
from saas.jobs.backend import Backend, Fault, Options, Queued, sha256
from saas.jobs.dispatcher import Dispatcher
from saas.jobs.loop import Backoff, again, each
from saas.jobs.outcomes import LEASE_SECONDS, POLL_SECONDS, RUNNING, Outcomes
from saas.jobs.reconciler import RECONCILE_SECONDS, Reconciler
from saas.jobs.repository import ClaimedRow, JobRepository, JobRow, Taken
from saas.jobs.stream import Stream
from saas.jobs.sweeper import SWEEP_SECONDS, Sweeper
from saas.observability import metrics
from saas.storage.bucket import Bucket, Download, StorageError

LOST = "the database did not answer, and it is not known whether the request was taken; "


class AnswerLost(FishserveError):
    """The database may have taken a request, or not. The message says what the client can do."""


class Jobs:
    """The jobs of one process. `run` works until it is cancelled."""

    def __init__(self, database: Database, bucket: Bucket, backend: Backend) -> None:
        self._jobs, self._bucket, self._backend = JobRepository(database), bucket, backend
        self._outcomes = Outcomes(self._jobs, bucket)
        self._dispatcher = Dispatcher(self._jobs, bucket, backend, self._outcomes)
        self._reconciler = Reconciler(self._jobs, bucket, backend, self._outcomes)
        self._sweeper = Sweeper(self._jobs, CreditRepository(database), bucket, self._dispatcher, self._outcomes)
        self._lost: list[tuple[str, str]] = []
        self._backoff = Backoff()

    async def run(self) -> None:
        """Dispatch claimed jobs, reconcile those that were sent on, and clean up those that have ended, until cancelled."""
        for fault in get_args(Fault):  # that is 0 at first: a counter that begins at 1 has not grown
            metrics.FAULTS.labels(self._backend.name, fault)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(again(self._dispatcher.dispatch, 0))
                group.create_task(again(self.reconcile, RECONCILE_SECONDS))
                for sweep in self._sweeper.tasks:
                    group.create_task(again(sweep, SWEEP_SECONDS))
                group.create_task(again(self._give_up_lost, POLL_SECONDS))
        finally:
            await self._dispatcher.close()

    async def reconcile(self) -> None:
        """As Reconciler.reconcile."""
        await self._reconciler.reconcile()

    async def webhook(self, job_id: str, token: str, mark: str, backend_id: Any) -> None:
        """As Reconciler.webhook."""
        await self._reconciler.webhook(job_id, token, mark, backend_id)

    async def submit(
        self, user_id: str, key_id: str | None, idempotency_key: str | None, text: str, voice_id: str | None, options: Options,
        *, listened: bool = False,
    ) -> Taken:  # fmt: skip
        """Reserve the credits and accept the job, once for each idempotency key. Raises Refused, AnswerLost.

        `listened`: a client hears it while it is made. Then it is claimed for `stream` at once, if the backend can stream.
        """
        key = idempotency_key or secrets.token_hex(16)
        asked = json.dumps([text, voice_id, options.asdict()], sort_keys=True)
        token = self._backend.token(user_id, key) if isinstance(self._backend, Queued) else secrets.token_hex(32)
        read = await asyncio.to_thread(aloud, text) if len(text) > INSTANT else aloud(text)
        try:
            taken = await self._jobs.submit(
                user_id=user_id, api_key_id=key_id, idempotency_key=key, fingerprint=sha256(asked), text=text, voice_id=voice_id,
                options=options.asdict(), token_hash=sha256(token), letters=read.letters, silence=read.silence,
                lease_seconds=LEASE_SECONDS if listened and not isinstance(self._backend, Queued) else 0,
            )  # fmt: skip
        except Unavailable:
            if idempotency_key is not None:
                raise AnswerLost(f"{LOST}send it again with the same Idempotency-Key: it is taken once") from None
            self._lost.append((user_id, key))
            raise AnswerLost(f"{LOST}if it was, it is cancelled and costs nothing: send it again in a few seconds") from None
        if taken["claimed"] is None:
            self.wake()
        return taken

    async def _give_up_lost(self) -> None:
        async def give_up(asked: tuple[str, str]) -> None:
            row = await self._jobs.give_up(*asked)
            self._lost.remove(asked)
            self._backoff.done(asked)
            if row:
                await self._dispatcher.stop(row)

        due = [asked for asked in self._lost if not self._backoff.waits(asked)]
        await each("giving up lost requests", due, give_up, self._backoff.put_off)

    def wake(self) -> None:
        """Tell the dispatcher that there may be jobs to claim."""
        self._dispatcher.wake()

    async def list(self, user_id: str, before: datetime | None, limit: int, search: str | None) -> list[JobRow]:
        """A user's jobs, the newest first."""
        return await self._jobs.of_user(user_id, before, limit, search)

    async def wait(self, user_id: str, job_id: str, seconds: float) -> JobRow:
        """The job once it has ended, or its state after `seconds`."""
        deadline = asyncio.get_running_loop().time() + seconds
        event = self._outcomes.event(job_id)
        while True:
            row = await self._jobs.get(user_id, job_id)
            left = deadline - asyncio.get_running_loop().time()
            if row["status"] not in RUNNING or left <= 0:
                return row
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, POLL_SECONDS)):
                    await event.wait()

    async def cancel(self, user_id: str, job_id: str) -> JobRow:
        """Cancel a job that has not ended: it costs what was made of it. Raises Refused 404, and 409 while a client is listening to it."""
        made = self._dispatcher.made(job_id) or await self._reconciler.made(await self._jobs.get(user_id, job_id))
        answer = await self._jobs.cancel(user_id, job_id, made)
        if answer["changed"]:
            self._outcomes.tell(job_id)
            await self._dispatcher.stop(answer["job"])
        return answer["job"]

    async def abandon(self, job_id: str) -> None:
        """End a job whose only client disconnected before it received any audio."""
        await self._dispatcher.stop(await self._outcomes.refund(job_id, "cancelled", "its client left before anything was spoken"))

    async def delete(self, user_id: str, job_id: str) -> None:
        """Delete a job and its result. Raises Refused as `cancel` does."""
        await self.cancel(user_id, job_id)
        if key := await self._jobs.delete(user_id, job_id):
            with suppress(StorageError):  # the list of objects to delete contains it
                await self._bucket.delete(key)

    def url(self, row: JobRow) -> str | None:
        """A URL of a job's result, valid for 300 s; None without a result."""
        key = row.get("object_key")
        if row["status"] != "succeeded" or not key:
            return None
        return self._bucket.get_url(key, filename=f"speech-{row['id'][:8]}.{row['options'].get('format', 'mp3')}")

    def captions_url(self, row: JobRow) -> str | None:
        """A URL of a result's captions, valid for 300 s; None without any."""
        key, kind = row.get("object_key"), row["options"].get("captions")
        if row["status"] != "succeeded" or not key or not kind:
            return None
        return self._bucket.get_url(key + KEY_SUFFIX, filename=f"speech-{row['id'][:8]}.{kind}")

    async def result(self, row: JobRow) -> Download | None:
        """The file of a job that succeeded, for the caller to close; None when it has been deleted."""
        return await self._bucket.open(row["object_key"]) if row["object_key"] else None

    def stream(self, claimed: ClaimedRow) -> Stream:
        """As Dispatcher.stream."""
        return self._dispatcher.stream(claimed)

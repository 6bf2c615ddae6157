"""Every job's way from paid-for text to a file or its money back. All it knows for sure is in the database and the bucket.

A process may die at any line of this. What it was doing is then found again: a job nobody handed on is claimed again when its lease is over, one
at RunPod is asked for, and a file that is in the bucket is settled and not made twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast
from weakref import WeakValueDictionary

from inference.errors import FishserveError
from saas.database import Database, Refused, Unavailable
from saas.jobs.dispatch import (
    Accepted,
    BackendUnavailable,
    Ending,
    JobRejected,
    JobUnknown,
    Options,
    Order,
    Queued,
    Result,
    Speech,
    Streaming,
    Terminated,
)
from saas.observability import reports
from saas.storage.bucket import Bucket, StorageError, result_key, upload_key

log = logging.getLogger(__name__)
Row = dict[str, Any]
RUNNING = frozenset(["queued", "running"])
LEASE_SECONDS = 30
"""How long a job is one process's alone. While a stream is read it is renewed; a process that has died does not."""
MAX_ATTEMPTS = 10
MAX_PAUSE = 60
"""Seconds between attempts, from 1 on doubled each time."""
GATHER_SECONDS = 0.05
"""Between two questions for jobs: one that comes alone need not wait."""
POLL_SECONDS = 2.0
"""Between looks at the database for what another process did."""
RECONCILE_SECONDS = 10.0
EXPIRE_SECONDS = 2 * 3600
"""After which a reservation ends whatever became of its job: longer than any backend may take."""
_FORGIVEN = 60
"""Seconds a backend may take to know a job it has accepted."""
_AT_ONCE = 16
_BATCH = 100


class Jobs:
    """The jobs of one process. `run` works until it is cancelled."""

    def __init__(self, database: Database, bucket: Bucket, backend: Streaming | Queued) -> None:
        self._database, self._bucket, self._backend = database, bucket, backend
        self._wake, self._full = asyncio.Event(), False
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._events: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()

    # -- what users ask --------------------------------------------------------------------------------------------------------

    async def submit(
        self, user_id: str, key_id: str | None, idempotency_key: str | None, text: str, voice_id: str | None, options: Options,
        *, dispatch: bool = True,
    ) -> Row:  # fmt: skip
        """Reserve the credits and take the job, once for each idempotency key. Raises Refused, Unavailable.

        Returns `{job, replayed, balance, voice}`. Without `dispatch` the caller claims it, or leaves it to the next round.
        """
        key = idempotency_key or secrets.token_hex(16)
        asked = json.dumps([text, voice_id, options.asdict()], sort_keys=True)
        token = self._backend.token(user_id, key) if isinstance(self._backend, Queued) else secrets.token_hex(32)
        taken = await self._database.call(
            "process_audio_request", user_id=user_id, idempotency_key=key, fingerprint=_hash(asked), text=text, voice_id=voice_id,
            options=options.asdict(), api_key_id=key_id, token_hash=_hash(token),
        )  # fmt: skip
        if dispatch:
            self.wake()
        return cast(Row, taken)

    def wake(self) -> None:
        """There may be something to hand on."""
        self._wake.set()

    async def wait(self, user_id: str, job_id: str, seconds: float) -> Row:
        """The job once it has ended, or as it is after so long."""
        deadline = asyncio.get_running_loop().time() + seconds
        event = self._events.setdefault(job_id, asyncio.Event())
        while True:
            row: Row = await self._database.call("get_job", user_id=user_id, job_id=job_id)
            left = deadline - asyncio.get_running_loop().time()
            if row["status"] not in RUNNING or left <= 0:
                return row
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, POLL_SECONDS)):
                    await event.wait()

    async def cancel(self, user_id: str, job_id: str) -> Row:
        """End a job that has not ended, and give back what it reserved. Raises Refused 404, and 409 for one that is being listened to."""
        answer = await self._database.call("cancel_job", user_id=user_id, job_id=job_id)
        if answer["changed"]:
            self._tell(job_id)
            await self._stop(answer["job"])
        return cast(Row, answer["job"])

    async def abandon(self, job_id: str) -> None:
        """End a job whose only client left before it heard anything."""
        await self._stop(await self._refund(job_id, "cancelled", "its client left before anything was spoken"))

    async def delete(self, user_id: str, job_id: str) -> None:
        """Forget a job and its result. Raises Refused as `cancel` does."""
        await self.cancel(user_id, job_id)
        gone = await self._database.call("delete_job", user_id=user_id, job_id=job_id)
        if gone["object_key"]:
            with suppress(StorageError):  # the list of what is to be deleted has it
                await self._bucket.delete(gone["object_key"])

    def url(self, row: Row) -> str | None:
        """Where the result of a job is, for 300 s."""
        key = row.get("object_key")
        if row["status"] != "succeeded" or not key:
            return None
        return self._bucket.get_url(key, filename=f"speech-{row['id'][:8]}.{row['options'].get('format', 'mp3')}")

    async def result(self, row: Row) -> bytes | None:
        """The file of a job that succeeded; None when it has been deleted."""
        key = row["object_key"]
        return await self._bucket.read(key, most=row["bytes"]) if key else None

    # -- streams ---------------------------------------------------------------------------------------------------------------

    async def stream(self, row: Row) -> Stream | None:
        """The job's speech as it is made, where the backend can and nobody else has begun it."""
        if isinstance(self._backend, Queued):
            return None
        claimed = await self._database.call("claim_job", job_id=row["id"], lease_seconds=LEASE_SECONDS)
        if claimed is None:
            return None
        stream = Stream()
        self._start(row["id"], lambda: self._run_stream(Order.of(claimed), stream))
        return stream

    async def _run_stream(self, order: Order, stream: Stream) -> None:
        """A client that leaves stops the speech. What was made until then is finished, kept and charged; nothing made costs nothing."""
        try:
            content, speech = await self._synthesize(order, stream)
            if stream.left and not speech.frames:
                await self._refund(order.job_id, "cancelled", "its client left before anything was spoken")
            else:
                await self._keep(order, content, speech)
            stream.end()
        except (BackendUnavailable, JobRejected) as e:
            await self._refund(order.job_id, "failed", str(e))
            stream.end(e)
        except BaseException as e:
            stream.end(e if isinstance(e, Exception) else BackendUnavailable("the server is stopping"))
            raise

    async def _synthesize(self, order: Order, stream: Stream | None) -> tuple[bytes, Speech]:
        backend = cast(Streaming, self._backend)
        content = bytearray()
        async with self._leased(order, heard=stream is not None), backend.open(order) as speech:
            async for piece in speech:
                content += piece
                if stream:
                    stream.give(piece)
                    if stream.left:
                        break
            content += (rest := await speech.finish())
            if stream:
                stream.frames = speech.frames
            if stream and rest:
                stream.give(rest)
            return speech.whole(bytes(content)), speech

    @asynccontextmanager
    async def _leased(self, order: Order, *, heard: bool) -> AsyncIterator[None]:
        """Say that the job is being done here, and go on saying so. One that was ended elsewhere stops here, too. Raises Refused for that."""
        await self._database.call("start_job", job_id=order.job_id, backend=self._backend.name, heard=heard)
        speaking = asyncio.current_task()
        assert speaking

        async def renew() -> None:
            while True:
                await asyncio.sleep(LEASE_SECONDS / 3)
                with suppress(Unavailable):
                    answer = await self._database.call("renew_lease", job_id=order.job_id, lease_seconds=LEASE_SECONDS)
                    if not answer["renewed"]:
                        speaking.cancel()
                        return

        renewing = asyncio.create_task(renew())
        try:
            yield
        finally:
            renewing.cancel()

    # -- the work --------------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Hand on what is taken, look after what was handed on, and clear away what has ended. Until it is cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._again(self._dispatch, 0))
                group.create_task(self._again(self.reconcile, RECONCILE_SECONDS))
                group.create_task(self._again(self.sweep, RECONCILE_SECONDS))
        finally:
            await self._close()

    async def _dispatch(self) -> None:
        """Start as many jobs as there is room for; then wait for others, or for room."""
        self._wake.clear()
        free = self._backend.slots - len(self._tasks)
        claimed: list[Row] = await self._database.call("claim_jobs", limit=free, lease_seconds=LEASE_SECONDS) if free > 0 else []
        self._full = len(claimed) >= free
        for row in claimed:
            self._start(row["id"], partial(self._work, row))
        await asyncio.sleep(GATHER_SECONDS)  # what comes together is claimed together
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL_SECONDS):
                await self._wake.wait()

    def _start(self, job_id: str, work: Callable[[], Awaitable[None]]) -> None:
        async def watched() -> None:
            try:
                await work()
            except (Refused, FishserveError, Unavailable) as e:
                log.warning("job %s was left for later: %s", job_id, _words(e))
            except Exception as e:
                log.error("job %s was left for later by an error in this program: %s", job_id, type(e).__name__)
                reports.report(e, loop="job")

        def over(task: asyncio.Task[None]) -> None:
            if self._tasks.get(job_id) is task:
                del self._tasks[job_id]
            if self._full:
                self._wake.set()

        task = self._tasks[job_id] = asyncio.create_task(watched())
        task.add_done_callback(over)

    async def _work(self, row: Row) -> None:
        """One attempt at a claimed job."""
        order = Order.of(row)
        try:
            if row["attempts"] > 1 and (made := await self._found(order.key)):
                await self._settle(order.job_id, order.key, made)
            elif row["attempts"] > MAX_ATTEMPTS:
                raise JobRejected("it could not be spoken just now, and was tried several times; try again later")
            elif row.get("voice_id") and order.voice is None:
                raise JobRejected("its voice was deleted before it was spoken")
            elif isinstance(self._backend, Queued):
                await self._hand_on(order, self._backend)
            else:
                content, speech = await self._synthesize(order, None)
                await self._keep(order, content, speech)
        except JobRejected as e:
            await self._refund(order.job_id, "failed", str(e))
        except Refused as e:
            log.info("job %s had ended meanwhile: %s", order.job_id, e.status)
        except BackendUnavailable as e:
            pause = e.seconds or min(MAX_PAUSE, 2 ** (row["attempts"] - 1))
            log.warning("job %s is tried again in %.0f s: %s", order.job_id, pause, e)
            await self._database.call("renew_lease", job_id=order.job_id, lease_seconds=round(min(MAX_PAUSE, pause)))

    async def _hand_on(self, order: Order, backend: Queued) -> None:
        outcome = await backend.send(order)
        if isinstance(outcome, Accepted):
            try:
                await self._database.call("start_job", job_id=order.job_id, backend=backend.name, backend_id=outcome.backend_id)
            except Refused:  # it was cancelled meanwhile
                await backend.cancel(outcome.backend_id)
        elif isinstance(outcome, Result):
            await self._settle_checked(order.job_id, order.key, outcome)
        else:
            await self._refund(order.job_id, outcome.status, outcome.message)

    async def _keep(self, order: Order, content: bytes, speech: Speech) -> None:
        made = Result(seconds=speech.seconds, frames=speech.frames, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        await self._bucket.put(order.key, content, order.options.media_type, made.metadata(order.job_id))
        await self._settle(order.job_id, order.key, made)

    # -- ends ------------------------------------------------------------------------------------------------------------------

    async def _found(self, key: str) -> Result | None:
        stored = await self._bucket.head(key)
        return None if stored is None else Result.found(stored)

    async def _settle_checked(self, job_id: str, key: str, made: Result) -> None:
        """What the backend says it has sent must be there."""
        stored = await self._bucket.head(key)
        if stored is None or stored.bytes != made.bytes:
            await self._refund(job_id, "failed", "its result did not arrive; try again")
        else:
            await self._settle(job_id, key, made)

    async def _settle(self, job_id: str, key: str, made: Result) -> None:
        """A job that had ended, and was paid back, stays so; then SQL has the file deleted."""
        await self._database.call("settle_job", job_id=job_id, object_key=key, **made.model_dump())
        self._tell(job_id)

    async def _refund(self, job_id: str, status: Ending, message: str) -> Row:
        answer = await self._database.call("refund_job", job_id=job_id, status=status, error=message)
        self._tell(job_id)
        return cast(Row, answer["job"])

    async def _stop(self, row: Row) -> None:
        if task := self._tasks.get(row["id"]):
            task.cancel()
        if row.get("backend_id") and isinstance(self._backend, Queued):
            with suppress(BackendUnavailable):  # it will run to its end then, and its result be deleted
                await self._backend.cancel(row["backend_id"])

    def _tell(self, job_id: str) -> None:
        if event := self._events.pop(job_id, None):
            event.set()

    # -- what was handed on ----------------------------------------------------------------------------------------------------

    async def webhook(self, job_id: str, token: str, backend_id: Any) -> None:
        """RunPod says that a job has ended. Whoever says so must have the job's token, and RunPod is asked before it is believed.

        Raises Refused 404, Later, Unavailable: then RunPod says it again, and `reconcile` asks in any case.
        """
        row: Row = await self._database.call("job_of_token", job_id=job_id, token_hash=_hash(token))
        if not isinstance(self._backend, Queued) or not isinstance(backend_id, str):
            return
        if row["status"] in RUNNING and row["backend_id"] is None:  # the process that sent it died before it could say so
            row = await self._database.call("start_job", job_id=job_id, backend=self._backend.name, backend_id=backend_id)
        await self._look(row, backend_id)

    async def reconcile(self) -> None:
        """Ask RunPod about every job it has, since webhooks get lost."""
        if not isinstance(self._backend, Queued):
            return
        rows: list[Row] = await self._database.call("running_jobs", limit=_BATCH)
        turn = asyncio.Semaphore(_AT_ONCE)

        async def look(row: Row) -> None:
            async with turn:
                with suppress(BackendUnavailable):
                    await self._look(row, row["backend_id"])

        await asyncio.gather(*(look(row) for row in rows if row["backend"] == self._backend.name and row["backend_id"]))

    async def _look(self, row: Row, backend_id: str) -> None:
        key = result_key(row["user_id"], row["id"], row["options"].get("format", "mp3"))
        if row["status"] not in RUNNING:
            if row["object_key"] != key:  # too late: it was paid back, or deleted
                await self._bucket.delete(key)
            return
        own = backend_id == row["backend_id"]
        try:
            outcome = await cast(Queued, self._backend).status(backend_id, key)
        except JobUnknown:
            if not own or _age(row) < _FORGIVEN:
                return
            outcome = Terminated("failed", "it was lost on the way; try again")
        if outcome is None:
            await self._database.call(
                "renew_lease", job_id=row["id"], lease_seconds=LEASE_SECONDS
            )  # others are asked about first, next time
        elif isinstance(outcome, Result):
            await self._settle_checked(row["id"], key, outcome)
        elif own:
            # A second job of the same text, sent by a process that died, may have done it; its file is as good.
            if made := await self._found(key):
                await self._settle(row["id"], key, made)
            else:
                ended = await self._refund(row["id"], outcome.status, outcome.message)
                if ended["object_key"] != key:  # nobody settled it meanwhile
                    await self._bucket.delete(key)  # by an address its worker may have put something there

    # -- clearing away ---------------------------------------------------------------------------------------------------------

    async def sweep(self) -> None:
        """End what was forgotten, and delete what is not to be kept."""
        for row in await self._database.call("expire_reservations", older_than_seconds=EXPIRE_SECONDS):
            self._tell(row["id"])
            await self._stop(row)
        await self._database.call("expire_results")
        await self.empty_outbox()

    async def empty_outbox(self) -> None:
        """Delete the objects whose rows are gone. Each stays on the list until the bucket says that it is deleted."""
        while keys := await self._database.call("objects_to_delete", limit=_BATCH):
            for key in keys:
                await self._bucket.delete(key)
                await self._bucket.delete(upload_key(key))  # a clip that was never looked at is still there
                await self._database.call("object_deleted", key=key)

    async def _again(self, work: Callable[[], Awaitable[None]], pause: float) -> None:
        task = asyncio.current_task()
        assert task
        while not task.cancelling():  # a library may swallow a cancellation that comes together with its answer
            try:
                await work()
                await asyncio.sleep(pause)
            except (Unavailable, StorageError, Refused, BackendUnavailable) as e:
                log.warning("%s is tried again: %s", work.__name__, _words(e))
                await asyncio.sleep(POLL_SECONDS)
            except Exception as e:
                log.error("%s is tried again after an error in this program: %s", work.__name__, type(e).__name__)
                reports.report(e, loop=work.__name__)
                await asyncio.sleep(POLL_SECONDS)

    async def _close(self) -> None:
        """Leave what is under way to others, at once."""
        tasks = dict(self._tasks)
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        for job_id in tasks:
            with suppress(Unavailable, Refused):
                await self._database.call("renew_lease", job_id=job_id, lease_seconds=0)


class Stream:
    """Pieces of a file on their way to one client, who may leave."""

    def __init__(self) -> None:
        self._pieces: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self._first: bytes | Exception | None = None
        self.left, self.frames = False, 0

    def give(self, piece: bytes) -> None:
        """The next piece."""
        self._pieces.put_nowait(piece)

    def end(self, error: Exception | None = None) -> None:
        """There are no more."""
        self._pieces.put_nowait(error)

    async def begin(self) -> None:
        """Wait for the first piece. Raises what went wrong before it."""
        self._first = await self._pieces.get()
        if isinstance(self._first, Exception):
            raise self._first

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """To be iterated after `begin`. Leaving early is told to whoever makes it."""
        try:
            piece = self._first
            while piece is not None:
                if isinstance(piece, Exception):
                    raise piece  # no clean end: nobody must take a part for the whole
                yield piece
                piece = await self._pieces.get()
        finally:
            self.left = True


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _age(row: Row) -> float:
    """Seconds since it was handed on."""
    return (datetime.now(UTC) - datetime.fromisoformat(row["started_at"])).total_seconds()


def _words(error: Exception) -> str:
    """What may be in a log: our own sentences, and of others their kind."""
    return str(error) if isinstance(error, FishserveError) else type(error).__name__

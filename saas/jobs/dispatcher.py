"""Dispatcher: claims jobs and has the backend speak them, into a file or to a client that listens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import cast

from inference.errors import FishserveError
from inference.spool import Spool
from inference.text.captions import CAPTION_FORMATS, KEY_SUFFIX
from saas.database import DatabaseError, Refused, Unavailable
from saas.jobs.backend import Accepted, Backend, BackendUnavailable, JobRejected, LeftForLater, Order, Queued, Result, Speech, Streaming
from saas.jobs.loop import words
from saas.jobs.outcomes import LEASE_SECONDS, POLL_SECONDS, Outcomes
from saas.jobs.repository import ClaimedRow, JobRepository, JobRow
from saas.jobs.stream import Stream
from saas.observability import reports
from saas.storage.bucket import Bucket

log = logging.getLogger(__name__)
MAX_ATTEMPTS = 10
MAX_PAUSE = 60
"""The most seconds between attempts. The pause starts at 1 s and doubles each time."""
RENEW_SECONDS = 3.0
"""Seconds between two renewals of a lease, which also tell the database how much was made. So much may be heard unpaid if this process is killed."""
MAX_RESULT_BYTES = 400_000_000
"""The largest file: 19 minutes at a quarter of the speed, as WAV."""
GATHER_SECONDS = 0.05
"""Seconds between two claims. A job that arrives alone does not wait."""


class Dispatcher:
    """The jobs that this process has claimed."""

    def __init__(self, jobs: JobRepository, bucket: Bucket, backend: Backend, outcomes: Outcomes) -> None:
        self._jobs, self._bucket, self._backend, self._outcomes = jobs, bucket, backend, outcomes
        self._wake = outcomes.room
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._speeches: dict[str, Speech] = {}

    def wake(self) -> None:
        """Tell the dispatcher that there may be jobs to claim."""
        self._wake.set()

    def stream(self, claimed: ClaimedRow) -> Stream:
        """Stream the speech of a job that is claimed for it."""
        stream = Stream()
        self._start(claimed["id"], lambda: self._run_stream(claimed, stream))
        return stream

    async def _run_stream(self, row: ClaimedRow, stream: Stream) -> None:
        """A client that disconnects stops the speech. The audio so far is finished, stored and charged; no audio costs nothing.

        So is the audio of a file that became too large, of a backend that breaks off, and before a disk that is full; then the stream breaks off.
        """
        order = Order.of(row)
        try:
            try:
                _check_voice(row)
                speech = await self._synthesize(order, stream.spool, stream)
                too_large = stream.spool.size > MAX_RESULT_BYTES
                if stream.left and not stream.frames:
                    await self._outcomes.refund(order.job_id, "cancelled", "its client left before anything was spoken")
                else:
                    partial = speech.partial or stream.left or too_large
                    await self._keep(order, stream.spool, speech.seconds, speech.frames, partial=partial)
                stream.end(_too_large() if too_large else None)
            except (BackendUnavailable, JobRejected) as e:
                if isinstance(e, BackendUnavailable):
                    self._outcomes.blame(self._backend.name, e.fault)
                if stream.frames:
                    stream.spool.overwrite(*self._speeches[order.job_id].true_sizes(stream.spool.size))
                    await self._keep(order, stream.spool, stream.seconds, stream.frames, partial=True)
                else:
                    await self._outcomes.refund(order.job_id, "failed", str(e))
                stream.end(e)
        except Refused as e:
            stream.end(e)
            raise
        except BaseException as e:
            stream.end(LeftForLater(f"the connection broke; the job continues, and GET /api/jobs/{order.job_id} says when it is ready"))
            if isinstance(e, Exception):  # however the job ends, what was heard of it is paid for
                with suppress(DatabaseError):
                    await self._jobs.renew_lease(order.job_id, LEASE_SECONDS, stream.seconds)
            raise

    async def _synthesize(self, order: Order, spool: Spool, stream: Stream | None) -> Speech:
        """Speak into the spool. Raises JobRejected for a file that becomes too large and that nobody hears meanwhile."""
        backend = cast(Streaming, self._backend)
        async with self._leased(order, heard=stream is not None), backend.open(order) as speech:
            self._speeches[order.job_id] = speech
            async for piece in speech:
                await _write(spool, piece)
                if stream:
                    stream.tell(speech.seconds, speech.frames)
                if stream and (stream.left or spool.size > MAX_RESULT_BYTES):
                    break
                if spool.size > MAX_RESULT_BYTES:
                    raise _too_large()
            await _write(spool, await speech.finish())
            if stream:
                stream.tell(speech.seconds, speech.frames)
            spool.overwrite(*speech.true_sizes(spool.size))
            return speech

    @asynccontextmanager
    async def _leased(self, order: Order, *, heard: bool) -> AsyncIterator[None]:
        """Mark the job as running here and renew its lease. A job that ended elsewhere stops here, too. Raises Refused if it has ended."""
        await self._jobs.start(order.job_id, self._backend.name, heard=heard)
        speaking = asyncio.current_task()
        assert speaking

        async def renew() -> None:
            while True:
                await asyncio.sleep(RENEW_SECONDS)
                try:
                    if not await self._jobs.renew_lease(order.job_id, LEASE_SECONDS, self.made(order.job_id)):
                        speaking.cancel()
                        return
                except DatabaseError as e:  # the lease has time for more attempts, and what is heard meanwhile is to be known
                    log.warning("the lease of job %s is renewed later: %s", order.job_id, words(e))

        renewing = asyncio.create_task(renew())
        try:
            yield
        finally:
            renewing.cancel()

    def made(self, job_id: str) -> float:
        """Seconds of audio that this process has made of a job."""
        return self._speeches[job_id].seconds if job_id in self._speeches else 0.0

    async def dispatch(self) -> None:
        """Start as many jobs as there are free slots, then wait for more jobs or slots."""
        self._wake.clear()
        free = self._backend.slots - len(self._tasks)
        claimed = await self._jobs.claim_due(free, LEASE_SECONDS) if free > 0 else []
        for row in claimed:
            self._start(row["id"], partial(self._work, row))
        await asyncio.sleep(GATHER_SECONDS)  # jobs that arrive together are claimed together
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL_SECONDS):
                await self._wake.wait()

    def _start(self, job_id: str, work: Callable[[], Awaitable[None]]) -> None:
        async def watched() -> None:
            try:
                await work()
            except (Refused, FishserveError, Unavailable) as e:
                log.warning("job %s was left for later: %s", job_id, words(e))
            except Exception as e:
                log.error("job %s was left for later by an error in this program: %s", job_id, type(e).__name__)
                reports.report(e, loop="job")

        def over(task: asyncio.Task[None]) -> None:
            if self._tasks.get(job_id) is task:
                del self._tasks[job_id]
                self._speeches.pop(job_id, None)
            self._wake.set()

        task = self._tasks[job_id] = asyncio.create_task(watched())
        task.add_done_callback(over)

    async def _work(self, row: ClaimedRow) -> None:
        """One attempt at a claimed job."""
        order = Order.of(row)
        try:
            if row["attempts"] > 1 and (made := await self._outcomes.found(order.key)):
                await self._outcomes.settle(order.job_id, order.key, made)
            elif row["attempts"] > MAX_ATTEMPTS:
                raise JobRejected("it could not be spoken just now, and was tried several times; try again later")
            else:
                _check_voice(row)
                if isinstance(self._backend, Queued):
                    await self._hand_on(order, self._backend)
                else:
                    with Spool() as spool:
                        speech = await self._synthesize(order, spool, None)
                        if order.options.captions:
                            await self._keep_captions(order, speech)
                        await self._keep(order, spool, speech.seconds, speech.frames, partial=speech.partial)
        except JobRejected as e:
            await self._outcomes.refund(order.job_id, "failed", str(e))
        except Refused as e:
            log.info("job %s had ended meanwhile: %s", order.job_id, e.status)
        except BackendUnavailable as e:
            self._outcomes.blame(self._backend.name, e.fault)
            pause = e.seconds or min(MAX_PAUSE, 2 ** (row["attempts"] - 1))
            log.warning("job %s is tried again in %.0f s: %s", order.job_id, pause, e)
            await self._jobs.renew_lease(order.job_id, round(min(MAX_PAUSE, pause)))

    async def _hand_on(self, order: Order, backend: Queued) -> None:
        outcome = await backend.send(order)
        if isinstance(outcome, Accepted):
            try:
                await self._jobs.start(order.job_id, backend.name, backend_id=outcome.backend_id)
            except Refused:  # the job was cancelled meanwhile
                await backend.cancel(outcome.backend_id)
        elif isinstance(outcome, Result):
            await self._outcomes.settle_checked(order.job_id, order.key, outcome)
        else:
            self._outcomes.blame(backend.name, "failed")
            await self._outcomes.refund(order.job_id, outcome.status, outcome.message)

    async def _keep(self, order: Order, content: Spool, seconds: float, frames: int, *, partial: bool) -> None:
        """Store and settle the speech. `partial`: it ended before its text did."""
        checksum = await asyncio.to_thread(content.digest)
        made = Result(seconds=seconds, frames=frames, bytes=content.size, sha256=checksum, partial=partial)
        await self._bucket.put(order.key, content, order.options.media_type, made.metadata(order.job_id))
        await self._outcomes.settle(order.job_id, order.key, made)

    async def _keep_captions(self, order: Order, speech: Speech) -> None:
        """Store the captions before the file: where the file is, so are they."""
        kind = CAPTION_FORMATS[order.options.captions or "srt"]
        with Spool() as content:
            await _write(content, kind.write(order.text, speech.words).encode())
            await self._bucket.put(order.key + KEY_SUFFIX, content, kind.media_type)

    async def stop(self, row: JobRow) -> None:
        """Stop the work on a job that has ended."""
        if task := self._tasks.get(row["id"]):
            task.cancel()
        if (backend_id := row["backend_id"]) and isinstance(self._backend, Queued):
            with suppress(BackendUnavailable, JobRejected):  # then the job runs to its end and its result is deleted
                await self._backend.cancel(backend_id)

    async def close(self) -> None:
        """Stop the running jobs and release their leases, so that other processes can take them at once."""
        tasks = dict(self._tasks)
        made = {job_id: self.made(job_id) for job_id in tasks}
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        for job_id in tasks:
            with suppress(Unavailable, Refused):
                await self._jobs.renew_lease(job_id, 0, made[job_id])


async def _write(spool: Spool, piece: bytes) -> None:
    try:
        await spool.write(piece)
    except OSError as e:
        raise BackendUnavailable(f"the speech cannot be kept on this server's disk: {e.strerror}", fault="disk") from None


def _too_large() -> JobRejected:
    return JobRejected(f"the file would have more than {MAX_RESULT_BYTES:,} bytes; ask for less text, or for another format")


def _check_voice(row: ClaimedRow) -> None:
    """Raises JobRejected when the voice that a job names is gone or blocked: nobody is given another one."""
    if row["voice_id"] and row["voice"] is None:
        raise JobRejected("its voice was deleted or blocked before it was spoken")

"""A stream and its credits, with a backend that speaks when it is told to; database and bucket are real."""

import asyncio
import errno
import os
from contextlib import aclosing, asynccontextmanager, closing

import pytest

from inference.spool import Spool
from saas.database import Refused, Unavailable
from saas.jobs import dispatcher
from saas.jobs.backend import BackendUnavailable, JobRejected, LeftForLater, Options
from saas.jobs.outcomes import Outcomes
from saas.jobs.service import Jobs
from saas.postgres import PostgresDatabase
from saas.storage.bucket import Bucket, StorageError
from tests.waiting import HANG_SECONDS
from tests.worker.conftest import BUCKET

PRICE = 10
"""Of a second, and of less."""


class DrainingWebSocketProtocol:
    """Speaks half a second, each time it is told to."""

    name, slots, partial = "fishserve", 1, False

    def __init__(self):
        self.told, self.seconds, self.frames, self.fails, self.ends = asyncio.Semaphore(0), 0.0, 0, False, False

    @asynccontextmanager
    async def open(self, order):  # noqa: ARG002 - what is to be spoken is all the same
        yield self

    async def __aiter__(self):
        while True:
            await self.told.acquire()
            if self.fails:
                raise BackendUnavailable("it broke")
            if self.ends:
                return
            self.seconds, self.frames = self.seconds + 0.5, self.frames + 10
            yield b"sound"

    async def finish(self):
        return b""

    def true_sizes(self, size):  # noqa: ARG002
        return 0, b""


@pytest.fixture
def listening(database, bucket):
    """Runs what is given the service, its backend, a user of 1000 credits, and the row and stream of a job."""

    def run(story):
        async def whole():
            store, files = PostgresDatabase(database.url), Bucket(bucket.endpoint, bucket.key, bucket.secret, BUCKET)
            backend, who = DrainingWebSocketProtocol(), str(database.user(1000))
            jobs = Jobs(store, files, backend)
            taken = await jobs.submit(who, None, "key", "x" * 130, None, Options(), listened=True)
            row = taken["job"]
            await story(jobs, backend, who, row, jobs.stream(taken["claimed"]))
            ended = await jobs.wait(who, row["id"], HANG_SECONDS)
            files.close()
            await store.close()
            return ended, (database.call("get_profile", user_id=who))["balance"]

        ended, balance = asyncio.run(whole())
        assert database.call("audit_ledger") == []
        return ended["status"], ended["charged"], balance

    return run


def test_who_listens_cannot_have_the_credits_back_meanwhile(listening):
    async def story(jobs, backend, who, row, stream):
        backend.told.release()
        await stream.begin()
        async with aclosing(aiter(stream)) as pieces:
            assert await anext(pieces) == b"sound"
            for way in (jobs.cancel, jobs.delete):
                with pytest.raises(Refused, match="listening") as refused:
                    await way(who, row["id"])
                assert refused.value.status == 409
        backend.told.release()

    assert listening(story) == ("succeeded", PRICE, 990)


def test_a_stream_that_becomes_too_large_breaks_off_and_what_was_heard_is_paid_for(listening, monkeypatch):
    monkeypatch.setattr(dispatcher, "MAX_RESULT_BYTES", 7)

    async def story(jobs, backend, who, row, stream):
        for _ in range(2):
            backend.told.release()
        heard = []
        with pytest.raises(JobRejected, match="more than 7 bytes"):
            async for piece in stream:
                heard.append(piece)
        assert b"".join(heard) == b"soundsound"
        assert (await jobs.wait(who, row["id"], HANG_SECONDS))["partial"]

    assert listening(story) == ("succeeded", PRICE, 990)


def test_a_file_that_becomes_too_large_costs_nothing(database, bucket, monkeypatch):
    monkeypatch.setattr(dispatcher, "MAX_RESULT_BYTES", 7)

    async def story():
        store, files = PostgresDatabase(database.url), Bucket(bucket.endpoint, bucket.key, bucket.secret, BUCKET)
        backend, who = DrainingWebSocketProtocol(), str(database.user(1000))
        jobs = Jobs(store, files, backend)
        for _ in range(2):
            backend.told.release()
        working = asyncio.create_task(jobs.run())
        row = (await jobs.submit(who, None, None, "x" * 130, None, Options()))["job"]
        ended = await jobs.wait(who, row["id"], HANG_SECONDS)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        files.close()
        await store.close()
        return ended["status"], ended["charged"], ended["error"]

    status, charged, error = asyncio.run(story())
    assert (status, charged) == ("failed", 0)
    assert "more than 7 bytes" in error


def test_who_leaves_before_anything_is_heard_pays_nothing(listening):
    async def story(jobs, backend, who, row, stream):  # noqa: ARG001
        await jobs.abandon(row["id"])

    assert listening(story) == ("cancelled", 0, 1000)


async def heard(backend, stream, seconds):
    """An iterator of a stream that has given so many seconds of sound."""
    backend.told.release()
    await stream.begin()
    pieces = aiter(stream)
    await anext(pieces)
    for _ in range(round(seconds / 0.5) - 1):
        backend.told.release()
        await anext(pieces)
    return pieces


def test_who_leaves_pays_for_what_was_made_and_the_same_key_says_that_it_is_a_part(listening):
    async def story(jobs, backend, who, row, stream):
        pieces = await heard(backend, stream, 2)
        await pieces.aclose()
        backend.told.release()
        ended = await jobs.wait(who, row["id"], HANG_SECONDS)
        assert (ended["partial"], ended["seconds"]) == (True, 2.5)
        again = await jobs.submit(who, None, "key", "x" * 130, None, Options())
        assert (again["replayed"], again["job"]["id"], again["job"]["partial"]) == (True, row["id"], True)

    assert listening(story) == ("succeeded", 25, 975)


def test_the_key_of_a_stream_that_broke_before_the_first_sound_is_free(listening):
    async def story(jobs, backend, who, row, stream):
        backend.fails = True
        backend.told.release()
        with pytest.raises(BackendUnavailable):
            await stream.begin()
        again = await jobs.submit(who, None, "key", "x" * 130, None, Options())
        assert (again["replayed"], again["job"]["id"] == row["id"]) == (False, False)
        await jobs.cancel(who, again["job"]["id"])

    assert listening(story) == ("failed", 0, 1000)


@pytest.mark.parametrize("failure", ["the backend", "the disk", "the disk at the end"])
def test_a_stream_that_breaks_is_kept_and_paid_for_as_the_part_that_was_heard(listening, monkeypatch, failure):
    async def story(jobs, backend, who, row, stream):
        pieces = await heard(backend, stream, 3)
        if failure == "the backend":
            backend.fails = True
        else:
            monkeypatch.setattr(Spool, "append", full)
            backend.ends = failure == "the disk at the end"
        backend.told.release()
        with pytest.raises(BackendUnavailable, match="it broke" if backend.fails else "disk: No space left on device"):
            await anext(pieces)
        ended = await jobs.wait(who, row["id"], HANG_SECONDS)
        assert (ended["partial"], ended["seconds"], ended["frames"], ended["bytes"]) == (True, 3, 60, 30)
        with closing(await jobs.result(ended)) as result:
            assert b"".join([piece async for piece in result]) == 6 * b"sound"

    assert listening(story) == ("succeeded", 30, 970)


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_is_full_before_anything_is_heard_costs_nothing(listening, monkeypatch):
    async def story(jobs, backend, who, row, stream):  # noqa: ARG001
        monkeypatch.setattr(Spool, "append", full)
        backend.told.release()
        with pytest.raises(BackendUnavailable, match="disk: No space left on device"):
            await stream.begin()

    assert listening(story) == ("failed", 0, 1000)


def test_what_was_heard_before_an_error_of_this_program_is_paid_for_though_the_job_is_called_off(listening, database, monkeypatch):
    async def story(jobs, backend, who, row, stream):
        pieces = await heard(backend, stream, 3)
        monkeypatch.setattr(Spool, "append", lambda *_: 1 / 0)
        backend.told.release()
        with pytest.raises(LeftForLater, match="the job continues"):
            await anext(pieces)
        while jobs._dispatcher._tasks:
            await asyncio.sleep(0.02)
        database.sql("update jobs set lease_until = now() - interval '1 second'")
        await jobs.cancel(who, row["id"])

    assert listening(story) == ("cancelled", 30, 970)


def test_what_was_heard_is_paid_for_though_the_bucket_does_not_take_it(listening, database, monkeypatch):
    """The lease lapses, and the user cancels."""

    async def story(jobs, backend, who, row, stream):
        async def away(*_):
            raise StorageError("the bucket is away")

        monkeypatch.setattr(Bucket, "put", away)
        monkeypatch.setattr("saas.jobs.dispatcher.RENEW_SECONDS", 0)
        pieces = await heard(backend, stream, 3)
        told = "select heard_seconds from jobs where id = %s"
        while database.sql(told, row["id"])[0]["heard_seconds"] < 3:
            await asyncio.sleep(0.02)
        await pieces.aclose()
        backend.told.release()
        while jobs._dispatcher._tasks:
            await asyncio.sleep(0.02)
        database.sql("update jobs set lease_until = now() - interval '1 second'")
        await jobs.cancel(who, row["id"])

    status, charged, balance = listening(story)
    assert (status, charged in (30, 35), balance) == ("cancelled", True, 1000 - charged)


def test_a_file_that_is_cancelled_costs_what_was_made(listening):
    async def story(jobs, backend, who, row, stream):  # noqa: ARG001
        await jobs.abandon(row["id"])
        row = (await jobs.submit(who, None, None, "x" * 400, None, Options()))["job"]
        working = asyncio.create_task(jobs.run())
        backend.seconds = 0.0
        for _ in range(40):
            backend.told.release()
        while jobs._dispatcher.made(row["id"]) < 20:
            await asyncio.sleep(0.02)
        ended = await jobs.cancel(who, row["id"])
        assert (ended["status"], ended["charged"], ended["seconds"]) == ("cancelled", 200, 20)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)

    assert listening(story) == ("cancelled", 0, 800)


def test_a_stream_whose_end_cannot_be_written_down_is_not_said_to_cost_nothing(listening, monkeypatch):
    """Its client waited for ever."""

    async def story(jobs, backend, who, row, stream):  # noqa: ARG001
        async def away(*_):
            raise Unavailable("the database is away")

        monkeypatch.setattr(Outcomes, "refund", away)
        backend.fails = True
        backend.told.release()
        with pytest.raises(LeftForLater, match="the job continues"):
            await stream.begin()
        monkeypatch.undo()
        await jobs.abandon(row["id"])

    assert listening(story) == ("cancelled", 0, 1000)

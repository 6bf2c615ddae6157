"""A stream and its credits, with a backend that speaks when it is told to; database and bucket are real."""

import asyncio
from contextlib import aclosing, asynccontextmanager

import pytest

from saas.database import Refused
from saas.jobs import dispatcher
from saas.jobs.backend import JobRejected, Options
from saas.jobs.service import Jobs
from saas.postgres import PostgresDatabase
from saas.storage.bucket import Bucket
from tests.waiting import HANG_SECONDS
from tests.worker.conftest import BUCKET

PRICE = 10
"""Of a second, and of less."""


class DrainingWebSocketProtocol:
    """Speaks half a second, each time it is told to."""

    name, slots = "fishserve", 1

    def __init__(self):
        self.told, self.seconds, self.frames = asyncio.Semaphore(0), 0.0, 0

    @asynccontextmanager
    async def open(self, order):  # noqa: ARG002 - what is to be spoken is all the same
        yield self

    async def __aiter__(self):
        while True:
            await self.told.acquire()
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
            row = (await jobs.submit(who, None, None, "x" * 130, None, Options(), dispatch=False))["job"]
            await story(jobs, backend, who, row, await jobs.stream(row))
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

    async def story(jobs, backend, who, row, stream):  # noqa: ARG001
        for _ in range(2):
            backend.told.release()
        heard = []
        with pytest.raises(JobRejected, match="more than 7 bytes"):
            async for piece in stream:
                heard.append(piece)
        assert b"".join(heard) == b"soundsound"

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

"""A list is worked through though one item of it fails: that one is tried again later, and the log says so once."""

import asyncio
from types import SimpleNamespace

import pytest

from inference.spool import Spool
from saas.database import DatabaseError
from saas.jobs import loop
from saas.jobs.backend import BackendUnavailable, Options, Result
from saas.jobs.service import Jobs
from saas.postgres import PostgresDatabase
from saas.storage.bucket import Bucket, StorageError
from tests.saas.jobs.test_races import MADE, Speechless, run
from tests.waiting import HANG_SECONDS


def test_an_object_that_the_bucket_does_not_delete_holds_up_no_other(data, bucket, caplog):
    keys = [f"results/{n}" for n in range(5)]

    class Choosy(Bucket):
        choosy = True

        async def delete(self, key):
            if key == keys[2] and self.choosy:
                raise StorageError("the bucket refused: AccessDenied")
            await super().delete(key)

    data.sql("insert into deleted_objects (key) select unnest(%s::text[])", keys)

    async def story(store, files):
        for key in keys:
            with Spool() as content:
                content.append(b"x")
                await files.put(key, content, "audio/mpeg")
        jobs = Jobs(store, files, Speechless())
        seen = []
        for choosy in (True, False):
            Choosy.choosy = choosy
            data.sql("update fishserve.put_off set due_at = now()")
            await jobs._sweeper.empty_outbox()
            seen.append([key for key in keys if await files.head(key)])
        return seen

    assert run(data, bucket, story, Choosy) == [[keys[2]], []]
    assert [record.message for record in caplog.records] == [
        "deleting objects: 1 of 5 failed and are tried again later; the first: the bucket refused: AccessDenied"
    ]
    assert data.call("put_off_figures") == []


@pytest.mark.parametrize("error", [BackendUnavailable("RunPod answered 500"), StorageError("the bucket refused"), ValueError("a bug")])
def test_a_job_whose_backend_fails_is_asked_about_later_and_holds_up_no_other(data, bucket, monkeypatch, caplog, error):
    who = str(data.user(1000))
    asked = []

    class Choosy:
        name, slots = "runpod", 1

        async def send(self, order): ...

        async def cancel(self, backend_id): ...

        def token(self, *_):
            return "token"

        async def status(self, backend_id, key, speed):  # noqa: ARG002
            asked.append(backend_id)
            if backend_id == "0" and len(asked) < 6:
                raise error
            with Spool() as sound:
                sound.append(b"sound")
                await self.files.put(key, sound, "audio/mpeg")
            return Result(**MADE.model_dump())

    async def story(store, files):
        Choosy.files = files
        jobs = Jobs(store, files, Choosy())
        made = []
        for n in range(3):
            job = (await jobs.submit(who, None, None, f"Hello {n}.", None, Options()))["job"]
            await store.call("start_job", job_id=job["id"], backend="runpod", backend_id=str(n))
            made.append(job["id"])
        await jobs.reconcile()
        await jobs.reconcile()  # it is not its turn
        first = [(await jobs.wait(who, job, 0))["status"] for job in made]
        monkeypatch.setattr(loop, "FIRST_PAUSE", 0)
        jobs._reconciler._backoff = loop.Backoff()
        for _ in range(3):
            await jobs.reconcile()
        return first, (await jobs.wait(who, made[0], 0))["status"]

    assert run(data, bucket, story) == (["running", "succeeded", "succeeded"], "succeeded")
    assert sorted(asked) == ["0", "0", "0", "0", "1", "2"]
    told = [r.message for r in caplog.records if "tried again later" in r.message]
    assert told[0].startswith("asking about jobs: 1 of 3 failed")
    assert "a bug" not in caplog.text


def test_a_lost_request_that_cannot_be_given_up_holds_up_no_other(data, bucket, monkeypatch):
    """Both are given up in the end, the bad one when it can be."""
    monkeypatch.setattr(loop, "FIRST_PAUSE", 0.01)
    who = str(data.user(1000))
    tried = []

    class Choosy(PostgresDatabase):
        async def call(self, function, **arguments):
            if function == "give_up_request":
                tried.append(arguments["idempotency_key"])
                if arguments["idempotency_key"] == "bad" and len(tried) < 4:
                    raise DatabaseError("give_up_request failed")
            return await super().call(function, **arguments)

    async def story(_, files):
        store = Choosy(data.url)
        jobs = Jobs(store, files, Speechless())
        for key in ("bad", "good"):
            await jobs.submit(who, None, key, "Hello.", None, Options())
            jobs._lost.append((who, key))
        async with asyncio.timeout(HANG_SECONDS):
            while jobs._lost:
                await jobs._give_up_lost()
        await store.close()

    run(data, bucket, story)
    assert tried[:2] == ["bad", "good"]
    assert tried.count("good") == 1
    rows = data.sql("select status from jobs where user_id = %s", who)
    assert [row["status"] for row in rows] == ["failed", "failed"]


def test_pauses_double_up_to_a_limit_and_what_ended_otherwise_is_forgotten(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: now[0]))
    backoff, pauses = loop.Backoff(), []
    for _ in range(12):
        asyncio.run(backoff.put_off("a", ValueError()))
        began = now[0]
        while backoff.waits("a"):
            now[0] += 1
        pauses.append(now[0] - began)
    assert pauses[:4] == [2, 4, 8, 16]
    assert pauses[-1] == loop.MAX_PAUSE
    assert backoff.waiting() == []
    asyncio.run(backoff.put_off("b", ValueError()))
    assert backoff.waiting() == ["b"]
    now[0] += 3 * loop.MAX_PAUSE
    assert (backoff.waiting(), backoff._failed) == ([], {})

"""Two that do the same at the same moment, and a bucket that does not answer: nothing that was paid for goes, nothing that was deleted stays."""

import asyncio
from contextlib import closing
from uuid import uuid4

import httpx
import pytest

from inference.spool import Spool
from saas.database import Refused, Unavailable
from saas.jobs import reconciler
from saas.jobs.backend import JobUnknown, Options, Result, Terminated
from saas.jobs.service import AnswerLost, Jobs
from saas.postgres import PostgresDatabase
from saas.storage.bucket import Bucket, result_key
from saas.voices.schemas import NewVoice
from saas.voices.service import Voices
from tests.saas.api_harness import NOWHERE
from tests.saas.voices.test_voices import clip
from tests.waiting import HANG_SECONDS
from tests.worker.conftest import BUCKET

MADE = Result(seconds=1, frames=20, bytes=5, sha256="0" * 64)


def run(data, bucket, story, kind=Bucket):
    async def whole():
        store, files = PostgresDatabase(data.url), kind(bucket.endpoint, bucket.key, bucket.secret, BUCKET)
        try:
            return await story(store, files)
        finally:
            files.close()
            await store.close()

    return asyncio.run(whole())


def test_a_result_that_another_settled_meanwhile_is_kept(data, bucket):
    """A job was sent twice, since the process that sent it died; the first is done while RunPod is asked about the second, which failed."""
    who = str(data.user(1000))

    async def story(store, files):
        class Twice:
            name, slots = "runpod", 1

            async def send(self, order): ...

            async def cancel(self, backend_id): ...

            def token(self, *_):
                return "token"

            async def status(self, backend_id, key, speed):  # noqa: ARG002
                with Spool() as sound:
                    sound.append(b"sound")
                    await files.put(key, sound, "audio/mpeg")
                await store.call("settle_job", job_id=job["id"], object_key=key, **MADE.model_dump())
                return Terminated("failed", "it failed")

        jobs = Jobs(store, files, Twice())
        job = (await jobs.submit(who, None, None, "Hello.", None, Options()))["job"]
        await store.call("start_job", job_id=job["id"], backend="runpod", backend_id="second")
        await jobs.reconcile()
        with closing(await jobs.result(await jobs.wait(who, job["id"], 0))) as result:
            return b"".join([piece async for piece in result])

    assert run(data, bucket, story) == b"sound"


def test_a_job_that_its_backend_has_forgotten_is_paid_back_after_a_while_whatever_the_clock_says(data, bucket, monkeypatch):
    """It may not know it yet. The database's clock is a day behind this machine's, or ahead of it."""
    who = str(data.user(1000))

    async def story(store, files):
        class Forgetful:
            name, slots = "runpod", 1

            async def send(self, order): ...

            async def cancel(self, backend_id): ...

            def token(self, *_):
                return "token"

            async def status(self, *_):
                raise JobUnknown("it does not know the job")

        jobs = Jobs(store, files, Forgetful())
        job = (await jobs.submit(who, None, None, "Hello.", None, Options()))["job"]
        await store.call("start_job", job_id=job["id"], backend="runpod", backend_id="first")
        seen = []
        for jump, forgiven in (("-1 day", 60), ("1 day", 60), ("0", 0)):
            data.sql("update jobs set started_at = now() + %s::interval where id = %s", jump, job["id"])
            monkeypatch.setattr(reconciler, "FORGIVEN_SECONDS", forgiven)
            await jobs.reconcile()
            seen.append((await jobs.wait(who, job["id"], 0))["status"])
        return seen

    assert run(data, bucket, story) == ["running", "running", "failed"]


def test_what_is_deleted_is_deleted_though_the_bucket_is_away(data, bucket):
    who = str(data.user(1000))

    async def story(store, _):
        jobs = Jobs(store, Bucket(NOWHERE, "a", "b", "c"), None)
        job = (await store.call("process_audio_request", user_id=who, idempotency_key="k", fingerprint="f", text="Hi.", token_hash="t"))[
            "job"
        ]
        key = result_key(who, job["id"], "mp3")
        await store.call("settle_job", job_id=job["id"], object_key=key, **MADE.model_dump())
        await jobs.delete(who, job["id"])
        return key

    key = run(data, bucket, story)
    assert data.sql("select key from deleted_objects where key = %s", key) == [{"key": key}]


def announced(content):
    return NewVoice(name=uuid4().hex, transcript="words", content_type="audio/wav", bytes=len(content), consent=True)


def test_a_voice_that_is_deleted_while_its_clip_is_looked_at_leaves_no_clip(data, bucket):
    who, content = str(data.user()), clip()

    class Meanwhile(Bucket):
        async def put(self, key, *more):
            await super().put(key, *more)
            data.sql("update cloned_voices set created_at = now() - interval '20 minutes' where object_key = %s", key)
            data.call("delete_voice", user_id=who, voice_id=key.rpartition("/")[2])
            data.call("object_deleted", key=key)  # the sweeper has been there, too

    async def story(store, files):
        voices = Voices(store, files)
        row, upload = await voices.create(who, announced(content))
        httpx.put(upload.url, content=content, headers=upload.headers)
        with pytest.raises(Refused) as refused:
            await voices.confirm(who, row["id"])
        assert refused.value.status == 404
        return await files.head(row["object_key"])

    assert run(data, bucket, story, Meanwhile) is None


def test_a_users_clips_are_looked_at_one_after_the_other(data, bucket):
    who, content = str(data.user()), clip()

    answered = []

    class Patient(Bucket):
        """Gives a clip once the two others have been answered."""

        async def fetch(self, key, most):
            async with asyncio.timeout(HANG_SECONDS):
                while len(answered) < 2:
                    await asyncio.sleep(0.02)
            return await super().fetch(key, most)

    async def story(store, files):
        voices = Voices(store, files)
        rows = []
        for _ in range(3):
            row, upload = await voices.create(who, announced(content))
            httpx.put(upload.url, content=content, headers=upload.headers)
            rows.append(row)

        async def confirmed(row):
            try:
                return await voices.confirm(who, row["id"])
            finally:
                answered.append(row)

        return await asyncio.gather(*(confirmed(row) for row in rows), return_exceptions=True)

    ends = run(data, bucket, story, Patient)
    assert [str(end) for end in ends if isinstance(end, Exception)] == [
        "a clip of yours is being looked at already; try again in a few seconds"
    ] * 2
    assert [end["status"] for end in ends if isinstance(end, dict)] == ["ready"]


def test_work_that_is_cancelled_while_it_is_woken_ends(data, bucket):
    """The API then waited for ever when it was told to end: asyncio.wait_for of Python 3.11 lost the cancellation."""

    class Idle:
        name, slots = "fishserve", 1

    async def story(store, files):
        jobs = Jobs(store, files, Idle())
        for turns in range(20):
            working = asyncio.create_task(jobs.run())
            await asyncio.sleep(0.3)  # by now it waits for work
            jobs.wake()
            for _ in range(turns):
                await asyncio.sleep(0)
            working.cancel()
            with pytest.raises(asyncio.CancelledError):
                async with asyncio.timeout(HANG_SECONDS):
                    await working

    run(data, bucket, story)


class Speechless:
    """A backend that is asked for nothing in these tests."""

    name, slots = "fishserve", 0


class Forgetful(PostgresDatabase):
    """Takes the next request, and its answer is lost on the way."""

    lost = 0

    async def call(self, function, **arguments):
        answer = await super().call(function, **arguments)
        if function == "request_speech" and self.lost == 0:
            self.lost += 1
            raise Unavailable("the connection broke")
        return answer


@pytest.mark.parametrize("key", [None, "mine"])
def test_a_request_whose_answer_was_lost_is_never_charged_unless_its_client_can_ask_again(data, bucket, key):
    """The client is told that it is not known. With a key of its own it asks again; without one, the job is cancelled."""
    who = str(data.user(1000))

    async def story(_, files):
        store = Forgetful(data.url)
        jobs = Jobs(store, files, Speechless())
        with pytest.raises(AnswerLost, match="same Idempotency-Key" if key else "cancelled and costs nothing"):
            await jobs.submit(who, None, key, "Hello.", None, Options())
        working = asyncio.create_task(jobs.run())
        if key:
            again = await jobs.submit(who, None, key, "Hello.", None, Options())
            assert again["replayed"]
        else:
            async with asyncio.timeout(HANG_SECONDS):
                while (await jobs.list(who, None, 1, None))[0]["status"] == "queued":
                    await asyncio.sleep(0.02)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        (row,) = await jobs.list(who, None, 10, None)
        await store.close()
        return row["status"], row["charged"]

    assert run(data, bucket, story) == (("queued", 0) if key else ("failed", 0))
    assert data.call("audit_ledger") == []


def test_a_request_that_was_not_taken_is_given_up_in_vain(data):
    who = data.user(1000)
    assert data.call("give_up_request", user_id=who, idempotency_key="k") == {"job": None, "changed": False}

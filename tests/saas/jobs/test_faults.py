"""What an operator is told of a backend that does not speak: each fault is counted, and a key that is refused is an alarm."""

import asyncio
import logging

import httpx
import pytest
from prometheus_client import REGISTRY

from saas.jobs.backend import BackendUnavailable, Options, Order
from saas.jobs.fishserve import Fishserve
from saas.jobs.runpod import KEY_SECONDS, RunPod
from saas.jobs.service import Jobs
from saas.postgres import PostgresDatabase
from saas.storage.bucket import Bucket
from tests.saas.api_harness import NOWHERE
from tests.saas.jobs.answering import answering
from tests.worker.conftest import BUCKET

ALARMS, FAULTS = "fishserve_saas_alarms_total", "fishserve_saas_speech_faults_total"


def faults(fault):
    return REGISTRY.get_sample_value(FAULTS, {"backend": "runpod", "fault": fault}) or 0


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_runpod_refuses_is_one_alarm_and_the_job_waits_for_another_key(database, bucket, caplog, status):
    """Before, it was tried again and again, and the log said that RunPod had answered 401."""
    answers = [status]

    async def story():
        files, store = Bucket(bucket.endpoint, bucket.key, bucket.secret, BUCKET), PostgresDatabase(database.url)
        async with answering(lambda: (answers[-1], {"id": "a", "status": "IN_QUEUE"})) as address:
            runpod = RunPod(files, address, "ep", "key", "http://api")
            jobs = Jobs(store, files, runpod)
            before = REGISTRY.get_sample_value(ALARMS), faults("key")
            row = (await jobs.submit(str(database.user(1000)), None, None, "Hello there.", None, Options()))["job"]
            working = asyncio.create_task(jobs.run())
            for attempt in (1, 2):
                waits = f"select id from jobs where status = 'queued' and attempts = {attempt} and lease_until > now() + interval '40 s'"
                while not database.sql(waits):
                    await asyncio.sleep(0.02)
                database.sql("update jobs set lease_until = null where id = %s", row["id"])
                if attempt == 2:
                    answers.append(200)
                jobs.wake()
            while not database.sql("select id from jobs where status = 'running' and backend_id = 'a'"):
                await asyncio.sleep(0.02)
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            await runpod.close()
        files.close()
        await store.close()
        return REGISTRY.get_sample_value(ALARMS) - before[0], faults("key") - before[1]

    with caplog.at_level(logging.ERROR):
        assert asyncio.run(story()) == (1, 2)
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert line == "the speech backend refuses the API key: nothing is spoken until it has a valid one (backend runpod)"
    assert KEY_SECONDS > 40


def test_a_key_that_the_server_refuses_is_known_as_such():
    async def story():
        bucket = Bucket(NOWHERE, "a", "b", "c")
        async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(401, json={}))) as http:
            backend = Fishserve(http, bucket, ["http://speaker"], "a wrong key")
            with pytest.raises(BackendUnavailable, match="refuses FISHSERVE_KEY") as refused:
                async with backend.open(Order("00000000-0000-4000-8000-000000000000", "u", "k", "Hello.", Options(), None, None)):
                    pass
        bucket.close()
        return refused.value.fault

    assert asyncio.run(story()) == "key"

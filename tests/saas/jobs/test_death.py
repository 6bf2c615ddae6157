"""The API is killed right before and after everything it does with a job, and started again: every job ends, paid for once or paid back.

The suite tries each fifth of these points, the drill all of them.
"""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys

import httpx
import psutil
import pytest

from saas.storage.bucket import result_key
from tests.inference.server.conftest import Server
from tests.saas.conftest import free_port
from tests.saas.jobs.conftest import LONG_TEXTS, REFUSED, Account, check_paid, check_refunded, environment
from tests.texts import ENDLESS
from tests.waiting import HANG_SECONDS, wait
from tests.worker.conftest import BUCKET, ROOT, Worker, answers

SPEECH = [
    "before request_speech", "after request_speech", "after claim_jobs", "before start_job", "after start_job", "before finish",
    "after finish", "before put", "after put", "before settle_job", "after settle_job",
]  # fmt: skip
STREAMS = ["after request_speech", "after start_job", "after put", "after settle_job"]
REFUNDS = ["before refund_job", "after refund_job"]
HEARD = ["before renew_lease", "after renew_lease"]
CANCELS = ["before cancel_job", "after cancel_job"]
RUNPOD = [
    "after claim_jobs", "before send", "after send", "before start_job", "after start_job", "before job_of_token", "before status", "after status",
    "before settle_job", "after settle_job",
]  # fmt: skip

POINTS = pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.drill)], ids=["each fifth", "all"])


@pytest.fixture(scope="module")
def start():
    """Starts an API that dies at a point, or at none; gives its process and address."""
    command = [sys.executable, "-m", "tests.saas.jobs.crashing_api"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as nursery:
        try:
            assert nursery.stdout.readline() == "ready\n"
            yield from births(nursery)
        finally:
            nursery.stdin.close()


def births(nursery):
    born = []

    def start(settings, dies=""):
        port = free_port()
        nursery.stdin.write(json.dumps({"port": port, "environment": settings, "dies": dies}) + "\n")
        nursery.stdin.flush()
        born.append(psutil.Process(int(nursery.stdout.readline())))
        url = f"http://127.0.0.1:{port}"
        wait(lambda: not alive(born[-1]) or answers(f"{url}/healthz"))
        return born[-1], url

    try:
        yield start
    finally:
        for process in born:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        wait(lambda: not any(map(alive, born)))


def alive(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def told(database, bucket, **more):
    """The environment of an API, less what it has already."""
    return {name: value for name, value in environment(database, bucket, **more).items() if os.environ.get(name) != value}


def key_of(*words):
    return "/".join(words).replace(" ", "-")


def ask(account, url, path, body, key):
    """A request whose answer may never come."""
    with contextlib.suppress(httpx.TransportError):
        return httpx.post(
            url + path, json=body, headers={"Authorization": f"Bearer {account.key}", "Idempotency-Key": key}, timeout=HANG_SECONDS
        )


@pytest.fixture(autouse=True)
def no_limit(data):
    """What the dead had begun counts as running."""
    data.sql("update settings set max_running = null")


def time_stands(data):
    """What the dead had begun stays theirs, so that each of the next dies of its own job."""
    data.sql("update jobs set lease_until = now() + interval '1 day' where finished_at is null")


def time_passes(data):
    """What the dead had begun is anyone's again."""
    data.sql("update jobs set lease_until = now() where lease_until is not null")


def one_file_each(bucket, account, jobs):
    prefix = result_key(str(account.id), "", "")[: -len(".")]
    listed = bucket.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", ())
    assert {entry["Key"] for entry in listed} == {
        result_key(str(account.id), job["id"], "mp3") for job in jobs if job["status"] == "succeeded"
    }


@pytest.fixture(scope="module")
def speaker(checkpoint, tmp_path_factory):
    """Speaks one after the other: beside others a file may differ in its last bit."""
    with Server(checkpoint, tmp_path_factory.mktemp("voices"), FISHSERVE_SLOTS="1").wait_ready() as server:
        yield server


@pytest.fixture(scope="module")
def worker(cloud, checkpoint, bucket):
    """As does this one."""
    with Worker(cloud, checkpoint, FISHSERVE_SLOTS="1", **bucket.environment).ready() as worker:
        yield worker


@pytest.fixture
def holder():
    """Closes an account's client with the test."""
    with contextlib.ExitStack() as stack:
        yield stack.enter_context


@POINTS
def test_killed_anywhere_it_loses_no_credit_and_no_result(start, data, bucket, speaker, holder, every):
    speech, streams, refunds = SPEECH[::every], STREAMS[::every], REFUNDS[::every]
    settings = told(data, bucket, FISHSERVE_URL=speaker.url, **LONG_TEXTS)
    account = holder(Account(data, ""))
    for dies in speech:
        time_stands(data)
        process, url = start(settings, dies)
        ask(account, url, "/api/tts", {"text": "Hello there.", "seed": 3}, key_of("speech", dies))
        wait(lambda process=process: not alive(process))
    for dies in streams:
        time_stands(data)
        process, url = start(settings, dies)
        ask(account, url, "/v1/audio/speech", {"input": "Hello there.", "seed": 3}, key_of("stream", dies))
        wait(lambda process=process: not alive(process))
    for dies in refunds:
        time_stands(data)
        process, url = start(settings, dies)
        ask(account, url, "/api/tts", {"text": REFUSED}, key_of("refund", dies))
        wait(lambda process=process: not alive(process))
    assert data.call("audit_ledger") == []
    cancelled_in_the_middle(start, data, settings)
    time_passes(data)
    process, url = start(settings)
    account.http.base_url = url
    spoken = [ask(account, url, "/api/tts", {"text": "Hello there.", "seed": 3}, key_of("speech", dies)).json() for dies in speech]
    rows = data.sql("select id, idempotency_key as key from jobs where user_id = %s", account.id)
    ended = {row["key"]: account.ended({"id": str(row["id"])}) for row in rows}
    assert len(ended) == len(speech) + len(streams) + len(refunds)
    for key, job in ended.items():
        if key.startswith("refund"):
            check_refunded(account, job, "failed")
        else:
            check_paid(account, job)
    assert {job["id"] for job in spoken} == {job["id"] for key, job in ended.items() if key.startswith("speech")}
    # The same speech, though not always the same last bits: which frames become sound together depends on what else is to be done.
    assert len({job["seconds"] for job in ended.values() if job["sha256"]}) == 1
    one_file_each(bucket, account, ended.values())
    process.send_signal(signal.SIGTERM)


def cancelled_in_the_middle(start, data, settings):
    """Streams that were heard, and files that were begun: cancelled by their user before anybody speaks them again, and paid for once."""
    other = Account(data, "", 1_000_000)
    for dies in HEARD:
        time_stands(data)
        process, url = start(settings, dies)
        ask(other, url, "/v1/audio/speech", {"input": ENDLESS, "seed": 3}, key_of("heard", dies))
        wait(lambda process=process: not alive(process))
    for dies in CANCELS:
        time_stands(data)
        process, url = start(settings, dies)
        other.http.base_url = url
        job = other.speak(ENDLESS, key=key_of("cancel", dies))
        wait(lambda job=job: other.job(job)["status"] == "running")
        with contextlib.suppress(httpx.TransportError):
            other.http.post(f"/api/jobs/{job['id']}/cancel")
        wait(lambda process=process: not alive(process))
    time_passes(data)
    mine = data.sql("select id, idempotency_key as key, heard_seconds from jobs where user_id = %s", other.id)
    ended = {
        row["key"]: data.call("cancel_job", user_id=other.id, job_id=row["id"])["job"] | {"heard": row["heard_seconds"]} for row in mine
    }
    assert {job["status"] for job in ended.values()} == {"cancelled"}
    told = ended[key_of("heard", "after renew_lease")]
    assert told["heard"] > 0
    assert told["charged"] == max(10, math.ceil(told["heard"] * 10))
    assert ended[key_of("heard", "before renew_lease")]["charged"] == 0  # it was heard for a moment, and nobody knows
    assert other.check_balance() == 1_000_000 - sum(job["charged"] for job in ended.values())
    other.http.close()


@POINTS
@pytest.mark.usefixtures("worker")
def test_killed_around_runpod_it_loses_no_credit_and_no_result(start, data, bucket, cloud, holder, every):
    points = RUNPOD[::every]
    settings = told(data, bucket, **cloud.settings)
    account = holder(Account(data, ""))
    text = "Long enough not to be waited for. " * 7
    for dies in points:
        process, url = start(settings, dies)
        ask(account, url, "/api/tts", {"text": text, "seed": 3}, key_of("runpod", dies))
        wait(lambda process=process: not alive(process))
    assert data.call("audit_ledger") == []
    time_passes(data)
    process, url = start(settings)
    account.http.base_url = url
    # Some died of what another had left, before they could be asked: those are taken now, the others answered again.
    taken = [ask(account, url, "/api/tts", {"text": text, "seed": 3}, key_of("runpod", dies)).json() for dies in points]
    jobs = [account.ended(job) for job in taken]
    assert data.sql("select count(*) from jobs where user_id = %s", account.id) == [{"count": len(points)}]
    for job in jobs:
        check_paid(account, job)
    assert len({job["seconds"] for job in jobs}) == 1  # as above: one that waits beside another changes its last bits
    one_file_each(bucket, account, jobs)
    process.send_signal(signal.SIGTERM)

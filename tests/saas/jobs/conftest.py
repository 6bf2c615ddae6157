"""The API as `fishserve saas` starts it, before a real fishserve or RunPod's real worker, with a real database and bucket."""

import math
import os
import signal
import sys
from uuid import uuid4

import httpx
import pytest

from saas.auth.caller import new_key
from tests.processes import Started
from tests.saas.conftest import free_port
from tests.saas.jobs.runpod_cloud import KEY
from tests.waiting import HANG_SECONDS, wait
from tests.worker.conftest import ROOT, Queue, Worker, answers

SMALL = "Hello there."
REFUSED = "Hello. [pause:11s]"
"""A text that is refused by the server and by the worker alike."""
LONG_TEXTS = {"FISHSERVE_SAAS_MAX_CHARACTERS": "100000"}
"""Settings of an API that speaks ENDLESS."""
NOTHING = ("?!", "...", "😀 **", "[pause:1s]", "€", "<p title='said'></p>")
"""Texts of signs and markup only."""
ENDED = ("succeeded", "failed", "cancelled", "expired")


def environment(database, bucket, **more):
    """What the API is told. Nobody signs in here, all have keys."""
    mine = {"DATABASE_URL": database.url, "FISHSERVE_SAAS_JWT_ISSUER": "http://127.0.0.1:9", "FISHSERVE_SAAS_ENVIRONMENT": "development"}
    limits = {f"FISHSERVE_SAAS_{name}_PER_MINUTE": "100000" for name in ("SPEECH", "KEY_SPEECH", "REQUESTS")}
    return os.environ | bucket.environment | mine | limits | more


class Api(Started):
    """A process of the API."""

    def __init__(self, database, bucket, **settings):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.start(
            [sys.executable, "-m", "inference.cli", "saas", "--port", str(self.port)], lambda: answers(f"{self.url}/healthz"), cwd=ROOT,
            env=environment(database, bucket, **settings, FISHSERVE_SAAS_PUBLIC_URL=self.url),
        )  # fmt: skip

    def end(self):
        super().end(code=-signal.SIGTERM)  # as uvicorn ends: by the signal, once all is done


class Account:
    """Somebody with credits and a key, and the API as they see it."""

    def __init__(self, database, url, credits=1_000_000):
        self.database, self.id, self.granted = database, database.user(credits), credits
        prefix, self.key, hashed = new_key()
        database.call("create_api_key", user_id=self.id, name="test", prefix=prefix, hash=hashed, scopes=["speak", "voices", "read"])
        self.http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {self.key}"}, timeout=HANG_SECONDS)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.http.close()

    def ask(self, method, path, status=200, **more):
        answer = self.http.request(method, path, **more)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    def speak(self, text=SMALL, **more):
        key = {"Idempotency-Key": more.pop("key", uuid4().hex)}
        answer = self.http.post("/api/tts", json={"text": text} | more, headers=key)
        assert answer.status_code in (200, 202), answer.text
        return answer.json()

    def job(self, job):
        return self.ask("GET", f"/api/jobs/{job['id']}")

    def ended(self, job):
        return wait(lambda: (found := self.job(job))["status"] in ENDED and found)

    def spoken(self, text=SMALL, **more):
        """A job that has ended. The API waits for it as long as it may, which on a busy machine is not long enough."""
        return self.ended(self.speak(text, wait_seconds=60, **more))

    def entries(self, job):
        """What the ledger has of a job, in order."""
        rows = self.database.sql("select kind, amount from transactions where job_id = %s order by id", job["id"])
        return [(row["kind"], row["amount"]) for row in rows]

    def check_balance(self):
        """What is left is what was given less what was charged and what is still set aside, and the ledger says the same, for everybody."""
        assert self.database.call("audit_ledger") == []
        (row,) = self.database.sql(
            "select p.balance, coalesce(sum(case when j.finished_at is null then j.reserved else j.charged end), 0)::bigint as spent"
            " from profiles p left join jobs j on j.user_id = p.id where p.id = %s group by p.id",
            self.id,
        )
        assert row["balance"] == self.granted - row["spent"]
        return row["balance"]


def check_paid(account, job):
    """It succeeded, its file is there, and it cost what it is worth: ten credits a second, at least ten, and no more than was set aside."""
    assert job["status"] == "succeeded", job["error"]
    content = httpx.get(job["url"]).content
    assert len(content) == job["bytes"]
    worth = round(job["seconds"] * 1000) * max(1, job["options"].get("speed", 1))
    assert job["charged"] == min(job["reserved"], max(10, math.ceil(worth / 100)))
    kinds = [kind for kind, _ in account.entries(job)]
    assert kinds == ["reserve", "settle"]
    assert sum(amount for _, amount in account.entries(job)) == -job["charged"]
    account.check_balance()
    return content


def check_refunded(account, job, status):
    """It ended so, has no result, and every credit is back."""
    assert (job["status"], job["charged"], job["url"]) == (status, 0, None)
    assert account.entries(job) == [("reserve", -job["reserved"]), ("refund", job["reserved"])]
    account.check_balance()


def check_nothing_to_speak(account):
    """Each text of signs is refused in one sentence by both routes, and no job comes of it."""
    for text in NOTHING:
        for path, field in (("/api/tts", "text"), ("/v1/audio/speech", "input")):
            answer = account.http.post(path, json={field: text})
            error = answer.json()["error"]
            assert (answer.status_code, error["code"], error["param"]) == (400, "nothing_to_speak", field), text
            assert error["message"] == f"{field} has nothing to speak: no letter and no digit; nothing was charged"
    assert account.ask("GET", "/api/jobs") == []
    assert account.check_balance() == account.granted


class Cloud(Queue):
    """RunPod's cloud."""

    def __init__(self):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.http = httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=HANG_SECONDS)
        ready = lambda: answers(f"{self.url}/ways")  # noqa: E731
        self.start([sys.executable, "-m", "tests.saas.jobs.runpod_cloud", str(port)], ready, cwd=ROOT)

    def ways(self, **changed):
        return self.http.post("/ways", json=changed).json()

    def jobs(self):
        return self.http.get("/jobs").json()

    def job_with(self, text):
        """The newest one that says this."""
        return wait(lambda: next((job for job in reversed(self.jobs()) if job["input"]["text"] == text), None))

    @property
    def settings(self):
        return {"RUNPOD_API_KEY": KEY, "RUNPOD_ENDPOINT_ID": "ep", "RUNPOD_BASE_URL": f"{self.url}/v2"}

    def kill(self):
        self.http.close()
        super().kill()


@pytest.fixture(scope="module")
def cloud():
    with Cloud() as cloud:
        yield cloud


@pytest.fixture(scope="module")
def worker(cloud, checkpoint, bucket):
    with Worker(cloud, checkpoint, **bucket.environment).ready() as worker:
        yield worker

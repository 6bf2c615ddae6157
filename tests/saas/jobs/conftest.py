"""The API as `fishserve saas` starts it, before a real fishserve or RunPod's real worker, with a real database and bucket."""

import os
import signal
import subprocess
import sys
import tempfile
from uuid import uuid4

import httpx
import pytest

from saas.auth.service import new_key
from tests.saas.conftest import free_port
from tests.saas.jobs.runpod_cloud import KEY
from tests.worker.conftest import ROOT, Queue, Worker, answers, wait

SMALL = "Hello there."
ENDED = ("succeeded", "failed", "cancelled", "expired")


def environment(database, bucket, **more):
    """What the API is told. Nobody signs in here, all have keys."""
    mine = {"DATABASE_URL": database.url, "FISHSERVE_SAAS_JWT_ISSUER": "http://127.0.0.1:9", "FISHSERVE_SAAS_ENVIRONMENT": "development"}
    limits = {f"FISHSERVE_SAAS_{name}_PER_MINUTE": "100000" for name in ("SPEECH", "KEY_SPEECH", "REQUESTS")}
    return os.environ | bucket.environment | mine | limits | more


class Api:
    """A process of the API."""

    def __init__(self, database, bucket, **settings):
        self.port, self.log = free_port(), tempfile.TemporaryFile()  # noqa: SIM115 - a pipe nobody reads would fill up
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "inference.cli", "saas", "--port", str(self.port)], stdout=self.log, stderr=self.log, cwd=ROOT,
            env=environment(database, bucket, **settings, FISHSERVE_SAAS_PUBLIC_URL=self.url),
        )  # fmt: skip
        wait(lambda: self.process.poll() is not None or answers(f"{self.url}/healthz"))
        assert self.process.poll() is None, self.words()

    def words(self):
        return os.pread(self.log.fileno(), 1 << 24, 0).decode()

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            assert self.process.wait(20) == -signal.SIGTERM, self.words()  # as uvicorn ends: by the signal, once all is done
        finally:
            self.process.kill()
            self.log.close()


class Account:
    """Somebody with credits and a key, and the API as they see it."""

    def __init__(self, database, url, credits=10_000):
        self.database, self.id, self.granted = database, database.user(credits), credits
        prefix, self.key, hashed = new_key()
        database.call("create_api_key", user_id=self.id, name="test", prefix=prefix, hash=hashed, scopes=["speak", "voices", "read"])
        self.http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {self.key}"}, timeout=60)

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

    def ended(self, job, seconds=60):
        return wait(lambda: (found := self.job(job))["status"] in ENDED and found, seconds)

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
    assert job["charged"] == min(job["reserved"], max(10, -(-round(job["seconds"] * 1000) // 100)))
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


class Cloud(Queue):
    """RunPod's cloud."""

    def __init__(self):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.http = httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {KEY}"})
        self.process = subprocess.Popen([sys.executable, "-m", "tests.saas.jobs.runpod_cloud", str(port)], cwd=ROOT)
        wait(lambda: answers(f"{self.url}/ways"))

    def ways(self, **changed):
        return self.http.post("/ways", json=changed).json()

    def jobs(self):
        return self.http.get("/jobs").json()

    def job_with(self, text):
        """The newest one that says this."""
        return wait(lambda: next((job for job in reversed(self.jobs()) if job["input"]["text"] == text), None), 20)

    @property
    def settings(self):
        return {"RUNPOD_API_KEY": KEY, "RUNPOD_ENDPOINT_ID": "ep", "RUNPOD_BASE_URL": f"{self.url}/v2"}

    def end(self):
        self.http.close()
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def cloud():
    cloud = Cloud()
    yield cloud
    cloud.end()


@pytest.fixture(scope="module")
def worker(cloud, checkpoint, bucket):
    worker = Worker(cloud, checkpoint, **bucket.environment)
    wait(lambda: "ready in" in worker.log())
    yield worker
    worker.end()

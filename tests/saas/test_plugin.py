"""`fishserve serve --plugin saas`: one process that speaks and sells, and no way around the till."""

import os
import signal
import subprocess
import sys
import tempfile

import httpx
import pytest

from tests.saas.conftest import free_port
from tests.saas.jobs.conftest import SMALL, Account, check_paid, environment
from tests.worker.conftest import ROOT, answers, wait


@pytest.fixture(scope="module")
def server(data, bucket, checkpoint):
    port, log = free_port(), tempfile.TemporaryFile()  # noqa: SIM115
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-m", "inference.cli", "serve", "--plugin", "saas", "--checkpoint", str(checkpoint), "--port", str(port)], cwd=ROOT,
        env=environment(data, bucket, FISHSERVE_SAAS_PUBLIC_URL=url, OMP_NUM_THREADS="1"), stdout=log, stderr=log,
    )  # fmt: skip
    words = lambda: os.pread(log.fileno(), 1 << 24, 0).decode()  # noqa: E731
    wait(lambda: process.poll() is not None or (answers(f"{url}/ready") and httpx.get(f"{url}/ready").status_code == 200))
    assert process.poll() is None, words()
    yield url
    process.send_signal(signal.SIGTERM)
    try:
        assert process.wait(40) == 0, words()
        assert SMALL not in words()
    finally:
        process.kill()
        log.close()


def test_it_speaks_for_credits(data, server):
    account = Account(data, server)
    check_paid(account, account.speak(wait_seconds=30))
    answer = account.http.post("/v1/audio/speech", json={"input": SMALL, "seed": 3})
    assert check_paid(account, account.ended({"id": answer.headers["x-job-id"]})) == answer.content
    account.http.close()


def test_nobody_gets_past_it_to_the_engine(data, server):
    poor = Account(data, server, credits=0)
    assert httpx.post(f"{server}/v1/audio/speech", json={"input": SMALL}).status_code == 401
    assert poor.http.post("/v1/audio/speech", json={"input": SMALL}).status_code == 402
    for headers in ({}, {"Authorization": f"Bearer {poor.key}"}, {"Authorization": "Bearer x"}):
        for method, path in [
            ("POST", "/v1/tts"),
            ("POST", "/v1/vqgan/encode"),
            ("GET", "/v1/references/list"),
            ("GET", "/model"),
            ("GET", "/docs"),
        ]:
            assert httpx.request(method, server + path, headers=headers).status_code == 404, path
    assert httpx.get(f"{server}/healthz").json() == {"status": "ok"}
    assert httpx.get(f"{server}/ready").json()["status"] == "ready"
    poor.http.close()


def test_what_is_missing_is_said_before_anything_starts():
    done = subprocess.run(
        [sys.executable, "-m", "inference.cli", "serve", "--plugin", "saas", "--port", str(free_port())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "SUPABASE_URL" in done.stderr

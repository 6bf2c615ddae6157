"""`fishserve serve --plugin saas`: one process that speaks and sells, and no way around the till."""

import os
import re
import signal
import subprocess
import sys
import time

import httpx
import pytest

from tests.processes import Started
from tests.raw import kept_connection, status_again
from tests.saas.conftest import free_port
from tests.saas.jobs.conftest import SMALL, Account, check_paid, environment
from tests.waiting import HANG_SECONDS
from tests.worker.conftest import ROOT, answers


@pytest.fixture(scope="module")
def server(data, bucket, checkpoint):
    port, server = free_port(), Started()
    url = f"http://127.0.0.1:{port}"
    server.start(
        [sys.executable, "-m", "inference.cli", "serve", "--plugin", "saas", "--checkpoint", str(checkpoint), "--port", str(port)],
        lambda: answers(f"{url}/ready") and httpx.get(f"{url}/ready").status_code == 200, cwd=ROOT,
        env=environment(data, bucket, FISHSERVE_SAAS_PUBLIC_URL=url, OMP_NUM_THREADS="1", FISHSERVE_KEEP_ALIVE_SECONDS="1"),
    )  # fmt: skip
    with server:
        yield url
        addresses = set(re.findall(r"http://[^\s)\";,]+", server.words()))
        assert url in addresses
        for address in addresses:  # what it says of itself is true
            found = httpx.get(address, follow_redirects=True)
            assert found.status_code == 200 or "make web" in found.text, address  # where the app has not been built
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(HANG_SECONDS) == 0, server.words()
        assert SMALL not in server.words()


def test_it_speaks_for_credits(data, server):
    with Account(data, server) as account:
        check_paid(account, account.spoken())
        answer = account.http.post("/v1/audio/speech", json={"input": SMALL, "seed": 3})
        assert check_paid(account, account.ended({"id": answer.headers["x-job-id"]})) == answer.content


@pytest.fixture
def poor(data, server):
    with Account(data, server, credits=0) as poor:
        yield poor


def test_the_example_speaks_for_credits(data, server, tmp_path):
    command = [sys.executable, ROOT / "examples/saas_api.py", server]
    with Account(data, server) as account:
        given = os.environ | {"FISHSERVE_API_KEY": account.key}
        told = subprocess.run(command, cwd=tmp_path, env=given, capture_output=True, text=True, timeout=HANG_SECONDS, check=False)
        assert told.returncode == 0, told.stderr
        assert re.fullmatch(r"balance: \d+\nsaas\.mp3, [\d.]+ s for \d+ credits\n", told.stdout)
        assert (tmp_path / "saas.mp3").stat().st_size > 100
        account.check_balance()


def test_it_keeps_connections_as_long_as_the_api_does_not_as_the_engines_server(server):
    connection = kept_connection(int(server.rpartition(":")[2]), "/healthz")
    time.sleep(2)
    assert status_again(connection, "/healthz") == 200


def test_nobody_gets_past_it_to_the_engine(server, poor):
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


def test_what_is_missing_is_said_before_anything_starts():
    done = subprocess.run(
        [sys.executable, "-m", "inference.cli", "serve", "--plugin", "saas", "--port", str(free_port())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "SUPABASE_URL" in done.stderr

"""Clients that ask for large results and read nothing: they cost the API no memory, and no user can have many."""

import contextlib
import json
import socket
from urllib.parse import urlsplit

import psutil
import pytest

from saas.jobs.backend import Options, sha256
from saas.storage.bucket import result_key
from tests.saas.api_harness import NOWHERE
from tests.saas.jobs.conftest import SMALL, Account, Api
from tests.waiting import HANG_SECONDS, wait
from tests.worker.conftest import BUCKET

BODY = {"input": SMALL, "response_format": "wav"}


def spoken_before(data, bucket, account, key, size):
    """A job of this key, whose result has so many bytes."""
    options = Options("wav").asdict()
    row = data.call(
        "process_audio_request", user_id=account.id, idempotency_key=key, fingerprint=sha256(json.dumps([SMALL, None, options], sort_keys=True)),
        text=SMALL, options=options, token_hash="t",
    )["job"]  # fmt: skip
    where = result_key(str(account.id), row["id"], "wav")
    bucket.s3.put_object(Bucket=BUCKET, Key=where, Body=bytes(range(256)) * (size // 256))
    data.call("settle_job", job_id=row["id"], object_key=where, seconds=1, frames=20, bytes=size // 256 * 256, sha256="0" * 64)
    return row


def ask(stack, account, key):
    """A connection that has asked for the result and reads no more than the answer's beginning."""
    parts = urlsplit(str(account.http.base_url))
    connection = stack.enter_context(contextlib.closing(socket.socket()))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(HANG_SECONDS)
    connection.connect((parts.hostname, parts.port))
    body = json.dumps(BODY).encode()
    head = f"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {account.key}\r\nIdempotency-Key: {key}\r\n"
    connection.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    return connection


def growth(data, bucket, api, clients, size, users):
    """By how many bytes the API grew while so many clients of so many users read nothing of results of this size."""
    process = psutil.Process(api.process.pid)
    with contextlib.ExitStack() as stack:
        accounts = [stack.enter_context(Account(data, api.url)) for _ in range(users)]
        for account in accounts:
            spoken_before(data, bucket, account, "small", 256)
            spoken_before(data, bucket, account, "large", size)
            assert len(account.http.post("/v1/audio/speech", json=BODY, headers={"Idempotency-Key": "small"}).content) == 256
        before = process.memory_info().rss
        deaf = [ask(stack, accounts[number % users], "large") for number in range(clients)]
        assert {connection.recv(12) for connection in deaf} == {b"HTTP/1.1 200"}
        settled(process)
        return process.memory_info().rss - before


def settled(process):
    """Wait until the process does nothing more."""
    spent = [-1.0]

    def idle():
        times = process.cpu_times()
        spent.append(times.user + times.system)
        return len(spent) > 20 and spent[-1] - spent[-20] <= 0.02

    wait(idle)


@pytest.fixture
def api(data, bucket):
    with Api(data, bucket, FISHSERVE_URL=NOWHERE) as api:
        yield api


def test_eight_clients_that_read_nothing_cost_next_to_nothing(data, bucket, api):
    assert growth(data, bucket, api, 8, 8_000_000, 2) < 15_000_000


@pytest.mark.drill
def test_thirty_two_clients_that_read_nothing_of_forty_megabytes(data, bucket, api):
    grown = growth(data, bucket, api, 32, 40_000_000, 4)
    print(f"the API grew by {grown / 1e6:.1f} MB")
    assert grown < 30_000_000

"""What an operator sees: health, metrics and logs, and headers on every answer. None of it says what a user said."""

import asyncio
import json
import logging
import math
import os
import re
import signal
import subprocess
import sys
from typing import get_args

import httpx
import pytest
from prometheus_client import REGISTRY

from saas.admin.schemas import JobStatus
from saas.observability.figures import Figures
from saas.observability.logs import Line
from saas.observability.metered_database import Counted
from saas.postgres import PostgresDatabase
from tests.saas.api_harness import NOWHERE, running
from tests.waiting import HANG_SECONDS

SAMPLES = [("jobs", "status", s) for s in ("queued", "running", "succeeded", "failed")] + [
    ("credits", "kind", k) for k in ("reserved", "charged", "returned")
]


def sampled(sample):
    name, label, value = sample
    return REGISTRY.get_sample_value(f"fishserve_saas_{name}_total", {label: value}) or 0


@pytest.fixture(scope="module")
def api(postgres):
    with running(
        postgres.migrated(), public_url="https://api.example.com", app_url="https://app.example.com", max_body_bytes=10_000
    ) as api:
        yield api


@pytest.fixture
def client(api):
    with api.with_key("x") as client:
        yield client


def metric(client, name):
    return sum(float(line.split()[-1]) for line in client.get("/metrics").text.splitlines() if line.startswith(name))


def test_it_lives_and_is_ready(client):
    assert client.get("/healthz").json() == {"status": "ok"}
    assert (client.get("/readyz").status_code, client.get("/readyz").json()) == (200, {"status": "ready", "database": "ok"})


def test_without_a_database_it_lives_and_is_not_ready(postgres, monkeypatch):
    monkeypatch.setattr("saas.database.CALL_SECONDS", 1)
    with running(postgres.migrated(), database_url="postgresql://postgres@127.0.0.1:9/none") as api, api.with_key("x") as client:
        assert client.get("/healthz").status_code == 200
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, "unready")
        with api.as_user("00000000-0000-4000-8000-000000000000") as user:
            answer = user.get("/api/me")
        assert (answer.status_code, answer.headers["retry-after"], answer.json()["error"]["code"]) == (503, "5", "unavailable")


def test_a_database_whose_rules_were_loosened_is_not_ready(postgres):
    database = postgres.migrated()
    database.sql("create table public.left_open (id int)")
    with running(database) as api, api.with_key("x") as client:
        assert client.get("/readyz").status_code == 503


def test_metrics_count_requests_by_route_and_never_by_what_was_typed(client):
    before = metric(client, 'fishserve_saas_requests_total{method="GET",route="/api/me",status="401"}')
    client.get("/api/me")
    client.get("/a/path/somebody/typed")
    client.request("BREW", "/api/me")
    text = client.get("/metrics").text
    assert metric(client, 'fishserve_saas_requests_total{method="GET",route="/api/me",status="401"}') == before + 1
    assert "somebody" not in text
    assert "BREW" not in text


def test_metrics_follow_credits_and_jobs_through_every_change_once(postgres):
    async def live():
        store, job = (
            Counted(PostgresDatabase(database.url)),
            {"idempotency_key": "k", "fingerprint": "f", "text": "Hello there.", "token_hash": "0" * 64},
        )
        for _ in range(2):
            taken = (await store.call("request_speech", user_id=user, **job))["job"]
        made = {
            "seconds": 1.5,
            "frames": 33,
            "bytes": 1000,
            "sha256": "0" * 64,
            "object_key": f"results/users/{user}/jobs/{taken['id']}.mp3",
        }
        await store.call("start_job", job_id=taken["id"], backend="fishserve", backend_id="x")
        for _ in range(2):
            settled = (await store.call("settle_job", job_id=taken["id"], **made))["job"]
        other = (await store.call("request_speech", user_id=user, **job | {"idempotency_key": "l"}))["job"]
        for _ in range(2):
            await store.call("refund_job", job_id=other["id"], status="failed", error="it broke")
        await store.close()
        return taken["reserved"], settled["charged"]

    database = postgres.migrated()
    user = database.user(credits=1000)
    before = {sample: sampled(sample) for sample in SAMPLES}
    reserved, charged = asyncio.run(live())
    moved = {sample: sampled(sample) - before[sample] for sample in SAMPLES}
    assert [moved[s] for s in SAMPLES[:4]] == [2, 1, 1, 1]
    assert [moved[s] for s in SAMPLES[4:]] == [2 * reserved, charged, 2 * reserved - charged]


def test_counters_of_jobs_and_credits_are_there_before_the_first():
    """Prometheus sees a counter grow from 0, and not one that begins at 1: the first purchase after a start would be on no dashboard."""
    Counted(None)
    for name, label, values in (
        ("jobs", "status", get_args(JobStatus)),
        ("credits", "kind", ("purchased", "reserved", "charged", "returned")),
    ):
        assert all(REGISTRY.get_sample_value(f"fishserve_saas_{name}_total", {label: value}) is not None for value in values)


def test_metrics_know_what_waits_in_the_database_and_the_money(postgres, monkeypatch):
    database = postgres.migrated()
    user, job = database.user(credits=1000), {"fingerprint": "f", "text": "Hello there.", "token_hash": "0" * 64}
    for key in ("one", "two"):
        reserved = database.call("process_audio_request", user_id=user, idempotency_key=key, **job)["job"]["reserved"]
    database.sql("update jobs set created_at = now() - interval '90 s' where idempotency_key = 'one'")
    bought = {"user_id": user, "credits": 500, "cents": 500, "currency": "eur", "kind": "purchase"}
    database.call("apply_stripe_event", event_id="1", type="t", reference="pi", **bought)
    database.call("apply_stripe_event", event_id="2", type="t", reference="pi", kind="refund", object="re_1", cents=200)
    database.call("apply_stripe_event", event_id="3", type="t", reference="pi", kind="refund_failed", object="re_2", cents=50)
    database.call("apply_stripe_event", event_id="4", type="t", reference="pi", kind="refund", cents=250)
    database.sql("insert into deleted_objects (key) values ('a')")

    async def refresh(url):
        store = PostgresDatabase(url)
        await Figures().refresh(store)
        await store.close()

    def shown(name, **labels):
        return REGISTRY.get_sample_value(f"fishserve_saas_{name}", labels)

    asyncio.run(refresh(database.url))
    assert [shown("jobs_unfinished", status=status) for status in ("queued", "running")] == [2, 0]
    assert 90 <= shown("oldest_job_seconds", status="queued") < 90 + HANG_SECONDS
    assert shown("credits_outstanding") == 1000 + 500 - 200 - 2 * reserved
    assert [shown("money_cents", kind=kind, currency="eur") for kind in ("paid", "returned")] == [500, 200]
    assert (shown("deletions_waiting"), shown("database_up")) == (1, 1)

    monkeypatch.setattr("saas.database.CALL_SECONDS", 1)
    asyncio.run(refresh("postgresql://postgres@127.0.0.1:9/none"))
    assert shown("database_up") == 0
    assert math.isnan(shown("jobs_unfinished", status="queued"))


def test_metrics_are_for_this_machine_or_for_who_has_the_key(client, postgres):
    assert client.get("/metrics").status_code == 200
    assert client.get("/metrics", headers={"CF-Connecting-IP": "198.51.100.1"}).status_code == 404
    with (
        running(postgres.migrated(), metrics_key="the-key") as locked,
        locked.with_key("the-key") as right,
        locked.with_key("a-key") as wrong,
    ):
        assert (right.get("/metrics").status_code, wrong.get("/metrics").status_code) == (200, 404)


def test_every_answer_has_the_headers_that_keep_browsers_careful(client):
    for answer in (
        client.get("/healthz"),
        client.get("/api/me"),
        client.get("/nothing"),
        client.post("/api/estimate", content=b"x" * 20_000),
    ):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert answer.headers["strict-transport-security"].startswith("max-age=")
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers or "fishserve" not in answer.headers["server"]


def test_pages_of_the_app_alone_may_ask_from_a_browser(client):
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type,cf-turnstile-response"}
    ours = client.options("/api/keys", headers=ask | {"Origin": "https://app.example.com"})
    assert (ours.status_code, ours.headers["access-control-allow-origin"]) == (200, "https://app.example.com")
    for origin in ("https://evil.example.com", "https://app.example.com.evil.example", "null", "http://app.example.com"):
        assert client.options("/api/keys", headers=ask | {"Origin": origin}).status_code == 400
        assert "access-control-allow-origin" not in client.get("/api/config", headers={"Origin": origin}).headers


def test_a_body_that_is_too_large_is_413_declared_or_not(api, client):
    def pieces():
        yield from (b"x" * 6_000, b"x" * 6_000)

    for content in (b"x" * 10_001, pieces()):
        answer = client.post("/api/webhook/stripe", content=content)
        assert answer.status_code in (404, 413)
    with api.as_user(api.database.user()) as user:
        for content in (b"x" * 10_001, pieces()):
            assert user.post("/api/estimate", content=content).status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nothing", 404), ("PUT", "/api/me", 405), ("GET", "/api/config/", 404), ("GET", "/docs", 404)]
)
def test_what_is_not_there_is_said_in_the_same_shape(client, method, path, status):
    answer = client.request(method, path)
    assert (answer.status_code, answer.json()["error"]["message"]) == (status, answer.json()["error"]["message"])
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_the_log_of_the_command_says_who_and_what_came_of_it_and_nothing_they_said(postgres):
    database = postgres.migrated()
    user = database.user(credits=1000)
    with running(database) as signer:
        token = signer.issuer.token(user)
        environment = os.environ | {
            "SUPABASE_URL": signer.issuer.service.url, "DATABASE_URL": database.url, "R2_ENDPOINT": NOWHERE, "R2_ACCESS_KEY_ID": "a",
            "R2_SECRET_ACCESS_KEY": "b", "R2_BUCKET_NAME": "c", "FISHSERVE_URL": NOWHERE, "FISHSERVE_SAAS_ENVIRONMENT": "development",
        }  # fmt: skip
        command = [sys.executable, "-m", "inference.cli", "saas", "--port", "0"]
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
            try:
                url = process.stderr.readline().split()[0]
                with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=HANG_SECONDS) as client:
                    key = client.post("/api/keys", json={"name": "a-private-name"}).json()["secret"]
                    client.post("/api/tts", json={"text": "a-private-text"}, headers={"Idempotency-Key": "a-private-key"})
                    client.get(
                        "/api/jobs",
                        params={"search": "a-private-search"},
                        headers={"Authorization": f"Bearer {key}", "X-Request-Id": "mine"},
                    )
                    client.get("/readyz")
            finally:
                process.send_signal(signal.SIGTERM)
                log = process.communicate(timeout=HANG_SECONDS)[1]
    said = [json.loads(line) for line in log.splitlines()]
    lines = [line for line in said if "route" in line]
    assert [(line["method"], line["route"], line["status"]) for line in lines] == [
        ("POST", "/api/keys", 201),
        ("POST", "/api/tts", 202),
        ("GET", "/api/jobs", 200),
    ]
    assert [line["request_id"] == "mine" for line in lines] == [False, False, True]
    assert lines[0]["key"] == str(user)
    assert "private" not in log
    assert token not in log
    assert key.split("_", 2)[2] not in log


def test_what_the_program_says_is_json_and_an_errors_words_are_left_out():
    try:
        raise ValueError("a-private-text")
    except ValueError:
        record = logging.getLogger("saas.jobs").makeRecord("saas.jobs", logging.ERROR, __file__, 1, "%s broke", ("a loop",), sys.exc_info())
    line = Line(for_people=False).format(record)
    entry = json.loads(line)
    assert (entry["level"], entry["logger"], entry["message"], entry["error"]["type"]) == (
        "error",
        "saas.jobs",
        "a loop broke",
        "ValueError",
    )
    assert "private" not in line
    assert "\n" not in line
    words = Line(for_people=True).format(record)
    assert re.fullmatch(r"\d\d:\d\d:\d\d error saas\.jobs: a loop broke \(ValueError at .*test_watching\.py:\d+\)", words)

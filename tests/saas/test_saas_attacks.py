"""What one client without a key can do to the SaaS API: next to nothing, and nothing that asks the database."""

import asyncio
import contextlib
import re
import socket
from uuid import uuid4

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bench.attack import ON_SAAS, Target, attacks_on, measure
from tests.saas.api_harness import NOWHERE, running
from tests.saas.jobs.conftest import SMALL, Account, Api
from tests.saas.jobs.test_slow_readers import ask
from tests.waiting import HANG_SECONDS, wait

MUCH = 20_000_000


@pytest.fixture(scope="module")
def api(data, bucket):
    given = {"RUNPOD_API_KEY": "rpa_x", "RUNPOD_ENDPOINT_ID": "ep", "RUNPOD_BASE_URL": NOWHERE, "FISHSERVE_SAAS_REQUESTS_AT_ONCE": "3"}
    stripe = {"STRIPE_SECRET_KEY": "sk_test_x", "STRIPE_WEBHOOK_SECRET": "whsec_x", "STRIPE_BASE_URL": NOWHERE}
    with Api(data, bucket, **given, **stripe) as api:
        yield api


def samples(api):
    families = text_string_to_metric_families(httpx.get(f"{api.url}/metrics").text)
    return {(sample.name, *sorted(sample.labels.items())): sample.value for family in families for sample in family.samples}


def queries(api):
    """How often requests have asked the database. The API's own loops ask for jobs, by other functions."""
    loops = re.compile("(claim|expire)_.*|.*_(to_delete|figures)|running_jobs")
    calls = {k: v for k, v in samples(api).items() if k[0] == "fishserve_saas_database_seconds_count"}
    return {k: v for k, v in calls.items() if not loops.fullmatch(dict(k[1:])["function"])}


def sent(api, *pieces):
    """The status of the answer to these bytes, or "closed"."""
    with socket.create_connection(("127.0.0.1", api.port), HANG_SECONDS) as connection:
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                connection.sendall(piece)
        with contextlib.suppress(ConnectionError):
            if (line := connection.recv(100)).startswith(b"HTTP/"):
                return line.split()[1].decode()
    return "closed"


@pytest.mark.parametrize(
    "pieces",
    [
        (b"GET /", b"a" * MUCH),
        (b"GET / HTTP/1.1\r\nA: ", b"a" * MUCH),
        (b"GET / HTTP/1.1\r\n", b"a: b\r\n" * (MUCH // 6)),
        (b"POST /api/tts HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n", b"a: b\r\n" * (MUCH // 6)),
        (b"POST /api/tts HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"a" * MUCH),
    ],
    ids=["URL", "header", "headers", "trailers", "chunk"],
)
def test_a_head_without_end_is_refused_while_it_is_small(api, pieces):
    process = psutil.Process(api.process.pid)
    before = process.memory_info().rss
    assert sent(api, *pieces) in ("431", "closed")
    assert process.memory_info().rss - before < MUCH
    assert httpx.get(f"{api.url}/healthz").status_code == 200


@pytest.mark.parametrize(
    ("path", "content", "kind", "statuses"),
    [
        ("/api/tts", b'{"text": [' + b"[]," * 300_000 + b"[]]}", "application/json", (413,)),
        ("/api/tts", b"{" + b",".join(b'"%05d":1' % number for number in range(20_000)) + b"}", "application/json", (413,)),
        ("/api/tts", b'{"text": "' + b"," * 5000 + b'"}', "application/json", (401,)),
        ("/api/tts", b"[" * 900_000, "application/json", (413,)),
        ("/api/tts", b'{"a":' * 7000 + b"1" + b"}" * 7000, "application/json", (400,)),
        ("/v1/audio/speech", b"1" * 900_000, "application/json", (400,)),
        ("/api/tts", b"&" * 900_000, "application/x-www-form-urlencoded", (413,)),
        ("/api/tts", b"\xdc\xff\xff" + b"\x90" * 65_535, "application/msgpack", (400, 401)),
        ("/api/tts", b"x" * 1_100_000, "application/json", (413,)),
        ("/api/webhook/runpod", b"[" * 7000, "application/json", (400,)),
        (
            "/api/voices",
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n' * 15_000,
            "multipart/form-data; boundary=x",
            (400, 401),
        ),
    ],
    ids=["values", "fields", "commas", "opened", "deep", "number", "form", "msgpack", "large", "webhook", "multipart"],
)
def test_a_body_that_is_no_request_is_refused(api, path, content, kind, statuses):
    asked = queries(api)
    answer = httpx.post(f"{api.url}{path}", content=content, headers={"Content-Type": kind}, timeout=HANG_SECONDS)
    assert answer.status_code in statuses, answer.text[:200]
    assert "message" in answer.json()["error"]
    assert queries(api) == asked


def test_webhooks_that_nobody_signed_do_not_reach_the_database(api):
    asked = queries(api)
    for _ in range(20):
        told = httpx.post(
            f"{api.url}/api/webhook/runpod", params={"job": str(uuid4()), "token": "x" * 64, "mark": "0" * 64}, json={"id": "x"}
        )
        assert (told.status_code, told.json()["error"]["message"]) == (404, "there is no such job")
        signature = {"Stripe-Signature": "t=1,v1=" + "0" * 64}
        assert httpx.post(f"{api.url}/api/webhook/stripe", content=b"{}", headers=signature).status_code == 400
    assert queries(api) == asked


def test_the_attacks_of_the_bench_know_an_api_and_it_holds(api):
    target, rows = Target(api.url, None), []
    names = asyncio.run(attacks_on(target))
    assert names == ON_SAAS
    asyncio.run(measure(target, names[-1:], rows.append))
    assert rows[0]["answer"] == "1,000 answered 404"


def test_many_who_ask_whether_it_is_ready_ask_the_database_once_in_a_while(api):
    """Its answer is kept for two seconds."""
    counted = lambda: samples(api).get(("fishserve_saas_database_seconds_count", ("function", "applied_migrations")), 0)  # noqa: E731
    before = counted()
    with httpx.Client(base_url=api.url) as client:
        assert {client.get("/readyz").status_code for _ in range(100)} == {200}
    assert counted() - before < 50


def test_pages_of_other_sites_can_do_nothing(api):
    """No page has a key, and none may read an answer or send what needs asking for first."""
    with httpx.Client(base_url=api.url, headers={"Origin": "https://evil.example"}) as page:
        for answer in (page.get("/api/config"), page.options("/api/tts", headers={"Access-Control-Request-Method": "POST"})):
            assert "access-control-allow-origin" not in answer.headers
        assert page.post("/api/tts", content=b'{"text": "Hi."}', headers={"Content-Type": "text/plain"}).status_code in (400, 401)
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    assert sent(api, b"GET /v1/audio/speech HTTP/1.1\r\nHost: x\r\nOrigin: https://evil.example\r\n" + upgrade + b"\r\n") in (
        "403",
        "404",
        "405",
    )


def test_an_api_that_lets_everyone_sign_up_is_kept_from_pages_of_other_sites(postgres, tmp_path):
    """On somebody's own machine, as with --embedded, where a page would sign up and speak."""
    with running(postgres.migrated(), environment="embedded", directory=tmp_path, public_url="http://tts.example.com") as api:
        body = {"email": "page@example.com", "password": "correct horse battery"}
        for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
            refused = httpx.post(f"{api.url}/auth/v1/signup", json=body, headers=headers)
            assert refused.status_code == 403
            assert "FISHSERVE_SAAS_" in refused.json()["error"]["message"]
        assert httpx.get(f"{api.url}/metrics", headers={"Host": "evil.example"}).status_code == 403
        for headers in ({}, {"Host": "tts.example.com", "Origin": "http://tts.example.com"}):
            assert httpx.post(f"{api.url}/auth/v1/signup", json=body, headers=headers).status_code == 200


def test_no_client_makes_a_metric(api):
    """Not by methods, paths, headers, models, voices, formats or statuses of its own."""

    def try_all():
        with httpx.Client(base_url=api.url) as client:
            client.get("/metrics")
            for _ in range(10):
                odd = uuid4().hex
                client.request(f"M{odd}", "/healthz")
                client.get(f"/{odd}")
                client.get(f"/v1/models/{odd}")
                client.get(f"/api/jobs/{odd}", headers={"Authorization": f"Bearer fsk_{odd}", "X-Request-Id": odd})
                client.post("/v1/audio/speech", json={"input": "x", "model": odd, "voice": odd, "response_format": odd})
                client.post("/api/webhook/runpod", params={"job": str(uuid4()), "token": odd}, json={"id": odd})

    try_all()
    known = samples(api).keys()
    try_all()
    assert samples(api).keys() == known


def test_a_user_has_so_many_requests_open_and_no_more(data, api):
    with Account(data, api.url) as account, Account(data, api.url) as other, contextlib.ExitStack() as stack:
        waiting = [ask(stack, account, f"key{number}") for number in range(3)]
        wait(lambda: len(data.sql("select id from jobs where user_id = %s", account.id)) == 3)
        refused = account.http.get("/api/me")
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "too_many_at_once"
        assert int(refused.headers["retry-after"]) > 0
        assert "3 requests at once" in refused.json()["error"]["message"]
        assert other.http.get("/api/me").status_code == 200
        waiting.pop().close()
        wait(lambda: account.http.get("/api/me").status_code == 200)


def test_an_open_request_ends_with_its_answer(data, api):
    with Account(data, api.url) as account:
        for _ in range(10):
            assert account.http.get("/api/me").status_code == 200
            assert account.http.post("/api/tts", json={"text": SMALL, "format": "?"}).status_code == 400
            assert account.http.post("/api/keys", json={"name": "x"}).status_code == 403

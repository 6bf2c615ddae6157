"""What Sentry is sent, read from the bytes that arrive: where something broke, and not a word of what was in it."""

import gzip
import json

import brotli
import pytest
import sentry_sdk
from fastapi import FastAPI

from inference.http.log import RequestLog
from saas import errors
from saas.observability import reports
from saas.observability.middleware import Watch
from saas.settings import Settings
from tests.saas.api_harness import StandIn, serving
from tests.waiting import HANG_SECONDS

PRIVATE = "a-private-text-of-a-user"


@pytest.fixture
def sink(monkeypatch):
    monkeypatch.setattr(reports, "STOP_SECONDS", HANG_SECONDS)
    with StandIn(lambda _: (200, {})).running() as sink:
        reports.start(Settings(environment="development", sentry_dsn=sink.url.replace("http://", "http://public@") + "/42"))
        client = sentry_sdk.get_client()
        transport = client.transport  # a closed client has none
        yield sink
        client.close(timeout=HANG_SECONDS)
        transport._pool.clear()  # Sentry leaves its connections to the collector
        sentry_sdk.get_global_scope().set_client(None)


def sent(sink):
    """The events that arrived, and all their bytes."""
    reports.stop()
    bodies = []
    for asked in sink.asked:
        coding = asked.headers.get("content-encoding")
        bodies.append({"br": brotli.decompress, "gzip": gzip.decompress}.get(coding, bytes)(asked.body))
    lines = [json.loads(line) for body in bodies for line in body.splitlines() if line.startswith(b"{")]
    return [line for line in lines if "event_id" in line and "platform" in line], b"".join(bodies)


def broken():
    secret = PRIVATE
    raise ValueError(f"cannot say {secret}")


def test_an_error_nobody_expected_arrives_with_its_place_and_without_its_words(sink):
    app = FastAPI()
    app.add_middleware(Watch, https=False)
    app.add_middleware(RequestLog, refuse=errors.refusal)

    @app.post("/break/{name}")
    async def break_it():
        broken()

    import httpx

    with serving(app) as url:
        answer = httpx.post(f"{url}/break/{PRIVATE}?q={PRIVATE}", json={"text": PRIVATE}, headers={"Authorization": f"Bearer {PRIVATE}"})
    assert answer.status_code == 500
    assert PRIVATE not in answer.text
    (event,), content = sent(sink)
    (exception,) = event["exception"]["values"]
    assert exception["type"] == "ValueError"
    assert exception["stacktrace"]["frames"][-1]["function"] == "broken"
    assert event["tags"] == {"route": "/break/{name}"}
    assert PRIVATE.encode() not in content
    assert b"vars" not in content
    assert sink.asked[0].path == "/api/42/envelope/"


def test_an_alarm_arrives_with_its_words_which_are_ours(sink):
    reports.alarm("an event of Stripe was refused by the database", type="charge.refunded")
    (event,), _ = sent(sink)
    assert (event["message"], event["level"], event["tags"]) == (
        "an event of Stripe was refused by the database",
        "error",
        {"type": "charge.refunded"},
    )


def test_what_caused_an_error_keeps_its_words_to_itself_too(sink):
    try:
        try:
            broken()
        except ValueError as e:
            raise RuntimeError(PRIVATE) from e
    except RuntimeError as e:
        reports.report(e, loop="jobs")
    (event,), content = sent(sink)
    assert [x["type"] for x in event["exception"]["values"]] == ["ValueError", "RuntimeError"]
    assert PRIVATE.encode() not in content


def test_without_a_project_nothing_is_sent_and_nothing_breaks():
    reports.start(Settings(environment="development"))
    reports.report(ValueError(PRIVATE))
    reports.stop()

"""/api/webhooks: made by somebody signed in, with a secret that is shown once, tried, and read in the log."""

import base64

import pytest
from standardwebhooks.webhooks import Webhook as Verifier

from saas.auth.caller import SCOPES
from tests.saas.api_harness import StandIn, running
from tests.saas.sql.test_life import RESULT, ask
from tests.waiting import wait


@pytest.fixture(scope="module")
def api(postgres):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("saas.webhooks.service.POLL_SECONDS", 0.02)
        with running(postgres.migrated(), webhook_loopback=True, requests_per_minute=10_000, sensitive_per_minute=1000) as api:
            yield api


@pytest.fixture(scope="module")
def receiver():
    with StandIn(lambda _: (200, b"")).running() as receiver:
        yield receiver


def make(client, url, *events):
    answer = client.post("/api/webhooks", json={"url": url, "events": list(events or ("job.succeeded",))})
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_a_webhook_from_its_beginning_to_its_end(api, receiver):
    who = api.database.user(credits=1000)
    with api.as_user(who) as client:
        made = make(client, f"{receiver.url}/mine", "job.succeeded", "voice.ready")
        endpoint = made["webhook"]
        assert len(base64.b64decode(made["secret"].removeprefix("whsec_"))) == 32
        listed = client.get("/api/webhooks")
        assert listed.json() == [endpoint]
        assert made["secret"] not in listed.text
        job = ask(api.database, who)["id"]
        api.database.call("settle_job", job_id=job, object_key="k", **RESULT)
        path = f"/api/webhooks/{endpoint['id']}"
        (row,) = wait(lambda: [row for row in client.get(f"{path}/deliveries").json() if row["outcome"]])
        assert (row["event"], row["outcome"], row["status"], row["attempts"]) == ("job.succeeded", "delivered", 200, 1)
        asked = next(asked for asked in receiver.asked if asked.headers["webhook-id"] == row["id"])
        assert Verifier(made["secret"]).verify(asked.body, asked.headers)["data"]["id"] == job
        assert client.get(f"{path}/deliveries", params={"before": row["created_at"]}).json() == []
        assert client.delete(path).status_code == 204
        assert client.get("/api/webhooks").json() == []
        assert client.get(f"{path}/deliveries").status_code == 404


def test_a_test_says_what_came_of_it(api, receiver):
    with api.as_user(api.database.user()) as client:
        made = make(client, receiver.url)
        path = f"/api/webhooks/{made['webhook']['id']}"
        tried = client.post(f"{path}/test").json()
        assert (tried["event"], tried["outcome"], tried["status"], tried["error"]) == ("webhook.test", "delivered", 200, None)
        told = Verifier(made["secret"]).verify(receiver.asked[-1].body, receiver.asked[-1].headers)
        assert told | {"type": "webhook.test", "data": {}} == told
        assert client.get("/api/webhooks").json()[0]["delivered_at"]
        other = make(client, "http://127.0.0.1:9/nobody")["webhook"]["id"]
        failed = client.post(f"/api/webhooks/{other}/test").json()
        assert (failed["outcome"], failed["status"], failed["error"]) == ("failed", None, "no connection: ConnectError")


def test_a_rotated_secret_is_shown_once_and_both_sign(api, receiver):
    with api.as_user(api.database.user()) as client:
        made = make(client, receiver.url)
        path = f"/api/webhooks/{made['webhook']['id']}"
        turned = client.post(f"{path}/secret").json()
        assert turned["secret"] != made["secret"]
        client.post(f"{path}/test")
        for secret in (made["secret"], turned["secret"]):
            Verifier(secret).verify(receiver.asked[-1].body, receiver.asked[-1].headers)


@pytest.mark.parametrize(
    "url",
    [
        "https://10.0.0.1/", "https://169.254.169.254/latest/meta-data", "https://[fc00::1]/", "http://8.8.8.8/", "ftp://example.com", "example.com/hook",
        "https://", "https://[", "https://user:password@8.8.8.8/", "https://8.8.8.8:99999/", "https://no-such-name.invalid/", "https://a\x00b/",
    ],
)  # fmt: skip
def test_where_deliveries_cannot_go_is_refused_in_words(api, url):
    with api.as_user(api.database.user()) as client:
        answer = client.post("/api/webhooks", json={"url": url, "events": ["job.failed"]})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (422, "webhook_refused", "url")
        assert error["message"].startswith("deliveries cannot go there: ")
        assert client.get("/api/webhooks").json() == []


@pytest.mark.parametrize("body", [{"events": []}, {"events": ["job.started"]}, {"url": "x" * 2001}, {"secret": "mine"}], ids=str)
def test_what_is_no_webhook_is_refused(api, body):
    with api.as_user(api.database.user()) as client:
        assert client.post("/api/webhooks", json={"url": "https://8.8.8.8/", "events": ["job.failed"]} | body).status_code == 400


def test_a_key_cannot_say_where_deliveries_go(api):
    with api.with_key(api.new_key(api.database.user(), *SCOPES)) as client:
        assert client.get("/api/webhooks").json()["error"]["code"] == "session_needed"
        answer = client.post("/api/webhooks", json={"url": "https://8.8.8.8/", "events": ["job.failed"]})
        assert answer.json()["error"]["code"] == "session_needed"

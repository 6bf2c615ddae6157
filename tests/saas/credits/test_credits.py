"""What one has, what it went to, and what a text would cost."""

import json

import pytest

from tests.saas.api_harness import running


@pytest.fixture(scope="module")
def api(postgres):
    with running(postgres.migrated(), requests_per_minute=10_000) as api:
        yield api


@pytest.fixture
def client(api):
    with api.as_user(api.database.user(credits=100)) as client:
        yield client


def test_a_text_is_priced_as_the_database_would_reserve_it(api, client):
    text = "A sentence of some length, to be spoken by somebody."
    estimate = client.post("/api/estimate", json={"text": text}).json()
    assert estimate == api.database.call("estimate_credits", text=text)
    assert estimate["credits"] > estimate["seconds"] > 0


def test_faster_speech_is_shorter_and_costs_the_same_and_slower_costs_more(client):
    text = "word " * 100
    usual, fast, slow = (client.post("/api/estimate", json={"text": text, "speed": speed}).json() for speed in (1, 2, 0.5))
    assert fast["credits"] == usual["credits"]
    assert fast["seconds"] == pytest.approx(usual["seconds"] / 2, abs=0.1)
    assert slow["credits"] == pytest.approx(2 * usual["credits"], abs=1)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"text": None},
        {"text": "x", "speed": 9},
        {"text": "a\u0000b"},
        {"text": "\ud800"},
        {"text": "x" * 5001},
        {"text": "x", "credits": 0},
    ],
    ids=str,
)
def test_what_cannot_be_priced_is_refused_with_a_sentence(client, body):
    answer = client.post("/api/estimate", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_the_ledger_has_every_entry_the_newest_first_and_page_by_page(api):
    user = api.database.user()
    for n in range(5):
        api.database.call("grant_credits", user_id=user, credits=10 + n, reference=f"gift {n}")
    with api.as_user(user) as client:
        whole = client.get("/api/credits/ledger").json()
        first = client.get("/api/credits/ledger", params={"limit": 2}).json()
        second = client.get("/api/credits/ledger", params={"limit": 3, "before": first[-1]["id"]}).json()
    assert [entry["amount"] for entry in whole] == [14, 13, 12, 11, 10]
    assert whole[0]["balance_after"] == 60
    assert first + second == whole


def test_nobody_sees_anothers_ledger(api, client):
    with api.as_user(api.database.user()) as other:
        assert other.get("/api/credits/ledger").json() == []
    assert len(client.get("/api/credits/ledger").json()) == 1


@pytest.mark.parametrize("params", [{"before": 0}, {"before": "x"}, {"limit": 0}, {"limit": 1000}, {"before": 2**70}], ids=str)
def test_a_page_that_is_none_is_400(client, params):
    assert client.get("/api/credits/ledger", params=params).status_code == 400


def test_usage_is_told_a_day_at_a_time(api):
    user = api.database.user(credits=10_000)
    job = api.database.call(
        "process_audio_request", user_id=user, idempotency_key="k", fingerprint="f", text="Hello there.", token_hash="0" * 64
    )["job"]
    api.database.call("start_job", job_id=job["id"], backend="fishserve", backend_id="x")
    key = f"results/users/{user}/jobs/{job['id']}.mp3"
    api.database.call("settle_job", job_id=job["id"], seconds=1.5, frames=33, bytes=1000, sha256="0" * 64, object_key=key)
    with api.as_user(user) as client:
        (day,) = client.get("/api/usage").json()
        kinds = [entry["kind"] for entry in client.get("/api/credits/ledger").json()]
    assert (day["jobs"], day["characters"], day["seconds"]) == (1, 12, 1.5)
    assert set(kinds) == {"grant", "reserve", "settle"}

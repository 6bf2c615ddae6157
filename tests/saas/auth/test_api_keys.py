"""Keys: made by someone signed in, shown once, kept as a hash, good for what they say and until they are revoked."""

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.saas.api_harness import running


@pytest.fixture(scope="module")
def api(postgres):
    with running(postgres.migrated(), failures_per_minute=30, requests_per_minute=10_000, sensitive_per_minute=1000) as api:
        yield api


def test_a_key_opens_what_its_user_has(api):
    user = api.database.user(credits=7)
    with api.with_key(api.new_key(user, "read")) as client:
        assert client.get("/api/credits").json() == {"balance": 7, "debt": 0}
        assert client.get("/api/me").json()["id"] == str(user)


def test_a_key_is_good_as_other_clients_send_it(api):
    key = api.new_key(api.database.user())
    with api.with_key("") as client:
        client.headers.pop("authorization")
        assert client.get("/api/credits", headers={"xi-api-key": key}).status_code == 200
        assert client.get("/api/credits", headers={"Authorization": f"bearer {key}"}).status_code == 200


def test_a_key_is_shown_once_and_kept_as_a_hash_alone(api):
    user = api.database.user()
    secret = api.new_key(user)
    assert re.fullmatch(r"fsk_[0-9a-f]{12}_[A-Za-z0-9_-]{43}", secret)
    with api.as_user(user) as client:
        listed = client.get("/api/keys")
    (row,) = api.database.sql("select * from public.api_keys where user_id = %s", user)
    assert row["hash"] == hashlib.sha256(secret.split("_", 2)[2].encode()).hexdigest()
    assert secret.split("_", 2)[2] not in str(row)
    assert [(k["prefix"], k["last_used_at"]) for k in listed.json()] == [(secret.split("_")[1], None)]
    assert row["hash"] not in listed.text


def test_when_it_was_used_is_known(api):
    user = api.database.user()
    with api.with_key(api.new_key(user)) as client:
        client.get("/api/credits")
    with api.as_user(user) as client:
        assert client.get("/api/keys").json()[0]["last_used_at"]


def test_a_key_has_the_limits_that_it_was_made_with(api):
    user = api.database.user(credits=100)
    limits = {"expires_at": "2100-01-01T00:00:00Z", "monthly_credits": 5, "networks": ["127.0.0.0/8"]}
    with api.as_user(user) as client:
        made = client.post("/api/keys", json={"name": "here", **limits}).json()
        away = client.post("/api/keys", json={"name": "away", "networks": ["203.0.113.0/24"]}).json()
        assert client.get("/api/keys").json()[1] | limits | {"spent": 0} == made["key"] | {"last_used_at": None}
        wrong = client.post("/api/keys", json={"name": "k", "networks": ["office"]})
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "networks")
    with api.with_key(made["secret"]) as client:
        assert (
            client.post("/api/tts", json={"text": "Hi."})
            .json()["error"]["message"]
            .endswith("this key may spend 5 a month, and has 5 left")
        )
        assert client.get("/api/usage", params={"key_id": made["key"]["id"]}).json() == []
    with api.with_key(away["secret"]) as client:
        answer = client.get("/api/credits")
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "network_not_allowed")


def test_a_revoked_key_opens_nothing_from_then_on(api):
    user = api.database.user()
    with api.with_key(api.new_key(user)) as by_key, api.as_user(user) as client:
        assert by_key.get("/api/credits").status_code == 200
        assert client.delete(f"/api/keys/{client.get('/api/keys').json()[0]['id']}").status_code == 204
        answer = by_key.get("/api/credits")
        assert (answer.status_code, answer.json()["error"]["message"]) == (401, "this API key was revoked")
        assert client.get("/api/keys").json() == []


def test_nobody_revokes_or_sees_anothers_key(api):
    ann, bob = api.database.user(), api.database.user()
    api.new_key(ann)
    with api.as_user(ann) as a, api.as_user(bob) as b:
        (key,) = a.get("/api/keys").json()
        assert b.get("/api/keys").json() == []
        assert b.delete(f"/api/keys/{key['id']}").status_code == 404
        assert len(a.get("/api/keys").json()) == 1


def test_a_key_may_do_what_its_scopes_say_and_is_told_what_it_lacks(api):
    user = api.database.user()
    with api.with_key(api.new_key(user, "read")) as client:
        speech = client.post("/api/tts", json={"text": "Hello."})
        voices = client.post("/api/voices", json={})
    assert {speech.status_code, voices.status_code} == {403}
    assert speech.json()["error"]["message"] == "this key may not 'speak', but read; make one that may"


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/api/keys"), ("GET", "/api/keys"), ("PATCH", "/api/me"), ("DELETE", "/api/me"), ("POST", "/api/billing/checkout")],
)
def test_no_key_makes_keys_buys_or_closes_the_account(api, method, path):
    """A key that leaked must not outlive its being revoked."""
    with api.with_key(api.new_key(api.database.user(), "speak", "voices", "read")) as client:
        answer = client.request(method, path, json={"name": "x", "display_name": "x", "pack": "small"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "session_needed")


@pytest.mark.parametrize(
    "key", ["fsk_", "fsk_0123456789ab_", "fsk_0123456789ab_" + "x" * 42, "fsk_0123456789ab_" + "x" * 5000, "fsk_'; select 1; --_x"]
)
def test_what_is_no_key_is_401_without_asking_the_database(api, key):
    with api.with_key(key) as client:
        answer = client.get("/api/credits")
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_key")


def test_a_right_prefix_with_a_wrong_secret_opens_nothing(api):
    key = api.new_key(api.database.user())
    with api.with_key(key[:-43] + "A" * 43) as client:
        assert client.get("/api/credits").status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "x" * 81},
        {"name": "a\u0000b"},
        {"name": "x", "scopes": []},
        {"name": "x", "scopes": ["all"]},
        {"name": "x", "admin": True},
        [],
        None,
    ],
)
def test_a_key_that_is_asked_for_wrongly_is_refused_with_a_sentence(api, body):
    with api.as_user(api.database.user()) as client:
        answer = client.post("/api/keys", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_twenty_keys_are_the_most_even_when_asked_for_at_once(api):
    user = api.database.user()
    with api.as_user(user) as client, ThreadPoolExecutor(8) as many:
        made = list(many.map(lambda n: client.post("/api/keys", json={"name": f"key {n}"}).status_code, range(24)))
    assert sorted(made) == [201] * 20 + [409] * 4


def test_keys_of_a_closed_account_open_nothing(api):
    user = api.database.user()
    with api.with_key(api.new_key(user)) as by_key, api.as_user(user) as client:
        assert client.delete("/api/me").status_code == 204
        assert by_key.get("/api/credits").status_code == 401
        assert client.get("/api/me").status_code == 403


def test_whoever_tries_many_wrong_keys_must_wait_and_nobody_else(postgres):
    with running(postgres.migrated(), failures_per_minute=3, trusted_proxies="127.0.0.1/32") as api:
        right, wrong = api.new_key(api.database.user()), "fsk_0123456789ab_" + "x" * 43
        with api.with_key(wrong, **{"CF-Connecting-IP": "203.0.113.7"}) as guesser:
            answers = [guesser.get("/api/credits") for _ in range(4)]
            assert [a.status_code for a in answers] == [401, 401, 401, 429]
            assert 1 <= int(answers[3].headers["retry-after"]) <= 60
        with api.with_key(right, **{"CF-Connecting-IP": "203.0.113.8"}) as other:
            assert other.get("/api/credits").status_code == 200

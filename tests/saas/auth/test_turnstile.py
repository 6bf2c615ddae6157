"""Whether a person asks for a key: only a clear yes of Cloudflare, about this page and this action, counts."""

import json
import threading
from urllib.parse import parse_qs

import pytest

from inference.errors import ConfigurationError
from saas import create_app
from saas.auth import turnstile
from saas.settings import Settings
from tests.saas.api_harness import NOWHERE, StandIn, running
from tests.waiting import HANG_SECONDS

SECRET = "0x4AAA-a-real-looking-secret"
YES = {"success": True, "hostname": "app.example.com", "action": "create-key", "error-codes": []}


@pytest.fixture(scope="module")
def cloudflare():
    with StandIn(lambda _: (200, YES)).running() as service:
        yield service


@pytest.fixture(scope="module")
def api(postgres, cloudflare):
    given = {
        "turnstile_base_url": cloudflare.url,
        "turnstile_secret_key": SECRET,
        "turnstile_site_key": "0x4BBB",
        "app_url": "https://app.example.com",
    }
    with pytest.MonkeyPatch.context() as patch, running(postgres.migrated(), sensitive_per_minute=1000, **given) as api:
        patch.setattr(turnstile, "SECONDS", HANG_SECONDS)
        yield api


@pytest.fixture
def ask(api, cloudflare):
    def ask(answer=(200, YES), token="a-token"):
        cloudflare.answer = answer if callable(answer) else lambda _: answer
        with api.as_user(api.database.user()) as client:
            return client.post("/api/keys", json={"name": "x"}, headers={"cf-turnstile-response": token} if token else {})

    return ask


def test_a_person_gets_a_key_and_cloudflare_was_asked_with_our_secret(ask, cloudflare):
    assert ask().status_code == 201
    asked = cloudflare.asked[-1]
    assert (asked.path, parse_qs(asked.body.decode())) == ("/turnstile/v0/siteverify", {"secret": [SECRET], "response": ["a-token"]})


def test_the_app_is_told_the_public_key_alone(api):
    with api.with_key("x") as client:
        config = client.get("/api/config")
    assert config.json()["turnstile_site_key"] == "0x4BBB"
    assert SECRET not in config.text


@pytest.mark.parametrize("token", [None, "x" * 3000])
def test_without_a_token_cloudflare_is_not_even_asked(ask, cloudflare, token):
    before = len(cloudflare.asked)
    answer = ask(token=token)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "turnstile_missing")
    assert len(cloudflare.asked) == before


@pytest.mark.parametrize(
    "answer",
    [
        {"success": False, "error-codes": ["timeout-or-duplicate"]}, YES | {"hostname": "evil.example.com"}, YES | {"action": "sign-in"},
        {"success": True}, YES | {"success": "true"}, YES | {"success": 1}, {},
    ],
    ids=json.dumps,
)  # fmt: skip
def test_whatever_is_not_a_clear_yes_for_this_page_and_action_is_a_no(ask, answer):
    refused = ask((200, answer))
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "turnstile_failed")


@pytest.mark.parametrize("answer", [(200, b"<html>busy</html>"), (500, b""), (200, []), (200, b"null")], ids=str)
def test_an_answer_that_is_none_is_503_and_no_key(ask, answer):
    assert ask(answer).status_code == 503


def test_no_answer_in_time_is_503_and_no_key(ask, monkeypatch):
    monkeypatch.setattr(turnstile, "SECONDS", 0.2)
    refused = threading.Event()  # until then Cloudflare thinks about it
    assert ask(lambda _: (refused.wait(HANG_SECONDS), (200, YES))[1]).status_code == 503
    refused.set()


def test_a_cloudflare_that_cannot_be_reached_is_503_and_no_key(postgres):
    with (
        running(postgres.migrated(), turnstile_base_url=NOWHERE, turnstile_secret_key=SECRET) as api,
        api.as_user(api.database.user()) as client,
    ):
        assert client.post("/api/keys", json={"name": "x"}, headers={"cf-turnstile-response": "t"}).status_code == 503
        assert client.get("/api/keys").json() == []


@pytest.mark.parametrize("first", ["1x", "2x", "3x"])
def test_production_does_not_start_with_a_test_secret(first):
    with pytest.raises(ConfigurationError, match="test secrets"):
        create_app(
            Settings(
                environment="production",
                supabase_url="https://x.supabase.co",
                turnstile_secret_key=first + "0000000000000000000000000000000AA",
            )
        )


def test_a_test_secret_is_good_for_development_where_cloudflare_names_no_page(postgres, cloudflare):
    cloudflare.answer = lambda _: (200, {"success": True, "hostname": "example.com", "error-codes": []})
    with (
        running(postgres.migrated(), turnstile_base_url=cloudflare.url, turnstile_secret_key="1x0000000000000000000000000000000AA") as api,
        api.as_user(api.database.user()) as client,
    ):
        assert client.post("/api/keys", json={"name": "x"}, headers={"cf-turnstile-response": "XXXX.DUMMY.TOKEN.XXXX"}).status_code == 201

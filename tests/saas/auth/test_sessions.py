"""Whose sessions are good: those that the issuer signed for us, and that have not ended. Everything else is 401 and a sentence."""

import time
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from inference.errors import ConfigurationError
from saas import create_app
from saas.auth import tokens
from saas.settings import Settings
from tests.saas.api_harness import running
from tests.waiting import HANG_SECONDS


@pytest.fixture(scope="module")
def api(postgres):
    with running(postgres.migrated()) as api:
        yield api


def status(api, token):
    with api.with_key(token) as client:
        answer = client.get("/api/me")
    assert answer.status_code == 200 or (answer.json()["error"]["message"] and answer.headers["www-authenticate"] == "Bearer")
    return answer.status_code


def test_a_session_says_who_it_is(api):
    user = api.database.user(credits=5, email="ann@example.com")
    with api.as_user(user) as client:
        me = client.get("/api/me").json()
    assert (me["id"], me["email"], me["balance"]) == (str(user), "ann@example.com", 5)


@pytest.mark.parametrize(
    "changed",
    [
        {"exp": 1}, {"exp": None}, {"aud": "anon"}, {"aud": None}, {"iss": "https://elsewhere.example/auth/v1"}, {"iss": None},
        {"sub": None}, {"sub": "nobody"}, {"role": "anon"}, {"role": "service_role"},
        {"nbf": 4_000_000_000},
    ],
    ids=str,
)  # fmt: skip
def test_a_session_with_a_wrong_or_missing_claim_is_none(api, changed):
    user = changed.pop("sub") if changed.get("sub") else api.database.user()
    assert status(api, api.issuer.token(user, **changed)) == 401


def test_a_session_that_somebody_else_signed_is_none(api):
    user = api.database.user()
    assert status(api, api.issuer.token(user, key=ec.generate_private_key(ec.SECP256R1()))) == 401
    assert status(api, api.issuer.token(user, key=rsa.generate_private_key(65537, 2048), algorithm="RS256")) == 401


def test_an_unsigned_session_is_none(api):
    unsigned = jwt.encode(api.issuer.claims(api.database.user()), None, "none", headers={"kid": "first"})
    assert status(api, unsigned) == 401


def test_a_session_signed_with_the_public_key_as_a_secret_is_none(api):
    """The known confusion of algorithms: which may be is said by us and never by the token."""
    public = str(api.issuer.public("first")).encode()
    assert status(api, api.issuer.token(api.database.user(), key=public, algorithm="HS256")) == 401


@pytest.mark.parametrize("token", ["x", "a.b.c", "..", "eyJhbGciOiJFUzI1NiJ9..", "ÿ" * 5000])
def test_what_is_no_token_is_401_and_nothing_worse(api, token):
    with api.with_key("x") as client:
        assert client.get("/api/me", headers={b"authorization": b"Bearer " + token.encode("latin-1")}).status_code == 401


def test_no_token_at_all_says_what_to_send(api):
    with api.with_key("") as client:
        client.headers.pop("authorization")
        answer = client.get("/api/me")
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthenticated")


def test_an_expired_session_is_told_apart_so_that_the_app_renews_it(api):
    with api.with_key(api.issuer.token(api.database.user(), exp=1)) as client:
        assert client.get("/api/me").json()["error"]["code"] == "session_expired"


@pytest.mark.parametrize(("ahead", "answered"), [(10, 200), (45, 200), (90, 401)])
def test_the_issuers_clock_may_be_a_little_ahead(api, ahead, answered):
    at = int(time.time()) + ahead
    assert status(api, api.issuer.token(api.database.user(), iat=at, nbf=at)) == answered


def test_rs256_is_good_where_the_issuer_has_such_a_key(postgres):
    with running(postgres.migrated()) as api:
        key = rsa.generate_private_key(65537, 2048)
        public = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": "rsa", "alg": "RS256"}
        api.issuer.service.answer = lambda _: (200, {"keys": [public]})
        assert status(api, api.issuer.token(api.database.user(), kid="rsa", key=key, algorithm="RS256")) == 200


def test_keys_are_fetched_once_and_again_for_one_that_is_new_but_not_for_every_stranger(postgres, monkeypatch):
    monkeypatch.setattr(tokens, "PAUSE", HANG_SECONDS)
    with running(postgres.migrated()) as api:
        user, asked = api.database.user(), api.issuer.service.asked
        for _ in range(5):
            assert status(api, api.issuer.token(user)) == 200
        assert len(asked) == 1
        stranger = api.issuer.token(user, kid="unknown", key=ec.generate_private_key(ec.SECP256R1()))
        for _ in range(5):
            assert status(api, stranger) == 401
        assert len(asked) == 1
        monkeypatch.setattr(tokens, "PAUSE", 0.0)
        api.issuer.add("second")
        assert status(api, api.issuer.token(user, kid="second")) == 200
        assert len(asked) == 2


def test_a_key_that_was_taken_back_opens_nothing_once_its_time_is_over(postgres, monkeypatch):
    with running(postgres.migrated()) as api:
        user = api.database.user()
        token = api.issuer.token(user)
        assert status(api, token) == 200
        del api.issuer.keys["first"]
        api.issuer.add("second")
        monkeypatch.setattr(tokens, "PAUSE", 0.0)
        monkeypatch.setattr(tokens, "LIFE", 0.0)
        assert status(api, token) == 401


def test_known_keys_stay_good_while_the_issuer_is_down(postgres, monkeypatch):
    with running(postgres.migrated()) as api:
        user = api.database.user()
        assert status(api, api.issuer.token(user)) == 200
        monkeypatch.setattr(tokens, "PAUSE", 0.0)
        monkeypatch.setattr(tokens, "LIFE", 0.0)
        for answer in ((500, {}), (200, b"<html>"), (200, []), (200, {"keys": [{"kid": "x", "kty": "EC"}]})):
            api.issuer.service.answer = lambda _, answer=answer: answer
            assert status(api, api.issuer.token(user)) == 200


def test_without_any_key_it_is_503_and_not_401(postgres):
    """A client that is told 401 throws its session away."""
    with running(postgres.migrated()) as api:
        api.issuer.service.answer = lambda _: (500, {})
        with api.as_user(api.database.user()) as client:
            answer = client.get("/api/me")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


def test_the_older_shared_secret_is_good_only_where_it_is_named_and_then_nothing_else_is(postgres):
    secret = "a secret of a project that still signs so" * 2
    with running(postgres.migrated(), legacy_jwt_secret=secret) as api:
        user = api.database.user()
        assert status(api, api.issuer.token(user, key=secret, algorithm="HS256")) == 200
        assert status(api, api.issuer.token(user, key=secret + "!", algorithm="HS256")) == 401
        assert status(api, api.issuer.token(user, key=secret, algorithm="HS512")) == 401
        assert status(api, api.issuer.token(user)) == 401
        assert not api.issuer.service.asked


def test_a_shared_secret_that_can_be_guessed_is_refused_at_the_start():
    with pytest.raises(ConfigurationError, match="can be guessed"):
        create_app(Settings(environment="development", legacy_jwt_secret="secret"))


def test_a_session_of_a_user_that_is_not_there_has_no_profile(api):
    with api.as_user(uuid4()) as client:
        assert client.get("/api/me").status_code == 404

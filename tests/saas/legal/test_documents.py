"""Terms and privacy policy: which version a user accepted and when, and that nothing is sold before where the operator wants it so."""

import pytest

from inference.errors import ConfigurationError
from saas import create_app
from saas.settings import Settings
from tests.saas.api_harness import NOWHERE, running
from tests.saas.auth.test_export import exported

TERMS, PRIVACY = "https://example.com/terms?lang=en", "https://example.com/privacy"
GIVEN = {"terms_url": TERMS, "terms_version": "2026-11", "privacy_url": PRIVACY, "privacy_version": "3", "speech_per_minute": 1000}
STRIPE = {"stripe_secret_key": "sk_test_x", "stripe_webhook_secret": "whsec_x", "stripe_base_url": NOWHERE}
VOICE = {"name": "Me", "transcript": "Hello.", "content_type": "audio/wav", "bytes": 5, "consent": True}
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # Stripe's library speaks to httpx in an older way


@pytest.fixture(scope="module")
def api(data):
    with running(data, **GIVEN, **STRIPE, terms_enforced=True) as api:
        yield api


@pytest.fixture
def client(api):
    api.user = api.database.user(credits=1000)
    with api.as_user(api.user) as client:
        yield client


def versions(answer):
    assert answer.status_code == 200, answer.text
    return [(document["name"], document["version"], document["accepted_at"] is not None) for document in answer.json()["documents"]]


def error(answer):
    return answer.status_code, answer.json()["error"]["code"]


def test_nothing_is_spoken_added_or_sold_until_both_are_accepted(api, client):
    asked = [
        ("/api/tts", {"text": "Hello."}), ("/v1/audio/speech", {"input": "Hello."}), ("/api/voices", VOICE), ("/api/billing/checkout", {"pack": "small"}),
    ]  # fmt: skip
    for path, body in asked:
        answer = client.post(path, json=body)
        assert error(answer) == (403, "terms_not_accepted"), path
        message = answer.json()["error"]["message"]
        assert f"terms of service ({TERMS}, version 2026-11) and privacy policy ({PRIVACY}, version 3)" in message
    assert client.get("/api/credits").json()["balance"] == 1000
    assert client.get("/api/jobs").json() == []
    assert versions(client.get("/api/me/documents")) == [("terms", "2026-11", False), ("privacy", "3", False)]
    assert versions(client.post("/api/me/documents", json={"terms": "2026-11"})) == [("terms", "2026-11", True), ("privacy", "3", False)]
    refused = client.post("/api/tts", json={"text": "Hello."})
    assert error(refused) == (403, "terms_not_accepted")
    assert "terms of service" not in refused.json()["error"]["message"]
    assert versions(client.post("/api/me/documents", json={"privacy": "3"})) == [("terms", "2026-11", True), ("privacy", "3", True)]
    for path, body in asked[:1] + asked[2:3]:
        assert client.post(path, json=body).status_code in (201, 202)
    assert error(client.post("/api/billing/checkout", json={"pack": "small"})) == (503, "payment_unavailable")
    with api.with_key(api.new_key(api.user)) as program:
        assert program.post("/api/tts", json={"text": "Hello."}).status_code == 202


def test_only_the_version_that_is_current_can_be_accepted_and_only_by_a_person(api, client):
    answer = client.post("/api/me/documents", json={"terms": "2025-01"})
    assert error(answer) == (409, "other_version")
    assert answer.json()["error"]["message"] == f"the terms of service are now version '2026-11', not '2025-01': read {TERMS}"
    assert error(client.post("/api/me/documents", json={"rules": "1"}))[0] == 400
    with api.with_key(api.new_key(api.user)) as program:
        assert error(program.post("/api/me/documents", json={"terms": "2026-11"})) == (403, "session_needed")
        assert versions(program.get("/api/me/documents"))[0] == ("terms", "2026-11", False)
    assert api.database.sql("select 1 as one from acceptances where user_id = %s", api.user) == []


def test_a_new_version_is_asked_for_anew_and_the_old_acceptance_stays(api, client):
    both = {"terms": "2026-11", "privacy": "3"}
    client.post("/api/me/documents", json=both)
    client.post("/api/me/documents", json=both)
    with running(api.database, **GIVEN | {"terms_version": "2027-01"}, terms_enforced=True) as later, later.as_user(api.user) as again:
        assert versions(again.get("/api/me/documents")) == [("terms", "2027-01", False), ("privacy", "3", True)]
        assert error(again.post("/api/tts", json={"text": "Hello."})) == (403, "terms_not_accepted")
        again.post("/api/me/documents", json={"terms": "2027-01"})
        assert again.post("/api/tts", json={"text": "Hello."}).status_code == 202
    rows = api.database.sql("select document, version from acceptances where user_id = %s order by id", api.user)
    assert [(row["document"], row["version"]) for row in rows] == [("privacy", "3"), ("terms", "2026-11"), ("terms", "2027-01")]


def test_the_export_has_them_and_a_closed_account_leaves_them_without_a_name(api, client):
    client.post("/api/me/documents", json={"terms": "2026-11"})
    _, found = exported(api, api.user)
    assert [(row["document"], row["version"]) for row in found["acceptances"]] == [("terms", "2026-11")]
    assert client.delete("/api/me").status_code == 204
    assert len(api.database.sql("select 1 as one from acceptances where user_id = %s", api.user)) == 1
    assert api.database.sql("select email, display_name from profiles where id = %s", api.user) == [{"email": None, "display_name": None}]
    assert client.post("/api/me/documents", json={"privacy": "3"}).status_code == 403


def test_unless_it_is_enforced_the_app_asks_and_the_api_speaks(data):
    with running(data, **GIVEN) as api, api.as_user(data.user(credits=1000)) as client:
        config = client.get("/api/config").json()
        assert config["documents"] == [
            {"name": "terms", "version": "2026-11", "url": TERMS},
            {"name": "privacy", "version": "3", "url": PRIVACY},
        ]
        assert client.get("/api/me/documents").json()["required"] is False
        assert client.post("/api/tts", json={"text": "Hello."}).status_code == 202


def test_a_service_without_documents_asks_for_nothing(data):
    with running(data) as api, api.as_user(data.user(credits=1000)) as client:
        assert client.get("/api/config").json()["documents"] == []
        assert client.get("/api/me/documents").json() == {"documents": [], "required": False}
        assert error(client.post("/api/me/documents", json={"terms": "1"})) == (404, "no_document")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"terms_url": TERMS}, "TERMS_URL and FISHSERVE_SAAS_TERMS_VERSION belong together"),
        ({"privacy_version": "1"}, "PRIVACY_URL and FISHSERVE_SAAS_PRIVACY_VERSION belong together"),
        ({"terms_enforced": True}, "there is nothing to accept"),
    ],
)
def test_half_of_it_is_refused_at_the_start(given, words):
    with pytest.raises(ConfigurationError, match=words):
        create_app(Settings(environment="development", supabase_url=NOWHERE, **given))

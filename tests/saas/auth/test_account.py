"""One's own account: the name it shows, and its end, which leaves nothing personal behind."""

import json

import pytest

from tests.saas.api_harness import running


@pytest.fixture(scope="module")
def api(postgres):
    with running(postgres.migrated()) as api:
        yield api


def test_a_user_may_change_the_name_that_is_shown(api):
    with api.as_user(api.database.user()) as client:
        assert client.patch("/api/me", json={"display_name": "  Ann  "}).json()["display_name"] == "Ann"
        assert client.get("/api/me").json()["display_name"] == "Ann"


@pytest.mark.parametrize(
    "body",
    [
        {"balance": 1000},
        {"plan": "pro"},
        {"display_name": "x", "balance": 1},
        {"display_name": "x" * 81},
        {"display_name": None},
        {"display_name": "\ud800"},
    ],
)
def test_and_nothing_else(api, body):
    user = api.database.user()
    with api.as_user(user) as client:
        answer = client.request("PATCH", "/api/me", content=json.dumps(body), headers={"Content-Type": "application/json"})
        assert answer.status_code == 400
        assert client.get("/api/me").json()["balance"] == 0


def test_a_closed_account_is_closed_and_nothing_personal_is_left(api):
    user = api.database.user(credits=50, email="gone@example.com")
    api.new_key(user)
    with api.as_user(user) as client:
        client.patch("/api/me", json={"display_name": "Gone Person"})
        assert client.delete("/api/me").status_code == 204
        assert client.get("/api/me").status_code == 403
        assert client.post("/api/keys", json={"name": "x"}).status_code == 403
    tables = ("profiles", "api_keys", "jobs", "cloned_voices", "transactions", "usage", "payments")
    left = str([api.database.sql(f"select * from public.{table}") for table in tables])
    assert "gone@example.com" not in left
    assert "Gone Person" not in left
    assert api.database.call("audit_ledger") == []


def test_the_sign_in_goes_with_the_account(api):
    user = api.database.user()
    with api.as_user(user) as client:
        client.delete("/api/me")
    assert api.database.sql("select id from auth.users where id = %s", user) == []

"""Anybody may report speech or a voice. The report is kept, the desk lists and closes it, and a closed account is no longer its reporter."""

import json
from itertools import count

import httpx
import pytest

from tests.saas.admin.conftest import acts, desk, operate, told  # noqa: F401 - fixtures: the desk's commands
from tests.saas.api_harness import StandIn, running
from tests.saas.auth.test_export import exported
from tests.waiting import HANG_SECONDS

YES = {"success": True, "hostname": "app.example.com", "action": "report"}
REPORT = {
    "kind": "voice",
    "subject": "https://example.com/clip.mp3",
    "details": "That is my voice.\nI never agreed.",
    "contact": "me@example.com",
}
ACT = ("--reason", "the voice was blocked", "--actor", "kim")
network = count(1)


@pytest.fixture(scope="module")
def cloudflare():
    with StandIn(lambda _: (200, YES)).running() as service:
        yield service


@pytest.fixture(scope="module")
def api(data, cloudflare):
    given = {"turnstile_base_url": cloudflare.url, "turnstile_secret_key": "0x4AAA", "turnstile_site_key": "0x4BBB"}
    with running(data, app_url="https://app.example.com", sensitive_per_minute=3, trusted_proxies="127.0.0.1/32", **given) as api:
        yield api


@pytest.fixture
def send(api):
    """From an address of its own: three reports a minute are allowed."""
    address = {"CF-Connecting-IP": f"198.51.100.{next(network)}"}

    def send(token="a-token", session=None, **changed):
        headers = (
            address | ({"cf-turnstile-response": token} if token else {}) | ({"Authorization": f"Bearer {session}"} if session else {})
        )
        return httpx.post(f"{api.url}/api/reports", json=REPORT | changed, headers=headers, timeout=HANG_SECONDS)

    return send


def kept(api, answer):
    assert answer.status_code == 201, answer.text
    (row,) = api.database.sql("select * from reports where id = %s", answer.json()["id"])
    return row


def test_a_stranger_reports_and_needs_no_address(api, send):
    row = kept(api, send(contact=" "))
    assert (row["kind"], row["subject"], row["details"]) == ("voice", REPORT["subject"], REPORT["details"])
    assert (row["contact"], row["user_id"], row["closed_at"]) == (None, None, None)
    assert kept(api, send())["contact"] == "me@example.com"


def test_only_a_person_reports(send, cloudflare):
    assert send(token=None).json()["error"]["code"] == "turnstile_missing"
    cloudflare.answer = lambda _: (200, YES | {"action": "sign-in"})
    assert send().json()["error"]["code"] == "turnstile_failed"
    cloudflare.answer = lambda _: (200, YES)


def test_an_address_reports_three_times_a_minute(send):
    assert [send().status_code for _ in range(4)] == [201, 201, 201, 429]


@pytest.mark.parametrize(
    "changed",
    [
        {"kind": "music"},
        {"subject": " "},
        {"subject": "a\nb"},
        {"details": ""},
        {"details": "x" * 5001},
        {"details": "a\0"},
        {"contact": "x" * 321},
        {"also": 1},
    ],
)
def test_what_is_no_report_is_said(send, changed):
    assert send(**changed).status_code == 400


def test_a_user_s_report_is_among_the_data_until_the_account_is_closed(api, send):
    user = api.database.user()
    row = kept(api, send(session=api.issuer.token(user)))
    assert str(row["user_id"]) == str(user)
    _, found = exported(api, user)
    assert [(report["id"], report["details"]) for report in found["reports"]] == [(str(row["id"]), REPORT["details"])]
    api.database.call("close_account", user_id=user)
    (left,) = api.database.sql("select * from reports where id = %s", row["id"])
    assert (left["user_id"], left["contact"], left["details"]) == (None, None, REPORT["details"])


def test_the_desk_lists_and_closes_it(api, send, desk):  # noqa: F811 - a fixture
    name = str(kept(api, send())["id"])
    found = next(row for row in desk("reports", "--json").json if row["id"] == name)
    assert (found["subject"], found["contact"]) == (REPORT["subject"], "me@example.com")
    assert name in desk("reports").out
    done = desk("close-report", name, *ACT)
    assert (done.code, done.words) == (0, f"the report {name} is closed: the voice was blocked")
    assert name not in desk("reports", "--json").out
    again = next(row for row in desk("reports", "--closed", "--json").json if row["id"] == name)
    assert (again["closed_by"], again["outcome"]) == ("kim", "the voice was blocked")
    assert [(row["actor"], row["action"]) for row in acts(api.database, name)] == [("kim", "close report")]
    assert "was closed by kim: the voice was blocked" in desk("close-report", name, *ACT).words
    assert "there is no report" in desk("close-report", "00000000-0000-4000-8000-000000000000", *ACT).words


def test_closed_reports_go_when_they_have_been_kept_long_enough(api, send):
    rows = [kept(api, send()) for _ in range(3)]
    for row in rows[:2]:
        api.database.call("admin_close_report", actor="kim", reason="x", report_id=row["id"])
    api.database.sql("update reports set closed_at = now() - interval '1100 days' where id = %s", rows[0]["id"])
    assert api.database.call("expire_reports") == {"expired": 1}
    left = {row["id"] for row in api.database.sql("select id from reports")}
    assert [row["id"] in left for row in rows] == [False, True, True]


def test_how_long_one_has_waited_is_measured(database):
    assert database.call("report_figures") == {"open": 0, "oldest_seconds": 0}
    database.call("report_misuse", kind="speech", subject="a", details="b")
    database.sql("update reports set created_at = now() - interval '1 hour'")
    figures = database.call("report_figures")
    assert (figures["open"], figures["oldest_seconds"] >= 3600) == (1, True)
    assert json.dumps(figures)

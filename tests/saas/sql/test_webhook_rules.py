"""Which webhook deliveries come of what happens, who may make them and when, and when an endpoint is given up."""

from uuid import uuid4

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.saas.sql.test_life import RESULT, ask, ready_voice, refused

ALL = ["job.succeeded", "job.failed", "credits.low", "voice.ready"]


@pytest.fixture(name="database")
def _database(data):
    """The module's database, without a webhook."""
    data.sql("delete from webhook_endpoints; update settings set low_credits = 200")
    return data


def hook(database, who, *events, url="https://example.com/hook"):
    made = database.call("create_webhook", user_id=who, url=url, events=list(events or ALL), secret="whsec_1")
    return made["endpoint"]["id"]


def told(database, who):
    """The payloads of a user's deliveries, in order."""
    rows = database.sql("select payload from webhook_deliveries where user_id = %s order by created_at, payload ->> 'type' desc", who)
    return [(row["payload"]["type"], row["payload"]["data"]) for row in rows]


def claim(database, limit=100, lease_seconds=60):
    return database.call("claim_deliveries", limit=limit, lease_seconds=lease_seconds)


def end(database, order, status=500, **given):
    return database.call("end_delivery", delivery_id=order["id"], attempt=order["attempts"], status=status, **given)


def test_each_end_of_a_job_is_told_once_without_a_word_of_the_text(database):
    who, other = database.user(credits=1000), database.user(credits=1000)
    hook(database, who)
    hook(database, other)
    done, failed, cancelled = (ask(database, who, text="a secret text")["id"] for _ in range(3))
    for _ in range(2):
        database.call("settle_job", job_id=done, object_key="k", **RESULT)
    database.call("refund_job", job_id=failed, status="failed", error="a secret error")
    database.call("cancel_job", user_id=who, job_id=cancelled)
    (one, succeeded), (two, lost) = told(database, who)
    assert (one, two) == ("job.succeeded", "job.failed")
    assert succeeded | {"id": done, "status": "succeeded", "seconds": 1.5, "credits": 15, "partial": False} == succeeded
    assert lost | {"id": failed, "status": "failed", "seconds": None, "credits": 0} == lost
    assert "secret" not in str(database.sql("select * from webhook_deliveries where user_id = %s", who))
    assert told(database, other) == []


def test_a_voice_that_is_ready_is_told(data):
    who = data.user()
    hook(data, who, "voice.ready")
    voice = ready_voice(data, who, "My secret name")
    data.call("confirm_voice", user_id=who, voice_id=voice["id"], seconds=3, sha256="s")
    assert told(data, who) == [("voice.ready", {"id": voice["id"], "seconds": 3})]


def test_an_endpoint_is_told_what_it_asked_for(data):
    who = data.user(credits=1000)
    hook(data, who, "job.failed")
    data.call("settle_job", job_id=ask(data, who)["id"], object_key=str(uuid4()), **RESULT)
    assert told(data, who) == []


def test_what_is_rolled_back_is_not_told(data):
    who = data.user(credits=1000)
    hook(data, who)
    job = ask(data, who)["id"]
    with psycopg.connect(data.owner_url) as connection:
        connection.execute("select public.settle_job(%s, 1.5, 32, 1, 's', %s)", [job, str(uuid4())])
        connection.rollback()
    assert told(data, who) == []


def test_low_credits_count_what_is_reserved(data):
    who = data.user(credits=230)
    hook(data, who, "credits.low")
    first, second = ask(data, who, text="x" * 65)["id"], ask(data, who, text="x" * 65)["id"]  # 73 each
    data.call("settle_job", job_id=first, object_key=str(uuid4()), **RESULT)  # costs 15: 142 are left, and 73 may come back
    assert told(data, who) == []
    data.call("settle_job", job_id=second, object_key=str(uuid4()), **RESULT | {"seconds": 7.3})  # costs all of it
    assert told(data, who) == [("credits.low", {"credits": 142})]


@settings(max_examples=15, deadline=None, database=None)
@given(st.lists(st.integers(-150, 250).filter(bool), min_size=1, max_size=8))
def test_low_credits_are_told_once_each_time_that_they_fall(data, moves):
    who, have, low, expected = data.user(), 0, False, []
    hook(data, who, "credits.low")
    with psycopg.connect(data.owner_url) as connection:
        for number, move in enumerate(moves):
            move = max(move, -have)  # noqa: PLW2901 - no balance falls below 0
            if move == 0:
                continue
            kind = "grant" if move > 0 else "adjust"
            connection.execute("select public.grant_credits(%s, %s, %s, %s)", [who, move, str(number), kind])
            have += move
            if have >= 200:
                low = False
            elif move < 0 and not low:
                low = True
                expected.append(have)
    assert sorted(data["credits"] for _, data in told(data, who)) == sorted(expected)


def test_the_operator_sets_the_mark_or_none(database):
    who = database.user(credits=1000)
    hook(database, who, "credits.low")
    database.sql("update settings set low_credits = null")
    database.call("grant_credits", user_id=who, credits=-900, reference="a", kind="adjust")
    assert told(database, who) == []
    database.sql("update settings set low_credits = 100")
    database.call("grant_credits", user_id=who, credits=-1, reference="b", kind="adjust")
    assert told(database, who) == [("credits.low", {"credits": 99})]


def test_an_account_has_five(data):
    who = data.user()
    for _ in range(5):
        hook(data, who)
    assert refused(409, hook, data, who) == "you have 5 webhooks, the most an account may have; delete one first"


@pytest.mark.parametrize(
    "changed", [{"events": []}, {"events": ["job.started"]}, {"url": ""}, {"url": "x" * 2001}, {"secret": None}], ids=str
)
def test_what_is_no_webhook_is_refused(data, changed):
    asked = {"user_id": data.user(), "url": "https://example.com", "events": ["job.failed"], "secret": "whsec_1"} | changed
    refused(422, data.call, "create_webhook", **asked)


def test_another_s_webhook_is_not_there(data):
    mine, who = hook(data, data.user()), data.user()
    for function, given_ in (
        ("delete_webhook", {}), ("rotate_webhook_secret", {"secret": "s"}), ("list_deliveries", {}), ("create_test_delivery", {"lease_seconds": 1}),
    ):  # fmt: skip
        assert refused(404, data.call, function, user_id=who, endpoint_id=mine, **given_) == f"you have no webhook {mine}"


def waiting(database, who, number=1):
    """Deliveries that are due."""
    for _ in range(number):
        database.call("settle_job", job_id=ask(database, who)["id"], object_key=str(uuid4()), **RESULT)


def test_processes_share_what_is_due(database):
    users = [database.user(credits=1000) for _ in range(3)]
    for who in users:
        hook(database, who, "job.succeeded")
        waiting(database, who, 2)
    with psycopg.connect(database.url) as one, psycopg.connect(database.url) as two:  # the second does not wait for the first
        parts = [c.execute("select public.claim_deliveries(3, 60)").fetchone()[0] for c in (one, two)]
    parts.append(claim(database))
    ids = [order["id"] for part in parts for order in part]
    assert len(parts[0]) == 3
    assert len(ids) == len(set(ids)) == 6
    assert claim(database) == []


def test_one_user_s_silent_endpoints_hold_up_nobody(database):
    silent, other = database.user(credits=10_000), database.user(credits=1000)
    for _ in range(3):
        hook(database, silent, "job.succeeded")
    hook(database, other, "job.succeeded")
    waiting(database, silent, 4)
    waiting(database, other)
    assert [order["user_id"] for order in claim(database, limit=4)] == [str(silent)] * 4
    assert [order["user_id"] for order in claim(database, limit=1)] == [str(other)]
    assert claim(database) == []


def test_a_process_that_died_is_followed_by_another_with_the_same_id(database):
    who = database.user(credits=1000)
    hook(database, who, "job.succeeded")
    waiting(database, who)
    (lost,) = claim(database, lease_seconds=-1)
    (again,) = claim(database)
    assert (again["id"], again["payload"], again["attempts"]) == (lost["id"], lost["payload"], 2)
    assert end(database, lost)["delivery"]["outcome"] is None  # a late failure changes nothing
    assert claim(database) == []
    assert end(database, lost, 204)["delivery"]["outcome"] == "delivered"  # a late success does
    assert end(database, again)["delivery"]["outcome"] == "delivered"


def tried(database, endpoint, hours=None):
    """Tries a delivery until it is over, or for so many hours. Returns what the last attempt led to and the hours that passed."""
    passed, ended = 0.0, None
    while hours is None or passed < hours:
        orders = [order for order in claim(database) if order["endpoint_id"] == endpoint]
        if not orders:
            break
        ended = end(database, orders[0])
        if ended["delivery"]["outcome"]:
            break
        (row,) = database.sql(
            "select extract(epoch from next_at - now()) / 3600 as hours from webhook_deliveries where id = %s", orders[0]["id"]
        )
        passed += float(row["hours"])
        database.sql("update webhook_deliveries set next_at = next_at - make_interval(secs => %s)", 3600 * float(row["hours"]))
        database.sql("update webhook_deliveries set created_at = created_at - make_interval(secs => %s)", 3600 * float(row["hours"]))
    return ended, passed


def test_after_three_days_of_failures_the_endpoint_is_disabled_and_a_test_enables_it(database):
    who = database.user(credits=10_000)
    endpoint = hook(database, who, "job.succeeded")
    waiting(database, who)
    ended, hours = tried(database, endpoint)
    assert (ended["delivery"]["outcome"], ended["delivery"]["attempts"], ended["disabled"]) == ("failed", 11, True)
    assert 72 < hours < 96
    waiting(database, who)  # nothing is kept for it
    assert len(told(database, who)) == 1
    test = database.call("create_test_delivery", user_id=who, endpoint_id=endpoint, lease_seconds=60)
    assert end(database, test)["delivery"]["outcome"] == "failed"
    assert database.call("list_webhooks", user_id=who)[0]["disabled_at"]
    test = database.call("create_test_delivery", user_id=who, endpoint_id=endpoint, lease_seconds=60)
    assert end(database, test, 200)["delivery"]["outcome"] == "delivered"
    assert database.call("list_webhooks", user_id=who)[0]["disabled_at"] is None


def test_an_endpoint_that_took_another_delivery_meanwhile_is_kept(database):
    who = database.user(credits=10_000)
    endpoint = hook(database, who, "job.succeeded")
    waiting(database, who)
    tried(database, endpoint, hours=20)
    test = database.call("create_test_delivery", user_id=who, endpoint_id=endpoint, lease_seconds=60)
    end(database, test, 200)
    ended, _ = tried(database, endpoint)
    assert (ended["delivery"]["outcome"], ended["disabled"]) == ("failed", False)


def test_one_that_says_it_is_gone_is_disabled_at_once(database):
    who = database.user(credits=1000)
    hook(database, who, "job.succeeded")
    waiting(database, who, 2)
    first, second = claim(database)
    assert end(database, first, 410)["disabled"]
    assert end(database, second)["delivery"]["error"] == "the webhook was disabled"
    assert claim(database) == []


def test_for_a_day_the_secret_before_signs_too(database):
    who = database.user(credits=1000)
    endpoint = hook(database, who, "job.succeeded")
    database.call("rotate_webhook_secret", user_id=who, endpoint_id=endpoint, secret="whsec_2")
    waiting(database, who)
    assert claim(database, lease_seconds=-1)[0]["secrets"] == ["whsec_2", "whsec_1"]
    database.sql("update fishserve.webhook_secrets set previous_until = now()")
    assert claim(database)[0]["secrets"] == ["whsec_2"]


def test_the_log_is_kept_for_thirty_days(database):
    who = database.user(credits=1000)
    endpoint = hook(database, who, "job.succeeded")
    waiting(database, who, 2)
    (order, _) = claim(database)
    database.sql("update webhook_deliveries set created_at = now() - interval '31 days' where id = %s", order["id"])
    assert database.call("expire_deliveries") == {"expired": 1}
    assert database.call("expire_deliveries") == {"expired": 0}
    assert order["id"] not in [row["id"] for row in database.call("list_deliveries", user_id=who, endpoint_id=endpoint)]
    assert end(database, order, 200) == {"delivery": None, "disabled": False}


def test_a_closed_account_is_told_nothing_and_keeps_no_secret(database):
    who = database.user(credits=1000)
    hook(database, who)
    waiting(database, who)
    ask(database, who)
    database.call("close_account", user_id=who)
    for table in ("webhook_endpoints", "webhook_deliveries", "fishserve.webhook_secrets"):
        assert database.sql(f"select * from {table}") == []


def test_what_a_user_takes_along_has_no_secret(database):
    who = database.user()
    hook(database, who)
    assert {"webhook_endpoints", "webhook_deliveries"} <= set(database.call("export_tables"))
    (row,) = database.call("export_rows", user_id=who, table="webhook_endpoints")
    assert row["url"] == "https://example.com/hook"
    assert "whsec" not in str(row)

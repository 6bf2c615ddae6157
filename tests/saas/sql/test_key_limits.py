"""Keys that end, spend so much a month and are good from some networks; and what each has used."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from tests.saas.sql.test_life import RESULT, ask, refused


def key(database, who, **limits):
    made = {"user_id": who, "name": "k", "prefix": uuid4().hex[:12], "hash": "1" * 64, "scopes": ["speak"]} | limits
    return database.call("create_api_key", **made)["key"]


def known(database, made, address=None):
    return database.call("authenticate_api_key", prefix=made["prefix"], hash="1" * 64, address=address)


def test_a_key_is_good_until_it_ends(database):
    who = database.user(credits=100)
    made = key(database, who, expires_at=datetime.now(UTC) + timedelta(days=1))
    assert known(database, made)["key_id"] == made["id"]
    database.sql("update api_keys set expires_at = now()")
    assert refused(401, known, database, made) == "this API key has ended; make another one"
    assert "has ended" in refused(403, ask, database, who, api_key_id=made["id"])


@pytest.mark.parametrize(
    ("networks", "address", "good"),
    [
        (["203.0.113.0/24"], "203.0.113.9", True), (["203.0.113.0/24"], "203.0.114.9", False), (["203.0.113.9"], "203.0.113.9", True),
        (["203.0.113.9/24"], "203.0.113.77", True), (["10.0.0.0/8", "2001:db8::/32"], "2001:db8:1::5", True),
        (["10.0.0.0/8", "2001:db8::/32"], "2001:db9::5", False), (["10.0.0.0/8"], None, False), ([], "203.0.113.9", True), (None, None, True),
    ],
    ids=str,
)  # fmt: skip
def test_a_key_is_good_from_its_networks(data, networks, address, good):
    made = key(data, data.user(), networks=networks)
    if good:
        assert known(data, made, address)["key_id"] == made["id"]
    else:
        assert "is not good from" in refused(403, known, data, made, address)


def test_a_key_spends_no_more_than_its_month_allows(database):
    who = database.user(credits=1000)
    made, other = key(database, who, monthly_credits=40), key(database, who)
    job = ask(database, who, text="x" * 20, api_key_id=made["id"])  # reserves 30
    words = "this needs 30 credits; this key may spend 40 a month, and has 10 left"
    assert refused(402, ask, database, who, text="x" * 20, api_key_id=made["id"]) == words
    database.call("settle_job", job_id=job["id"], object_key="k", **RESULT)  # costs 15
    assert {one["id"]: one["spent"] for one in database.call("list_api_keys", user_id=who)} == {made["id"]: 15, other["id"]: 0}
    assert "has 25 left" in refused(402, ask, database, who, text="x" * 20, api_key_id=made["id"])
    ask(database, who, text="x" * 20, api_key_id=other["id"])
    ask(database, who, text="x" * 20)
    database.sql("update key_usage set day = day - 31")
    ask(database, who, text="x" * 20, api_key_id=made["id"])


def test_what_each_key_used_is_known_by_day(database):
    who = database.user(credits=1000)
    made = key(database, who)
    for given in ({"api_key_id": made["id"]}, {"api_key_id": made["id"]}, {}):
        database.call("settle_job", job_id=ask(database, who, **given)["id"], object_key=str(uuid4()), **RESULT)
    (day,) = database.call("usage", user_id=who, key_id=made["id"])
    assert day | {"jobs": 2, "characters": 12, "seconds": 3, "credits": 30} == day
    assert [day["jobs"] for day in database.call("usage", user_id=who)] == [3]
    assert database.call("usage", user_id=database.user(), key_id=made["id"]) == []
    database.call("close_account", user_id=who)
    assert database.sql("select * from key_usage") == []


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"expires_at": "2020-01-01T00:00:00Z"}, "that is over"), ({"monthly_credits": -1}, "cannot spend -1"),
        ({"networks": ["203.0.113.0/33"]}, "203.0.113.0/33 is no network"), ({"networks": ["office"]}, "office is no network"),
        ({"networks": ["10.0.0.0/8"] * 21}, "20 networks, not 21"),
    ],
    ids=str,
)  # fmt: skip
def test_a_key_with_limits_that_make_no_sense_is_not_made(data, limits, words):
    assert words in refused(422, key, data, data.user(), **limits)

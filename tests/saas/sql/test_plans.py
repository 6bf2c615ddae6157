"""What a plan allows, and that a user without one of its own has what everybody has."""

import re
from uuid import uuid4

import pytest

from saas import schema
from tests.saas.sql.test_life import RESULT, WAV, ask, refused
from tests.saas.sql.test_turns import claim, flood


def plan(database, *users, **limits):
    """A plan with these limits, for these users."""
    name = f"plan {uuid4().hex[:8]}"
    columns = ", ".join(["id", "name", *limits])
    database.sql(f"insert into plans ({columns}) values (%s, 'Studio'{', %s' * len(limits)})", name, *limits.values())
    for who in users:
        assert database.call("set_plan", user_id=who, plan=name) == {"plan": name}
    return name


def test_with_twice_the_weight_twice_as_much_is_spoken(database):
    one, other = database.user(credits=1_000_000), database.user(credits=1_000_000)
    plan(database, one, weight=2, max_running=1000)
    plan(database, other, max_running=1000)
    flood(database, one, 200, "x" * 200)
    flood(database, other, 200, "x" * 200)
    taken = [job["user_id"] for job in claim(database, 150)]
    assert 1.8 < taken.count(str(one)) / taken.count(str(other)) < 2.2


def test_each_has_as_many_jobs_running_as_the_plan_allows(database):
    small, large = database.user(credits=100_000), database.user(credits=100_000)
    plan(database, large, max_running=7)
    for who in (small, large):
        flood(database, who, 20)
    taken = [job["user_id"] for job in claim(database, 40)]
    assert (taken.count(str(small)), taken.count(str(large))) == (4, 7)


def test_where_nobody_else_has_a_limit_a_plan_may(database):
    database.sql("update settings set max_running = null, max_waiting = null")
    small, large = database.user(credits=100_000), database.user(credits=100_000)
    plan(database, small, max_running=2, max_waiting=20)
    for who in (small, large):
        flood(database, who, 20)
    assert "20 jobs waiting" in refused(429, ask, database, small)
    ask(database, large)
    taken = [job["user_id"] for job in claim(database, 100)]
    assert (taken.count(str(small)), taken.count(str(large))) == (2, 21)


def test_a_minute_has_as_many_texts_as_the_plan_says(database):
    who = database.user(credits=1000)
    plan(database, who, per_minute=2)
    key = str(uuid4())
    ask(database, who, idempotency_key=key)
    database.call("cancel_job", user_id=who, job_id=ask(database, who)["id"])
    assert "2 texts a minute" in refused(429, ask, database, who)
    ask(database, who, idempotency_key=key)  # the same again is no other text
    database.sql("update jobs set created_at = created_at - interval '1 minute'")
    ask(database, who)


def test_a_text_is_as_long_as_the_plan_says(database):
    who = database.user(credits=1000)
    plan(database, who, max_characters=10)
    assert refused(422, ask, database, who, text="x" * 11) == "the text has 11 characters; with the plan Studio it may have 10"
    ask(database, who, text="x" * 10)


def test_there_are_as_many_voices_as_the_plan_says(database):
    who = database.user()
    plan(database, who, max_voices=1)
    database.call("create_voice", user_id=who, name="one", **WAV)
    assert "1 voices" in refused(409, database.call, "create_voice", user_id=who, name="two", **WAV)
    plan(database, who, max_voices=2)
    database.call("create_voice", user_id=who, name="two", **WAV)


@pytest.mark.parametrize(("limits", "days"), [({}, 7), ({"result_days": 90}, 90)])
def test_results_are_kept_as_long_as_the_plan_says(database, limits, days):
    who = database.user(credits=100)
    plan(database, who, **limits)
    database.call("settle_job", job_id=ask(database, who)["id"], object_key="k", **RESULT)
    (row,) = database.sql("select round(extract(epoch from expires_at - now()) / 86400) as days from jobs")
    assert row["days"] == days


def test_a_plan_that_is_not_there_is_given_to_nobody(database):
    who = database.user()
    assert refused(404, database.call, "set_plan", user_id=who, plan="gold") == "there is no plan gold"
    assert database.call("get_profile", user_id=who)["plan"] == "free"


def test_what_has_a_price_is_for_sale_the_cheapest_first(database):
    plan(database, stripe_price="price_2", amount_cents=4000)
    cheap = plan(database, stripe_price="price_1", amount_cents=1000)
    plan(database, stripe_price="price_3", amount_cents=100, active=False)
    assert [row["amount_cents"] for row in database.call("list_plans")] == [1000, 4000]
    assert database.call("list_plans")[0]["id"] == cheap


def test_the_documented_statements_make_a_plan(database):
    who = database.user(email="anna@example.com")
    for block in re.findall(r"```sql\n(.*?)```", (schema.SQL.parent / "docs" / "saas.md").read_text(encoding="utf-8"), re.DOTALL):
        database.sql(block)
    assert database.call("get_plan", user_id=who)["plan"]["name"] == "Studio"
    assert database.call("list_plans")[0]["max_voices"] == 50
    assert database.call("get_profile", user_id=who)["balance"] == 10_000

"""Credits that end: the soonest are spent first, granted before bought, and what a job did not need goes back to where it came from."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest

from saas import schema
from tests.saas.sql.test_life import RESULT, ask, refused


def grant(database, who, credits, days=None, kind="grant"):
    ends = datetime.now(UTC) + timedelta(days=days) if days else None
    return database.call("grant_credits", user_id=who, credits=credits, reference=str(uuid4()), kind=kind, expires_at=ends)


def buy(database, who, credits, reference):
    database.call("apply_stripe_event", event_id=reference, type="t", user_id=who, credits=credits, reference=reference, kind="purchase")


def lots(database):
    """What remains: in days, or None for ever."""
    rows = database.sql(
        "select round(extract(epoch from expires_at - now()) / 86400)::int as days, remaining from credit_lots where remaining > 0"
        " order by expires_at nulls last, bought, id"
    )
    return [(row["days"], row["remaining"]) for row in rows]


def pass_days(database, days):
    database.sql("update credit_lots set expires_at = expires_at - make_interval(days => %s)", days)


def test_those_that_end_soonest_are_spent_first_and_granted_before_bought(database):
    who = database.user()
    buy(database, who, 100, "pi")
    grant(database, who, 10, days=30)
    grant(database, who, 20, days=5)
    grant(database, who, 40)
    grant(database, who, -25, kind="adjust")
    assert lots(database) == [(30, 5), (None, 40), (None, 100)]
    grant(database, who, -25, kind="adjust")
    assert lots(database) == [(None, 20), (None, 100)]


def test_what_a_job_did_not_need_goes_back_to_where_it_came_from(database):
    who = database.user()
    grant(database, who, 10, days=5)
    grant(database, who, 10, days=30)
    grant(database, who, 80)
    job = ask(database, who, text="x" * 65)  # reserves 73
    assert lots(database) == [(None, 27)]
    database.call("settle_job", job_id=job["id"], object_key="k", **RESULT)  # costs 15
    assert lots(database) == [(30, 5), (None, 80)]


def test_credits_whose_time_is_over_are_not_spent(database):
    who = database.user()
    grant(database, who, 20, days=1)
    grant(database, who, 5)
    pass_days(database, 1)
    assert "you have 5" in refused(402, ask, database, who)
    assert database.call("expire_credits") == {"users": 1}
    assert database.call("expire_credits") == {"users": 0}
    assert database.call("get_profile", user_id=who)["balance"] == 5
    assert [entry["kind"] for entry in database.call("ledger", user_id=who)] == ["expire", "grant", "grant"]


def test_what_comes_back_when_its_time_is_over_is_over(database):
    who = database.user()
    grant(database, who, 20, days=1)
    job = ask(database, who)
    pass_days(database, 1)
    database.call("cancel_job", user_id=who, job_id=job["id"])
    database.call("expire_credits")
    assert database.call("get_profile", user_id=who)["balance"] == 0
    assert database.call("audit_ledger") == []


def test_a_refund_takes_what_was_bought_not_what_was_granted(database):
    who = database.user()
    buy(database, who, 100, "pi")
    grant(database, who, 50, days=5)
    database.call("apply_stripe_event", event_id="2", type="t", reference="pi", kind="refund")
    assert lots(database) == [(5, 50)]


@pytest.mark.parametrize("given", [{"credits": 5, "days": -1}, {"credits": -5, "days": 5, "kind": "adjust"}])
def test_credits_that_would_be_over_at_once_or_are_taken_have_no_end(database, given):
    who = database.user(credits=100)
    assert "ends later than now" in refused(422, grant, database, who, **given)


def test_the_audit_names_lots_that_are_not_as_the_ledger_says(database):
    who = database.user(credits=10)
    database.sql("update credit_lots set remaining = 9")
    assert database.call("audit_ledger") == [
        {"user_id": str(who), "expected": 10, "lots": 9}, {"lot": 1, "expected": 9, "moves": 10},
    ]  # fmt: skip
    database.sql("update credit_lots set remaining = 10; delete from lot_moves")
    assert [wrong["expected"] for wrong in database.call("audit_ledger")] == [10]
    assert database.call("get_profile", user_id=who)["balance"] == 10


def test_what_users_had_before_there_were_lots_is_theirs_for_ever(postgres, monkeypatch):
    """With a job under way, whose rest comes back."""
    name = f"older_{uuid4().hex}"
    postgres.run(f"create database {name}")
    url = postgres.url(name)
    with monkeypatch.context() as then:
        files = [file for file in schema.migrations() if file.stem < "20261127"]
        then.setattr(schema, "migrations", lambda: files)
        schema.migrate(url)
    with psycopg.connect(url, autocommit=True) as connection:
        who, = connection.execute("insert into auth.users (id) values (gen_random_uuid()) returning id").fetchone()  # fmt: skip
        connection.execute("select public.grant_credits(%s, 100, 'test')", [who])
        job = connection.execute("select public.process_audio_request(%s, 'k', 'f', 'Hi.', 't')", [who]).fetchone()[0]["job"]
        connection.execute("update public.profiles set plan = 'custom'")
        schema.migrate(url)
        assert connection.execute("select public.audit_ledger()").fetchone() == ([],)
        connection.execute("select public.refund_job(%s, 'failed')", [job["id"]])
        assert connection.execute("select opening, remaining, expires_at from public.credit_lots").fetchall() == [(100, 100, None)]
        assert connection.execute("select public.audit_ledger()").fetchone() == ([],)
        assert connection.execute("select plan from public.profiles").fetchone() == ("custom",)
    postgres.run(f"drop database {name} with (force)")

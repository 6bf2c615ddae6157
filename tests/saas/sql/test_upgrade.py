"""A database of the first release, with data in it, is brought up to date: forward only, and every credit is still where it was."""

import psycopg
import pytest
from psycopg.rows import dict_row

from saas import database, schema
from tests.saas.conftest import called
from tests.saas.sql.conftest import fill, newer, older
from tests.saas.sql.test_backup import by

FIRST_RELEASE = "20261125001200_health"


def rows(url, query):
    with psycopg.connect(url, row_factory=dict_row) as connection:
        return connection.execute(query.encode()).fetchall()


BOOKS = {
    "balances": "select id, balance, debt, stripe_customer, closed_at from public.profiles order by id",
    "ledger": "select * from public.transactions order by id",
    "jobs": "select id, user_id, text, status, reserved, charged, seconds, object_key, voice_id from public.jobs order by id",
    "payments": "select reference, user_id, credits, taken from public.payments order by reference",
    "voices": "select * from public.cloned_voices order by id",
    "events": "select * from public.stripe_events order by id",
}


@pytest.mark.parametrize("last", [FIRST_RELEASE, "20261126000500_money"])
def test_a_filled_database_of_an_older_release_is_brought_up_to_date(bare, monkeypatch, last):
    older(monkeypatch, bare, last)
    call = by(bare)
    users = fill(call)
    if last != FIRST_RELEASE:  # what the first release knew of a payment that had not come yet is not carried over (20261126000500_money)
        call("apply_stripe_event", event_id="early", type="t", reference="pi_later", kind="refund")
    before = {name: rows(bare, query) for name, query in BOOKS.items()}
    assert len(before["ledger"]) > 30

    assert schema.migrate(bare) == newer(last)
    after = {name: rows(bare, query) for name, query in BOOKS.items()}
    for name in BOOKS:
        kept = [{column: row[column] for column in old} for row, old in zip(after[name], before[name], strict=True)]
        assert kept == before[name], name

    assert call("audit_ledger") == []
    assert call("health")["rls_ok"]
    unfinished = [(row["id"], row["user_id"]) for row in after["jobs"] if row["status"] in ("queued", "running")]
    assert len(unfinished) == 4
    for job, user in unfinished[:2]:
        call("start_job", job_id=job, backend="fishserve")
        key = f"results/users/{user}/jobs/{job}.mp3"
        settled = call("settle_job", job_id=job, seconds=0.5, frames=10, bytes=9, sha256="a" * 64, object_key=key)
        assert (settled["changed"], settled["job"]["charged"]) == (True, 10)
    for job, user in unfinished[2:]:
        assert call("cancel_job", user_id=user, job_id=job)["changed"]
    won = {"object": "dp_1"} if last == FIRST_RELEASE else {}  # the first release knew no ids of disputes
    call("apply_stripe_event", event_id="won", type="t", reference="pi_anna", kind="reinstate", **won)
    call("apply_stripe_event", event_id="late", type="t", reference="pi_later", kind="purchase", user_id=users["anna"], credits=500)
    assert call("audit_ledger") == []
    (anna,) = rows(bare, f"select balance, debt from public.profiles where id = '{users['anna']}'")
    charged = sum(row["charged"] for row in rows(bare, f"select charged from public.jobs where user_id = '{users['anna']}'"))
    late = 500 if last == FIRST_RELEASE else 0  # else it was refunded before it came
    assert (anna["balance"], anna["debt"]) == (1000 + 10_000 + late - charged, 0)


def test_there_is_no_way_back(bare):
    """A program that is older than the database neither migrates it nor serves with it."""
    schema.migrate(bare)
    with psycopg.connect(bare, autocommit=True) as connection:
        connection.execute("insert into fishserve.migrations (name, sha256) values ('20991231000000_later', repeat('a', 64))")
        with pytest.raises(schema.OtherRevision, match="20991231000000_later differs"):
            schema.migrate(bare)
        applied = called(connection, "applied_migrations", database.named({}))
    assert schema.problem(applied) == "its schema is newer than this program: it has the migration 20991231000000_later"

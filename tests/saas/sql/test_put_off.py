"""Background work of the database goes on past what fails, which is put off for longer each time, and counted."""

import psycopg
import pytest

BREAK = """
create function break() returns trigger language plpgsql as $$
begin
  if new.user_id = '{user}' then raise exception 'broken'; end if;
  return new;
end $$;
create trigger break before insert on transactions for each row execute function break();
"""


def wait_long(database, user, text="Hello there."):
    """A job that nobody has touched for three hours."""
    given = {"idempotency_key": text, "fingerprint": "f", "text": text, "token_hash": "t"}
    job = database.call("process_audio_request", user_id=user, **given)["job"]
    database.sql("update jobs set created_at = now() - interval '3 hours' where id = %s", job["id"])
    return job["id"]


def expire(database):
    return {job["id"] for job in database.call("expire_reservations", older_than_seconds=7200)}


def pauses(database):
    return [float(row["s"]) for row in database.sql("select extract(epoch from due_at - now()) as s from fishserve.put_off")]


def come_due(database):
    database.sql("update fishserve.put_off set due_at = now()")


def test_a_reservation_that_cannot_be_ended_holds_up_no_other(database):
    users = [database.user(credits=1000) for _ in range(3)]
    jobs = [wait_long(database, user) for user in users]
    database.sql(BREAK.format(user=users[1]))
    assert expire(database) == {jobs[0], jobs[2]}
    assert database.call("put_off_figures") == [{"kind": "reservation", "items": 1, "failures": 1}]
    assert expire(database) == set()
    for failures in (2, 3):
        before = pauses(database)[0]
        come_due(database)
        assert expire(database) == set()
        assert database.call("put_off_figures")[0]["failures"] == failures
        assert pauses(database)[0] > 1.5 * before
    assert database.sql("select error from fishserve.put_off") == [{"error": "P0001"}]
    database.sql("drop trigger break on transactions")
    come_due(database)
    assert expire(database) == {jobs[1]}
    assert expire(database) == set()
    assert database.call("put_off_figures") == []
    assert database.call("audit_ledger") == []


def test_one_that_another_transaction_keeps_locked_holds_up_no_other(database):
    users = [database.user(credits=1000) for _ in range(2)]
    jobs = [wait_long(database, user) for user in users]
    with psycopg.connect(database.owner_url) as stuck:
        stuck.execute("select from profiles where id = %s for update", (users[0],))
        assert expire(database) == {jobs[1]}
    come_due(database)
    assert expire(database) == {jobs[0]}


def test_credits_that_cannot_be_taken_hold_up_no_others(database):
    users = [database.user() for _ in range(3)]
    for user in users:
        database.sql("select grant_credits(%s, 500, 'May', 'grant', now() + interval '1 day')", user)
    database.sql("update credit_lots set expires_at = now() - interval '1 second'")
    database.sql(BREAK.format(user=users[0]))
    assert database.call("expire_credits") == {"users": 2}
    assert database.call("expire_credits") == {"users": 0}
    assert database.call("put_off_figures") == [{"kind": "credits", "items": 1, "failures": 1}]
    database.sql("drop trigger break on transactions")
    come_due(database)
    assert database.call("expire_credits") == {"users": 1}
    database.call("expire_credits")
    assert database.call("put_off_figures") == []
    assert database.call("audit_ledger") == []


@pytest.mark.parametrize(("kind", "table", "column"), [("object", "deleted_objects", "key"), ("customer", "deleted_customers", "customer")])
def test_what_is_put_off_is_not_on_the_list_until_it_is_due_and_forgotten_when_it_is_gone(database, kind, table, column):
    database.sql(f"insert into {table} ({column}) values ('a'), ('b')")
    assert database.call("put_off", kind=kind, item="a", error="StorageError") == {"failures": 1, "seconds": 30}
    assert database.call(f"{kind}s_to_delete") == ["b"]
    come_due(database)
    assert sorted(database.call(f"{kind}s_to_delete")) == ["a", "b"]
    for failures, seconds in ((2, 60), (3, 120)):
        assert database.call("put_off", kind=kind, item="a") == {"failures": failures, "seconds": seconds}
    database.sql("update fishserve.put_off set failures = 1000")
    assert database.call("put_off", kind=kind, item="a")["seconds"] == 6 * 3600
    database.call(f"{kind}_deleted", **{column: "a"})
    assert database.call("put_off_figures") == []

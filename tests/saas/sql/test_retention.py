"""Texts are kept as long as a setting says, and what is forgotten here is forgotten elsewhere."""

import pytest


def job(database, user, key, text="Hello there."):
    return database.call("process_audio_request", user_id=user, idempotency_key=key, fingerprint="f", text=text, token_hash="t")["job"]


@pytest.mark.parametrize(("days", "left"), [(30, ["new", "waits"]), (400, ["new", "old", "waits"]), (None, ["new", "old", "waits"])])
def test_the_texts_of_jobs_that_ended_long_ago_go(database, days, left):
    user = database.user(credits=1000)
    for text in ("old", "new", "waits"):
        made = job(database, user, text, text)
        if text != "waits":
            database.call("refund_job", job_id=made["id"], status="failed", error="'old' cannot be spoken")
    database.sql("update jobs set created_at = now() - interval '100 days'")
    database.sql("update jobs set finished_at = now() - interval '100 days' where text = 'old'")
    database.sql("update settings set text_days = %s", days)
    assert database.call("expire_texts") == {"expired": 3 - len(left)}
    assert database.call("expire_texts") == {"expired": 0}
    jobs = database.call("list_jobs", user_id=user)
    assert (len(jobs), sorted(row["text"] for row in jobs if row["text"])) == (3, left)
    assert [row["error"] for row in jobs if row["text"] is None] == [None] * (3 - len(left))
    assert database.call("audit_ledger") == []


def test_the_customer_of_a_closed_account_is_to_be_deleted_at_stripe(database):
    users = [database.user() for _ in range(3)]
    for n, user in enumerate(users[:2]):
        bought = {"user_id": user, "credits": 500, "customer": f"cus_{n}"}
        database.call("apply_stripe_event", event_id=f"{n}", type="t", reference=f"pi_{n}", kind="purchase", **bought)
    assert database.call("customers_to_delete") == []
    for user in users[1:]:
        database.call("close_account", user_id=user)
        database.call("close_account", user_id=user)
    assert database.call("customers_to_delete") == database.call("customers_to_delete") == ["cus_1"]
    assert database.call("operating_figures")["deletions"] == 1
    database.call("customer_deleted", customer="cus_1")
    assert database.call("customers_to_delete") == []


def test_a_user_deleted_at_supabase_is_forgotten_at_stripe_too(database):
    user = database.user()
    database.call("apply_stripe_event", event_id="1", type="t", reference="pi", kind="purchase", user_id=user, credits=5, customer="cus_1")
    database.sql("delete from auth.users where id = %s", user)
    assert database.call("customers_to_delete") == ["cus_1"]

"""What is written to the outbox of mail, and what leaves it."""

from uuid import uuid4

import psycopg
import pytest

from tests.saas.sql.test_webhook_rules import claim, end, hook, tried, waiting


@pytest.fixture(name="database")
def _database(data):
    """The module's database, with nothing to send."""
    data.sql("delete from webhook_endpoints; delete from mails")
    return data


def due(database, lease_seconds=60):
    return database.call("claim_mails", limit=100, lease_seconds=lease_seconds)


def written(database):
    """Kind, address and data of what is due."""
    return [(mail["kind"], mail["address"], mail["data"]) for mail in due(database, lease_seconds=-1)]


def buy(database, who, reference, **more):
    database.call(
        "apply_stripe_event", event_id=reference, type="t", user_id=who, credits=10_000, reference=reference, kind="purchase", cents=500,
        currency="usd", **more,
    )  # fmt: skip


def test_a_purchase_brings_one_receipt_however_often_it_is_told(database):
    who = database.user(email="ann@example.com")
    for event in ("pi_1", "again"):
        database.call(
            "apply_stripe_event", event_id=event, type="t", user_id=who, credits=10_000, reference="pi_1", kind="purchase", cents=500,
            currency="usd", receipt_url="https://stripe.example/r",
        )  # fmt: skip
    ((kind, address, data),) = written(database)
    assert (kind, address) == ("receipt", "ann@example.com")
    assert data | {"reference": "pi_1", "credits": 10_000, "cents": 500, "currency": "usd", "url": "https://stripe.example/r"} == data


def test_a_subscription_s_payment_brings_a_receipt_with_its_invoice(database):
    database.sql("insert into plans (id, name, stripe_price, amount_cents, credits) values ('studio', 'Studio', 'price_1', 2900, 60000)")
    who = database.user()
    database.call(
        "apply_invoice_event", event_id="e", type="t", invoice="in_1", payment="pi_in", user_id=who, subscription="sub_1", cents=2900,
        lines={"data": [{"price": "price_1", "amount": 2900, "ends_at": "2100-01-01"}]}, currency="usd", url="https://stripe.example/in",
    )  # fmt: skip
    ((kind, _, data),) = written(database)
    assert (kind, data["credits"], data["cents"], data["url"]) == ("receipt", 60_000, 2900, "https://stripe.example/in")


def test_a_dispute_is_told_to_the_operator_once(database):
    who = database.user()
    buy(database, who, "pi_2")
    database.sql("delete from mails")
    for event in ("charge.dispute.created", "charge.dispute.funds_withdrawn"):
        database.call("apply_stripe_event", event_id=event, type=event, reference="pi_2", kind="dispute", cents=100, object="dp_1")
    database.call("apply_stripe_event", event_id="r", type="t", reference="pi_2", kind="refund", cents=100, object="re_1")
    ((kind, address, data),) = written(database)
    assert (kind, address) == ("dispute", None)
    assert data | {"reference": "pi_2", "dispute": "dp_1", "cents": 100, "currency": "usd", "user_id": str(who)} == data


def test_a_new_key_and_low_credits_are_told(database):
    who = database.user(credits=300, email="ben@example.com")
    database.call("create_api_key", user_id=who, name="laptop", prefix="0123456789ab", hash="0" * 64, scopes=["speak"])
    database.call("grant_credits", user_id=who, credits=-150, reference="a", kind="adjust")
    database.call("grant_credits", user_id=who, credits=-50, reference="b", kind="adjust")
    assert written(database) == [
        ("key_created", "ben@example.com", {"name": "laptop", "prefix": "0123456789ab"}),
        ("credits_low", "ben@example.com", {"credits": 150}),
    ]


def test_a_webhook_that_is_disabled_is_told_once(database):
    who = database.user(credits=10_000)
    endpoint = hook(database, who, "job.succeeded")
    waiting(database, who)
    tried(database, endpoint)
    assert [(kind, data) for kind, _, data in written(database)] == [("webhook_disabled", {"url": "https://example.com/hook"})]
    test = database.call("create_test_delivery", user_id=who, endpoint_id=endpoint, lease_seconds=60)
    end(database, test, 410)
    assert claim(database) == []
    assert len(written(database)) == 1


def test_a_closed_account_gets_one_message_at_the_address_that_is_forgotten_with_it(database):
    who = database.user(email="gone@example.com")
    database.call("create_api_key", user_id=who, name="laptop", prefix="gone", hash="0" * 64, scopes=["speak"])
    database.call("close_account", user_id=who)
    database.call("close_account", user_id=who)
    (mail,) = due(database)
    assert (mail["kind"], mail["address"]) == ("account_closed", "gone@example.com")
    database.call("end_mail", mail_id=mail["id"], attempt=mail["attempts"])
    assert database.sql("select * from mails") == []


def test_what_is_rolled_back_is_not_told(database):
    with psycopg.connect(database.owner_url) as connection:
        connection.execute("select public.create_api_key(%s, 'k', 'rolled', %s, array['speak'])", [database.user(), "0" * 64])
        connection.rollback()
    assert written(database) == []


def test_who_has_no_address_gets_no_mail(database):
    who = database.user()
    database.sql("update profiles set email = null where id = %s", who)
    database.call("create_api_key", user_id=who, name="k", prefix="nobody", hash="0" * 64, scopes=["speak"])
    assert written(database) == []


def one(database):
    database.call("create_api_key", user_id=database.user(), name="k", prefix=uuid4().hex[:12], hash="0" * 64, scopes=["speak"])


def test_processes_share_the_outbox_and_a_lost_lease_sends_again(database):
    one(database)
    with psycopg.connect(database.url) as first, psycopg.connect(database.url) as second:
        (mine,), theirs = (c.execute("select public.claim_mails(10, -1)").fetchone()[0] for c in (first, second))
        assert theirs == []
    (again,) = due(database)
    assert (again["id"], again["attempts"]) == (mine["id"], 2)
    assert database.call("end_mail", mail_id=mine["id"], attempt=1, error="late", final=True) == {"left": True}
    assert database.call("end_mail", mail_id=mine["id"], attempt=2) == {"left": False}


def test_it_is_tried_for_three_days_and_no_longer(database):
    one(database)
    left, attempts = True, 0
    while left:
        database.sql("update mails set next_at = now()")
        (mail,) = due(database)
        attempts = mail["attempts"]
        left = database.call("end_mail", mail_id=mail["id"], attempt=attempts, error="the server answered 451")["left"]
        assert due(database) == []
    assert attempts == 11


def test_what_cannot_be_sent_and_what_nobody_sends_is_forgotten(database):
    one(database)
    (mail,) = due(database)
    assert database.call("end_mail", mail_id=mail["id"], attempt=1, error="no such mailbox", final=True) == {"left": False}
    database.sql("delete from api_keys")
    one(database)
    assert database.call("expire_mails") == {"expired": 0}
    database.sql("update mails set created_at = now() - interval '5 days'")
    assert database.call("expire_mails") == {"expired": 1}

"""Credits for money: a page to pay on, and webhooks that Stripe signed, applied once each and in any order."""

import hashlib
import hmac
import itertools
import json
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs

import pytest
import stripe
from prometheus_client import REGISTRY

from inference.errors import ConfigurationError
from saas import create_app
from saas.settings import Settings
from tests.saas.api_harness import NOWHERE, StandIn, running
from tests.waiting import HANG_SECONDS

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # Stripe's library speaks to httpx in an older way
SECRET = "whsec_for_the_tests"
count = itertools.count(1)


def stripes(asked):
    """As much of Stripe as is asked: a checkout's page, and the charge of a payment."""
    if asked.path.startswith("/v1/checkout/sessions"):
        return 200, {"id": "cs_1", "object": "checkout.session", "url": "https://checkout.stripe.com/c/pay/cs_1"}
    charge = {"id": "ch_1", "object": "charge", "receipt_url": "https://pay.stripe.com/receipts/1"}
    return 200, {"id": "pi_1", "object": "payment_intent", "latest_charge": charge}


@pytest.fixture(scope="module")
def service():
    with StandIn(stripes).running() as service:
        yield service


@pytest.fixture(scope="module")
def api(postgres, service):
    given = {
        "stripe_secret_key": "sk_test_x",
        "stripe_webhook_secret": SECRET,
        "stripe_base_url": service.url,
        "app_url": "https://app.example.com",
    }
    with running(postgres.migrated(), sensitive_per_minute=1000, **given) as api:
        yield api


@pytest.fixture
def user(api):
    return api.database.user()


def signed(body, secret=SECRET, at=None):
    at = int(at or time.time())
    return f"t={at},v1={hmac.new(secret.encode(), f'{at}.'.encode() + body, hashlib.sha256).hexdigest()}"


def event(kind, content, name=None):
    return {
        "id": name or f"evt_{next(count)}", "object": "event", "type": kind, "api_version": stripe.api_version, "created": 1,
        "data": {"object": content},
    }  # fmt: skip


def bought(user, payment, credits=10_000, **changed):
    metadata = {"fishserve_credits": str(credits), "user_id": str(user), "pack": "small"}
    return {
        "id": "cs_1", "object": "checkout.session", "client_reference_id": str(user), "payment_status": "paid", "payment_intent": payment,
        "customer": "cus_1", "metadata": metadata, "amount_total": 500, "currency": "usd",
    } | changed  # fmt: skip


def refund(payment, part=500, whole=500):
    return {"id": "ch_1", "object": "charge", "payment_intent": payment, "amount": whole, "amount_refunded": part}


def dispute(payment, status="needs_response", part=500, name=""):
    return {"id": f"dp_{name}{payment}", "object": "dispute", "payment_intent": payment, "status": status, "amount": part}


def returned(payment, part, status="succeeded", name=""):
    return {"id": f"re_{name}{payment}", "object": "refund", "payment_intent": payment, "status": status, "amount": part}


@pytest.fixture
def deliver(api):
    def deliver(event, **headers):
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        headers = headers or {"Stripe-Signature": signed(body)}
        with api.with_key("x") as client:
            return client.post("/api/webhook/stripe", content=body, headers=headers)

    return deliver


@pytest.fixture
def balance(api, user):
    def balance():
        with api.as_user(user) as client:
            answer = client.get("/api/credits").json()
        return answer["balance"], answer["debt"]

    return balance


@pytest.fixture
def payment():
    return f"pi_{next(count)}"


def outcome(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()["outcome"]


def test_how_long_an_event_was_on_its_way_is_measured_once(deliver, user, payment):
    lag = lambda: REGISTRY.get_sample_value("fishserve_saas_stripe_lag_seconds_sum")  # noqa: E731
    before = lag()
    late = event("checkout.session.completed", bought(user, payment)) | {"created": int(time.time()) - 90}
    assert [outcome(deliver(late)) for _ in range(2)] == ["applied", "repeated"]
    assert 90 <= lag() - before < 90 + 2 * HANG_SECONDS


# -- the page -------------------------------------------------------------------------------------------------------------------------


def test_whoever_wants_a_pack_is_sent_to_stripe_with_the_databases_price(api, user, service):
    with api.as_user(user) as client:
        assert client.post("/api/billing/checkout", json={"pack": "medium"}).json() == {"url": "https://checkout.stripe.com/c/pay/cs_1"}
    asked = service.asked[-1]
    sent = {name: values[0] for name, values in parse_qs(asked.body.decode()).items()}
    assert asked.headers["authorization"] == "Bearer sk_test_x"
    assert (sent["line_items[0][price_data][unit_amount]"], sent["line_items[0][price_data][currency]"]) == ("2000", "usd")
    assert sent["client_reference_id"] == sent["metadata[user_id]"] == sent["payment_intent_data[metadata][user_id]"] == str(user)
    assert sent["metadata[fishserve_credits]"] == "50000"
    assert sent["success_url"].startswith("https://app.example.com/")


def test_a_customer_of_before_is_the_same_at_stripe_and_one_deleted_there_is_made_anew(api, user, deliver, payment, service):
    deliver(event("checkout.session.completed", bought(user, payment, customer="cus_deleted")))
    gone = {"error": {"type": "invalid_request_error", "code": "resource_missing", "param": "customer", "message": "No such customer"}}
    service.answer = lambda asked: (400, gone) if b"customer=cus_deleted" in asked.body else stripes(asked)
    try:
        with api.as_user(user) as client:
            assert client.post("/api/billing/checkout", json={"pack": "small"}).status_code == 200
    finally:
        service.answer = stripes
    assert [b"cus_deleted" in asked.body for asked in service.asked[-2:]] == [True, False]


def test_what_is_for_sale_is_told_to_everybody(api):
    with api.with_key("x") as client:
        packs = client.get("/api/config").json()["packs"]
    assert [(p["id"], p["credits"], p["amount_cents"]) for p in packs] == [
        ("small", 10000, 500),
        ("medium", 50000, 2000),
        ("large", 250000, 8000),
    ]


@pytest.mark.parametrize(
    ("body", "status"), [({"pack": "free"}, 404), ({"pack": "small", "credits": 10**9}, 400), ({}, 400), ({"pack": None}, 400)], ids=str
)
def test_nobody_chooses_another_price_or_pack(api, user, body, status):
    with api.as_user(user) as client:
        assert client.post("/api/billing/checkout", json=body).status_code == status


def test_when_stripe_fails_nothing_is_charged_and_it_is_said(postgres):
    with (
        running(postgres.migrated(), stripe_secret_key="sk_test_x", stripe_webhook_secret=SECRET, stripe_base_url=NOWHERE) as api,
        api.as_user(api.database.user()) as client,
    ):
        answer = client.post("/api/billing/checkout", json={"pack": "small"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "payment_unavailable")


def test_without_stripe_nothing_is_for_sale_and_it_is_said(postgres):
    with running(postgres.migrated()) as api, api.as_user(api.database.user()) as client:
        assert client.get("/api/config").json()["packs"] == []
        assert client.post("/api/billing/checkout", json={"pack": "small"}).status_code == 404
        assert client.post("/api/webhook/stripe", content=b"{}").status_code == 404


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"stripe_secret_key": "sk_live_x"}, "nothing that is paid would be credited"),
        ({"stripe_secret_key": "sk_test_x", "stripe_webhook_secret": SECRET}, "is a test key"),
    ],
)
def test_production_does_not_start_with_half_of_it_or_with_play_money(given, words):
    with pytest.raises(ConfigurationError, match=words):
        create_app(Settings(environment="production", supabase_url="https://x.supabase.co", **given))


# -- the webhook: who may speak -------------------------------------------------------------------------------------------------------


def test_what_was_paid_is_credited_once_with_its_receipt(api, user, deliver, balance, payment):
    paid = event("checkout.session.completed", bought(user, payment))
    assert [outcome(deliver(paid)) for _ in range(3)] == ["applied", "repeated", "repeated"]
    assert balance() == (10_000, 0)
    with api.as_user(user) as client:
        (entry,) = client.get("/api/credits/ledger").json()
    assert (entry["kind"], entry["amount"], entry["receipt_url"]) == ("purchase", 10_000, "https://pay.stripe.com/receipts/1")


def test_the_same_event_at_once_from_all_sides_is_applied_once(user, deliver, balance, payment):
    paid = event("checkout.session.completed", bought(user, payment))
    with ThreadPoolExecutor(8) as many:
        assert sorted(many.map(lambda _: outcome(deliver(paid)), range(8))) == ["applied"] + ["repeated"] * 7
    assert balance() == (10_000, 0)


@pytest.mark.parametrize(
    "sign",
    [
        lambda body: signed(body, "whsec_another"), lambda body: signed(body + b" "), lambda body: signed(body, at=time.time() - 400),
        lambda _: "", lambda _: "t=x,v1=y", lambda _: "v1=", lambda _: "\xff",
    ],
)  # fmt: skip
def test_what_stripe_did_not_sign_is_400_and_moves_nothing(user, deliver, balance, payment, sign):
    body = json.dumps(event("checkout.session.completed", bought(user, payment))).encode()
    answer = deliver(body, **{"Stripe-Signature": sign(body).encode("latin-1")})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_signature")
    assert balance() == (0, 0)


def test_an_unsigned_request_is_400(deliver):
    assert deliver(b"{}", **{"Content-Type": "application/json"}).status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"1",
        b"{}",
        b'{"id": 1, "object": "event"}',
        b'{"object":"event","id":"e","type":"x","data":null}',
    ],
)
def test_a_signed_body_of_any_shape_is_never_a_5xx(deliver, body):
    assert deliver(body).status_code == 400


@pytest.mark.parametrize(
    "content",
    [
        {}, {"metadata": None}, {"metadata": {"fishserve_credits": "x"}, "payment_status": "paid"},
        {"metadata": {"fishserve_credits": "5", "user_id": "nobody"}, "payment_status": "paid"}, {"metadata": {"fishserve_credits": "5"}},
        {"metadata": []}, {"metadata": "fishserve_credits", "payment_status": "paid"},
    ],
    ids=json.dumps,
)  # fmt: skip
def test_a_signed_event_that_makes_no_sense_is_left_alone(deliver, content):
    assert outcome(deliver(event("checkout.session.completed", content))) == "ignored"


@pytest.mark.parametrize("kind", ["customer.created", "invoice.paid", "a.type.of.next.year", "charge.refunded", "charge.dispute.created"])
def test_events_that_are_none_of_ours_are_200(deliver, kind):
    assert outcome(deliver(event(kind, {"id": "x", "object": "customer"}))) == "ignored"


def test_another_product_in_the_same_account_of_stripe_gives_no_credits(user, deliver, balance, payment):
    assert outcome(deliver(event("checkout.session.completed", bought(user, payment, metadata={"pack": "a T-shirt"})))) == "ignored"
    assert balance() == (0, 0)


def test_a_purchase_of_a_user_that_is_not_there_is_for_a_person_to_look_at(deliver, payment):
    stranger = "00000000-0000-4000-8000-000000000000"
    assert outcome(deliver(event("checkout.session.completed", bought(stranger, payment)))) == "refused"


def test_a_session_that_names_two_users_credits_none(api, user, deliver, balance, payment):
    assert (
        outcome(deliver(event("checkout.session.completed", bought(user, payment, client_reference_id=str(api.database.user())))))
        == "ignored"
    )
    assert balance() == (0, 0)


def test_while_the_database_is_away_stripe_is_told_to_come_again(postgres, monkeypatch):
    monkeypatch.setattr("saas.database.CALL_SECONDS", 1)
    database = postgres.migrated()
    with running(database, stripe_secret_key="sk_test_x", stripe_webhook_secret=SECRET, stripe_base_url=NOWHERE) as api:
        postgres.run(f"alter database {database.name} with allow_connections false")
        postgres.run(f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{database.name}'")
        body = json.dumps(event("charge.refunded", refund("pi_x"))).encode()
        with api.with_key("x") as client:
            answer = client.post("/api/webhook/stripe", content=body, headers={"Stripe-Signature": signed(body)})
    assert answer.status_code == 503


# -- the webhook: what moves ----------------------------------------------------------------------------------------------------------


def test_a_payment_that_takes_days_is_credited_when_it_came(user, deliver, balance, payment):
    assert outcome(deliver(event("checkout.session.completed", bought(user, payment, payment_status="unpaid")))) == "ignored"
    assert balance() == (0, 0)
    assert outcome(deliver(event("checkout.session.async_payment_succeeded", bought(user, payment)))) == "applied"
    assert balance() == (10_000, 0)


def test_the_same_payment_told_by_two_events_is_credited_once(user, deliver, balance, payment):
    deliver(event("checkout.session.completed", bought(user, payment)))
    deliver(event("checkout.session.async_payment_succeeded", bought(user, payment)))
    assert balance() == (10_000, 0)


def test_refunds_take_back_their_share_and_no_more_than_all(user, deliver, balance, payment):
    deliver(event("checkout.session.completed", bought(user, payment)))
    deliver(event("charge.refunded", refund(payment, part=125)))
    assert balance() == (7_500, 0)
    deliver(event("charge.refunded", refund(payment, part=500)))
    assert balance() == (0, 0)
    deliver(event("charge.refunded", refund(payment, part=9999)))
    assert balance() == (0, 0)


def test_what_was_spent_before_a_refund_is_a_debt_that_the_next_purchase_pays(api, user, deliver, balance, payment):
    deliver(event("checkout.session.completed", bought(user, payment)))
    api.database.call("grant_credits", user_id=user, credits=-6_000, reference="spent", kind="adjust")
    deliver(event("charge.refunded", refund(payment)))
    assert balance() == (0, 6_000)
    deliver(event("checkout.session.completed", bought(user, f"{payment}_2")))
    assert balance() == (4_000, 0)


def test_a_dispute_takes_back_a_question_does_not_and_a_won_one_gives_again(user, deliver, balance, payment):
    deliver(event("checkout.session.completed", bought(user, payment)))
    assert outcome(deliver(event("charge.dispute.created", dispute(payment, "warning_needs_response")))) == "ignored"
    assert balance() == (10_000, 0)
    for kind in ("charge.dispute.funds_withdrawn", "charge.dispute.created"):
        deliver(event(kind, dispute(payment)))
        assert balance() == (0, 0)
    deliver(event("charge.dispute.funds_reinstated", dispute(payment, "won")))
    assert balance() == (10_000, 0)


def test_a_dispute_over_part_of_the_money_takes_that_part(user, deliver, balance, payment):
    deliver(event("checkout.session.completed", bought(user, payment)))
    deliver(event("charge.dispute.created", dispute(payment, part=100)))
    assert balance() == (8_000, 0)


def test_a_second_dispute_takes_again_what_the_first_gave_back(user, deliver, balance, payment):
    deliver(event("checkout.session.completed", bought(user, payment)))
    deliver(event("charge.dispute.created", dispute(payment)))
    deliver(event("charge.dispute.funds_reinstated", dispute(payment, "won")))
    assert balance() == (10_000, 0)
    deliver(event("charge.dispute.created", dispute(payment, name="second")))
    assert balance() == (0, 0)


@pytest.mark.parametrize("kind", ["refund.failed", "refund.updated", "charge.refund.updated"])
def test_a_refund_that_failed_gives_the_credits_again(user, deliver, balance, payment, kind):
    deliver(event("checkout.session.completed", bought(user, payment)))
    deliver(event("refund.created", returned(payment, 250, "pending")))
    deliver(event("charge.refunded", refund(payment, 250)))
    assert balance() == (5_000, 0)
    deliver(event(kind, returned(payment, 250, "failed")))
    assert balance() == (10_000, 0)
    deliver(event("refund.created", returned(payment, 250, "pending")))
    assert balance() == (10_000, 0)


def test_payments_keep_what_was_paid(api, user, deliver, payment):
    deliver(event("checkout.session.completed", bought(user, payment, amount_total=1_190, currency="eur")))
    (row,) = api.database.sql("select amount_cents, currency, pack from payments where reference = %s", payment)
    assert row == {"amount_cents": 1190, "currency": "eur", "pack": "small"}


def test_a_payment_for_a_closed_account_is_for_a_person_to_look_at(api, user, deliver, payment, caplog):
    api.database.call("close_account", user_id=user)
    assert outcome(deliver(event("checkout.session.completed", bought(user, payment)))) == "applied"
    assert "an account that is closed" in caplog.text
    assert payment in caplog.text


def test_a_refused_purchase_is_logged(deliver, payment, caplog):
    deliver(event("checkout.session.completed", bought("00000000-0000-4000-8000-000000000000", payment)))
    assert "was refused by the database" in caplog.text


def test_who_is_suspended_buys_nothing(api, user):
    api.database.sql("update auth.users set banned_until = now() + interval '1 hour' where id = %s", user)
    with api.as_user(user) as client:
        assert client.post("/api/billing/checkout", json={"pack": "small"}).status_code == 403


STORY = {
    "purchase": ("checkout.session.completed", bought), "half back": ("charge.refunded", lambda _, p: refund(p, 250)),
    "disputed": ("charge.dispute.created", lambda _, p: dispute(p)), "won": ("charge.dispute.funds_reinstated", lambda _, p: dispute(p, "won")),
}  # fmt: skip


@pytest.mark.parametrize("order", list(itertools.permutations(STORY)), ids=", ".join)
def test_the_order_in_which_events_come_does_not_matter(api, deliver, payment, order):
    user = api.database.user()
    for name in order:
        kind, content = STORY[name]
        told = event(kind, content(user, payment))
        assert outcome(deliver(told)) == "applied"
        assert outcome(deliver(told)) == "repeated"
    (profile,) = api.database.sql("select balance, debt from public.profiles where id = %s", user)
    assert (profile["balance"], profile["debt"]) == (5_000, 0)


def test_the_books_add_up_after_all_that(api):
    assert api.database.call("audit_ledger") == []

"""Plans for money: Stripe's pages to subscribe and to change it, and what its events make of a user's plan and credits."""

import time
from datetime import UTC, datetime
from urllib.parse import parse_qs
from uuid import uuid4

import pytest

from tests.saas.billing.test_payments import (  # noqa: F401 - fixtures: the API, Stripe, somebody, and deliveries
    api,
    balance,
    deliver,
    event,
    outcome,
    refund,
    service,
    stripes,
    user,
)

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # Stripe's library speaks to httpx in an older way
PLANS = {"small": ("price_small", 900, 10_000), "large": ("price_large", 4_000, 50_000)}
END = int(time.time()) + 30 * 86_400
CONFLICT = {"error": {"type": "invalid_request_error", "code": "resource_missing", "message": "No such subscription"}}


@pytest.fixture(autouse=True, scope="module")
def plans(api):  # noqa: F811 - a fixture
    for name, (price, cents, credits) in PLANS.items():
        api.database.sql(
            "insert into plans (id, name, stripe_price, amount_cents, credits, max_running) values (%s, %s, %s, %s, %s, 8)",
            name, name.title(), price, cents, credits,
        )  # fmt: skip


class Customer:
    """Somebody who subscribes, and what Stripe then tells, in its present form."""

    def __init__(self, user):  # noqa: F811
        self.user, self.number = user, uuid4().hex[:8]
        self.metadata = {"fishserve_plan": "small", "user_id": str(user)}

    def subscription(self, status="active", plan="small", **changed):
        item = {"price": {"id": PLANS[plan][0], "object": "price"}, "current_period_end": END}
        return {
            "id": f"sub_{self.number}", "object": "subscription", "status": status, "customer": f"cus_{self.number}",
            "metadata": self.metadata, "items": {"data": [item]}, "cancel_at_period_end": False, "cancel_at": None,
        } | changed  # fmt: skip

    def invoice(self, *lines, name="1", **changed):
        """Each line is a plan and cents."""
        lines = lines or [("small", 900)]
        content = [
            {"amount": cents, "period": {"end": END}, "pricing": {"price_details": {"price": PLANS[plan][0]}}} for plan, cents in lines
        ]
        details = {"metadata": self.metadata, "subscription": f"sub_{self.number}"}
        return {
            "id": f"in_{name}_{self.number}", "object": "invoice", "parent": {"type": "subscription_details", "subscription_details": details},
            "lines": {"data": content, "has_more": False}, "amount_paid": max(0, sum(cents for _, cents in lines)), "currency": "usd",
            "customer": f"cus_{self.number}", "hosted_invoice_url": "https://invoice.stripe.com/i/1",
        } | changed  # fmt: skip

    def payment(self, name="1"):
        paid_by = {"type": "payment_intent", "payment_intent": f"pi_{name}_{self.number}"}
        return {"id": "inpay_1", "object": "invoice_payment", "invoice": f"in_{name}_{self.number}", "payment": paid_by}


@pytest.fixture
def customer(user):  # noqa: F811
    return Customer(user)


@pytest.fixture
def billing(api, user):  # noqa: F811
    def billing():
        with api.as_user(user) as client:
            answer = client.get("/api/billing")
        assert answer.status_code == 200, answer.text
        return answer.json()

    return billing


def test_who_wants_a_plan_is_sent_to_stripe_with_its_price(api, user, service):  # noqa: F811
    with api.as_user(user) as client:
        assert client.post("/api/billing/checkout", json={"plan": "large"}).json() == {"url": "https://checkout.stripe.com/c/pay/cs_1"}
    sent = {name: values[0] for name, values in parse_qs(service.asked[-1].body.decode()).items()}
    assert (sent["mode"], sent["line_items[0][price]"], sent["client_reference_id"]) == ("subscription", "price_large", str(user))
    assert (sent["subscription_data[metadata][fishserve_plan]"], sent["subscription_data[metadata][user_id]"]) == ("large", str(user))
    assert not {name for name in sent if name.startswith(("customer_creation", "payment_intent_data", "metadata"))}


@pytest.mark.parametrize(
    ("body", "status"), [({"plan": "free"}, 404), ({"plan": "gold"}, 404), ({"plan": "small", "pack": "small"}, 400), ({}, 400)], ids=str
)
def test_only_a_plan_that_is_for_sale_is_sold(api, user, body, status):  # noqa: F811
    with api.as_user(user) as client:
        assert client.post("/api/billing/checkout", json=body).status_code == status


def test_everybody_is_told_what_plans_there_are(api):  # noqa: F811
    with api.with_key("x") as client:
        told = client.get("/api/config").json()["plans"]
    assert [(plan["id"], plan["credits"], plan["amount_cents"]) for plan in told] == [("small", 10_000, 900), ("large", 50_000, 4_000)]


def test_without_a_subscription_all_is_as_it_was(billing):
    told = billing()
    assert (told["plan"]["id"], told["plan"]["max_running"], told["plan"]["max_voices"], told["plan"]["result_days"]) == ("free", 4, 20, 7)
    assert (told["subscription"], told["expiring"], told["portal"]) == (None, [], False)


def test_who_subscribes_has_the_plan_and_its_credits_until_after_the_period(api, user, customer, deliver, balance, billing):  # noqa: F811
    begun = event("customer.subscription.created", customer.subscription("incomplete"))
    assert outcome(deliver(event("customer.subscription.updated", customer.subscription()))) == "applied"
    assert outcome(deliver(begun)) == "applied"  # later than what came after it
    paid = event("invoice.paid", customer.invoice())
    assert [outcome(deliver(paid)) for _ in range(2)] == ["applied", "repeated"]
    assert outcome(deliver(event("invoice.paid", customer.invoice()))) == "applied"  # another event of the same invoice brings nothing
    assert balance() == (10_000, 0)
    told = billing()
    assert (told["plan"]["id"], told["plan"]["max_running"], told["portal"]) == ("small", 8, True)
    assert (told["subscription"]["status"], told["subscription"]["ends_at"]) == ("active", None)
    assert datetime.fromisoformat(told["subscription"]["period_end"]) == datetime.fromtimestamp(END, UTC)
    (credits,) = told["expiring"]
    assert credits["credits"] == 10_000
    assert datetime.fromisoformat(credits["expires_at"]) == datetime.fromtimestamp(END + 3 * 86_400, UTC)
    with api.as_user(user) as client:
        (entry,) = client.get("/api/credits/ledger").json()
        assert client.post("/api/billing/checkout", json={"plan": "large"}).json()["error"]["code"] == "subscribed"
    assert (entry["kind"], entry["reference"], entry["receipt_url"]) == (
        "grant",
        customer.invoice()["id"],
        "https://invoice.stripe.com/i/1",
    )


def test_events_in_stripes_older_form_say_the_same(customer, deliver, balance, billing):  # noqa: F811
    items = {"data": [{"price": {"id": "price_small"}}]}
    old = customer.subscription(items=items, current_period_end=END, cancel_at_period_end=True)
    assert outcome(deliver(event("customer.subscription.updated", old))) == "applied"
    details = {"metadata": customer.metadata}
    lines = {"data": [{"amount": 900, "period": {"end": END}, "price": {"id": "price_small"}}]}
    invoice = customer.invoice(parent=None, subscription_details=details, subscription="sub_old", lines=lines, payment_intent="pi_old")
    assert outcome(deliver(event("invoice.paid", invoice))) == "applied"
    assert balance() == (10_000, 0)
    told = billing()["subscription"]
    assert told["ends_at"] == told["period_end"] is not None
    assert outcome(deliver(event("charge.refunded", refund("pi_old", 450)))) == "applied"
    assert balance() == (5_000, 0)


def test_a_larger_plan_brings_the_rest_of_its_credits_and_a_smaller_one_takes_them(customer, deliver, balance, billing):  # noqa: F811
    deliver(event("customer.subscription.updated", customer.subscription()))
    deliver(event("invoice.paid", customer.invoice()))
    deliver(event("customer.subscription.updated", customer.subscription(plan="large")))
    deliver(event("invoice.paid", customer.invoice(("small", -450), ("large", 2_000), name="2")))
    assert (billing()["plan"]["id"], balance()) == ("large", (30_000, 0))
    deliver(event("invoice.paid", customer.invoice(("large", -1_000), ("small", 225), ("small", 900), name="3")))
    assert balance() == (30_000 - 12_500 + 2_500 + 10_000, 0)
    deliver(event("invoice.paid", customer.invoice(("large", -4_000), name="4")))
    assert balance() == (0, 20_000)


def test_all_lines_of_a_long_invoice_count(service, customer, deliver, balance):  # noqa: F811
    whole = customer.invoice(("small", -450), ("large", 2_000))
    service.answer = lambda asked: (200, {"object": "list", "url": asked.path.split("?")[0], **whole["lines"]})
    try:
        cut = whole | {"lines": {"data": whole["lines"]["data"][:1], "has_more": True}}
        assert outcome(deliver(event("invoice.paid", cut))) == "applied"
    finally:
        service.answer = stripes
    assert service.asked[-1].path.startswith(f"/v1/invoices/{whole['id']}/lines")
    assert balance() == (20_000, 0)


@pytest.mark.parametrize("first", ["payment", "refund", "invoice"])
def test_money_of_an_invoice_that_goes_back_takes_its_credits(customer, deliver, balance, first):  # noqa: F811
    story = {
        "payment": event("invoice_payment.paid", customer.payment()), "refund": event("charge.refunded", refund(f"pi_1_{customer.number}", 90)),
        "invoice": event("invoice.paid", customer.invoice()),
    }  # fmt: skip
    for name in sorted(story, key=lambda name: name != first):
        assert outcome(deliver(story[name])) == "applied"
    assert balance() == (9_000, 0)


def test_a_subscription_that_is_over_stays_over_and_leaves_the_credits(customer, deliver, balance, billing):  # noqa: F811
    deliver(event("invoice.paid", customer.invoice()))
    deliver(event("customer.subscription.deleted", customer.subscription("canceled")))
    deliver(event("customer.subscription.updated", customer.subscription()) | {"created": 2**31})
    told = billing()
    assert (told["plan"]["id"], told["subscription"], balance()) == ("free", None, (10_000, 0))


@pytest.mark.parametrize(
    ("kind", "content", "end"),
    [
        ("invoice.paid", {"metadata": {}}, "ignored"), ("invoice.paid", {"lines": None}, "ignored"),
        ("customer.subscription.updated", {"metadata": None}, "ignored"), ("customer.subscription.updated", {"items": {"data": []}}, "ignored"),
        ("customer.subscription.updated", {"items": {"data": [{"price": {"id": "price_of_a_shirt"}}]}}, "refused"),
        ("invoice.paid", {"lines": {"data": [{"amount": 1, "period": {"end": END}, "price": {"id": "price_of_a_shirt"}}]}}, "refused"),
        ("invoice_payment.paid", {"payment": {"type": "payment_record"}}, "ignored"),
    ],
    ids=["no user", "no lines", "no metadata", "no items", "another price", "a line of another price", "no payment"],  # END differs from run to run
)  # fmt: skip
def test_what_is_not_ours_or_makes_no_sense_changes_nothing(customer, deliver, balance, billing, kind, content, end):  # noqa: F811
    made = {"invoice.paid": customer.invoice, "invoice_payment.paid": customer.payment}.get(kind, customer.subscription)() | content
    if content == {"metadata": {}}:
        made["parent"] = None
    assert outcome(deliver(event(kind, made))) == end
    assert (balance(), billing()["plan"]["id"]) == ((0, 0), "free")


def test_the_portal_is_stripes_page_for_its_customer(api, user, service, customer, deliver):  # noqa: F811
    with api.as_user(user) as client:
        assert client.post("/api/billing/portal").json()["error"]["code"] == "no_customer"
        deliver(event("customer.subscription.updated", customer.subscription()))
        service.answer = lambda _: (200, {"id": "bps_1", "object": "billing_portal.session", "url": "https://billing.stripe.com/p/1"})
        try:
            assert client.post("/api/billing/portal").json() == {"url": "https://billing.stripe.com/p/1"}
        finally:
            service.answer = stripes
    sent = parse_qs(service.asked[-1].body.decode())
    assert (sent["customer"], sent["return_url"]) == ([f"cus_{customer.number}"], ["https://app.example.com/credits"])


@pytest.mark.parametrize(
    ("answer", "status", "plan"),
    [((200, {"id": "sub", "object": "subscription"}), 204, None), ((404, CONFLICT), 204, None), ((401, {"error": {"message": "no"}}), 503, "small")],
    ids=["cancelled", "over already", "Stripe refuses"],
)  # fmt: skip
def test_who_closes_the_account_pays_no_more(api, user, service, customer, deliver, answer, status, plan):  # noqa: F811
    deliver(event("customer.subscription.updated", customer.subscription()))
    service.answer = lambda _: answer
    try:
        with api.as_user(user) as client:
            assert client.delete("/api/me").status_code == status
            asked = service.asked[-1]
            assert (asked.method, asked.path) == ("DELETE", f"/v1/subscriptions/sub_{customer.number}")
            assert client.get("/api/billing").json().get("plan", {}).get("id") == plan
    finally:
        service.answer = stripes


def test_a_subscription_of_a_closed_account_is_for_a_person_to_look_at(api, user, customer, deliver, caplog):  # noqa: F811
    api.database.call("close_account", user_id=user)
    assert outcome(deliver(event("invoice.paid", customer.invoice()))) == "applied"
    assert "an account that is closed has a subscription" in caplog.text
    assert customer.invoice()["id"] in caplog.text


def test_the_books_add_up_after_all_that(api):  # noqa: F811
    assert api.database.call("audit_ledger") == []

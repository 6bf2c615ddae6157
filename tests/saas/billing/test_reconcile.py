"""What Stripe did and no webhook told is booked when Stripe is asked, once, in whatever order Stripe lists it."""

import subprocess
import sys
import time
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.saas.api_harness import NOWHERE, StandIn
from tests.saas.billing.test_payments import bought, event, refund, returned, stripes
from tests.saas.jobs.conftest import environment
from tests.waiting import HANG_SECONDS


@pytest.fixture
def stripe():
    """Its list of events, two a page, the newest first."""
    events = []

    def answer(asked):
        if not asked.path.startswith("/v1/events"):
            return stripes(asked)
        query = parse_qs(urlsplit(asked.path).query)
        after = query.get("starting_after", [None])[0]
        left = events[[e["id"] for e in events].index(after) + 1 :] if after else events
        return 200, {"object": "list", "url": "/v1/events", "has_more": len(left) > 2, "data": left[:2]}

    with StandIn(answer).running() as service:
        service.events = events
        yield service


def reconcile(database, stripe, *arguments):
    told = environment(
        database, stripe_bucket(), STRIPE_SECRET_KEY="sk_test_x", STRIPE_WEBHOOK_SECRET="whsec_x", STRIPE_BASE_URL=stripe.url
    )
    command = [sys.executable, "-m", "inference.cli", "saas", "reconcile", *arguments]
    done = subprocess.run(command, env=told, capture_output=True, text=True, timeout=HANG_SECONDS, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, " ".join(done.stderr.split())


def stripe_bucket():
    class Nowhere:
        environment = {"R2_ENDPOINT": NOWHERE, "R2_ACCESS_KEY_ID": "a", "R2_SECRET_ACCESS_KEY": "b", "R2_BUCKET_NAME": "c"}  # noqa: RUF012

    return Nowhere


def test_missed_events_are_booked_once(database, stripe):
    who = database.user()
    paid, back = event("checkout.session.completed", bought(who, "pi_r")), event("charge.refunded", refund("pi_r", 250))
    stripe.events[:] = [back, event("refund.created", returned("pi_r", 250)), event("customer.created", {"id": "x"}), paid]
    code, said = reconcile(database, stripe)
    assert (code, said) == (
        0, "4 events of 3 days: 3 booked now, 0 were booked, 1 move nothing, 0 were refused by the database, 0 failed",
    )  # fmt: skip
    assert database.call("get_profile", user_id=who)["balance"] == 5_000
    assert "3 were booked" in reconcile(database, stripe, "--days", "30")[1]
    since = int(parse_qs(urlsplit(stripe.asked[-1].path).query).get("created[gte]", ["0"])[0])
    assert since == 0 or abs(time.time() - 30 * 86_400 - since) < HANG_SECONDS
    assert database.call("audit_ledger") == []


def test_what_a_person_must_look_at_is_an_exit_code(database, stripe):
    stripe.events[:] = [event("checkout.session.completed", bought("00000000-0000-4000-8000-000000000000", "pi_s"))]
    code, said = reconcile(database, stripe)
    assert (code, "1 were refused" in said) == (1, True)


def test_an_invoice_that_stripe_does_not_tell_holds_up_no_other_event(database, stripe):
    """Its lines are asked for, since an event has only the first ten."""
    who = database.user()
    details = {"metadata": {"fishserve_plan": "small", "user_id": str(who)}, "subscription": "sub_1"}
    invoice = {
        "id": "in_1", "object": "invoice", "parent": {"type": "subscription_details", "subscription_details": details},
        "lines": {"data": [], "has_more": True}, "amount_paid": 500, "currency": "usd", "customer": "cus_1",
    }  # fmt: skip
    stripe.events[:] = [event("invoice.paid", invoice), event("checkout.session.completed", bought(who, "pi_t"))]
    code, said = reconcile(database, stripe)
    assert (code, "1 booked now" in said, "1 failed" in said) == (1, True, True), said
    assert database.call("get_profile", user_id=who)["balance"] == 10_000


def test_a_stripe_that_does_not_answer_is_one_sentence(database, stripe):
    url, stripe.url = stripe.url, NOWHERE
    code, said = reconcile(database, stripe)
    stripe.url = url
    assert code == 2
    assert "error: Stripe does not list its events" in said

"""A refund at the desk: money at Stripe and credits here, once, whatever breaks between the two."""

from uuid import uuid4

import pytest

from tests.saas.admin.conftest import acts, paid
from tests.saas.admin.stripe_account import StripeAccount

ACT = ("--reason", "asked for it", "--actor", "kim", "--yes")
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # Stripe's library speaks to httpx in an older way


@pytest.fixture(scope="module")
def account():
    with StripeAccount().running() as account:
        yield account


@pytest.fixture
def stripe(account, told):
    account.fails, account.lost = None, False
    told("STRIPE_SECRET_KEY", "sk_test_x")
    told("STRIPE_BASE_URL", account.url)
    return account


@pytest.fixture
def user(data):
    return data.user()


@pytest.fixture
def payment(data, user, stripe):
    payment = f"pi_{uuid4().hex}"
    paid(data, user, payment)
    stripe.paid(payment, user)
    return payment


def profile(data, user):
    (row,) = data.sql("select balance, debt from profiles where id = %s", user)
    return row["balance"], row["debt"]


def made(stripe, payment):
    return [refund["amount"] for refund in stripe.refunds if refund["payment_intent"] == payment]


def did(data, payment):
    return [act["action"] for act in acts(data, payment)]


def test_money_and_credits_go_together_part_by_part(data, user, stripe, payment, desk):
    assert "2.00 USD of" in desk("refund", payment, "--cents", 200, *ACT).words
    assert (made(stripe, payment), profile(data, user)) == ([200], (6_000, 0))
    done = desk("refund", payment, *ACT, "--json").json
    assert (done["cents"], done["credits"], done["balance"]) == (300, 10_000, 0)
    assert (made(stripe, payment), profile(data, user)) == ([200, 300], (0, 0))
    assert did(data, payment) == ["refund", "refund booked"] * 2
    assert "all of the payment" in desk("refund", payment, *ACT).words
    assert data.call("audit_ledger") == data.call("audit_payments") == []


def test_credits_that_were_spent_are_owed(data, user, payment, desk):
    data.call("admin_take", actor="kim", reason="spent", user_id=user, credits=9_000, reference=payment)
    assert "9,000 of them owed" in desk("refund", payment, *ACT).words
    assert profile(data, user) == (0, 9_000)


def test_the_webhook_of_the_same_refund_takes_nothing_twice(data, user, stripe, payment, desk):
    desk("refund", payment, "--cents", 100, *ACT)
    (refund,) = [refund["id"] for refund in stripe.refunds if refund["payment_intent"] == payment]
    for kind, given in (("refund.created", {"object": refund}), ("charge.refunded", {})):
        data.call("apply_stripe_event", event_id=f"{kind} {payment}", type=kind, reference=payment, kind="refund", cents=100, **given)
    assert profile(data, user) == (8_000, 0)


def test_a_refund_whose_answer_was_lost_is_taken_up_and_made_once(data, user, stripe, payment, desk):
    stripe.lost = True
    said = desk("refund", payment, "--cents", 500, *ACT)
    assert (said.code, "ask for the same refund again" in said.words) == (2, True)
    assert (profile(data, user), did(data, payment)) == ((10_000, 0), ["refund"])
    stripe.lost = False
    stripe.keys.clear()  # days later, Stripe has forgotten the key
    assert "of 500 was begun" in desk("refund", payment, "--cents", 100, *ACT).words
    assert desk("refund", payment, *ACT).code == 0
    assert (made(stripe, payment), profile(data, user), did(data, payment)) == ([500], (0, 0), ["refund", "refund booked"])


def test_what_stripe_refuses_is_recorded_and_moves_nothing(data, user, stripe, payment, desk):
    stripe.fails = (400, {"error": {"type": "invalid_request_error", "message": "Charge has been disputed."}})
    said = desk("refund", payment, *ACT)
    assert (said.code, said.words) == (2, "Stripe refused the refund: Charge has been disputed.")
    assert (profile(data, user), did(data, payment)) == ((10_000, 0), ["refund", "refund refused"])
    stripe.fails = None
    assert desk("refund", payment, *ACT).code == 0


def test_what_cannot_be_refunded_is_a_sentence(data, payment, stripe, desk, monkeypatch):
    assert "501 cannot be refunded: 500 of the payment are left" in desk("refund", payment, "--cents", 501, *ACT).words
    assert "5.00 USD" in desk("refund", payment, "--reason", "x").words
    monkeypatch.delenv("STRIPE_SECRET_KEY")
    assert "STRIPE_SECRET_KEY is not set" in desk("refund", payment, *ACT).words
    assert (made(stripe, payment), did(data, payment)) == ([], [])

"""Stripe's story of a subscription, told in any order and more than once: in the end the plan is the last one, and the credits what was paid for."""

import math
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from uuid import uuid4

import psycopg
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from saas.database import named
from tests.saas.conftest import called

PLANS = {"price_small": ("small", 900, 10_000), "price_large": ("large", 4_000, 50_000)}
"""By price: the plan, its cents and its credits."""
OVER = ("canceled", "incomplete_expired")
LATER = datetime.now(UTC) + timedelta(days=30)


class Subscribing(RuleBasedStateMachine):
    """What happens at Stripe writes events; the events reach the database whenever they like."""

    connection: psycopg.Connection

    @initialize(price=st.sampled_from(list(PLANS)))
    def somebody_subscribes(self, price):
        self.user, self.subscription = str(uuid4()), f"sub_{uuid4()}"
        self.connection.execute("insert into auth.users (id) values (%s)", [self.user])
        for name, (plan, cents, credits) in PLANS.items():
            self.connection.execute(
                "insert into plans (id, name, stripe_price, amount_cents, credits) values (%s, %s, %s, %s, %s) on conflict do nothing",
                [plan, plan, name, cents, credits],
            )
        self.now, self.price, self.status = datetime.now(UTC), price, "incomplete"
        self.waiting, self.delivered, self.invoices = [], [], []
        self.credits = self.changes = 0
        self.tell("created")
        self.status = "active"
        self.tell("updated")  # in the same second
        self.charge([(price, PLANS[price][1])])

    def write(self, function, type, **told):
        self.waiting.append((function, {"event_id": f"evt_{uuid4()}", "type": type} | told))

    def tell(self, what):
        self.write(
            "apply_subscription_event", f"customer.subscription.{what}", subscription=self.subscription, user_id=self.user, price=self.price,
            status=self.status, told_at=self.now, period_end=LATER, customer="cus_1",
        )  # fmt: skip

    def charge(self, lines):
        invoice, payment, paid = f"in_{uuid4()}", f"pi_{uuid4()}", max(0, sum(cents for _, cents in lines))
        credits = math.floor(sum(Fraction(PLANS[price][2] * cents, PLANS[price][1]) for price, cents in lines))
        self.credits += credits
        told = {"lines": {"data": [{"price": price, "amount": cents, "ends_at": LATER.isoformat()} for price, cents in lines]}}
        self.write("apply_invoice_event", "invoice.paid", invoice=invoice, user_id=self.user, cents=paid, currency="usd", **told)
        if paid:
            self.write("apply_invoice_event", "invoice_payment.paid", invoice=invoice, payment=payment)
        if credits > 0 and paid:
            self.invoices.append((payment, credits, paid))

    @property
    def alive(self):
        return self.status not in OVER

    @precondition(lambda self: self.alive)
    @rule()
    def it_is_renewed(self):
        self.charge([(self.price, PLANS[self.price][1])])

    @precondition(lambda self: self.alive and self.changes < 6)
    @rule(left=st.floats(0, 1))
    def its_user_changes_the_plan(self, left):
        """Stripe gives the rest of the old period back, and charges the rest of the new one."""
        self.now, self.changes = self.now + timedelta(seconds=1), self.changes + 1
        other = next(price for price in PLANS if price != self.price)
        self.charge([(self.price, -int(left * PLANS[self.price][1])), (other, int(left * PLANS[other][1]))])
        self.price = other
        self.tell("updated")

    @precondition(lambda self: self.alive)
    @rule(status=st.sampled_from(["active", "past_due", "unpaid", "paused"]))
    def its_status_changes(self, status):
        self.now, self.status = self.now + timedelta(seconds=1), status
        self.tell("updated")

    @precondition(lambda self: self.alive)
    @rule()
    def it_ends(self):
        self.tell("updated")
        self.status = "canceled"
        self.tell("deleted")  # in the same second

    @precondition(lambda self: self.invoices)
    @rule(data=st.data())
    def an_invoice_is_refunded(self, data):
        payment, credits, cents = self.invoices.pop(data.draw(st.integers(0, len(self.invoices) - 1)))
        part = data.draw(st.integers(1, cents))
        self.credits -= math.ceil(Fraction(credits * part, cents))
        self.write("apply_stripe_event", "refund.created", kind="refund", reference=payment, object=f"re_{payment}", cents=part)

    def deliver(self, event):
        function, told = event
        assert called(self.connection, function, named(told))["applied"] == (event not in self.delivered)
        self.delivered.append(event)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def an_event_arrives(self, data):
        self.deliver(self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1))))

    @precondition(lambda self: self.delivered)
    @rule(data=st.data())
    def an_event_arrives_again(self, data):
        self.deliver(data.draw(st.sampled_from(self.delivered)))

    def teardown(self):
        while self.waiting:
            self.deliver(self.waiting.pop(len(self.waiting) // 2))
        has, plan = self.connection.execute("select balance - debt, plan from profiles where id = %s", [self.user]).fetchone()
        assert has == self.credits
        assert plan == (PLANS[self.price][0] if self.status in ("active", "past_due") else "free")
        subscriptions = called(self.connection, "get_plan", named({"user_id": self.user}))["subscriptions"]
        assert [row["status"] for row in subscriptions] == ([self.status] if self.alive else [])
        assert called(self.connection, "audit_ledger", {}) == []


@pytest.mark.parametrize("examples", [40, pytest.param(2000, marks=pytest.mark.drill)])
def test_plan_and_credits_are_what_was_paid_for_whatever_order_stripe_tells_it_in(database, examples):
    with psycopg.connect(database.owner_url, autocommit=True) as connection:
        machine = type("SubscribingHere", (Subscribing,), {"connection": connection})
        run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=25))

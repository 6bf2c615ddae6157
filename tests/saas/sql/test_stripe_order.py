"""Stripe's story of a payment, told in any order and more than once: in the end the credits are those that the money left."""

import math
from fractions import Fraction
from uuid import uuid4

import psycopg
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from saas.database import named
from tests.saas.conftest import called

PAID, CREDITS = 500, 10_001


class Stripe(RuleBasedStateMachine):
    """What happens at Stripe adds up money and writes events; the events reach the database whenever they like."""

    connection: psycopg.Connection

    @initialize()
    def somebody_pays(self):
        self.user, self.payment = str(uuid4()), f"pi_{uuid4()}"
        self.connection.execute("insert into auth.users (id) values (%s)", [self.user])
        self.refunds, self.disputes = {}, {}  # cents that are away
        self.waiting, self.delivered = [], []
        self.write("checkout.session.completed", "purchase", user_id=self.user, credits=CREDITS, cents=PAID, currency="usd")

    def write(self, type, kind, **told):
        self.waiting.append({"event_id": f"evt_{uuid4()}", "type": type, "kind": kind, "reference": self.payment} | told)

    @property
    def away(self) -> int:
        return sum(self.refunds.values()) + sum(self.disputes.values())

    @precondition(lambda self: self.away < PAID)
    @rule(part=st.floats(0.01, 1))
    def seller_refunds(self, part):
        cents, name = max(1, int(part * (PAID - self.away))), f"re_{uuid4()}"
        self.refunds[name] = cents
        self.write("refund.created", "refund", object=name, cents=cents)
        self.write("charge.refunded", "refund", cents=sum(self.refunds.values()))

    @precondition(lambda self: any(self.refunds.values()))
    @rule(data=st.data())
    def bank_sends_a_refund_back(self, data):
        name = data.draw(st.sampled_from([name for name, cents in self.refunds.items() if cents]))
        self.write("refund.failed", "refund_failed", object=name, cents=self.refunds[name])
        self.refunds[name] = 0

    @precondition(lambda self: self.away < PAID)
    @rule(part=st.floats(0.01, 1))
    def bank_disputes(self, part):
        cents, name = max(1, int(part * (PAID - self.away))), f"dp_{uuid4()}"
        self.disputes[name] = cents
        for type in ("charge.dispute.created", "charge.dispute.funds_withdrawn"):
            self.write(type, "dispute", object=name, cents=cents)

    @precondition(lambda self: any(self.disputes.values()))
    @rule(data=st.data())
    def seller_wins(self, data):
        name = data.draw(st.sampled_from([name for name, cents in self.disputes.items() if cents]))
        self.write("charge.dispute.funds_reinstated", "reinstate", object=name, cents=self.disputes[name])
        self.disputes[name] = 0

    def deliver(self, event):
        first = event not in self.delivered
        assert called(self.connection, "apply_stripe_event", named(event))["applied"] == first
        if first:
            self.delivered.append(event)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def an_event_arrives(self, data):
        self.deliver(self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1))))

    @precondition(lambda self: self.delivered)
    @rule(data=st.data())
    def an_event_arrives_again(self, data):
        self.deliver(data.draw(st.sampled_from(self.delivered)))

    @invariant()
    def no_more_is_given_than_was_bought(self):
        assert 0 <= self.balance() <= CREDITS

    def balance(self) -> int:
        return self.connection.execute("select balance - debt from profiles where id = %s", [self.user]).fetchone()[0]

    def teardown(self):
        while self.waiting:
            self.deliver(self.waiting.pop(len(self.waiting) // 2))
        assert self.balance() == CREDITS - math.ceil(Fraction(CREDITS * self.away, PAID))
        assert called(self.connection, "audit_ledger", {}) == []


def test_the_credits_are_what_the_money_left_whatever_order_stripe_tells_it_in(database):
    with psycopg.connect(database.owner_url, autocommit=True) as connection:
        machine = type("StripeHere", (Stripe,), {"connection": connection})
        run_state_machine_as_test(machine, settings=settings(max_examples=60, stateful_step_count=30))

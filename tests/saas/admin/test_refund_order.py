"""Refunds of the desk, webhooks and disputes in random order, with commands that die anywhere, against a model that adds up money."""

import random

import pytest

from saas.database import Refused
from tests.saas.admin.conftest import paid

AMOUNT, CREDITS = 500, 10_000


class Model:
    """One payment at Stripe, and what its commands and webhooks have still to say here."""

    def __init__(self, data, name, rng):
        self.data, self.name, self.rng, self.user = data, f"pi_{name}", rng, data.user()
        self.made, self.undone, self.disputes, self.told = {}, set(), {}, 0
        self.pending = []
        paid(data, self.user, self.name, credits=CREDITS, cents=AMOUNT)

    @property
    def returned(self):
        refunds = sum(cents for refund, (cents, _) in self.made.items() if refund not in self.undone)
        return refunds + sum(cents for cents, won in self.disputes.values() if not won)

    def desk(self):
        """The command: begins, asks Stripe, books; it may die after each step."""
        given = {"actor": "kim", "reason": "x", "reference": self.name}
        cents = self.rng.choice([None, self.rng.randint(1, AMOUNT)])
        try:
            begun = self.data.call("admin_begin_refund", **given, **({"cents": cents} if cents else {}))
        except Refused:
            return
        if self.rng.random() < 0.2:
            return
        action = begun["action"]
        known = next((refund for refund, (_, of) in self.made.items() if of == action), None)
        if (known is None and begun["cents"] > AMOUNT - self.returned) or (self.rng.random() < 0.1 and known is None):
            self.data.call("admin_fail_refund", actor="kim", action=action, error="refused")
            return
        if known is None:
            known = f"re_{self.name}_{len(self.made)}"
            self.made[known] = (begun["cents"], action)
            self.pending.append(("refund", known))
        if self.rng.random() < 0.3:
            return
        self.data.call("admin_end_refund", actor="kim", action=action, refund=known, cents=self.made[known][0])

    def fails(self):
        """A refund that Stripe made fails on its way to the bank."""
        good = [refund for refund in self.made if refund not in self.undone]
        if good and self.rng.random() < 0.3:
            self.undone.add(good[0])
            self.pending.append(("refund_failed", good[0]))

    def dispute(self):
        left = AMOUNT - self.returned
        if left and len(self.disputes) < 2 and self.rng.random() < 0.3:
            name = f"dp_{self.name}_{len(self.disputes)}"
            self.disputes[name] = (self.rng.randint(1, left), False)
            self.pending.append(("dispute", name))

    def webhook(self):
        """One that waits comes, in any order, perhaps twice."""
        if self.pending:
            kind, name = self.pending.pop(self.rng.randrange(len(self.pending)))
            cents = self.made[name][0] if name in self.made else self.disputes[name][0]
            for _ in range(self.rng.choice([1, 2])):
                self.told += 1
                self.data.call(
                    "apply_stripe_event",
                    event_id=f"{self.name} {self.told}",
                    type=kind,
                    reference=self.name,
                    kind=kind,
                    object=name,
                    cents=cents,
                )

    def settle(self):
        """All webhooks come, and each refund without an outcome is taken up."""
        while self.pending:
            self.webhook()
        for action in self.data.sql(
            "select id from admin_actions a where target = %s and action = 'refund' and not fishserve.has_outcome(a)", self.name
        ):
            known = next((refund for refund, (_, of) in self.made.items() if of == action["id"]), None)
            if known:
                self.data.call("admin_end_refund", actor="kim", action=action["id"], refund=known, cents=self.made[known][0])
            else:
                self.data.call("admin_fail_refund", actor="kim", action=action["id"], error="refused")


@pytest.mark.parametrize("seed", range(12))
def test_however_refunds_and_webhooks_meet_money_and_credits_agree(data, seed):
    rng = random.Random(seed)
    model = Model(data, seed, rng)
    for _ in range(25):
        rng.choice([model.desk, model.desk, model.webhook, model.fails, model.dispute])()
        open_refunds = data.sql(
            "select count(*) from admin_actions a where target = %s and action = 'refund' and not fishserve.has_outcome(a)", model.name
        )
        assert open_refunds[0]["count"] <= 1
    model.settle()
    (row,) = data.call("admin_payments", user_id=model.user)
    assert (row["returned_cents"], row["taken"]) == (model.returned, -(-CREDITS * model.returned // AMOUNT))
    (profile,) = data.sql("select balance, debt from profiles where id = %s", model.user)
    assert profile["balance"] - profile["debt"] == CREDITS - row["taken"]
    outcomes = data.sql(
        "select details -> 'of' as of, count(*) from admin_actions where target = %s and action <> 'refund' group by 1", model.name
    )
    assert all(outcome["count"] == 1 for outcome in outcomes)
    assert data.call("audit_ledger") == data.call("audit_payments") == []

"""What users' credits must come to, added up in Python: by lots in the order of events, and without any order."""

import math
from dataclasses import dataclass, field
from fractions import Fraction

PAID = 500
CREDITS_PER_SECOND, MINIMUM, CHARACTERS_PER_SECOND = 10, 10, 13


def estimate(text):
    return max(MINIMUM, math.ceil((1 + 1.25 * len(text) / CHARACTERS_PER_SECOND) * CREDITS_PER_SECOND))


def price(seconds):
    return max(MINIMUM, math.ceil(seconds * CREDITS_PER_SECOND))


@dataclass(eq=False)
class Lot:
    """Credits that end together, in so many days."""

    days: float
    bought: bool
    left: int = 0


@dataclass
class Job:
    """`heard` is the most that a client has heard of it, `made` what the present attempt has told of."""

    id: str
    fingerprint: str
    reserved: int
    drawn: list[tuple[Lot, int]]
    charged: int | None = None
    """None until it is over."""
    running: bool = False
    listening: bool = False
    leased: bool = False
    heard: float = 0
    made: float = 0

    def cost(self, seconds: float) -> int:
        """Without a file: what was heard is paid for."""
        return min(self.reserved, price(seconds)) if seconds else 0


@dataclass
class Payment:
    """What was paid in cents, by pack or by invoice, and what has gone back by refund or dispute, unless that is undone."""

    credits: int | None = None
    known: bool = True
    """An invoice is told of by one event, and its payment by another."""
    stated: int = 0
    refunds: dict[str, tuple[int, bool]] = field(default_factory=dict)
    disputes: dict[str, tuple[int, bool]] = field(default_factory=dict)
    lot: Lot | None = None
    taken: int = 0

    @property
    def owed(self) -> int:
        if not self.known or not self.credits or self.credits < 0:
            return 0
        failed = sum(cents for cents, undone in self.refunds.values() if undone)
        refunded = max(self.stated - failed, sum(cents for cents, undone in self.refunds.values() if not undone))
        disputed = sum(cents for cents, undone in self.disputes.values() if not undone)
        return math.ceil(Fraction(self.credits * min(PAID, refunded + disputed), PAID))


@dataclass
class Account:
    """What has happened to a user's credits, added up twice: by lots, in the order of events, and without any order."""

    id: str
    given: int = 0
    expired: int = 0
    debt: int = 0
    lots: list[Lot] = field(default_factory=list)
    jobs: dict[str, Job] = field(default_factory=dict)
    payments: list[Payment] = field(default_factory=lambda: [Payment(), Payment(), Payment(known=False), Payment(known=False)])

    @property
    def worth(self) -> int:
        spent = sum(job.reserved if job.charged is None else job.charged for job in self.jobs.values())
        return self.given + sum((payment.credits or 0) - payment.owed for payment in self.payments) - spent - self.expired

    @property
    def balance(self) -> int:
        return sum(lot.left for lot in self.lots)

    def lot(self, days: float, *, bought: bool) -> Lot:
        self.lots.append(Lot(days, bought))
        return self.lots[-1]

    def order(self, lot: Lot) -> tuple[float, bool, int]:
        return lot.days, lot.bought, self.lots.index(lot)

    def draw(self, credits: int, first: Lot | None = None) -> list[tuple[Lot, int]]:
        drawn = []
        for lot in sorted(self.lots, key=lambda lot: (lot is not first, *self.order(lot))):
            part = min(lot.left, credits)
            lot.left, credits = lot.left - part, credits - part
            drawn.append((lot, part))
        assert not credits
        return drawn

    def bring(self, credits: int, lot: Lot) -> None:
        lot.left += credits
        self.repay()

    def repay(self) -> None:
        part = min(self.debt, self.balance)
        self.debt -= part
        self.draw(part)
        self.expire()

    def take(self, credits: int, first: Lot | None = None) -> None:
        part = min(credits, self.balance)
        self.draw(part, first)
        self.debt += credits - part

    def take_back(self, payment: Payment) -> None:
        more = payment.owed - payment.taken
        payment.taken = payment.owed
        if more > 0:
            self.take(more, payment.lot)
        elif more < 0:
            self.bring(-more, payment.lot)

    def expire(self) -> None:
        for lot in self.lots:
            if lot.days <= 0:
                self.expired, lot.left = self.expired + lot.left, 0

    def end(self, job: Job, charged: int) -> None:
        if job.charged is None:
            job.charged = charged
            back = job.reserved - charged
            for lot, most in sorted(job.drawn, key=lambda drawn: self.order(drawn[0]), reverse=True):
                part = min(most, back)
                lot.left, back = lot.left + part, back - part
            if job.reserved > charged:
                self.repay()

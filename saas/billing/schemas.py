"""Request and response schemas of /api/billing."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, model_validator


class Wanted(BaseModel):
    """A pack of credits, or a plan to subscribe to, by its id."""

    model_config = ConfigDict(extra="forbid")

    pack: str | None = None
    plan: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Wanted:
        if (self.pack is None) == (self.plan is None):
            raise ValueError("name a pack or a plan, one of them")
        return self


class Page(BaseModel):
    """The address of a page at Stripe."""

    url: str


class Plan(BaseModel):
    """A plan: the credits of each paid period, and limits. A limit that is null is not narrower than everybody's."""

    id: str
    name: str
    credits: int
    amount_cents: int | None
    currency: str
    period: str
    max_running: int | None
    max_waiting: int | None
    per_minute: int | None
    max_characters: int | None
    max_voices: int | None
    result_days: int | None


class Subscription(BaseModel):
    """A subscription. It is renewed at `period_end`, unless it ends at `ends_at`. `status` is Stripe's."""

    id: str
    plan: str
    status: str
    period_end: datetime | None
    ends_at: datetime | None


class Expiring(BaseModel):
    """Credits that end at a moment."""

    credits: int
    expires_at: datetime


class Billing(BaseModel):
    """Your plan and subscription, and the credits that end, the soonest first. `portal`: there is a billing page at Stripe."""

    plan: Plan
    subscription: Subscription | None
    expiring: list[Expiring]
    portal: bool

"""What Stripe's events say about subscriptions and their invoices. Reads the form of events before and after Stripe's version 2025-03-31."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

PLAN_MARK = "fishserve_plan"
"""Marks our subscriptions in their metadata, since a Stripe account may sell other things."""
EVENTS = (
    "customer.subscription.created",
    "customer.subscription.updated",
    "customer.subscription.deleted",
    "invoice.paid",
    "invoice_payment.paid",
)
"""The events that Stripe must send to the webhook where plans are for sale."""


@dataclass(frozen=True)
class SubscriptionState:
    """What a subscription was like at `told_at`, as `apply_subscription_event` takes it."""

    subscription: str
    user_id: UUID
    price: str
    status: str
    told_at: datetime
    period_end: datetime | None
    ends_at: datetime | None
    customer: str | None


@dataclass(frozen=True)
class Line:
    """A line of an invoice: the price that it charges, or gives money back for (`cents` below 0), and when its period ends."""

    price: str
    cents: int
    ends_at: datetime


@dataclass(frozen=True)
class PaidInvoice:
    """An invoice that was paid, as `apply_invoice_event` takes it. `cents` were paid by `payment`, if the event names it.

    `complete`: all its lines are here; an event has the first ten.
    """

    invoice: str
    user_id: UUID
    subscription: str | None
    lines: list[Line]
    complete: bool
    cents: int
    currency: str
    payment: str | None
    customer: str | None
    url: str | None


@dataclass(frozen=True)
class InvoicePayment:
    """Which payment paid an invoice."""

    invoice: str
    payment: str


Told = SubscriptionState | PaidInvoice | InvoicePayment


def read(kind: str, content: Any, at: int) -> Told | None:
    """What an event of the second `at` says about one of our subscriptions, or None. Raises KeyError, TypeError and others for one without sense."""
    if kind.startswith("customer.subscription.") and kind in EVENTS:
        return _subscription(content, at)
    if kind == "invoice.paid":
        return _invoice(content)
    if kind == "invoice_payment.paid":
        payment = content["payment"].get("payment_intent")
        return InvoicePayment(_id(content["invoice"]), _id(payment)) if payment else None
    return None


def lines(content: list[Any]) -> list[Line]:
    """The lines of an invoice that charge a price."""
    priced = [(_price_of(line), line) for line in content]
    return [Line(price, int(line["amount"]), _moment(line["period"]["end"])) for price, line in priced if price]


def _subscription(content: Any, at: int) -> SubscriptionState | None:
    metadata = content.get("metadata") or {}
    if PLAN_MARK not in metadata:
        return None
    item = content["items"]["data"][0]
    renewed = content.get("current_period_end") or item.get("current_period_end")
    ends = content.get("cancel_at") or (renewed if content.get("cancel_at_period_end") else None)
    return SubscriptionState(
        subscription=str(content["id"]), user_id=UUID(metadata["user_id"]), price=_id(item["price"]), status=str(content["status"]),
        told_at=_moment(at), period_end=_moment(renewed) if renewed else None, ends_at=_moment(ends) if ends else None,
        customer=_id(content["customer"]) if content.get("customer") else None,
    )  # fmt: skip


def _invoice(content: Any) -> PaidInvoice | None:
    details = (content.get("parent") or content).get("subscription_details") or {}
    metadata = details.get("metadata") or {}
    if PLAN_MARK not in metadata:
        return None
    subscription = details.get("subscription") or content.get("subscription")
    paid_by = content.get("payment_intent")
    for payment in (content.get("payments") or {}).get("data", []):
        paid_by = paid_by or payment["payment"].get("payment_intent")
    return PaidInvoice(
        invoice=str(content["id"]), user_id=UUID(metadata["user_id"]), subscription=_id(subscription) if subscription else None,
        lines=lines(content["lines"]["data"]), complete=not content["lines"].get("has_more"), cents=int(content["amount_paid"]),
        currency=str(content["currency"]), payment=_id(paid_by) if paid_by else None,
        customer=_id(content["customer"]) if content.get("customer") else None, url=content.get("hosted_invoice_url"),
    )  # fmt: skip


def _price_of(line: Any) -> str | None:
    pricing = line.get("pricing") or {}
    price = (pricing.get("price_details") or {}).get("price") or line.get("price")
    return _id(price) if price else None


def _id(named: Any) -> str:
    """The id of what Stripe names by its id, or shows whole."""
    return str(named if isinstance(named, str) else named["id"])


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)

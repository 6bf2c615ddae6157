"""The database's functions about payments, plans and subscriptions."""

from __future__ import annotations

from typing import Any, TypedDict
from uuid import UUID

from saas.billing.subscriptions import InvoicePayment, PaidInvoice, SubscriptionState
from saas.database import Database


class Pack(TypedDict):
    """Credits for sale."""

    id: str
    credits: int
    amount_cents: int
    currency: str


class Plan(TypedDict):
    """What a user may do. A limit that is None is everybody's."""

    id: str
    name: str
    stripe_price: str | None
    amount_cents: int | None
    currency: str
    period: str
    credits: int
    max_running: int | None
    max_waiting: int | None
    per_minute: int | None
    max_characters: int | None
    max_voices: int | None
    result_days: int | None


class PlanOfUser(TypedDict):
    """A user's plan, customer id at Stripe, subscriptions that are not over, and credits that end."""

    plan: Plan
    customer: str | None
    subscriptions: list[dict[str, Any]]
    expiring: list[dict[str, Any]]


class Booked(TypedDict):
    """What came of an event: `applied` is False if it was booked before; `closed`: its account was closed."""

    applied: bool
    closed: bool


class PaymentRepository:
    """Each method is one transaction. All raise Refused and Unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def packs(self) -> list[Pack]:
        """The packs for sale, the cheapest first."""
        rows: list[Pack] = await self._database.call("list_packs")
        return rows

    async def plans(self) -> list[Plan]:
        """The plans for sale, the cheapest first."""
        rows: list[Plan] = await self._database.call("list_plans")
        return rows

    async def plan_of(self, user_id: UUID) -> PlanOfUser:
        """A user's plan and subscriptions. Raises Refused for a closed account."""
        found: PlanOfUser = await self._database.call("get_plan", user_id=user_id)
        return found

    async def customer(self, user_id: UUID) -> str | None:
        """The customer id at Stripe of a user who may buy, None before the first purchase. Raises Refused for a closed or suspended account."""
        buyer = await self._database.call("buyer", user_id=user_id)
        customer: str | None = buyer["customer"]
        return customer

    async def customers_to_delete(self) -> list[str]:
        """Customers at Stripe whose accounts here were closed."""
        customers: list[str] = await self._database.call("customers_to_delete")
        return customers

    async def put_off_customer(self, customer: str, error: Exception) -> None:
        """Try to delete a customer later: it failed."""
        await self._database.call("put_off", kind="customer", item=customer, error=type(error).__name__)

    async def customer_deleted(self, customer: str) -> None:
        """Take a customer off that list."""
        await self._database.call("customer_deleted", customer=customer)

    async def apply(
        self, *, event_id: str, type: str, user_id: UUID | None, credits: int | None, reference: str, kind: str, cents: int | None,
        currency: str | None, pack: str | None, object: str | None, customer: str | None, receipt_url: str | None,
    ) -> Booked:  # fmt: skip
        """Book an event from Stripe."""
        booked: Booked = await self._database.call(
            "apply_stripe_event", event_id=event_id, type=type, user_id=user_id, credits=credits, reference=reference, kind=kind, cents=cents,
            currency=currency, pack=pack, object=object, customer=customer, receipt_url=receipt_url,
        )  # fmt: skip
        return booked

    async def apply_subscription(self, event_id: str, type: str, told: SubscriptionState) -> Booked:
        """Book what an event says of a subscription. Raises Refused where no plan has its price."""
        booked: Booked = await self._database.call(
            "apply_subscription_event", event_id=event_id, type=type, subscription=told.subscription, user_id=told.user_id, price=told.price,
            status=told.status, told_at=told.told_at, period_end=told.period_end, ends_at=told.ends_at, customer=told.customer,
        )  # fmt: skip
        return booked

    async def apply_invoice(self, event_id: str, type: str, told: PaidInvoice) -> Booked:
        """Book a paid invoice: its credits come once. Raises Refused where no plan has a price of its lines."""
        lines = {"data": [{"price": line.price, "amount": line.cents, "ends_at": line.ends_at.isoformat()} for line in told.lines]}
        booked: Booked = await self._database.call(
            "apply_invoice_event", event_id=event_id, type=type, invoice=told.invoice, payment=told.payment, user_id=told.user_id,
            subscription=told.subscription, lines=lines, cents=told.cents, currency=told.currency, customer=told.customer, url=told.url,
        )  # fmt: skip
        return booked

    async def apply_invoice_payment(self, event_id: str, type: str, told: InvoicePayment) -> Booked:
        """Book which payment paid an invoice."""
        booked: Booked = await self._database.call(
            "apply_invoice_event", event_id=event_id, type=type, invoice=told.invoice, payment=told.payment
        )
        return booked

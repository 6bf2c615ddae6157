"""The database's functions about payments."""

from __future__ import annotations

from typing import TypedDict
from uuid import UUID

from saas.database import Database


class Pack(TypedDict):
    """Credits for sale."""

    id: str
    credits: int
    amount_cents: int
    currency: str


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

    async def customer(self, user_id: UUID) -> str | None:
        """The customer id at Stripe of a user who may buy, None before the first purchase. Raises Refused for a closed or suspended account."""
        buyer = await self._database.call("buyer", user_id=user_id)
        customer: str | None = buyer["customer"]
        return customer

    async def customers_to_delete(self) -> list[str]:
        """Customers at Stripe whose accounts here were closed."""
        customers: list[str] = await self._database.call("customers_to_delete")
        return customers

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

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


class PaymentRepository:
    """Each method is one transaction. All raise Refused and Unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def packs(self) -> list[Pack]:
        """The packs for sale, the cheapest first."""
        rows: list[Pack] = await self._database.call("list_packs")
        return rows

    async def customer(self, user_id: UUID) -> str | None:
        """A user's customer id at Stripe, None before the first purchase. Raises Refused for a closed account."""
        profile = await self._database.call("get_profile", user_id=user_id)
        customer: str | None = profile["stripe_customer"]
        return customer

    async def apply(
        self, *, event_id: str, type: str, user_id: UUID | None, credits: int | None, reference: str, kind: str, share: float | None,
        customer: str | None, receipt_url: str | None,
    ) -> bool:  # fmt: skip
        """Book an event from Stripe. False if it was already booked."""
        done = await self._database.call(
            "apply_stripe_event", event_id=event_id, type=type, user_id=user_id, credits=credits, reference=reference, kind=kind, share=share,
            customer=customer, receipt_url=receipt_url,
        )  # fmt: skip
        return bool(done["applied"])

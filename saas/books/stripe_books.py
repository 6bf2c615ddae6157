"""Stripe's truth about payments, beside what the database says of them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import stripe

from saas.admin.repository import DeskRepository
from saas.billing.service import MARK, PaymentError
from saas.billing.stripe_client import metadata_of, stripe_client
from saas.books.money import amount
from saas.books.repository import BookRepository, Row
from saas.settings import Settings

FRESH_SECONDS = 3600
"""Payments and disputes of the last hour are left to their webhooks."""
_PAGE = 100


class StripeBooks:
    """Asks Stripe for payments, refunds and disputes, and compares."""

    def __init__(self, settings: Settings, secret: str) -> None:
        self._stripe, self._http = stripe_client(settings, secret)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close_async()

    async def differences(self, books: BookRepository, desk: DeskRepository, days: int) -> AsyncIterator[str]:
        """A sentence for each payment of the last days that Stripe and the books do not tell alike. Raises PaymentError, Unavailable."""
        until = int(time.time()) - FRESH_SECONDS
        within: Any = {"created": {"gte": until - 86_400 * days, "lte": until}, "limit": _PAGE}
        try:
            seen: set[str] = set()
            async for intents in _batches(await self._stripe.v1.payment_intents.list_async(within | {"expand": ["data.latest_charge"]})):
                paid = [intent for intent in intents if intent.status == "succeeded"]
                rows = {row["reference"]: row for row in await books.payments_of([intent.id for intent in paid])}
                seen |= rows.keys()
                for intent in paid:
                    if intent.id in rows or MARK in metadata_of(intent):  # others pay for something else
                        for said in _compare(intent, rows.get(intent.id)):
                            yield said
            async for row in _booked(desk, until - 86_400 * days, until):
                if row["reference"].startswith("pi_") and row["reference"] not in seen:
                    for said in await self._alone(row):
                        yield said
            async for disputes in _batches(await self._stripe.v1.disputes.list_async(within)):
                of = {row["reference"]: row for row in await books.payments_of([str(d.payment_intent) for d in disputes])}
                for dispute in disputes:
                    disputed = of.get(str(dispute.payment_intent))
                    if disputed and (problem := _of_dispute(dispute, disputed)):
                        yield problem
        except stripe.StripeError as e:
            raise PaymentError(
                f"Stripe does not list its payments: {type(e).__name__}; the key must be allowed to read PaymentIntents, Charges and Disputes"
            ) from None

    async def _alone(self, row: Row) -> list[str]:
        """Of a booked payment that was not in Stripe's list."""
        try:
            intent = await self._stripe.v1.payment_intents.retrieve_async(row["reference"], {"expand": ["latest_charge"]})
        except stripe.InvalidRequestError:
            return [f"the books have the payment {row['reference']} of {_amount(row)}, which Stripe does not know"]
        return list(_compare(intent, row))


async def _batches(page: Any) -> AsyncIterator[list[Any]]:
    batch: list[Any] = []
    async for item in page.auto_paging_iter():
        batch.append(item)
        if len(batch) == _PAGE:
            yield batch
            batch = []
    if batch:
        yield batch


async def _booked(desk: DeskRepository, since: int, until: int) -> AsyncIterator[Row]:
    """The booked payments between two times, the newest first."""
    before: datetime | None = datetime.fromtimestamp(until).astimezone()
    while rows := await desk.payments(None, before, _PAGE):
        for row in rows:
            before = datetime.fromisoformat(row["created_at"])
            if before.timestamp() < since:
                return
            yield row


def _compare(intent: stripe.PaymentIntent, row: Row | None) -> list[str]:
    paid = amount(intent.amount_received, intent.currency)
    if row is None:
        return [f"Stripe has the payment {intent.id} of {paid}, which the books do not have: `fishserve saas reconcile` books it"]
    said = []
    if (intent.amount_received, intent.currency) != (row["amount_cents"], row["currency"] or intent.currency):
        said.append(f"the payment {intent.id} is {paid} at Stripe, and {_amount(row)} in the books")
    charge = intent.latest_charge
    if isinstance(charge, stripe.Charge) and charge.amount_refunded != row["refunded_cents"]:
        refunded, booked = (amount(cents, intent.currency) for cents in (charge.amount_refunded, row["refunded_cents"]))
        said.append(f"of the payment {intent.id} {refunded} is refunded at Stripe, and {booked} in the books")
    if (mark := metadata_of(intent).get(MARK)) and mark != str(row["credits"]):
        said.append(f"the payment {intent.id} bought {mark} credits at Stripe, and {row['credits']} in the books")
    return said


def _of_dispute(dispute: stripe.Dispute, row: Row) -> str | None:
    """An inquiry (`warning_...`) moves no money."""
    if dispute.status not in ("needs_response", "under_review", "lost", "won"):
        return None
    known = [r for r in row["returns"] if r["kind"] == "dispute" and (r["id"] == dispute.id or r["id"].startswith("before "))]
    if known and known[0]["undone"] == (dispute.status == "won"):
        return None
    booked = "is not in the books" if not known else "is won in the books" if known[0]["undone"] else "is not won in the books"
    return f"the dispute {dispute.id} of the payment {row['reference']} is {dispute.status} at Stripe, and {booked}"


def _amount(row: Row) -> str:
    return amount(row["amount_cents"], row["currency"])

"""Refunds that an operator makes: the money at Stripe. The credits go when the refund is booked, as those of a refund made in Stripe's dashboard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import stripe

from inference.errors import FishserveError
from saas.billing.service import PaymentError
from saas.billing.stripe_client import metadata_of, stripe_client
from saas.settings import Settings

_ACTION = "fishserve_action"


class RefundRefused(FishserveError):
    """Stripe made no refund, and will not."""


@dataclass(frozen=True)
class Refund:
    """A refund that Stripe made. It may still fail on its way to a bank: then a webhook says so, and the credits come back."""

    id: str
    cents: int


class Refunds:
    """Refunds at Stripe, each made once for an action, however often it is asked for."""

    def __init__(self, settings: Settings, secret: str) -> None:
        self._stripe, self._http = stripe_client(settings, secret)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close_async()

    async def make(self, payment: str, cents: int, action: int, *, again: bool) -> Refund:
        """Refund so much of a payment. `again`: an earlier try may have done it, even days ago, when Stripe has forgotten its idempotency key.

        Raises RefundRefused, and PaymentError where it is not known whether the refund was made.
        """
        try:
            made = await self._made(payment, action) if again else None
            if made is None:
                wanted: Any = {"payment_intent": payment, "amount": cents, "metadata": {_ACTION: str(action)}}
                made = await self._stripe.v1.refunds.create_async(wanted, {"idempotency_key": f"refund {action} of {payment}"})
        except (stripe.InvalidRequestError, stripe.CardError, stripe.PermissionError, stripe.AuthenticationError) as e:
            raise RefundRefused(f"Stripe refused the refund: {e.user_message or type(e).__name__}") from None
        except stripe.StripeError as e:
            raise PaymentError(
                f"Stripe did not answer ({type(e).__name__}), and it is not known whether the refund was made: ask for the same refund again"
            ) from None
        if made.status in ("failed", "canceled"):
            raise RefundRefused(f"the refund {made.id} {made.status}: {getattr(made, 'failure_reason', None) or 'Stripe says no more'}")
        return Refund(made.id, made.amount)

    async def _made(self, payment: str, action: int) -> stripe.Refund | None:
        page = await self._stripe.v1.refunds.list_async({"payment_intent": payment, "limit": 100})
        async for refund in page.auto_paging_iter():
            if metadata_of(refund).get(_ACTION) == str(action):
                return refund
        return None

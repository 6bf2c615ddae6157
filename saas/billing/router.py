"""/api/billing/checkout and /api/webhook/stripe."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request

from saas.auth.caller import Caller
from saas.billing.schemas import Checkout, Wanted
from saas.billing.service import Outcome, Payments
from saas.errors import ApiError
from saas.limits.dependencies import limited
from saas.observability import metrics
from saas.state import AppState, State

router = APIRouter(prefix="/api", tags=["billing"])


@router.post("/billing/checkout")
async def checkout(body: Wanted, state: AppState, caller: Annotated[Caller, Depends(limited("sensitive", None))]) -> Checkout:
    """Create a Stripe page on which to buy a pack. The credits arrive once Stripe confirms the payment."""
    return Checkout(url=await _payments(state).checkout(caller, body.pack))


@router.post("/webhook/stripe")
async def webhook(request: Request, state: AppState, stripe_signature: Annotated[str, Header()] = "") -> dict[str, Outcome]:
    """The webhook for Stripe. The body is verified byte for byte as Stripe sent it, since Stripe signs those bytes."""
    try:
        outcome = await _payments(state).deliver(await request.body(), stripe_signature)
    except ApiError:
        metrics.WEBHOOKS.labels("stripe", "forged").inc()
        raise
    metrics.WEBHOOKS.labels("stripe", outcome).inc()
    return {"outcome": outcome}


def _payments(state: State) -> Payments:
    if state.payments is None:
        raise ApiError(404, "nothing is for sale here: this installation takes no payments", "no_payments")
    return state.payments

"""/api/billing and /api/webhook/stripe."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request

from saas.auth.caller import Caller
from saas.auth.dependencies import caller
from saas.billing.schemas import Billing, Expiring, Page, Plan, Subscription, Wanted
from saas.billing.service import Outcome, Payments
from saas.errors import ApiError
from saas.limits.dependencies import limited
from saas.observability import metrics
from saas.state import AppState, State

Sensitive = Annotated[Caller, Depends(limited("sensitive", None))]

router = APIRouter(prefix="/api", tags=["billing"])


@router.get("/billing")
async def billing(state: AppState, caller: Annotated[Caller, Depends(caller("read"))]) -> Billing:
    """Your plan, your subscription, and your credits that end."""
    found = await state.billing.plan_of(caller.user_id)
    now = next(iter(found["subscriptions"]), None)
    return Billing(
        plan=Plan.model_validate(found["plan"]), subscription=Subscription.model_validate(now) if now else None,
        expiring=[Expiring.model_validate(credits) for credits in found["expiring"]],
        portal=state.payments is not None and found["customer"] is not None,
    )  # fmt: skip


@router.post("/billing/checkout")
async def checkout(body: Wanted, state: AppState, caller: Sensitive) -> Page:
    """Create a Stripe page on which to buy a pack or to subscribe to a plan. The credits arrive once Stripe confirms the payment."""
    payments = _payments(state)
    await state.legal.require(caller)
    return Page(url=await (payments.subscribe(caller, body.plan) if body.plan is not None else payments.buy(caller, str(body.pack))))


@router.post("/billing/portal")
async def portal(state: AppState, caller: Sensitive) -> Page:
    """Create a page at Stripe on which to change or cancel a subscription, and to read invoices."""
    return Page(url=await _payments(state).portal(caller))


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

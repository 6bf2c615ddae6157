"""Credits for money: Stripe's page to pay on, and what Stripe tells us afterwards.

This module decides what an event means. The database's `apply_stripe_event` changes the credits: once per event, in any order of arrival.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

import stripe

from saas.auth.caller import Caller
from saas.billing.repository import Pack, PaymentRepository
from saas.database import Database, Refused
from saas.errors import ApiError
from saas.observability import reports
from saas.settings import Settings

PACKS_KEPT = 30.0
"""Seconds for which the packs for sale are cached, since every visitor requests them."""
MARK = "fishserve_credits"
"""Marks our payments in their metadata, since a Stripe account may sell other things."""
EVENTS = (
    "checkout.session.completed", "checkout.session.async_payment_succeeded", "charge.refunded",
    "charge.dispute.created", "charge.dispute.funds_withdrawn", "charge.dispute.funds_reinstated",
)  # fmt: skip
"""The events that Stripe must send to the webhook; `fishserve saas check` checks that it does."""
Outcome = Literal["applied", "repeated", "ignored", "refused"]


@dataclass(frozen=True)
class Movement:
    """What an event says about one payment, as `apply_stripe_event` takes it. `share` is the total share of the money refunded so far."""

    kind: Literal["purchase", "refund", "dispute", "reinstate"]
    reference: str
    user_id: UUID | None = None
    credits: int | None = None
    share: float = 1.0
    customer: str | None = None


class Payments:
    """Stripe, through its own library."""

    def __init__(self, settings: Settings, secret: str, database: Database) -> None:
        self._settings, self._payments = settings, PaymentRepository(database)
        self._webhook_secret = settings.stripe_webhook_secret.get_secret_value() if settings.stripe_webhook_secret else ""
        self._http = stripe.HTTPXClient(timeout=10, allow_sync_methods=False)
        self._stripe = stripe.StripeClient(
            secret, base_addresses={"api": settings.stripe_base_url}, http_client=self._http, max_network_retries=2
        )
        self._packs: tuple[float, list[Pack]] = (float("-inf"), [])

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close_async()

    async def packs(self) -> list[Pack]:
        """The packs for sale, the cheapest first. Raises Unavailable."""
        if time.monotonic() - self._packs[0] > PACKS_KEPT:
            self._packs = (time.monotonic(), await self._payments.packs())
        return self._packs[1]

    async def checkout(self, caller: Caller, pack_id: str) -> str:
        """The address of a Stripe page on which this user can buy this pack. Raises ApiError, Refused, Unavailable."""
        packs = await self.packs()
        pack = next((p for p in packs if p["id"] == pack_id), None)
        if pack is None:
            names = ", ".join(str(p["id"]) for p in packs) or "none"
            raise ApiError(404, f"there is no pack {pack_id[:80]!r}; there are {names}", "pack_not_found", "pack")
        customer = await self._payments.customer(caller.user_id)  # raises Refused for a closed account
        metadata = {MARK: str(pack["credits"]), "user_id": str(caller.user_id), "pack": str(pack["id"])}
        product = {"name": f"{pack['credits']:,} credits"}
        price = {"currency": pack["currency"], "unit_amount": pack["amount_cents"], "product_data": product}
        params: Any = {
            "mode": "payment",
            "client_reference_id": str(caller.user_id),
            "line_items": [{"price_data": price, "quantity": 1}],
            "metadata": metadata,
            "payment_intent_data": {"metadata": metadata},
            "success_url": f"{self._settings.app}/credits?paid=1",
            "cancel_url": f"{self._settings.app}/credits",
        }
        new = {"customer_creation": "always"} | ({"customer_email": caller.email} if caller.email else {})
        known = {"customer": customer} if customer else new
        try:
            try:
                session = await self._stripe.v1.checkout.sessions.create_async(params | known)
            except stripe.InvalidRequestError as e:
                if e.param != "customer":
                    raise
                session = await self._stripe.v1.checkout.sessions.create_async(params | new)  # that customer was deleted at Stripe
        except stripe.StripeError as e:
            reports.alarm("a checkout could not be made", error=type(e).__name__, code=str(e.code))
            raise ApiError(
                503,
                "Stripe does not answer as it should just now; nothing was charged, try again in a minute",
                "payment_unavailable",
                headers={"Retry-After": "60"},
            ) from None
        if not session.url:
            raise ApiError(503, "Stripe gave no page to pay on; nothing was charged, try again in a minute", "payment_unavailable")
        return session.url

    async def deliver(self, body: bytes, signature: str) -> Outcome:
        """Apply a webhook delivery; return the outcome. Raises ApiError 400 if Stripe did not sign it, Unavailable if Stripe must retry."""
        try:
            event = stripe.Webhook.construct_event(body, signature, self._webhook_secret).to_dict()
            name, kind, content = str(event["id"]), str(event["type"]), event["data"]["object"]
        except (stripe.SignatureVerificationError, ValueError, KeyError, TypeError, AttributeError):
            raise ApiError(400, "this is no event that Stripe signed with our secret", "invalid_signature") from None
        movement = read(kind, content)
        if movement is None:
            return "ignored"
        receipt = await self._receipt(movement.reference) if movement.kind == "purchase" else None
        try:
            applied = await self._payments.apply(
                event_id=name, type=kind, user_id=movement.user_id, credits=movement.credits, reference=movement.reference, kind=movement.kind,
                share=movement.share, customer=movement.customer, receipt_url=receipt,
            )  # fmt: skip
        except Refused:  # a retry would change nothing; a person must look
            reports.alarm("an event of Stripe was refused by the database", event=name, type=kind)
            return "refused"
        return "applied" if applied else "repeated"

    async def _receipt(self, payment: str) -> str | None:
        """The address of a payment's receipt, if Stripe returns it at once: credits do not wait for it."""
        try:
            intent = await self._stripe.v1.payment_intents.retrieve_async(
                payment, {"expand": ["latest_charge"]}, {"max_network_retries": 0}
            )
        except stripe.StripeError:
            return None
        charge = intent.latest_charge
        return charge.receipt_url if isinstance(charge, stripe.Charge) else None


def read(kind: str, content: Any) -> Movement | None:
    """What an event says about one of our payments, or None. `content` is the event's object: signed, but of any structure."""
    try:
        if kind in ("checkout.session.completed", "checkout.session.async_payment_succeeded"):
            return _purchase(content)
        if kind == "charge.refunded":
            return Movement("refund", str(content["payment_intent"]), share=_share(content["amount_refunded"], content["amount"]))
        if kind == "charge.dispute.created" and not str(content["status"]).startswith("warning"):  # only an inquiry; no money has moved
            return Movement("dispute", str(content["payment_intent"]))
        if kind == "charge.dispute.funds_withdrawn":  # also for an inquiry that became a dispute, which sends no second `created`
            return Movement("dispute", str(content["payment_intent"]))
        if kind == "charge.dispute.funds_reinstated":
            return Movement("reinstate", str(content["payment_intent"]))
    except (KeyError, TypeError, ValueError, ZeroDivisionError, AttributeError):
        reports.alarm("an event of Stripe could not be read", type=kind)
    return None


def _purchase(session: Any) -> Movement | None:
    """The purchase of a paid session. A session paid by a slow bank transfer comes again as async_payment_succeeded."""
    metadata = session.get("metadata") or {}
    if MARK not in metadata or session["payment_status"] != "paid":
        return None
    user = UUID(metadata["user_id"])
    if str(user) != session["client_reference_id"]:
        raise ValueError("the session names two users")
    customer = session.get("customer")
    return Movement("purchase", str(session["payment_intent"]), user, int(metadata[MARK]), customer=str(customer) if customer else None)


def _share(part: Any, whole: Any) -> float:
    return min(1.0, max(0.0, int(part) / int(whole)))

"""Credits for money: Stripe's pages to pay on, and what Stripe tells us afterwards.

This module decides what an event means. The database's functions change credits and plans: once per event, in any order of arrival.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args
from uuid import UUID

import stripe

from inference.errors import FishserveError
from saas.auth.caller import Caller
from saas.billing import subscriptions
from saas.billing.repository import Pack, PaymentRepository, Plan
from saas.billing.stripe_client import checkout_switches, stripe_client
from saas.billing.subscriptions import PLAN_MARK, InvoicePayment, PaidInvoice, SubscriptionState, Told
from saas.database import Database, DatabaseError, Refused, Unavailable
from saas.errors import ApiError
from saas.jobs.loop import each
from saas.observability import metrics, reports
from saas.settings import Settings

log = logging.getLogger(__name__)
SHOP_KEPT = 30.0
"""Seconds for which packs and plans for sale are cached, since every visitor requests them."""
MARK = "fishserve_credits"
"""Marks our payments in their metadata, since a Stripe account may sell other things."""
FORGET_SECONDS = 60.0
"""Seconds between two looks for customers to delete at Stripe."""
EVENTS = (
    "checkout.session.completed", "checkout.session.async_payment_succeeded", "charge.refunded", "refund.created", "refund.updated",
    "refund.failed", "charge.dispute.created", "charge.dispute.funds_withdrawn", "charge.dispute.funds_reinstated", *subscriptions.EVENTS,
)  # fmt: skip
"""The events that Stripe must send to the webhook; `fishserve saas check` checks that it does."""
Outcome = Literal["applied", "repeated", "ignored", "refused", "failed"]


class PaymentError(FishserveError):
    """Stripe does not do what it is asked to."""


@dataclass(frozen=True)
class Movement:
    """What an event says about one payment, as `apply_stripe_event` takes it. `object` is the id of the refund or dispute."""

    kind: Literal["purchase", "refund", "refund_failed", "dispute", "reinstate"]
    reference: str
    cents: int
    object: str | None = None
    user_id: UUID | None = None
    credits: int | None = None
    currency: str | None = None
    pack: str | None = None
    customer: str | None = None


class Payments:
    """Stripe, through its own library."""

    def __init__(self, settings: Settings, secret: str, database: Database) -> None:
        self._settings, self._payments = settings, PaymentRepository(database)
        self._webhook_secret = settings.stripe_webhook_secret.get_secret_value() if settings.stripe_webhook_secret else ""
        self._stripe, self._http = stripe_client(settings, secret)
        self._shop: tuple[float, list[Pack], list[Plan]] = (float("-inf"), [], [])
        for outcome in get_args(Outcome):  # that is 0 at first: a counter that begins at 1 has not grown
            metrics.WEBHOOKS.labels("stripe", outcome)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close_async()

    async def shop(self) -> tuple[list[Pack], list[Plan]]:
        """The packs and the plans for sale, the cheapest first. Raises Unavailable."""
        if time.monotonic() - self._shop[0] > SHOP_KEPT:
            self._shop = (time.monotonic(), await self._payments.packs(), await self._payments.plans())
        return self._shop[1:]

    async def buy(self, caller: Caller, pack_id: str) -> str:
        """The address of a Stripe page on which this user can buy this pack. Raises ApiError, Refused, Unavailable."""
        packs, _ = await self.shop()
        pack = next((p for p in packs if p["id"] == pack_id), None)
        if pack is None:
            names = ", ".join(str(p["id"]) for p in packs) or "none"
            raise ApiError(404, f"there is no pack {pack_id[:80]!r}; there are {names}", "pack_not_found", "pack")
        metadata = {MARK: str(pack["credits"]), "user_id": str(caller.user_id), "pack": str(pack["id"])}
        product = {"name": f"{pack['credits']:,} credits"}
        price = {"currency": pack["currency"], "unit_amount": pack["amount_cents"], "product_data": product}
        return await self._checkout(
            caller,
            {
                "mode": "payment",
                "line_items": [{"price_data": price, "quantity": 1}],
                "metadata": metadata,
                "payment_intent_data": {"metadata": metadata},
            },
            {"customer_creation": "always"},
        )

    async def subscribe(self, caller: Caller, plan_id: str) -> str:
        """The address of a Stripe page on which this user can subscribe to this plan. Raises ApiError, Refused, Unavailable.

        A user with a subscription changes that one, at Stripe's customer portal.
        """
        _, plans = await self.shop()
        plan = next((p for p in plans if p["id"] == plan_id), None)
        if plan is None:
            names = ", ".join(p["id"] for p in plans) or "none"
            raise ApiError(404, f"there is no plan {plan_id[:80]!r} for sale; there are {names}", "plan_not_found", "plan")
        if (await self._payments.plan_of(caller.user_id))["subscriptions"]:
            raise ApiError(409, "you have a subscription: change its plan on the billing page instead", "subscribed", "plan")
        metadata = {PLAN_MARK: plan["id"], "user_id": str(caller.user_id)}
        return await self._checkout(
            caller,
            {
                "mode": "subscription",
                "line_items": [{"price": plan["stripe_price"], "quantity": 1}],
                "subscription_data": {"metadata": metadata},
            },
            {},
        )

    async def portal(self, caller: Caller) -> str:
        """The address of Stripe's customer portal: plans, invoices, cards. Raises ApiError 404 before the first purchase, 503."""
        customer = (await self._payments.plan_of(caller.user_id))["customer"]
        if customer is None:
            raise ApiError(404, "you have bought nothing yet: there is no billing page", "no_customer")
        try:
            session = await self._stripe.v1.billing_portal.sessions.create_async(
                {"customer": customer, "return_url": f"{self._settings.app}/credits"}
            )
        except stripe.StripeError as e:
            raise _unavailable("the billing page could not be made", e) from None
        return session.url

    async def end(self, user_id: UUID) -> None:
        """Cancel a user's subscriptions at once, before the account is closed. Raises ApiError 503 when Stripe does not do it."""
        try:
            found = await self._payments.plan_of(user_id)
        except Refused:  # it is closed already
            return
        failed = None
        for subscription in found["subscriptions"]:
            try:
                await self._stripe.v1.subscriptions.cancel_async(subscription["id"])
            except stripe.StripeError as e:
                if e.code != "resource_missing":  # else it is over, and no event has told us
                    failed = e
        if failed is not None:
            raise _unavailable("a subscription could not be cancelled", failed)

    async def _checkout(self, caller: Caller, what: Any, new: Any) -> str:
        """Stripe's page for `what`, for the customer of before; `new` are parameters for one that Stripe must make."""
        customer = await self._payments.customer(caller.user_id)  # raises Refused for a closed or suspended account
        pages = {"success_url": f"{self._settings.app}/credits?paid=1", "cancel_url": f"{self._settings.app}/credits"}
        switches = checkout_switches(self._settings, known_customer=customer is not None, subscription=what["mode"] == "subscription")
        params = what | {"client_reference_id": str(caller.user_id)} | pages | switches
        if caller.email:
            new = new | {"customer_email": caller.email}
        known = {"customer": customer} if customer else new
        try:
            try:
                session = await self._stripe.v1.checkout.sessions.create_async(params | known)
            except stripe.InvalidRequestError as e:
                if e.param != "customer":
                    raise
                params.pop("customer_update", None)
                session = await self._stripe.v1.checkout.sessions.create_async(params | new)  # that customer was deleted at Stripe
        except stripe.StripeError as e:
            raise _unavailable("a checkout could not be made", e) from None
        if not session.url:
            raise ApiError(503, "Stripe gave no page to pay on; nothing was charged, try again in a minute", "payment_unavailable")
        return session.url

    async def deliver(self, body: bytes, signature: str) -> Outcome:
        """Apply a webhook delivery; return the outcome. Raises ApiError 400 if Stripe did not sign it, Unavailable if Stripe must retry."""
        try:
            event = stripe.Webhook.construct_event(body, signature, self._webhook_secret).to_dict()
            name, kind, content, at = str(event["id"]), str(event["type"]), event["data"]["object"], int(event["created"])
        except (stripe.SignatureVerificationError, ValueError, KeyError, TypeError, AttributeError):
            raise ApiError(400, "this is no event that Stripe signed with our secret", "invalid_signature") from None
        outcome = await self._book(name, kind, content, at)
        if outcome == "applied":
            metrics.STRIPE_LAG.observe(max(0.0, time.time() - at))
        return outcome

    async def forget(self) -> None:
        """Delete the customers of closed accounts at Stripe. One that Stripe does not delete is tried again later. Raises Unavailable."""
        while customers := await self._payments.customers_to_delete():
            await each("deleting customers at Stripe", customers, self._forget, self._payments.put_off_customer)

    async def _forget(self, customer: str) -> None:
        try:
            await self._stripe.v1.customers.delete_async(customer)
        except stripe.StripeError as e:
            if e.code != "resource_missing":  # else it is deleted already
                raise PaymentError(
                    f"Stripe does not delete a customer: {type(e).__name__}; the key must be allowed to write Customers"
                ) from None
        await self._payments.customer_deleted(customer)

    async def reconcile(self, days: int) -> Counter[Outcome]:
        """Ask Stripe for the events of the last days and book those that no webhook brought. Returns what came of them.

        Raises PaymentError when Stripe does not answer, Unavailable.
        """
        outcomes: Counter[Outcome] = Counter()
        since = int(time.time()) - 86_400 * days
        try:
            page = await self._stripe.v1.events.list_async({"types": list(EVENTS), "created": {"gte": since}, "limit": 100})
            async for event in page.auto_paging_iter():
                outcomes[await self._book_again(event)] += 1
        except stripe.StripeError as e:
            raise PaymentError(f"Stripe does not list its events: {type(e).__name__}; the key must be allowed to read Events") from None
        return outcomes

    async def _book_again(self, event: stripe.Event) -> Outcome:
        """As `_book`; an event that cannot be booked now holds up no other."""
        try:
            return await self._book(event.id, event.type, event.to_dict()["data"]["object"], event.created)
        except Unavailable:
            raise
        except (ApiError, DatabaseError) as e:
            log.error("the event %s of Stripe cannot be booked: %s", event.id, type(e).__name__)
            return "failed"

    async def _book(self, name: str, kind: str, content: Any, at: int) -> Outcome:
        try:
            movement = read(kind, content) if kind not in subscriptions.EVENTS else None
            told = subscriptions.read(kind, content, at)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError):
            reports.alarm("an event of Stripe could not be read", type=kind)
            return "ignored"
        if told is not None:
            return await self._book_plan(name, kind, told)
        if movement is None:
            return "ignored"
        receipt = await self._receipt(movement.reference) if movement.kind == "purchase" else None
        try:
            booked = await self._payments.apply(
                event_id=name, type=kind, user_id=movement.user_id, credits=movement.credits, reference=movement.reference, kind=movement.kind,
                cents=movement.cents, currency=movement.currency, pack=movement.pack, object=movement.object, customer=movement.customer,
                receipt_url=receipt,
            )  # fmt: skip
        except Refused:  # a retry would change nothing; a person must look
            reports.alarm("an event of Stripe was refused by the database", event=name, type=kind)
            return "refused"
        if booked["closed"] and movement.kind == "purchase":
            reports.alarm("a payment came for an account that is closed: refund it", event=name, payment=movement.reference)
        return "applied" if booked["applied"] else "repeated"

    async def _book_plan(self, name: str, kind: str, told: Told) -> Outcome:
        if isinstance(told, PaidInvoice) and not told.complete:
            told = replace(told, lines=await self._all_lines(told.invoice))
        try:
            if isinstance(told, SubscriptionState):
                booked = await self._payments.apply_subscription(name, kind, told)
            elif isinstance(told, PaidInvoice):
                booked = await self._payments.apply_invoice(name, kind, told)
            else:
                booked = await self._payments.apply_invoice_payment(name, kind, told)
        except Refused:  # a retry would change nothing; a person must look
            reports.alarm("an event of Stripe was refused by the database", event=name, type=kind)
            return "refused"
        if booked["closed"] and booked["applied"] and kind != "customer.subscription.deleted" and not isinstance(told, InvoicePayment):
            what = told.invoice if isinstance(told, PaidInvoice) else told.subscription
            reports.alarm("an account that is closed has a subscription: cancel it, and refund what was paid", event=name, of=what)
        return "applied" if booked["applied"] else "repeated"

    async def _all_lines(self, invoice: str) -> list[subscriptions.Line]:
        """The lines of an invoice that has more than an event holds. Raises ApiError 503, after which Stripe sends the event again."""
        try:
            page = await self._stripe.v1.invoices.line_items.list_async(invoice, {"limit": 100})
            return subscriptions.lines([line.to_dict() async for line in page.auto_paging_iter()])
        except stripe.StripeError as e:
            raise _unavailable("the lines of an invoice could not be read", e) from None

    async def _receipt(self, payment: str) -> str | None:
        """The address of a payment's receipt, if Stripe returns it at once: credits do not wait for it."""
        try:
            intent = await self._stripe.v1.payment_intents.retrieve_async(
                payment, {"expand": ["latest_charge"]}, {"max_network_retries": 0}
            )
        except stripe.StripeError:
            return None
        charge = intent.latest_charge
        return getattr(charge, "receipt_url", None)  # a charge without one has no such attribute


def _unavailable(what: str, e: stripe.StripeError) -> ApiError:
    reports.alarm(what, error=type(e).__name__, code=str(e.code))
    words = "Stripe does not answer as it should just now; nothing was charged, try again in a minute"
    return ApiError(503, words, "payment_unavailable", headers={"Retry-After": "60"})


def read(kind: str, content: Any) -> Movement | None:
    """What an event says about one of our payments, or None. `content` is the event's object: signed, but of any structure.

    Raises KeyError, TypeError, ValueError and AttributeError where it makes no sense.
    """
    if kind in ("checkout.session.completed", "checkout.session.async_payment_succeeded"):
        return _purchase(content)
    if kind == "charge.refunded":
        return Movement("refund", str(content["payment_intent"]), _cents(content["amount_refunded"]))
    if (returned := _kind_of_return(kind, content)) is not None:
        return Movement(returned, str(content["payment_intent"]), _cents(content["amount"]), str(content["id"]))
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
    return Movement(
        "purchase", str(session["payment_intent"]), _cents(session["amount_total"]), user_id=user, credits=int(metadata[MARK]),
        currency=str(session["currency"]), pack=metadata.get("pack"), customer=str(customer) if customer else None,
    )  # fmt: skip


def _kind_of_return(kind: str, content: Any) -> Literal["refund", "refund_failed", "dispute", "reinstate"] | None:
    """What an event about a refund or a dispute means for the money; None for one that moves none."""
    if kind in ("refund.created", "refund.updated", "refund.failed", "charge.refund.updated"):
        return "refund_failed" if content["status"] in ("failed", "canceled") else "refund"
    if kind == "charge.dispute.created" and not str(content["status"]).startswith("warning"):  # only an inquiry; no money has moved
        return "dispute"
    if kind == "charge.dispute.funds_withdrawn":  # also for an inquiry that became a dispute, which sends no second `created`
        return "dispute"
    return "reinstate" if kind == "charge.dispute.funds_reinstated" else None


def _cents(amount: Any) -> int:
    """An amount in the smallest unit of its currency. Raises ValueError for none."""
    if not isinstance(amount, int) or amount < 0:
        raise ValueError("that is no amount of money")
    return amount

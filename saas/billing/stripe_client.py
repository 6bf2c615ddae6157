"""Stripe's own library, set up as everything here uses it."""

from __future__ import annotations

from typing import Any

import stripe

from saas.settings import Settings

SECONDS = 10


def stripe_client(settings: Settings, secret: str) -> tuple[stripe.StripeClient, stripe.HTTPXClient]:
    """The client, and its connections, for the caller to close."""
    http = stripe.HTTPXClient(timeout=SECONDS, allow_sync_methods=False)
    return stripe.StripeClient(secret, base_addresses={"api": settings.stripe_base_url}, http_client=http, max_network_retries=2), http


def checkout_switches(settings: Settings, *, known_customer: bool, subscription: bool) -> dict[str, Any]:
    """Stripe's own tax, tax IDs and invoices at a checkout, as the settings switch them on. A subscription has invoices in any case."""
    switches: dict[str, Any] = {}
    if settings.stripe_automatic_tax:
        switches["automatic_tax"] = {"enabled": True}
    if settings.stripe_tax_ids:
        switches["tax_id_collection"] = {"enabled": True}
    if settings.stripe_invoices and not subscription:
        switches["invoice_creation"] = {"enabled": True}
    if known_customer and (
        settings.stripe_automatic_tax or settings.stripe_tax_ids
    ):  # Stripe keeps what the buyer enters with the customer
        switches["customer_update"] = {"address": "auto", "name": "auto"}
    return switches


def metadata_of(thing: Any) -> dict[str, str]:
    """The metadata of one of Stripe's objects."""
    found: dict[str, str] = thing.metadata.to_dict() if thing.metadata else {}
    return found

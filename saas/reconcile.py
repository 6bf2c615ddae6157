"""`fishserve saas reconcile`: books what Stripe did and no webhook told."""

from __future__ import annotations

from collections import Counter

from inference.errors import ConfigurationError
from saas.admin.connection import ask
from saas.billing.service import Outcome, Payments
from saas.database import Database
from saas.settings import Settings


async def reconcile(settings: Settings, days: int) -> Counter[Outcome]:
    """What came of Stripe's events of so many days. Raises ConfigurationError without Stripe, PaymentError, and what `ask` raises."""
    secret = settings.stripe_secret_key
    if secret is None:
        raise ConfigurationError("STRIPE_SECRET_KEY is not set: there is nothing to ask")

    async def book(database: Database, settings: Settings) -> Counter[Outcome]:
        payments = Payments(settings, secret.get_secret_value(), database)
        try:
            return await payments.reconcile(days)
        finally:
            await payments.close()

    return await ask(settings, book)

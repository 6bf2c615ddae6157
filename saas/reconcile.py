"""`fishserve saas reconcile`: books what Stripe did and no webhook told."""

from __future__ import annotations

from collections import Counter

from inference.errors import ConfigurationError
from saas.app import connect
from saas.billing.service import Outcome, Payments
from saas.database import DatabaseError
from saas.settings import Settings


async def reconcile(settings: Settings, days: int) -> Counter[Outcome]:
    """What came of Stripe's events of so many days. Raises ConfigurationError without Stripe or database, PaymentError."""
    if settings.stripe_secret_key is None:
        raise ConfigurationError("STRIPE_SECRET_KEY is not set: there is nothing to ask")
    store = connect(settings)
    payments = Payments(settings, settings.stripe_secret_key.get_secret_value(), store)
    try:
        return await payments.reconcile(days)
    except DatabaseError as e:
        raise ConfigurationError(f"the database does not answer as it should: {e}") from None
    finally:
        await payments.close()
        await store.close()

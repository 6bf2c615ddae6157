"""Customers of closed accounts go from Stripe; one that Stripe does not delete holds up no other and is tried again later."""

import asyncio

import pytest

from saas.billing.service import Payments
from saas.postgres import PostgresDatabase
from saas.settings import Settings
from tests.saas.api_harness import NOWHERE, StandIn

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # Stripe's library speaks to httpx in an older way
MISSING = {"error": {"type": "invalid_request_error", "code": "resource_missing", "message": "No such customer"}}
FORBIDDEN = {"error": {"type": "invalid_request_error", "message": "The provided key does not have the required permissions"}}


def test_customers_of_closed_accounts_are_deleted_at_stripe(database, caplog):
    allowed = False

    def answer(asked):
        if not allowed and not asked.path.endswith("cus_2"):
            return 403, FORBIDDEN
        return (404, MISSING) if asked.path.endswith("cus_1") else (200, {"id": "cus_0", "object": "customer", "deleted": True})

    async def forget(url):
        store = PostgresDatabase(database.url)
        payments = Payments(Settings(stripe_base_url=url, public_url=NOWHERE), "sk_test_x", store)
        await payments.forget()
        await payments.close()
        await store.close()

    for n in range(3):
        user = database.user()
        bought = {"user_id": user, "credits": 500, "customer": f"cus_{n}"}
        database.call("apply_stripe_event", event_id=f"{n}", type="t", reference=f"pi_{n}", kind="purchase", **bought)
        database.call("close_account", user_id=user)
    with StandIn(answer).running() as stripe:
        asyncio.run(forget(stripe.url))
        assert database.call("customers_to_delete") == []
        assert database.call("operating_figures")["deletions"] == 2
        assert database.call("put_off_figures") == [{"kind": "customer", "items": 2, "failures": 1}]
        assert "deleting customers at Stripe: 2 of 3 failed" in caplog.text
        assert "the key must be allowed to write Customers" in caplog.text
        assert "cus_" not in caplog.text
        allowed = True
        asyncio.run(forget(stripe.url))
        assert len(stripe.asked) == 3
        database.sql("update fishserve.put_off set due_at = now()")
        asyncio.run(forget(stripe.url))
    assert {(asked.method, asked.path) for asked in stripe.asked} == {("DELETE", f"/v1/customers/cus_{n}") for n in range(3)}
    assert database.call("customers_to_delete") == []

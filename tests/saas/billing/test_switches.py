"""Stripe's own tax, tax IDs and invoices: off unless a setting switches them on, and then asked for at the checkout."""

import asyncio
from urllib.parse import parse_qs

import pytest

from saas.auth.caller import Caller
from saas.billing.service import Payments
from saas.billing.stripe_client import checkout_switches
from saas.postgres import PostgresDatabase
from saas.settings import Settings
from tests.saas.api_harness import StandIn
from tests.saas.billing.test_payments import stripes

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # Stripe's library speaks to httpx in an older way
SWITCHES = {
    "automatic_tax[enabled]",
    "tax_id_collection[enabled]",
    "invoice_creation[enabled]",
    "customer_update[address]",
    "customer_update[name]",
}


@pytest.fixture(scope="module")
def service():
    with StandIn(stripes).running() as service:
        yield service


@pytest.fixture
def checkout(data, service):
    """What a checkout asks Stripe for, request by request."""

    def checkout(user, **settings):
        async def buy():
            database = PostgresDatabase(data.url)
            payments = Payments(Settings(stripe_base_url=service.url, **settings), "sk_test_x", database)
            try:
                return await payments.buy(Caller(user, None, frozenset(), "a@example.com"), "small")
            finally:
                await payments.close()
                await database.close()

        service.asked.clear()
        assert asyncio.run(buy()).startswith("https://checkout.stripe.com/")
        return [{name: value[0] for name, value in parse_qs(asked.body.decode()).items()} for asked in service.asked]

    return checkout


ALL = {"stripe_automatic_tax": True, "stripe_tax_ids": True, "stripe_invoices": True}


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        ({}, set()), ({"stripe_automatic_tax": True}, {"automatic_tax[enabled]"}), ({"stripe_tax_ids": True}, {"tax_id_collection[enabled]"}),
        ({"stripe_invoices": True}, {"invoice_creation[enabled]"}),
    ],
    ids=str,
)  # fmt: skip
def test_each_switch_is_asked_for_where_it_is_on(data, checkout, settings, asked):
    (sent,) = checkout(data.user(), **settings)
    assert SWITCHES & sent.keys() == asked
    assert all(sent[name] == "true" for name in asked)


def test_what_a_buyer_enters_is_kept_with_a_customer_who_is_known_and_still_there(data, checkout, service):
    user = data.user()
    data.call(
        "apply_stripe_event", event_id="e", type="t", user_id=user, credits=1, reference="pi_x", kind="purchase", cents=1, customer="cus_1"
    )
    (sent,) = checkout(user, **ALL)
    assert sent.keys() >= SWITCHES
    gone = {"error": {"type": "invalid_request_error", "code": "resource_missing", "param": "customer", "message": "No such customer"}}
    service.answer = lambda asked: (400, gone) if b"customer=cus_1" in asked.body else stripes(asked)
    try:
        again = checkout(user, **ALL)[-1]
    finally:
        service.answer = stripes
    assert SWITCHES & again.keys() == {"automatic_tax[enabled]", "tax_id_collection[enabled]", "invoice_creation[enabled]"}


def test_a_subscription_has_invoices_without_asking():
    switches = checkout_switches(Settings(**ALL), known_customer=False, subscription=True)
    assert switches.keys() == {"automatic_tax", "tax_id_collection"}

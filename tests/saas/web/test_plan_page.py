"""What the app tells of a plan, in a real browser."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import expect

from tests.browser import CHROMIUM

pytestmark = [
    pytest.mark.system(CHROMIUM, "chromium"),
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # Stripe's library speaks to httpx in an older way
]


@pytest.fixture
def plan(product):
    product.database.sql(
        "insert into plans (id, name, stripe_price, amount_cents, credits, active) values ('studio', 'Studio', 'price_s', 2900, 60000, false)"
    )
    yield {"id": "studio", "name": "Studio", "credits": 60_000, "amount_cents": 2900, "currency": "usd", "period": "month"}
    product.database.sql("update profiles set plan = 'free'; delete from subscriptions; delete from plans where id = 'studio'")


def test_a_plan_is_offered_and_once_it_is_had_it_says_when_it_is_renewed(member, product, plan):
    page, later = member.page, datetime.now(UTC) + timedelta(days=20)

    def offer(route):
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"plans": [plan]})

    page.route("**/api/config", offer)
    member.open("credits")
    expect(page.get_by_role("button", name="Subscribe to Studio for $29.00 a month")).to_contain_text("60,000 credits")
    assert member.violations() == []
    told = {"event_id": "evt_plan", "type": "t", "subscription": "sub_1", "user_id": member.id, "price": "price_s", "status": "active"}
    product.database.call("apply_subscription_event", **told, told_at=datetime.now(UTC), period_end=later, customer="cus_1")
    product.database.call("grant_credits", user_id=member.id, credits=500, reference="plan", expires_at=later)
    member.open("credits")
    member.says("It is renewed on")
    member.says("500 credits end on")
    expect(page.get_by_role("button", name="Subscribe to")).to_have_count(0)
    assert member.violations() == []
    member.press("Billing page")
    page.wait_for_url(re.compile("/portal$"))

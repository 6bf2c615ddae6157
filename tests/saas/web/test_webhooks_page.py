"""Webhooks in the app's settings, in a real browser."""

import json
import re

import pytest
from playwright.sync_api import expect
from standardwebhooks.webhooks import Webhook as Verifier

from tests.browser import CHROMIUM
from tests.saas.api_harness import StandIn

pytestmark = [
    pytest.mark.system(CHROMIUM, "chromium"),
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # Stripe's library speaks to httpx in an older way
]


def test_a_webhook_is_added_tried_turned_and_deleted(member):
    page = member.page
    with StandIn(lambda _: (200, b"")).running() as receiver:
        url = f"{receiver.url}/hook"
        member.open("settings")
        panel = page.get_by_role("region", name="Webhooks")
        member.fill("Address", "http://10.0.0.1/hook")
        member.press("Add webhook")
        member.says("Deliveries cannot go there")
        member.fill("Address", url)
        page.get_by_label("a voice is ready").uncheck()
        member.press("Add webhook")
        secret = panel.locator(".secret").inner_text()
        assert member.violations() == []
        member.press("Copy the secret")
        member.says("Copied")
        assert page.evaluate("navigator.clipboard.readText()") == secret
        member.press("I have it")
        expect(panel.get_by_text(secret)).to_have_count(0)
        member.press(f"Send a test to {url}")
        member.says("It arrived: status 200")
        asked = receiver.asked[-1]
        assert Verifier(secret).verify(asked.body, asked.headers)["type"] == "webhook.test"
        member.press(f"Log of {url}")
        log = panel.get_by_role("list", name=f"Log of {url}")
        expect(log).to_contain_text("Arrived")
        expect(log).to_contain_text(asked.headers["webhook-id"])
        assert member.violations() == []
        member.press(f"New secret for {url}")
        page.get_by_role("alertdialog").get_by_role("button", name="New secret").click()
        expect(panel.locator(".secret")).not_to_have_text(secret)
        member.press("I have it")
        receiver.answer = lambda _: (500, b"")
        member.press(f"Send a test to {url}")
        member.says("It failed: answered 500.")
        expect(log).to_contain_text("Given up")
        member.press(f"Delete {url}")
        page.get_by_role("alertdialog").get_by_role("button", name="Delete").click()
        expect(page.get_by_text(re.compile(re.escape(url)))).to_have_count(0)
    assert secret not in json.dumps(page.evaluate("({...localStorage})"))

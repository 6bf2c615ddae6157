"""A link signs in the browser that asked for it, and no other: nobody works, and pays, in a stranger's account."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser import CHROMIUM
from tests.saas.web.conftest import PASSWORD, Visit

pytestmark = pytest.mark.system(CHROMIUM, "chromium")


def ask_for_a_link(visit, path, address):
    visit.open(path)
    visit.fill("E-mail", address)
    if path == "sign-up":
        visit.fill("Password", PASSWORD)
    visit.says("You are a person.")
    visit.press("Create account" if path == "sign-up" else "Send me a link")
    expect(visit.page.get_by_role("heading", name="Check your email")).to_be_visible()


def test_a_strangers_link_signs_nobody_in(browser, product, visit, member):
    address, _ = product.user()
    stranger = Visit(browser, product)
    ask_for_a_link(stranger, "link", address)
    visit.page.goto(product.link(address))
    visit.says("A link signs in only the browser that asked for it.")
    expect(visit.page).not_to_have_url(re.compile("code"))

    ask_for_a_link(stranger, "link", address)
    member.page.goto(product.link(address))  # who is signed in stays who they are
    expect(member.page.get_by_role("link", name="5,000 credits")).to_be_visible()

    tokens = product.session(address)
    told = "&".join(f"{name}={tokens[name]}" for name in ("access_token", "refresh_token", "expires_in", "token_type"))
    visit.open(f"#{told}")
    visit.page.reload()
    expect(visit.page.get_by_role("button", name="Sign in")).to_be_visible()

    ask_for_a_link(stranger, "link", address)
    stranger.page.goto(product.link(address))
    expect(stranger.page.get_by_role("link", name="0 credits")).to_be_visible()
    expect(stranger.page).to_have_url(re.compile("/app/speak$"))
    stranger.end()


def test_who_signs_up_with_an_address_that_another_began_to_sign_up_with_chooses_a_new_password(browser, product, visit):
    first, address = Visit(browser, product), "contested@example.com"
    ask_for_a_link(first, "sign-up", address)
    ask_for_a_link(visit, "sign-up", address)
    visit.page.goto(product.link(address))
    visit.says("Choose your new password now.")
    first.end()

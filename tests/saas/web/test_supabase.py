"""Sign-in by the real supabase-js against @supabase/lite, which speaks GoTrue's protocol over a real PostgreSQL."""

import jwt
import pytest
from playwright.sync_api import expect

from saas import create_app
from saas.settings import Settings
from tests.browser import CHROMIUM
from tests.saas.api_harness import NOWHERE
from tests.saas.conftest import JWT_SECRET, free_port
from tests.saas.web.conftest import PASSWORD, Visit, serving_on

pytestmark = pytest.mark.system(CHROMIUM, "chromium")


class Place:
    """What a visit needs to know of a product."""

    def __init__(self, url, supabase):
        self.url, self.supabase = url, supabase


@pytest.fixture(scope="module")
def place(supabase, built):  # noqa: ARG001 - it must be there
    port = free_port()
    settings = Settings(
        environment="development", public_url=f"http://127.0.0.1:{port}", supabase_url=supabase.url,
        supabase_secret_key=supabase.secret_key, supabase_publishable_key=supabase.publishable_key, legacy_jwt_secret=JWT_SECRET,
        r2_endpoint=NOWHERE, r2_access_key_id="a", r2_secret_access_key="b", r2_bucket_name="c", fishserve_url=NOWHERE,
    )  # fmt: skip
    with serving_on(port, create_app(settings)):
        yield Place(settings.public_url, supabase)


def gateway(supabase):
    """What stands before GoTrue at Supabase and not before lite: it lets other origins ask. And tokens say who issued them, as GoTrue's do."""

    def passed_on(route):
        answer = route.fetch()
        headers = answer.headers | {"access-control-allow-origin": "*"}
        if "access_token" not in answer.text():
            return route.fulfill(response=answer, headers=headers)
        body = answer.json()
        claims = jwt.decode(body["access_token"], JWT_SECRET, ["HS256"], audience="authenticated")
        body["access_token"] = jwt.encode(claims | {"iss": f"{supabase.url}/auth/v1"}, JWT_SECRET, "HS256")
        return route.fulfill(response=answer, headers=headers, json=body)

    return passed_on


def test_supabase_js_signs_up_signs_in_renews_and_signs_out(browser, place):
    visit, address = Visit(browser, place), "someone@example.com"
    page = visit.page
    visit.context.route(f"{place.supabase.url}/**", gateway(place.supabase))
    visit.open("sign-up")
    visit.fill("E-mail", address)
    visit.fill("Password", PASSWORD)
    visit.press("Create account")
    expect(page.get_by_role("link", name="0 credits")).to_be_visible()
    visit.go("Settings")
    expect(page.get_by_label("E-mail").first).to_have_value(address)
    visit.press("Sign out")
    for password, outcome in (("not my password", "Incorrect email or password"), (PASSWORD, "You see the price")):
        visit.fill("E-mail", address)
        visit.fill("Password", password)
        visit.press("Sign in")
        visit.says(outcome)
    session = page.evaluate("JSON.parse(localStorage.getItem('fishserve.session'))")
    assert session["user"]["email"] == address
    page.evaluate("s => localStorage.setItem('fishserve.session', JSON.stringify({...s, expires_at: 1}))", session)
    page.reload()  # the browser knows that the token is old, and has it renewed
    expect(page.get_by_role("link", name="0 credits")).to_be_visible()
    assert page.evaluate("JSON.parse(localStorage.getItem('fishserve.session')).refresh_token") != session["refresh_token"]
    visit.context.close()
    assert [c for c in visit.complaints if not c.startswith("Failed to load resource")] == []
    assert {url for url in visit.asked if not url.startswith((place.url, place.supabase.url))} == set()

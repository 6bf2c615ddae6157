"""What the law asks of the app, in a real browser: a form to report misuse, terms to accept, and voices that are blocked."""

import pytest
from playwright.sync_api import expect

from saas import create_app
from saas.voices.consent import VERSION
from tests.browser import CHROMIUM
from tests.saas.conftest import free_port
from tests.saas.web.conftest import Visit, serving_on

pytestmark = [
    pytest.mark.system(CHROMIUM, "chromium"),
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # Stripe's library speaks to httpx in an older way
]
TERMS = "https://example.com/terms"


@pytest.fixture
def strict(product):
    """The same product with terms, which must be accepted or may be."""

    def strict(required):
        url = f"http://127.0.0.1:{port}"
        given = {
            "public_url": url, "supabase_url": url, "jwt_issuer": f"{product.url}/auth/v1", "terms_url": TERMS, "terms_version": "2026-11-01",
            "privacy_url": "https://example.com/privacy", "privacy_version": "3", "terms_enforced": required,
        }  # fmt: skip
        return serving_on(port, create_app(product.settings.model_copy(update=given))), url

    port = free_port()
    return strict


def test_anybody_reports_what_they_heard(visit, product):
    page = visit.page
    visit.open("sign-in")
    page.get_by_role("link", name="Report misuse").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Report misuse")
    visit.says("You are a person.")
    assert visit.violations() == []
    page.get_by_label("Whose voice it is").check()
    visit.fill("Where is it?", "https://example.com/song.mp3")
    visit.fill("What is wrong with it?", "It is my voice,\nand nobody asked me.")
    visit.fill("Your e-mail address, if you want an answer", "me@example.com")
    visit.press("Send the report")
    expect(page.get_by_role("heading", name="Thank you")).to_be_focused()
    assert visit.violations() == []
    (row,) = product.database.sql("select id::text, kind, subject, details, contact, user_id from reports where contact = 'me@example.com'")
    visit.says(row.pop("id"))
    assert row == {
        "kind": "voice", "subject": "https://example.com/song.mp3", "details": "It is my voice,\nand nobody asked me.", "contact": "me@example.com",
        "user_id": None,
    }  # fmt: skip


def test_terms_are_accepted_once_and_the_links_lead_to_them(browser, product, strict):
    address, user = product.user(5000)
    session = product.session(address)
    server, url = strict(required=True)
    with server:
        visit = Visit(browser, product, url=url, session=session)
        page = visit.page
        visit.open("speak")
        dialog = page.get_by_role("alertdialog", name="Please read and accept")
        expect(dialog.get_by_role("link", name="Terms of service")).to_have_attribute("href", TERMS)
        visit.says("Version 2026-11-01")
        assert visit.violations() == []
        page.keyboard.press("Escape")
        expect(dialog).to_be_visible()
        visit.press("I accept")
        expect(dialog).to_have_count(0)
        visit.speak("Hello there.")
        page.reload()
        expect(page.get_by_label("Text to speak")).to_be_visible()
        expect(page.get_by_role("link", name="Privacy policy")).to_be_visible()
        expect(dialog).to_have_count(0)
        visit.end()
    rows = product.database.sql("select document, version from acceptances where user_id = %s order by document", user)
    assert [(row["document"], row["version"]) for row in rows] == [("privacy", "3"), ("terms", "2026-11-01")]


def test_terms_that_are_not_enforced_can_wait(browser, product, strict):
    address, _ = product.user(5000)
    session = product.session(address)
    server, url = strict(required=False)
    with server:
        visit = Visit(browser, product, url=url, session=session)
        visit.open("speak")
        visit.press("Not now")
        expect(visit.page.get_by_role("alertdialog")).to_have_count(0)
        visit.speak("Hello there.")
        visit.end()


def test_a_blocked_voice_says_so(member, product):
    given = {"name": "Star", "transcript": "Hum.", "content_type": "audio/wav", "bytes": 5, "consent": VERSION}
    voice = product.database.call("create_voice", user_id=member.id, **given)["voice"]
    product.database.call("confirm_voice", user_id=member.id, voice_id=voice["id"], seconds=2, sha256="c0" * 32)
    product.database.call("admin_block_voice", actor="kim", reason="report 1", voice=voice["id"])
    member.open("voices")  # anew: the list of before is kept for a while
    expect(member.page.locator(".tag.bad")).to_have_text("Blocked")
    member.says("this voice is blocked by the operator of this service")
    expect(member.page.get_by_role("button", name="Speak with it")).to_have_count(0)
    assert member.violations() == []

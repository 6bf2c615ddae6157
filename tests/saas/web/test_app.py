"""The app in a real browser before the whole product: what people do, and what may go wrong meanwhile."""

import re

import httpx
import pytest
from playwright.sync_api import expect

from tests.browser import CHROMIUM
from tests.saas.web.conftest import PASSWORD, Visit, come_true
from tests.saas.web.looking import HELLO, LONG, clip, decoded_seconds, expire, ledger, session_of
from tests.waiting import HANG_SECONDS, wait

pytestmark = [
    pytest.mark.system(CHROMIUM, "chromium"),
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # Stripe's library speaks to httpx in an older way
]


def test_from_the_first_visit_to_the_last(visit, product):
    page, address = visit.page, "newcomer@example.com"
    visit.open()
    page.get_by_role("link", name="Create an account").click()
    visit.fill("E-mail", address)
    visit.fill("Password", PASSWORD)
    visit.says("You are a person.")
    visit.press("Create account")
    expect(page.get_by_role("heading", name="Check your email")).to_be_focused()
    visit.open("sign-in")
    visit.fill("E-mail", address)
    visit.fill("Password", PASSWORD)
    visit.says("You are a person.")
    visit.press("Sign in")
    visit.says("This address is not confirmed yet")
    page.goto(product.link(address))
    expect(page.get_by_label("Text to speak")).to_be_visible()
    assert "access_token" not in page.url

    visit.fill("Text to speak", HELLO)
    visit.says("and you have 0")
    page.get_by_role("link", name="Get credits").click()
    page.get_by_role("button", name="Buy 10,000 credits").click()
    page.wait_for_url(re.compile("/pay/"))
    page.goto(product.stripe.pay(page.url.rpartition("/")[2]))
    visit.says("Your credits are here.")
    expect(page.get_by_role("link", name="10,000 credits")).to_be_visible()

    visit.go("Voices")
    visit.press("Add a voice")
    page.locator("input[type=file]").set_input_files(clip())
    visit.says("clip.wav, 2.0 s")
    visit.fill("Transcript, word for word", "Hum.")
    visit.fill("Name", "Hummer")
    visit.press("Save voice")
    expect(page.get_by_role("dialog")).to_be_visible()  # nobody has agreed yet
    page.get_by_label("This is my own voice").check()
    visit.press("Save voice")
    expect(page.get_by_role("dialog")).to_have_count(0)
    visit.press("Speak with it")

    expect(page.get_by_label("Voice")).to_contain_text("Hummer")
    visit.speak(HELLO)
    heard = visit.length()
    with page.expect_download() as download:
        visit.press("Download")
    assert download.value.suggested_filename == "hello-there.mp3"
    assert abs(decoded_seconds(download.value.path()) - heard) < 0.1
    with product.client(session_of(page)) as client:
        (job,) = client.get("/api/jobs").json()
        me = client.get("/api/me").json()["id"]
    assert abs(job["seconds"] - heard) < 0.1
    assert job["charged"] == max(10, -(-round(job["seconds"] * 1000) // 100))
    visit.says(f"It cost {job['charged']} credits")

    visit.go("Credits")
    left = 10_000 - job["charged"]
    assert ledger(visit, 3) == [
        ["Returned: speech was shorter", f"+{job['reserved'] - job['charged']}", f"{left:,}"],
        ["Reserved for speech", f"−{job['reserved']}", f"{10_000 - job['reserved']:,}"],
        ["Bought Receipt", "+10,000", "10,000"],
    ]
    expect(page.get_by_role("link", name=re.compile("^Receipt of"))).to_have_attribute("href", f"{product.stripe.service.url}/receipt")
    expect(page.get_by_role("link", name=f"{left:,} credits")).to_be_visible()

    assert len(product.objects(me)) == 2
    assert all(words in product.everything() for words in (address, HELLO, "Hum.", "Hummer"))
    visit.go("Settings")
    visit.press("Delete my account and all my audio")
    expect(page.get_by_role("button", name="Delete for good")).to_be_disabled()
    page.get_by_label(f"Type {address} to continue").fill(address)
    visit.press("Delete for good")
    visit.says("Your account and all your audio are deleted.")
    product.database.sql("update deleted_objects set due_at = now()")  # a quarter of an hour later the clip's upload address is dead
    come_true(page, lambda: not product.objects(me) and address not in product.everything())  # the closing is told by mail
    left = product.everything()
    assert me in left  # the ledger, without a name on it
    assert not [words for words in (address, HELLO, "Hum.", "Hummer") if words in left]
    visit.fill("E-mail", address)
    visit.fill("Password", PASSWORD)
    visit.says("You are a person.")
    visit.press("Sign in")
    visit.says("Incorrect email or password")


def test_two_tabs_spend_the_last_credit_once(browser, product):
    address, user = product.user(30)
    visit = Visit(browser, product, session=product.session(address))
    one, two = visit.page, visit.tab()
    for tab in (one, two):
        visit.open("speak", tab)
        visit.type(HELLO, tab)
    for tab in (one, two):
        visit.press("Speak", tab)
    cost = one.get_by_text("It cost")  # whichever request the server takes first is the one that is spoken
    refused = one.get_by_text("Nothing was charged")
    expect(cost.or_(refused).first).to_be_visible()
    spoken, other = (one, two) if cost.is_visible() else (two, one)
    visit.says("It cost", spoken)
    visit.says("Nothing was charged", other)
    expect(other.get_by_role("alert").get_by_role("link", name="Get credits")).to_be_visible()
    kinds = [row["kind"] for row in product.database.sql("select kind from transactions where user_id = %s order by id", user)]
    assert kinds[:2] == ["grant", "reserve"]
    assert kinds.count("reserve") == 1
    visit.end()


def test_a_token_that_has_expired_is_renewed_and_nobody_notices(member, product):
    member.type(HELLO)
    expire(member, product)
    before = session_of(member.page)["refresh_token"]
    member.press("Speak")
    member.says("It cost")
    assert session_of(member.page)["refresh_token"] != before


def test_a_session_that_has_ended_asks_to_sign_in_and_keeps_what_was_typed(browser, product):
    address, user = product.user_with_password()
    product.database.call("grant_credits", user_id=user, credits=100, reference="test")
    visit = Visit(browser, product, session=product.session(address))
    visit.open("speak")
    visit.type("Keep these words.")
    product.database.sql("delete from auth.sessions where user_id = %s", user)
    expire(visit, product)
    visit.press("Speak")
    visit.says("Your session has ended.")
    visit.fill("E-mail", address)
    visit.fill("Password", PASSWORD)
    visit.says("You are a person.")
    visit.press("Sign in")
    expect(visit.page.get_by_label("Text to speak")).to_have_value("Keep these words.")
    visit.says("At most")
    visit.end()


def test_too_many_requests_count_down(member):
    refusal = {"error": {"message": "10 a minute are allowed", "type": "rate_limit_error", "param": None, "code": "rate_limited"}}
    member.page.route("**/v1/audio/speech", lambda route: route.fulfill(status=429, json=refusal, headers={"Retry-After": "600"}))
    member.page.clock.install()
    member.type(HELLO)
    member.press("Speak")
    expect(member.page.get_by_text(re.compile(r"Try again in (600|[1-5]\d\d) s\."))).to_be_visible()
    expect(member.page.get_by_role("button", name="Speak", exact=True)).to_be_disabled()
    assert member.violations() == []
    member.page.clock.fast_forward("10:00")
    expect(member.page.get_by_role("button", name="Speak", exact=True)).to_be_enabled()
    expect(member.page.get_by_role("alert")).to_have_count(0)


def test_offline_is_said_and_ends_by_itself(member):
    come_true(member.page, lambda: any("settings" in url for url in member.loaded) and {*member.asked} == {*member.loaded})  # every page
    member.context.set_offline(True)
    member.go("Settings")
    member.says("You are offline.")
    member.page.get_by_role("navigation").get_by_role("link", name="Speak").click()
    member.says("You are offline.")
    member.fill("Text to speak", HELLO)
    expect(member.page.get_by_role("button", name="Speak", exact=True)).to_be_disabled()
    assert member.violations() == []
    member.context.set_offline(False)
    expect(member.page.get_by_text("You are offline.")).to_have_count(0)
    member.speak(HELLO)


def test_a_server_that_fails_is_said_and_can_be_asked_again(member):
    asked = []

    def keep(route):
        asked.append(route)

    member.page.route("**/api/jobs?*", keep)
    member.go("History")
    expect(member.page.get_by_role("status", name="Loading")).to_be_visible()
    member.page.route("**/api/jobs?*", lambda route: route.fulfill(status=503, body="<html>"))
    come_true(member.page, lambda: asked)
    asked[0].fulfill(status=503, body="<html>")
    member.says("The server answered with an error (503).")
    assert member.violations() == []
    member.page.unroute("**/api/jobs?*")
    member.press("Try again")
    member.says("Nothing here yet")


def test_a_server_that_is_not_there_is_said_at_the_start(visit):
    visit.page.route("**/api/config", lambda route: route.abort())
    visit.open()
    visit.says("The service cannot be reached")
    assert visit.violations() == []
    visit.page.unroute("**/api/config")
    visit.press("Try again")
    expect(visit.page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_a_result_that_is_no_longer_kept_says_so(member, product):
    member.speak(HELLO)
    product.database.sql("update jobs set expires_at = now() - interval '1 day' where user_id = %s", member.id)
    member.go("History")
    member.says("No longer kept")
    assert member.page.get_by_role("button", name=re.compile("^(Play|Download)")).count() == 0
    assert member.violations() == []


def test_a_check_for_persons_that_cannot_be_loaded_is_said(visit):
    visit.context.unroute("https://challenges.cloudflare.com/**")
    visit.context.route("https://challenges.cloudflare.com/**", lambda route: route.abort())
    visit.open("sign-up")
    visit.says("The CAPTCHA could not be loaded.")
    visit.fill("E-mail", "a@example.com")
    visit.fill("Password", PASSWORD)
    visit.press("Create account")
    visit.says("the CAPTCHA is still running")
    assert visit.violations() == []


def test_a_provider_that_the_project_has_switched_on_gets_a_button(visit, product):
    visit.page.route(
        "**/auth/v1/settings", lambda route: route.fulfill(json={"external": {"google": True, "github": False, "email": True}})
    )
    visit.page.route("**/auth/v1/authorize*", lambda route: route.fulfill(body="at Google"))
    visit.open("sign-in")
    visit.press("Continue with Google")
    visit.page.wait_for_url(re.compile("/auth/v1/authorize"))
    asked = httpx.URL(visit.page.url).params
    assert (asked["provider"], asked["redirect_to"]) == ("google", f"{product.url}/app")


def test_history_is_searched_heard_downloaded_and_deleted(member, product):
    member.speak("The red boat sails over the quiet sea tonight.")
    member.speak("A green hill.")
    member.go("History")
    expect(member.page.locator(".rows > li")).to_have_count(2)
    member.page.get_by_label("Search your speech").fill("boat")
    expect(member.page.locator(".rows > li")).to_have_count(1)
    member.press("Play “The red boat sails over the quiet sea tonight.”")
    member.heard(1)
    with member.page.expect_download() as download:
        member.press("Download “The red boat sails over the quiet sea tonight.”")
    assert abs(decoded_seconds(download.value.path()) - member.length()) < 0.1
    member.page.get_by_label("Search your speech").fill("nothing like it")
    member.says("Nothing with “nothing like it” in it.")
    member.page.get_by_label("Search your speech").fill("")
    member.press("Delete “The red boat sails over the quiet sea tonight.”")
    member.page.get_by_role("alertdialog").get_by_role("button", name="Delete").click()
    expect(member.page.locator(".rows > li")).to_have_count(1)
    come_true(member.page, lambda: len(product.objects(member.id)) == 1)


def test_a_key_is_shown_once_opens_what_it_may_and_is_revoked(member, product):
    member.go("Keys")
    member.fill("Name", "A program")
    member.page.get_by_label("read history and balance").uncheck()
    member.says("You are a person.")
    member.press("Create a key")
    expect(member.page.get_by_role("heading", name="Your new key")).to_be_focused()
    member.press("Copy the key")
    key = member.page.evaluate("navigator.clipboard.readText()")
    assert key.startswith("fsk_")
    assert key == member.page.locator("code.secret").inner_text()
    member.press("I have it")
    assert key not in member.page.content()
    with httpx.Client(base_url=product.url, headers={"Authorization": f"Bearer {key}"}) as client:
        assert client.post("/v1/audio/speech", json={"input": HELLO}, timeout=HANG_SECONDS).status_code == 200
        assert client.get("/api/credits").status_code == 403
        member.page.reload()
        member.says("last used")
        member.press("Revoke A program")
        member.page.get_by_role("alertdialog").get_by_role("button", name="Revoke").click()
        expect(member.page.get_by_role("button", name="Revoke A program")).to_have_count(0)
        wait(lambda: client.get("/api/credits").status_code == 401)  # the dialog hides the button before the key is revoked


def test_a_voice_is_recorded_renamed_heard_and_deleted(member, product):
    member.go("Voices")
    member.says("No voice of your own yet")
    member.press("Add a voice")
    member.page.locator("input[type=file]").set_input_files(clip(0.4))
    member.says("The clip lasts 0.4 s; a voice needs 1 to 90 s.")
    member.press("Record")
    expect(member.page.get_by_text(re.compile(r"Recording, ([2-9]|\d\d+) s")).first).to_be_visible()  # the false microphone beeps
    member.press("Stop recording")
    expect(member.page.get_by_text(re.compile(r"recording, \d+\.")).first).to_be_visible()
    expect(member.page.get_by_label("Transcript, word for word")).to_have_value(re.compile("^The boat left"))
    member.fill("Name", "Mine")
    member.page.get_by_label("This is my own voice").check()
    member.press("Save voice")
    expect(member.page.get_by_role("dialog")).to_have_count(0)
    expect(member.page.get_by_role("button", name="Add a voice")).to_be_visible()
    member.press("Rename Mine")
    member.page.get_by_label("New name of Mine").fill("Still mine")
    member.page.keyboard.press("Enter")
    member.press("Play Still mine")
    member.heard(1)
    assert len(product.objects(member.id)) == 1
    member.press("Delete Still mine")
    member.page.get_by_role("alertdialog").get_by_role("button", name="Delete").click()
    member.says("No voice of your own yet")
    come_true(member.page, lambda: not product.objects(member.id))


def test_a_link_signs_in_once_and_a_forgotten_password_is_replaced(visit, product):
    address, _ = product.user_with_password()
    visit.open("link")
    visit.fill("E-mail", address)
    visit.says("You are a person.")
    visit.press("Send me a link")
    visit.says("Check your email")
    link = product.link(address)
    visit.page.goto(link)
    expect(visit.page.get_by_label("Text to speak")).to_be_visible()
    visit.go("Settings")
    visit.press("Sign out")
    expect(visit.page.get_by_role("heading", name="Sign in")).to_be_visible()
    visit.page.goto(link)
    visit.says("The link has been used or has expired.")
    visit.page.get_by_role("link", name="Forgotten?").click()
    visit.fill("E-mail", address)
    visit.says("You are a person.")
    visit.press("Send me a link")
    visit.says("Check your email")
    visit.page.goto(product.link(address))
    visit.says("Choose your new password now.")
    visit.fill("New password", "another long sentence")
    visit.press("Set password")
    visit.says("Your new password is set.")
    visit.open("speak")
    visit.go("Settings")
    visit.press("Sign out")
    for password, outcome in ((PASSWORD, "Incorrect email or password"), ("another long sentence", "You see the price")):
        visit.fill("E-mail", address)
        visit.fill("Password", password)
        visit.says("You are a person.")
        visit.press("Sign in")
        visit.says(outcome)


@pytest.mark.parametrize("reachable", [True, False])
def test_signing_out_leaves_nothing_for_the_next_one(member, reachable):
    member.type("My secret words.")
    member.go("Settings")
    if not reachable:
        member.page.route("**/auth/v1/logout*", lambda route: route.abort())
    member.press("Sign out")
    expect(member.page.get_by_role("heading", name="Sign in")).to_be_visible()
    stored = member.page.evaluate("JSON.stringify({...localStorage}) + JSON.stringify({...sessionStorage})")
    assert "secret words" not in stored
    assert "access_token" not in stored
    if not reachable:
        assert all("Failed to fetch" in complaint or "Failed to load" in complaint for complaint in member.complaints)
        member.complaints.clear()  # supabase-js says on the console that nobody could be told


def test_axe_finds_nothing_on_any_page_in_either_scheme(browser, product):
    address, _ = product.user(1000)

    def check(visit):
        found = visit.violations()
        visit.page.emulate_media(color_scheme="dark")
        found += visit.violations("color-contrast")
        visit.page.emulate_media(color_scheme="light")
        assert found == [], visit.page.url

    visit = Visit(browser, product, reduced_motion="reduce")
    for path in ("sign-in", "sign-up", "link", "reset"):
        visit.open(path)
        visit.says("You are a person.")
        check(visit)
    visit.end()
    visit = Visit(browser, product, session=product.session(address), reduced_motion="reduce")
    visit.open("speak")
    visit.speak(HELLO)
    check(visit)
    visit.fill("Text to speak", LONG * 3)
    visit.says("and you have")
    check(visit)
    for name in ("History", "Keys", "Credits", "Settings"):
        visit.go(name)
        expect(visit.page.get_by_role("status", name="Loading")).to_have_count(0)
        check(visit)
    visit.press("Delete my account and all my audio")
    check(visit)
    visit.press("Cancel")
    visit.go("Voices")
    visit.says("No voice of your own yet")
    check(visit)
    visit.press("Add a voice")
    check(visit)
    visit.open("nowhere")
    visit.says("There is no such page.")
    check(visit)
    visit.end()


def test_nothing_is_wider_than_the_window(member):
    for name in ("Voices", "History", "Keys", "Credits", "Settings", "Speak"):
        member.go(name)
        for width in (320, 390, 768, 1920):
            member.page.set_viewport_size({"width": width, "height": 800})
            assert member.page.evaluate("document.documentElement.scrollWidth") <= width, (name, width)


def test_all_of_it_works_by_keyboard(member):
    page = member.page
    expect(page.get_by_label("Text to speak")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_label("Text to speak")).to_be_focused()
    page.keyboard.type(HELLO)
    member.says("At most")
    page.keyboard.press("Control+Enter")
    member.says("It cost")
    expect(page.get_by_role("button", name="Play the sound")).to_be_visible()  # it has ended, and stands still
    page.get_by_role("slider").focus()
    page.keyboard.press("Home")
    expect(page.get_by_role("slider")).to_have_attribute("aria-valuetext", re.compile("^0 of "))
    member.go("Voices")
    expect(page.locator("main")).to_be_focused()  # a screen reader goes on there
    page.get_by_role("button", name="Add a voice").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("button", name="Add a voice")).to_be_focused()


def test_the_scheme_follows_the_system_until_chosen(browser, product):
    visit = Visit(browser, product, color_scheme="dark")
    visit.open("sign-in")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    dark = visit.page.evaluate(ground)
    visit.press("Light colours")
    light = visit.page.evaluate(ground)
    assert light != dark
    visit.page.reload()
    assert visit.page.evaluate(ground) == light
    visit.press("Dark colours")
    assert visit.page.evaluate(ground) == dark
    assert visit.page.evaluate("localStorage.getItem('fishserve.theme')") is None
    visit.end()

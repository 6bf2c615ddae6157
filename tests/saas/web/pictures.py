"""Takes the pictures of the app in docs/img, with minnow speaking: `.venv/bin/python -m pytest tests/saas/web/pictures.py`.

The fonts fonts-inter and fonts-sil-charis make the pictures look as the app does elsewhere.
"""

from types import SimpleNamespace

import httpx
import pytest
from playwright.sync_api import expect

from tests.browser import CHROMIUM
from tests.saas.web.conftest import PASSWORD, ROOT, Visit

pytestmark = [pytest.mark.system(CHROMIUM, "chromium"), pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")]
IMAGES = ROOT / "docs" / "img"
SIZES = {1280: 860, 390: 844}
STORY = (
    "The old lighthouse keeper climbed the stairs one last time. Below him the harbour was quiet, and the lamps of the fishing boats swung "
    "slowly in the dark."
)
SAID = [
    "Chapter two. The harbour, in the rain.",
    "Your table for four is ready at half past seven.",
    "Welcome back. You have three new messages, and the 9:15 train is on time.",
    "Mind the gap between the train and the platform.",
]


@pytest.fixture(scope="module")
def anna(product):
    """Somebody who has used the app for a while."""
    address, user = product.user_with_password()
    with product.client(product.session(address)) as client:
        client.patch("/api/me", json={"display_name": "Anna Jensen"})
        checkout = client.post("/api/billing/checkout", json={"pack": "small"}).json()["url"]
        product.stripe.pay(checkout.rpartition("/")[2])
        for text in SAID:
            client.post("/v1/audio/speech", json={"input": text}).raise_for_status()
        for name, text in (("Anna, reading", STORY), ("Anna, on the phone", SAID[2])):
            clip = client.post("/v1/audio/speech", json={"input": text, "response_format": "wav"}).content
            body = {"name": name, "transcript": text, "content_type": "audio/wav", "bytes": len(clip), "consent": True}
            made = client.post("/api/voices", json=body).json()
            httpx.put(made["upload"]["url"], content=clip, headers=made["upload"]["headers"]).raise_for_status()
            client.post(f"/api/voices/{made['voice']['id']}/confirm").raise_for_status()
        for number, name in enumerate(["Audiobook script", "Phone menu"]):
            headers = {"cf-turnstile-response": f"create-key:{address}{number}"}
            client.post("/api/keys", json={"name": name, "scopes": ["speak", "read"][: number + 1]}, headers=headers).raise_for_status()
    return SimpleNamespace(address=address, id=user)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", SIZES)
def test_pictures(browser, product, anna, width, scheme):
    visit = Visit(browser, product, viewport={"width": width, "height": SIZES[width]}, color_scheme=scheme)
    page = visit.page

    def picture(name, **options):
        page.mouse.move(0, 0)
        page.wait_for_timeout(200)
        page.screenshot(path=IMAGES / f"app-{name}-{width}{'' if scheme == 'light' else '-dark'}.png", **options)

    visit.open("sign-up")
    visit.says("You are a person.")
    picture("sign-up")
    visit.open("sign-in")
    visit.says("You are a person.")
    picture("sign-in")
    visit.open("report")
    visit.says("You are a person.")
    picture("report")
    visit.open("sign-in")
    visit.says("You are a person.")
    page.get_by_label("E-mail").fill(anna.address)
    page.get_by_label("Password").fill(PASSWORD)
    visit.press("Sign in")
    page.get_by_label("Text to speak").fill(STORY)
    visit.says("At most")
    visit.press("Speak")
    visit.says("It cost")
    visit.heard(5)
    picture("speak")
    visit.press("Stop")
    for name in ("Voices", "History", "Keys", "Credits", "Settings"):
        visit.go(name)
        expect(page.get_by_role("status", name="Loading")).to_have_count(0)
        if name == "Voices":
            page.get_by_role("button", name="Play Anna, reading").click()
            visit.heard(3)
        picture(name.lower())
        if name == "Voices":
            visit.press("Add a voice")
            picture("new-voice")
            visit.press("Close")
    visit.end()

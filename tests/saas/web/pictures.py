"""Takes the pictures of the app in docs/img, with minnow speaking: `.venv/bin/python -m pytest tests/saas/web/pictures.py`.

The fonts fonts-inter and fonts-sil-charis make the pictures look as the app does elsewhere.
"""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import uuid4

import httpx
import psycopg
import pytest
from playwright.sync_api import expect

from saas.database import named
from tests.browser import CHROMIUM
from tests.saas.admin.conftest import SHA, paid
from tests.saas.conftest import called
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


@pytest.fixture(scope="module")
def shop(product):
    """What an operator sees after some weeks of business: users, payments, refunds, jobs of every kind, acts. The id of one user."""
    data, now = product.database, datetime.now(UTC)
    operator, _ = product.operator("kim@speech.example")
    users = {}
    for number, name in enumerate(["anna.jensen", "bruno", "chiara.conti", "dev.patel", "emre", "freja.lund", "gita"]):
        address = f"{name}@example.{'com' if number % 2 else 'org'}"
        users[name] = data.call("local_create_user", email=address, password_hash=None, confirmed=True)["id"]
        data.sql("update profiles set created_at = now() - %s where id = %s", timedelta(days=5 * number + 2, hours=3 * number), users[name])
    data.sql(
        "insert into plans (id, name, stripe_price, amount_cents, credits, weight, max_running) values ('studio', 'Studio', 'price_s', 2900, 60000, 2, 8)"
    )
    buyers = [users[name] for name in ("anna.jensen", "bruno", "chiara.conti", "freja.lund")]
    for number in range(14):
        payment, cents = f"pi_3Qx{number:02}kLm8fSpeech", (500, 2000, 500, 8000)[number % 4]
        paid(data, buyers[number % 4], payment, credits=cents * 20, cents=cents)
        data.sql("update payments set created_at = %s where reference = %s", now - timedelta(days=2 * number, hours=number), payment)
    back = {
        "event_id": "evt_r",
        "type": "refund.created",
        "reference": "pi_3Qx02kLm8fSpeech",
        "kind": "refund",
        "object": "re_1",
        "cents": 200,
    }
    data.call("apply_stripe_event", **back)
    data.call(
        "apply_stripe_event",
        **back | {"event_id": "evt_d", "reference": "pi_3Qx05kLm8fSpeech", "kind": "dispute", "object": "dp_1", "cents": 2000},
    )
    anna = users["anna.jensen"]
    with psycopg.connect(data.owner_url) as connection:  # one transaction, before whose end the API does not see the jobs

        def call(function, **given):
            return called(connection, function, named(given))

        for number, end in enumerate(["settle", "settle", "failed", "settle", "cancelled", "run", "wait", "wait"]):
            for user in (anna, users["bruno"], users["freja.lund"])[: 3 - number % 3]:
                text = STORY[: 60 + 12 * number]
                taken = call("process_audio_request", user_id=user, idempotency_key=uuid4().hex, fingerprint="f", text=text, token_hash=SHA)
                job = taken["job"]["id"]
                if end == "wait":
                    continue
                call("start_job", job_id=job, backend="runpod", backend_id=f"rp-{number}")
                if end == "settle":
                    call("settle_job", job_id=job, seconds=5.2 + number, frames=112, bytes=9000, sha256=SHA, object_key=f"results/{job}")
                elif end != "run":
                    call("refund_job", job_id=job, status=end, error="the worker ran out of memory" if end == "failed" else None)
        connection.execute(
            "update public.jobs j set created_at = created_at - ago, started_at = started_at - ago, finished_at = finished_at - ago + interval '4 s',"
            " lease_until = case when finished_at is null then now() + interval '1 day' end"
            " from (select id, interval '4 minutes' * row_number() over (order by idempotency_key) as ago from public.jobs) o where o.id = j.id"
        )
    for number, name in enumerate(["Audiobook script", "Phone menu"]):
        data.call(
            "create_api_key", user_id=anna, name=name, prefix=f"4f1c09ab77e{number}", hash=SHA, scopes=["speak", "read"][: number + 1]
        )
    by = {"actor": operator, "reason": "goodwill, ticket 17"}
    data.call("admin_grant", **by, user_id=anna, credits=5000, reference="ticket 17")
    data.call("admin_set_plan", **by | {"reason": "pilot customer, until March"}, user_id=anna, plan="studio")
    data.call(
        "admin_suspend", **by | {"reason": "stolen card, see the dispute dp_1"}, user_id=users["bruno"], until=now + timedelta(days=7)
    )
    data.call("admin_set_price", **by | {"reason": "10 % off for a fortnight"}, credits_per_second="9", minimum=9)
    data.call("admin_set_price", **by | {"reason": "the fortnight is over"}, credits_per_second="10", minimum=10)
    return SimpleNamespace(operator=operator, anna=anna)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", SIZES)
def test_pictures_of_the_desk(browser, product, shop, width, scheme):
    size = {"width": width, "height": SIZES[width]}
    visit = Visit(browser, product, session=product.session(shop.operator), viewport=size, color_scheme=scheme)
    page = visit.page

    def picture(name):
        expect(page.get_by_role("status", name="Loading")).to_have_count(0)
        page.mouse.move(0, 0)
        page.wait_for_timeout(200)
        page.screenshot(path=IMAGES / f"desk-{name}-{width}{'' if scheme == 'light' else '-dark'}.png")

    for name in ("users", "ledger", "jobs", "payments", "revenue", "queue", "prices", "actions"):
        visit.open(f"admin/{name}")
        expect(page.get_by_role("heading", level=1)).to_have_text(name.title())
        expect(page.get_by_role("cell").first).to_be_visible()
        picture(name)
    visit.open(f"admin/users/{shop.anna}")
    visit.says("anna.jensen@example")
    picture("account")
    visit.press("Give credits")
    visit.fill("How many credits", "5000")
    visit.fill("Reason, for the record", "goodwill, ticket 21")
    picture("act")
    visit.end()


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

"""The whole product on this machine, as `fishserve saas --embedded` has it, and Debian's Chromium before it. Cloudflare and Stripe are stand-ins:
what they sign and count, they really do."""

import contextlib
import email
import hashlib
import hmac
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx
import psycopg
import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

from inference.hub import EMBEDDED_VOICE
from saas import create_app
from saas.settings import Settings
from saas.storage.bucket import cors
from tests.browser import CHROMIUM
from tests.inference.server.conftest import Server
from tests.npm import alone, npm, packages
from tests.saas.api_harness import StandIn
from tests.saas.conftest import free_port
from tests.waiting import HANG_SECONDS
from tests.worker.conftest import ROOT

WEB = ROOT / "saas" / "web"
WEBHOOK_SECRET = "whsec_test"
SITE_KEY = "0x4AAAAAAAtest"
PASSWORD = "a long sentence to sign in with"


def node_is_new_enough():
    """Vite wants 20.19; Debian 12 has 18."""
    if not shutil.which("npm"):
        return False
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(map(int, re.findall(r"\d+", version)[:2])) >= (20, 19)


@pytest.fixture(scope="session")
def installed():
    """The app's packages, as its lock file names them."""
    if not node_is_new_enough():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("the app is built with Node 20.19 or newer")
    packages(WEB)


@pytest.fixture(scope="session")
def built(installed):  # noqa: ARG001 - it must be there
    """The app as it is served."""
    made = WEB / "dist" / "index.html"
    sources = [WEB / "index.html", WEB / "vite.config.ts", WEB / "package-lock.json", *(WEB / "public").iterdir()]
    sources += [*(WEB / "src").rglob("*"), *(ROOT / "inference" / "server" / "page" / "shared").iterdir()]
    with alone(WEB):
        if not made.exists() or made.stat().st_mtime < max(source.stat().st_mtime for source in sources):
            npm(WEB, "run", "--silent", "build")
    return made.parent


@pytest.fixture(scope="session")
def speaker(tmp_path_factory):
    """A fishserve with minnow."""
    with Server(EMBEDDED_VOICE, tmp_path_factory.mktemp("voices")).wait_ready() as server:
        yield server


class Cloudflare:
    """Turnstile: a widget that passes at once, and the address that says whether its tokens are good. Each is, once, for what it was made."""

    SCRIPT = """
    window.turnstile = {
      render(element, options) {
        const give = () => options.callback(`${options.action}:${crypto.randomUUID()}`);
        element.textContent = "You are a person.";
        Object.assign(element.style, { padding: "19px", border: "1px solid", borderRadius: "4px" });
        element.give = give;
        setTimeout(give);
        return element;
      },
      reset: (element) => setTimeout(element.give),
      remove: (element) => (element.textContent = ""),
    };
    """

    def __init__(self):
        self.used = set()
        self.service = StandIn(self.answer)

    def answer(self, asked):
        token = parse_qs(asked.body.decode())["response"][0]
        good = ":" in token and token not in self.used
        self.used.add(token)
        return 200, {"success": good, "hostname": "127.0.0.1", "action": token.partition(":")[0]}


class Stripe:
    """Checkout: a page with one button. Pressing it pays, and the webhook is told so, signed as Stripe signs."""

    def __init__(self):
        self.api, self.sessions = "", {}
        self.service = StandIn(self.answer)

    def answer(self, asked):
        if asked.path == "/v1/checkout/sessions":
            form = {name: values[0] for name, values in parse_qs(asked.body.decode()).items()}
            name = f"cs_{uuid4().hex}"
            self.sessions[name] = form
            return 200, {"id": name, "object": "checkout.session", "url": f"{self.service.url}/pay/{name}"}
        if asked.path == "/v1/billing_portal/sessions":
            return 200, {"id": "bps_1", "object": "billing_portal.session", "url": f"{self.service.url}/portal"}
        if asked.path.startswith("/v1/payment_intents/"):
            receipt = f"{self.service.url}/receipt"
            return 200, {"id": "pi", "object": "payment_intent", "latest_charge": {"id": "ch", "object": "charge", "receipt_url": receipt}}
        if asked.path == "/v1/refunds":
            form = parse_qs(asked.body.decode())
            return 200, {"id": f"re_{uuid4().hex}", "object": "refund", "status": "succeeded", "amount": int(form["amount"][0])}
        return 404, {}

    def pay(self, name):
        """Where a browser goes next."""
        form = self.sessions[name]
        metadata = {key: form[f"metadata[{key}]"] for key in ("fishserve_credits", "user_id", "pack")}
        price = "line_items[0][price_data]"
        session = {
            "amount_total": int(form[f"{price}[unit_amount]"]), "currency": form[f"{price}[currency]"],
            "id": name, "object": "checkout.session", "payment_status": "paid", "payment_intent": f"pi_{name}", "customer": "cus_1",
            "client_reference_id": form["client_reference_id"], "metadata": metadata,
        }  # fmt: skip
        event = {
            "id": f"evt_{name}",
            "object": "event",
            "type": "checkout.session.completed",
            "created": int(time.time()),
            "data": {"object": session},
        }
        body, now = json.dumps(event).encode(), int(time.time())
        signature = hmac.new(WEBHOOK_SECRET.encode(), f"{now}.".encode() + body, hashlib.sha256).hexdigest()
        answer = httpx.post(f"{self.api}/api/webhook/stripe", content=body, headers={"Stripe-Signature": f"t={now},v1={signature}"})
        assert answer.json() == {"outcome": "applied"}, answer.text
        return form["success_url"]


@contextlib.contextmanager
def serving_on(port, app):
    """An ASGI app in a thread."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "it did not start"
        time.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


class Product:
    """Everything that runs, and what can be looked up behind it."""

    def __init__(self, settings, database, bucket, cloudflare, stripe):
        self.settings, self.url, self.database, self.bucket, self.directory = (
            settings,
            settings.public_url,
            database,
            bucket,
            settings.directory,
        )
        self.cloudflare, self.stripe = cloudflare, stripe

    def link(self, address):
        """What the newest message to an address asks to open."""
        for file in sorted((self.directory / "mail").glob("*.eml"), reverse=True):
            message = email.message_from_bytes(file.read_bytes())
            if message["To"] == address and not message.is_multipart():  # those with HTML bring no link to sign in
                return re.search(r"http://\S+verify\S+", message.get_payload(decode=True).decode())[0]
        raise AssertionError(f"no message to {address}")

    def user(self, credits=0):
        """Somebody with a confirmed address and no password, and its id."""
        address = f"{uuid4().hex[:12]}@example.com"
        user = self.database.call("local_create_user", email=address, password_hash=None, confirmed=True)["id"]
        if credits:
            self.database.call("grant_credits", user_id=user, credits=credits, reference="test")
        return address, user

    def user_with_password(self, address=None):
        """Somebody who has signed up in the usual way, and its id."""
        address = address or f"{uuid4().hex[:12]}@example.com"
        body = {"email": address, "password": PASSWORD, "gotrue_meta_security": {"captcha_token": f"sign-up:{uuid4()}"}}
        made = httpx.post(f"{self.url}/auth/v1/signup", json=body)
        assert made.status_code == 200, made.text
        assert httpx.get(self.link(address)).status_code == 303
        (row,) = self.database.sql("select id from auth.users where email = %s", address)  # a sign-up's answer tells nobody's id
        return address, row["id"]

    def operator(self, address=None):
        """Somebody with a password who may use the desk, and its id."""
        address, user = self.user_with_password(address)
        self.database.sql("update auth.users set raw_app_meta_data = %s where id = %s", '{"role": "operator"}', user)
        return address, user

    def session(self, address):
        """A session by a link, as supabase-js keeps it."""
        body = {"email": address, "gotrue_meta_security": {"captcha_token": f"sign-in:{uuid4()}"}}
        assert httpx.post(f"{self.url}/auth/v1/otp", json=body).status_code == 200
        token = parse_qs(urlsplit(self.link(address)).query)["token"][0]
        return httpx.post(f"{self.url}/auth/v1/verify", json={"type": "magiclink", "token_hash": token}).json()

    def client(self, session):
        """The API as somebody in a session sees it."""
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {session['access_token']}"}, timeout=HANG_SECONDS)

    def objects(self, user):
        found = self.bucket.s3.list_objects_v2(Bucket=self.bucket.environment["R2_BUCKET_NAME"]).get("Contents", [])
        return [o["Key"] for o in found if user in o["Key"]]

    def everything(self):
        """All that the database holds, as text."""
        with psycopg.connect(self.database.owner_url) as connection:
            tables = connection.execute(
                "select format('%I.%I', schemaname, tablename) from pg_tables where schemaname in ('public', 'auth')"
            ).fetchall()
            rows = [connection.execute(f"select t::text from {table} t").fetchall() for (table,) in tables]
        return "\n".join(text for found in rows for (text,) in found)


@pytest.fixture(scope="session")
def product(postgres, bucket, speaker, built, tmp_path_factory):  # noqa: ARG001 - it must be there
    database, directory, port = postgres.migrated(), tmp_path_factory.mktemp("embedded"), free_port()
    url = f"http://127.0.0.1:{port}"
    cloudflare, stripe = Cloudflare(), Stripe()
    with cloudflare.service.running(), stripe.service.running():
        settings = Settings(
            environment="embedded", public_url=url, supabase_url=url, database_url=database.url, directory=directory,
            fishserve_url=speaker.url, turnstile_site_key=SITE_KEY, turnstile_secret_key="0xsecret",
            turnstile_base_url=cloudflare.service.url, stripe_secret_key="sk_test_1", stripe_webhook_secret=WEBHOOK_SECRET,
            stripe_base_url=stripe.service.url, operator_role="operator", webhook_loopback=True, speech_per_minute=30, requests_per_minute=10_000,
            sensitive_per_minute=1000,
            **{name.lower(): value for name, value in bucket.environment.items()},
        )  # fmt: skip
        stripe.api = url
        bucket.s3.put_bucket_cors(Bucket=settings.r2_bucket_name, CORSConfiguration=cors(url))
        with serving_on(port, create_app(settings)):
            yield Product(settings, database, bucket, cloudflare, stripe)
    postgres.run(f"drop database {database.name} with (force)")


@pytest.fixture(scope="module")  # its event loop would be in the way of other files' own
def browser():
    with sync_playwright() as playwright:
        arguments = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments, timeout=1000 * HANG_SECONDS)
        yield browser
        browser.close()


class Wire:
    """A connection between a browser and the product, that can break."""

    def __init__(self, port):
        self.target, self.open = port, set()
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        self.accepting = threading.Thread(target=self._accept, daemon=True)
        self.accepting.start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near = self.listening.accept()[0]
                self.open.add(near)
                far = socket.create_connection(("127.0.0.1", self.target))
                self.open.add(far)
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one, other):
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        one.close()  # the other thread, which has now read its end, closes the other

    def cut(self):
        """Break what is open now; new connections are made again, even meanwhile."""
        broken = set(self.open)
        for end in broken:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self.open -= broken

    def end(self):
        self.listening.shutdown(socket.SHUT_RDWR)
        self.accepting.join()
        self.listening.close()
        self.cut()


def come_true(page, condition):
    """Wait for what the browser has to go on working for."""
    deadline = time.monotonic() + HANG_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        page.wait_for_timeout(50)


class Visit:
    """A visitor with the app open. At the end the browser has complained of nothing, and asked nobody it should not."""

    def __init__(self, browser, product, url=None, session=None, **options):
        self.product, self.url = product, url or product.url
        if session:
            kept = [{"name": "fishserve.session", "value": json.dumps(session)}]
            options["storage_state"] = {"cookies": [], "origins": [{"origin": self.url, "localStorage": kept}]}
        self.context = browser.new_context(permissions=["clipboard-read", "clipboard-write", "microphone"], **options)
        self.context.set_default_timeout(1000 * HANG_SECONDS)
        self.context.route("https://challenges.cloudflare.com/**", self._widget)
        self.complaints, self.asked, self.loaded = [], [], []
        self.page = self.tab()

    def _widget(self, route):
        route.fulfill(content_type="text/javascript", body=Cloudflare.SCRIPT)

    def tab(self):
        page = self.context.new_page()
        page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: self.complaints.append(str(e)))
        page.on("request", lambda r: self.asked.append(r.url))
        page.on("requestfinished", lambda r: self.loaded.append(r.url))
        return page

    def open(self, path="", page=None):
        (page or self.page).goto(f"{self.url}/app/{path}")
        return self

    def fill(self, label, words, page=None):
        (page or self.page).get_by_label(label, exact=True).fill(words)

    def press(self, name, page=None):
        (page or self.page).get_by_role("button", name=name, exact=True).click()

    def go(self, name):
        self.page.get_by_role("navigation").get_by_role("link", name=name).click()
        expect(self.page.get_by_role("heading", level=1)).to_have_text(name)

    def says(self, words, page=None):
        expect((page or self.page).get_by_text(re.compile(re.escape(words))).first).to_be_visible()

    def type(self, text, page=None):
        """Write what is to be said, and wait for its price."""
        self.fill("Text to speak", text, page)
        self.says("At most", page)

    def speak(self, text, page=None):
        """Speak it, to its end."""
        self.type(text, page)
        self.press("Speak", page)
        self.says("It cost", page)

    def heard(self, seconds):
        """Wait until the first sound has been played so far."""
        come_true(self.page, lambda: int(self.page.get_by_role("slider").first.get_attribute("aria-valuenow")) >= seconds)

    def length(self):
        """Seconds of the first sound."""
        return float(self.page.get_by_role("slider").first.get_attribute("aria-valuemax"))

    def violations(self, *rules):
        """What axe finds in what is shown now, by all its rules or these."""
        self.page.mouse.move(0, 0)
        found = Axe().run(self.page, options={"runOnly": list(rules)} if rules else None).response["violations"]
        return [(v["id"], v["impact"], [n["html"] for n in v["nodes"]]) for v in found]

    def end(self):
        self.context.close()
        refused = "Failed to load resource"  # the browser's own note of an answer that was an error, or of none
        assert [c for c in self.complaints if not c.startswith(refused)] == []
        ours = (self.url, self.product.url, self.product.bucket.endpoint, self.product.stripe.service.url)
        assert {url for url in self.asked if not url.startswith((*ours, "https://challenges.cloudflare.com", "data:", "blob:"))} == set()


@pytest.fixture
def visit(browser, product):
    """Somebody who has not signed in."""
    visit = Visit(browser, product)
    yield visit
    visit.end()


@pytest.fixture
def member(browser, product):
    """Somebody new who has 5,000 credits and is signed in, at the page to speak on."""
    address, user = product.user(5000)
    visit = Visit(browser, product, session=product.session(address))
    visit.address, visit.id = address, user
    visit.open("speak")
    expect(visit.page.get_by_role("link", name="5,000 credits")).to_be_visible()
    yield visit
    visit.end()

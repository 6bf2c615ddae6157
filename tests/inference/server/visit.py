"""A visitor of the page, in a real browser."""

import httpx
import numpy as np
import pytest
from playwright.sync_api import expect, sync_playwright

from tests.browser import CHROMIUM
from tests.waiting import HANG_SECONDS, wait

BRIEF = 6  # the seed with which the noise of "Hello." ends after 0.7 s


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        arguments = [
            "--use-fake-device-for-media-stream",
            "--use-fake-ui-for-media-stream",
            "--host-resolver-rules=MAP speech.test 127.0.0.1",
        ]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments, timeout=1000 * HANG_SECONDS)
        yield browser
        browser.close()


def pcm(server, **body):
    """What the server says, as a client hears it: 44.1 kHz, int16."""
    body = {"input": "Hello.", "response_format": "pcm", "sample_rate": 44_100} | body
    return np.frombuffer(httpx.post(f"{server.url}/v1/audio/speech", json=body, timeout=HANG_SECONDS).content, "<i2")


class Visit:
    """A visitor with the page open. At the end, the browser has complained of nothing and asked nobody else for anything."""

    def __init__(self, browser, url, **options):
        self.context = browser.new_context(permissions=["clipboard-read", "clipboard-write", "microphone"], **options)
        self.context.set_default_timeout(1000 * HANG_SECONDS)
        self.page = self.context.new_page()
        self.complaints, self.asked = [], []
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda e: self.complaints.append(str(e)))
        self.page.on("request", lambda r: self.asked.append(r.url))
        self.url = url
        self.page.goto(url)

    def __getattr__(self, name):
        """A part of the page by its id: `visit.go`."""
        return self.page.locator(f"#{name}, #{name.replace('_', '-')}").first

    def ready(self):
        expect(self.model).to_have_attribute("data-status", "ready")
        return self

    def says(self, part, words, **options):
        expect(getattr(self, part)).to_contain_text(words, **options)

    def watch_label(self, part):
        """Note each label that a button has from now on, however shortly."""
        getattr(self, part).evaluate("""button => {
            window.labels = []
            new MutationObserver(() => window.labels.push(button.getAttribute("aria-label"))).observe(button, {attributes: true})
        }""")

    def had_label(self, label):
        """Wait until the watched button has, or has had, a label."""
        self.page.wait_for_function("label => window.labels.includes(label)", arg=label, timeout=1000 * HANG_SECONDS)

    def held_back(self, routes):
        """The first of the requests that a route keeps. The browser tells of it while the page is asked something, and not before."""
        return wait(lambda: self.page.evaluate("1") and routes)[0]

    def speak(self, text="Hello.", seed=None):
        self.text.fill(text)
        if seed is not None:
            if not self.page.locator(".fine").evaluate("(d) => d.open"):
                self.page.locator("summary").click()
            self.seed.fill(str(seed))
        self.go.click()

    def end(self):
        self.context.close()
        refused = "Failed to load resource: the server responded with a status of"  # the browser's own note of an answer
        assert [c for c in self.complaints if not c.startswith(refused)] == []
        assert {url for url in self.asked if not url.startswith((self.url, "data:", f"blob:{self.url}"))} == set()


@pytest.fixture
def visit(browser, server):
    visit = Visit(browser, server.url).ready()
    yield visit
    visit.end()

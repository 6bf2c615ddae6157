"""Takes the pictures of the page in docs/img, with minnow speaking: `.venv/bin/python -m tests.inference.server.pictures`.

Needs Debian's chromium; the fonts fonts-inter and fonts-sil-charis make the pictures look as the page does elsewhere.
"""

import contextlib
import tempfile
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from inference.hub import EMBEDDED_VOICE
from tests.inference.server.conftest import Server
from tests.inference.server.test_page import CHROMIUM

IMAGES = Path(__file__).parents[3] / "docs" / "img"
SIZES = {1280: 900, 390: 844}


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as voices, sync_playwright() as playwright, contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(EMBEDDED_VOICE, voices, OMP_NUM_THREADS="2").wait_ready())
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        for width, height in SIZES.items():
            for scheme in ("light", "dark"):
                context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
                page = context.new_page()
                page.goto(server.url)
                expect(page.locator("#model")).to_have_attribute("data-status", "ready")
                page.locator("summary").click()
                page.locator("#seed").fill("7")
                page.locator("summary").click()
                page.get_by_role("button", name="a story").click()
                for _ in range(2):  # the first time warms server and browser
                    page.locator("#go").click()
                    expect(page.locator("#status")).to_contain_text("Done", timeout=60_000)
                    page.locator("#go").click()
                page.locator("#go").click()
                expect(page.locator("#status")).to_contain_text("Done", timeout=60_000)
                page.mouse.move(0, 0)
                while float(page.locator("#wave").get_attribute("aria-valuenow")) < 6:
                    page.wait_for_timeout(50)
                suffix = "" if scheme == "light" else "-dark"
                page.screenshot(path=IMAGES / f"page-{width}{suffix}.png", full_page=True)
                context.close()
        browser.close()


if __name__ == "__main__":
    main()

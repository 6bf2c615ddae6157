"""Takes the pictures of the page in docs/img and the clip of what it spoke: `.venv/bin/python -m tests.inference.server.pictures`.

Needs Debian's chromium; the fonts fonts-inter and fonts-sil-charis make the pictures look as the page does elsewhere.
"""

import contextlib
import tempfile
from pathlib import Path

import av
import httpx
import numpy as np
import soundfile
from playwright.sync_api import expect, sync_playwright

from inference.hub import EMBEDDED_VOICE
from tests.browser import CHROMIUM
from tests.inference.server.conftest import Server
from tests.waiting import HANG_SECONDS

IMAGES = Path(__file__).parents[3] / "docs" / "img"
SIZES = {1280: 900, 390: 844}
SEED = 3  # with which a recogniser hears every word of the story


def write_clip(sound: Path, picture: Path, clip: Path) -> None:
    """A film of one picture while the sound is heard: a format that GitHub plays."""
    samples, rate = soundfile.read(sound, dtype="float32")
    with av.open(picture) as image:
        still = next(image.decode(video=0))
    with av.open(clip, "w", options={"movflags": "faststart"}) as film:
        video = film.add_stream("libx264", rate=1, options={"tune": "stillimage"})
        video.width, video.height, video.pix_fmt = 960, 2 * round(480 * still.height / still.width), "yuv420p"
        audio = film.add_stream("aac", rate=rate, layout="mono")
        still = still.reformat(video.width, video.height, "yuv420p")
        for second in range(int(len(samples) / rate) + 1):
            still.pts = second
            film.mux(video.encode(still))
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), "fltp", "mono")
        frame.sample_rate = rate
        film.mux(audio.encode(frame))
        for stream in (video, audio):
            film.mux(stream.encode())


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
                page.locator("#seed").fill(str(SEED))
                page.locator("summary").click()
                page.get_by_role("button", name="a story").click()
                story = page.locator("#text").input_value()
                for _ in range(2):  # the first time warms server and browser
                    page.locator("#go").click()
                    expect(page.locator("#status")).to_contain_text("Done", timeout=1000 * HANG_SECONDS)
                    page.locator("#go").click()
                page.locator("#go").click()
                expect(page.locator("#status")).to_contain_text("Done", timeout=1000 * HANG_SECONDS)
                page.mouse.move(0, 0)
                while float(page.locator("#wave").get_attribute("aria-valuenow")) < 6:
                    page.wait_for_timeout(50)
                suffix = "" if scheme == "light" else "-dark"
                page.screenshot(path=IMAGES / f"page-{width}{suffix}.png", full_page=True)
                context.close()
        browser.close()
        sound = Path(voices) / "story.wav"
        body = {"input": story, "seed": SEED, "response_format": "wav", "stream": False}
        sound.write_bytes(httpx.post(f"{server.url}/v1/audio/speech", json=body, timeout=HANG_SECONDS).content)
        write_clip(sound, IMAGES / "page-1280.png", IMAGES / "minnow.mp4")


if __name__ == "__main__":
    main()

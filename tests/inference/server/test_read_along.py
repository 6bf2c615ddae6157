"""The page marks each word as it is heard, and makes captions."""

import io
import re

import av
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser import CHROMIUM
from tests.inference.server.visit import Visit
from tests.waiting import HANG_SECONDS

pytestmark = pytest.mark.system(CHROMIUM, "chromium")
TEXT = "😀 Hi there, **it** is $5. [pause:0.5s] Then go & see."
MARKED = """() => {
  window.marked = [];
  const set = CSS.highlights.set.bind(CSS.highlights);
  CSS.highlights.set = (name, highlight) => {
    window.marked.push([...highlight][0].toString());
    return set(name, highlight);
  };
}"""


@pytest.fixture(scope="module")
def spoken(browser, minnow):
    visit = Visit(browser, minnow.url).ready()
    visit.page.evaluate(MARKED)
    visit.speak(TEXT, seed=1)
    visit.says("status", "Done")
    yield visit
    visit.end()


def test_each_word_is_marked_while_it_is_heard(spoken):
    spoken.says("go", "Speak")
    marked = spoken.page.evaluate("window.marked")
    words = ["Hi", "there", "it", "is", "$5", "Then", "go", "&", "see"]
    assert [w for w in words if w in marked] == list(dict.fromkeys(marked))  # a busy machine may skip one
    assert marked[-1] in words[5:]
    spoken.wave.focus()
    spoken.page.keyboard.press("Home")
    for second in range(3):
        expect(spoken.wave).to_have_attribute("aria-valuenow", str(second))
        spoken.page.keyboard.press("ArrowRight")
    assert {"Then", "go", "&", "see"} & set(spoken.page.evaluate("window.marked.slice(-3)"))
    expect(spoken.read_along).to_have_text(TEXT)


@pytest.mark.parametrize(("kind", "name", "sign"), [("srt", "srt", "&"), ("vtt", "webvtt", "&amp;")])
def test_captions_are_saved_and_ffmpeg_reads_them(spoken, kind, name, sign):
    spoken.page.locator("#caption-format").select_option(kind)
    with spoken.page.expect_download(timeout=1000 * HANG_SECONDS) as saved:
        spoken.page.locator("#captions").click()
    assert saved.value.suggested_filename.endswith(f".{kind}")
    with av.open(io.BytesIO(saved.value.path().read_bytes()), format=name) as container:
        packets = [(bytes(p).decode(), p.pts, p.duration) for p in container.demux(container.streams[0]) if p.size]
    assert [text for text, *_ in packets] == ["Hi there, it is $5.", f"Then go {sign} see."]
    assert packets[0][1] + packets[0][2] < packets[1][1] - 400
    assert re.search("made in", spoken.status.inner_text())


def test_the_text_is_accessible(spoken):
    assert [v["id"] for v in Axe().run(spoken.page).response["violations"]] == []

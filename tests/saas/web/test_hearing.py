"""Speech in the app in a real browser: it sounds while it is made, and what was heard before it breaks off is kept."""

import asyncio
import re
import threading

import pytest
from playwright.sync_api import expect

from saas.jobs.fishserve import FishSpeech
from tests.browser import CHROMIUM
from tests.saas.web.conftest import Visit, Wire
from tests.saas.web.looking import HELLO, LONG, WATCH, decoded_seconds

pytestmark = pytest.mark.system(CHROMIUM, "chromium")


@pytest.fixture
def go_on(monkeypatch):
    """What speaks makes two seconds of sound, and more when this is called: the browser may take as long as it likes to begin."""
    may, whole = threading.Event(), FishSpeech.__aiter__

    async def halting(speech):
        async for piece in whole(speech):
            yield piece
            while speech.seconds > 1.5 and not may.is_set():
                await asyncio.sleep(0.02)

    monkeypatch.setattr(FishSpeech, "__aiter__", halting)
    yield may.set
    may.set()


@pytest.mark.parametrize("kind", ["mp3", "wav", *(pytest.param(kind, marks=pytest.mark.drill) for kind in ("opus", "aac", "flac"))])
def test_every_format_is_heard_while_it_is_made_and_to_its_end(member, go_on, kind):
    text = "One two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty."
    member.page.get_by_label("Format").select_option(kind)
    member.type(text)
    member.page.evaluate(WATCH)
    member.press("Speak")
    expect(member.page.get_by_role("button", name="Pause the sound")).to_be_visible()
    member.says("Speaking.")
    go_on()
    member.says("It cost")
    _, length, downloads = next(seen for seen in member.page.evaluate("window.seen") if seen[0] == "Speaking.")
    assert length < member.length() / 2  # it sounds, and most of it is still to be made
    assert downloads == 0
    with member.page.expect_download() as download:
        member.press("Download")
    assert download.value.suggested_filename == f"one-two-three-four-five.{kind}"
    assert abs(decoded_seconds(download.value.path()) - member.length()) < 0.1


def test_where_the_browser_cannot_decode_live_it_plays_the_whole(member):
    member.page.add_init_script("delete globalThis.AudioDecoder")
    member.open("speak")
    member.speak(HELLO)
    assert member.length() > 0.5
    expect(member.page.get_by_role("button", name=re.compile("^(Play|Pause) the sound"))).to_be_enabled()


def test_a_connection_that_breaks_says_so_and_what_it_cost(browser, product, go_on):
    address, user = product.user(5000)
    wire = Wire(int(product.url.rpartition(":")[2]))
    visit = Visit(browser, product, url=wire.url, session=product.session(address))
    visit.open("speak")
    visit.type(LONG)
    visit.press("Speak")
    visit.heard(1)
    wire.cut()
    go_on()
    visit.says("The connection was lost after")
    visit.says("The audio so far is kept in your history.")
    expect(visit.page.get_by_role("button", name="Speak", exact=True).or_(visit.page.get_by_role("button", name="Stop"))).to_be_enabled()
    (job,) = product.database.sql("select status, charged, reserved, seconds from jobs where user_id = %s", user)
    assert job["status"] == "succeeded"
    assert 0 < job["charged"] < job["reserved"]
    visit.says(f"It cost {job['charged']} credits")
    wire.end()
    visit.end()


def test_stop_ends_the_work_and_what_was_made_is_kept(member, go_on):
    member.type(LONG)
    member.press("Speak")
    member.heard(1)
    member.press("Stop")
    go_on()
    member.says("Stopped after")
    member.says("The audio so far is kept in your history.")

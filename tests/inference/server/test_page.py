"""The page in a real browser: Debian's Chromium, real clicks, a real server. Pictures of it are taken by `pictures.py`, not here."""

import concurrent.futures
import contextlib
import io
import os
import re
import subprocess
import sys
import threading

import av
import httpx
import numpy as np
import pytest
import soundfile
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from inference.http.keys import Keys
from tests.browser import CHROMIUM
from tests.inference.server.conftest import Server
from tests.inference.server.visit import BRIEF, Visit, pcm
from tests.texts import ENDLESS
from tests.waiting import HANG_SECONDS, wait

pytestmark = pytest.mark.system(CHROMIUM, "chromium")
SHORT = 1  # the seed with which the noise of "Hello." ends after 1.8 s


def seconds(text):
    value, unit = re.fullmatch(r"([\d.]+) (ms|s)", text).groups()
    return float(value) / (1000 if unit == "ms" else 1)


def test_it_says_how_soon_and_how_fast(visit, server):
    asked = visit.page.evaluate("performance.now()")
    visit.speak(seed=SHORT)
    visit.says("status", "Done")
    expect(visit.first).to_have_text(re.compile(r"\d (ms|s)$"))
    waited = (visit.page.evaluate("performance.now()") - asked) / 1000
    sound, byte = seconds(visit.first.inner_text()), seconds(visit.first_byte.inner_text().removeprefix("first byte "))
    length, factor = seconds(visit.page.locator("#length").inner_text()), float(visit.factor.inner_text().removesuffix("×"))
    made = float(re.search(r"made in ([\d.]+) s", visit.status.inner_text())[1])
    assert 0 < byte <= sound < waited + 0.1  # which is when the device is given it, a moment ahead
    assert byte <= made + 0.06 < waited + 0.12
    assert length == round(len(pcm(server, seed=SHORT)) / 44_100, 1)
    assert length / (made + 0.06) - 0.1 < factor < length / max(made - 0.06, 0.001) + 0.1


def test_the_waveform_grows_while_it_is_made_and_fills_as_it_is_played(visit):
    def colours():
        return visit.page.evaluate("""() => {
          const canvas = document.querySelector("#wave canvas");
          const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
          copy.drawImage(canvas, 0, 0);
          const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
          const seen = new Set();
          for (let i = 0; i < data.length; i += 4) if (data[i + 3] === 255) seen.add(data.slice(i, i + 3).join());
          return [...seen];
        }""")

    empty = colours()
    assert len(empty) == 1
    visit.speak(ENDLESS)
    visit.says("status", "Speaking")
    wait(lambda: visit.page.evaluate("document.querySelector('#wave').ariaValueNow >= 1"))
    wait(lambda: len(colours()) == 3)  # played, made, to come
    visit.go.click()
    visit.says("status", "Stopped after")
    assert empty[0] not in colours()
    visit.wave.press("End")
    assert len(colours()) == 1


def test_stop_stops_the_server(visit, server):
    wait(lambda: server.metric("fishserve_requests_running") == 0)  # one that a test before stopped has ended
    cancelled = server.metric("fishserve_requests_total", reason="cancelled")
    visit.speak(ENDLESS)
    visit.says("go", "Stop")
    visit.says("status", "Speaking")
    visit.go.click()
    visit.says("status", "Stopped after")
    visit.says("go", "Speak")
    wait(lambda: server.metric("fishserve_requests_total", reason="cancelled") == cancelled + 1)


def test_speaking_again_cancels_what_went_before(visit, server):
    wait(lambda: server.metric("fishserve_requests_running") == 0)
    cancelled = server.metric("fishserve_requests_total", reason="cancelled")
    visit.speak(ENDLESS)
    visit.says("status", "Speaking")
    visit.text.fill("Hello.")
    visit.text.press("Control+Enter")
    wait(lambda: server.metric("fishserve_requests_total", reason="cancelled") == cancelled + 1)
    visit.says("status", "Done")


def test_by_keyboard_alone_it_speaks_pauses_moves_and_stops(visit):
    def tab_to(name):
        for _ in range(30):
            if visit.page.evaluate("document.activeElement.id") == name:
                return
            visit.page.keyboard.press("Tab")
        raise AssertionError(f"Tab never reaches {name}")

    keyboard = visit.page.keyboard
    tab_to("text")
    keyboard.press("Control+A")
    keyboard.insert_text(ENDLESS)
    keyboard.press("Control+Enter")
    visit.says("status", "Speaking")
    tab_to("play")
    wait(lambda: int(visit.wave.get_attribute("aria-valuenow")) >= 1)
    keyboard.press("Space")
    expect(visit.play).to_have_attribute("aria-label", "Play the sound")
    tab_to("wave")
    keyboard.press("Home")
    expect(visit.wave).to_have_attribute("aria-valuetext", re.compile("^0 of "))
    keyboard.press("ArrowRight")
    expect(visit.wave).to_have_attribute("aria-valuetext", re.compile("^1 of "))
    keyboard.press("Escape")
    visit.says("status", "Stopped after")


def test_a_click_in_the_waveform_goes_there_and_play_goes_on(visit):
    visit.speak(seed=BRIEF)
    visit.says("status", "Done")
    visit.says("go", "Speak")
    box = visit.wave.bounding_box()
    visit.wave.click(position={"x": box["width"] / 2, "y": 10})
    assert visit.clock.inner_text().startswith("0:00.3")
    visit.watch_label("play")
    visit.play.click()
    visit.had_label("Pause the sound")
    expect(visit.play).to_have_attribute("aria-label", "Play the sound")
    assert visit.clock.inner_text().startswith("0:00.7")


def test_downloads_hold_what_was_heard(visit, server):
    visit.speak(seed=SHORT)
    visit.says("status", "Done")
    samples = pcm(server, seed=SHORT)
    with visit.page.expect_download() as download:
        visit.download.click()
    assert download.value.suggested_filename == "hello.wav"
    assert soundfile.read(download.value.path(), dtype="int16")[0].tolist() == samples.tolist()
    for kind in ("mp3", "flac"):
        visit.format.select_option(kind)
        with visit.page.expect_download() as download:
            visit.download.click()
        with av.open(str(download.value.path())) as container:
            decoded = sum(frame.samples for frame in container.decode(audio=0))
        assert abs(decoded - len(samples)) < 3000
        visit.says("status", f"hello.{kind} is there")


def test_the_copied_command_and_program_make_the_very_sound(visit, server, tmp_path):
    text = """It's "quoted": $(touch here) `touch here` \\ \\' !! %s\n\n* and "\\n" 'ünïcödé' 漢字 🐟"""
    visit.speak(text, seed=BRIEF)
    visit.says("status", "Done")
    visit.page.locator("#speed").fill("1")  # twice as fast
    for button, what, command in (("copy_curl", "curl command", ["bash", "-e"]), ("copy_python", "Python program", [sys.executable, "-"])):
        getattr(visit, button).click()
        visit.says("status", f"The {what} is on the clipboard")
        code = visit.page.evaluate("navigator.clipboard.readText()")
        subprocess.run(command, input=code, text=True, cwd=tmp_path, check=True, capture_output=True, env=os.environ | {"NO_PROXY": "*"})
        content = (tmp_path / "speech.wav").read_bytes()
        assert content[44:] == pcm(server, input=text, seed=BRIEF, speed=2).tobytes()
        assert os.listdir(tmp_path) == ["speech.wav"]
        (tmp_path / "speech.wav").unlink()


def test_copied_code_has_the_seed_that_was_drawn_until_the_text_changes(visit):
    visit.speak()
    visit.says("status", "Done")
    visit.copy_curl.click()
    visit.says("status", "on the clipboard")
    drawn = visit.used_seed.inner_text()
    assert f'"seed":{drawn},' in visit.page.evaluate("navigator.clipboard.readText()")
    visit.keep_seed.click()
    expect(visit.seed).to_have_value(drawn)
    visit.seed.fill("")
    visit.text.fill("Something else.")
    visit.copy_curl.click()
    visit.says("status", "on the clipboard")
    assert "seed" not in visit.page.evaluate("navigator.clipboard.readText()")


@pytest.fixture(scope="module")
def named(checkpoint, voices):
    """A server without keys, which must be told the name that pages know it by."""
    with Server(checkpoint, voices, FISHSERVE_HOSTS="speech.test").wait_ready() as server:
        yield server


def test_over_plain_http_it_speaks_and_copies_too(browser, named):
    visit = Visit(browser, named.url.replace("127.0.0.1", "speech.test")).ready()
    assert not visit.page.evaluate("isSecureContext")
    visit.speak(seed=BRIEF)
    visit.says("status", "Done")
    visit.copy_curl.click()
    visit.says("status", "The curl command is on the clipboard")
    visit.text.press("Control+A")
    visit.text.press("Control+V")
    expect(visit.text).to_have_value(re.compile(r"^curl 'http://speech\.test:"))
    visit.voices_open.click()
    visit.record.click()
    visit.says("add_error", "only to pages on https or localhost")
    visit.end()


def test_a_refusal_is_shown_in_the_servers_words(visit):
    visit.speak("Hi [pause:long]")
    expect(visit.page.get_by_role("alert").first).to_have_text(
        '[pause:long] is not a pause; write [pause:1.2s], [pause:800ms] or <break time="1.2s"/>.'
    )
    visit.says("go", "Speak")
    visit.speak(seed=BRIEF)
    visit.says("status", "Done")
    expect(visit.error).to_have_text("")


def test_what_cannot_be_is_refused_before_it_is_sent(visit):
    visit.page.locator("summary").click()
    visit.temperature.fill("3")
    visit.page.locator("summary").click()
    visit.go.click()
    expect(visit.temperature).to_be_focused()
    visit.says("status", "Nothing spoken yet")


def test_a_voice_and_all_settings_are_used_and_remembered(visit):
    visit.page.locator("summary").click()
    for field, value in {"temperature": "0.9", "top_p": "0.8", "repetition_penalty": "1.1"}.items():
        getattr(visit, field).fill(value)
    visit.voice.select_option("anna")
    with visit.page.expect_request("**/v1/audio/speech") as sent:
        visit.speak("Keep me.", seed=7)
    expected = {"input": "Keep me.", "voice": "anna", "temperature": 0.9, "top_p": 0.8, "repetition_penalty": 1.1, "seed": 7}
    assert sent.value.post_data_json == expected | {
        "response_format": "pcm", "sample_rate": 44_100, "stream_format": "sse", "word_timestamps": True,
    }  # fmt: skip
    visit.page.keyboard.press("Escape")
    visit.page.reload()
    visit.ready()
    expect(visit.voice).to_have_value("anna")
    expect(visit.text).to_have_value("Keep me.")
    expect(visit.temperature).to_have_value("0.9")


def test_opened_while_loading_or_busy_it_says_so_and_then_speaks(browser, held, voices):
    directory, let_go = held
    with Server(directory, voices, FISHSERVE_SLOTS="1", FISHSERVE_QUEUE="1") as server:
        wait(lambda: answers(server))
        visit = Visit(browser, server.url)
        visit.says("model", "Loading the model")
        visit.speak(seed=BRIEF)
        visit.says("status", "still loading")
        let_go()
        visit.says("status", "Done")
        visit.says("model", "tiny on cpu")
        visit.says("go", "Speak")
        gone = threading.Event()
        with concurrent.futures.ThreadPoolExecutor() as pool:
            others = [pool.submit(read_until, server, gone) for _ in range(2)]
            wait(lambda: server.metric("fishserve_requests_waiting") == 1)
            wait(lambda: re.fullmatch(r"1 requests are waiting already; try again in about \d+ s\.", error_of_next(visit)))
            gone.set()
            concurrent.futures.wait(others)
    visit.says("go", "Speak")
    visit.go.click()
    visit.says("error", "The server does not answer")
    visit.says("model", "The server does not answer")
    visit.complaints = [c for c in visit.complaints if "ERR_CONNECTION_REFUSED" not in c]
    visit.end()


def error_of_next(visit):
    """What is said after another press of Speak; nothing, when it was spoken: while the others read slowly they hold no place in the queue."""
    visit.go.click()
    visit.says("go", "Speak")
    return visit.error.inner_text()


def answers(server):
    try:
        return httpx.get(f"{server.url}/health").status_code == 200
    except httpx.TransportError:
        return False


def read_until(server, gone):
    while not gone.is_set():  # refused, it comes again: what the page has heard may still have a place
        with httpx.stream("POST", f"{server.url}/v1/audio/speech", json={"input": ENDLESS, "seed": 5}, timeout=HANG_SECONDS) as response:
            for _ in response.iter_bytes():
                if gone.is_set():
                    return


@pytest.fixture
def stack():
    with contextlib.ExitStack() as stack:
        yield stack


def test_a_key_is_asked_for_sent_and_forgotten_with_the_tab(browser, checkpoint, voices, tmp_path, stack):
    key = Keys(tmp_path / "keys").add("visitor")
    stack.enter_context(server := Server(checkpoint, voices, FISHSERVE_KEYS_FILE=str(tmp_path / "keys")).wait_ready())
    visit, late = Visit(browser, server.url).ready(), []
    visit.page.route("**/v1/audio/voices", lambda route: route.continue_() if late else late.append(route))
    visit.page.reload()
    visit.ready().speak(seed=BRIEF)
    expect(visit.key).to_be_focused()
    visit.key.fill(key)
    visit.key.press("Enter")
    expect(visit.key).to_be_hidden()
    with visit.page.expect_response(lambda r: r.url.endswith("/v1/audio/voices") and r.status == 401):
        visit.held_back(late).continue_()  # sent before there was a key
    visit.go.click()
    visit.says("status", "Done")
    visit.copy_curl.click()
    visit.says("status", "on the clipboard")
    assert '-H "Authorization: Bearer $FISHSERVE_KEY"' in visit.page.evaluate("navigator.clipboard.readText()")
    assert key not in visit.page.evaluate("JSON.stringify(localStorage)")
    expect(visit.key).to_be_hidden()
    visit.end()


def test_a_voice_is_saved_spoken_with_renamed_and_deleted(visit, server):
    sound = io.BytesIO()
    soundfile.write(sound, 0.2 * np.sin(np.arange(2 * 44_100) * 0.05), 44_100, format="WAV")
    visit.voices_open.click()
    visit.file.set_input_files({"name": "clip.wav", "mimeType": "audio/wav", "buffer": sound.getvalue()})
    visit.says("clip_status", "clip.wav, 2.0 s")
    visit.name.fill("anna")
    visit.transcript.fill("What is said.")
    visit.save.click()
    visit.says("add_error", "There is a voice 'anna' already")
    visit.name.fill("bella")
    visit.save.click()
    expect(visit.voices).to_be_hidden()
    expect(visit.voice).to_have_value("bella")
    visit.speak(seed=BRIEF)
    visit.says("status", "Done")
    slow = []
    visit.page.route("**/v1/audio/voices", lambda route: slow.append(route), times=1)  # noqa: PLW0108 - Playwright writes on it
    visit.voices_open.click()
    visit.page.get_by_role("button", name="Rename bella").click()
    visit.page.get_by_label("New name of bella").fill("clara")
    visit.held_back(slow).fulfill(json={"voices": [{"id": name, "name": name} for name in ("default", "anna", "bella", "zoe")]})
    expect(visit.page.get_by_role("button", name="Rename zoe")).to_be_visible()
    expect(visit.page.get_by_label("New name of bella")).to_have_value("clara")  # the late list leaves alone what is being written
    visit.page.keyboard.press("Enter")
    expect(visit.voice).to_have_value("clara")
    assert "clara" in httpx.get(f"{server.url}/v1/audio/voices?legacy=true").json()["voices"]
    visit.page.get_by_role("button", name="Delete clara").click()
    visit.page.get_by_role("button", name="Delete", exact=True).click()
    expect(visit.page.get_by_role("button", name="Delete clara")).to_have_count(0)
    wait(lambda: "clara" not in httpx.get(f"{server.url}/v1/audio/voices?legacy=true").json()["voices"])  # the question hides it, too


def test_a_clip_is_recorded_heard_and_judged(visit):
    visit.voices_open.click()
    visit.record.click()
    wait(lambda: int(visit.level.get_attribute("aria-valuenow")) > 10)  # the false microphone beeps
    visit.says("clip_status", re.compile(r"Recording, [1-9]\d* s"))
    visit.record.click()
    visit.says("clip_status", re.compile(r"clip\.webm, [1-9]"))
    expect(visit.transcript).to_have_value(visit.sentence.inner_text())
    visit.watch_label("clip_play")
    visit.clip_play.click()
    visit.had_label("Pause the clip")
    short = io.BytesIO()
    soundfile.write(short, np.zeros(22_050), 44_100, format="WAV")
    visit.file.set_input_files({"name": "short.wav", "mimeType": "audio/wav", "buffer": short.getvalue()})
    visit.says("add_error", "The clip lasts 0.5 s; a voice needs 1 to 90 s.")
    visit.page.keyboard.press("Escape")
    expect(visit.voices).to_be_hidden()
    expect(visit.voices_open).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_either_scheme(browser, server, scheme):
    visit = Visit(browser, server.url, color_scheme=scheme, reduced_motion="reduce").ready()
    visit.speak("Hi [pause:long]", seed=SHORT)
    visit.says("error", "is not a pause")
    assert violations(visit) == []
    visit.speak(seed=SHORT)
    visit.says("status", "Done")
    assert violations(visit) == []
    visit.voices_open.click()
    visit.save.click()
    visit.page.locator("#stored li").get_by_text("Delete").click()
    assert violations(visit) == []
    visit.end()


def violations(visit):
    visit.page.mouse.move(0, 0)
    return [(v["id"], v["impact"], [n["html"] for n in v["nodes"]]) for v in Axe().run(visit.page).response["violations"]]


def test_the_scheme_follows_the_system_until_chosen(browser, server):
    visit = Visit(browser, server.url, color_scheme="dark").ready()
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    dark = visit.page.evaluate(ground)
    visit.theme.click()
    light = visit.page.evaluate(ground)
    assert brightness(dark) < 100
    assert brightness(light) > 600
    visit.page.reload()
    assert visit.page.evaluate(ground) == light
    visit.theme.click()
    assert visit.page.evaluate(ground) == dark
    assert visit.page.evaluate("localStorage.getItem('fishserve.theme')") is None
    visit.end()


def brightness(colour):
    return sum(map(int, re.findall(r"\d+", colour)))


def test_nothing_is_wider_than_the_window(visit):
    visit.page.locator("summary").click()
    for width in (320, 390, 768, 1280):
        visit.page.set_viewport_size({"width": width, "height": 800})
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
        visit.voices_open.click()
        assert visit.voices.evaluate("(dialog) => dialog.scrollWidth <= dialog.clientWidth")
        visit.page.keyboard.press("Escape")


def test_its_files_are_guarded_and_asked_for_again_only_when_changed(server):
    page = httpx.get(server.url)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for path in ("/", *re.findall(r'(?:href|src)="(page/[\w./]+)', page.text)):
        response = httpx.get(f"{server.url}/{path.lstrip('/')}")
        assert response.status_code == 200
        assert response.headers["content-security-policy"].startswith("default-src 'self';")
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-cache"
        again = httpx.get(response.url, headers={"if-none-match": response.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    for name in ("nothing.js", "..%2fpage.py", "%2e%2e/page.py", "shared/nothing.js", "shared/..%2f..%2fpage.py", ""):
        assert httpx.get(f"{server.url}/page/{name}").status_code == 404

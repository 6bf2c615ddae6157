"""The examples, each run as its first lines say."""

import contextlib
import functools
import http.server
import io
import subprocess
import sys
import threading
from pathlib import Path

import av
import httpx
import pytest
from playwright.sync_api import expect

from tests.browser import CHROMIUM
from tests.inference.server.conftest import Server
from tests.waiting import HANG_SECONDS

EXAMPLES = Path(__file__).parents[3] / "examples"


def example(name, *arguments, directory):
    command = [sys.executable, EXAMPLES / name, *map(str, arguments)]
    done = subprocess.run(command, cwd=directory, capture_output=True, timeout=HANG_SECONDS, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def seconds(content):
    with av.open(io.BytesIO(content)) as container:
        (stream,) = container.streams.audio
        return sum(frame.samples for frame in container.decode(stream)) / stream.rate


@pytest.mark.parametrize(
    ("name", "made"), [("openai_client.py", "openai.mp3"), ("fish_client.py", "fish.mp3"), ("elevenlabs_client.py", "elevenlabs.mp3")]
)
def test_each_client_makes_its_file(minnow, tmp_path, name, made):
    assert example(name, minnow.url, directory=tmp_path).decode().strip() == made
    assert seconds((tmp_path / made).read_bytes()) > 0.5


def test_samples_come_on_standard_output(minnow, tmp_path):
    content = example("http_stream.py", minnow.url, directory=tmp_path)
    assert len(content) > 24_000
    assert len(content) % 2 == 0


def test_a_clip_makes_a_voice_again_and_again(minnow, tmp_path):
    clip = httpx.post(f"{minnow.url}/v1/audio/speech", json={"input": "The kettle is on.", "response_format": "wav"}, timeout=HANG_SECONDS)
    (tmp_path / "clip.wav").write_bytes(clip.content)
    try:
        for _ in range(2):
            example("voice_from_clip.py", "clip.wav", "The kettle is on.", minnow.url, directory=tmp_path)
        assert seconds((tmp_path / "voice.wav").read_bytes()) > 0.5
    finally:
        httpx.request("DELETE", f"{minnow.url}/v1/references/delete", json={"reference_id": "example"})


def test_each_line_becomes_a_file(server, tmp_path):
    (tmp_path / "lines.txt").write_text("One.\n\nTwo.\nThree.\n")
    assert example("batch.py", "lines.txt", server.url, directory=tmp_path) == b"3 files\n"
    assert sorted(path.name for path in tmp_path.glob("*.mp3")) == ["001.mp3", "002.mp3", "003.mp3"]


def test_the_engine_needs_no_server(tmp_path):
    assert b"python.wav, " in example("python_api.py", directory=tmp_path)
    assert seconds((tmp_path / "python.wav").read_bytes()) > 0.5


@contextlib.contextmanager
def pages():
    """Serves the examples' folder."""
    handler = functools.partial(Quiet, directory=EXAMPLES)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.mark.system(CHROMIUM, "chromium")
def test_a_page_of_another_origin_speaks_where_it_may(browser, checkpoint, voices, server):
    with pages() as origin, Server(checkpoint, voices, FISHSERVE_CORS_ORIGINS=origin).wait_ready() as allowing:
        page = browser.new_page()
        page.set_default_timeout(1000 * HANG_SECONDS)
        page.goto(f"{origin}/browser.html?server={allowing.url}")
        page.get_by_role("button", name="Speak").click()
        page.wait_for_function("document.getElementById('sound').duration > 0", polling=100)
        page.goto(f"{origin}/browser.html?server={server.url}")
        page.get_by_role("button", name="Speak").click()
        expect(page.locator("#status")).to_have_text("Failed to fetch")
        page.close()

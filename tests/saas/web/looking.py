"""What tests look at in the app, and what they give it."""

import io

import av
import jwt
import numpy as np
import soundfile
from playwright.sync_api import expect

HELLO = "Hello there."
LONG = "This is a sentence that takes a while to say. " * 20
WATCH = """() => {
  window.seen = [];
  const status = document.getElementById("status"), wave = document.querySelector(".wave"), place = document.querySelector(".outcome");
  const look = () => window.seen.push([status.textContent, Number(wave.getAttribute("aria-valuemax")), place.querySelectorAll("button").length]);
  new MutationObserver(look).observe(status, { subtree: true, childList: true, characterData: true });
}"""
"""Notes at each change of the status: its words, the seconds of sound that are there, and whether they can be downloaded."""


def decoded_seconds(file):
    with av.open(str(file)) as container:
        stream = container.streams.audio[0]
        return sum(frame.samples for frame in container.decode(stream)) / stream.rate


def clip(seconds=2.0):
    """A WAV file of a hum."""
    sound = io.BytesIO()
    soundfile.write(sound, 0.2 * np.sin(np.arange(int(seconds * 44_100)) * 0.05), 44_100, format="WAV")
    return {"name": "clip.wav", "mimeType": "audio/wav", "buffer": sound.getvalue()}


def ledger(visit, length):
    rows = visit.page.locator("tbody tr")
    expect(rows).to_have_count(length)
    return [[cell.strip() for cell in row.locator("td").all_inner_texts()[1:]] for row in rows.all()]


def session_of(page):
    return page.evaluate("JSON.parse(localStorage.getItem('fishserve.session'))")


def expire(visit, product):
    """The token in the browser ran out a minute ago, though the browser's clock says it is still good."""
    session = session_of(visit.page)
    claims = jwt.decode(session["access_token"], options={"verify_signature": False})
    key = (product.directory / "session-key.pem").read_text()
    kid = jwt.get_unverified_header(session["access_token"])["kid"]
    old = jwt.encode(claims | {"iat": claims["iat"] - 3660, "exp": claims["exp"] - 3660}, key, "ES256", {"kid": kid})
    visit.page.evaluate(
        "old => localStorage.setItem('fishserve.session', JSON.stringify({...JSON.parse(localStorage.getItem('fishserve.session')), access_token: old}))",
        old,
    )

"""`fishserve saas --embedded`: everything on one machine, as someone meets it who has nothing but this command."""

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import soundfile

from saas.embedded.run import SIGN_UP_CREDITS
from tests.guard import still_running
from tests.processes import Started
from tests.raw import UVICORN_KEEPS, kept_connection, status_again
from tests.saas.conftest import free_port
from tests.waiting import HANG_SECONDS, wait
from tests.worker.conftest import ROOT, answers

FIRST = re.compile(r"you@localhost, password (\S+), 100,000 credits, API key (fsk_\w{12}_\S{43})")
SAID = "The quick brown fox jumps over the lazy dog."


class Machine(Started):
    """The command, and what it started."""

    def __init__(self, folder):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.start(
            [sys.executable, "-m", "inference.cli", "saas", "--embedded", "--port", str(self.port)], lambda: answers(f"{self.url}/healthz"),
            cwd=ROOT, env=os.environ | {"FISHSERVE_SAAS_DIRECTORY": str(folder), "FISHSERVE_SAAS_SPEECH_PER_MINUTE": "100", "OMP_NUM_THREADS": "2"},
        )  # fmt: skip

    def words(self):
        return " ".join(super().words().split())

    def left_after(self, sign):
        """Ends the command alone; gives those it started that are still there."""
        family = self.family()
        self.process.send_signal(sign)
        try:
            assert self.process.wait(HANG_SECONDS) == 0, self.words()
        finally:
            left = still_running(family)  # the last of them end a moment after the command
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        return left


@pytest.fixture(scope="module")
def clip():
    """Two seconds of a hum."""
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.2 * np.sin(np.arange(2 * 44_100) * 0.05), 44_100, format="WAV")
    return buffer.getvalue()


def check_balance(http):
    """What the ledger says, from the first grant on."""
    entries = http.get("/api/credits/ledger").json()
    balance = http.get("/api/credits").json()["balance"]
    assert balance == sum(entry["amount"] for entry in entries) == entries[0]["balance_after"]
    return balance


def ended(http, job):
    """A job that the API could not wait for to its end is waited for here."""
    return wait(lambda: (now := http.get(f"/api/jobs/{job['id']}").json())["status"] not in ("queued", "running") and now)


def command(folder, *arguments):
    """`fishserve saas ...` in another terminal, which knows of the folder alone."""
    environment = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "SUPABASE_URL")}
    return subprocess.run(
        [sys.executable, "-m", "inference.cli", "saas", *arguments], capture_output=True, text=True, check=False, cwd=ROOT,
        env=environment | {"FISHSERVE_SAAS_DIRECTORY": folder},
    )  # fmt: skip


def test_from_nothing_to_ones_own_voice_and_again(clip):
    with tempfile.TemporaryDirectory(prefix="fishserve-") as folder, contextlib.ExitStack() as stack:
        os.chmod(folder, 0o711)  # as root's, too, another user may enter it: PostgreSQL's
        machine = stack.enter_context(Machine(folder))
        password, first_key = FIRST.search(machine.words()).groups()

        idle, idle_since = kept_connection(machine.port, "/healthz"), time.monotonic()

        # Signed in with what was shown, somebody makes a key of their own.
        given = httpx.post(f"{machine.url}/auth/v1/token?grant_type=password", json={"email": "you@localhost", "password": password}).json()
        session = {"Authorization": f"Bearer {given['access_token']}"}
        made = httpx.post(f"{machine.url}/api/keys", json={"name": "mine", "scopes": ["speak", "voices", "read"]}, headers=session)
        assert made.status_code == 201, made.text
        headers = {"Authorization": f"Bearer {made.json()['secret']}"}
        http = stack.enter_context(httpx.Client(base_url=machine.url, headers=headers, timeout=HANG_SECONDS))
        assert http.get("/api/me").json()["email"] == "you@localhost"
        assert httpx.get(f"{machine.url}/api/admin", headers=session).json() == {"operator": "you@localhost"}
        assert check_balance(http) == 100_000

        # A voice: announced, uploaded where the answer says, looked at.
        asked = {"name": "Anna", "transcript": SAID, "content_type": "audio/wav", "bytes": len(clip), "consent": True}
        voice = http.post("/api/voices", json=asked).json()
        upload = voice["upload"]
        assert httpx.put(upload["url"], content=clip, headers=upload["headers"]).status_code == 200
        ready = http.post(f"/api/voices/{voice['voice']['id']}/confirm").json()
        assert ready["status"] == "ready"

        # It speaks; the file is what the job says; the price is the second's, and what was set aside beyond it is back.
        estimate = http.post("/api/estimate", json={"text": "Hello, this is my voice."}).json()["credits"]
        body = {"text": "Hello, this is my voice.", "voice_id": ready["id"], "format": "wav", "wait_seconds": 60, "seed": 1}
        job = ended(http, http.post("/api/tts", json=body).json())
        assert job["status"] == "succeeded", job
        content = httpx.get(job["url"]).content
        samples, rate = soundfile.read(io.BytesIO(content))
        assert 0.5 < len(samples) / rate < 10
        assert job["seconds"] == pytest.approx(len(samples) / rate, abs=0.002)
        assert job["reserved"] == estimate
        assert job["charged"] == min(estimate, max(10, -(-round(job["seconds"] * 1000) // 100)))
        assert check_balance(http) == 100_000 - job["charged"]

        # A connection that a proxy kept takes the next request.
        time.sleep(max(0, UVICORN_KEEPS + 1 - (time.monotonic() - idle_since)))
        assert status_again(idle, "/healthz") == 200

        # The first key works, too, and one folder has one process.
        streamed = httpx.post(
            f"{machine.url}/v1/audio/speech",
            json={"input": "Hello.", "voice": "Anna"},
            headers={"Authorization": f"Bearer {first_key}"},
            timeout=HANG_SECONDS,
        )
        assert streamed.status_code == 200, streamed.text
        balance = check_balance(http)
        other = subprocess.run(
            [sys.executable, "-m", "inference.cli", "saas", "--embedded", "--port", "0"], capture_output=True, text=True, check=False,
            env=os.environ | {"FISHSERVE_SAAS_DIRECTORY": folder},
        )  # fmt: skip
        assert other.returncode == 2
        assert "another process works with" in " ".join(other.stderr.split())

        # The model's true name is told, and that it hardly follows voices; another terminal checks it, and grants credits.
        assert httpx.get(f"{machine.url}/api/config").json()["model"] == "minnow"
        assert "follows the pitch" in streamed.headers["x-voice-notice"]
        checked = command(folder, "check")
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert f"Embedded mode at {machine.url}" in checked.stderr
        granted = command(folder, "grant", "you@localhost", "500")
        assert f"the balance is {balance + 500:,}" in " ".join(granted.stderr.split())
        balance = check_balance(http)
        audited = command(folder, "audit")
        assert (audited.returncode, audited.stdout, "the bucket was not looked at" in audited.stderr) == (0, "", False), audited
        assert str(machine.url) in machine.words()

        # Somebody else signs up: the link in the message is whole, and there are credits to begin with.
        second = {"email": "second@example.com", "password": "a long enough password"}
        assert httpx.post(f"{machine.url}/auth/v1/signup", json=second).status_code == 200
        (link,) = [line for mail in Path(folder, "mail").glob("*.eml") for line in mail.read_text().splitlines() if "verify" in line]
        assert httpx.get(link).status_code == 303
        given = httpx.post(f"{machine.url}/auth/v1/token?grant_type=password", json=second).json()
        theirs = httpx.get(f"{machine.url}/api/credits", headers={"Authorization": f"Bearer {given['access_token']}"})
        assert theirs.json()["balance"] == SIGN_UP_CREDITS > 0

        # Ended, it leaves nothing running; started again, it has everything, and shows no second user.
        assert len(machine.family()) >= 3
        assert machine.left_after(signal.SIGTERM) == []
        machine = stack.enter_context(Machine(folder))
        assert "API key" not in machine.words()
        http.base_url = machine.url
        assert check_balance(http) == balance
        assert httpx.get(http.get(f"/api/jobs/{job['id']}").json()["url"]).content == content
        assert httpx.get(http.get(f"/api/voices/{ready['id']}").json()["clip_url"]).content == clip
        assert ended(http, http.post("/api/tts", json=body | {"seed": 2}).json())["status"] == "succeeded"
        assert machine.left_after(signal.SIGINT) == []

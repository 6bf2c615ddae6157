"""Three clients that the tests' own environment has, called as `make clients` calls them; that has many more, each in its own environment."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.run import HERE, complaint
from tests.waiting import HANG_SECONDS
from training.evaluate import Ear

HEARD = {
    "openai": ("audio.speech.create, mp3", "with_streaming_response, pcm"),
    "elevenlabs": ("text_to_speech.stream_with_timestamps", "text_to_speech.convert_realtime"),
    "fish": ("fishaudio, tts.stream_websocket", "fish_audio_sdk, Session.tts"),
}
"""The calls whose sound the recogniser writes down: each way in which a client takes sound."""


@pytest.fixture(scope="module")
def ear():
    return Ear()


@pytest.mark.parametrize("name", HEARD)
def test_a_client_hears_the_words_at_the_right_speed(name, minnow, ear, tmp_path):
    command = [sys.executable, HERE / "calls" / f"{name}_calls.py", minnow.url, tmp_path]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=HANG_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    calls = {line["call"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert [line for line in calls.values() if "error" in line] == []
    for call in HEARD[name]:
        for sound in calls[call]["sounds"]:
            assert complaint(ear, Path(sound["path"]), sound["says"]) == "", call

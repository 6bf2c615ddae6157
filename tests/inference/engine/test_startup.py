"""What a server does about word times when it starts."""

import json
import shutil
from unittest.mock import Mock

import pytest

from inference.engine import calibration, startup
from inference.hub import EMBEDDED_VOICE
from inference.settings import Settings


@pytest.fixture
def nameless(tmp_path):
    """minnow without the names of its alignment heads."""
    directory = tmp_path / "nameless"
    shutil.copytree(EMBEDDED_VOICE, directory)
    file = directory / "generation_config.json"
    known = json.loads(file.read_text())
    del known["alignment_heads"]
    file.write_text(json.dumps(known))
    return directory


def settings(checkpoint, tmp_path, **more):
    return Settings(checkpoint=str(checkpoint), device="cpu", slots=1, voices_dir=tmp_path / "voices", **more)


def started(*chosen, **more):
    """Start as a server does. The heads it uses, and what it says of them."""
    said = []
    with startup.start_engine(settings(*chosen, **more), said.append) as engine:
        return engine.checkpoint.defaults.alignment_heads, said


def test_the_first_start_finds_heads_that_later_starts_read(nameless, tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "SENTENCES", calibration.SENTENCES[:1])
    heads, said = started(nameless, tmp_path)
    assert heads
    assert said[0].startswith("word times, score 0.")
    again = startup.load_checkpoint(nameless, settings(nameless, tmp_path))
    assert again.defaults.alignment_heads == heads
    assert calibration.is_settled(again, tmp_path / "voices")


def test_a_server_does_not_look_when_it_is_told_not_to(golden_directory, tmp_path):
    assert started(golden_directory, tmp_path, calibrate_times=False) == ((), [])


def test_heads_that_cannot_be_stored_are_used(nameless, tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "SENTENCES", calibration.SENTENCES[:1])
    monkeypatch.setattr(startup, "store", Mock(side_effect=PermissionError(13, "Permission denied")))
    heads, said = started(nameless, tmp_path)
    assert heads
    assert said[0].endswith("not stored, so that the next start looks again: Permission denied")


def test_named_heads_and_random_weights_leave_nothing_to_find(golden, tmp_path):
    named = startup.load_checkpoint(EMBEDDED_VOICE, settings(EMBEDDED_VOICE, tmp_path))
    assert calibration.is_settled(named, tmp_path)
    assert not calibration.is_settled(golden, tmp_path)
    calibration.store(tmp_path, golden, calibration.Choice((), 0.1))
    assert calibration.is_settled(golden, tmp_path)

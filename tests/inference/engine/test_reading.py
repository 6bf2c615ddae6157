"""Long texts are read in a process of their own, to the same lines."""

import signal

import psutil
import pytest

from inference.engine import reading
from inference.engine.reading import LONG_TEXT, Reader, read
from inference.engine.request import SpeechRequest
from inference.errors import RequestError
from inference.model.config import GenerationDefaults
from inference.voices.voice import Voice
from tests.waiting import wait

LONG = "It costs $5, **really**. " * (LONG_TEXT // 20)
DEFAULTS = GenerationDefaults(normalize=True)


@pytest.fixture
def reader():
    reader = Reader()
    yield reader
    reader.close()


def children():
    return [p for p in psutil.Process().children() if "inference.engine.reading" in " ".join(p.cmdline())]


def request(text, **more):
    return SpeechRequest(text, **more).resolved(DEFAULTS)


def test_a_long_text_is_read_aside_to_the_same_lines_and_words(reader):
    asked = request(LONG, words=True, voice=Voice(name="anna"))
    assert reader.read(asked, DEFAULTS) == read(asked, DEFAULTS)
    assert len(children()) == 1
    assert reader.read(request("Short."), DEFAULTS).lines[0].text == "Short."
    reader.close()
    assert not children()


def test_a_fault_of_a_long_text_is_its_own(reader):
    asked = request(LONG + "[pause:99999s]")
    with pytest.raises(RequestError) as here:
        read(asked, DEFAULTS)
    with pytest.raises(RequestError) as aside:
        reader.read(asked, DEFAULTS)
    assert (str(aside.value), aside.value.param) == (str(here.value), here.value.param)
    assert reader.read(request(LONG), DEFAULTS) == read(request(LONG), DEFAULTS)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_reader_that_is_killed_or_hangs_costs_no_request(reader, monkeypatch, number):
    asked = request(LONG + "日本語。" * 20_000)  # more bytes than a pipe holds
    reader.read(request(LONG), DEFAULTS)
    monkeypatch.setattr(reading, "PATIENCE_SECONDS", 0.2)
    for child in children():
        child.send_signal(number)
    assert reader.read(asked, DEFAULTS) == read(asked, DEFAULTS)
    assert not children()
    monkeypatch.undo()
    assert reader.read(request(LONG), DEFAULTS).lines
    assert len(children()) == 1


def test_it_ends_with_its_owner():
    reader = Reader()
    reader.read(request(LONG), DEFAULTS)
    del reader
    wait(lambda: not children())

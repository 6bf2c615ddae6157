"""The process of a device, as the HTTP process talks to it; here it is a thread, with a real engine."""

import queue
import threading

import numpy as np
import pytest

from inference import Audio, SpeechEngine, SpeechRequest
from inference.engine import startup, watchdog
from inference.errors import Overloaded
from inference.memory import Keeper
from inference.server import engine_process
from inference.server.engine_process import EngineProcess
from inference.server.messages import AppendText, Cancel, Encode, LiveRequest, WasRead
from inference.settings import Settings
from tests.waiting import HANG_SECONDS, wait

LONG = "One sentence here, and one there. " * 200


class Device:
    """The process's queues. `answers` holds what came for each request."""

    def __init__(self, engine):
        self.inbox, self.answers, self.states = queue.Queue(), {}, []
        self.process = EngineProcess(Settings(), self.inbox, self._take, self.states.append)
        self.thread = threading.Thread(target=self.process.run)
        self.engine = engine

    def _take(self, address, item):
        self.answers[address[1]] = [*self.answers.get(address[1], ()), item]  # at once: tests look from another thread

    def put(self, uid, message):
        self.inbox.put((0, uid, 0.0, message))

    def ended(self, uid):
        return uid in self.answers and not isinstance(self.answers[uid][-1], Audio | np.ndarray)


@pytest.fixture
def device(golden, monkeypatch):
    with SpeechEngine(golden, slots=2) as engine:
        monkeypatch.setattr(startup, "start_engine", lambda *_: engine)
        device = Device(engine)
        yield device
    if device.thread.ident:
        device.thread.join(HANG_SECONDS)


def test_it_says_again_and_again_that_it_is_ready(device, monkeypatch):
    monkeypatch.setattr(engine_process, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(watchdog, "GIVE_UP_LOOKS", 1e9)
    device.thread.start()
    wait(lambda: len(device.states) > 4)
    loading, *ready = device.states[:5]
    assert loading == {"status": "loading"}
    assert {state["status"] for state in ready} == {"ready"}
    assert [state["at"] for state in ready] == sorted({state["at"] for state in ready})
    monkeypatch.setattr(SpeechEngine, "hangs", True)
    seen = len(device.states)
    device.put("a", SpeechRequest("Hello.", max_new_tokens=3))
    wait(lambda: device.ended("a"))
    assert len(device.states) <= seen + 1
    device.engine.close()
    wait(lambda: device.states[-1]["status"] == "failed")


def test_an_engine_that_hangs_for_good_is_not_waited_for(device, monkeypatch):
    """Its process must end without joining its thread: `run` says so."""
    monkeypatch.setattr(engine_process, "BEAT_SECONDS", 0.001)
    monkeypatch.setattr(watchdog, "GIVE_UP_LOOKS", 3)
    monkeypatch.setattr(SpeechEngine, "hangs", True)
    assert device.process.run() is False
    assert device.states == [{"status": "loading"}, {"status": "failed", "error": "cpu does not answer"}]


def test_a_short_text_does_not_wait_until_a_long_one_is_prepared(device, monkeypatch):
    going, prepared = threading.Event(), SpeechEngine.submit

    def submit(self, request, *arguments, **named):
        if len(request.text) > engine_process.LONG_TEXT:
            going.wait(HANG_SECONDS)
        return prepared(self, request, *arguments, **named)

    monkeypatch.setattr(SpeechEngine, "submit", submit)
    device.put("long", LiveRequest(SpeechRequest(LONG, max_new_tokens=1)))
    device.put("long", AppendText("long", "And one more."))
    device.put("long", AppendText("long", None))
    device.put("gone", SpeechRequest(LONG, max_new_tokens=1))
    device.put("gone", Cancel("gone"))
    device.put("short", SpeechRequest("Hello.", max_new_tokens=3))
    device.thread.start()
    wait(lambda: device.ended("short"))
    assert device.answers["short"][-1] is None
    assert "long" not in device.answers
    going.set()
    wait(lambda: device.process._requests.get("long"))
    while not (device.ended("long") and device.ended("gone")):
        device.put("long", WasRead("long", 4))
        device.put("gone", WasRead("gone", 4))
        wait(device.inbox.empty)
    assert device.answers["long"][-1] is None
    assert len(device.answers["long"]) > len(device.answers["gone"])
    wait(lambda: device.process._preparing == {})


def test_memory_is_given_back_when_nothing_is_spoken_or_prepared(device, monkeypatch):
    going, prepared, looks = threading.Event(), SpeechEngine.submit, []

    def submit(*arguments, **named):
        going.wait(HANG_SECONDS)
        return prepared(*arguments, **named)

    monkeypatch.setattr(engine_process, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(SpeechEngine, "submit", submit)
    monkeypatch.setattr(Keeper, "look", lambda _, *, settled: looks.append(settled))
    device.put("long", SpeechRequest(LONG, max_new_tokens=1))
    device.thread.start()
    wait(lambda: len(device.states) > 6)
    assert not looks  # what a long text needs while it is prepared is not what the process needs at rest
    device.put("long", Cancel("long"))
    going.set()
    wait(lambda: looks)
    assert looks[0] is True
    wait(lambda: device.ended("long"))  # a thread of its own hands the answers on


def test_texts_that_wait_to_be_prepared_have_places_in_the_queue(device, monkeypatch):
    going, prepared = threading.Event(), SpeechEngine.submit

    def submit(*arguments, **named):
        going.wait(HANG_SECONDS)
        return prepared(*arguments, **named)

    monkeypatch.setattr(SpeechEngine, "submit", submit)
    monkeypatch.setattr(device.engine._scheduler, "_queue", 3)
    for number in range(8):
        device.put(str(number), SpeechRequest(LONG, max_new_tokens=1))
    device.thread.start()
    wait(lambda: len(device.answers) == 3)  # two slots, three places
    assert {type(answers[-1]) for answers in device.answers.values()} == {Overloaded}
    assert device.answers.keys() == {"5", "6", "7"}
    for number in range(5):
        device.put(str(number), Cancel(str(number)))
    going.set()
    wait(lambda: len(device.answers) == 8 and all(map(device.ended, device.answers)))
    wait(lambda: device.process._preparing == {})


def test_a_clip_whose_client_has_left_is_not_encoded(device):
    rng = np.random.default_rng(0)
    for uid, seconds in (("first", 20), ("left", 5), ("last", 1)):
        device.put(uid, Encode(rng.normal(size=44_100 * seconds).astype(np.float32)))
    device.put("left", Cancel("left"))
    device.thread.start()
    wait(lambda: device.ended("last"))
    assert device.answers.keys() == {"first", "last"}


def test_who_reads_nothing_holds_one_segment_and_goes_on_when_he_reads(device):
    device.put("deaf", SpeechRequest("One sentence. " * 40, seed=1, chunk_length=20, max_new_tokens=8))
    device.put("other", SpeechRequest("Hello.", max_new_tokens=3))
    device.thread.start()
    wait(lambda: device.ended("other") and len(device.answers.get("deaf", ())) > 8 and not device.engine._scheduler.running)
    assert len(device.answers["deaf"]) <= 10
    while not device.ended("deaf"):
        device.put("deaf", WasRead("deaf", 4))
        wait(device.inbox.empty)
    assert len(device.answers["deaf"]) > 40

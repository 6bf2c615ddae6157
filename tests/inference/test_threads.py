"""Whoever computes beside the engine's thread leaves no helpers of OpenMP's behind: see `run_in_short_lived_thread`."""

import os
import subprocess
import sys

import pytest

from inference.threads import run_in_short_lived_thread

SCRIPT = """
import os, threading, time
from inference import SpeechEngine, SpeechRequest

def helpers():
    return len(os.listdir("/proc/self/task")) - threading.active_count()

def soon(expected):
    deadline = time.monotonic() + 100  # a thread that has ended takes its helpers with it a moment later
    while helpers() != expected and time.monotonic() < deadline:
        time.sleep(0.02)
    return helpers()

SpeechEngine  # imports torch; it was prepared for two threads
bare = helpers()  # numpy's and whatever else came with the imports
engine = SpeechEngine.load(device="cpu", slots=1)
loaded = soon(bare)
sound = engine.synthesize(SpeechRequest("Hello there.", seed=1))
spoke = soon(bare + 1)
engine.decode(engine.encode(sound.samples))
print(loaded - bare, spoke - bare, soon(bare + 1) - bare)
engine.close()
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="what is left behind are libgomp's threads, which torch uses on Linux, counted in /proc"
)
def test_only_the_engine_keeps_helpers():
    environment = os.environ | {"FISHSERVE_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["0", "1", "1"]


def test_aside_gives_back_what_the_work_gives_and_raises():
    @run_in_short_lived_thread
    def divide(a, b):
        return a / b

    assert divide(6, b=3) == 2
    with pytest.raises(ZeroDivisionError):
        divide(1, 0)

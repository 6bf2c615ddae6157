"""Tests wait for events and states. A limit is there for a hang alone: no test passes or fails by how fast the machine is."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
HANG_SECONDS = 600
"""Longer than anything here takes on a machine whose cores are busy with something else."""


def wait(condition: Callable[[], T], why: str = "") -> T:
    """What the condition gives once that is true."""
    deadline = time.monotonic() + HANG_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, why or "what was waited for never came"
        time.sleep(0.05)
    return found

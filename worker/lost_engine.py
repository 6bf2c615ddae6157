"""Ends a worker whose engine has ended or hangs. Its jobs stay unanswered, so that RunPod gives them to another worker."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil

from inference.engine.engine import SpeechEngine
from inference.engine.watchdog import Watchdog

LOOK_SECONDS = 1.0
SENDING_SECONDS = 30.0
"""How long results may take that need no engine any more and are on their way."""


def watch(engine: SpeechEngine, unanswered: Callable[[], int], ends_in_order: threading.Event) -> None:
    """End the process in the background once the engine is lost, with exit code 1, unless the worker `ends_in_order`.

    `unanswered` is how many jobs can still get an answer.
    """

    def run() -> None:
        watchdog = Watchdog(engine)
        while engine.alive and not watchdog.gave_up:
            time.sleep(LOOK_SECONDS)
            watchdog.look()
        if not ends_in_order.is_set():
            _leave(engine.ending if not engine.alive else f"{engine.checkpoint.device} does not answer", unanswered)

    threading.Thread(target=run, name="fishserve-watch", daemon=True).start()


def _leave(reason: str, unanswered: Callable[[], int]) -> None:
    print(f"error: {reason}; this worker ends, and its jobs go to others", file=sys.stderr, flush=True)
    until = time.monotonic() + SENDING_SECONDS
    while unanswered() and time.monotonic() < until:
        time.sleep(0.1)
    for child in psutil.Process().children(recursive=True):  # the SDK's would tell RunPod that this worker lives
        child.kill()
    os._exit(1)  # a thread that hangs in the driver would hold up any other end


def jobs_of_the_sdk() -> int:
    """How many jobs RunPod's SDK has taken and not answered."""
    from runpod.serverless.modules.worker_state import JobsProgress

    progress: Any = JobsProgress()
    return int(progress.get_job_count())

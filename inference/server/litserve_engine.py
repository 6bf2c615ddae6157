"""The process of one device, as LitServe starts it. It loads nothing of HTTP beyond what LitServe itself does, so that it is ready sooner."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import Any

import litserve as ls
from litserve.loops import LitLoop
from litserve.loops.loops import inference_worker
from litserve.utils import LitAPIStatus, LoopResponseType

from inference import tracing
from inference.processes import end_with_parent
from inference.server.engine_process import Address, EngineProcess
from inference.settings import Settings

STATE = "fishserve"
"""Prefix of our keys (a device's number follows); LitServe's own keys share this dictionary, as do its processes."""


class EngineApi(ls.LitAPI):
    """LitServe requires an API object; EngineLoop does all the work."""

    def setup(self, device: str) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the parent ends this process after draining


class EngineLoop(LitLoop):
    """Runs an EngineProcess in the process that LitServe starts for a device."""

    def __init__(self, settings: Settings, number: int) -> None:
        super().__init__()
        self._settings, self._state, self._parent = settings, f"{STATE}{number}", os.getpid()

    def __call__(
        self, lit_api: ls.LitAPI, device: str, worker_id: int, request_queue: Any, transport: Any, shared: Any, callbacks: Any
    ) -> None:
        """Serve until the parent ends this process. If the model cannot be loaded, the process ends at once."""
        end_with_parent(self._parent)
        if tracing.is_on():
            signal.signal(signal.SIGTERM, _end)

        def send(address: Address, item: Any) -> None:
            if isinstance(item, Exception):
                self.put_error_response(transport, *address, item, LoopResponseType.STREAMING)
            else:
                status = LitAPIStatus.FINISH_STREAMING if item is None else LitAPIStatus.OK
                self.put_response(transport, *address, item, status, LoopResponseType.STREAMING)

        def report(state: dict[str, str]) -> None:
            shared[self._state] = state

        if not EngineProcess(self._settings, request_queue, send, report).run():
            os._exit(1)


def _end(*_: Any) -> None:
    """LitServe ends this process by a signal, when its requests are done: the last spans are sent first."""
    tracing.stop()
    os._exit(0)


def run_engine(*arguments: Any) -> None:
    """The engine's process: LitServe's own function, which ends quietly when LitServe's manager has ended, as the server then does."""
    with suppress(EOFError, ConnectionError):
        inference_worker(*arguments)

"""How the server ends: the first Ctrl-C or SIGTERM lets running requests finish, the next Ctrl-C, or one while it loads, does not."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, cast

from starlette.types import ASGIApp, Receive, Scope, Send

from inference.http.log import PROBES

INTERRUPTED = 130
"""The exit code of a process that Ctrl-C ended."""


class Shutdown:
    """`say` prints a line for the user. `stop`, once set, tells the server to accept no more requests and to end after the running ones.

    `requests` is a shared number that `InFlight` updates; `folder` holds temporary files; `ready` is whether the model is loaded.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.requests: Any = multiprocessing.Value("i", 0)
        self.stop: Callable[[], None] | None = None
        self.ready, self.folder = False, ""
        self._say, self._asked, self._interrupted = say, False, False

    def finish(self) -> None:
        """End after the running requests."""
        self._asked = True
        if running := self.requests.value:
            self._say(finishing(running))
        while self.stop is None:
            time.sleep(0.05)
        self.stop()

    def interrupt(self) -> None:
        """Handle Ctrl-C."""
        if not self._asked and (self.ready or self.requests.value):
            self.finish()
            return
        self._interrupted = True
        try:
            children = {process.pid for process in multiprocessing.active_children()} | set(_children())
            for pid in children:
                with suppress(ProcessLookupError):
                    os.kill(cast(int, pid), signal.SIGKILL)
            shutil.rmtree(self.folder, ignore_errors=True)
        finally:
            os._exit(INTERRUPTED)

    @contextmanager
    def on_ctrl_c(self) -> Iterator[None]:
        """Ctrl-C reaches every process of the group. This process and all that it starts block it; a thread here waits for it."""
        over = threading.Event()

        def wait() -> None:
            # Not sigtimedwait: once its time has passed while the process was stopped (Ctrl-Z, then `fg`), Python says that a signal came.
            while signal.sigwait({signal.SIGINT}) and not over.is_set():
                threading.Thread(target=self.interrupt, daemon=True).start()

        resource_tracker.ensure_running()  # when it starts, Python unblocks the signal
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        try:
            yield
        finally:
            if self._interrupted:  # the processes that have ended were killed; to say so would look like a fault
                threading.Event().wait()  # until `interrupt` ends the process
            over.set()
            signal.pthread_kill(cast(int, waiting.ident), signal.SIGINT)
            waiting.join()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def finishing(running: int) -> str:
    """What the first Ctrl-C says while requests run."""
    return f"Finishing {running} request{'s'[: running > 1]}; press Ctrl-C again to stop now"


def _children() -> Iterator[int]:
    """On Linux all children, also one that is only being started: it would complain that what starts it has ended."""
    for pid, parent in parents().items():
        with suppress(OSError):
            # The resource tracker cleans up after us.
            if parent == os.getpid() and b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                yield pid


def parents() -> dict[int, int]:
    """The parent of each process; nothing where there is no /proc."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            found[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    return found


class InFlight:
    """Middleware that counts the running requests and conversations, without probes: nobody waits for those."""

    def __init__(self, app: ASGIApp, count: Any) -> None:
        self._app, self._count = app, count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        with self._count.get_lock():
            self._count.value += 1
        try:
            await self._app(scope, receive, send)
        finally:
            with self._count.get_lock():
                self._count.value -= 1

"""Programs that run beside this one: a bucket and an engine. Each is stopped by its id; if this process is killed, it stops by itself."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from inference.errors import FishserveError
from inference.processes import end_with_parent

READY_SECONDS = 180


class NotStarted(FishserveError):
    """A program ended, or was not ready in time."""


class Program:
    """A process that writes to its own log."""

    def __init__(self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str], *, patience: float) -> None:
        """`patience` is how many seconds the process has to end when it is asked to."""
        self.name, self.log, self._patience = name, log, patience
        with log.open("wb") as file:
            # A separate process group: Ctrl-C reaches only this process, which then ends the others in order.
            self.process = subprocess.Popen(
                list(command), stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=os.environ | environment, process_group=0,
                preexec_fn=partial(end_with_parent, os.getpid(), signal.SIGTERM),  # noqa: PLW1509 - it makes two system calls
            )  # fmt: skip

    def is_running(self) -> bool:
        """Whether the process lives."""
        return self.process.poll() is None

    def wait_ready(self, ready: Callable[[], bool]) -> None:
        """Wait until the program is ready. Raises NotStarted, with the last lines of its log."""
        deadline = time.monotonic() + READY_SECONDS
        while not ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                said = self.log.read_text(errors="replace").splitlines()[-3:]
                raise NotStarted(f"{self.name} did not start; {self.log} says: {' | '.join(said)[-600:] or 'nothing'}")
            time.sleep(0.1)

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        """Ask the process to end, and kill it if it does not."""
        self.process.terminate()
        try:
            self.process.wait(self._patience)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)  # its group is its own
            self.process.wait()


def free_ports(count: int) -> list[int]:
    """Free ports. The port 10,000 above each is free, too, since SeaweedFS also takes it.

    All are below 32,768, where the system takes those of clients: it may take one before it is listened to.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(11_000, 22_700)
        if any(abs(port - other) in (0, 10_000) for other in found):
            continue
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + 10_000))
            found.append(port)
    return found

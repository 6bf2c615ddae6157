"""Processes that tests start. Each ends with its `with` block, and at once when it does not come up."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import psutil

from tests.waiting import HANG_SECONDS, wait


def free_port() -> int:
    """A port of 127.0.0.1 that the system gives to nobody else for a minute: a connection has just ended there (TIME_WAIT).

    Servers, which set SO_REUSEADDR, may listen there at once. Without that one process of tests would now and then get another's.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()):
        listening.accept()[0].close()
        return int(listening.getsockname()[1])


class Started:
    """A process, with all that it writes in one file: a pipe nobody reads would fill up."""

    output: Any
    process: subprocess.Popen[bytes]

    def start(self, command: Sequence[Any], ready: Callable[[], object] | None = None, **options: Any) -> None:
        """Start it, and wait until it is ready. One that ends before is an error, with its last words."""
        self.output = tempfile.TemporaryFile()  # noqa: SIM115 - it is closed when the process has ended
        self.process = subprocess.Popen(command, stdout=self.output, stderr=self.output, **options)
        if ready is not None:
            self.wait(ready)

    def wait(self, ready: Callable[[], object]) -> None:
        """Wait for a state that the process comes to. If it never does, end it."""
        try:
            wait(lambda: self.process.poll() is not None or ready())
            assert self.process.poll() is None, self.words()
        except BaseException:
            self.kill()
            raise

    def words(self) -> str:
        """All it has written."""
        return os.pread(self.output.fileno(), 1 << 24, 0).decode()

    def family(self) -> list[psutil.Process]:
        """What it started and still runs."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def end(self, sign: int = signal.SIGTERM, code: int | None = None) -> None:
        """Have it end by a signal. `code` is the exit status that it then must have."""
        try:
            self.process.send_signal(sign)
            ended = self.process.wait(HANG_SECONDS)
            assert code is None or ended == code, self.words()
        finally:
            self.kill()

    def kill(self) -> None:
        """End it and all that it started, whatever state it is in."""
        family = self.family()
        self.process.kill()
        self.process.wait()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.output.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None and not self.output.closed:
            self.end()
        else:
            self.kill()

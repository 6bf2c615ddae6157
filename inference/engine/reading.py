"""Reads long texts in a separate process, so that frames do not take turns with them.

The engine's rounds are half Python, and threads of a process run Python in turn: beside a text being read, first audio took twice as long.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import NamedTuple

from inference.engine.request import SpeechRequest
from inference.model.config import GenerationDefaults
from inference.text.script import Line
from inference.text.words import SpokenLine
from inference.voices.voice import Voice

LONG_TEXT = 2000
"""Characters above which a text is read aside, where somebody is being spoken to: about 5 ms of work."""
PATIENCE_SECONDS = 30.0
"""A process that has not read a text by then hangs. On a busy machine the longest text takes a few seconds."""
_NICE = 10
"""What is read is heard later; what is spoken, now."""


class Reading(NamedTuple):
    """A text as it is spoken: its lines, the seconds of silence after the last, and the words of each line if the request asks for them."""

    lines: list[Line]
    silence: float
    words: list[SpokenLine]


def read(request: SpeechRequest, defaults: GenerationDefaults) -> Reading:
    """Read a resolved request's text, here. Raises RequestError where it cannot be spoken."""
    lines, silence = request.script(defaults)
    return Reading(lines, silence, request.spoken_words(lines, defaults) if request.words else [])


class Reader:
    """Reads short texts here, and long ones in a process that starts with the first of them and ends with this object, or with this process.

    Threads may share it; long texts are read one after the other.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._aside: _Aside | None = None

    def read(self, request: SpeechRequest, defaults: GenerationDefaults) -> Reading:
        """As the function. Where the process cannot start, is killed or hangs, the text is read here."""
        if len(request.text) <= LONG_TEXT:
            return read(request, defaults)
        nameless = replace(request, voice=_name(request.voice), voices={name: _name(voice) for name, voice in request.voices.items()})
        with self._lock:
            try:
                self._aside = self._aside or _Aside()
                found = self._aside.ask((nameless, defaults))
            except (OSError, EOFError):
                self.close()
                return read(request, defaults)
        if isinstance(found, Exception):
            raise found
        return found

    def close(self) -> None:
        """End the process. The next long text starts another."""
        if self._aside:
            self._aside.end()
        self._aside = None


class _Aside:
    """The process."""

    def __init__(self) -> None:
        self._connection, theirs = Pipe()
        with theirs:
            fd = theirs.fileno()
            serves = f"from {__name__} import serve; serve({fd})"
            self._process = subprocess.Popen([sys.executable, "-c", serves], pass_fds=[fd], stdin=subprocess.DEVNULL)
        self.end = weakref.finalize(self, _end, self._process, self._connection)

    def ask(self, question: tuple[SpeechRequest, GenerationDefaults]) -> Reading | Exception:
        """Have a text read. Raises EOFError or OSError where the process ends instead; one that hangs is killed."""
        limit = threading.Timer(PATIENCE_SECONDS, self._process.kill)
        limit.daemon = True
        limit.start()
        try:
            self._connection.send(question)
            found: Reading | Exception = self._connection.recv()
            return found
        finally:
            limit.cancel()


def _end(process: subprocess.Popen[bytes], connection: Connection) -> None:
    connection.close()
    process.kill()
    process.wait()


def _name(voice: Voice) -> Voice:
    """A voice of which only the name is wanted: its references may be large."""
    return Voice(name=voice.name)


def serve(fd: int) -> None:
    """The process: reads what comes on a connection until its other end is closed, as it is when the engine's process ends."""
    os.nice(_NICE)
    with Connection(fd) as connection, suppress(EOFError, OSError):
        while True:
            request, defaults = connection.recv()
            try:
                found: Reading | Exception = read(request, defaults)
            except Exception as e:
                found = e
            connection.send(found)

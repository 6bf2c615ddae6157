"""What a client's calls came to, a line of JSON each. It runs in every client's environment, so it needs the standard library only."""

from __future__ import annotations

import json
import sys
import time
import traceback
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

URL, FOLDER = sys.argv[1], Path(sys.argv[2])
SOCKETS = URL.replace("http://", "ws://")
SENTENCE = "The weather is cold and the wind is strong today."
LATER = "We will walk to the station in the morning."


class Call:
    """One call. `sound` or `file` store what was heard; `note` says what else came."""

    def __init__(self, client: str, package: str, what: str) -> None:
        self.line: dict[str, object] = {"client": client, "version": version(package) if package else "", "call": what}
        self._began = time.monotonic()

    def first(self) -> None:
        """The first sound has come."""
        self.line.setdefault("first_audio_ms", round(1000 * (time.monotonic() - self._began)))

    def sound(self, samples: bytes, rate: int, says: str = SENTENCE) -> None:
        """Signed 16-bit mono samples, as the client hands them out."""
        path = self._path("wav", says)
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes(samples)

    def file(self, content: bytes, ending: str, says: str = SENTENCE) -> None:
        """A file, as the client hands it out."""
        self._path(ending, says).write_bytes(content)

    def words(self, timed: list[tuple[str, float]], seconds: float, says: str = SENTENCE) -> None:
        """The words that the client shows, each with its second of a sound of so many seconds. Raises ValueError unless they are those of the text."""
        texts, times = [text.strip() for text, _ in timed], [time for _, time in timed]
        if texts != says.split() or times != sorted(times) or not 0 <= times[0] <= times[-1] < seconds:
            raise ValueError(f"words of {seconds:.2f} s: {timed}")

    def note(self, words: str) -> None:
        self.line["note"] = words

    def _path(self, ending: str, says: str) -> Path:
        self.first()
        sounds = self.line.setdefault("sounds", [])
        assert isinstance(sounds, list)
        path = FOLDER / f"{len(list(FOLDER.iterdir()))}.{ending}"
        path.touch()
        sounds.append({"path": str(path), "says": says})
        return path


@contextmanager
def call(client: str, package: str, what: str) -> Iterator[Call]:
    """Make one call; an exception is its result."""
    made = Call(client, package, what)
    try:
        yield made
    except Exception as e:
        traceback.print_exc()
        made.line["error"] = f"{type(e).__name__}: {e}".split("\n", 1)[0][:300]
    print(json.dumps(made.line), flush=True)

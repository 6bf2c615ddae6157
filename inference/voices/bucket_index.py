"""The index of the voices in a bucket: one object that names all of them, and changes by compare-and-swap.

So adding, renaming and deleting are each one step for all processes, whoever else changes something at the same time.
"""

from __future__ import annotations

import json
import logging
import random
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from inference.errors import VoicesUnavailable
from inference.voices.bucket import Bucket, Conflict, Unchanged
from inference.voices.names import is_name

log = logging.getLogger("fishserve")
KEY = "voices.json"
POLL_SECONDS, AWAY_SECONDS = 0.5, 3.0
"""How often the bucket is asked for changes, and how often while it does not answer."""
MAX_BYTES = 32 * 2**20
MAX_TRIES = 50
"""Changes of others that may come between, each with a pause of up to `PAUSE_SECONDS`."""
PAUSE_SECONDS = 0.2
_CHANGES = 100
"""Changes that the index remembers: as many may follow one whose answer was lost before that is known to have been made."""


@dataclass(frozen=True)
class Record:
    """A voice: `id` names its objects, `created` is in nanoseconds of Unix time."""

    id: str
    text: str
    created: int


Voices = Mapping[str, Record]


class Index:
    """What this process knows of the index: `known` is None until it was read once, and may be `POLL_SECONDS` old while it is watched."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket, self._etag = bucket, ""
        self.known: Voices | None = None
        self.trouble = "the voices are still being read from their bucket"
        """Why nothing is known."""
        self._changing = threading.Lock()  # an older answer must not replace a newer one
        self._closed = threading.Event()
        self._watching: threading.Thread | None = None

    @property
    def is_watched(self) -> bool:
        """Whether a thread looks for changes."""
        return self._watching is not None

    def watch(self) -> None:
        """Look for changes in a thread, from now on."""
        self._watching = threading.Thread(target=self._watch, name="voices", daemon=True)
        self._watching.start()

    def close(self) -> None:
        """End that thread."""
        self._closed.set()
        if self._watching is not None:
            self._watching.join()

    def refresh(self) -> Voices:
        """Read the index, if it has changed. Raises VoicesUnavailable."""
        with self._changing:
            try:
                found = self._bucket.get(KEY, self._etag or None, max_bytes=MAX_BYTES)
            except Unchanged:
                assert self.known is not None
                return self.known
            if found is None:
                self.known, self._etag = {}, ""
            else:
                self.known, self._etag = _read(found.content)[0], found.etag
            return self.known

    def change(self, act: Callable[[Voices], Voices]) -> None:
        """Replace the voices by what `act` makes of them. It is called again when another process came first, and what it raises ends this."""
        change = secrets.token_hex(8)
        with self._changing:
            for _ in range(MAX_TRIES):
                found = self._bucket.get(KEY, max_bytes=MAX_BYTES)
                voices, changes = _read(found.content) if found else ({}, [])
                if found and change in changes:  # it was made, and its answer was lost
                    self.known, self._etag = voices, found.etag
                    return
                changed = act(voices)
                try:
                    self._etag = self._bucket.replace(KEY, _written(changed, [change, *changes]), found.etag if found else None)
                except Conflict:
                    time.sleep(random.uniform(0, PAUSE_SECONDS))
                    continue
                self.known = changed
                return
        raise VoicesUnavailable("other processes change the voices all the time; try again in a few seconds")

    def _watch(self) -> None:
        away = False
        while not self._closed.wait(AWAY_SECONDS if away else POLL_SECONDS if self.known is not None else 0):
            try:
                self.refresh()
            except VoicesUnavailable as e:
                self.trouble = str(e)
                if not away:
                    log.warning("%s; until then %s", e, "the voices known so far are used" if self.known is not None else "there are none")
                away = True
            except Exception as e:  # the thread must not end: voices would be those of now for ever
                log.error("an error in this program kept the voices from being read: %s", type(e).__name__)
                away = True
            else:
                if away:
                    log.warning("the bucket of the voices answers again")
                away = False


def _read(content: bytes) -> tuple[dict[str, Record], list[str]]:
    """The voices in the index, and the latest changes. Raises VoicesUnavailable for an index that is damaged."""
    try:
        found = json.loads(content)
        voices = {
            name: Record(str(one["id"]), str(one["text"]), int(one["created"])) for name, one in found["voices"].items() if is_name(name)
        }
        return voices, [str(change) for change in found["changes"]]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
        raise VoicesUnavailable(f"{KEY} in the bucket of the voices is damaged: {type(e).__name__}; restore it, or delete it") from None


def _written(voices: Voices, changes: list[str]) -> bytes:
    content = {"changes": changes[:_CHANGES], "voices": {name: asdict(voices[name]) for name in sorted(voices)}}
    return json.dumps(content, ensure_ascii=False, indent=1).encode()

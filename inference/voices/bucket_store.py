"""Named voices in an S3 bucket, for many machines: what one adds, all others speak with within a second.

The index (`bucket_index`) names the voices. A voice's clip, and its codes for each codec, lie under an id that no other voice ever has:
`clips/ID/clip.flac`, `clips/ID/codes-CODEC.npy`.
"""

from __future__ import annotations

import contextlib
import io
import logging
import secrets
import threading
import time
from collections import OrderedDict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from inference.audio.subprocess_decoder import decode_in_subprocess
from inference.errors import AudioError, RequestError, VoicesUnavailable
from inference.voices import names
from inference.voices.bucket import Bucket
from inference.voices.bucket_index import Index, Record, Voices
from inference.voices.codes import parse_codes
from inference.voices.store import DEFAULT, Entry, VoiceStore, flac_of
from inference.voices.voice import Reference, Voice

log = logging.getLogger("fishserve")
MAX_CACHED_BYTES = 32 * 2**20
"""Codes kept in this process: room for about 1,000 clips of the maximum length."""
MAX_CLIP_BYTES, MAX_CODES_BYTES = 50_000_000, 2_000_000
LEFT_SECONDS = 3600
"""Age of objects without a voice that are deleted: a process that died left them. Those of a voice that is being added are younger."""


class BucketVoiceStore(VoiceStore):
    """The voices of one bucket, or of a prefix in it. Methods also raise VoicesUnavailable.

    Once `start` was called, `names`, `entry` and `voice` never wait for the bucket; before, they ask it each time.
    """

    def __init__(self, url: str) -> None:
        """`url` is s3://BUCKET/PREFIX. Raises ConfigurationError."""
        super().__init__(Path())
        self.place = url
        self._bucket = Bucket(url)
        self._index = Index(self._bucket)
        self._codes = CodesCache(MAX_CACHED_BYTES)

    def start(self) -> None:
        """Learn of changes in a thread, from now on."""
        if not self._index.is_watched:
            self._index.watch()

    def close(self) -> None:
        """End that thread, and close the connections."""
        self._index.close()
        self._bucket.close()

    def names(self) -> list[str]:
        """As VoiceStore.names."""
        return [DEFAULT, *sorted(self._voices())]

    def entry(self, name: str) -> Entry:
        """As VoiceStore.entry."""
        voices = self._voices()
        if name not in voices:
            raise names.not_found(name, [DEFAULT, *sorted(voices)])
        return _entry(name, voices[name])

    def voice(self, name: str, codec: str) -> Voice | Entry:
        """As VoiceStore.voice, but a voice whose codes this process has not used yet is an `Entry`: `kept` may find them."""
        if name == DEFAULT:
            return Voice(name=DEFAULT)
        entry = self.entry(name)
        codes = self._codes.get((entry.id, codec))
        return entry if codes is None else Voice((Reference(codes, entry.text),), name)

    def kept(self, entry: Entry, codec: str) -> np.ndarray | None:
        """As VoiceStore.kept."""
        key = _codes_key(entry.id, codec)
        found = self._bucket.get(key, max_bytes=MAX_CODES_BYTES)
        if found is None:
            return None
        try:
            codes = parse_codes(io.BytesIO(found.content), key)
        except AudioError:  # they are made again
            return None
        self._codes.put((entry.id, codec), codes)
        return codes

    def keep(self, entry: Entry, codec: str, codes: np.ndarray) -> None:
        """As VoiceStore.keep. A bucket that this process may only read keeps none; other processes then encode the clip, too."""
        self._codes.put((entry.id, codec), codes)
        content, key = io.BytesIO(), _codes_key(entry.id, codec)
        np.save(content, codes.astype(np.int16))
        with contextlib.suppress(VoicesUnavailable):
            self._bucket.put(key, content.getvalue())
            if not self._bucket.exists(_clip_key(entry.id)):  # the voice was deleted meanwhile, its clip first
                self._bucket.delete(key)

    def clip(self, entry: Entry) -> np.ndarray:
        """As VoiceStore.clip."""
        found = self._bucket.get(_clip_key(entry.id), max_bytes=MAX_CLIP_BYTES)
        if found is None:
            raise names.gone(entry.name)
        try:
            return decode_in_subprocess(found.content)
        except AudioError as e:
            raise self._damaged(entry.name, e) from None

    def add(self, name: str, audio: Path | bytes, text: str) -> Entry:
        """As VoiceStore.add."""
        names.check_name(name)
        text = names.checked_transcript(text)
        _check_new(self._voices(), name)  # before the clip is read
        content = flac_of(decode_in_subprocess(audio))
        record = Record(secrets.token_hex(16), text, time.time_ns())
        self._bucket.put(_clip_key(record.id), content)

        def added(voices: Voices) -> Voices:
            _check_new(voices, name)
            return {**voices, name: record}

        try:
            self._index.change(added)
        except RequestError:  # another process took the name
            with contextlib.suppress(VoicesUnavailable):
                self._bucket.delete(_clip_key(record.id))
            raise
        return _entry(name, record)

    def rename(self, name: str, new: str) -> None:
        """As VoiceStore.rename."""

        def renamed(voices: Voices) -> Voices:
            record, others = _without(voices, name)
            names.check_name(new)
            if new in voices:
                raise names.exists(new)
            return {**others, new: record}

        self._index.change(renamed)

    def delete(self, name: str) -> None:
        """As VoiceStore.delete. Also deletes what processes that died have left in the bucket."""
        deleted: list[Record] = []

        def remaining(voices: Voices) -> Voices:
            record, others = _without(voices, name)
            deleted[:] = [record]
            return others

        self._index.change(remaining)
        try:
            self._sweep(deleted[0].id)
        except VoicesUnavailable as e:
            log.warning("the clip of a deleted voice stays in the bucket until another voice is deleted: %s", e)

    def _voices(self) -> Voices:
        if not self._index.is_watched:
            return self._index.refresh()
        if self._index.known is None:
            raise VoicesUnavailable(f"{self._index.trouble}; try again in a few seconds")
        return self._index.known

    def _sweep(self, deleted: str) -> None:
        """Delete all that is left of a voice, and of those that nobody added to the end."""
        self._bucket.delete(_clip_key(deleted))  # first: whoever stores codes looks afterwards whether it is there
        named = {record.id for record in self._index.refresh().values()}
        for key, stored in self._bucket.list("clips/"):
            owner = key.split("/")[1]
            if owner == deleted or (owner not in named and datetime.now(UTC).timestamp() - stored.timestamp() > LEFT_SECONDS):
                self._bucket.delete(key)


class CodesCache:
    """Codes (codebooks, frames) by voice and codec, up to `max_bytes`; the least recently used are dropped first."""

    def __init__(self, max_bytes: int) -> None:
        self._max, self._bytes = max_bytes, 0
        self._kept: OrderedDict[tuple[str, str], np.ndarray] = OrderedDict()
        self._changing = threading.Lock()

    def get(self, key: tuple[str, str]) -> np.ndarray | None:
        """The codes, if they are kept."""
        with self._changing:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: tuple[str, str], codes: np.ndarray) -> None:
        """Keep codes."""
        with self._changing:
            if (old := self._kept.pop(key, None)) is not None:
                self._bytes -= old.nbytes
            self._kept[key] = small = codes.astype(np.int16)
            self._bytes += small.nbytes
            while self._bytes > self._max:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes


def _check_new(voices: Voices, name: str) -> None:
    """Raises VoiceExists, and RequestError when there is no room for one more."""
    if name in voices:
        raise names.exists(name)
    names.check_room(len(voices))


def _without(voices: Voices, name: str) -> tuple[Record, Voices]:
    """A voice, and the others. Raises VoiceNotFound."""
    if name not in voices:
        raise names.not_found(name, [DEFAULT, *sorted(voices)])
    return voices[name], {other: record for other, record in voices.items() if other != name}


def _entry(name: str, record: Record) -> Entry:
    return Entry(name, record.text, datetime.fromtimestamp(record.created / 1e9, UTC), None, record.created, record.id)


def _clip_key(voice_id: str) -> str:
    return f"clips/{voice_id}/clip.flac"


def _codes_key(voice_id: str, codec: str) -> str:
    return f"clips/{voice_id}/codes-{codec}.npy"

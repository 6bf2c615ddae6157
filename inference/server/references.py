"""Voices for the HTTP APIs: encodes stored and submitted clips, once each."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TypeVar

import numpy as np

from inference.audio.subprocess_decoder import decode_in_subprocess
from inference.errors import Overloaded
from inference.server.audio_responses import EngineClient, check_ready
from inference.voices.store import Entry, VoiceStore
from inference.voices.voice import Reference, Voice

T = TypeVar("T")
MAX_BYTES = 32 * 2**20
"""Codes kept in memory: of about 1,000 of the longest clips."""
MAX_CLIPS = 16
"""Clips that may wait to be read."""


class References:
    """Turns names and clips into what the engine imitates. A clip is encoded once, however many ask for it at the same time."""

    def __init__(self, speaker: EngineClient, store: VoiceStore) -> None:
        self._speaker, self._store = speaker, store
        self._running: dict[str, asyncio.Task[np.ndarray]] = {}
        self._kept: OrderedDict[str, np.ndarray] = OrderedDict()
        self._bytes = 0
        self._reading, self._turn = 0, asyncio.Semaphore(2)

    async def voice(self, name: str) -> Voice:
        """A stored voice. Raises VoiceNotFound, NotReady, Overloaded."""
        await check_ready(self._speaker)
        codec = (await self._speaker.state())["codec"]
        found = self._store.voice(name, codec)
        if isinstance(found, Voice):
            return found
        # Its codes are on disk from now on, or, where that cannot be written to, in memory.
        codes = await self._codes(f"{name}/{codec}/{found.age}", lambda: self._encode_voice(found, codec))
        return Voice((Reference(codes, found.text),), name)

    async def reference(self, audio: bytes, text: str) -> Reference:
        """A clip that came with a request. Raises AudioError, NotReady, Overloaded."""
        await check_ready(self._speaker)
        key = await asyncio.to_thread(lambda: hashlib.sha256(audio).hexdigest())
        return Reference(await self._codes(key, lambda: self._encode_clip(audio)), text)

    async def add(self, name: str, audio: bytes, text: str) -> None:
        """As VoiceStore.add. Raises Overloaded, too."""
        await self._aside(lambda: self._store.add(name, audio, text))

    async def read(self, audio: bytes) -> np.ndarray:
        """Samples (n,) at 44.1 kHz of a clip, as they are. Raises AudioError, Overloaded."""
        return await self._aside(lambda: decode_in_subprocess(audio, fit=False))

    async def _codes(self, key: str, work: Callable[[], Awaitable[np.ndarray]]) -> np.ndarray:
        """What is kept, or comes of work that may be under way already. It goes on when one of those who wait for it leaves."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.ensure_future(self._keep(key, work))
            task.add_done_callback(lambda t: (self._running.pop(key), t.cancelled() or t.exception()))  # looked at, even if nobody waits
        return await asyncio.shield(task)

    async def _keep(self, key: str, work: Callable[[], Awaitable[np.ndarray]]) -> np.ndarray:
        codes = (await work()).astype(np.int16)
        self._kept[key], self._bytes = codes, self._bytes + codes.nbytes
        while self._bytes > MAX_BYTES:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return codes

    async def _encode_voice(self, entry: Entry, codec: str) -> np.ndarray:
        codes = await self._speaker.encode(await self._aside(lambda: self._store.clip(entry)))
        await asyncio.to_thread(self._store.keep, entry, codec, codes)
        return codes

    async def _encode_clip(self, audio: bytes) -> np.ndarray:
        return await self._speaker.encode(await self._aside(lambda: decode_in_subprocess(audio)))

    async def _aside(self, work: Callable[[], T]) -> T:
        """Clips are read two at a time: sound on its way out goes through the same threads, and must not wait for them."""
        if self._reading >= MAX_CLIPS:
            raise Overloaded(f"{MAX_CLIPS} clips are waiting to be read already; try again in a few seconds", 5)
        self._reading += 1
        try:
            async with self._turn:
                return await asyncio.to_thread(work)
        finally:
            self._reading -= 1

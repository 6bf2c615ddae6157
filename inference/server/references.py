"""Voices for the HTTP APIs: encodes stored and submitted clips, once each."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import numpy as np

from inference.audio.subprocess_decoder import decode_in_subprocess
from inference.errors import Overloaded, RequestError
from inference.server.audio_responses import EngineClient, check_ready
from inference.text.dialogue import MAX_VOICES, voice_names
from inference.voices.store import DEFAULT, Entry, VoiceStore
from inference.voices.voice import Reference, Voice

T = TypeVar("T")
MAX_BYTES = 32 * 2**20
"""The limit for codes kept in memory: room for about 1,000 clips of the maximum length."""
MAX_CLIPS = 16
"""Clips that may wait to be read."""


class References:
    """Turns names and clips into voices that the engine imitates. A clip is encoded once, even if many requests need it at once."""

    def __init__(self, speaker: EngineClient, store: VoiceStore, aliases: Mapping[str, str] | None = None) -> None:
        """`aliases` maps names to voices. A stored voice with such a name goes first."""
        self._speaker, self._store = speaker, store
        self.aliases = aliases or {}
        self._running: dict[str, asyncio.Task[np.ndarray]] = {}
        self._kept: OrderedDict[str, np.ndarray] = OrderedDict()
        self._bytes = 0
        self._reading, self._turn = 0, asyncio.Semaphore(2)

    async def voice(self, name: str) -> Voice:
        """A stored voice. Raises VoiceNotFound, NotReady, Overloaded."""
        await check_ready(self._speaker)
        if name in self.aliases and name not in self._store.names():
            name = self.aliases[name]
        codec = (await self._speaker.state())["codec"]
        found = self._store.voice(name, codec)
        if isinstance(found, Voice):
            return found
        # From now on its codes are on disk or in the bucket, or in memory where they cannot be kept there.
        codes = await self._codes(f"{name}/{codec}/{found.age}", lambda: self._encode_voice(found, codec))
        return Voice((Reference(codes, found.text),), name)

    async def named(self, text: str, voice: Voice) -> dict[str, Voice]:
        """The voices that marks in a text name, besides `voice`, which may be one of them. Raises as `voice`, RequestError for too many."""
        names = voice_names(text)
        if len(names) > MAX_VOICES:
            raise RequestError(f"the text names {len(names)} voices; at most {MAX_VOICES} speak in one request", "voice")
        return {name: voice if name == voice.name else await self.voice(name) for name in names}

    def check_named(self, text: str) -> None:
        """Raises VoiceNotFound when a mark in a text names a voice that there is not."""
        for name in voice_names(text):
            known = self.aliases.get(name, name) if name not in self._store.names() else name
            if known != DEFAULT:
                self._store.entry(known)

    async def reference(self, audio: bytes, text: str) -> Reference:
        """A clip that came with a request. Raises AudioError, NotReady, Overloaded."""
        await check_ready(self._speaker)
        key = await asyncio.to_thread(lambda: hashlib.sha256(audio).hexdigest())
        return Reference(await self._codes(key, lambda: self._encode_clip(audio)), text)

    async def add(self, name: str, audio: bytes, text: str) -> None:
        """As VoiceStore.add, but also raises Overloaded."""
        await self._aside(lambda: self._store.add(name, audio, text))

    async def read(self, audio: bytes) -> np.ndarray:
        """The samples (n,) of a clip at 44.1 kHz, not prepared as a reference. Raises AudioError, Overloaded."""
        return await self._aside(lambda: decode_in_subprocess(audio, fit=False))

    async def _codes(self, key: str, work: Callable[[], Awaitable[np.ndarray]]) -> np.ndarray:
        """The cached codes, or the result of `work`, which may already be running. `work` continues when a caller is cancelled."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.ensure_future(self._keep(key, work))
            # Retrieve the exception even if no caller waits for it.
            task.add_done_callback(lambda t: (self._running.pop(key), t.cancelled() or t.exception()))
        return await asyncio.shield(task)

    async def _keep(self, key: str, work: Callable[[], Awaitable[np.ndarray]]) -> np.ndarray:
        codes = (await work()).astype(np.int16)
        self._kept[key], self._bytes = codes, self._bytes + codes.nbytes
        while self._bytes > MAX_BYTES:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return codes

    async def _encode_voice(self, entry: Entry, codec: str) -> np.ndarray:
        if (kept := await asyncio.to_thread(self._store.kept, entry, codec)) is not None:
            return kept
        codes = await self._speaker.encode(await self._aside(lambda: self._store.clip(entry)))
        await asyncio.to_thread(self._store.keep, entry, codec, codes)
        return codes

    async def _encode_clip(self, audio: bytes) -> np.ndarray:
        return await self._speaker.encode(await self._aside(lambda: decode_in_subprocess(audio)))

    async def _aside(self, work: Callable[[], T]) -> T:
        """Run `work`, which reads a clip, at most two at a time: outgoing audio uses the same threads and must not wait for clips."""
        if self._reading >= MAX_CLIPS:
            raise Overloaded(f"{MAX_CLIPS} clips are waiting to be read already; try again in a few seconds", 5)
        self._reading += 1
        try:
            async with self._turn:
                return await asyncio.to_thread(work)
        finally:
            self._reading -= 1

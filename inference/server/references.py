"""Voices for the HTTP APIs: encodes stored and submitted clips once each; routes to add, list, rename and delete voices."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.datastructures import UploadFile

from inference.audio.subprocess_decoder import decode_in_subprocess
from inference.errors import Overloaded, RequestError
from inference.server.audio_responses import EngineClient, check_ready
from inference.server.request_bodies import Bytes, Lenient, accepts, read, validated
from inference.voices.store import Entry, VoiceStore
from inference.voices.voice import Reference, Voice

T = TypeVar("T")
PATHS = ("/v1/references/",)
"""Paths whose errors use the format of Fish's self-hosted server."""
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


class AddBody(Lenient):
    """A new voice: its name, a clip, and what is said in it."""

    id: str
    audio: Bytes
    text: str


class DeleteBody(Lenient):
    """The voice to forget."""

    reference_id: str


class UpdateBody(Lenient):
    """A voice's name, and its new one."""

    old_reference_id: str
    new_reference_id: str


def router(voices: VoiceStore, references: References) -> APIRouter:
    """The routes under /v1/references, as Fish's self-hosted server has them."""
    routes = APIRouter(prefix="/v1/references", tags=["voices"])

    @routes.post("/add", openapi_extra=accepts(AddBody, form=True))
    async def add(request: Request) -> dict[str, Any]:
        """Add a voice from a clip of 1 to 90 s, in any format, and what is said in it."""
        body = await _form(request) if "form" in request.headers.get("content-type", "") else await read(request, AddBody)
        await references.add(body.id, body.audio, body.text)
        return {"success": True, "message": f"{body.id} was added", "reference_id": body.id}

    @routes.get("/list")
    async def names() -> dict[str, Any]:
        """The names of all voices."""
        found = voices.names()
        return {"success": True, "reference_ids": found, "message": f"{len(found)} voices"}

    @routes.delete("/delete", openapi_extra=accepts(DeleteBody))
    async def delete(request: Request) -> dict[str, Any]:
        """Forget a voice."""
        name = (await read(request, DeleteBody)).reference_id
        await asyncio.to_thread(voices.delete, name)
        return {"success": True, "message": f"{name} was deleted", "reference_id": name}

    @routes.post("/update", openapi_extra=accepts(UpdateBody))
    async def update(request: Request) -> dict[str, Any]:
        """Rename a voice."""
        body = await read(request, UpdateBody)
        await asyncio.to_thread(voices.rename, body.old_reference_id, body.new_reference_id)
        names = {"old_reference_id": body.old_reference_id, "new_reference_id": body.new_reference_id}
        return {"success": True, "message": f"{body.old_reference_id} is now {body.new_reference_id}", **names}

    return routes


def error(status: int, message: str, headers: dict[str, str] | None) -> JSONResponse:
    """An error in the shape of Fish's self-hosted server."""
    return JSONResponse({"success": False, "message": message}, status, headers)


async def _form(request: Request) -> AddBody:
    async with request.form(max_files=1) as form:
        fields: dict[str, Any] = dict(form)
        if not isinstance(fields.get("audio"), UploadFile):
            raise RequestError("audio is missing, or is not a file", "audio")
        return validated(AddBody, fields | {"audio": await fields["audio"].read()})

"""Wyoming, Home Assistant's protocol: a small server that has a fishserve speak.

It is a client of that server's ElevenLabs WebSocket, which takes a text while it is being written. So it needs no model, and may run on
another machine, beside Home Assistant.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from typing import Any, cast
from urllib.parse import quote

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Attribution, Describe, Info, TtsProgram, TtsVoice
from wyoming.ping import Ping, Pong
from wyoming.server import AsyncEventHandler, AsyncTcpServer
from wyoming.tts import Synthesize, SynthesizeChunk, SynthesizeStart, SynthesizeStop, SynthesizeStopped, SynthesizeVoice
from wyoming.zeroconf import HomeAssistantZeroconf

from inference.errors import ConfigurationError
from inference.voices.store import DEFAULT

RATE = 22_050
"""Of the sound, in Hz, as Home Assistant's own voices have it."""
MAX_CONNECTIONS = 64
MAX_EVENT_BYTES = 1_000_000
"""Of each part of an event that a client sends; the server has its own limit for a text."""
MAX_PIECES = 10_000
"""Pieces of one text that may wait to be sent on."""
WAIT_SECONDS = 180
"""How long a client may take for its next event, or to read: a language model writes the next piece of a text."""
_UNREACHABLE = (OSError, httpx.HTTPError, WebSocketException, TimeoutError)
log = logging.getLogger("fishserve")


class Fishserve:
    """The server that speaks, at `url` (http or https). `key` is its API key. Raises ConfigurationError for another kind of address."""

    def __init__(self, url: str, key: str | None) -> None:
        if httpx.URL(url).scheme not in ("http", "https") or not httpx.URL(url).host:
            raise ConfigurationError(f"{url!r} is no address of a server; one looks like http://127.0.0.1:8080")
        self.url, self._headers = url.rstrip("/"), {"xi-api-key": key} if key else {"xi-api-key": "none"}

    async def info(self) -> Info:
        """Its voices, which all speak all languages of the model. Raises httpx.HTTPError."""
        async with httpx.AsyncClient(base_url=self.url, headers=self._headers, timeout=10) as client:
            voices, models = [(await client.get(path)).raise_for_status().json() for path in ("/v1/voices", "/v1/models")]
        by = Attribution("fishserve", self.url)
        languages = [language["language_id"] for language in models[0]["languages"]]
        common: dict[str, Any] = {"attribution": by, "installed": True, "version": version("fishserve")}
        found = [TtsVoice(name=v["voice_id"], description=v["name"], languages=languages, **common) for v in voices["voices"]]
        program = TtsProgram(
            name="fishserve", description=f"fishserve, {models[0]['name']}", voices=found, supports_synthesize_streaming=True, **common
        )
        return Info(tts=[program])

    async def speak(self, voice: str, text: asyncio.Queue[str | None], hear: Callable[[bytes], Any]) -> None:
        """Speak the pieces of a text as they come, until None. `hear` is awaited with 16-bit mono samples at RATE.

        Raises Refused when the server refuses, WebSocketException or OSError when it cannot be reached, TimeoutError when no text comes.
        """
        path = f"/v1/text-to-speech/{quote(voice, safe='')}/stream-input?output_format=pcm_{RATE}&inactivity_timeout={WAIT_SECONDS}"
        address = self.url.replace("http", "ws", 1) + path
        async with connect(address, additional_headers=self._headers, max_size=None) as socket, asyncio.TaskGroup() as tasks:

            async def write() -> None:
                await socket.send(json.dumps({"text": " "}))
                while True:
                    async with asyncio.timeout(WAIT_SECONDS):
                        piece = await text.get()
                    await socket.send(json.dumps({"text": piece or ""}))
                    if piece is None:
                        return

            writing = tasks.create_task(write())
            async for message in socket:
                told = json.loads(message)
                if "error" in told:
                    raise Refused(str(told.get("message", told["error"])))
                if told.get("audio"):
                    await hear(base64.b64decode(told["audio"]))
                if told.get("isFinal"):
                    break
            writing.cancel()


class Refused(Exception):
    """The server's own words about a text or a voice."""


class _Bounded:
    """Reads from a client as `asyncio.StreamReader` does, but nothing of unbounded size, and waits for nothing for ever."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader, self.feed_eof = reader, reader.feed_eof

    async def readline(self) -> bytes:
        async with asyncio.timeout(WAIT_SECONDS):
            return await self._reader.readline()

    async def readexactly(self, n: int) -> bytes:
        if not 0 <= n <= MAX_EVENT_BYTES:
            raise ValueError(f"an event of {n:,} bytes was announced; at most {MAX_EVENT_BYTES:,} are read")
        async with asyncio.timeout(WAIT_SECONDS):
            return await self._reader.readexactly(n)


class Conversation(AsyncEventHandler):
    """One connection. Texts are spoken one after the other."""

    def __init__(self, speaker: Fishserve, limit: asyncio.Semaphore, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(cast(asyncio.StreamReader, _Bounded(reader)), writer)  # it has all that the library uses of a reader
        self._speaker, self._limit = speaker, limit
        self._text: asyncio.Queue[str | None] | None = None
        self._speaking: asyncio.Task[bool] | None = None

    async def run(self) -> None:
        """Serve the connection until the client leaves or sends what is no event."""
        if self._limit.locked():
            self.writer.close()
            return
        async with self._limit:
            # The library raises any of these for what is no event; TimeoutError, of a client that is idle or does not read, is an OSError.
            with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, asyncio.IncompleteReadError):
                await super().run()

    async def write_event(self, event: Event) -> None:
        """Send an event. Raises TimeoutError for a client that does not read."""
        async with asyncio.timeout(WAIT_SECONDS):
            await super().write_event(event)

    async def disconnect(self) -> None:
        """Stop speaking: nobody listens."""
        if self._speaking:
            self._speaking.cancel()

    async def handle_event(self, event: Event) -> bool:
        """Answer an event; unknown ones are passed over. Returns whether the connection stays open."""
        if Describe.is_type(event.type):
            return await self._describe()
        if Ping.is_type(event.type):
            await self.write_event(Pong(text=Ping.from_event(event).text).event())
        elif SynthesizeStart.is_type(event.type):
            if self._speaking is None:
                self._begin(SynthesizeStart.from_event(event).voice)
        elif SynthesizeChunk.is_type(event.type):
            return self._add(SynthesizeChunk.from_event(event).text)
        elif SynthesizeStop.is_type(event.type):
            return await self._finish(SynthesizeStopped().event())
        elif (
            Synthesize.is_type(event.type) and self._text is None
        ):  # between start and stop it repeats the pieces, for servers that know only it
            whole = Synthesize.from_event(event)
            self._begin(whole.voice)
            return self._add(whole.text) and await self._finish(None)
        return True

    async def _describe(self) -> bool:
        try:
            await self.write_event((await self._speaker.info()).event())
        except (*_UNREACHABLE, KeyError, IndexError, ValueError) as e:
            log.warning("%s does not say what voices it has: %s", self._speaker.url, type(e).__name__)
            return False
        return True

    def _begin(self, voice: SynthesizeVoice | None) -> None:
        self._text = asyncio.Queue(MAX_PIECES)
        self._speaking = asyncio.create_task(self._speak((voice and voice.name) or DEFAULT, self._text))

    def _add(self, piece: str) -> bool:
        """False when there are too many pieces that nobody has spoken."""
        if self._text is not None and piece:
            try:
                self._text.put_nowait(piece)
            except asyncio.QueueFull:
                return False
        return True

    async def _finish(self, end: Event | None) -> bool:
        if self._text is None or self._speaking is None:
            return True
        await self._text.put(None)
        well = await self._speaking
        self._text = self._speaking = None
        if end:
            await self.write_event(end)
        return well

    async def _speak(self, voice: str, text: asyncio.Queue[str | None]) -> bool:
        """Speak a text. What goes wrong is told to the client, and is why this returns False."""
        sound: dict[str, int] = {"rate": RATE, "width": 2, "channels": 1}
        await self.write_event(AudioStart(**sound).event())

        async def hear(samples: bytes) -> None:
            await self.write_event(AudioChunk(audio=samples, **sound).event())

        wrong = None
        try:
            await self._speaker.speak(voice, text, hear)
        except* Refused as e:
            wrong = str(e.exceptions[0])
        except* _UNREACHABLE as e:
            wrong = f"{self._speaker.url} cannot be asked to speak: {type(e.exceptions[0]).__name__}"
        if wrong:
            log.warning("%s", wrong)
            await self.write_event(Error(text=wrong).event())
        await self.write_event(AudioStop().event())
        return wrong is None


async def serve(speaker: Fishserve, host: str, port: int) -> None:
    """Listen until SIGTERM or Ctrl-C. Raises ConfigurationError when the address is taken.

    Home Assistant finds the server by itself, unless it listens to this machine alone.
    """
    with suppress(ValueError):
        if not ipaddress.ip_address(host).is_loopback:
            try:
                await HomeAssistantZeroconf(
                    port, "fishserve", None if ipaddress.ip_address(host).is_unspecified else host
                ).register_server()
            except OSError as e:
                log.warning(
                    "Home Assistant will not find this server by itself (%s); enter its address there", e.strerror or type(e).__name__
                )
    try:
        await AsyncTcpServer(host, port).run(partial(Conversation, speaker, asyncio.Semaphore(MAX_CONNECTIONS)))
    except OSError as e:
        raise ConfigurationError(f"cannot listen on {host}:{port}: {e.strerror or e}") from None

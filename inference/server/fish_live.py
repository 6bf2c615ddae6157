"""The Fish Audio API over WebSocket: speech while its text is being written."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any

import ormsgpack
from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import ValidationError

from inference.errors import FishserveError, RequestError
from inference.http.error_responses import complaint
from inference.server.audio_responses import EngineClient, check_ready
from inference.server.fish import SpeechBody, TimedChunks, voice_of
from inference.server.live_speech import LiveSpeech
from inference.server.request_bodies import unpacked
from inference.server.sockets import Inbox, race
from inference.server.state import AppState
from inference.voices.voice import Voice

IDLE_SECONDS = 300
"""How long a connection may wait for its next event."""
Event = dict[str, Any]
router = APIRouter(tags=["Fish Audio"])


@router.websocket("/v1/tts/live")
async def live(socket: WebSocket, state: AppState) -> None:
    """Speak texts while the client is still writing them, one after another."""
    await socket.accept()
    await Conversation(socket, state.engine, lambda body: voice_of(body, state.references)).hold()


@router.websocket("/v1/tts/live/with-timestamp")
async def live_with_times(socket: WebSocket, state: AppState) -> None:
    """As `live`, with the times of the words."""
    await socket.accept()
    await Conversation(socket, state.engine, lambda body: voice_of(body, state.references), words=True).hold()


class Conversation:
    """One connection. From `start` to `stop` text arrives in events and the server sends pieces of one file. Then the next may start."""

    def __init__(
        self, socket: WebSocket, engine: EngineClient, voice_of: Callable[[SpeechBody], Awaitable[Voice]], *, words: bool = False
    ) -> None:
        self._socket, self._engine, self._voice_of, self._words = socket, engine, voice_of, words
        self._inbox = Inbox(socket, _event)

    async def hold(self) -> None:
        """Run until the client disconnects, causes an error, or starts nothing for a long time."""
        last: list[Event] = []
        try:
            await race(self._speak_all(), self._inbox.read())
        except WebSocketDisconnect:
            return
        except FishserveError as e:
            last = [{"event": "error", "error": str(e)}, {"event": "finish", "reason": "error"}]
        with suppress(WebSocketDisconnect, RuntimeError):  # the client may have disconnected meanwhile
            for event in last:
                await self._send(**event)
            await self._socket.close()

    async def _speak_all(self) -> None:
        """Speak one text after another. Ends when the client starts no other, or when the server is ending."""
        while start := await self._inbox.next_or_end(IDLE_SECONDS):
            speech = await self._begun(start)
            await race(self._send_audio(speech), self._listen(speech))
            await self._send(event="finish", reason="stop")

    async def _begun(self, event: Event) -> LiveSpeech:
        """The speech that a `start` event asks for. All that it asks for is checked now. Raises FishserveError."""
        if event["event"] != "start" or not isinstance(event.get("request"), dict):
            raise RequestError(f"the first event is {event['event'][:80]!r}; it must be 'start', with a request")
        try:
            body = SpeechBody.model_validate(event["request"] | {"text": event["request"].get("text") or ""})
        except ValidationError as e:
            raise RequestError(complaint(e.errors()[0])[0]) from None
        await check_ready(self._engine)
        voice = await self._voice_of(body)
        speech = LiveSpeech(self._engine, lambda text: replace(body.request(text, voice), words=self._words), body.encoder())
        speech.add(body.text)
        return speech

    async def _send_audio(self, speech: LiveSpeech) -> None:
        chunks = TimedChunks()
        async with aclosing(speech.pieces()) as pieces:
            async for piece in pieces:
                times = chunks.next(speech.text, piece) if self._words else {}
                await self._send(event="audio", audio=piece.content, **times)

    async def _listen(self, speech: LiveSpeech) -> None:
        """Take the speech's text, then wait: the speech ends when it is spoken. Raises RequestError."""
        while (event := await self._next_event())["event"] != "stop":
            if event["event"] == "text":
                if not isinstance(event.get("text"), str):
                    raise RequestError("a text event has no text")
                speech.add(event["text"])
            elif event["event"] == "flush":
                speech.flush()
        speech.flush()
        speech.end()
        await asyncio.Event().wait()

    async def _next_event(self) -> Event:
        event = await self._inbox.next(IDLE_SECONDS)
        if event is None:
            raise RequestError(f"no event came for {IDLE_SECONDS} s")
        return event

    async def _send(self, **event: Any) -> None:
        await self._socket.send_bytes(ormsgpack.packb(event))


def _event(message: MutableMapping[str, Any]) -> Event:
    """The event in an ASGI message. Raises RequestError."""
    content = message.get("bytes")
    event = unpacked(content) if content is not None else None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        raise RequestError("a message is not an event; events are maps with an `event`, in msgpack, as binary messages")
    return event

"""The Fish Audio API over WebSocket: speech while its text is being written."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, MutableMapping
from contextlib import aclosing, suppress
from dataclasses import replace
from math import inf
from typing import Any

import ormsgpack
from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import ValidationError

from inference.engine.request import SpeechRequest
from inference.errors import FishserveError, RequestError
from inference.http.error_responses import complaint
from inference.server.audio_responses import check_ready
from inference.server.fish import SpeechBody, TimedChunks, cast_of
from inference.server.live_speech import LiveSpeech, NamedVoices
from inference.server.request_bodies import unpacked
from inference.server.sockets import Inbox, race
from inference.server.state import AppState, State
from inference.server.word_times import Sent
from inference.voices.voice import Voice

IDLE_SECONDS = 300
"""How long a connection may wait for its next event."""
Event = dict[str, Any]
router = APIRouter(tags=["Fish Audio"])


@router.websocket("/v1/tts/live")
async def live(socket: WebSocket, state: AppState) -> None:
    """Speak texts while the client is still writing them, one after another."""
    await socket.accept()
    await Conversation(socket, state).hold()


@router.websocket("/v1/tts/live/with-timestamp")
async def live_with_times(socket: WebSocket, state: AppState) -> None:
    """As `live`, with the times of the words."""
    await socket.accept()
    await Conversation(socket, state, words=True).hold()


class Conversation:
    """One connection. From `start` to `stop` text arrives in events and the server sends pieces of one file. Then the next may start.

    `cancel` ends a speech at once.
    """

    def __init__(self, socket: WebSocket, state: State, *, words: bool = False) -> None:
        self._socket, self._state, self._words = socket, state, words
        self._inbox = Inbox(socket, _event)
        self._next_start: Event | None = None

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
        while start := self._next_start or await self._inbox.next_or_end(IDLE_SECONDS):
            self._next_start, sent = None, Sent()
            speech = await self._begun(start)
            cancel: Event | None = await race(self._send_audio(speech, sent), self._listen(speech))
            if cancel is not None:
                await self._send(event="finish", reason="cancelled", **sent.summary(_played(cancel)))
            else:
                await self._send(event="finish", reason="stop", **(sent.summary() if self._words else {}))

    async def _begun(self, event: Event) -> LiveSpeech:
        """The speech that a `start` event asks for. All that it asks for is checked now. Raises FishserveError."""
        if event["event"] != "start" or not isinstance(event.get("request"), dict):
            raise RequestError(f"the first event is {event['event'][:80]!r}; it must be 'start', with a request")
        try:
            body = SpeechBody.model_validate(event["request"] | {"text": event["request"].get("text") or ""})
        except ValidationError as e:
            raise RequestError(complaint(e.errors()[0])[0]) from None
        await check_ready(self._state.engine)
        who = await cast_of(body, self._state)

        def request(text: str, named: Mapping[str, Voice]) -> SpeechRequest:
            return replace(body.request(text, replace(who, voices={**who.voices, **named})), words=self._words)

        speech = LiveSpeech(self._state.engine, request, body.encoder(), NamedVoices(self._state.references, who.voice))
        speech.add(body.text)
        return speech

    async def _send_audio(self, speech: LiveSpeech, sent: Sent) -> None:
        chunks = TimedChunks()
        async with aclosing(speech.pieces()) as pieces:
            async for piece in pieces:
                times = chunks.next(speech.text, piece) if self._words else {}
                await self._send(event="audio", audio=piece.content, **times)
                sent.add(piece.words, piece.end)

    async def _listen(self, speech: LiveSpeech) -> Event:
        """Take the speech's text, then wait: the speech ends when it is spoken. Returns the event that cancels it. Raises RequestError."""
        while (event := await self._next_event())["event"] != "stop":
            if event["event"] == "cancel":
                return event
            if event["event"] == "text":
                if not isinstance(event.get("text"), str):
                    raise RequestError("a text event has no text")
                speech.add(event["text"])
            elif event["event"] == "flush":
                speech.flush()
        speech.flush()
        speech.end()
        while (later := await self._inbox.next(IDLE_SECONDS)) is None or later["event"] in ("text", "flush", "stop"):
            pass
        if later["event"] != "cancel":  # the client is ahead: it starts the next text
            self._next_start = later
            await asyncio.Event().wait()
        return later

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


def _played(event: Event) -> float:
    """The seconds that a client has played, if it says so; otherwise all that was sent."""
    played = event.get("played_sec")
    return float(played) if isinstance(played, int | float) else inf

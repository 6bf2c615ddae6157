"""OpenAI's Realtime API, speech only: the client sends texts, the server speaks them."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections.abc import AsyncGenerator, MutableMapping, Sequence
from contextlib import aclosing, suppress
from typing import Any, Literal

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import Field, ValidationError

from inference.audio.encode import Encoder
from inference.engine.request import SpeechRequest, check_text
from inference.errors import FishserveError, RequestError
from inference.http.error_responses import complaint
from inference.server.audio_responses import Piece, encoded_with_words, request_for, silence
from inference.server.casting import cast
from inference.server.openai import VoiceId, voice_name
from inference.server.request_bodies import Lenient
from inference.server.sockets import Inbox, json_message, race
from inference.server.state import AppState, State
from inference.server.word_times import Sent, up_to
from inference.text.captions import as_json
from inference.voices.store import DEFAULT

IDLE_SECONDS = 300
"""How long a connection that speaks nothing may wait for its next event."""
_FORMATS = {"audio/pcm": ("pcm", 24_000), "audio/pcmu": ("ulaw", 8_000), "audio/pcma": ("alaw", 8_000)}
_BETA_FORMATS = {"pcm16": "audio/pcm", "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}
router = APIRouter(tags=["OpenAI"])


class Format(Lenient):
    """How the audio is encoded."""

    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"] = "audio/pcm"


class Output(Lenient):
    """How the server speaks."""

    voice: str | VoiceId = DEFAULT
    format: Format = Format()
    speed: float = 1.0


class Input(Lenient):
    """How the server listens: it does not."""

    turn_detection: Any = None


class AudioConfig(Lenient):
    """Both directions of a session's audio."""

    input: Input = Input()
    output: dict[str, Any] | None = None


class Update(Lenient):
    """What a `session.update` may change. `voice`, `output_audio_format` and `turn_detection` are the names of OpenAI's beta."""

    audio: AudioConfig = AudioConfig()
    voice: str | None = None
    output_audio_format: Literal["pcm16", "g711_ulaw", "g711_alaw"] | None = None
    turn_detection: Any = None


class Content(Lenient):
    """A part of an item."""

    type: str = "input_text"
    text: str = ""


class Item(Lenient):
    """An item of the conversation. Its text is spoken by the next response."""

    id: str = ""
    type: Literal["message"] = "message"
    role: str = "user"
    content: list[Content]


class Response(Lenient):
    """What a `response.create` may say: the items to speak instead of those of the conversation."""

    input: list[Item] | None = None


class Event(Lenient):
    """An event from the client. Each kind has fields of its own."""

    type: str
    item_id: str = ""
    audio_end_ms: int = Field(0, ge=0)
    session: Update = Update()
    item: Item | None = None
    response: Response = Response()


@router.websocket("/v1/realtime")
async def realtime(socket: WebSocket, state: AppState) -> None:
    """Speak texts over one connection."""
    offered = socket.scope.get("subprotocols", [])
    await socket.accept("realtime" if "realtime" in offered else None)  # as browsers ask for it
    await Session(socket, state).hold()


class Spoken:
    """An item that the server speaks or has spoken: its text, and what was sent of it."""

    def __init__(self, text: str) -> None:
        self.id, self.text, self.sent = _new("item"), text, Sent()
        self._told = ""

    def transcript(self, *, ended: bool) -> str:
        """The text as far as it is known to have been sent."""
        return self.text if ended else up_to(self.text, self.sent.last_word())

    def news(self, *, ended: bool) -> str:
        """What of the transcript was not told yet."""
        before, self._told = self._told, self.transcript(ended=ended)
        return self._told[len(before) :]

    def as_json(self, *, ended: bool) -> dict[str, Any]:
        """OpenAI's form of the item."""
        content = {"type": "output_audio", "transcript": self.transcript(ended=ended)}
        status = "completed" if ended else "incomplete"
        return {"id": self.id, "object": "realtime.item", "type": "message", "role": "assistant", "status": status, "content": [content]}


class Session:
    """One connection. It speaks one response at a time: the text of the items that came since the last one."""

    def __init__(self, socket: WebSocket, state: State) -> None:
        self._socket, self._state = socket, state
        self._inbox = Inbox(socket, _event)
        self._id, self._output = _new("sess"), Output()
        self._texts: list[str] = []
        self._speaking: asyncio.Task[None] | None = None
        self._item = Spoken("")

    async def hold(self) -> None:
        """Run until the client disconnects or is idle for a long time."""
        with suppress(WebSocketDisconnect, RuntimeError):  # the client has disconnected
            await race(self._serve(), self._inbox.read())
            await self._socket.close()
        if self._speaking:
            self._speaking.cancel()
            await asyncio.gather(self._speaking, return_exceptions=True)

    async def _serve(self) -> None:
        await self._send("session.created", session=self._session())
        while event := await self._next():
            try:
                if isinstance(event, RequestError):
                    raise event
                await self._do(event)
            except FishserveError as e:
                await self._send_error(str(e), e.param if isinstance(e, RequestError) else None)

    async def _next(self) -> Event | RequestError | None:
        while self._speaking:
            event: Event | RequestError | None = await race(self._inbox.next(IDLE_SECONDS), self._spoken(self._speaking))
            if event:
                return event
        return await self._inbox.next_or_end(IDLE_SECONDS)

    async def _spoken(self, response: asyncio.Task[None]) -> None:
        await asyncio.wait((response,))

    async def _do(self, event: Event) -> None:
        """Do what an event says. Raises FishserveError."""
        match event.type:
            case "session.update":
                self._output = self._updated(event.session)
                await self._send("session.updated", session=self._session())
            case "conversation.item.create" if event.item:
                item = event.item.model_copy(update={"id": event.item.id or _new("item")})
                check_text(" ".join([*self._texts, _text([item])]), "item")
                self._texts.append(_text([item]))
                await self._send("conversation.item.added", previous_item_id=None, item={**item.model_dump(), "object": "realtime.item"})
            case "response.create" if self._speaking:
                await self._send_error("a response is being spoken; wait for response.done, or cancel it", code="response_already_active")
            case "response.create":
                await self._begin(event.response)
            case "response.cancel" if self._speaking:
                self._speaking.cancel()
            case "conversation.item.truncate":
                await self._truncate(event)
            case "response.cancel":
                await self._send_error("no response is being spoken", code="response_cancel_not_active")
            case _:
                raise RequestError(f"{event.type[:80]!r} is not an event of this server, or lacks a field; it speaks texts only", "type")

    async def _truncate(self, event: Event) -> None:
        """Say what somebody heard who played so much of the last item. Raises RequestError."""
        item, most = self._item, round(1000 * self._item.sent.seconds)
        if event.item_id != item.id:
            raise RequestError(f"{event.item_id[:80]!r} is not the last item that was spoken", "item_id")
        if event.audio_end_ms > most:
            raise RequestError(f"audio_end_ms is {event.audio_end_ms}; the item has {most} ms of audio", "audio_end_ms")
        word = item.sent.last_word(event.audio_end_ms / 1000)
        heard = {"transcript": up_to(item.text, word), "last_word": as_json(word) if word else None}
        await self._send("conversation.item.truncated", item_id=item.id, content_index=0, audio_end_ms=event.audio_end_ms, **heard)

    def _updated(self, update: Update) -> Output:
        if update.turn_detection is not None or update.audio.input.turn_detection is not None:
            raise RequestError("turn_detection must be null: this server does not listen", "turn_detection")
        given = update.audio.output or {}
        if update.voice is not None:
            given = {"voice": update.voice} | given
        if update.output_audio_format is not None:
            given = {"format": {"type": _BETA_FORMATS[update.output_audio_format]}} | given
        try:
            output = Output.model_validate(self._output.model_dump() | given)
        except ValidationError as e:
            raise RequestError(complaint(e.errors()[0])[0], "session") from None
        _encoder(output)
        return output

    async def _begin(self, response: Response) -> None:
        """Start to speak. Raises FishserveError."""
        texts = self._texts if response.input is None else [_text(response.input)]
        output, voice = self._output, await self._state.references.voice(voice_name(self._output.voice, self._state))
        item = Spoken(" ".join(texts))
        who = await cast(self._state, voice, item.text)
        speech = request_for(item.text, lambda text: SpeechRequest(text, words=True, **vars(who)))
        self._texts = [] if response.input is None else self._texts
        audio = silence() if speech is None else self._state.engine.astream(speech)
        name, self._item = _new("resp"), item
        await self._send("response.created", response=_response(name, "in_progress"))
        self._speaking = asyncio.ensure_future(self._speak(name, item, encoded_with_words(audio, _encoder(output))))
        await asyncio.sleep(0)  # it begins, so that it can say that it was cancelled

    async def _speak(self, response: str, item: Spoken, pieces: AsyncGenerator[Piece]) -> None:
        """Send one response's audio and transcript, and how it ended."""
        place = {"response_id": response, "item_id": item.id, "output_index": 0, "content_index": 0}
        status, details = "completed", None
        with suppress(WebSocketDisconnect, RuntimeError):  # the client has disconnected
            try:
                async with aclosing(pieces):
                    async for piece in pieces:
                        if piece.content:
                            await self._send("response.output_audio.delta", **place, delta=base64.b64encode(piece.content).decode())
                        item.sent.add(piece.words, piece.end)
                        if news := item.news(ended=False):
                            await self._send("response.output_audio_transcript.delta", **place, delta=news)
                if news := item.news(ended=True):
                    await self._send("response.output_audio_transcript.delta", **place, delta=news)
                await self._send("response.output_audio.done", **place)
                await self._send("response.output_audio_transcript.done", **place, transcript=item.text)
            except asyncio.CancelledError:
                status = "cancelled"
            except FishserveError as e:
                status, details = "failed", {"type": "failed", "error": {"type": "server_error", "code": None}}
                await self._send_error(str(e))
            self._speaking = None
            await self._send("response.done", response=_response(response, status, details, [item.as_json(ended=status == "completed")]))

    def _session(self) -> dict[str, Any]:
        return {
            "id": self._id, "object": "realtime.session", "type": "realtime", "output_modalities": ["audio"],
            "audio": {"input": {"turn_detection": None}, "output": self._output.model_dump()},
        }  # fmt: skip

    async def _send_error(self, message: str, param: str | None = None, code: str | None = None) -> None:
        error = {"type": "invalid_request_error", "code": code, "message": message, "param": param, "event_id": None}
        await self._send("error", error=error)

    async def _send(self, kind: str, **fields: Any) -> None:
        await self._socket.send_text(json.dumps({"type": kind, "event_id": _new("event"), **fields}))


def _encoder(output: Output) -> Encoder:
    kind, rate = _FORMATS[output.format.type]
    return Encoder(kind, rate, output.speed)


def _text(items: list[Item]) -> str:
    return " ".join(part.text for item in items for part in item.content)


def _response(name: str, status: str, details: dict[str, Any] | None = None, output: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    return {"id": name, "object": "realtime.response", "status": status, "status_details": details, "output": output}


def _new(kind: str) -> str:
    return f"{kind}_{uuid.uuid4().hex}"


def _event(message: MutableMapping[str, Any]) -> Event | RequestError:
    """The event in an ASGI message, or what is wrong with it."""
    try:
        return json_message(message, Event)
    except RequestError as e:
        return e

"""The ElevenLabs API over WebSocket: speech while its text is being written, in one context or in several."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from contextlib import aclosing, suppress
from typing import Any, Literal

import regex
from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import AliasChoices, Field, ValidationError

from inference.engine.request import SpeechRequest
from inference.errors import DictionaryNotFound, FishserveError, Overloaded, RequestError, VoiceNotFound
from inference.http.error_responses import complaint
from inference.server.elevenlabs import NORMALIZE, Locator, VoiceSettings, encoder_for, located
from inference.server.live_speech import LiveSpeech, NamedVoices
from inference.server.request_bodies import Lenient
from inference.server.sockets import Inbox, json_message, race
from inference.server.state import AppState, State
from inference.server.word_times import CharacterTimes, Sent
from inference.text.captions import Characters, as_json, joined, spoken_characters
from inference.text.segments import ends_sentence
from inference.voices.voice import Voice

IDLE_SECONDS = 300
"""How long a connection without a context may wait for its next message."""
MAX_CONTEXTS = 16
"""Contexts that may be spoken at once on one connection."""
POLICY_VIOLATION = 1008
_SINGLE_WORD = regex.compile(r"\s*[^\s\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}]*")
_ONLY = "default"
"""The name of the context of a connection that has one, and of a message that names none."""
router = APIRouter(tags=["ElevenLabs"])


class Options(Lenient):
    """What a connection's query says. Parameters not listed here are accepted and ignored."""

    output_format: str = "mp3_44100_128"
    auto_mode: bool = False
    sync_alignment: bool | None = None
    inactivity_timeout: float = Field(default=20, gt=0, le=180)
    seed: int | None = None
    apply_text_normalization: Literal["auto", "on", "off"] = "auto"


class Message(Lenient):
    """A message from the client. Fields not listed here are accepted and ignored."""

    text: str | None = None
    flush: bool = False
    voice_settings: VoiceSettings = VoiceSettings()
    context_id: str = Field(default=_ONLY, validation_alias=AliasChoices("context_id", "contextId"))
    close_context: bool = False
    close_socket: bool = False
    pronunciation_dictionary_locators: tuple[Locator, ...] = ()


@router.websocket("/v1/text-to-speech/{voice_id}/stream-input")
async def stream_input(socket: WebSocket, voice_id: str, state: AppState) -> None:
    """Speak a text while the client is still writing it."""
    await Conversation(socket, state, several=False).hold(voice_id)


@router.websocket("/v1/text-to-speech/{voice_id}/multi-stream-input")
async def multi_stream_input(socket: WebSocket, voice_id: str, state: AppState) -> None:
    """Speak texts while the client is still writing them, several at once or one after another, each in a context of its own."""
    await Conversation(socket, state, several=True).hold(voice_id)


class Conversation:
    """One connection. `several`: messages name contexts, and the connection outlives them."""

    def __init__(self, socket: WebSocket, state: State, *, several: bool) -> None:
        self._socket, self._state, self._several = socket, state, several
        self._inbox = Inbox(socket, lambda message: json_message(message, Message))
        self._options = Options()
        self._voice = Voice()
        self._open: dict[str, LiveSpeech] = {}
        self._speaking: set[asyncio.Task[None]] = set()
        self._active = time.monotonic()

    async def hold(self, voice_id: str) -> None:
        """Run until the client disconnects or ends, causes an error, or is inactive for too long."""
        await self._socket.accept()
        with suppress(WebSocketDisconnect, RuntimeError):  # the client has disconnected
            try:
                await race(self._serve(voice_id), self._inbox.read())
                await self._socket.close()
            except FishserveError as e:
                await self._send_error(e)
                await self._socket.close(POLICY_VIOLATION)
        for task in self._speaking:
            task.cancel()
        await asyncio.gather(*self._speaking, return_exceptions=True)

    async def _serve(self, voice_id: str) -> None:
        self._options = _options(dict(self._socket.query_params))
        encoder_for(self._options.output_format, VoiceSettings())  # reports an unknown format now, not at the first text
        self._voice = await self._state.references.voice(voice_id)
        while (message := await self._next()) is not None and not await self._take(message):
            pass
        for speech in self._open.values():
            speech.end()
        while self._speaking:
            await asyncio.wait(self._speaking)

    async def _next(self) -> Message | None:
        """The next message; None when there is nothing to say and none comes. Ends speech whose client is inactive."""
        while self._speaking:
            seconds = self._active + self._options.inactivity_timeout - time.monotonic()
            if seconds > 0:
                message: Message | None = await race(self._inbox.next(seconds), self._all_spoken())
                if message:
                    return message
            elif any(speech.is_speaking for speech in self._open.values()):
                self._active = time.monotonic()
            elif self._several:
                for name in list(self._open):
                    self._open.pop(name).end()
                await self._all_spoken()
            else:
                raise InputTimeout(f"no text came for {self._options.inactivity_timeout:g} s; send a space to keep the connection open")
        return await self._inbox.next_or_end(IDLE_SECONDS)

    async def _all_spoken(self) -> None:
        await asyncio.wait(self._speaking)

    async def _take(self, message: Message) -> bool:
        """Do what a message says. Returns whether the client is done. Raises FishserveError on a connection that has one context."""
        self._active = time.monotonic()
        try:
            if message.close_socket or (message.text == "" and not message.flush and not self._several):
                for speech in self._open.values():
                    speech.flush()
                return True
            self._change(message)
        except FishserveError as e:
            if not self._several:
                raise
            await self._send_error(e, message.context_id)
        return False

    def _change(self, message: Message) -> None:
        """Open a context, give it text, or close it."""
        name = message.context_id if self._several else _ONLY
        if message.text and name not in self._open:
            self._open_context(name, message)
        speech = self._open.get(name)
        if speech is None:
            return
        if message.text:
            speech.add(message.text)
        if message.flush or (self._options.auto_mode and ends_sentence(message.text or "")):
            speech.flush()
        if message.close_context:
            self._open.pop(name).end()

    def _open_context(self, name: str, message: Message) -> None:
        if len(self._speaking) >= MAX_CONTEXTS:
            raise RequestError(f"{MAX_CONTEXTS} contexts are being spoken; close some before you open others")
        options, voice, settings = self._options, self._voice, message.voice_settings
        fields: dict[str, Any] = {
            "seed": options.seed, "temperature": settings.temperature, "normalize": NORMALIZE.get(options.apply_text_normalization),
            "words": options.sync_alignment is not False,
            "pronunciations": self._state.dictionaries.pronunciations(located(message.pronunciation_dictionary_locators)),
        }  # fmt: skip
        speech = self._open[name] = LiveSpeech(
            self._state.engine,
            lambda text, voices: SpeechRequest(text, voice, voices=voices, **fields),
            encoder_for(options.output_format, settings),
            NamedVoices(self._state.references, voice),
        )
        task = asyncio.ensure_future(self._speak(name, speech))
        self._speaking.add(task)
        task.add_done_callback(self._speaking.discard)

    async def _speak(self, name: str, speech: LiveSpeech) -> None:
        """Send a context's audio, and last that it is final."""
        whole = self._options.sync_alignment is not None
        context, times, normalized = self._named(name), Alignments(whole), Alignments(whole)
        characters, sent = CharacterTimes(), Sent()
        with suppress(WebSocketDisconnect, RuntimeError):  # the client has disconnected
            try:
                async with aclosing(speech.pieces()) as pieces:
                    async for piece in pieces:
                        self._active = time.monotonic()
                        audio = base64.b64encode(piece.content).decode() if piece.content else None
                        alignments = {
                            "alignment": times.next(characters.next(speech.text, piece.words, piece.end)),
                            "normalizedAlignment": normalized.next(spoken_characters(piece.words, piece.end)),
                        }
                        await self._send(audio=audio, isFinal=None, **alignments, **context)
                        sent.add(piece.words, piece.end)
                if last := times.last():  # alone, since Pipecat reads no alignment of the final message
                    await self._send(audio=None, isFinal=None, alignment=last, normalizedAlignment=None, **context)
                await self._send(audio=None, isFinal=True, alignment=None, normalizedAlignment=None, **_last_word(sent), **context)
            except FishserveError as e:
                if self._open.get(name) is speech:
                    del self._open[name]
                await self._send_error(e, name)
                if not self._several:
                    await self._socket.close(POLICY_VIOLATION)

    def _named(self, name: str) -> dict[str, str]:
        return {"contextId": name} if self._several else {}

    async def _send_error(self, e: FishserveError, name: str = "") -> None:
        await self._send(message=str(e), error=_kind(e), code=POLICY_VIOLATION, **(self._named(name) if name else {}))

    async def _send(self, **fields: Any) -> None:
        await self._socket.send_text(json.dumps(fields))


class Alignments:
    """Alignments in ElevenLabs' format. The times of each count from the end of the one before, as Pipecat adds them up,
    or, of the `whole` context, from its beginning: LiveKit, which asks for alignments by name, adds nothing.

    Pipecat adds only those in which a word is complete, which a blank says. So an alignment waits for the next while it has a single word.
    """

    def __init__(self, whole: bool) -> None:
        self._whole, self._ended, self._blank, self._held = whole, 0, True, joined(())

    def next(self, found: Characters) -> dict[str, Any] | None:
        """The alignment of the next characters; None where there are none."""
        self._held = joined((self._held, found))
        return None if _SINGLE_WORD.fullmatch("".join(self._held.characters)) else self._all()

    def _all(self) -> dict[str, Any] | None:
        found, self._held = self._held, joined(())
        if not found.characters:
            return None
        starts, ends = ([round(1000 * t) for t in times] for times in (found.starts, found.ends))
        began = 0 if self._whole else self._ended
        self._ended, self._blank = ends[-1], found.characters[-1].isspace()
        return {
            "chars": found.characters,
            "charStartTimesMs": [start - began for start in starts],
            "charDurationsMs": [end - start for start, end in zip(starts, ends, strict=True)],
        }

    def last(self) -> dict[str, Any] | None:
        """What is left for the end, if anything: a space tells clients that the last word is complete."""
        blank = self._held.characters[-1].isspace() if self._held.characters else self._blank
        if not blank:
            at = self._held.ends[-1] if self._held.ends else self._ended / 1000
            self._held = joined((self._held, Characters([" "], [at], [at])))
        return self._all()


def _last_word(sent: Sent) -> dict[str, Any]:
    """What was sent, for agents; not ElevenLabs' own fields."""
    word = sent.last_word()
    return {"audioMs": round(1000 * sent.seconds), "lastWord": as_json(word)} if word else {}


class InputTimeout(RequestError):
    """The client sent nothing for too long."""


def _kind(e: FishserveError) -> str:
    """ElevenLabs' name for an error."""
    kinds = {
        VoiceNotFound: "voice_id_does_not_exist",
        DictionaryNotFound: "pronunciation_dictionary_not_found",
        InputTimeout: "input_timeout_exceeded",
        Overloaded: "too_many_concurrent_requests",
    }
    return next((kind for error, kind in kinds.items() if isinstance(e, error)), "invalid_request")


def _options(query: dict[str, str]) -> Options:
    """Raises RequestError."""
    try:
        return Options.model_validate(query)
    except ValidationError as e:
        raise RequestError(complaint(e.errors()[0])[0]) from None

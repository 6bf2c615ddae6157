"""Speech whose text arrives in pieces, as the WebSocket APIs need it: each sentence is spoken once it is complete."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace

import numpy as np

from inference.audio.encode import Encoder
from inference.engine.request import Audio, MoreText, SpeechRequest, check_text
from inference.server.audio_responses import ANYTHING, EngineClient, Piece, close, encoded_with_words, silence
from inference.server.references import References
from inference.text.sentence_buffer import SentenceBuffer
from inference.text.words import Word
from inference.voices.voice import Voice

_SIGNS = ""
"""Among the texts: there were signs alone."""
_SPOKEN = Audio(np.zeros(0, np.float32))
"""As the engine says that all text so far is spoken."""


class NamedVoices:
    """The voices that marks in a text may name, besides the one that begins it."""

    def __init__(self, references: References, voice: Voice) -> None:
        self._references, self._voice = references, voice

    def check(self, text: str) -> None:
        """Raises VoiceNotFound."""
        self._references.check_named(text)

    async def of(self, text: str) -> Mapping[str, Voice]:
        """As References.named."""
        return await self._references.named(text, self._voice)


class LiveSpeech:
    """One speech in one file. `add` text, `flush` when what was added is to be spoken now, and `end` it; `pieces` are the file meanwhile.

    `is_speaking` is False while it waits for text. `text` is all that was added, in which the characters of words are counted.
    """

    def __init__(
        self,
        engine: EngineClient,
        request: Callable[[str, Mapping[str, Voice]], SpeechRequest],
        encoder: Encoder,
        named: NamedVoices,
    ) -> None:
        """`request` makes the engine's request for the first text and the voices that it names.

        Raises RequestError when it cannot be made for any text.
        """
        self._engine, self._request, self._encoder, self._named = engine, request, encoder, named
        self._buffer = SentenceBuffer(request(ANYTHING, {}).chunk_length)
        self._texts: asyncio.Queue[str | None] = asyncio.Queue()
        self.is_speaking = False
        self.text = ""
        self._given = 0
        self._places: list[tuple[int, int]] = []

    def add(self, text: str) -> None:
        """Add text. Raises RequestError when it is too long or not Unicode, VoiceNotFound when it names a voice that there is not."""
        check_text(text, "text")
        self.text += text
        self._speak(self._buffer.feed(text))

    def flush(self) -> None:
        """Speak all text so far, even if its last sentence is not complete. Signs alone, such as "...", are silence if they come first."""
        signs = self._buffer.holds_signs
        self._speak(self._buffer.flush())
        if signs:
            self._texts.put_nowait(_SIGNS)

    def end(self) -> None:
        """No more text will come; `pieces` end when all that was to be spoken is spoken. Text that was not flushed is dropped."""
        self._texts.put_nowait(None)

    async def pieces(self) -> AsyncGenerator[Piece]:
        """The pieces of the file, as they are made; none when nothing is to be spoken. Raises FishserveError.

        Nothing is held back while the speech waits for text.
        """
        first = await self._texts.get()
        if first is None:
            self._encoder.close()
            return
        async with aclosing(encoded_with_words(self._audio(first), self._encoder)) as pieces:
            async for piece in pieces:
                yield piece

    async def _audio(self, first: str | None) -> AsyncGenerator[Audio]:
        silent = 0.0
        while first == _SIGNS:
            async for chunk in silence():
                silent += chunk.seconds
                yield chunk
            yield _SPOKEN
            first = await self._texts.get()
        if first is None:
            return
        audio = self._engine.astream(self._request(first, await self._named.of(first)), self._later())
        try:
            async for chunk in audio:
                self.is_speaking = len(chunk.samples) > 0
                yield replace(chunk, words=tuple(map(self._as_added, chunk.words))).moved(silent) if chunk.words else chunk
        finally:
            await close(audio)

    def _speak(self, text: str) -> None:
        if text:
            self._named.check(text)
            self.is_speaking = True
            self._places.append((self._given, len(self.text) - self._buffer.waiting - len(text)))
            self._given += len(text)
            self._texts.put_nowait(text)

    def _as_added(self, word: Word) -> Word:
        """A word whose characters are counted in the text as it was added, of which the engine does not get signs alone."""
        given, added = next(place for place in reversed(self._places) if place[0] <= word.start_char)
        return word.moved(characters=added - given)

    async def _later(self) -> AsyncIterator[str | MoreText]:
        while (text := await self._texts.get()) is not None:
            if text != _SIGNS:
                yield MoreText(text, named) if (named := await self._named.of(text)) else text

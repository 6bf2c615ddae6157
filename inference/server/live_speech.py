"""Speech whose text arrives in pieces, as the WebSocket APIs need it: each sentence is spoken once it is complete."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

import numpy as np

from inference.audio.encode import Encoder
from inference.engine.request import Audio, SpeechRequest, check_text
from inference.server.audio_responses import ANYTHING, EngineClient, close, encoded, silence
from inference.text.sentence_buffer import SentenceBuffer

_SIGNS = ""
"""Among the texts: there were signs alone."""
_SPOKEN = Audio(np.zeros(0, np.float32))
"""As the engine says that all text so far is spoken."""


class LiveSpeech:
    """One speech in one file. `add` text, `flush` when what was added is to be spoken now, and `end` it; `pieces` are the bytes meanwhile.

    `is_speaking` is False while it waits for text.
    """

    def __init__(self, engine: EngineClient, request: Callable[[str], SpeechRequest], encoder: Encoder) -> None:
        """`request` makes the engine's request for the first text. Raises RequestError when it cannot be made for any text."""
        self._engine, self._request, self._encoder = engine, request, encoder
        self._buffer = SentenceBuffer(request(ANYTHING).chunk_length)
        self._texts: asyncio.Queue[str | None] = asyncio.Queue()
        self.is_speaking = False

    def add(self, text: str) -> None:
        """Add text. Raises RequestError when it is too long or not Unicode."""
        check_text(text, "text")
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

    async def pieces(self) -> AsyncGenerator[bytes]:
        """The bytes of the file, as they are made; none when nothing is to be spoken. Raises FishserveError.

        Nothing is held back while the speech waits for text.
        """
        first = await self._texts.get()
        if first is None:
            self._encoder.close()
            return
        async with aclosing(encoded(self._audio(first), self._encoder)) as pieces:
            async for piece in pieces:
                yield piece

    async def _audio(self, first: str | None) -> AsyncGenerator[Audio]:
        while first == _SIGNS:
            async for chunk in silence():
                yield chunk
            yield _SPOKEN
            first = await self._texts.get()
        if first is None:
            return
        audio = self._engine.astream(self._request(first), self._later())
        try:
            async for chunk in audio:
                self.is_speaking = len(chunk.samples) > 0
                yield chunk
        finally:
            await close(audio)

    def _speak(self, text: str) -> None:
        if text:
            self.is_speaking = True
            self._texts.put_nowait(text)

    async def _later(self) -> AsyncIterator[str]:
        while (text := await self._texts.get()) is not None:
            if text != _SIGNS:
                yield text

"""Speech whose text arrives in pieces, as the WebSocket APIs need it: each sentence is spoken once it is complete."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

from inference.audio.encode import Encoder
from inference.engine.request import SpeechRequest, check_text
from inference.server.audio_responses import ANYTHING, EngineClient, encoded
from inference.text.sentence_buffer import SentenceBuffer


class LiveSpeech:
    """One speech in one file. `add` text, `flush` when what was added is to be spoken now, and `end` it; `pieces` are the bytes meanwhile."""

    def __init__(self, engine: EngineClient, request: Callable[[str], SpeechRequest], encoder: Encoder) -> None:
        """`request` makes the engine's request for the first text. Raises RequestError when it cannot be made for any text."""
        self._engine, self._request, self._encoder = engine, request, encoder
        self._buffer = SentenceBuffer(request(ANYTHING).chunk_length)
        self._texts: asyncio.Queue[str | None] = asyncio.Queue()

    def add(self, text: str) -> None:
        """Add text. Raises RequestError when it is too long or not Unicode."""
        check_text(text, "text")
        self._speak(self._buffer.feed(text))

    def flush(self) -> None:
        """Speak all text so far, even if its last sentence is not complete."""
        self._speak(self._buffer.flush())

    def end(self) -> None:
        """No more text will come; `pieces` end when all that was to be spoken is spoken. Text that was not flushed is dropped."""
        self._texts.put_nowait(None)

    async def pieces(self) -> AsyncGenerator[bytes]:
        """The bytes of the file, as they are made. Nothing is held back while the speech waits for text. Raises FishserveError."""
        first = await self._texts.get()
        if first is None:
            self._encoder.close()
            return
        speech = self._engine.astream(self._request(first), self._later())
        async with aclosing(encoded(speech, self._encoder)) as pieces:
            async for piece in pieces:
                yield piece

    def _speak(self, text: str) -> None:
        if text:
            self._texts.put_nowait(text)

    async def _later(self) -> AsyncIterator[str]:
        while (text := await self._texts.get()) is not None:
            yield text

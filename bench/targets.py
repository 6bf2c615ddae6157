"""Targets for load: an engine in this process, or a server with OpenAI's or Fish Audio's HTTP API."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Protocol

from bench.load import Heard, Speak
from bench.prompts import Prompt
from inference.errors import GenerationError, Overloaded, RequestError

if TYPE_CHECKING:  # measuring a server needs no torch
    import httpx

    from inference.engine.stream import Submit

APIS = {"openai": "/v1/audio/speech", "fish": "/v1/tts"}
MAX_HEADER = 1 << 16


class Submits(Protocol):
    """The part of an engine that a target needs."""

    @property
    def submit(self) -> Submit: ...


def engine_target(engine: Submits) -> Speak:
    """Speak with an engine in this process, through its asynchronous interface."""

    async def speak(prompt: Prompt, heard: Heard) -> float | None:
        from inference import AsyncSpeechStream, SpeechRequest

        async with AsyncSpeechStream(engine.submit, SpeechRequest(prompt.text, seed=prompt.number)) as stream:
            async for chunk in stream:
                heard(chunk.seconds)
        return stream.queued_seconds

    return speak


def http_target(client: httpx.AsyncClient, url: str, api: str, voice: str | None = None, model: str = "tts-1") -> Speak:
    """Speak with the server at `url`, streaming WAV; the WAV header gives the bytes per second."""
    if api not in APIS:
        raise RequestError(f"api is {api!r}; there are {' and '.join(APIS)}", "api")
    route = url.rstrip("/") + APIS[api]

    async def speak(prompt: Prompt, heard: Heard) -> float | None:
        import httpx

        try:
            async with client.stream("POST", route, json=_body(api, prompt.text, voice, model)) as response:
                if response.status_code != 200:
                    raise _refusal(response.status_code, (await response.aread())[:200].decode(errors="replace"))
                await _hear(response, heard)
        except (httpx.HTTPError, httpx.InvalidURL) as e:
            raise GenerationError(f"{url}: {str(e) or type(e).__name__}") from None
        return None

    return speak


def _body(api: str, text: str, voice: str | None, model: str) -> dict[str, Any]:
    if api == "openai":
        return {"model": model, "input": text, "voice": voice or "default", "response_format": "wav"}
    return {"text": text, "format": "wav", "streaming": True} | ({"reference_id": voice} if voice else {})


def _refusal(status: int, words: str) -> Exception:
    return (Overloaded if status == 429 else GenerationError)(f"the server answered {status}: {words}")


async def _hear(response: httpx.Response, heard: Heard) -> None:
    header, per_second = b"", 0
    async for data in response.aiter_bytes():
        if not per_second:
            header += data
            start, per_second = _wav_start(header)
            if not per_second and len(header) > MAX_HEADER:
                raise GenerationError("the server's answer is not a WAV file")
            if len(header) <= start or not per_second:
                continue
            heard((len(header) - start) / per_second)
        else:
            heard(len(data) / per_second)
    if not per_second:
        raise GenerationError("the server's answer is not a WAV file")


def _wav_start(header: bytes) -> tuple[int, int]:
    """The offset of the samples and the number of bytes per second; (0, 0) until the header is complete."""
    if header[:4] != b"RIFF" or header[8:12] != b"WAVE":
        return 0, 0
    at, per_second = 12, 0
    while at + 8 <= len(header):
        name, size = struct.unpack_from("<4sI", header, at)
        if name == b"data":
            return at + 8, per_second
        if name == b"fmt " and at + 20 <= len(header):
            (per_second,) = struct.unpack_from("<I", header, at + 16)
        at += 8 + size + size % 2
    return 0, 0

"""openai-python."""

import asyncio

from openai import AsyncOpenAI, OpenAI
from report import LATER, SENTENCE, URL, call

NAME, PACKAGE = "openai-python", "openai"
client = OpenAI(base_url=f"{URL}/v1", api_key="any", max_retries=0)
for kind in ("mp3", "wav", "opus", "flac", "aac"):
    with call(NAME, PACKAGE, f"audio.speech.create, {kind}") as made:
        made.file(client.audio.speech.create(model="tts-1", voice="alloy", input=SENTENCE, response_format=kind).content, kind)
with call(NAME, PACKAGE, "with_streaming_response, pcm") as made:
    heard = b""
    with client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input=f"{SENTENCE} {LATER}", response_format="pcm"
    ) as reply:
        for piece in reply.iter_bytes(4096):
            made.first()
            heard += piece
    made.sound(heard, 24_000, f"{SENTENCE} {LATER}")
with call(NAME, PACKAGE, "AsyncOpenAI, interrupted after the first piece, then again") as made:

    async def interrupted() -> bytes:
        async with AsyncOpenAI(base_url=f"{URL}/v1", api_key="any", max_retries=0) as later:
            ask = later.audio.speech.with_streaming_response
            async with ask.create(model="tts-1", voice="alloy", input=SENTENCE * 20, response_format="pcm") as reply:
                async for _ in reply.iter_bytes(1024):
                    break
            return (await later.audio.speech.create(model="tts-1", voice="alloy", input=SENTENCE, response_format="wav")).content

    made.file(asyncio.run(interrupted()), "wav")
with call(NAME, PACKAGE, "models.list, models.retrieve") as made:
    [model, *_] = client.models.list().data
    made.note(client.models.retrieve(model.id).id)

"""LiveKit Agents: the frames that its plugins hand to an agent."""

import asyncio

import aiohttp
from livekit.agents.types import USERDATA_TIMED_TRANSCRIPT, APIConnectOptions
from livekit.plugins import elevenlabs, fishaudio, openai
from report import LATER, SENTENCE, URL, call

NAME = "livekit-agents"
ONCE = APIConnectOptions(max_retry=0, timeout=60)


async def heard(made, frames, says=SENTENCE, timed=False):
    """All frames of a speech as one sound; its words, if they are `timed`."""
    samples, rate, words = b"", 0, []
    async for event in frames:
        made.first()
        samples += bytes(event.frame.data)
        rate = event.frame.sample_rate
        words += [(str(text), text.start_time) for text in event.frame.userdata.get(USERDATA_TIMED_TRANSCRIPT, ())]
    made.sound(samples, rate, says)
    if timed:
        made.words([word for word in words if word[0].strip()], len(samples) / 2 / rate, says)


async def streamed(made, tts, says, timed=False):
    """A text in tokens, as a language model writes it."""
    async with tts.stream(conn_options=ONCE) as stream:
        for word in says.split():
            stream.push_text(f"{word} ")
        stream.end_input()
        await heard(made, stream, says, timed)


async def interrupted(tts):
    """An agent that is spoken to while it speaks."""
    async with tts.stream(conn_options=ONCE) as stream:
        stream.push_text(f"{SENTENCE} {LATER} " * 5)
        stream.flush()
        async for _ in stream:
            break


async def main():
    async with aiohttp.ClientSession() as http:
        plugins = {
            "openai": [openai.TTS(base_url=f"{URL}/v1", api_key="any", model="tts-1", voice="alloy", response_format=kind) for kind in ("mp3", "pcm", "wav")],
            "elevenlabs": [elevenlabs.TTS(base_url=f"{URL}/v1", api_key="any", voice_id="default", encoding=kind, http_session=http) for kind in ("mp3_22050_32", "pcm_24000")],
            "fishaudio": [fishaudio.TTS(base_url=URL, api_key="any", voice_id="default", output_format=kind, http_session=http) for kind in ("wav", "mp3", "pcm")],
        }  # fmt: skip
        for name, services in plugins.items():
            for tts in services:
                kind = getattr(tts._opts, "response_format", None) or getattr(tts._opts, "encoding", None) or tts._opts.output_format
                with call(f"{NAME}, {name}", f"livekit-plugins-{name}", f"synthesize, {kind}") as made:
                    await heard(made, tts.synthesize(SENTENCE, conn_options=ONCE))
                if tts.capabilities.streaming:
                    timed = tts.capabilities.aligned_transcript
                    what = "stream, interrupted, and twice more on its connection" + ", its words" * timed
                    with call(f"{NAME}, {name}", f"livekit-plugins-{name}", f"{what}, {kind}") as made:
                        await interrupted(tts)
                        await streamed(made, tts, SENTENCE, timed)
                        await streamed(made, tts, f"{SENTENCE} {LATER}", timed)
                await tts.aclose()


asyncio.run(main())

"""Pipecat: the frames that its services hand to a pipeline."""

import asyncio
import urllib.request

import aiohttp
from pipecat.frames.frames import (
    EndFrame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
    TTSTextFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.runner import PipelineRunner
from pipecat.pipeline.task import PipelineParams, PipelineTask
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.services.elevenlabs.tts import ElevenLabsHttpTTSService, ElevenLabsTTSService
from pipecat.services.fish.tts import FishAudioTTSService
from pipecat.services.openai.tts import OpenAITTSService
from report import LATER, SENTENCE, SOCKETS, URL, call

NAME, PACKAGE, RATE = "pipecat", "pipecat-ai", 24_000
QUIET_SECONDS, LONG_SECONDS = 4, 60


def server_speaks():
    """Whether the server has requests that are not spoken to their end, as its metrics say."""
    with urllib.request.urlopen(f"{URL}/metrics") as page:
        lines = page.read().decode().splitlines()
    return any(float(line.split()[-1]) for line in lines if line.startswith(("fishserve_requests_running", "fishserve_requests_waiting")))


class Ear(FrameProcessor):
    """Keeps the sound that comes out of a pipeline, and the words with their seconds."""

    def __init__(self):
        super().__init__()
        self.samples, self.rate, self.arrived = b"", RATE, asyncio.Event()
        self.words = []

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSAudioRawFrame):
            self.samples, self.rate = self.samples + frame.audio, frame.sample_rate
            self.arrived.set()
        elif isinstance(frame, TTSTextFrame):
            self.words.append((frame.text, (frame.pts or 0) / 1e9))
        await self.push_frame(frame, direction)

    async def all(self):
        """All sound, until none comes for a while and the server makes no more: a busy machine may take seconds for the next chunk."""
        async with asyncio.timeout(LONG_SECONDS):
            await self.arrived.wait()
        while self.arrived.is_set() or await asyncio.to_thread(server_speaks):
            self.arrived.clear()
            try:
                async with asyncio.timeout(QUIET_SECONDS):
                    await self.arrived.wait()
            except TimeoutError:
                pass
        samples, self.samples = self.samples, b""
        return samples


async def spoken(made, service, timed):
    """A text at once, with its words if they are `timed`, a text in tokens, an interruption, and a text after it."""
    ear = Ear()
    task = PipelineTask(Pipeline([service, ear]), params=PipelineParams(audio_out_sample_rate=RATE))
    running = asyncio.ensure_future(PipelineRunner(handle_sigint=False).run(task))
    await task.queue_frames([TTSSpeakFrame(SENTENCE)])
    async with asyncio.timeout(LONG_SECONDS):
        await ear.arrived.wait()
    made.first()
    samples = await ear.all()
    made.sound(samples, ear.rate)
    if timed:
        made.words([(text, seconds - ear.words[0][1]) for text, seconds in ear.words], len(samples) / 2 / ear.rate)
    await task.queue_frames(
        [LLMFullResponseStartFrame(), *(LLMTextFrame(f"{w} ") for w in f"{SENTENCE} {LATER}".split()), LLMFullResponseEndFrame()]
    )
    made.sound(await ear.all(), ear.rate, f"{SENTENCE} {LATER}")
    await task.queue_frames([TTSSpeakFrame(f"{SENTENCE} {LATER} " * 5)])
    async with asyncio.timeout(LONG_SECONDS):
        await ear.arrived.wait()
    await task.queue_frames([InterruptionFrame()])
    await ear.all()
    await task.queue_frames([TTSSpeakFrame(LATER)])
    made.sound(await ear.all(), ear.rate, LATER)
    await task.queue_frames([EndFrame()])
    await running


def fish():
    service = FishAudioTTSService(api_key="any", settings=FishAudioTTSService.Settings(voice="default"))
    service._base_url = f"{SOCKETS}/v1/tts/live"  # its address is fixed
    return service


async def main():
    async with aiohttp.ClientSession() as http:
        services = {
            "OpenAITTSService": lambda: OpenAITTSService(
                base_url=f"{URL}/v1", api_key="any", settings=OpenAITTSService.Settings(voice="alloy")
            ),
            "ElevenLabsTTSService": lambda: ElevenLabsTTSService(
                api_key="any", url=SOCKETS, settings=ElevenLabsTTSService.Settings(voice="default"), stop_frame_timeout_s=LONG_SECONDS
            ),
            "ElevenLabsHttpTTSService": lambda: ElevenLabsHttpTTSService(
                api_key="any", base_url=URL, aiohttp_session=http, settings=ElevenLabsHttpTTSService.Settings(voice="default")
            ),
            "FishAudioTTSService": fish,
        }
        for name, service in services.items():
            timed = name.startswith("ElevenLabs")
            what = "a text and its words" if timed else "a text"
            with call(f"{NAME}, {name}", PACKAGE, f"{what}, a text in tokens, an interruption, the next text") as made:
                await spoken(made, service(), timed)


asyncio.run(main())

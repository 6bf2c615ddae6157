"""wyoming-openai, the proxy for Home Assistant, asked as Home Assistant asks it."""

import asyncio
import socket
import subprocess
import sys

from report import LATER, SENTENCE, URL, call
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.info import Describe, Info
from wyoming.tts import Synthesize, SynthesizeChunk, SynthesizeStart, SynthesizeStop, SynthesizeStopped, SynthesizeVoice

NAME, PACKAGE = "wyoming-openai", "wyoming-openai"
VOICE = SynthesizeVoice(name="default")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


async def heard(client, made, last):
    """All sound until the event that ends a speech."""
    samples, rate = b"", 0
    while not last.is_type((event := await client.read_event()).type):
        if AudioStart.is_type(event.type):
            rate = AudioStart.from_event(event).rate
        elif AudioChunk.is_type(event.type):
            made.first()
            samples += AudioChunk.from_event(event).audio
    return samples, rate


async def main():
    port = free_port()
    command = [
        sys.executable, "-m", "wyoming_openai", "--uri", f"tcp://127.0.0.1:{port}", "--tts-openai-url", f"{URL}/v1", "--tts-openai-key", "any",
        "--tts-models", "tts-1", "--tts-streaming-models", "tts-1", "--tts-voices", "default",
    ]  # fmt: skip
    proxy = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        async with asyncio.timeout(60):
            while True:
                try:
                    async with AsyncTcpClient("127.0.0.1", port, read_timeout=60):
                        break
                except OSError:
                    await asyncio.sleep(0.1)
        with call(NAME, PACKAGE, "describe") as made:
            async with AsyncTcpClient("127.0.0.1", port, read_timeout=60) as client:
                await client.write_event(Describe().event())
                info = Info.from_event(await client.read_event())
                made.note(", ".join(voice.name for program in info.tts for voice in program.voices))
        with call(NAME, PACKAGE, "synthesize") as made:
            async with AsyncTcpClient("127.0.0.1", port, read_timeout=60) as client:
                await client.write_event(Synthesize(text=SENTENCE, voice=VOICE).event())
                made.sound(*await heard(client, made, AudioStop))
        with call(NAME, PACKAGE, "synthesize-start, -chunk, -stop") as made:
            async with AsyncTcpClient("127.0.0.1", port, read_timeout=60) as client:
                await client.write_event(SynthesizeStart(voice=VOICE).event())
                for word in f"{SENTENCE} {LATER}".split():
                    await client.write_event(SynthesizeChunk(text=f"{word} ").event())
                await client.write_event(Synthesize(text=f"{SENTENCE} {LATER}", voice=VOICE).event())
                await client.write_event(SynthesizeStop().event())
                made.sound(*await heard(client, made, SynthesizeStopped), says=f"{SENTENCE} {LATER}")
    finally:
        proxy.terminate()
        proxy.wait()


asyncio.run(main())

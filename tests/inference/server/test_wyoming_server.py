"""Wyoming as Home Assistant speaks it: the protocol's own client, the command, and a real server that speaks."""

import asyncio
import os
import sys
from functools import partial

import numpy as np
import pytest
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong
from wyoming.tts import Synthesize, SynthesizeChunk, SynthesizeStart, SynthesizeStop, SynthesizeStopped, SynthesizeVoice

from inference.errors import ConfigurationError
from inference.server import wyoming_server
from inference.server.wyoming_server import RATE, Fishserve, serve
from tests.processes import Started, free_port
from tests.waiting import HANG_SECONDS

SENTENCE, LATER = "The kettle is on.", "We will walk to the station, if the weather is fine."


class Bridge(Started):
    """A `fishserve wyoming` process."""

    def __init__(self, url, **environment):
        self.port = free_port()
        self.start(
            [sys.executable, "-m", "inference.cli", "wyoming", "--server", url, "--host", "127.0.0.1", "--port", str(self.port)],
            env=os.environ | environment,
        )  # fmt: skip

    def ask(self, *events, last):
        """What comes back until an event of the type `last`, or None when the connection is closed."""
        return asyncio.run(self._ask(events, last))

    async def _ask(self, events, last):
        found = []
        async with asyncio.timeout(HANG_SECONDS):
            while True:
                try:
                    async with AsyncTcpClient("127.0.0.1", self.port) as client:
                        for event in events:
                            await client.write_event(event if isinstance(event, Event) else event.event())
                        while event := await client.read_event():
                            found.append(event)
                            if last.is_type(event.type):
                                return found
                        return [*found, None]
                except ConnectionRefusedError:  # it has not begun to listen
                    await asyncio.sleep(0.05)


def sound(events):
    """The samples of an answer, which begins and ends as it should."""
    kinds = [event.type for event in events]
    assert (kinds[0], kinds.count("audio-start"), kinds.count("audio-stop")) == ("audio-start", 1, 1)
    assert AudioStart.from_event(events[0]).rate == RATE
    return np.frombuffer(b"".join(AudioChunk.from_event(e).audio for e in events if AudioChunk.is_type(e.type)), np.int16)


@pytest.fixture(scope="module")
def bridge(minnow):
    with Bridge(minnow.url) as bridge:
        yield bridge


def test_it_says_what_voices_there_are(bridge):
    info = Info.from_event(bridge.ask(Describe(), last=Info)[0])
    (program,) = info.tts
    assert program.supports_synthesize_streaming
    assert [(voice.name, voice.languages) for voice in program.voices] == [("default", ["en"]), ("anna", ["en"])]


def test_a_text_is_spoken_whole_and_in_pieces(bridge):
    """Between start and stop the whole text comes once more, for servers that know nothing of pieces."""
    voice = SynthesizeVoice(name="default")
    whole = sound(bridge.ask(Synthesize(f"{SENTENCE} {LATER}", voice=voice), last=AudioStop))
    pieces = [SynthesizeChunk(f"{word} ") for word in f"{SENTENCE} {LATER}".split()]
    streamed = bridge.ask(
        SynthesizeStart(voice=voice), *pieces, Synthesize(f"{SENTENCE} {LATER}", voice=voice), SynthesizeStop(), last=SynthesizeStopped
    )
    for samples in (whole, sound(streamed)):
        assert 3 * RATE < len(samples) < 9 * RATE
        assert np.abs(samples).max() > 1000
    again = bridge.ask(Synthesize(SENTENCE), Synthesize(SENTENCE), Ping(), last=Pong)  # on one connection, in the only voice
    assert [event.type for event in again].count("audio-stop") == 2


def test_what_the_server_refuses_is_said_in_its_words(bridge):
    refused = bridge.ask(Synthesize(SENTENCE, voice=SynthesizeVoice(name="nobody")), last=AudioStop)
    (error,) = [Error.from_event(e) for e in refused if Error.is_type(e.type)]
    assert "nobody" in error.text


def test_a_server_that_is_not_there_is_said(bridge):
    with Bridge(f"http://127.0.0.1:{free_port()}") as alone:
        assert alone.ask(Describe(), last=Info) == [None]
        (error,) = [Error.from_event(e) for e in alone.ask(Synthesize(SENTENCE), last=AudioStop) if Error.is_type(e.type)]
        assert "cannot be asked to speak" in error.text
    assert bridge.ask(Ping(), last=Pong)


@pytest.mark.parametrize(
    "sent",
    [b"\n", b"[]\n", b"no JSON\n", b'{"type": "synthesize"}\n', b'{"type": "ping", "payload_length": 9999999999}\n', b"x" * 200_000, b'{"type": 1}\n'],
)  # fmt: skip
def test_what_is_no_event_ends_one_connection(bridge, sent):
    async def send():
        reader, writer = await asyncio.open_connection("127.0.0.1", bridge.port)
        try:
            writer.write(sent)
            writer.write_eof()
            return await reader.read()
        except OSError:  # it was closed before all was sent
            return b""
        finally:
            writer.close()

    assert asyncio.run(send()) == b""
    assert bridge.ask(Event("unknown"), Ping(), last=Pong)
    assert "Traceback" not in bridge.words()


def test_connections_are_bounded(monkeypatch):
    monkeypatch.setattr(wyoming_server, "MAX_CONNECTIONS", 1)
    port = free_port()

    async def held():
        serving = asyncio.create_task(serve(Fishserve("http://127.0.0.1:1", None), "127.0.0.1", port))
        await asyncio.sleep(0)
        first = None
        while first is None:
            try:
                first = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
        first[1].write(b'{"type": "ping"}\n')
        await first[0].readline()
        second = await asyncio.open_connection("127.0.0.1", port)
        assert await second[0].read() == b""
        for _, writer in (first, second):
            writer.close()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)

    asyncio.run(held())


def test_an_idle_connection_ends(monkeypatch):
    monkeypatch.setattr(wyoming_server, "WAIT_SECONDS", 0.05)

    async def held():
        conversation = partial(wyoming_server.Conversation, Fishserve("http://127.0.0.1:1", None), asyncio.Semaphore(1))
        async with await asyncio.start_server(lambda *streams: conversation(*streams).run(), "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b'{"type": "p')
            assert await reader.read() == b""
            writer.close()

    asyncio.run(held())


def test_an_address_that_is_none_or_taken_is_one_sentence(bridge):
    with pytest.raises(ConfigurationError, match="no address of a server"):
        Fishserve("localhost:8080", None)
    with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1:{bridge.port}"):
        asyncio.run(serve(Fishserve("http://127.0.0.1:1", None), "127.0.0.1", bridge.port))

"""200 WebSockets at once, with texts in random cuts, contexts, barge-ins and clients that leave: none hangs, and nothing stays behind."""

import asyncio
import collections
import contextlib
import json
import os
import random
import time

import ormsgpack
import psutil
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from inference.hub import EMBEDDED_VOICE
from tests.inference.server.conftest import Server
from tests.waiting import HANG_SECONDS, wait

pytestmark = [pytest.mark.drill, pytest.mark.timeout(3600)]
SEED = int(os.environ.get("FISHSERVE_TEST_SEED", "1"))
CLIENTS = 200
TURNS = int(os.environ.get("FISHSERVE_TEST_TURNS", "1"))
"""Connections of each client in one soak."""
WARMING = 5
"""Soaks before what is held is compared: oneDNN keeps 1,024 compiled kernels, about 300 MB for minnow, and then drops the oldest."""
MAX_GROWTH_BYTES = 40_000_000
"""What a process may grow in one more soak: the allocator's noise, and the kernels of rare shapes."""
SETTLING_SECONDS = 3
"""In which a process that has nothing to do gives its free memory back to the system."""
TEXTS = (
    "Yes.", "The kettle is on.", "It costs $5.50, or 3,5 km away.", "Mr. Hill came at 10:30. He left.", "Der 2. Weltkrieg endete 1945.", "...", "🎉",
    "The weather is cold and the wind is strong today, so we will walk to the station in the morning.", "Wait! What? No. I mean it.",
)  # fmt: skip


def pieces(chance, text):
    """A text in random cuts."""
    while text:
        size = chance.randint(1, 12)
        yield text[:size]
        text = text[size:]


class Client:
    """One connection after another, each of a random kind. `ends` counts how they ended."""

    def __init__(self, server, number, ends):
        self.chance, self.ends, self.url = random.Random(f"{SEED} {number}"), ends, f"ws://127.0.0.1:{server.port}"

    async def run(self):
        for _ in range(TURNS):
            kind = self.chance.choice([self.contexts, self.stream_input, self.fish, self.realtime])
            async with asyncio.timeout(HANG_SECONDS):
                end = f"{kind.__name__} {await kind()}"
            self.ends[end] += 1

    @contextlib.asynccontextmanager
    async def socket(self, path):
        """A connection that ends in order, or all at once."""
        opened = await connect(f"{self.url}{path}", max_size=None, open_timeout=HANG_SECONDS, ping_interval=None)
        try:
            yield opened
        finally:
            if self.chance.random() < 0.3:
                opened.transport.abort()
            else:
                await opened.close()

    async def until(self, opened, decode, is_last):
        """Read to the last message, or leave in the middle."""
        leaves = self.chance.choice([None, None, 1, 3])
        read = 0
        try:
            async for message in opened:
                read += 1
                if is_last(decode(message)):
                    return "spoken"
                if read == leaves:
                    return "left"
        except ConnectionClosed:
            pass
        return "closed"

    async def contexts(self):
        """ElevenLabs' contexts, as agents use them: one is spoken until the user speaks, then the next."""
        async with self.socket("/v1/text-to-speech/default/multi-stream-input?output_format=pcm_24000") as opened:
            names = [str(n) for n in range(self.chance.randint(1, 4))]
            for name in names:
                for piece in pieces(self.chance, self.chance.choice(TEXTS)):
                    await opened.send(json.dumps({"text": piece, "context_id": name}))
                await opened.send(json.dumps({"context_id": name, "flush": True}))
                if self.chance.random() < 0.5:
                    await opened.recv()
                await opened.send(json.dumps({"context_id": name, "close_context": True}))
            await opened.send(json.dumps({"close_socket": True}))
            finals = 0

            def last(message):
                nonlocal finals
                finals += bool(message.get("isFinal") or message.get("error"))
                return finals == len(names)

            return await self.until(opened, json.loads, last)

    async def stream_input(self):
        async with self.socket("/v1/text-to-speech/default/stream-input?output_format=mp3_44100_64") as opened:
            for piece in pieces(self.chance, self.chance.choice(TEXTS)):
                await opened.send(json.dumps({"text": piece}))
            await opened.send(json.dumps({"text": "", "flush": True}))
            await opened.send(json.dumps({"text": ""}))
            return await self.until(opened, json.loads, lambda message: message.get("isFinal") or message.get("error"))

    async def fish(self):
        """Two texts on one connection."""
        async with self.socket("/v1/tts/live") as opened:
            end = ""
            for _ in range(2):
                kind = self.chance.choice(["opus", "wav", "mp3", "pcm"])
                await opened.send(ormsgpack.packb({"event": "start", "request": {"text": "", "format": kind}}))
                for piece in pieces(self.chance, self.chance.choice(TEXTS)):
                    await opened.send(ormsgpack.packb({"event": "text", "text": piece}))
                    if self.chance.random() < 0.1:
                        await opened.send(ormsgpack.packb({"event": "flush"}))
                await opened.send(ormsgpack.packb({"event": "stop"}))
                end = await self.until(opened, ormsgpack.unpackb, lambda event: event["event"] == "finish")
                if end != "spoken":
                    break
            return end

    async def realtime(self):
        """A response that the user interrupts, and the next one."""
        async with self.socket("/v1/realtime?model=tts-1") as opened:
            for interrupted in (True, False):
                item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": self.chance.choice(TEXTS)}]}
                await opened.send(json.dumps({"type": "conversation.item.create", "item": item}))
                await opened.send(json.dumps({"type": "response.create"}))
                if interrupted:
                    while json.loads(await opened.recv())["type"] not in ("response.output_audio.delta", "response.done", "error"):
                        pass
                    await opened.send(json.dumps({"type": "response.cancel"}))
            return await self.until(opened, json.loads, lambda event: event["type"] in ("response.done", "error"))


def soak(server):
    """How many connections ended in which way."""
    ends = collections.Counter()

    async def all_at_once():
        await asyncio.gather(*(Client(server, number, ends).run() for number in range(CLIENTS)))

    asyncio.run(all_at_once())
    return ends


def held(server):
    """Threads, sockets and bytes of each of the server's processes, once nothing is spoken any more and free memory is given back."""
    wait(lambda: server.metric("fishserve_requests_running") == 0 and server.metric("fishserve_requests_waiting") == 0, "speech goes on")
    time.sleep(SETTLING_SECONDS)
    found = {}
    for process in sorted(server.members(), key=lambda p: p.create_time()):
        sockets = len([c for c in process.net_connections("tcp") if c.status != psutil.CONN_LISTEN])
        found[process.pid] = (process.num_threads(), sockets, process.memory_info().rss)
    return found


def test_two_hundred_sockets_leave_nothing_behind(tmp_path):
    with Server(EMBEDDED_VOICE, tmp_path, FISHSERVE_QUEUE="1000").wait_ready() as server:
        for _ in range(WARMING):
            first, before = soak(server), held(server)
            print(before)
        second = soak(server)
        wait(lambda: all(sockets <= before[pid][1] for pid, (_, sockets, _) in held(server).items()), "connections stay open")
        after = held(server)
    print(f"seed {SEED}", dict(first), dict(second), f"before {before}", f"after {after}", sep="\n")
    assert sum(first.values()) == sum(second.values()) == CLIENTS * TURNS
    assert set(after) == set(before)
    for pid, (threads, _, size) in after.items():
        assert threads <= before[pid][0] + 2
        assert size - before[pid][2] < MAX_GROWTH_BYTES

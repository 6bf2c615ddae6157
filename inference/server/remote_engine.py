"""The engines as the HTTP process sees them: messages go out through a channel, chunks of audio come back."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
import uuid
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from typing import Any, Protocol

import numpy as np

from inference.audio.write import float32
from inference.engine.request import Audio, MoreText, SpeechRequest
from inference.engine.stream import READ_ON
from inference.errors import EngineClosed, FishserveError
from inference.server.messages import LOADING, AppendText, Cancel, Chunk, Decode, Encode, LiveRequest, Message, State, WasRead

KNOWN_SECONDS, LOOK_SECONDS, HANGING_SECONDS = 1.0, 1.0, 4.0


class Channel(Protocol):
    """The connection to one engine's process."""

    def open(self, uid: str, unread: Unread) -> None:
        """From now on `unread` gets the chunks for `uid`, then None or an error. It appends them in the event loop's thread, then sets `arrived`."""

    def close(self, uid: str) -> None:
        """No caller waits for `uid` any more."""

    def put(self, uid: str, message: Message) -> None:
        """Send a message. May block."""

    def state(self) -> State:
        """What the engine reported last. May block."""


class Unread(deque[Any]):
    """Items that the client has not taken yet: chunks as int16, which take half the memory of float32; codes or samples; the end or an error."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived = asyncio.Event()


class Engines:
    """The engines of all devices as one: a request goes to the engine with the fewest requests."""

    def __init__(self, engines: list[RemoteEngine]) -> None:
        self._engines = engines
        self._known, self._known_at = LOADING, 0.0

    async def state(self) -> State:
        """Failed or loading while any engine is, else ready, which is asked again after a second."""
        if self._known["status"] != "ready" or time.monotonic() - self._known_at > KNOWN_SECONDS:
            states = [await engine.state() for engine in self._engines]
            unready = [s for s in states if s["status"] != "ready"]
            self._known_at = time.monotonic()
            self._known = next((s for s in unready if s["status"] == "failed"), unready[0]) if unready else _all(states)
        return self._known

    async def astream(self, request: SpeechRequest, more: AsyncIterator[str | MoreText] | None = None) -> AsyncIterator[Audio]:
        """As SpeechEngine.astream."""
        async with aclosing(self._free.astream(request, more)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def encode(self, wave: np.ndarray) -> np.ndarray:
        """As SpeechEngine.encode."""
        return await self._free.ask(Encode(wave))

    async def decode(self, codes: np.ndarray) -> np.ndarray:
        """The samples of SpeechEngine.decode."""
        return await self._free.ask(Decode(codes))

    @property
    def _free(self) -> RemoteEngine:
        return min(self._engines, key=lambda engine: engine.busy)


def _all(states: list[State]) -> State:
    """Several ready engines as one, with all their slots, and the graphs of the slowest."""
    slowest = max(states, key=lambda s: len("".join(s.get("graphs", {}).values())))
    whole = {"device": ", ".join(s["device"] for s in states), "slots": sum(s.get("slots", 0) for s in states)}
    return {k: v for k, v in slowest.items() if k != "at"} | whole


def _audio(item: np.ndarray | Chunk) -> Audio:
    return Audio(float32(item.samples), words=item.words, guard=item.guard) if isinstance(item, Chunk) else Audio(float32(item))


class RemoteEngine:
    """One engine. `busy` is how many requests it has."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._to_put: queue.SimpleQueue[tuple[str, Message]] | None = None  # made when it is needed: threads do not survive a fork
        self.busy = 0

    async def state(self) -> State:
        """Loading, ready or failed. An engine counts as failed when it has not said for a few seconds that it is ready.

        A silent one is looked at twice: when a machine that was paused goes on, this process may do so before those that it waits for.
        """
        state, silence = await self._look(HANGING_SECONDS)
        if silence:
            await asyncio.sleep(2 * LOOK_SECONDS)
            state, silence = await self._look(2 * LOOK_SECONDS)
        return {"status": "failed", "error": silence} if silence else state

    async def _look(self, patience: float) -> tuple[State, str]:
        """What the engine reported last, and in which way it has been silent since; empty when it has not."""
        try:
            async with asyncio.timeout(patience):
                state = await asyncio.to_thread(self._channel.state)
        except TimeoutError:
            return LOADING, "the processes of the server do not answer"
        if state["status"] == "ready" and (silent := time.monotonic() - state["at"]) > HANGING_SECONDS:
            return state, f"the engine's process has not answered for {silent:.0f} s"
        return state, ""

    def astream(self, request: SpeechRequest, more: AsyncIterator[str | MoreText] | None = None) -> AsyncGenerator[Audio]:
        """As SpeechEngine.astream; closing it early tells the engine to stop."""
        return self._items(request if more is None else LiveRequest(request), more)

    async def ask(self, message: Encode | Decode) -> np.ndarray:
        """The result for a clip or for codes."""
        (done,) = [item async for item in self._items(message)]
        return done

    async def _items(
        self, message: SpeechRequest | LiveRequest | Encode | Decode, more: AsyncIterator[str | MoreText] | None = None
    ) -> AsyncGenerator[Any]:
        uid = uuid.uuid4().hex
        unread, taken, speech = Unread(), 0, isinstance(message, SpeechRequest | LiveRequest)
        self._channel.open(uid, unread)
        ended = False
        self.busy += 1
        put = asyncio.get_running_loop().run_in_executor(None, self._channel.put, uid, message)
        feeding = asyncio.ensure_future(self._feed(uid, put, more, unread)) if more is not None else None
        try:
            while not put.done():
                if not (await asyncio.wait([put], timeout=LOOK_SECONDS))[0]:
                    await self._check_lives()
            await put
            while True:
                while not unread:
                    await self._wait(unread.arrived)
                item = unread.popleft()
                ended = item is None or isinstance(item, Exception)
                if isinstance(item, Exception):
                    raise item
                if ended:
                    return
                yield _audio(item) if speech else item
                taken += 1
                if speech and taken % READ_ON == 0:
                    self._put_soon(uid, WasRead(uid, READ_ON))
        finally:
            self.busy -= 1
            if feeding is not None:
                feeding.cancel()
            self._channel.close(uid)
            if not ended:  # cancel after the request is sent, and in a thread: this task may be cancelled already
                put.add_done_callback(lambda _: self._put_soon(uid, Cancel(uid)))

    async def _feed(self, uid: str, put: asyncio.Future[None], more: AsyncIterator[str | MoreText], unread: Unread) -> None:
        """Send what `more` yields. An error from it ends the stream."""
        await asyncio.shield(put)
        try:
            async for text in more:
                await asyncio.to_thread(self._channel.put, uid, AppendText(uid, text))
        except FishserveError as e:
            unread.append(e)
            unread.arrived.set()
            self._put_soon(uid, Cancel(uid))
            return
        await asyncio.to_thread(self._channel.put, uid, AppendText(uid, None))

    def _put_soon(self, uid: str, message: Message) -> None:
        """Send a message without waiting. One thread does it: each thread has a connection of its own to LitServe's manager, and to make one
        takes milliseconds of three processes, for all of a crowd that leaves at once.
        """

        if self._to_put is None:
            self._to_put = queue.SimpleQueue()
            threading.Thread(target=self._put_all, args=(self._to_put,), daemon=True).start()
        self._to_put.put((uid, message))

    def _put_all(self, messages: queue.SimpleQueue[tuple[str, Message]]) -> None:
        while True:
            with suppress(OSError, EOFError):  # the server is ending
                self._channel.put(*messages.get())

    async def _wait(self, arrived: asyncio.Event) -> None:
        """Wait for the next item. Raises EngineClosed when the engine's process has ended and none will come."""
        try:
            async with asyncio.timeout(LOOK_SECONDS):  # Python 3.11's wait_for loses a cancellation that arrives with an item
                await arrived.wait()
            arrived.clear()
        except TimeoutError:
            await self._check_lives()

    async def _check_lives(self) -> None:
        state = await self.state()
        if state["status"] == "failed":
            raise EngineClosed(state["error"])

"""One engine as a replica of Ray Serve: an `EngineProcess` whose messages come through handles, and whose answers are streams."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import AsyncGenerator
from typing import Any

from inference import tracing
from inference.cluster.calls import UNWANTED_SECONDS, WANTED_SECONDS, Pause, Resume, Route, Wanted
from inference.errors import EngineClosed, FishserveError
from inference.server.engine_process import Address, EngineProcess
from inference.server.messages import LOADING, AppendText, Cancel, Chunk, Message, State, WasRead
from inference.settings import read

HANGING_SECONDS = 60.0
"""A replica whose engine has not said for so long that it is ready is replaced."""


class EngineReplica:
    """The deployment `Engine`. Its methods run in one event loop; the engine runs in threads of its own."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """Load the model. `settings` are values of `Settings` by name. Raises FishserveError when the model cannot be loaded."""
        from ray import serve

        self._name = serve.get_replica_context().replica_id.unique_id
        self._streams: dict[str, _Stream] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watching: asyncio.Task[None] | None = None
        self._inbox: queue.SimpleQueue[tuple[int, str, float, Message]] = queue.SimpleQueue()
        self._state: State = LOADING
        self._loaded = threading.Event()
        process = EngineProcess(read(**settings), self._inbox, self._send, self._report)
        threading.Thread(target=process.run, name="fishserve-messages", daemon=True).start()
        self._loaded.wait()
        self.check_health()

    def __del__(self) -> None:
        """Ray Serve calls this when the replica has finished its streams."""
        tracing.stop()

    async def ask(self, route: Route, uid: str, message: Message) -> AsyncGenerator[Any]:  # noqa: ARG002 - for the router
        """This replica's name, then lists of what the engine answers: arrays and chunks, at the end None or an error.

        Cancelling the call cancels the request within a frame.
        """
        self._loop = asyncio.get_running_loop()
        self._watching = self._watching or self._loop.create_task(self._end_unwanted())
        stream = self._streams[uid] = _Stream()
        self._put(uid, message)
        try:
            yield self._name
            while not stream.ended:
                items = await stream.items()
                yield items
                self._was_read(uid, stream, sum(isinstance(item, Chunk) or hasattr(item, "shape") for item in items))
        finally:
            del self._streams[uid]
            if not stream.ended:
                self._put(uid, Cancel(uid))

    async def tell(self, route: Route, message: AppendText | Pause | Resume | Wanted) -> None:  # noqa: ARG002 - for the router
        """Pass on what belongs to requests that this replica has; nothing happens when they have ended."""
        if isinstance(message, Wanted):
            for uid in message.uids:
                if wanted := self._streams.get(uid):
                    wanted.unheard_looks = 0
            return
        if (stream := self._streams.get(message.uid)) is None:
            return
        if isinstance(message, AppendText):
            self._put(message.uid, message)
        else:
            stream.paused = isinstance(message, Pause)
            self._was_read(message.uid, stream, 0)

    async def state(self, route: Route) -> State:  # noqa: ARG002 - for the router
        """As `RemoteEngine.state`."""
        return self._state

    async def exposition(self) -> tuple[str, str]:
        """This replica's name and its metrics in Prometheus' text format."""
        from inference.http.metrics import exposition

        return self._name, exposition()[0].decode()

    def check_health(self) -> None:
        """Ray Serve asks for this and replaces a replica that raises. Raises FishserveError."""
        if self._state["status"] == "failed":
            raise FishserveError(self._state["error"])
        if (silent := time.monotonic() - self._state["at"]) > HANGING_SECONDS:
            raise FishserveError(f"the engine has not answered for {silent:.0f} s")

    async def _end_unwanted(self) -> None:
        """End requests whose doors were killed or cannot be reached: nobody else would, and their slots would be lost until they end.

        It counts looks instead of seconds: a machine that was paused has not looked, and its doors get their time again.
        """
        while True:
            await asyncio.sleep(WANTED_SECONDS)
            for uid, stream in self._streams.items():
                stream.unheard_looks += 1
                if not stream.ended and stream.unheard_looks > UNWANTED_SECONDS / WANTED_SECONDS:
                    self._put(uid, Cancel(uid))
                    stream.add(EngineClosed("the doors that asked for this have not been heard of"))

    def _put(self, uid: str, message: Message) -> None:
        self._inbox.put((0, uid, time.monotonic(), message))

    def _was_read(self, uid: str, stream: _Stream, chunks: int) -> None:
        """Chunks count as read when they are sent, unless the client is behind: then when it has read on."""
        stream.sent += chunks
        if stream.sent and not stream.paused:
            self._put(uid, WasRead(uid, stream.sent))
            stream.sent = 0

    def _send(self, address: Address, item: Any) -> None:
        assert self._loop is not None  # a message came through it
        self._loop.call_soon_threadsafe(self._deliver, address[1], item)

    def _deliver(self, uid: str, item: Any) -> None:
        if stream := self._streams.get(uid):
            stream.add(item)

    def _report(self, state: State) -> None:
        self._state = state
        if state["status"] != "loading":
            self._loaded.set()


class _Stream:
    """What the engine has answered to one call and the call has not sent yet.

    `sent` chunks were sent but not reported as read. `unheard_looks` counts looks since the doors last wanted it.
    """

    def __init__(self) -> None:
        self.paused = self.ended = False
        self.sent = self.unheard_looks = 0
        self._waiting: list[Any] = []
        self._arrived = asyncio.Event()

    def add(self, item: Any) -> None:
        self._waiting.append(item)
        self._arrived.set()

    async def items(self) -> list[Any]:
        """All that waits, at least one item."""
        await self._arrived.wait()
        self._arrived.clear()
        items, self._waiting = self._waiting, []
        self.ended = items[-1] is None or isinstance(items[-1], Exception)
        return items

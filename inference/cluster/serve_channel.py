"""The engines of a cluster as the HTTP APIs see them: a `Channel` whose messages go out through a handle of Ray Serve."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from typing import Any

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from inference.cluster.calls import WANTED_SECONDS, Pause, Resume, Route, Wanted, voice_of
from inference.engine.stream import MAX_UNREAD, READ_ON
from inference.errors import EngineClosed, GenerationError, Overloaded
from inference.server.messages import LOADING, AppendText, Cancel, Message, State, WasRead
from inference.server.remote_engine import Unread

STATE_SECONDS = 1.0
"""How long a state is believed, and how long it may take to learn it."""
MAX_TRIES = 3
"""Replicas that are asked before a request is refused with 429, each less loaded than those not asked. A replica that ended counts, too."""


class ServeChannel:
    """`handle` is that of the deployment `Engine`. `deployment_error` returns why it cannot run, None when it can.

    With `may_sleep` a cluster without replicas counts as ready: the next request starts one.
    """

    def __init__(self, handle: DeploymentHandle[Any], deployment_error: Callable[[], str | None], *, may_sleep: bool = False) -> None:
        self._ask = handle.options(method_name="ask", stream=True)
        self._tell = handle.options(method_name="tell")
        self._ask_state = handle.options(method_name="state")
        self._deployment_error, self._may_sleep = deployment_error, may_sleep
        self._loop = asyncio.get_running_loop()
        self._calls: dict[str, _Call] = {}
        self._known, self._known_at, self._asking = LOADING, 0.0, threading.Lock()
        self._wanting = self._loop.create_task(self._want(), context=Context())

    def open(self, uid: str, unread: Unread) -> None:
        """As Channel.open."""
        self._calls[uid] = _Call(self, uid, unread)

    def close(self, uid: str) -> None:
        """As Channel.close; a request that still runs is cancelled."""
        self._calls.pop(uid).stop()

    def put(self, uid: str, message: Message) -> None:
        """As Channel.put."""
        # Calls of one HTTP request share its id in Ray Serve's context, which then confuses those that wait for a replica at once.
        self._loop.call_soon_threadsafe(self._take, uid, message, context=Context())

    def state(self) -> State:
        """As Channel.state: ready while a replica answers."""
        with self._asking:
            if time.monotonic() - self._known_at > STATE_SECONDS:
                self._known, self._known_at = self._asked(), time.monotonic()
        return self._known | {"at": self._known_at} if self._known["status"] == "ready" else self._known

    def _asked(self) -> State:
        if self._may_sleep and self._known["status"] == "ready":  # asking would start a replica
            waits = any(not call.replica for call in list(self._calls.values()))
            error = self._deployment_error() if waits else None
            return {"status": "failed", "error": error} if error else self._known
        for _ in range(MAX_TRIES if self._known["status"] == "ready" else 1):  # one replica that hangs is no reason to refuse all requests
            response = Context().run(self._ask_state.remote, Route())
            try:
                state: State = response.result(timeout_s=STATE_SECONDS)
            except (TimeoutError, RayError, RayServeException):
                response.cancel()
            else:
                return state
        error = self._deployment_error()
        return {"status": "failed", "error": error} if error else LOADING

    async def _want(self) -> None:
        """Tell the replicas which of their requests are wanted. They end those of doors that were killed, which cancel nothing."""
        while True:
            await asyncio.sleep(WANTED_SECONDS)
            uids: dict[str, list[str]] = {}
            for uid, call in list(self._calls.items()):
                if call.replica:
                    uids.setdefault(call.replica, []).append(uid)
            await asyncio.gather(*(self._say_wanted(replica, tuple(found)) for replica, found in uids.items()))

    async def _say_wanted(self, replica: str, uids: tuple[str, ...]) -> None:
        with suppress(TimeoutError, RayError, RayServeException):  # it has ended, or cannot be reached
            async with asyncio.timeout(WANTED_SECONDS):
                await self._tell.remote(Route(replica=replica), Wanted(uids))

    def _take(self, uid: str, message: Message) -> None:
        if (call := self._calls.get(uid)) is None or isinstance(message, Cancel):
            return  # `close` has cancelled it
        if isinstance(message, WasRead):
            call.was_read()
        elif isinstance(message, AppendText):
            call.append(message)
        else:
            call.start(message)


class _Call:
    """One request to the engines, on one replica after another until one has begun to answer. `replica` has it, "" for none yet."""

    def __init__(self, channel: ServeChannel, uid: str, unread: Unread) -> None:
        self._channel, self._uid, self._unread = channel, uid, unread
        self.replica = ""
        self._paused = False
        self._texts: list[AppendText] = []
        self._told: asyncio.Queue[AppendText | Pause | Resume] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, message: Message) -> None:
        self._tasks.append(asyncio.ensure_future(self._run(message)))

    def append(self, text: AppendText) -> None:
        """Send more text, at once or when a replica has the request."""
        self._texts.append(text)
        if self.replica:
            self._told.put_nowait(text)

    def was_read(self) -> None:
        """Let a paused replica go on once the client has read enough."""
        if self._paused and len(self._unread) <= READ_ON:
            self._paused = False
            self._told.put_nowait(Resume(self._uid))

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _run(self, message: Message) -> None:
        voice = voice_of(message)
        avoid: tuple[str, ...] = ()
        while True:
            begun = False
            try:
                async for item in self._items(Route(voice, avoid=avoid), message):
                    if isinstance(item, Overloaded) and not begun and len(avoid) + 1 < MAX_TRIES:
                        break
                    begun = True
                    self._give(item)
                    if item is None or isinstance(item, Exception):
                        return
                else:
                    self._give(EngineClosed("the engine's replica ended the request without a result"))
                    return
            except (RayError, RayServeException) as e:
                if begun or len(avoid) + 1 >= MAX_TRIES:
                    self._give(EngineClosed(f"the engine replica that spoke this ended: {type(e).__name__}"))
                    return
            except Exception as e:  # nobody else would tell the client
                self._give(GenerationError(f"the request could not be sent to an engine: {type(e).__name__}"))
                return
            avoid = (*avoid, self.replica)

    async def _items(self, route: Route, message: Message) -> Any:
        """The items of one replica's answer."""
        self.replica = ""
        response = self._channel._ask.remote(route, self._uid, message)
        telling = None
        try:
            self.replica = await anext(response)
            self._told = asyncio.Queue()
            for text in self._texts:
                self._told.put_nowait(text)
            telling = asyncio.ensure_future(self._tell_all(self.replica))
            async for items in response:
                for item in items:
                    yield item
        finally:
            if telling is not None:
                telling.cancel()
            response.cancel()

    async def _tell_all(self, replica: str) -> None:
        """Send what the replica must know of this request, in order."""
        with suppress(RayError, RayServeException):  # it has ended, as its answer says
            while True:
                message = await self._told.get()
                await self._channel._tell.remote(Route(replica=replica), message)

    def _give(self, item: Any) -> None:
        self._unread.append(item)
        self._unread.arrived.set()
        if not self._paused and len(self._unread) > MAX_UNREAD:
            self._paused = True
            self._told.put_nowait(Pause(self._uid))

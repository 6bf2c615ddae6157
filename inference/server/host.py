"""Hosts the engine and the doors on LitServe: one process for HTTP, one for the device.

LitServe starts the processes and moves messages between them. Its own routes are taken off: they answer 200 to failed
streams and cannot cancel. The engine's loop here loads the model after LitServe has begun to listen, so that a server
that is still loading is alive (/health) but not ready (/ready).
"""

from __future__ import annotations

import asyncio
import os
import pickle
import queue
import signal
import socket
import tempfile
import threading
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import litserve as ls
from litserve.loops import LitLoop
from litserve.utils import LitAPIStatus, LoopResponseType, ResponseBufferItem

from inference.engine.request import Audio, SpeechRequest
from inference.errors import EngineClosed, FishserveError, GenerationError
from inference.hub import name_of
from inference.server.app import create_app
from inference.server.metrics import SHARED_DIRECTORY
from inference.settings import Settings
from inference.voices.store import VoiceStore

_PATH = "/_engine"
_STATE = "fishserve"  # our key beside LitServe's own in the dictionary that all its processes share
_WARM_UP = "Warming up."
MOST_UNREAD = 400
"""Chunks, ten minutes of sound, that may wait for a client."""


@dataclass(frozen=True)
class Cancel:
    """Sent to the engine in place of a request."""

    uid: str


class EngineApi(ls.LitAPI):
    """LitServe wants one; all work is in the loop."""

    def setup(self, device: str) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends us after draining


class EngineLoop(LitLoop):
    """Runs in the device's process: takes requests from LitServe's queue, sends back chunks as they come."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings

    def __call__(
        self, lit_api: ls.LitAPI, device: str, worker_id: int, request_queue: Any, transport: Any, shared: Any, callbacks: Any
    ) -> None:
        """Serve until the parent ends this process. A model that cannot be loaded ends it at once."""
        from inference.engine.engine import SpeechEngine

        shared[_STATE] = {"status": "loading"}
        s = self._settings
        try:
            engine = SpeechEngine.load(
                s.checkpoint, s.device, rows=s.rows, queue=s.queue, weights=s.cpu_weights, kv_bytes=s.kv_bytes, copies=s.cache_dir
            )
            engine.synthesize(SpeechRequest(_WARM_UP, seed=0, max_new_tokens=8))
        except FishserveError as e:
            shared[_STATE] = {"status": "failed", "error": str(e)}
            return
        shared[_STATE] = {"status": "ready", "model": name_of(engine.checkpoint.path), "device": str(engine.checkpoint.device)}
        outbox: queue.SimpleQueue[tuple[int, str, Any]] = queue.SimpleQueue()
        threading.Thread(target=self._send, args=(outbox, transport), daemon=True).start()
        self._receive(engine, request_queue, outbox)
        shared[_STATE] = {"status": "failed", "error": engine.ending}

    def _receive(self, engine: Any, inbox: Any, outbox: queue.SimpleQueue[tuple[int, str, Any]]) -> None:
        tickets: dict[str, Any] = {}
        parent = os.getppid()
        while os.getppid() == parent and engine.alive:
            try:
                consumer, uid, _, message = inbox.get(timeout=1.0)
            except queue.Empty:
                continue
            if isinstance(message, Cancel):
                if ticket := tickets.get(message.uid):
                    ticket.cancel()
                continue

            def deliver(item: Any, consumer: int = consumer, uid: str = uid) -> None:
                outbox.put((consumer, uid, item))
                if not isinstance(item, Audio):
                    tickets.pop(uid, None)

            try:
                ticket = tickets[uid] = engine.submit(message, deliver)
                if ticket.finish_reason:  # it ended before it was put there
                    tickets.pop(uid, None)
            except FishserveError as e:
                outbox.put((consumer, uid, e))
            except Exception as e:
                outbox.put((consumer, uid, GenerationError(f"the request could not be started: {type(e).__name__}")))

    def _send(self, outbox: queue.SimpleQueue[tuple[int, str, Any]], transport: Any) -> None:
        while True:
            consumer, uid, item = outbox.get()
            if isinstance(item, Exception):
                self.put_error_response(transport, consumer, uid, item, LoopResponseType.STREAMING)
            else:
                status = LitAPIStatus.FINISH_STREAMING if item is None else LitAPIStatus.OK
                self.put_response(transport, consumer, uid, item, status, LoopResponseType.STREAMING)


class Unread(deque[tuple[Any, str]]):
    """Items that the client has not taken yet. One who stops reading has the request stopped, not the memory filled."""

    def __init__(self, overflow: Callable[[], None]) -> None:
        super().__init__()
        self._overflow = overflow
        self.overflowed = False

    def append(self, item: tuple[Any, str]) -> None:
        """Called by LitServe as items arrive."""
        super().append(item)
        if len(self) == MOST_UNREAD and not self.overflowed:
            self.overflowed = True
            self._overflow()


class RemoteEngine:
    """The engine as the HTTP process sees it, through LitServe's queues."""

    def __init__(self, server: ls.LitServer) -> None:
        self._server = server
        self._ready: dict[str, str] | None = None

    async def state(self) -> dict[str, str]:
        """Loading, ready or failed; ready is remembered, since only the end of the process undoes it."""
        if self._ready is None:
            state = dict(await asyncio.to_thread(self._server.workers_setup_status.get, _STATE, {"status": "loading"}))
            if state["status"] != "ready":
                return state
            self._ready = state
        return self._ready

    async def astream(self, request: SpeechRequest) -> AsyncIterator[Audio]:
        """As SpeechEngine.astream; leaving early tells the engine to stop."""
        uid, arrived = uuid.uuid4().hex, asyncio.Event()
        items = Unread(lambda: self._cancel(uid))
        self._server.response_buffer[uid] = ResponseBufferItem(event=arrived, response_queue=items)
        ended = False
        put = asyncio.get_running_loop().run_in_executor(None, self._put, uid, request)
        try:
            await asyncio.shield(put)
            while True:
                while not items:
                    await self._wait(arrived)
                item, status = items.popleft()
                ended = status != LitAPIStatus.OK
                if status == LitAPIStatus.ERROR:
                    raise pickle.loads(item)
                if ended and items.overflowed:  # no clean end: the client must not take a part for the whole
                    raise GenerationError(f"{MOST_UNREAD} chunks of audio were not read; this request was stopped")
                if ended:
                    return
                yield item
        finally:
            del self._server.response_buffer[uid]
            if not ended:  # after the request, in a thread of its own: this task may be cancelled already
                put.add_done_callback(lambda _: self._cancel(uid))

    def _cancel(self, uid: str) -> None:
        threading.Thread(target=self._put, args=(uid, Cancel(uid)), daemon=True).start()

    async def _wait(self, arrived: asyncio.Event) -> None:
        """Wait for the next item; raises EngineClosed when the device's process has ended and none will come."""
        try:
            await asyncio.wait_for(arrived.wait(), 1.0)
            arrived.clear()
        except TimeoutError:
            state = await asyncio.to_thread(self._server.workers_setup_status.get, _STATE)
            if state["status"] == "failed":
                raise EngineClosed(state["error"]) from None

    def _put(self, uid: str, message: SpeechRequest | Cancel) -> None:
        self._server._get_request_queue(_PATH).put((self._server.app.response_queue_id, uid, time.monotonic(), message))


def build(settings: Settings) -> ls.LitServer:
    """A LitServer that answers on our routes alone."""
    api = EngineApi(stream=True, loop=EngineLoop(settings), api_path=_PATH)
    server = ls.LitServer(api, accelerator="cpu", devices=1, timeout=False, disable_openapi_url=True)
    server._monitor_workers = False  # it tears down from a thread while the main one waits; `_watch` is simpler
    server.app.router.routes.clear()
    server.app.mount("/", create_app(RemoteEngine(server), VoiceStore(settings.voices_dir), settings.max_body_bytes))
    return server


def serve(settings: Settings) -> str | None:
    """Serve until SIGTERM or Ctrl-C, then let running requests finish. Returns why it ended, if that is an error.

    Raises OSError when the address cannot be listened on.
    """
    _check_free(settings.host, settings.port)
    with tempfile.TemporaryDirectory(prefix="fishserve-metrics-") as shared:
        os.environ[SHARED_DIRECTORY] = shared
        server = build(settings)
        failure: list[str] = []
        threading.Thread(target=_watch, args=(server, failure), daemon=True).start()
        # The handler runs in the main thread, which is inside a call to LitServe's manager; only another thread may call it.
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server._shutdown_event.set).start())
        server.run(
            host=settings.host, port=settings.port, num_api_servers=1, generate_client_file=False, log_level="warning", access_log=False
        )
        return failure[0] if failure else None


def _check_free(host: str, port: int) -> None:
    """Uvicorn ends the process itself when it cannot listen; ask first."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((host, port))


def _watch(server: ls.LitServer, failure: list[str]) -> None:
    """End the server when the device's process ends: without it every request would hang."""
    while not getattr(server, "inference_workers", None):
        time.sleep(0.1)
    server.inference_workers[0].join()
    if not server._shutdown_event.is_set():
        state = server.workers_setup_status.get(_STATE, {})
        failure.append(state.get("error") or f"the engine's process ended with exit code {server.inference_workers[0].exitcode}")
        server.workers_setup_status[_STATE] = {"status": "failed", "error": failure[0]}
        server._shutdown_event.set()

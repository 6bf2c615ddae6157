"""Hosts the engine and the doors on LitServe: one process for HTTP, one for each device.

LitServe starts the processes and moves messages between them. Its own routes are taken off: they answer 200 to failed
streams and cannot cancel. The engine's loop here loads the model after LitServe has begun to listen, so that a server
that is still loading is alive (/health) but not ready (/ready).
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import pickle
import queue
import shutil
import signal
import socket
import tempfile
import threading
import time
import uuid
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from typing import Any, Protocol
from unittest.mock import patch

import litserve as ls
import numpy as np
import uvicorn
from fastapi import FastAPI
from litserve.loops import LitLoop
from litserve.utils import LitAPIStatus, LoopResponseType, ResponseBufferItem
from starlette.types import ASGIApp, Receive, Scope, Send

from inference.engine.request import Audio, SpeechRequest
from inference.errors import EngineClosed, FishserveError, GenerationError, Overloaded
from inference.hub import name_of
from inference.listening import listen, url_of
from inference.server.app import create_app
from inference.server.audio_responses import PING
from inference.server.log import quiet_uvicorn
from inference.server.metrics import SHARED_DIRECTORY
from inference.server.timeouts import DrainingWebSocketProtocol, HeaderTimeoutProtocol
from inference.settings import Settings

_PATH = "/_engine"
_STATE = "fishserve"  # our keys, with a device's number, beside LitServe's own in the dictionary that all its processes share
LOADING = {"status": "loading"}
_WARM_UP = "Warming up."
_ANY_PORT = 8080  # LitServe wants one from 1024 on; the socket is ours
_END_SECONDS = 5
_LOOK_SECONDS = 0.1
_INTERRUPTED = 130  # the exit code of what Ctrl-C ended
MAX_CLIPS = 16
MAX_UNREAD = 400
"""Chunks, ten minutes of sound, that may wait for a client."""


@dataclass(frozen=True)
class LiveRequest:
    """A request to which `AppendText` will follow."""

    request: SpeechRequest


@dataclass(frozen=True)
class AppendText:
    """Text that a live request is to speak next; None says that no more will come."""

    uid: str
    text: str | None


@dataclass(frozen=True)
class Encode:
    """A clip to turn into codes: samples (n,) at 44.1 kHz."""

    wave: np.ndarray


@dataclass(frozen=True)
class Decode:
    """Codes (codebooks, frames) to turn into sound."""

    codes: np.ndarray


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

    def __init__(self, settings: Settings, number: int) -> None:
        super().__init__()
        self._settings, self._state = settings, f"{_STATE}{number}"

    def __call__(
        self, lit_api: ls.LitAPI, device: str, worker_id: int, request_queue: Any, transport: Any, shared: Any, callbacks: Any
    ) -> None:
        """Serve until the parent ends this process. A model that cannot be loaded ends it at once."""
        from inference.engine.engine import SpeechEngine

        shared[self._state] = {"status": "loading"}
        s = self._settings
        try:
            engine = SpeechEngine.load(
                s.checkpoint, s.device, rows=s.rows, queue=s.queue, weights=s.cpu_weights, kv_bytes=s.kv_bytes, copies=s.cache_dir
            )
            engine.synthesize(SpeechRequest(_WARM_UP, seed=0, max_new_tokens=8))
        except FishserveError as e:
            shared[self._state] = {"status": "failed", "error": str(e)}
            return
        c = engine.checkpoint
        shared[self._state] = {"status": "ready", "model": name_of(c.path), "device": str(c.device), "codec": c.codec_id}
        outbox: queue.SimpleQueue[tuple[int, str, Any]] = queue.SimpleQueue()
        threading.Thread(target=self._send, args=(outbox, transport), daemon=True).start()
        self._receive(engine, request_queue, outbox)
        shared[self._state] = {"status": "failed", "error": engine.ending}

    def _receive(self, engine: Any, inbox: Any, outbox: queue.SimpleQueue[tuple[int, str, Any]]) -> None:
        tickets: dict[str, Any] = {}
        codec_worker = CodecWorker(engine, outbox)
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
                if isinstance(message, AppendText):
                    self._extend(engine, tickets.get(message.uid), message.text)
                    continue
                if isinstance(message, Encode | Decode):
                    codec_worker.put(consumer, uid, message)
                    continue
                live = isinstance(message, LiveRequest)
                ticket = tickets[uid] = engine.submit(message.request if live else message, deliver, live=live)
                if ticket.finish_reason:  # it ended before it was put there
                    tickets.pop(uid, None)
            except FishserveError as e:
                outbox.put((consumer, uid, e))
            except Exception as e:
                outbox.put((consumer, uid, GenerationError(f"the request could not be started: {type(e).__name__}")))

    @staticmethod
    def _extend(engine: Any, ticket: Any, text: str | None) -> None:
        if ticket is None:
            return
        if text is None:
            engine.complete(ticket)
            return
        try:
            engine.extend(ticket, text)
        except FishserveError:
            ticket.cancel()
            raise

    def _send(self, outbox: queue.SimpleQueue[tuple[int, str, Any]], transport: Any) -> None:
        while True:
            consumer, uid, item = outbox.get()
            if isinstance(item, Exception):
                self.put_error_response(transport, consumer, uid, item, LoopResponseType.STREAMING)
            else:
                status = LitAPIStatus.FINISH_STREAMING if item is None else LitAPIStatus.OK
                self.put_response(transport, consumer, uid, item, status, LoopResponseType.STREAMING)


class CodecWorker:
    """Encodes and decodes whole clips, one at a time, in a thread of its own: what speaks need not wait for it."""

    def __init__(self, engine: Any, outbox: queue.SimpleQueue[tuple[int, str, Any]]) -> None:
        self._engine, self._outbox = engine, outbox
        self._inbox: queue.Queue[tuple[int, str, Encode | Decode]] = queue.Queue(MAX_CLIPS)
        threading.Thread(target=self._work, daemon=True).start()

    def put(self, consumer: int, uid: str, message: Encode | Decode) -> None:
        """Raises Overloaded when too many wait already."""
        try:
            self._inbox.put_nowait((consumer, uid, message))
        except queue.Full:
            raise Overloaded(f"{MAX_CLIPS} clips are waiting to be encoded or decoded already; try again in a few seconds", 5) from None

    def _work(self) -> None:
        while True:
            consumer, uid, message = self._inbox.get()
            try:
                done = self._engine.encode(message.wave) if isinstance(message, Encode) else self._engine.decode(message.codes).samples
                self._outbox.put((consumer, uid, done))
                self._outbox.put((consumer, uid, None))
            except FishserveError as e:
                self._outbox.put((consumer, uid, e))
            except Exception as e:
                self._outbox.put((consumer, uid, GenerationError(f"the clip could not be worked on: {type(e).__name__}")))


class Unread(deque[tuple[Any, str]]):
    """Items that the client has not taken yet. One who stops reading has the request stopped, not the memory filled."""

    def __init__(self, overflow: Callable[[], None]) -> None:
        super().__init__()
        self._overflow = overflow
        self.overflowed = False

    def append(self, item: tuple[Any, str]) -> None:
        """Called by LitServe as items arrive."""
        super().append(item)
        if len(self) == MAX_UNREAD and not self.overflowed:
            self.overflowed = True
            self._overflow()


class Engines:
    """The engines of all devices as one: a request goes where the fewest are."""

    def __init__(self, engines: list[RemoteEngine]) -> None:
        self._engines = engines
        self._ready: dict[str, str] | None = None

    async def state(self) -> dict[str, str]:
        """Failed or loading as long as one of them is, else ready; that is remembered, since only the end of a process undoes it."""
        if self._ready is None:
            states = [await engine.state() for engine in self._engines]
            if unready := [s for s in states if s["status"] != "ready"]:
                return next((s for s in unready if s["status"] == "failed"), unready[0])
            self._ready = states[0] | {"device": ", ".join(s["device"] for s in states)}
        return self._ready

    async def astream(self, request: SpeechRequest, more: AsyncIterator[str] | None = None) -> AsyncIterator[Audio]:
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


class RemoteEngine:
    """An engine as the HTTP process sees it, through LitServe's queues. `busy` is how many requests it has."""

    def __init__(self, server: Server, number: int) -> None:
        self._server, self._number = server, number
        self.busy = 0

    async def state(self) -> dict[str, str]:
        """Loading, ready or failed."""
        return dict(await asyncio.to_thread(self._server.workers_setup_status.get, f"{_STATE}{self._number}", LOADING))

    def astream(self, request: SpeechRequest, more: AsyncIterator[str] | None = None) -> AsyncGenerator[Audio]:
        """As SpeechEngine.astream; leaving early tells the engine to stop."""
        return self._items(request if more is None else LiveRequest(request), more)

    async def ask(self, message: Encode | Decode) -> np.ndarray:
        """What comes of a clip or of codes."""
        (done,) = [item async for item in self._items(message)]
        return done

    async def _items(
        self, message: SpeechRequest | LiveRequest | Encode | Decode, more: AsyncIterator[str] | None = None
    ) -> AsyncGenerator[Any]:
        uid, arrived = uuid.uuid4().hex, asyncio.Event()
        items = Unread(lambda: self._cancel(uid))
        self._server.response_buffer[uid] = ResponseBufferItem(event=arrived, response_queue=items)
        ended = False
        self.busy += 1
        put = asyncio.get_running_loop().run_in_executor(None, self._put, uid, message)
        feeding = asyncio.ensure_future(self._feed(uid, put, more)) if more is not None else None
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
                    raise GenerationError(f"{MAX_UNREAD} chunks of audio were not read; this request was stopped")
                if ended:
                    return
                yield item
        finally:
            self.busy -= 1
            if feeding is not None:
                feeding.cancel()
            del self._server.response_buffer[uid]
            if not ended:  # after the request, in a thread of its own: this task may be cancelled already
                put.add_done_callback(lambda _: self._cancel(uid))

    async def _feed(self, uid: str, put: asyncio.Future[None], more: AsyncIterator[str]) -> None:
        await asyncio.shield(put)
        async for text in more:
            await asyncio.to_thread(self._put, uid, AppendText(uid, text))
        await asyncio.to_thread(self._put, uid, AppendText(uid, None))

    def _cancel(self, uid: str) -> None:
        threading.Thread(target=self._put, args=(uid, Cancel(uid)), daemon=True).start()

    async def _wait(self, arrived: asyncio.Event) -> None:
        """Wait for the next item; raises EngineClosed when the device's process has ended and none will come."""
        try:
            async with asyncio.timeout(1.0):  # wait_for of Python 3.11 forgets a cancellation that comes with an item
                await arrived.wait()
            arrived.clear()
        except TimeoutError:
            state = await self.state()
            if state["status"] == "failed":
                raise EngineClosed(state["error"]) from None

    def _put(self, uid: str, message: SpeechRequest | LiveRequest | AppendText | Encode | Decode | Cancel) -> None:
        self._server._get_request_queue(f"{_PATH}{self._number}").put((self._server.app.response_queue_id, uid, time.monotonic(), message))


class Plugin(Protocol):
    """What stands before the server's own doors, which then need no keys of their own."""

    def before(self, doors: ASGIApp) -> ASGIApp:
        """The app that answers instead."""
        ...

    def lifespan(self) -> AbstractAsyncContextManager[object]:
        """As long as the server's app lives."""
        ...


def build(settings: Settings, plugin: Plugin | None = None, requests: Any = None) -> Server:
    """A LitServer that answers on our routes alone. `requests` is a shared number, kept at how many are being answered."""
    loops = [EngineLoop(settings.model_copy(update={"device": d}), i) for i, d in enumerate(settings.devices)]
    # One API a device, since LitServe lets the workers of an API take from one queue, where a cancellation finds the wrong one.
    apis = [EngineApi(stream=True, loop=loop, api_path=f"{_PATH}{i}") for i, loop in enumerate(loops)]
    server = Server(apis, accelerator="cpu", devices=1, timeout=False, disable_openapi_url=True)
    server._monitor_workers = False  # it tears down from a thread while the main one waits; `_watch` is simpler
    server.app.router.routes.clear()
    quiet_uvicorn()
    if requests is not None:
        server.app.add_middleware(InFlight, count=requests)
    engines = Engines([RemoteEngine(server, i) for i in range(len(apis))])
    if plugin is None:
        server.app.mount("/", create_app(engines, settings))
        return server
    server.app.mount("/", plugin.before(create_app(engines, settings.model_copy(update={"keys_file": None}))))
    own = server.app.router.lifespan_context

    @asynccontextmanager
    async def both(app: FastAPI) -> AsyncIterator[Any]:
        async with own(app) as state, plugin.lifespan():
            yield state

    server.app.router.lifespan_context = both
    return server


def serve(settings: Settings, plugin: Plugin | None = None, say: Callable[[str], None] = print) -> str | None:
    """Serve until SIGTERM or Ctrl-C, then let running requests finish. Returns why it ended, if that is an error.

    `say` prints a line for the user: when the model is ready, and what Ctrl-C waits for. Raises RequestError for an address that cannot be used.
    """
    began = time.monotonic()
    listening = listen(settings.host, settings.port, "FISHSERVE_PORT")
    listening.set_inheritable(True)
    health = settings.port_health if settings.port_health != settings.port else None
    if health:
        listen(settings.host, health, "FISHSERVE_PORT_HEALTH").close()
    url = url_of(settings.host, settings.port)
    with tempfile.TemporaryDirectory(prefix="fishserve-metrics-") as shared, _ctrl_c_for(_Ending(say)) as ending:
        os.environ[SHARED_DIRECTORY] = ending.folder = shared
        server = ending.server = build(settings, plugin, ending.requests)
        failure: list[str] = []

        def watch() -> None:
            if _wait_ready(server):
                ending.ready = True
                say(f"ready after {time.monotonic() - began:.0f} s: {url}")
            _watch(server, failure)

        threading.Thread(target=watch, daemon=True).start()
        if health:
            Pings(server, settings.host, health)
        # The handler runs in the main thread, which is inside a call to LitServe's manager; only another thread may call it.
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=ending.finish).start())
        # LitServe makes its socket itself, for three hosts only; it gets the one that is open already.
        with patch.object(uvicorn.Config, "bind_socket", lambda _: listening):
            server.run(
                host="127.0.0.1", port=_ANY_PORT, num_api_servers=1, generate_client_file=False, log_level="warning", access_log=False,
                http=HeaderTimeoutProtocol, ws=DrainingWebSocketProtocol,
            )  # fmt: skip
        return failure[0] if failure else None


class _Ending:
    """How the server ends: the first Ctrl-C or SIGTERM lets running requests finish, the next Ctrl-C, or one while it loads, does not."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.server: Server | None = None
        self.requests: Any = multiprocessing.Value("i", 0)
        """Requests that are being answered; the HTTP process counts them."""
        self.ready = False
        self.folder = ""
        """Of temporary files."""
        self._say, self._asked = say, False

    def finish(self) -> None:
        """Take no more requests, and end when those that run have ended."""
        self._asked = True
        if running := self.requests.value:
            self._say(f"Finishing {running} request{'s'[: running > 1]}; press Ctrl-C again to stop now")
        while (event := getattr(self.server, "_shutdown_event", None)) is None:
            time.sleep(0.05)
        event.set()

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        if not self._asked and (self.ready or self.requests.value):
            self.finish()
            return
        for process in multiprocessing.active_children():
            process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        os._exit(_INTERRUPTED)


@contextmanager
def _ctrl_c_for(ending: _Ending) -> Iterator[_Ending]:
    """Ctrl-C reaches every process of the group. It is blocked in this one and so in all that it starts; a thread here waits for it."""
    over = threading.Event()

    def wait() -> None:
        while not over.is_set():
            if signal.sigtimedwait({signal.SIGINT}, 0.5):
                threading.Thread(target=ending.interrupt, daemon=True).start()

    resource_tracker.ensure_running()  # when it starts, Python unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    threading.Thread(target=wait, daemon=True).start()
    try:
        yield ending
    finally:
        over.set()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Server(ls.LitServer):
    """A LitServer that ends quietly."""

    def _perform_graceful_shutdown(self, *arguments: Any, **named: Any) -> None:
        """LitServe waits as long as uvicorn does, and so kills it just as it ends; a few seconds more let it."""
        logging.getLogger("litserve").setLevel(logging.CRITICAL)
        self.uvicorn_graceful_timeout += _END_SECONDS
        super()._perform_graceful_shutdown(*arguments, **named)


class InFlight:
    """Counts requests and conversations while they are answered."""

    def __init__(self, app: ASGIApp, count: Any) -> None:
        self._app, self._count = app, count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        with self._count.get_lock():
            self._count.value += 1
        try:
            await self._app(scope, receive, send)
        finally:
            with self._count.get_lock():
                self._count.value -= 1


class Pings(ThreadingHTTPServer):
    """A second port that answers /ping alone, as RunPod's load balancer may ask for."""

    def __init__(self, server: Server, host: str, port: int) -> None:
        class Ping(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                try:
                    worst = next(s for s in ("failed", "loading", "ready") if s in _states(server))
                except (OSError, EOFError):
                    worst = "failed"
                self.send_response(PING[worst] if self.path.partition("?")[0] == "/ping" else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), Ping)
        threading.Thread(target=self.serve_forever, daemon=True).start()


def _wait_ready(server: Server) -> bool:
    """Wait until every device can speak. False when one of them failed or the server ends before."""
    while True:
        event = getattr(server, "_shutdown_event", None)
        try:
            states = _states(server)
            if event is not None and event.is_set():
                return False
        except (OSError, EOFError):  # the manager has ended
            return False
        if states <= {"ready"}:
            return True
        if "failed" in states:
            return False
        time.sleep(_LOOK_SECONDS)


def _states(server: Server) -> set[str]:
    """Loading, ready or failed, of the devices. Raises OSError or EOFError when LitServe's manager, which knows them, has ended."""
    shared = getattr(server, "workers_setup_status", {})
    return {shared.get(f"{_STATE}{i}", LOADING)["status"] for i in range(len(server.litapi_connector.lit_apis))}


def _watch(server: Server, failure: list[str]) -> None:
    """End the server when a device's process ends: without it the requests that are there would hang."""
    while len(getattr(server, "inference_workers", ())) < len(server.litapi_connector.lit_apis):
        time.sleep(0.1)
    workers = {worker.sentinel: number for number, worker in enumerate(server.inference_workers)}
    number = workers[wait(list(workers))[0]]
    with suppress(OSError, EOFError):  # the manager of what is asked here has ended: the server is ending
        if not server._shutdown_event.is_set():
            state = server.workers_setup_status.get(f"{_STATE}{number}", {})
            failure.append(state.get("error") or f"the engine's process ended with exit code {server.inference_workers[number].exitcode}")
            server.workers_setup_status[f"{_STATE}{number}"] = {"status": "failed", "error": failure[0]}
            server._shutdown_event.set()

"""Hosts the HTTP APIs and the engines on LitServe: one process for HTTP, one for each device.

Only this module and `litserve_engine` know LitServe.

LitServe starts the processes and moves messages between them. Its own routes are removed: they answer 200 to failed
streams and cannot cancel. The model is loaded after LitServe has begun to listen, so that a server
that is still loading is alive (/health) but not ready (/ready).
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from typing import Any, Protocol
from unittest.mock import patch

import litserve as ls
import litserve.server
import uvicorn
from fastapi import FastAPI
from litserve.utils import LitAPIStatus, ResponseBufferItem
from starlette.types import ASGIApp

from inference import tracing
from inference.errors import GenerationError
from inference.http.log import quiet_uvicorn
from inference.http.metrics import SHARED_DIRECTORY
from inference.http.protocols import HTTPProtocol
from inference.listening import listen, url_of
from inference.memory import giving_back
from inference.processes import forks_end_with_parent
from inference.server.app import create_app
from inference.server.health_port import health_port
from inference.server.litserve_engine import STATE, EngineApi, EngineLoop, run_engine
from inference.server.messages import LOADING, Message
from inference.server.remote_engine import Engines, RemoteEngine, Unread
from inference.server.shutdown import InFlight, Shutdown
from inference.server.sockets import DrainingWebSocketProtocol
from inference.settings import Settings
from inference.threads import SWITCH_SECONDS

_PATH = "/_engine"
_ANY_PORT = 8080  # LitServe requires a port from 1024 up; we open the socket ourselves
_END_SECONDS = 5
_POLL_SECONDS = 0.1


class LitServeChannel:
    """The channel from the HTTP process to a device's process, through LitServe's queues."""

    def __init__(self, server: Server, number: int) -> None:
        self._server, self._number = server, number

    def open(self, uid: str, unread: Unread) -> None:
        self._server.response_buffer[uid] = ResponseBufferItem(event=unread.arrived, response_queue=_Responses(unread))

    def close(self, uid: str) -> None:
        del self._server.response_buffer[uid]

    def put(self, uid: str, message: Message) -> None:
        requests = self._server._get_request_queue(f"{_PATH}{self._number}")
        requests.put((self._server.app.response_queue_id, uid, time.monotonic(), message))

    def state(self) -> dict[str, str]:
        return dict(self._server.workers_setup_status.get(f"{STATE}{self._number}", LOADING))


class _Responses:
    """Takes the responses that LitServe appends for a request."""

    def __init__(self, unread: Unread) -> None:
        self._unread = unread

    def append(self, response: tuple[Any, str]) -> None:
        item, status = response
        if status == LitAPIStatus.ERROR:
            item = _unpickled(item)
        self._unread.append(None if status == LitAPIStatus.FINISH_STREAMING else item)


def _unpickled(content: bytes) -> Exception:
    """Never raises: an exception here would stop LitServe from delivering any response."""
    try:
        return pickle.loads(content)
    except Exception as e:
        return GenerationError(f"the engine failed with an error that cannot be read: {type(e).__name__}")


class Server(ls.LitServer):
    """A LitServer that shuts down quietly and knows its HTTP processes."""

    http_processes: Sequence[BaseProcess] = ()
    answering: Event
    """Set by the HTTP process once it hears SIGTERM."""

    def verify_worker_status(self) -> None:
        """LitServe waits here until a device's process has started, for ever if that was killed; `_watch` notices, so nothing waits."""

    def launch_inference_worker(self, lit_api: ls.LitAPI) -> list[BaseProcess]:
        with patch.object(litserve.server, "inference_worker", run_engine):
            processes: list[BaseProcess] = super().launch_inference_worker(lit_api)
        return processes

    def _start_server(self, *arguments: Any, **named: Any) -> dict[int, BaseProcess]:
        workers: dict[int, BaseProcess] = super()._start_server(*arguments, **named)
        self.http_processes = list(workers.values())
        return workers

    def _perform_graceful_shutdown(self, *arguments: Any, **named: Any) -> None:
        """LitServe waits as long as uvicorn does, and so kills uvicorn just as it ends; a few more seconds let uvicorn finish.

        A SIGTERM that comes before uvicorn handles it would be lost, and LitServe would wait in vain.

        Raises EOFError or ConnectionError when LitServe's manager has ended: nothing can then end in order.
        """
        self._shutdown_event.is_set()  # asks the manager
        for _ in range(int(self.uvicorn_graceful_timeout / _POLL_SECONDS)):
            if self.answering.wait(_POLL_SECONDS) or not any(process.is_alive() for process in self.http_processes):
                break
        logging.getLogger("litserve").setLevel(logging.CRITICAL)
        self.uvicorn_graceful_timeout += _END_SECONDS
        super()._perform_graceful_shutdown(*arguments, **named)


class Plugin(Protocol):
    """An app in front of the server's own APIs, which then need no API keys."""

    keep_alive_seconds: int
    """In place of the server's own."""

    def before(self, doors: ASGIApp) -> ASGIApp:
        """The app that answers instead of `doors`."""
        ...

    def lifespan(self) -> AbstractAsyncContextManager[object]:
        """A context that lasts as long as the server's app."""
        ...


def build(settings: Settings, plugin: Plugin | None = None, requests: Any = None) -> Server:
    """A LitServer that answers on our routes alone. `requests` is a shared number that holds the count of running requests."""
    loops = [EngineLoop(settings.model_copy(update={"device": d}), i) for i, d in enumerate(settings.devices)]
    # One API for each device: LitServe's workers of one API share a queue, where a cancellation may reach the wrong worker.
    apis = [EngineApi(stream=True, loop=loop, api_path=f"{_PATH}{i}") for i, loop in enumerate(loops)]
    server = Server(apis, accelerator="cpu", devices=1, timeout=False, disable_openapi_url=True)
    server.answering = multiprocessing.Event()
    server._monitor_workers = False  # LitServe's monitor tears down from a thread while the main thread waits; `_watch` is simpler
    server.app.router.routes.clear()
    quiet_uvicorn()
    if requests is not None:
        server.app.add_middleware(InFlight, count=requests)
    engines = Engines([RemoteEngine(LitServeChannel(server, i)) for i in range(len(apis))])
    doors = create_app(engines, settings, guarded=plugin is not None)
    server.app.mount("/", plugin.before(doors) if plugin else doors)
    own = server.app.router.lifespan_context

    @asynccontextmanager
    async def all_of(app: FastAPI) -> AsyncIterator[Any]:
        server.answering.set()
        sys.setswitchinterval(SWITCH_SECONDS)
        doors.state.server.voices.start()  # in this process: threads do not survive a fork
        tracing.start()
        async with own(app) as state, plugin.lifespan() if plugin else nullcontext(), giving_back():
            yield state
        await asyncio.to_thread(tracing.stop)

    server.app.router.lifespan_context = all_of
    return server


def serve(settings: Settings, plugin: Plugin | None = None, say: Callable[[str], None] = print, *, pages: str) -> str | None:
    """Serve until SIGTERM or Ctrl-C, then let running requests finish. Returns the error that ended it, or None.

    `say` prints a line for the user: where it listens and what is there (`pages`), when the model is ready, and what Ctrl-C waits for.
    Raises ConfigurationError for an address that cannot be used.
    """
    began = time.monotonic()
    listening = listen(settings.host, settings.port, "FISHSERVE_PORT")
    listening.set_inheritable(True)
    health = settings.port_health if settings.port_health != settings.port else None
    if health:
        listen(settings.host, health, "FISHSERVE_PORT_HEALTH").close()
    url = url_of(settings.host, settings.port)
    shutdown = Shutdown(say)
    with tempfile.TemporaryDirectory(prefix="fishserve-metrics-") as shared, shutdown.on_ctrl_c():
        os.environ[SHARED_DIRECTORY] = shutdown.folder = shared
        say(f"loading; listening on {url}  ({pages})")  # not before: Python's own Ctrl-C is lost where it meets a destructor
        forks_end_with_parent()  # LitServe's manager and the HTTP process
        server = build(settings, plugin, shutdown.requests)
        shutdown.stop = lambda: _stop(server)
        failure: list[str] = []

        def announce() -> None:
            if _wait_ready(server):
                shutdown.ready = True
                say(f"ready after {time.monotonic() - began:.0f} s: {url}")

        threading.Thread(target=announce, daemon=True).start()
        threading.Thread(target=_watch, args=(server, failure), daemon=True).start()  # from the beginning: loading may need too much memory
        if health:
            health_port(settings.host, health, lambda: _status(server))
        # The handler runs in the main thread, which is inside a call to LitServe's manager; only another thread may call the manager.
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=shutdown.finish).start())
        # LitServe creates its socket itself, and accepts three hosts only; this gives it the socket that is already open.
        with patch.object(uvicorn.Config, "bind_socket", lambda _: listening):
            try:
                server.run(
                    host="127.0.0.1", port=_ANY_PORT, num_api_servers=1, generate_client_file=False, log_level="warning", access_log=False,
                    http=HTTPProtocol, ws=DrainingWebSocketProtocol, ws_per_message_deflate=False, ws_max_size=settings.max_upload_bytes,
                    timeout_keep_alive=(plugin or settings).keep_alive_seconds,
                )  # fmt: skip
            except (EOFError, ConnectionError):  # what LitServe's manager holds is gone
                failure.append("LitServe's manager process ended")
                for process in multiprocessing.active_children():
                    process.kill()
        return failure[0] if failure else None


def _stop(server: Server) -> None:
    """Tell LitServe to end."""
    with suppress(OSError, EOFError):  # LitServe's manager has ended, so the server ends anyway
        _shutdown_event(server).set()


def _shutdown_event(server: Server) -> Any:
    """What ends LitServe, once it has started: it cannot end before that."""
    while (event := getattr(server, "_shutdown_event", None)) is None:
        time.sleep(_POLL_SECONDS)
    return event


def _states(server: Server) -> set[str]:
    """The devices' states: loading, ready or failed. Raises OSError or EOFError when LitServe's manager, which holds them, has ended."""
    shared = getattr(server, "workers_setup_status", {})
    return {shared.get(f"{STATE}{i}", LOADING)["status"] for i in range(len(server.litapi_connector.lit_apis))}


def _status(server: Server) -> str:
    """The worst of the devices' states."""
    try:
        states = _states(server)
    except (OSError, EOFError):
        return "failed"
    return next(s for s in ("failed", "loading", "ready") if s in states)


def _wait_ready(server: Server) -> bool:
    """Wait until every device is ready. False when a device fails or the server ends first."""
    while True:
        event = getattr(server, "_shutdown_event", None)
        with suppress(OSError, EOFError):
            if event is not None and event.is_set():
                return False
        status = _status(server)
        if status != "loading":
            return status == "ready"
        time.sleep(_POLL_SECONDS)


def _watch(server: Server, failure: list[str]) -> None:
    """End the server when a device's process or the HTTP process ends; otherwise requests would hang."""
    ended: list[Any] = []
    while not ended:  # until LitServe has started them all, there are more to come
        processes = {p.sentinel: p for p in (*getattr(server, "inference_workers", ()), *server.http_processes)}
        ended = wait(list(processes), None if server.http_processes else _POLL_SECONDS)
    process = processes[ended[0]]
    process.join()
    with suppress(OSError, EOFError):  # LitServe's manager has ended: the server is ending
        if _shutdown_event(server).is_set():
            return
        if process in server.http_processes:
            failure.append(f"the HTTP process ended with exit code {process.exitcode}")
        else:
            key = f"{STATE}{server.inference_workers.index(process)}"
            error = server.workers_setup_status.get(key, {}).get("error")
            failure.append(error or f"the engine's process ended with exit code {process.exitcode}")
            server.workers_setup_status[key] = {"status": "failed", "error": failure[0]}
        _shutdown_event(server).set()

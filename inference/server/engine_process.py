"""The process of one device: it loads the model and answers the HTTP process's messages. It knows nothing of LitServe or HTTP."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from inference import tracing
from inference.audio.write import int16
from inference.engine.reading import LONG_TEXT
from inference.engine.request import Audio, MoreText, SpeechRequest
from inference.engine.watchdog import Watchdog
from inference.errors import FishserveError, GenerationError, Overloaded
from inference.hub import name_of
from inference.importing import without_collector
from inference.memory import Keeper
from inference.server.messages import LOADING, AppendText, Cancel, Chunk, Decode, Encode, LiveRequest, Message, State, WasRead
from inference.settings import Settings
from inference.threads import SWITCH_SECONDS

if TYPE_CHECKING:
    import numpy as np

    from inference.engine.engine import SpeechEngine
    from inference.engine.stream import RequestHandle

BEAT_SECONDS = 1.0
"""How often the process says that it is ready, so that one that hangs is noticed."""
MAX_CLIPS = 16
"""Clips that may wait to be encoded or decoded."""

Address = tuple[int, str]
"""Where an answer goes: the number of an HTTP process, and the request's uid there."""


class EngineProcess:
    """`inbox.get(timeout=…)` returns (HTTP process, uid, time, message). `send` takes an address and a chunk, at the end None or an error.

    `report` takes the state: loading, ready or failed.
    """

    def __init__(self, settings: Settings, inbox: Any, send: Callable[[Address, Any], None], report: Callable[[State], None]) -> None:
        self._settings, self._inbox, self._send, self._report = settings, inbox, send, report
        self._outbox: queue.SimpleQueue[tuple[Address, Any]] = queue.SimpleQueue()
        self._requests: dict[str, _Request] = {}
        self._preparing: Counter[str] = Counter()
        self._preparer = ThreadPoolExecutor(1, "fishserve-texts")
        self._lock = threading.Lock()

    def run(self) -> bool:
        """Load the model, then answer messages until the engine cannot continue.

        Returns False if the engine's thread hangs in the device: the process must end without waiting for it.
        """
        with without_collector():
            from inference.engine.startup import start_engine

        self._report(LOADING)
        sys.setswitchinterval(SWITCH_SECONDS)  # each frame is hundreds of short waits for Python, and long texts are prepared beside it
        tracing.start()
        try:
            engine = start_engine(self._settings, _say)
        except FishserveError as e:
            self._report({"status": "failed", "error": str(e)})
            return True
        threading.Thread(target=self._send_all, daemon=True).start()
        watchdog = Watchdog(engine)
        self._receive_all(engine, watchdog)
        error = f"{engine.checkpoint.device} does not answer" if watchdog.gave_up else engine.ending
        self._report({"status": "failed", "error": error})
        return not watchdog.gave_up

    def _send_all(self) -> None:
        """Send the answers, in a separate thread, so that the engine never waits for the HTTP process."""
        with suppress(OSError, EOFError):  # nobody is left who could get an answer
            while True:
                self._send(*self._outbox.get())

    def _receive_all(self, engine: SpeechEngine, watchdog: Watchdog) -> None:
        c = engine.checkpoint
        ready: State = {"status": "ready", "model": name_of(c.path), "device": str(c.device), "codec": c.codec_id, "slots": engine.slots}
        if engine.graphs:
            ready["graphs"] = engine.graphs
        codec_worker, keeper, looked = CodecWorker(engine, self._outbox), Keeper(), 0.0
        while engine.alive and not watchdog.gave_up:
            if time.monotonic() - looked >= BEAT_SECONDS:
                looked = time.monotonic()
                if not watchdog.look():
                    self._report({**ready, "at": looked})
            try:
                consumer, uid, _, message = self._inbox.get(timeout=BEAT_SECONDS)
            except queue.Empty:
                if not (self._requests or self._preparing):
                    keeper.look(settled=True)
                continue
            address = (consumer, uid)
            if isinstance(message, Encode | Decode):
                self._answer(address, partial(codec_worker.put, address, message))
            elif isinstance(message, Cancel) and codec_worker.cancel(uid):
                pass
            elif self._is_prepared_later(uid, message):
                self._answer(address, partial(self._prepare_later, engine, address, message))
            else:
                self._answer(address, partial(self._handle, engine, address, message))

    def _is_prepared_later(self, uid: str, message: Message) -> bool:
        """Whether a message is for the thread that prepares long texts, for which short ones need not wait.

        So are all messages that come for a request before it is done with them.
        """
        with self._lock:
            return uid in self._preparing or _length(message) > LONG_TEXT

    def _prepare_later(self, engine: SpeechEngine, address: Address, message: Message) -> None:
        """Raises Overloaded where the requests that are being prepared fill the queue: nobody should hear of that only when it is his turn."""
        with self._lock:
            if address[1] not in self._preparing:
                engine.check_open(True, len(self._preparing))
            self._preparing[address[1]] += 1
        self._preparer.submit(self._prepare, engine, address, message)

    def _prepare(self, engine: SpeechEngine, address: Address, message: Message) -> None:
        self._answer(address, partial(self._handle, engine, address, message))
        with self._lock:
            self._preparing -= Counter([address[1]])  # which keeps only those above zero

    def _answer(self, address: Address, work: Callable[[], None]) -> None:
        """Do the work; an error is its request's answer."""
        try:
            work()
        except FishserveError as e:
            self._outbox.put((address, e))
        except Exception as e:
            self._outbox.put((address, GenerationError(f"the request could not be started: {type(e).__name__}")))

    def _handle(self, engine: SpeechEngine, address: Address, message: Message) -> None:
        if isinstance(message, SpeechRequest | LiveRequest):
            self._start(engine, address, message)
        elif request := self._requests.get(address[1]):
            if isinstance(message, Cancel):
                request.handle.cancel()
            elif isinstance(message, WasRead):
                request.taken += message.chunks
                request.handle.was_read()
            elif isinstance(message, AppendText):
                _append(engine, request.handle, message.text)

    def _start(self, engine: SpeechEngine, address: Address, message: SpeechRequest | LiveRequest) -> None:
        _, uid = address
        request = _Request()

        def deliver(item: Audio | Exception | None) -> None:
            request.delivered += 1
            self._outbox.put((address, _packed(item) if isinstance(item, Audio) else item))
            if not isinstance(item, Audio):
                self._requests.pop(uid, None)

        speech = message.request if isinstance(message, LiveRequest) else message
        request.handle = engine.submit(speech, deliver, unread=request.unread, live=speech is not message)
        self._requests[uid] = request
        if request.handle.finish_reason:  # the request ended before it was stored
            self._requests.pop(uid, None)


class _Request:
    """A request that the engine has. The engine's thread counts what was `delivered`, the receiving thread what the client has `taken`."""

    handle: RequestHandle

    def __init__(self) -> None:
        self.delivered = self.taken = 0

    def unread(self) -> int:
        return self.delivered - self.taken


def _packed(chunk: Audio) -> np.ndarray | Chunk:
    samples = int16(chunk.samples)
    return Chunk(samples, chunk.words, chunk.guard) if chunk.words or chunk.guard else samples


def _length(message: Message) -> int:
    """The characters of text that a message holds."""
    if isinstance(message, LiveRequest):
        message = message.request
    text = message.text if isinstance(message, SpeechRequest | AppendText) else None
    return len(text.text if isinstance(text, MoreText) else text or "")


def _append(engine: SpeechEngine, handle: RequestHandle, text: str | MoreText | None) -> None:
    if text is None:
        engine.complete(handle)
        return
    try:
        engine.extend(handle, text)
    except FishserveError:
        handle.cancel()
        raise


class CodecWorker:
    """Encodes and decodes whole clips, one at a time, in a separate thread, so that speech does not wait for them."""

    def __init__(self, engine: SpeechEngine, outbox: queue.SimpleQueue[tuple[Address, Any]]) -> None:
        self._engine, self._outbox = engine, outbox
        self._inbox: queue.Queue[tuple[Address, Encode | Decode]] = queue.Queue(MAX_CLIPS)
        self._wanted: set[str] = set()
        threading.Thread(target=self._work, daemon=True).start()

    def put(self, address: Address, message: Encode | Decode) -> None:
        """Raises Overloaded when too many clips are waiting."""
        self._wanted.add(address[1])
        try:
            self._inbox.put_nowait((address, message))
        except queue.Full:
            self._wanted.remove(address[1])
            raise Overloaded(f"{MAX_CLIPS} clips are waiting to be encoded or decoded already; try again in a few seconds", 5) from None

    def cancel(self, uid: str) -> bool:
        """Skip a clip if it is still waiting. Returns whether it was."""
        waited = uid in self._wanted
        self._wanted.discard(uid)
        return waited

    def _work(self) -> None:
        while True:
            address, message = self._inbox.get()
            if not self.cancel(address[1]):
                continue
            try:
                done = self._engine.encode(message.wave) if isinstance(message, Encode) else self._engine.decode(message.codes).samples
                self._outbox.put((address, done))
                self._outbox.put((address, None))
            except FishserveError as e:
                self._outbox.put((address, e))
            except Exception as e:
                self._outbox.put((address, GenerationError(f"the clip could not be processed: {type(e).__name__}")))


def _say(sentence: str) -> None:
    """Print a line for whoever started the server."""
    print(sentence, file=sys.stderr, flush=True)

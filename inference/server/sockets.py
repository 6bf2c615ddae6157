"""What the WebSocket APIs share: messages read ahead, work that ends together, and the news that the server is ending."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, MutableMapping
from typing import Any, Generic, NoReturn, TypeVar, cast

from fastapi import WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ValidationError
from starlette.types import Scope

from inference.errors import RequestError
from inference.http.error_responses import complaint
from inference.http.protocols import WebSocketProtocol

MAX_UNREAD = 64
"""Messages that are read before they are needed; a client that has sent more waits."""
DRAINING = "fishserve.draining"
"""What the scope of a WebSocket may hold: an event that is set when the server is ending."""
MAX_JSON = 1_000_000
"""Characters in a JSON message: more than the longest text has, however it is escaped, and few enough values to hold."""
T = TypeVar("T")
Body = TypeVar("Body", bound=BaseModel)


class DrainingWebSocketProtocol(WebSocketProtocol):
    """A connection whose conversation learns that the server is ending: a running one may finish, an idle one ends."""

    async def run_asgi(self) -> None:
        """Run the conversation."""
        self._draining = asyncio.Event()
        cast("Scope", self.scope)[DRAINING] = self._draining
        await super().run_asgi()

    def shutdown(self) -> None:
        """The server is ending."""
        super().shutdown()
        if self.handshake_complete:
            self._draining.set()


class Inbox(Generic[T]):
    """The messages of a WebSocket. They are read ahead, so that a client that disconnects is noticed at once."""

    def __init__(self, socket: WebSocket, decode: Callable[[MutableMapping[str, Any]], T]) -> None:
        """`decode` turns an ASGI message into what `next` returns. It runs in a thread, and may raise RequestError."""
        self._socket, self._decode = socket, decode
        self._messages: asyncio.Queue[T] = asyncio.Queue(MAX_UNREAD)
        self._draining: asyncio.Event = socket.scope.get(DRAINING) or asyncio.Event()  # another server sets none

    async def read(self) -> NoReturn:
        """Read messages. Raises WebSocketDisconnect when the client disconnects, RequestError for a message that cannot be understood."""
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1005))
            await self._messages.put(await asyncio.to_thread(self._decode, message))

    async def next(self, seconds: float) -> T | None:
        """The next message, or None when none comes for so long."""
        try:
            async with asyncio.timeout(seconds):  # Python 3.11's wait_for loses a cancellation that arrives with a message
                return await self._messages.get()
        except TimeoutError:
            return None

    async def next_or_end(self, seconds: float) -> T | None:
        """As `next`, for a conversation that is idle: None also when the server is ending."""
        return cast("T | None", await race(self.next(seconds), self._until_draining()))

    async def _until_draining(self) -> None:
        await self._draining.wait()


def json_message(message: MutableMapping[str, Any], model: type[Body]) -> Body:
    """What an ASGI message holds in JSON. Raises RequestError."""
    content = message.get("text") or message.get("bytes") or ""
    if len(content) > MAX_JSON:
        raise RequestError(f"a message has more than {MAX_JSON:,} characters")
    try:
        return model.model_validate_json(content)
    except ValidationError as e:
        sentence, param = complaint(e.errors()[0])
        raise RequestError(sentence.replace("the request body", "the message"), param) from None


async def race(*work: Coroutine[Any, Any, Any]) -> Any:
    """The result, or the error, of what ends first; the rest is cancelled. Of several that have ended, the first one named counts."""
    tasks = [asyncio.ensure_future(w) for w in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task in done).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

"""One line for every request, on standard error: its outcome, never its text. JSON, except on a terminal, where people read it."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
import time
import traceback
import uuid
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from fastapi.responses import Response
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PROBES = frozenset(["/health", "/ready", "/ping", "/metrics", "/healthz", "/readyz"])
"""Machines request these every few seconds; they are not logged."""
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestLog:
    """Gives each request an id, and logs one line when the request has ended. A client may choose the id by `X-Request-Id`; the response
    carries it.

    An unexpected error is answered with 500 here, and the log line says where in the code it occurred. Its message, which may hold a user's
    text, is never written.
    """

    def __init__(self, app: ASGIApp, refuse: Callable[[str, int, str], Response]) -> None:
        self._app, self._refuse = app, refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        asked = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        request_id = asked if _ID.fullmatch(asked) else uuid.uuid4().hex
        line: dict[str, Any] = {"status": None, "client_gone": False, "bytes": 0}
        began, over = time.monotonic(), False

        async def noted(message: Message) -> None:
            nonlocal over
            if message["type"] == "http.response.start":
                line["status"] = message["status"]
                mark = request_id.encode()
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", mark), (b"request-id", mark)]
            elif message["type"] == "websocket.close":
                line["status"] = message.get("code", 1000)
            content = message.get("body") or message.get("bytes") or b""
            if content and "first_byte_ms" not in line:
                line["first_byte_ms"] = _ms(began)
            line["bytes"] += len(content)
            over = (
                over or message["type"] == "websocket.close" or (message["type"] == "http.response.body" and not message.get("more_body"))
            )
            await send(message)

        async def watched() -> Message:
            message = await receive()
            if message["type"] in ("http.disconnect", "websocket.disconnect") and not over:
                line["client_gone"] = True
            return message

        try:
            await self._app(scope, watched, noted)
        except ClientDisconnect:  # while it sent the body
            line["client_gone"] = True
        except Exception as e:
            line["error"] = {
                "type": type(e).__name__,
                "at": [f"{f.filename}:{f.lineno}" for f in traceback.extract_tb(e.__traceback__)][-8:],
            }
            if line["status"] is not None or scope["type"] == "websocket":
                raise  # abort the connection, so that no client takes a part for the whole
            words = f"an error inside the server ({type(e).__name__}); its log says more"
            await self._refuse(scope["path"], 500, words)(scope, watched, noted)
        finally:
            if "error" in line or scope["path"] not in PROBES:
                _write(scope, request_id, began, line)


def quiet_uvicorn() -> None:
    """Have uvicorn log that an error occurred, but not the error's content; and have its event loop end without a traceback.

    A loop that ends closes all generators at once, also those that others are closing: those say that they are already running.
    """

    def without_words(record: logging.LogRecord) -> bool:
        if isinstance(record.exc_info, tuple) and isinstance(record.exc_info[1], asyncio.CancelledError):
            return False  # a request cut off by the server's shutdown, which uvicorn has already logged
        record.exc_info = record.exc_text = None
        return True

    logging.getLogger("uvicorn.error").addFilter(without_words)
    logging.getLogger("asyncio").addFilter(_is_not_of_the_end)


def _is_not_of_the_end(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("an error occurred during closing of asynchronous generator")


def _write(scope: Scope, request_id: str, began: float, line: dict[str, Any]) -> None:
    entry = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "level": "error" if "error" in line else "info",
        "request_id": request_id,
        "method": scope.get("method", "WEBSOCKET"),
        "route": getattr(scope.get("route"), "path", None),  # as written in the code: a URL may hold a user's text
        **line,
        "duration_ms": _ms(began),
    }
    if "guard" in scope:
        entry["guard"] = asdict(scope["guard"])
    if "key" in scope:
        entry["key"] = scope["key"]
    print(readable(entry) if sys.stderr.isatty() else json.dumps(entry), file=sys.stderr, flush=True)


def readable(entry: dict[str, Any]) -> str:
    """An entry as a line for people: `20:12:01 POST /v1/audio/speech 200, 412.9 ms, first byte 38.1 ms, 61,440 bytes, key shop, id 4f0c`."""
    clock = datetime.fromisoformat(entry["time"]).astimezone().strftime("%H:%M:%S")
    details = [
        f"{clock} {entry['method']} {entry['route'] or 'unknown path'} {entry['status'] or 'no answer'}",
        f"{entry['duration_ms']} ms",
    ]
    if "first_byte_ms" in entry:
        details += [f"first byte {entry['first_byte_ms']} ms", f"{entry['bytes']:,} bytes"]
    if entry["client_gone"]:
        details.append("the client disconnected")
    if "guard" in entry:
        details.append(f"{entry['guard']['retries']} retries")
    if "key" in entry:
        details.append(f"key {entry['key']}")
    if "error" in entry:
        details.append(" at ".join([entry["error"]["type"], *entry["error"]["at"][-1:]]))
    return ", ".join([*details, f"id {entry['request_id']}"])


def _ms(began: float) -> float:
    return round(1000 * (time.monotonic() - began), 1)

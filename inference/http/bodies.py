"""Limits on request bodies: their size, the time they take to arrive, and how many values they hold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_SECONDS = 120
"""How long a request body may take to arrive."""
MAX_VALUES = 150_000
"""Values in a JSON body, or fields in a form: more than any text has commas. Each becomes an object of some 50 bytes to 1 kB."""
_COUNTED = {b"application/x-www-form-urlencoded": b"&"}
_UNCOUNTED = (b"multipart/", b"application/msgpack")


class BodyLimit:
    """Refuses request bodies over a limit with 413 before reading them whole.

    Paths with a prefix in `larger` have the limit `larger_limit`. A body may have as many values as `values` says, or `many` for its path.
    """

    def __init__(
        self, app: ASGIApp, limit: int, refuse: Callable[[str, int, str], Response], larger: tuple[str, ...] = (), larger_limit: int = 0,
        many: dict[str, int] | None = None, values: int = MAX_VALUES,
    ) -> None:  # fmt: skip
        self._app, self._limit, self._refuse, self._larger, self._larger_limit = app, limit, refuse, larger, larger_limit
        self._many, self._values = many or {}, values

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        deadline: float | None = asyncio.get_running_loop().time() + BODY_SECONDS
        size, limit = 0, self._larger_limit if scope.get("path", "").startswith(self._larger) else self._limit
        headers = dict(scope.get("headers", ()))
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        marks = b"" if kind.startswith(_UNCOUNTED) else _COUNTED.get(kind, b",[{")
        values, most = 0, self._many.get(scope.get("path", ""), self._values)
        message = f"the request body is larger than {limit:,} bytes"

        async def limited() -> Message:
            nonlocal size, values, deadline
            try:
                async with asyncio.timeout_at(deadline):
                    received = await receive()
            except TimeoutError:
                raise HTTPException(408, f"the request body took longer than {BODY_SECONDS} s") from None
            if not received.get("more_body"):
                deadline = None  # from here on it waits for the client's disconnect
            body = received.get("body", b"")
            size, values = size + len(body), values + sum(body.count(mark) for mark in marks)
            if size > limit:
                raise HTTPException(413, message)
            if values > most:
                raise HTTPException(413, f"the request body holds more than {most:,} values")
            return received

        declared = headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > limit:
            await self._refuse(scope["path"], 413, message)(scope, receive, send)
        else:
            await self._app(scope, limited if scope["type"] == "http" else receive, send)

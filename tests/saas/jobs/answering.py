"""A server on this machine that gives every request one answer."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer


@asynccontextmanager
async def answering(answer: Callable[[], tuple[int, Any]]) -> AsyncIterator[str]:
    """The server's address; `answer` gives the status and the JSON of each answer."""

    async def any_request(_: web.Request) -> web.Response:
        status, body = answer()
        return web.json_response(body, status=status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", any_request)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")

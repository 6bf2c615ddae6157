"""Rate limits as a FastAPI dependency."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from typing import Literal

from fastapi import Depends, Request

from saas.auth.caller import Caller, Scope
from saas.auth.dependencies import caller
from saas.state import AppState


@cache  # one function for each pair, so that FastAPI calls it once per request
def limited(kind: Literal["speech", "sensitive"], scope: Scope | None) -> Callable[..., Awaitable[Caller]]:
    """A dependency: as `caller(scope)`, but it also counts the request against the limit of `kind`."""

    # A default, not an annotation: annotations are text here, in which FastAPI does not find `scope`.
    async def counted(request: Request, state: AppState, caller: Caller = Depends(caller(scope))) -> Caller:  # noqa: B008
        await state.limiter.hit(kind, caller, request)
        return caller

    return counted

"""Rate limits as a FastAPI dependency."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from typing import Literal

from fastapi import Depends, Request

from saas.auth.caller import Caller, Scope
from saas.auth.dependencies import caller
from saas.state import AppState


@cache  # one function a pair, so that FastAPI asks it once a request
def limited(kind: Literal["speech", "sensitive"], scope: Scope | None) -> Callable[..., Awaitable[Caller]]:
    """A dependency: as `caller(scope)`, and counted as what it asks for."""

    # A default, not an annotation: those are read as text, in which FastAPI does not find `scope`.
    async def counted(request: Request, state: AppState, caller: Caller = Depends(caller(scope))) -> Caller:  # noqa: B008
        await state.limiter.hit(kind, caller, request)
        return caller

    return counted

"""Who may use the desk over HTTP: operators, in a session. For anybody else its routes are not there, whatever is sent to them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Request, Security
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Scope

from saas.auth.caller import Caller
from saas.auth.dependencies import BEARER, bearer
from saas.auth.tokens import SessionExpired
from saas.errors import ApiError
from saas.state import AppState, State, state_of

FRESH_SECONDS = 600
"""How long after a password an operator may move money."""


class OperatorRoute(APIRoute):
    """Finds the operator before it reads anything else of a request."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """No match for another method, for which there would be a 405."""
        match, child = super().matches(scope)
        return (match, child) if match is Match.FULL else (Match.NONE, {})

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answered(request: Request) -> Response:
            request.state.operator = await _operator(request, await state_of(request))
            return await handle(request)

        return answered


async def _operator(request: Request, state: State) -> Caller:
    """Raises the answer of a path that does not exist; ApiError 401 for an operator's session that has expired, 429, and 503."""
    role, token = state.settings.operator_role, bearer(request)
    try:
        found = await state.tokens.caller(token)
    except ApiError as e:
        if (isinstance(e, SessionExpired) and e.role == role) or e.status == 503:
            raise
        raise HTTPException(404) from None
    if not role or found.role != role:
        raise HTTPException(404)
    request.scope["key"] = str(found.user_id)
    await state.limiter.hit("any", found, request)
    return found


async def operator(request: Request, state: AppState, _: Annotated[Any, Security(BEARER)]) -> AsyncIterator[Caller]:
    """A dependency: the operator. The request counts among those that are open until its answer has been sent."""
    found: Caller = request.state.operator
    with state.limiter.open(found):
        yield found


async def acting(request: Request, state: AppState, found: Annotated[Caller, Depends(operator)]) -> Caller:
    """A dependency: the operator, for an act. Counts it."""
    await state.limiter.hit("sensitive", found, request)
    return found


async def moving_money(request: Request, state: AppState, found: Annotated[Caller, Depends(operator)]) -> Caller:
    """As `acting`, for what moves money or credits, or changes a price or a plan. Raises ApiError 403 where the password was given long ago."""
    ago = None if found.signed_in_at is None else time.time() - found.signed_in_at
    if ago is None or ago > FRESH_SECONDS:
        when = "at a time that this session does not tell" if ago is None else f"{int(ago // 60)} minutes ago"
        raise ApiError(
            403, f"you signed in {when}, and this needs a sign-in of the last {FRESH_SECONDS // 60} minutes: sign in again", "sign_in_again"
        )
    return await acting(request, state, found)

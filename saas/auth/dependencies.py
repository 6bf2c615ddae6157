"""Authentication as FastAPI dependencies: a route says `caller: Annotated[Caller, Depends(caller("speak"))]` and gets a caller or does not run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import cache
from typing import Annotated, Any
from uuid import UUID

from fastapi import Request, Security
from fastapi.security import HTTPBearer

from saas.auth.caller import KEY, Caller, Scope, hashed
from saas.database import Refused
from saas.errors import ApiError
from saas.state import AppState, State

BEARER = HTTPBearer(auto_error=False, scheme_name="bearer", description="A session token, or an API key: fsk_...")
"""For the OpenAPI document alone: `identify` reads the header itself."""
_CHALLENGE = {"WWW-Authenticate": "Bearer"}


@cache  # one function for each scope, so that FastAPI calls it once per request
def caller(scope: Scope | None) -> Callable[..., AsyncIterator[Caller]]:
    """A dependency: the caller, who must have `scope`. None accepts only a session, not an API key.

    The request counts among those that the caller has open until its answer has been sent.
    """

    async def asked(request: Request, state: AppState, _: Annotated[Any, Security(BEARER)]) -> AsyncIterator[Caller]:
        found = await identify(request, state)
        if scope is None and found.key_id is not None:
            raise ApiError(403, "an API key cannot do this; sign in to do it", "session_needed")
        if scope is not None and scope not in found.scopes:
            allowed = ", ".join(sorted(found.scopes)) or "nothing"
            raise ApiError(403, f"this key may not {scope!r}, but {allowed}; make one that may", "scope_missing")
        with state.limiter.open(found):
            yield found

    return asked


def bearer(request: Request) -> str:
    """The token or key in `Authorization: Bearer ...`; empty where there is none."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


async def identify(request: Request, state: State) -> Caller:
    """The caller of a request, by key or session. Raises ApiError 401 and 429."""
    token = bearer(request) or request.headers.get("xi-api-key", "").strip()
    if not token:
        raise ApiError(
            401,
            "authentication required: send an API key or a session token as `Authorization: Bearer ...`",
            "unauthenticated",
            headers=_CHALLENGE,
        )
    found = await (_by_key(token, state, request) if token.startswith("fsk_") else state.tokens.caller(token))
    request.scope["key"] = str(found.key_id or found.user_id)  # for the log: an id, which grants no access
    await state.limiter.hit("any", found, request)
    return found


async def _by_key(token: str, state: State, request: Request) -> Caller:
    parts = KEY.fullmatch(token)
    if parts is None:
        raise ApiError(401, "this is no key of ours: they look like fsk_0123456789ab_...", "invalid_key", headers=_CHALLENGE)
    address = state.limiter.address(request)
    await state.limiter.may_try(address)  # nobody can guess a key, but each guess costs a database query
    try:
        found = await state.accounts.owner_of_key(parts[1], hashed(parts[2]), state.limiter.host(request))
    except Refused as e:
        if e.status == 403:
            raise ApiError(403, e.message, "network_not_allowed") from None
        await state.limiter.failed(address)
        raise ApiError(e.status, e.message, "invalid_key", headers=_CHALLENGE if e.status == 401 else None) from None
    return Caller(UUID(found["user_id"]), UUID(found["key_id"]), frozenset(found["scopes"]), None)

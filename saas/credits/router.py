"""/api/credits, /api/usage and /api/estimate."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from saas.auth.caller import Caller
from saas.auth.dependencies import caller
from saas.credits.schemas import Credits, Day, Entry, Estimate, Text
from saas.errors import ApiError
from saas.state import AppState

Reader = Annotated[Caller, Depends(caller("read"))]


router = APIRouter(prefix="/api", tags=["credits"])


@router.get("/credits")
async def balance(state: AppState, caller: Reader) -> Credits:
    """Your balance and debt."""
    return await state.credits.balance(caller.user_id)


@router.get("/credits/ledger")
async def ledger(
    state: AppState,
    caller: Reader,
    before: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> list[Entry]:
    """Every change of your balance, the newest first. `before` an entry's id: only older entries."""
    return await state.credits.ledger(caller.user_id, before, limit)


@router.get("/usage")
async def usage(state: AppState, caller: Reader, days: Annotated[int, Query(ge=1, le=366)] = 30, key_id: UUID | None = None) -> list[Day]:
    """The speech you generated, per day: all of it, or that of one of your keys."""
    return await state.credits.usage(caller.user_id, days, key_id)


@router.post("/estimate")
async def estimate(body: Text, state: AppState, _: Reader) -> Estimate:
    """The most that a text can cost."""
    if len(body.text) > state.settings.max_characters:
        raise ApiError(
            400, f"the text has {len(body.text):,} characters; it may have {state.settings.max_characters:,}", "text_too_long", "text"
        )
    return await state.credits.estimate(body.text, body.speed)

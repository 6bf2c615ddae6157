"""/api/me/documents and /api/reports."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request

from saas.auth.caller import Caller
from saas.auth.dependencies import caller, identify
from saas.auth.turnstile import HEADER
from saas.legal.schemas import Accepted, Documents, Report, ReportWanted
from saas.state import AppState

router = APIRouter(prefix="/api", tags=["legal"])
SignedIn = Annotated[Caller, Depends(caller(None))]
Reader = Annotated[Caller, Depends(caller("read"))]


@router.get("/me/documents")
async def documents(state: AppState, caller: Reader) -> Documents:
    """The current terms and privacy policy, and whether you have accepted them."""
    return Documents(documents=await state.legal.of(caller.user_id), required=state.legal.required)


@router.post("/me/documents")
async def accept(body: Accepted, state: AppState, caller: SignedIn) -> Documents:
    """Accept the terms, the privacy policy, or both, in the versions that you have read."""
    return Documents(documents=await state.legal.accept(caller.user_id, body.versions), required=state.legal.required)


@router.post("/reports", status_code=201)
async def report(
    body: ReportWanted, state: AppState, request: Request, person: Annotated[str | None, Header(alias=HEADER)] = None
) -> Report:
    """Report speech or a voice. Anybody may, without an account; the operator of this service looks at it.

    Send a session or a key to have the report among your data. If the app uses Turnstile, send its token.
    """
    user_id = (await identify(request, state)).user_id if request.headers.get("authorization") else None
    await state.limiter.hit_report(request)
    if state.turnstile is not None:
        await state.turnstile.verify(person, "report")
    return Report.model_validate({"id": await state.legal.report(body.kind, body.subject, body.details, body.contact or None, user_id)})

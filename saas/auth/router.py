"""/api/me, /api/keys and /api/config."""

from __future__ import annotations

from typing import Annotated, get_args
from uuid import UUID

from fastapi import APIRouter, Depends, Header
from fastapi.responses import Response, StreamingResponse

from saas.auth.caller import Caller, new_key
from saas.auth.dependencies import caller
from saas.auth.export import Export
from saas.auth.schemas import Config, Consent, Key, KeyWanted, Limits, NewKey, Profile, ProfileChange
from saas.auth.turnstile import HEADER
from saas.billing.schemas import Plan
from saas.jobs.schemas import Format
from saas.legal.service import current
from saas.limits.dependencies import limited
from saas.state import AppState
from saas.voices import consent

SignedIn = Annotated[Caller, Depends(caller(None))]
Sensitive = Annotated[Caller, Depends(limited("sensitive", None))]


router = APIRouter(prefix="/api", tags=["account"])


@router.get("/config")
async def config(state: AppState) -> Config:
    """The configuration that the app needs before a user signs in."""
    s = state.settings
    packs, plans = await state.payments.shop() if state.payments else ([], [])
    return Config(
        supabase_url=s.supabase_url, supabase_key=s.supabase_publishable_key,
        turnstile_site_key=s.turnstile_site_key if state.turnstile else None, formats=list(get_args(Format)),
        limits=Limits(characters=s.max_characters, speech_per_minute=s.speech_per_minute),
        packs=[dict(pack) for pack in packs], plans=[Plan.model_validate(plan) for plan in plans], model=s.model,
        documents=current(s), consent=Consent(version=consent.VERSION, wording=consent.WORDING),
    )  # fmt: skip


@router.get("/me")
async def me(state: AppState, caller: Annotated[Caller, Depends(caller("read"))]) -> Profile:
    """The caller's profile."""
    return Profile.model_validate(await state.accounts.profile(caller.user_id))


@router.patch("/me")
async def change(body: ProfileChange, state: AppState, caller: SignedIn) -> Profile:
    """Change the display name."""
    return Profile.model_validate(await state.accounts.rename(caller.user_id, body.display_name))


@router.get("/me/export", response_class=Response, responses={200: {"content": {"application/zip": {}}}})
async def export(state: AppState, caller: Sensitive) -> StreamingResponse:
    """Everything this service holds of you, as a ZIP: profile, ledger, jobs, voices with their clips, payments, keys, usage, what you
    agreed to and what you reported.

    Results are not in it: a job whose `audio_kept` is true gives its file at `GET /api/jobs/{id}`.
    """
    await state.accounts.profile(caller.user_id)  # a closed account has nothing left
    named = {"Content-Disposition": 'attachment; filename="my-data.zip"'}
    return StreamingResponse(aiter(Export(state.accounts, state.bucket, caller.user_id)), media_type="application/zip", headers=named)


@router.delete("/me", status_code=204)
async def close(state: AppState, caller: Sensitive) -> None:
    """Close the account: subscriptions and running jobs end, all voices and results are deleted, and the remaining ledger entries name nobody."""
    if state.payments is not None:
        await state.payments.end(caller.user_id)
    await state.accounts.close(caller.user_id)


@router.get("/keys")
async def keys(state: AppState, caller: SignedIn) -> list[Key]:
    """The API keys that are valid."""
    return [Key.model_validate(key) for key in await state.accounts.keys(caller.user_id)]


@router.post("/keys", status_code=201)
async def add_key(
    body: KeyWanted, state: AppState, caller: Sensitive, person: Annotated[str | None, Header(alias=HEADER)] = None
) -> NewKey:
    """Create an API key, which is shown only in this answer. If the app uses Turnstile, send its token."""
    if state.turnstile is not None:
        await state.turnstile.verify(person, "create-key")
    prefix, secret, hashed = new_key()
    made = await state.accounts.add_key(
        caller.user_id, body.name, prefix, hashed, sorted(set(body.scopes)), body.expires_at, body.monthly_credits, body.networks
    )
    return NewKey(key=Key.model_validate(made), secret=secret)


@router.delete("/keys/{key_id}", status_code=204)
async def revoke(key_id: UUID, state: AppState, caller: SignedIn) -> None:
    """Revoke an API key. It stops working at once."""
    await state.accounts.revoke_key(caller.user_id, key_id)

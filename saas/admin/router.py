"""/api/admin: the desk for the app's pages. Every act takes a reason, and is recorded with the operator's address."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query

from inference.errors import ConfigurationError
from saas.admin import schemas as s
from saas.admin.access import OperatorRoute, acting, moving_money, operator
from saas.admin.repository import Operator, Row
from saas.auth.caller import Caller
from saas.billing.refunds import RefundRefused
from saas.errors import ApiError
from saas.state import AppState

router = APIRouter(prefix="/api/admin", tags=["desk"], route_class=OperatorRoute)
Looker = Annotated[Caller, Depends(operator)]
Actor = Annotated[Caller, Depends(acting)]
MoneyMover = Annotated[Caller, Depends(moving_money)]
Limit = Annotated[int, Query(ge=1, le=1000, description="How many, the newest first.")]
OlderThan = Annotated[int | None, Query(ge=1, le=2**63 - 1, description="Only what is older than the row with this id.")]
Before = Annotated[datetime | None, Query(description="Only what is older.")]
User = Annotated[UUID | None, Query(description="Only this user's.")]
Words = Annotated[str, Query(max_length=320, pattern=r"^[^\x00]*$")]
Payment = Annotated[str, Path(max_length=255, pattern=r"^\w+$")]


def _name(caller: Caller) -> str:
    """The operator's name in the record: the address, which Supabase has seen confirmed, or the id."""
    return caller.email if caller.email and len(caller.email) <= 100 else str(caller.user_id)


def _by(caller: Caller, act: s.Act) -> Operator:
    return Operator(_name(caller), act.reason)


# -- looks ---------------------------------------------------------------------------------------------------------------------------


@router.get("")
async def me(caller: Looker) -> s.DeskMe:
    """Who you are at the desk."""
    return s.DeskMe(operator=_name(caller))


@router.get("/users", response_model=list[s.DeskUser])
async def users(state: AppState, _: Looker, search: Words = "", limit: Limit = 50) -> list[Row]:
    """Users whose address contains `search`; where there are none, the one with that id, Stripe customer, API key, job or payment."""
    return await state.desk.users(search, limit)


@router.get("/account", response_model=s.DeskAccount)
async def account(state: AppState, _: Looker, who: Words, limit: Limit = 10) -> Row:
    """The account of the user with this id, address, Stripe customer, API key, job or payment."""
    return await state.desk.account(who, limit)


@router.get("/ledger", response_model=list[s.DeskEntry])
async def ledger(state: AppState, _: Looker, user_id: User = None, before: OlderThan = None, limit: Limit = 50) -> list[Row]:
    """Entries of the ledger."""
    return await state.desk.look.ledger(_text(user_id), before, limit)


@router.get("/jobs", response_model=list[s.DeskJob])
async def jobs(
    state: AppState, _: Looker, user_id: User = None, status: s.JobStatus | None = None, before: Before = None, limit: Limit = 50
) -> list[Row]:
    """Jobs, without their texts."""
    return await state.desk.look.jobs(_text(user_id), status, before, limit)


@router.get("/jobs/{job_id}", response_model=s.DeskJobPage)
async def job(state: AppState, _: Looker, job_id: UUID) -> Row:
    """A job, its entries of the ledger, and what operators did to it."""
    return await state.desk.job(job_id)


@router.get("/payments", response_model=list[s.DeskPayment])
async def payments(state: AppState, _: Looker, user_id: User = None, before: Before = None, limit: Limit = 50) -> list[Row]:
    """Payments, with their refunds and disputes."""
    return await state.desk.look.payments(_text(user_id), before, limit)


@router.get("/revenue", response_model=list[s.DeskRevenue])
async def revenue(state: AppState, _: Looker, days: Annotated[int, Query(ge=1, le=3660)] = 30) -> list[Row]:
    """Money by day (UTC) and currency."""
    return await state.desk.revenue(days)


@router.get("/queue", response_model=s.DeskQueue)
async def queue(state: AppState, _: Looker) -> Row:
    """Jobs that wait and run, and whose they are."""
    return await state.desk.look.queue()


@router.get("/workers", response_model=s.DeskWorkers)
async def workers(state: AppState, _: Looker, minutes: Annotated[int, Query(ge=1, le=100_000)] = 60) -> Row:
    """What became of each backend's jobs in the last minutes, and what the backend says of itself."""
    return await state.desk.workers(minutes)


@router.get("/prices", response_model=s.DeskPrices)
async def prices(state: AppState, _: Looker) -> Row:
    """Every price of a second of speech, the packs of credits, and the plans."""
    return await state.desk.look.prices()


@router.get("/actions", response_model=list[s.DeskAct])
async def actions(
    state: AppState, _: Looker, target: Words | None = None, user_id: User = None, before: OlderThan = None, limit: Limit = 50
) -> list[Row]:
    """What operators did, and why. `target`: the id of a user, job, payment or price."""
    return await state.desk.look.actions(target, _text(user_id), before, limit)


# -- acts ----------------------------------------------------------------------------------------------------------------------------


@router.post("/users/{user_id}/grant", response_model=s.Moved)
async def grant(state: AppState, caller: MoneyMover, user_id: UUID, body: s.Move) -> Row:
    """Give a user credits."""
    return await state.desk.act.grant(_by(caller, body), str(user_id), body.credits, _once(body))


@router.post("/users/{user_id}/take", response_model=s.Moved)
async def take(state: AppState, caller: MoneyMover, user_id: UUID, body: s.Move) -> Row:
    """Take credits from a user, at most the balance."""
    return await state.desk.act.take(_by(caller, body), str(user_id), body.credits, _once(body))


@router.post("/users/{user_id}/plan", response_model=s.PlanSet)
async def set_plan(state: AppState, caller: MoneyMover, user_id: UUID, body: s.SetPlan) -> Row:
    """Give a user a plan, until a subscription begins, changes or ends."""
    return await state.desk.act.set_plan(_by(caller, body), str(user_id), body.plan)


@router.post("/users/{user_id}/suspend", response_model=s.Suspended)
async def suspend(state: AppState, caller: Actor, user_id: UUID, body: s.Suspend) -> Row:
    """Let an account spend nothing. Its waiting jobs end and cost nothing."""
    return await state.desk.suspend(_by(caller, body), str(user_id), body.days)


@router.post("/users/{user_id}/unsuspend", response_model=s.Unsuspended)
async def unsuspend(state: AppState, caller: Actor, user_id: UUID, body: s.Act) -> Row:
    """Lift a suspension."""
    return await state.desk.act.unsuspend(_by(caller, body), str(user_id))


@router.post("/users/{user_id}/revoke-keys", response_model=s.Revoked)
async def revoke_keys(state: AppState, caller: Actor, user_id: UUID, body: s.RevokeKeys) -> Row:
    """Revoke one of a user's API keys, or all, at once and for ever."""
    return await state.desk.act.revoke_keys(_by(caller, body), str(user_id), body.key_id)


@router.post("/jobs/{job_id}/cancel", response_model=s.JobDone)
async def cancel_job(state: AppState, caller: MoneyMover, job_id: UUID, body: s.Act) -> Row:
    """End a job. Its user pays for no more than was heard."""
    return await state.desk.cancel(_by(caller, body), job_id)


@router.post("/jobs/{job_id}/retry", response_model=s.JobDone)
async def retry_job(state: AppState, caller: MoneyMover, job_id: UUID, body: s.Act) -> Row:
    """Speak the text of a job that failed, was cancelled or expired, as a new job that its user pays for."""
    return await state.desk.retry(_by(caller, body), job_id)


@router.post("/payments/{payment}/refund", response_model=s.Refunded)
async def refund(state: AppState, caller: MoneyMover, payment: Payment, body: s.Refund) -> Row:
    """Give a payment's money back at Stripe, and take the credits that it bought. Asked for again after a lost answer, it is made once."""
    try:
        return await state.desk.refund(_by(caller, body), payment, body.cents, body.returned_cents)
    except RefundRefused as e:
        raise ApiError(409, str(e), "refund_refused") from None
    except ConfigurationError as e:
        raise ApiError(409, str(e), "no_payments") from None


@router.post("/prices", response_model=s.PriceSet)
async def set_price(state: AppState, caller: MoneyMover, body: s.SetPrice) -> Row:
    """Set the price of what is sold from now on. Jobs that wait keep theirs."""
    return await state.desk.act.set_price(_by(caller, body), repr(body.credits_per_second), body.minimum, body.name)


def _text(user_id: UUID | None) -> str | None:
    return None if user_id is None else str(user_id)


def _once(body: s.Move) -> str:
    return body.reference or f"desk {secrets.token_hex(6)}"

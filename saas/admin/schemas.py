"""Request and response schemas of /api/admin."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Line = r"^[^\x00-\x1f]*$"
Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500, pattern=Line)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100, pattern=Line)]
JobStatus = Literal["queued", "running", "succeeded", "failed", "cancelled", "expired"]


class DeskMe(BaseModel):
    """Who you are at the desk, as the record of acts will name you."""

    operator: str


class DeskUser(BaseModel):
    """A user."""

    id: UUID
    email: str | None
    display_name: str | None
    plan: str
    balance: int
    debt: int
    stripe_customer: str | None
    created_at: datetime
    closed_at: datetime | None
    suspended_until: datetime | None


class DeskProfile(DeskUser):
    """A user, with the jobs by their status, the credits that open jobs have reserved, and the voices that are ready."""

    jobs: dict[str, int]
    reserved: int
    voices: int


class DeskEntry(BaseModel):
    """An entry of the ledger."""

    id: int
    user_id: UUID
    email: str | None = None
    kind: str
    amount: int
    balance_after: int
    job_id: UUID | None
    reference: str | None
    created_at: datetime


class DeskJob(BaseModel):
    """A job, without its text."""

    id: UUID
    user_id: UUID
    email: str | None = None
    status: JobStatus
    characters: int
    seconds: float | None
    reserved: int
    charged: int
    partial: bool
    backend: str | None
    attempts: int
    error: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class DeskReturn(BaseModel):
    """A refund or a dispute of a payment; one that was undone failed, or was won."""

    id: str
    kind: str
    cents: int
    undone: bool
    created_at: datetime


class DeskPayment(BaseModel):
    """A payment, in the smallest unit of its currency, with the money that went back and the credits that were taken back for it."""

    reference: str
    user_id: UUID
    email: str | None
    amount_cents: int
    returned_cents: int
    currency: str | None
    credits: int
    taken: int
    pack: str | None
    receipt_url: str | None
    created_at: datetime
    returns: list[DeskReturn]


class DeskKey(BaseModel):
    """An API key, without its secret."""

    id: UUID
    name: str
    prefix: str
    scopes: list[str]
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    created_at: datetime


class DeskAct(BaseModel):
    """What an operator did, and why."""

    id: int
    actor: str
    action: str
    target: str
    user_id: UUID | None
    reason: str
    details: dict[str, Any]
    at: datetime


class DeskAccount(BaseModel):
    """A user's account."""

    user: DeskProfile
    ledger: list[DeskEntry]
    jobs: list[DeskJob]
    payments: list[DeskPayment]
    keys: list[DeskKey]
    actions: list[DeskAct]


class DeskJobPage(BaseModel):
    """A job, its entries of the ledger, and what operators did to it."""

    job: DeskJob
    ledger: list[DeskEntry]
    actions: list[DeskAct]


class DeskRevenue(BaseModel):
    """Money of a day (UTC) in one currency, in its smallest unit."""

    day: date
    currency: str
    payments: int
    paid_cents: int
    refunded_cents: int
    disputed_cents: int
    net_cents: int
    credits: int


class DeskWaiting(BaseModel):
    """A user's jobs that have not ended."""

    user_id: UUID
    email: str | None
    waiting: int
    running: int
    reserved: int


class DeskQueue(BaseModel):
    """Jobs that wait and run. `lapsed`: their process has not been heard of. `oldest_seconds`: since when the oldest waits."""

    waiting: int
    running: int
    lapsed: int
    oldest_seconds: float
    users: list[DeskWaiting]


class DeskBackend(BaseModel):
    """What became of the jobs of a backend."""

    backend: str
    running: int
    lapsed: int
    succeeded: int
    failed: int
    cancelled: int
    expired: int
    retried: int
    audio_seconds: float
    median_seconds: float | None
    last_success: datetime | None


class DeskWorkers(BaseModel):
    """What became of the jobs of each backend, and what the backend says of itself."""

    jobs: list[DeskBackend]
    backend: dict[str, Any]


class DeskPrice(BaseModel):
    """A price of a second of speech."""

    id: int
    name: str
    credits_per_second: float
    minimum: int
    characters_per_second: float
    active: bool
    created_at: datetime


class DeskPack(BaseModel):
    """A pack of credits."""

    id: str
    credits: int
    amount_cents: int
    currency: str
    active: bool


class DeskPlan(BaseModel):
    """A plan. A limit that is null is that of everybody."""

    id: str
    name: str
    stripe_price: str | None
    amount_cents: int | None
    currency: str
    period: str
    credits: int
    weight: float
    max_running: int | None
    max_waiting: int | None
    per_minute: int | None
    max_characters: int | None
    max_voices: int | None
    result_days: int | None
    active: bool


class DeskPrices(BaseModel):
    """Every price that ever was, the newest first, and all packs and plans."""

    prices: list[DeskPrice]
    packs: list[DeskPack]
    plans: list[DeskPlan]


class Act(BaseModel):
    """An act. An unknown field is an error."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason = Field(description="Why, for the record.")


class Move(Act):
    """Credits to give or to take."""

    credits: int = Field(ge=1, le=10**12)
    reference: Name | None = Field(None, description="The same reference moves credits once; null: each request does.")


class Suspend(Act):
    """A suspension."""

    days: int | None = Field(None, ge=1, le=36_500, description="For so long; null: until it is lifted.")


class SetPlan(Act):
    """Another plan."""

    plan: Name


class RevokeKeys(Act):
    """Keys to revoke."""

    key_id: UUID | None = Field(None, description="Only this one; null: all of the user's.")


class Refund(Act):
    """Money to give back."""

    cents: int | None = Field(None, ge=1, le=10**12, description="In the currency's smallest unit; null: all that is left.")
    returned_cents: int | None = Field(
        None, ge=0, le=10**12, description="As much as you saw to have gone back; if it is another sum by now, nothing is refunded."
    )


class SetPrice(Act):
    """The price of what is sold from now on. What is null stays as it is."""

    credits_per_second: float = Field(ge=0, le=1_000_000)
    minimum: int | None = Field(None, ge=0, le=10**9, description="The least that a job costs.")
    name: Name | None = None


class Moved(BaseModel):
    """`applied`: false where the reference was used before."""

    balance: int
    applied: bool


class Suspended(BaseModel):
    """A suspension, and how many waiting jobs it ended."""

    suspended_until: datetime
    ended_jobs: int


class Unsuspended(BaseModel):
    """A suspension that was lifted."""

    user_id: UUID


class PlanSet(BaseModel):
    """The plan, and the one before."""

    plan: str
    before: str


class Revoked(BaseModel):
    """Prefixes of the keys that were revoked."""

    revoked: list[str]


class JobDone(BaseModel):
    """The job, and its user's balance."""

    job: DeskJob
    balance: int


class Refunded(BaseModel):
    """Stripe's refund, the credits that the payment has lost in all, and what its user has."""

    refund: str
    cents: int
    currency: str | None
    credits: int
    balance: int
    debt: int


class PriceSet(BaseModel):
    """The new price."""

    price: DeskPrice

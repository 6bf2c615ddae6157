"""Request and response schemas of /api/credits, /api/usage and /api/estimate."""

from __future__ import annotations

from datetime import date, datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field


class Credits(BaseModel):
    """A user's balance and debt. Debt is the part of a refund whose credits were already spent; the next credits repay it."""

    balance: int
    debt: int


class Entry(BaseModel):
    """One line of the ledger."""

    id: int
    kind: str
    amount: int
    balance_after: int
    job_id: UUID | None
    reference: str | None
    receipt_url: str | None = None
    created_at: datetime


class Day(BaseModel):
    """The speech generated on one day, in UTC."""

    day: date
    jobs: int
    characters: int
    seconds: float
    credits: int


class Text(BaseModel):
    """A text to price."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(pattern=r"^[^\x00]*$")
    speed: float = Field(1.0, ge=0.25, le=4)


class Estimate(BaseModel):
    """The most that a text can cost, and its approximate duration."""

    credits: int
    seconds: float
    characters: int

"""Request and response schemas of /api/billing/checkout."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Wanted(BaseModel):
    """A pack of credits, by its id."""

    model_config = ConfigDict(extra="forbid")

    pack: str


class Checkout(BaseModel):
    """The address of the payment page."""

    url: str

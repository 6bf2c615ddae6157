"""Request and response schemas of /api/webhooks."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Event = Literal["job.succeeded", "job.failed", "credits.low", "voice.ready"]
Address = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]


class WebhookWanted(BaseModel):
    """Where deliveries go, and which events they tell of."""

    model_config = ConfigDict(extra="forbid")

    url: Address = Field(description="An https address on the public internet. Redirects are not followed.")
    events: list[Event] = Field(min_length=1, max_length=4)


class Webhook(BaseModel):
    """A webhook, without its secret."""

    id: UUID
    url: str
    events: list[str]
    waiting: int = Field(description="Deliveries that are still to be made.")
    delivered_at: datetime | None = Field(description="When a delivery arrived last.")
    disabled_at: datetime | None = Field(description="When deliveries had failed for three days; a test that succeeds enables it again.")
    created_at: datetime


class NewSecret(BaseModel):
    """A webhook with its secret, which is shown only in this answer."""

    webhook: Webhook
    secret: str = Field(description="`whsec_...`: verifies deliveries as Standard Webhooks describes. It is shown only once.")


class Delivery(BaseModel):
    """A delivery of the log. `outcome` is null while there is another attempt."""

    id: UUID = Field(description="The header `webhook-id`, the same in all attempts.")
    event: str
    attempts: int
    outcome: Literal["delivered", "failed"] | None
    status: int | None = Field(description="HTTP status of the last attempt; null: there was no answer.")
    error: str | None = Field(description="Why the last attempt failed.")
    milliseconds: int | None = Field(description="How long the last attempt took.")
    next_at: datetime = Field(description="When the next attempt is due, while `outcome` is null.")
    finished_at: datetime | None
    created_at: datetime

"""/api/webhooks: where a customer's deliveries go, and the log of them."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends
from pydantic import AwareDatetime

from saas.auth.caller import Caller
from saas.auth.dependencies import caller
from saas.limits.dependencies import limited
from saas.state import AppState
from saas.webhooks.schemas import Delivery, NewSecret, Webhook, WebhookWanted
from saas.webhooks.service import new_secret

SignedIn = Annotated[Caller, Depends(caller(None))]
Sensitive = Annotated[Caller, Depends(limited("sensitive", None))]

router = APIRouter(prefix="/api/webhooks", tags=["webhooks"])


@router.get("")
async def webhooks(state: AppState, caller: SignedIn) -> list[Webhook]:
    """Your webhooks, the oldest first."""
    return [Webhook.model_validate(row) for row in await state.webhooks.repository.endpoints(caller.user_id)]


@router.post("", status_code=201)
async def create(body: WebhookWanted, state: AppState, caller: Sensitive) -> NewSecret:
    """Add a webhook, at most five. Deliveries are POST requests, signed as Standard Webhooks says, with the secret in this answer."""
    await state.webhooks.check(body.url)
    secret = new_secret()
    made = await state.webhooks.repository.create(caller.user_id, body.url, sorted(set(body.events)), secret)
    return NewSecret(webhook=Webhook.model_validate(made), secret=secret)


@router.delete("/{webhook_id}", status_code=204)
async def delete(webhook_id: UUID, state: AppState, caller: SignedIn) -> None:
    """Delete a webhook with its log. What was not delivered is not delivered any more."""
    await state.webhooks.repository.delete(caller.user_id, webhook_id)


@router.post("/{webhook_id}/secret")
async def rotate(webhook_id: UUID, state: AppState, caller: Sensitive) -> NewSecret:
    """Sign with a new secret, which is shown only in this answer. For a day, the one before it signs every delivery, too."""
    secret = new_secret()
    made = await state.webhooks.repository.rotate(caller.user_id, webhook_id, secret)
    return NewSecret(webhook=Webhook.model_validate(made), secret=secret)


@router.post("/{webhook_id}/test")
async def test(webhook_id: UUID, state: AppState, caller: Sensitive) -> Delivery:
    """Send the event `webhook.test` now, once, and say what came of it. One that arrives enables a disabled webhook again."""
    return Delivery.model_validate(await state.webhooks.test(caller.user_id, webhook_id))


@router.get("/{webhook_id}/deliveries")
async def deliveries(webhook_id: UUID, state: AppState, caller: SignedIn, before: AwareDatetime | None = None) -> list[Delivery]:
    """The log of a webhook: the newest 50 deliveries, or those before a moment. It is kept for 30 days."""
    return [Delivery.model_validate(row) for row in await state.webhooks.repository.deliveries(caller.user_id, webhook_id, before)]

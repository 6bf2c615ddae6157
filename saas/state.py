"""Application state that lives as long as the API, and the dependency that gives it to routes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

if TYPE_CHECKING:
    from saas.admin.service import Desk
    from saas.auth.repository import AccountRepository
    from saas.auth.tokens import Tokens
    from saas.auth.turnstile import Turnstile
    from saas.billing.repository import PaymentRepository
    from saas.billing.service import Payments
    from saas.credits.repository import CreditRepository
    from saas.database import Database
    from saas.jobs.moderation import Moderation
    from saas.jobs.service import Jobs
    from saas.legal.service import Legal
    from saas.limits.service import Limiter
    from saas.observability.figures import Figures
    from saas.observability.readiness import Readiness
    from saas.settings import Settings
    from saas.storage.bucket import Bucket
    from saas.voices.service import Voices
    from saas.webhooks.service import Webhooks


@dataclass(frozen=True)
class State:
    """Created when the app starts, closed when it ends."""

    settings: Settings
    database: Database
    readiness: Readiness
    figures: Figures
    accounts: AccountRepository
    credits: CreditRepository
    tokens: Tokens
    turnstile: Turnstile | None
    """None where no secret is set."""
    billing: PaymentRepository
    payments: Payments | None
    """None where Stripe is not set up."""
    limiter: Limiter
    legal: Legal
    moderation: Moderation | None
    """None where no hook is set."""
    bucket: Bucket
    voices: Voices
    jobs: Jobs
    webhooks: Webhooks
    desk: Desk


async def state_of(request: Request) -> State:
    """The app's state. Async, though it waits for nothing: FastAPI runs other functions in a thread."""
    state: State = request.app.state.saas
    return state


AppState = Annotated[State, Depends(state_of)]
"""A route gets the state by the parameter `state: AppState`."""

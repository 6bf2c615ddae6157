"""The SaaS API as one ASGI app: routers, middleware and lifespan."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import httpx
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from inference import tracing
from inference.errors import ConfigurationError
from inference.http.bodies import BodyLimit
from inference.http.log import PROBES, RequestLog
from inference.http.origins import OwnPagesOnly
from inference.http.pieces import Pieces
from inference.memory import giving_back
from saas import errors, web
from saas.admin import router as admin
from saas.admin.service import Desk
from saas.auth import router as auth
from saas.auth.local import router as local
from saas.auth.repository import AccountRepository
from saas.auth.tokens import Tokens
from saas.auth.turnstile import HEADER, Turnstile
from saas.billing import router as billing
from saas.billing.repository import PaymentRepository
from saas.billing.service import FORGET_SECONDS, Payments
from saas.credits import router as credits
from saas.credits.repository import CreditRepository
from saas.database import Database
from saas.jobs import router as jobs
from saas.jobs.backend_choice import backend_of
from saas.jobs.fishserve import Fishserve
from saas.jobs.loop import again
from saas.jobs.moderation import Moderation
from saas.jobs.runpod import RunPod
from saas.jobs.servers import LOOK_SECONDS
from saas.jobs.service import Jobs
from saas.legal import router as legal
from saas.legal.service import Legal, current
from saas.limits.service import Limiter
from saas.mail.service import Mails
from saas.observability import reports
from saas.observability import router as observability
from saas.observability.figures import Figures
from saas.observability.metered_database import Counted
from saas.observability.middleware import Watch
from saas.observability.readiness import Readiness
from saas.settings import Settings
from saas.state import State
from saas.storage.bucket import Bucket
from saas.voices import router as voices
from saas.voices.service import Voices
from saas.webhooks import router as webhooks
from saas.webhooks.service import Webhooks

MAX_VALUES = 10_000
"""Values in a request's JSON beside its text. Bodies are parsed before anybody is asked for a key: 10,000 values take 5 ms."""
EXPIRE_SECONDS = 3600.0
"""Seconds between two looks for reports that need not be kept."""
_ASKED = ["Authorization", "Content-Type", "Idempotency-Key", "X-Request-Id", HEADER]
_SHOWN = [
    "Retry-After",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "X-Request-Id",
    "X-Job-Id",
    "X-Sample-Rate",
    "X-Voice-Notice",
    "X-Partial",
]


def create_app(settings: Settings) -> FastAPI:
    """Build the API. It creates its state when it starts. Raises ConfigurationError for settings that are not safe to serve with."""
    check(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        reports.start(settings)
        tracing.start()
        async with AsyncExitStack() as stack, giving_back():
            app.state.saas = await _start(settings, stack)
            yield
        await asyncio.to_thread(reports.stop)
        await asyncio.to_thread(tracing.stop)

    app = FastAPI(
        title="fishserve SaaS", summary="Speech for sale: sign-in, credits, voices, jobs", lifespan=lifespan, redirect_slashes=False,
        docs_url=None, redoc_url=None, responses=errors.ANSWERS,
    )  # fmt: skip
    app.add_middleware(Pieces)
    values = MAX_VALUES + settings.max_characters  # each comma of a text counts as one
    app.add_middleware(BodyLimit, limit=settings.max_body_bytes, refuse=errors.refusal, values=values)
    if settings.environment == "embedded":  # whoever reaches it may sign up, and a page that a visitor of this machine opens reaches it
        app.add_middleware(
            OwnPagesOnly, origins=[settings.app_origin], hosts=[urlsplit(settings.public_url).hostname or ""], refuse=errors.refusal,
            hints=("FISHSERVE_SAAS_PUBLIC_URL=http://{} makes it so", "FISHSERVE_SAAS_APP_URL names the app's"),
        )  # fmt: skip
    app.add_middleware(
        CORSMiddleware, allow_origins=[settings.app_origin], allow_methods=["GET", "POST", "PATCH", "DELETE"], allow_headers=_ASKED,
        expose_headers=_SHOWN,
    )  # fmt: skip
    app.add_middleware(Watch, https=settings.public_url.startswith("https:"))
    app.add_middleware(RequestLog, refuse=errors.refusal)  # the middleware added last runs first
    if tracing.is_on():
        app.add_middleware(tracing.TraceRequests, untraced=PROBES)
    errors.register(app)
    for domain in (observability, auth, credits, billing, voices, jobs, legal, webhooks):
        app.include_router(domain.router)
    if settings.operator_role:
        app.include_router(admin.router)
    if settings.environment == "embedded":
        app.include_router(local.router)
    app.include_router(web.router(settings))
    return app


def check(settings: Settings) -> None:
    """Raises ConfigurationError for settings that are not safe to serve with; `fishserve saas check` checks much more."""
    if settings.environment == "production":
        if settings.turnstile_is_a_test:
            raise ConfigurationError(
                "TURNSTILE_SECRET_KEY is one of Cloudflare's test secrets, which let everything pass or nothing; use the widget's own"
            )
        if settings.stripe_secret_key and settings.stripe_secret_key.get_secret_value().startswith(("sk_test_", "rk_test_")):
            raise ConfigurationError("STRIPE_SECRET_KEY is a test key, with which anybody can buy by a test card; use the live one")
    if settings.smtp_url and not settings.mail_from:
        raise ConfigurationError("FISHSERVE_SAAS_MAIL_FROM is not set: mail needs a sender, such as Speech <no-reply@example.com>")
    if settings.stripe_secret_key and not settings.stripe_webhook_secret:
        raise ConfigurationError("STRIPE_WEBHOOK_SECRET is not set: without it nothing that is paid would be credited")
    if settings.legacy_jwt_secret and len(settings.legacy_jwt_secret.get_secret_value()) < 32:
        raise ConfigurationError("FISHSERVE_SAAS_LEGACY_JWT_SECRET has less than 32 characters; it can be guessed")
    for document, url, version in (
        ("TERMS", settings.terms_url, settings.terms_version), ("PRIVACY", settings.privacy_url, settings.privacy_version),
    ):  # fmt: skip
        if bool(url) != bool(version):
            raise ConfigurationError(
                f"FISHSERVE_SAAS_{document}_URL and FISHSERVE_SAAS_{document}_VERSION belong together: set both or neither"
            )
    if settings.terms_enforced and not current(settings):
        raise ConfigurationError("FISHSERVE_SAAS_TERMS_ENFORCED is set, and there is nothing to accept: set FISHSERVE_SAAS_TERMS_URL")
    if not (settings.supabase_url or settings.jwt_issuer):
        raise ConfigurationError("SUPABASE_URL is not set: it names the Supabase project whose users may sign in")


def complete(settings: Settings) -> None:
    """Raises ConfigurationError for missing settings. Each part checks its own, before anything starts."""
    connect(settings)
    backend_of(settings, httpx.AsyncClient(), Bucket.of(settings))
    if settings.moderation:
        Moderation(settings, httpx.AsyncClient())


def connect(settings: Settings) -> Database:
    """PostgreSQL itself where DATABASE_URL is set, else Supabase's API. Raises ConfigurationError when neither is configured."""
    if settings.database_url:
        from saas.postgres import PostgresDatabase

        return PostgresDatabase(settings.database_url.get_secret_value())
    if settings.supabase_url and settings.supabase_secret_key:
        from saas.supabase import SupabaseDatabase

        return SupabaseDatabase(settings.supabase_url, settings.supabase_secret_key.get_secret_value())
    raise ConfigurationError("there is no database: set SUPABASE_URL and SUPABASE_SECRET_KEY, or DATABASE_URL")


@asynccontextmanager
async def _running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Work in the background, which is cancelled at the end."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _start(settings: Settings, stack: AsyncExitStack) -> State:
    """Create everything the routes use; the stack closes it in reverse order."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)  # each stream has a connection to its server
    http = await stack.enter_async_context(httpx.AsyncClient(follow_redirects=False, limits=limits))
    store = Counted(connect(settings))
    stack.push_async_callback(store.close)
    limiter = Limiter(settings)
    stack.push_async_callback(limiter.close)
    payments = None
    if settings.stripe_secret_key:
        payments = Payments(settings, settings.stripe_secret_key.get_secret_value(), store)
        stack.push_async_callback(payments.close)
    bucket = Bucket.of(settings)
    stack.callback(bucket.close)
    backend = backend_of(settings, http, bucket)
    if isinstance(backend, RunPod):
        stack.push_async_callback(backend.close)
    if isinstance(backend, Fishserve):
        await stack.enter_async_context(_running(again(backend.look, LOOK_SECONDS)))
    work = Jobs(store, bucket, backend)
    await stack.enter_async_context(_running(work.run()))
    hooks = Webhooks(settings, store)
    await stack.enter_async_context(_running(hooks.run()))
    await stack.enter_async_context(_running(Mails(settings, store).run()))
    if payments is not None:
        await stack.enter_async_context(_running(again(payments.forget, FORGET_SECONDS)))
    law = Legal(settings, store)
    await stack.enter_async_context(_running(again(law.expire_reports, EXPIRE_SECONDS)))
    secret = settings.turnstile_secret_key
    return State(
        settings=settings, database=store, readiness=Readiness(), figures=Figures(), accounts=AccountRepository(store), credits=CreditRepository(store), tokens=Tokens(settings, http), billing=PaymentRepository(store), payments=payments, limiter=limiter, legal=law,
        moderation=Moderation(settings, http) if settings.moderation else None,
        turnstile=Turnstile(settings, secret, http) if secret else None, bucket=bucket, voices=Voices(store, bucket), jobs=work, webhooks=hooks,
        desk=Desk(settings, store),
    )  # fmt: skip

"""`fishserve saas check`: what a production installation must have, each item looked at from outside where that is possible. docs/go-live.md is the list."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Literal

import httpx
import jwt
import stripe
from redis.asyncio import Redis
from redis.exceptions import RedisError
from rich.console import Console

from inference.errors import ConfigurationError
from saas import schema
from saas.app import connect
from saas.auth.tokens import ALGORITHMS
from saas.billing.service import EVENTS
from saas.database import DatabaseError
from saas.jobs.servers import DNS
from saas.serving import LICENCE
from saas.settings import TEST_SECRETS, Settings
from saas.storage.bucket import Bucket, StorageError

SECONDS = 10
"""How long to wait for each service."""
_STYLES = {"ok": "green", "wrong": "bold red", "look": "yellow"}


@dataclass(frozen=True)
class Item:
    """One item of the check. `look`: only a person can tell."""

    name: str
    state: Literal["ok", "wrong", "look"]
    found: str
    do: str = ""


Looking = Callable[[Settings, httpx.AsyncClient], AsyncIterator[Item]]


def examine(settings: Settings, console: Console) -> bool:
    """Check everything and print the findings, with the remedy under each wrong item. Returns whether nothing is wrong."""
    return show(asyncio.run(look(settings)), console)


def show(items: list[Item], console: Console) -> bool:
    """Print items. Returns whether nothing is wrong."""
    for item in items:
        console.print(f"{item.state:<6} {item.name:<24} {item.found}", style=_STYLES[item.state])
        if item.do:
            console.print(f"{'':<6} {'':<24} -> {item.do}")
    wrong = sum(item.state == "wrong" for item in items)
    console.print(f"{wrong} of {len(items)} items are wrong" if wrong else "nothing is wrong", style=_STYLES["wrong" if wrong else "ok"])
    return not wrong


async def look(settings: Settings) -> list[Item]:
    """Check every item, in the order of docs/go-live.md. An item that cannot be checked is wrong."""
    async with httpx.AsyncClient(timeout=SECONDS, follow_redirects=False) as http:
        return [
            item
            for found in await asyncio.gather(*(guarded(name, looking, settings, http) for name, looking in _LOOKED_AT.items()))
            for item in found
        ]


async def guarded(name: str, looking: Looking, settings: Settings, http: httpx.AsyncClient) -> list[Item]:
    """The items of one check function. A function that fails must not hide the items of the others."""
    items: list[Item] = []
    try:
        async with asyncio.timeout(3 * SECONDS):
            async for item in looking(settings, http):
                items.append(item)
    except Exception as e:  # a check that fails must not hide the others
        items.append(Item(name, "wrong", f"could not be looked at: {type(e).__name__}", "see that the service can be reached from here"))
    return items


def _item(name: str, good: bool, found: str, do: str) -> Item:
    return Item(name, "ok" if good else "wrong", found, "" if good else do)


async def _settings(s: Settings, _: httpx.AsyncClient) -> AsyncIterator[Item]:
    yield _item("environment", s.environment == "production", s.environment, "set FISHSERVE_SAAS_ENVIRONMENT=production")
    yield _item("https", s.public_url.startswith("https:"), s.public_url, "set FISHSERVE_SAAS_PUBLIC_URL to the https address of this API")
    sender = s.mail_from if s.smtp_url else "none is sent"
    yield _item("mail", bool(s.smtp_url), sender, "set FISHSERVE_SAAS_SMTP_URL and FISHSERVE_SAAS_MAIL_FROM")
    yield _item("licence of the model", bool(s.model_licence), s.model_licence or "nothing is said", LICENCE)


async def database(s: Settings, _: httpx.AsyncClient) -> AsyncIterator[Item]:
    """The database answers, and its schema and rules are as they must be."""
    try:
        store = connect(s)
    except ConfigurationError as e:
        yield Item("database", "wrong", str(e), "docs/saas.md, Supabase")
        return
    try:
        health = await store.call("health")
        applied = await store.call("applied_migrations")
    except DatabaseError as e:
        yield Item(
            "database",
            "wrong",
            str(e),
            "paste sql/supabase_schema.sql into Supabase's SQL editor (later: the newer files of sql/migrations), and look at the address and key",
        )
        return
    finally:
        await store.close()
    names = ", ".join(health["unprotected"])
    wrong = schema.problem(applied)
    yield _item(
        "schema version", wrong is None, wrong or health["schema_version"], "apply the newer files of sql/migrations in their order"
    )
    yield _item("row level security", health["rls_ok"], names or "on every table", "alter table ... enable row level security")
    yield _item(
        "definer functions",
        health["definer_ok"],
        names or "closed to clients",
        "revoke execute on function ... from public, anon, authenticated",
    )


async def _supabase(s: Settings, http: httpx.AsyncClient) -> AsyncIterator[Item]:
    if s.legacy_jwt_secret:
        yield Item(
            "sessions",
            "look",
            "signed with a shared secret (HS256)",
            "move the project to signing keys (ES256), then drop the legacy secret",
        )
    else:
        keys = (await http.get(f"{s.issuer}/.well-known/jwks.json")).json()["keys"]
        good = [key for key in keys if key.get("alg") in ALGORITHMS]
        yield _item("sessions", bool(good), f"{len(good)} public keys at {s.issuer}", "Supabase, JWT signing keys: make an ES256 key")
    public = s.supabase_publishable_key
    yield _item(
        "publishable key", bool(public) and not _is_secret(public), "a secret key, which the app would show to everybody" if _is_secret(public) else
        public[:18] or "none", "SUPABASE_PUBLISHABLE_KEY=sb_publishable_...; a secret key that was shown must be replaced",
    )  # fmt: skip
    told = (await http.get(f"{s.supabase_url or s.issuer.removesuffix('/auth/v1')}/auth/v1/settings", headers={"apikey": public})).json()
    confirmed, anonymous = told.get("mailer_autoconfirm") is False, bool(told.get("external", {}).get("anonymous_users"))
    yield _item(
        "confirmed addresses",
        confirmed,
        "a sign-up is confirmed by mail" if confirmed else "any address counts as confirmed, and gets the credits of a new account",
        "Supabase, Authentication, Sign In / Providers, Email: turn Confirm email on",
    )
    yield _item(
        "anonymous sign-in",
        not anonymous,
        "on: users without an address have accounts" if anonymous else "off",
        "Supabase, Authentication, Sign In / Providers: turn anonymous sign-ins off",
    )


async def _bucket(s: Settings, http: httpx.AsyncClient) -> AsyncIterator[Item]:
    try:
        bucket = Bucket.of(s)
        await bucket.reachable()
    except (ConfigurationError, StorageError) as e:
        yield Item("bucket", "wrong", str(e), "docs/saas.md, R2")
        return
    anonymous = (await http.get(f"{s.r2_endpoint}/{s.r2_bucket_name}", params={"list-type": "2"})).status_code
    yield _item(
        "bucket private",
        anonymous in (400, 401, 403, 404),
        f"a stranger gets {anonymous}",
        "take public access (r2.dev, custom domain) from the bucket",
    )
    origins, days = await bucket.cors_origins(), await bucket.forgets()
    do = "fishserve saas bucket"
    yield _item("bucket CORS", origins == [s.app_origin], ", ".join(origins) or "no policy", f"{do}: {s.app_origin} alone")
    yield _item(
        "bucket lifecycle",
        bool(days),
        ", ".join(f"{k} {v} days" for k, v in days.items()) or "no rule",
        f"{do}: uploads and results end by themselves",
    )


async def _speech(s: Settings, http: httpx.AsyncClient) -> AsyncIterator[Item]:
    if s.runpod_endpoint_id and s.runpod_api_key:
        key = {"Authorization": f"Bearer {s.runpod_api_key.get_secret_value()}"}
        answer = await http.get(f"{s.runpod_base_url}/{s.runpod_endpoint_id}/health", headers=key)
        yield _item(
            "speech",
            answer.is_success,
            f"endpoint {s.runpod_endpoint_id} answers {answer.status_code}",
            "look at RUNPOD_ENDPOINT_ID and RUNPOD_API_KEY",
        )
    elif s.fishserve_urls:
        for url in s.fishserve_urls:
            try:
                said = str((await http.get(f"{url.removeprefix(DNS)}/ready")).status_code)
            except httpx.HTTPError as e:
                said = type(e).__name__
            yield _item("speech", said == "200", f"{url}/ready answers {said}", "see why it is not ready")
    else:
        yield Item("speech", "wrong", "no speech backend is configured", "set RUNPOD_ENDPOINT_ID and RUNPOD_API_KEY, or FISHSERVE_URL")


async def _stripe(s: Settings, _: httpx.AsyncClient) -> AsyncIterator[Item]:
    if s.stripe_secret_key is None:
        yield Item("Stripe", "look", "not set up: nobody can buy", "docs/saas.md, Stripe")
        return
    secret = s.stripe_secret_key.get_secret_value()
    kind = secret.split("_")[:2]
    yield _item(
        "Stripe key", kind in (["sk", "live"], ["rk", "live"]), "_".join(kind) + "_...", "STRIPE_SECRET_KEY=sk_live_... or rk_live_..."
    )
    signed = s.stripe_webhook_secret is not None and s.stripe_webhook_secret.get_secret_value().startswith("whsec_")
    yield _item("Stripe webhook secret", signed, "set" if signed else "not set", "STRIPE_WEBHOOK_SECRET=whsec_... of the endpoint")
    client = stripe.StripeClient(secret, base_addresses={"api": s.stripe_base_url}, max_network_retries=0)
    try:
        endpoints = (await asyncio.to_thread(client.v1.webhook_endpoints.list, {"limit": 100})).data
    except stripe.StripeError as e:
        yield Item("Stripe webhook", "look", f"Stripe does not say: {type(e).__name__}", f"it must send {', '.join(EVENTS)}")
        return
    sent = {
        event for e in endpoints if e.url == f"{s.public_url}/api/webhook/stripe" and e.status == "enabled" for event in e.enabled_events
    }
    missing = [] if "*" in sent else [event for event in EVENTS if event not in sent]
    yield _item(
        "Stripe webhook",
        not missing,
        f"lacks {', '.join(missing)}" if missing else "sends what is needed",
        f"endpoint {s.public_url}/api/webhook/stripe",
    )


async def _outside(s: Settings, http: httpx.AsyncClient) -> AsyncIterator[Item]:
    alive = await http.get(f"{s.public_url}/healthz")
    yield _item(
        "API reachable",
        alive.is_success,
        f"{s.public_url}/healthz answers {alive.status_code}",
        "start `fishserve saas`, and point the domain at it",
    )
    unsigned = await http.post(f"{s.public_url}/api/webhook/stripe", content=b"{}")
    wanted = 400 if s.stripe_secret_key else 404
    yield _item(
        "webhooks reachable",
        unsigned.status_code == wanted,
        f"an unsigned one gets {unsigned.status_code}",
        "let /api/webhook/ through, challenges off",
    )
    proxied = "cf-ray" in alive.headers
    yield _item(
        "domain proxied", proxied, "by Cloudflare" if proxied else "not by Cloudflare", "Cloudflare, DNS: turn the proxy of the record on"
    )
    yield _item(
        "trusted proxies", bool(s.proxies), s.trusted_proxies or "none: every user has the proxy's address",
        "FISHSERVE_SAAS_TRUSTED_PROXIES: Cloudflare's networks, or 127.0.0.1/32 behind its tunnel",
    )  # fmt: skip


async def _turnstile(s: Settings, http: httpx.AsyncClient) -> AsyncIterator[Item]:
    if s.turnstile_secret_key is None or not s.turnstile_site_key:
        yield Item(
            "Turnstile",
            "wrong",
            "not set up",
            "TURNSTILE_SITE_KEY and TURNSTILE_SECRET_KEY of a widget for the app's domain; give Supabase the secret, too",
        )
        return
    test = s.turnstile_is_a_test or s.turnstile_site_key.startswith(TEST_SECRETS)
    yield _item(
        "Turnstile keys", not test, "a test key, by which every robot is a person" if test else "not a test", "use the keys of the widget"
    )
    form = {"secret": s.turnstile_secret_key.get_secret_value(), "response": "not-a-token"}
    said = (await http.post(f"{s.turnstile_base_url}/turnstile/v0/siteverify", data=form)).json()
    good = said.get("success") is False and "invalid-input-response" in said.get("error-codes", ())
    yield _item(
        "Turnstile secret",
        good,
        "known to Cloudflare" if good else ", ".join(said.get("error-codes", ())) or "every token passes",
        "copy it from the widget",
    )


async def _others(s: Settings, _: httpx.AsyncClient) -> AsyncIterator[Item]:
    yield _item("Sentry", bool(s.sentry_dsn), "set" if s.sentry_dsn else "not set", "SENTRY_DSN of a project, so that errors are seen")
    yield await _redis(s)
    both = bool(s.terms_url and s.privacy_url)
    yield Item(
        "terms and privacy policy",
        "ok" if both else "look",
        "the app asks users to accept them" if both else "not set",
        "" if both else "most countries ask a seller for both: FISHSERVE_SAAS_TERMS_URL, FISHSERVE_SAAS_PRIVACY_URL and their versions",
    )
    yield Item(
        "point-in-time recovery",
        "look",
        "cannot be seen from here",
        "Supabase, Database, Backups: turn PITR on, and restore once to know how",
    )


async def _redis(s: Settings) -> Item:
    if not s.redis_url:
        return Item("Redis", "look", "none: each process counts requests alone", "REDIS_URL, when more than one process serves")
    client = Redis.from_url(s.redis_url.replace("valkey", "redis", 1), socket_connect_timeout=SECONDS, socket_timeout=SECONDS)
    try:
        await client.ping()
    except (RedisError, OSError) as e:
        return Item("Redis", "wrong", f"does not answer: {type(e).__name__}", "look at REDIS_URL")
    finally:
        await client.aclose()
    return Item("Redis", "ok", "answers")


def _is_secret(key: str) -> bool:
    """Whether a Supabase key gives full access: a secret key, or the older service_role token."""
    try:
        role: Any = jwt.decode(key, options={"verify_signature": False}).get("role")
    except jwt.PyJWTError:
        return key.startswith("sb_secret_")
    return bool(role == "service_role")


_LOOKED_AT: dict[str, Looking] = {
    "environment": _settings, "database": database, "sessions": _supabase, "bucket": _bucket, "speech": _speech, "Stripe": _stripe,
    "API reachable": _outside, "Turnstile": _turnstile, "Sentry": _others,
}  # fmt: skip
"""Check functions, by the name of the item that is reported as wrong when the function fails."""

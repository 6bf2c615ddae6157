"""All settings of the SaaS API. Ours are FISHSERVE_SAAS_* variables; other services' credentials keep the names their dashboards use."""

from __future__ import annotations

import re
from email.utils import formataddr, getaddresses
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from inference.errors import ConfigurationError

TEST_SECRETS = ("1x", "2x", "3x")
"""Prefixes of Cloudflare's Turnstile test secrets, which give every token the same answer."""


def _named(*names: str) -> Any:
    """Read a field from variables of these names, without our prefix; the first is the field's own name."""
    return AliasChoices(*names)


class Settings(BaseSettings):
    """Empty variables count as not set. A service with empty settings is disabled, and the features that need it say so."""

    model_config = SettingsConfigDict(env_prefix="FISHSERVE_SAAS_", env_ignore_empty=True, populate_by_name=True)

    environment: Literal["production", "development", "embedded"] = Field(
        "production", description="production refuses test secrets, development accepts them; `fishserve saas --embedded` sets embedded."
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8090, ge=0, le=65535, description="Port to listen on; 0: any that is free.")
    keep_alive_seconds: int = Field(
        905, ge=1, le=3600, description="How long an idle connection stays open for the next request. Cloudflare keeps its own for 900 s."
    )
    public_url: str = Field("http://127.0.0.1:8090", description="Public address of this API; RunPod and Stripe send their webhooks to it.")
    app_url: str = Field(
        "", description="Address of the app; empty: `/app` of public_url. Browsers may send requests only from its origin."
    )
    trusted_proxies: str = Field(
        "", description="Comma-separated networks trusted to set CF-Connecting-IP: Cloudflare's, or 127.0.0.1/32 behind its tunnel."
    )
    speech_per_minute: int = Field(10, ge=1, description="Speech requests per minute for a user, all keys together.")
    key_speech_per_minute: int = Field(10, ge=1, description="Speech requests per minute for one key.")
    requests_per_minute: int = Field(240, ge=1, description="Requests of any kind per minute for a user.")
    requests_at_once: int = Field(16, ge=1, description="Open requests of a user in one process, streams and downloads among them.")
    sensitive_per_minute: int = Field(
        10,
        ge=1,
        description="New keys, checkouts, closed accounts and acts at the desk per minute for a user; wrong passwords, and reports, per minute from an address.",
    )
    failures_per_minute: int = Field(60, ge=1, description="Wrong keys per minute after which an address must wait.")
    max_body_bytes: int = Field(1_000_000, ge=1000, description="Largest request body, in bytes. Clips go to the bucket instead.")
    max_characters: int = Field(5000, ge=1, description="Longest text of one request, in characters.")
    model: str = Field(
        "FishSpeech 1.5", description="Name of the model, as the app shows it. If it is not set, --embedded uses the engine's name for it."
    )
    model_licence: str = Field(
        "",
        description="Your permission to sell that model's speech, in your words; FishSpeech 1.5's licence, CC BY-NC-SA 4.0, gives none.",
    )
    terms_url: str = Field("", description="Where your terms of service are. The app asks each user to accept them.")
    terms_version: str = Field(
        "", max_length=100, description="Their current version, such as their date. Change it, and the app asks again."
    )
    privacy_url: str = Field("", description="Where your privacy policy is. The app asks each user to accept it.")
    privacy_version: str = Field("", max_length=100, description="Its current version.")
    terms_enforced: bool = Field(
        False, description="Speak, add voices and sell only for users who have accepted the current versions of both."
    )
    moderation: str = Field(
        "",
        description="What is asked whether a text may be spoken: https://..., or a Python function, package.module:function; empty: nothing.",
    )
    moderation_key: SecretStr | None = Field(None, description="Bearer token for that address.")
    moderation_seconds: float = Field(2.0, gt=0, le=60, description="How long to wait for its answer.")
    moderation_failure: Literal["closed", "open"] = Field(
        "closed", description="When it does not answer: closed refuses every text, open speaks them unchecked."
    )
    operator_role: str = Field(
        "", description="Whom the app shows the desk: users with this `role` in Supabase's `app_metadata`, such as operator; empty: nobody."
    )
    directory: Path = Field(Path("var/saas"), description="Where --embedded keeps its database, its bucket and its keys.")

    supabase_url: str = Field("", validation_alias=_named("supabase_url"), description="https://REF.supabase.co")
    supabase_secret_key: SecretStr | None = Field(
        None, validation_alias=_named("supabase_secret_key", "supabase_service_role_key"),
        description="sb_secret_..., or the older service_role key (SUPABASE_SERVICE_ROLE_KEY).",
    )  # fmt: skip
    supabase_publishable_key: str = Field(
        "", validation_alias=_named("supabase_publishable_key", "supabase_anon_key"),
        description="sb_publishable_..., which the API gives to the app.",
    )  # fmt: skip
    database_url: SecretStr | None = Field(
        None,
        validation_alias=_named("database_url"),
        description="PostgreSQL itself, instead of Supabase's API: postgresql://USER:PASSWORD@HOST/NAME.",
    )
    jwt_issuer: str = Field("", description="The `iss` of sessions; empty: SUPABASE_URL/auth/v1.")
    jwt_audience: str = Field("authenticated", description="The `aud` of sessions.")
    legacy_jwt_secret: SecretStr | None = Field(
        None, description="Only for a project that still signs sessions with HS256: its JWT secret. Sessions by JWKS are then refused."
    )

    r2_endpoint: str = Field("", validation_alias=_named("r2_endpoint"), description="https://ACCOUNT.r2.cloudflarestorage.com")
    r2_access_key_id: str = Field(
        "", validation_alias=_named("r2_access_key_id"), description="Access key of an API token for this bucket alone."
    )
    r2_secret_access_key: SecretStr | None = Field(
        None, validation_alias=_named("r2_secret_access_key"), description="Secret of that API token."
    )
    r2_bucket_name: str = Field("", validation_alias=_named("r2_bucket_name"), description="Name of a private bucket.")

    runpod_api_key: SecretStr | None = Field(
        None, validation_alias=_named("runpod_api_key"), description="An API key that may use the endpoint."
    )
    runpod_endpoint_id: str = Field(
        "", validation_alias=_named("runpod_endpoint_id"), description="ID of a queue endpoint with the worker's image."
    )
    runpod_base_url: str = Field("https://api.runpod.ai/v2", validation_alias=_named("runpod_base_url"), description="RunPod's API.")
    runpod_upload: Literal["key", "url"] = Field(
        "key",
        description="How workers fetch clips and upload results: with the bucket's credentials (key), or by presigned URLs (url).",
    )
    fishserve_url: str = Field(
        "",
        validation_alias=_named("fishserve_url"),
        description="Addresses of fishserve servers, comma-separated, instead of RunPod: http://gpu1.internal:8080,http://gpu2.internal:8080. "
        "With dns+http:// each IP address of a name is one.",
    )
    fishserve_key: SecretStr | None = Field(
        None, validation_alias=_named("fishserve_key"), description="API key of those servers, if they require one."
    )

    stripe_secret_key: SecretStr | None = Field(
        None,
        validation_alias=_named("stripe_secret_key"),
        description="sk_live_..., or rk_live_... that may write Checkout Sessions and Customers, and read charges.",
    )
    stripe_webhook_secret: SecretStr | None = Field(
        None, validation_alias=_named("stripe_webhook_secret"), description="whsec_... of the webhook endpoint."
    )
    stripe_automatic_tax: bool = Field(
        False, description="Stripe Tax adds the tax of the buyer's country at the checkout; set it up in Stripe first."
    )
    stripe_tax_ids: bool = Field(False, description="Businesses may enter their tax ID at the checkout.")
    stripe_invoices: bool = Field(False, description="Stripe sends an invoice for each pack of credits, which it charges for.")
    stripe_base_url: str = Field("https://api.stripe.com", validation_alias=_named("stripe_base_url"), description="Stripe's API.")

    turnstile_secret_key: SecretStr | None = Field(
        None, validation_alias=_named("turnstile_secret_key"), description="Secret of the widget; empty: no CAPTCHA."
    )
    turnstile_site_key: str = Field("", validation_alias=_named("turnstile_site_key"), description="Public key of the widget.")
    turnstile_base_url: str = Field(
        "https://challenges.cloudflare.com", validation_alias=_named("turnstile_base_url"), description="Cloudflare's API."
    )

    smtp_url: SecretStr | None = Field(
        None,
        description="Mail server: smtps://USER:PASSWORD@HOST:465, or smtp://USER:PASSWORD@HOST:587 by STARTTLS; empty: no mail is sent.",
    )
    mail_from: str = Field(
        "", description="Sender of mail: Speech <no-reply@example.com>. The name is also that of the service in its mail."
    )
    operator_email: str = Field("", description="Who gets mail about disputes, and answers to mail; empty: the sender's address.")
    webhook_loopback: bool = Field(
        False, description="Customers' webhooks may also go to this machine, and by http: for tests, and where you alone sign in."
    )

    sentry_dsn: str = Field(
        "", validation_alias=_named("sentry_dsn"), description="Sentry project that receives error reports; empty: none."
    )
    redis_url: str = Field(
        "", validation_alias=_named("redis_url"), description="Redis or Valkey that counts requests; empty: this process counts alone."
    )
    metrics_key: SecretStr | None = Field(
        None, description="Bearer token that /metrics requires; empty: /metrics answers only this machine."
    )

    @field_validator("public_url", "app_url", "supabase_url", "r2_endpoint", "runpod_base_url", "stripe_base_url", "turnstile_base_url")
    @classmethod
    def _address(cls, value: str) -> str:
        return _checked_address(value)

    @field_validator("fishserve_url")
    @classmethod
    def _addresses(cls, value: str) -> str:
        parts = [part.strip() for part in value.split(",") if part.strip()]
        for part in parts:
            if part.startswith("dns+") and not part.startswith("dns+http://"):
                raise ValueError("an address with dns+ has the form dns+http://servers.internal:8080")
        return ",".join(dict.fromkeys(_checked_address(part, ("http", "https", "dns+http")) for part in parts))

    @field_validator("terms_url", "privacy_url")
    @classmethod
    def _page(cls, value: str) -> str:
        if value and (urlsplit(value).scheme not in ("http", "https") or not urlsplit(value).hostname):
            raise ValueError("this is no address like https://example.com/terms")
        return value

    @field_validator("smtp_url")
    @classmethod
    def _mail_server(cls, value: SecretStr | None) -> SecretStr | None:
        parts = urlsplit(value.get_secret_value()) if value else None
        if parts and (parts.scheme not in ("smtp", "smtps") or not parts.hostname):
            raise ValueError("this is no address like smtps://USER:PASSWORD@mail.example.com:465")
        return value

    @field_validator("mail_from", "operator_email")
    @classmethod
    def _mailbox(cls, value: str) -> str:
        found = getaddresses([value])
        name, address = found[0] if len(found) == 1 else ("", "")
        if value and (not value.isprintable() or not re.fullmatch(r"[^@\s<>,\"]+@[^@\s<>,\"]+", address)):
            raise ValueError("this is no address like Speech <no-reply@example.com>")
        return formataddr((name, address)) if value else ""

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, value: str) -> str:
        if value and urlsplit(value).scheme not in ("redis", "rediss", "valkey", "valkeys", "unix"):
            raise ValueError("this is no address like redis://127.0.0.1:6379")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: str) -> str:
        _parsed(value)
        return value

    @field_validator("turnstile_secret_key")
    @classmethod
    def _not_empty(cls, value: SecretStr | None) -> SecretStr | None:
        return value if value and value.get_secret_value().strip() else None

    @property
    def proxies(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The networks in `trusted_proxies`."""
        return _parsed(self.trusted_proxies)

    @property
    def fishserve_urls(self) -> list[str]:
        """The addresses in `fishserve_url`."""
        return self.fishserve_url.split(",") if self.fishserve_url else []

    @property
    def is_configured(self) -> bool:
        """Whether the settings name a database; if not, only embedded mode has one."""
        return bool(self.database_url or (self.supabase_url and self.supabase_secret_key))

    @property
    def app(self) -> str:
        """The address of the app."""
        return self.app_url or f"{self.public_url}/app"

    @property
    def app_origin(self) -> str:
        """The origin of the app: scheme, host and port."""
        parts = urlsplit(self.app)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def issuer(self) -> str:
        """The `iss` that sessions must have; their public keys are at `.well-known/jwks.json` under it."""
        return self.jwt_issuer or f"{self.supabase_url}/auth/v1"

    @property
    def turnstile_is_a_test(self) -> bool:
        """Whether Cloudflare would let every token pass, or none."""
        secret = self.turnstile_secret_key
        return secret is not None and secret.get_secret_value().startswith(TEST_SECRETS)


def read(**given: Any) -> Settings:
    """Read the settings; each of `given` that is not None overrides the environment. Raises ConfigurationError, never showing a secret."""
    try:
        return Settings(**{k: v for k, v in given.items() if v is not None})
    except ValidationError as e:
        first = e.errors()[0]
        name = str(first["loc"][0])
        raise ConfigurationError(f"{variable(name)} cannot be used: {first['msg'].removeprefix('Value error, ')}") from None


def variable(name: str) -> str:
    """The environment variable a setting is read from."""
    field = Settings.model_fields.get(name)
    return name.upper() if field is None or field.validation_alias else f"FISHSERVE_SAAS_{name.upper()}"


def _checked_address(value: str, schemes: tuple[str, ...] = ("http", "https")) -> str:
    """An address without a slash at its end. Raises ValueError for what is none."""
    parts = urlsplit(value)
    if value and (parts.scheme not in schemes or not parts.hostname or parts.query or parts.fragment):
        raise ValueError("this is no address like https://api.example.com")
    return value.rstrip("/")


def _parsed(networks: str) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(name.strip()) for name in networks.split(",") if name.strip())

"""`fishserve saas` as a person meets it: what it says when something is missing, and what its check finds."""

import asyncio
import json
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from inference.errors import ConfigurationError
from saas import schema
from saas.billing.service import EVENTS
from saas.cli import console
from saas.go_live_check import examine, look
from saas.serving import serve
from saas.settings import Settings, read, variable
from saas.storage.bucket import Bucket
from tests.saas.api_harness import NOWHERE, StandIn, running
from tests.waiting import HANG_SECONDS

WITHOUT = "import sys; sys.modules |= dict.fromkeys({names!r}); from inference.cli import main; sys.argv = {arguments!r}; main()"


def command(*arguments, without=(), **environment):
    code = WITHOUT.format(names=list(without), arguments=["fishserve", "saas", *arguments])
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", code], env=kept | environment, capture_output=True, text=True, timeout=HANG_SECONDS, check=False
    )
    assert "Traceback" not in done.stderr
    return done.returncode, " ".join(done.stderr.split())


def test_without_the_packages_one_sentence_says_what_to_install():
    code, said = command(without=["torch", "fastapi", "uvicorn", "psycopg", "stripe"])
    assert code == 2
    assert said.startswith("error: `fishserve saas` needs the package uvicorn, which is not installed; `")
    assert "[saas]'` installs it" in said


def test_its_help_needs_none_of_them():
    assert command("--help", without=["torch", "fastapi", "uvicorn", "pydantic_settings", "httpx"])[0] == 0


SET = {
    "SUPABASE_URL": "https://x.supabase.co", "SUPABASE_SECRET_KEY": "sb_secret_x", "R2_ENDPOINT": NOWHERE, "R2_ACCESS_KEY_ID": "a",
    "R2_SECRET_ACCESS_KEY": "b", "R2_BUCKET_NAME": "c", "FISHSERVE_URL": NOWHERE, "FISHSERVE_SAAS_PORT": "0",
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"SUPABASE_URL": ""}, "SUPABASE_URL is not set"), ({"SUPABASE_SECRET_KEY": ""}, "there is no database"),
        ({"R2_BUCKET_NAME": ""}, "a bucket needs R2_ENDPOINT"), ({"FISHSERVE_URL": ""}, "no speech backend is configured"),
        ({"TURNSTILE_SECRET_KEY": "1x0000000000000000000000000000000AA"}, "TURNSTILE_SECRET_KEY is one of Cloudflare's test secrets"),
        ({"STRIPE_SECRET_KEY": "sk_live_x"}, "STRIPE_WEBHOOK_SECRET is not set"), ({"FISHSERVE_SAAS_PORT": "99999"}, "FISHSERVE_SAAS_PORT cannot be used"),
        ({"FISHSERVE_SAAS_TRUSTED_PROXIES": "cloudflare"}, "FISHSERVE_SAAS_TRUSTED_PROXIES cannot be used"),
        ({"SUPABASE_URL": "x.supabase.co"}, "SUPABASE_URL cannot be used"),
        ({"FISHSERVE_SAAS_PORT": "1"} if os.geteuid() else {"FISHSERVE_SAAS_HOST": "203.0.113.1"}, "cannot listen on"),
    ],
    ids=str,
)  # fmt: skip
def test_what_it_cannot_serve_with_is_one_sentence_at_the_start(changed, words, monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(variable(name), raising=False)
    for name, value in (SET | changed).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=words):
        serve(read(), console)


# -- check ----------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stripe():
    def answer(_):
        endpoint = {
            "id": "we_1",
            "object": "webhook_endpoint",
            "status": "enabled",
            "enabled_events": list(EVENTS),
            "url": f"{outside.url}/api/webhook/stripe",
        }
        return 200, {"object": "list", "data": [endpoint], "has_more": False, "url": "/v1/webhook_endpoints"}

    outside = StandIn(lambda asked: (200, {}) if asked.method == "GET" else (400, {}), headers={"CF-Ray": "8a"})
    with outside.running(), StandIn(answer).running() as stripe:
        stripe.outside = outside
        yield stripe


@pytest.fixture(scope="module")
def services(postgres, bucket, stripe):
    """Everything as it must be, but for what only the real clouds have: https."""
    turnstile = StandIn(lambda _: (200, {"success": False, "error-codes": ["invalid-input-response"]}))
    runpod = StandIn(lambda asked: (200 if asked.headers.get("authorization") == "Bearer rp" else 401, {}))
    with running(postgres.migrated()) as api, turnstile.running(), runpod.running():
        good = {
            "public_url": stripe.outside.url, "app_url": "https://app.example.com", "trusted_proxies": "127.0.0.1/32", "model_licence": "our own weights",
            "smtp_url": "smtp://127.0.0.1", "mail_from": "Speech <no-reply@example.com>",
            "supabase_url": api.issuer.service.url, "supabase_publishable_key": "sb_publishable_x", "database_url": api.database.url,
            "r2_endpoint": bucket.endpoint, "r2_access_key_id": bucket.key, "r2_secret_access_key": bucket.secret, "r2_bucket_name": "check",
            "runpod_api_key": "rp", "runpod_endpoint_id": "ep", "runpod_base_url": runpod.url, "stripe_secret_key": "sk_live_x",
            "stripe_webhook_secret": "whsec_x", "stripe_base_url": stripe.url, "turnstile_secret_key": "0x4A", "turnstile_site_key": "0x4B",
            "turnstile_base_url": turnstile.url, "sentry_dsn": "https://public@sentry.example.com/1",
        }  # fmt: skip
        bucket.s3.create_bucket(Bucket="check")
        asyncio.run(Bucket.of(Settings(**good)).apply("https://app.example.com"))
        yield good | {"api": api, "turnstile": turnstile}


@pytest.fixture
def found(services):
    def found(**changed):
        given = {name: value for name, value in (services | changed).items() if name not in ("api", "turnstile")}
        return {item.name: item.state for item in asyncio.run(look(Settings(**given)))}

    return found


def wrong(items):
    return {name for name, state in items.items() if state == "wrong"}


def test_an_installation_as_it_must_be_has_nothing_wrong_but_the_tests_lack_of_https(found):
    items = found()
    assert wrong(items) == {"https"}
    assert {name for name, state in items.items() if state == "look"} == {"point-in-time recovery", "Redis", "terms and privacy policy"}


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"environment": "development"}, {"environment"}),
        ({"model_licence": ""}, {"licence of the model"}),
        ({"smtp_url": None}, {"mail"}),
        ({"supabase_publishable_key": "sb_secret_x"}, {"publishable key"}),
        ({"r2_secret_access_key": "wrong"}, {"bucket"}),
        ({"app_url": "https://other.example.com"}, {"bucket CORS"}),
        ({"runpod_api_key": "wrong"}, {"speech"}),
        ({"stripe_secret_key": "sk_test_x"}, {"Stripe key"}),
        ({"stripe_webhook_secret": None}, {"Stripe webhook secret"}),
        ({"turnstile_secret_key": "1x0000000000000000000000000000000AA"}, {"Turnstile keys"}),
        ({"turnstile_secret_key": None}, {"Turnstile"}),
        ({"sentry_dsn": ""}, {"Sentry"}),
        ({"redis_url": "redis://127.0.0.1:9"}, {"Redis"}),
        ({"trusted_proxies": ""}, {"trusted proxies"}),
        ({"supabase_url": NOWHERE}, {"sessions"}),
        ({"public_url": NOWHERE}, {"API reachable", "Stripe webhook"}),
    ],
    ids=lambda value: ", ".join(sorted(value)),
)  # fmt: skip
def test_each_thing_that_is_wrong_is_found_and_nothing_else(found, changed, names):
    assert wrong(found(**changed)) == names | {"https"}


def test_a_database_of_an_older_schema_or_with_looser_rules_is_found(found, services, monkeypatch):
    newer = [*schema.migrations(), Path(__file__)]
    monkeypatch.setattr("saas.schema.migrations", lambda: newer)
    database = services["api"].database
    database.sql("create table public.left_open (id int)")
    try:
        assert wrong(found()) == {"https", "schema version", "row level security"}
    finally:
        database.sql("drop table public.left_open")


def test_a_bucket_that_strangers_can_list_is_found(found):
    """No bucket here lets strangers in, so that one which does is played."""
    with StandIn(lambda _: (200, b"<ListBucketResult/>")).running() as public:
        assert "bucket private" in wrong(found(r2_endpoint=public.url))


def test_a_webhook_that_lacks_an_event_is_found(found, stripe):
    whole, stripe.answer = stripe.answer, lambda _: (200, {"object": "list", "data": [], "has_more": False, "url": "/v1/webhook_endpoints"})
    try:
        assert "Stripe webhook" in wrong(found())
    finally:
        stripe.answer = whole


def test_what_is_printed_says_what_to_do_and_holds_no_secret(services):
    given = {name: value for name, value in services.items() if name not in ("api", "turnstile")} | {"sentry_dsn": ""}
    out = StringIO()
    assert not examine(Settings(**given), Console(file=out, width=200))
    said = out.getvalue()
    assert "SENTRY_DSN of a project" in said
    assert "2 of" in said
    for secret in ("sk_live_x", "whsec_x", "0x4A", given["r2_secret_access_key"], '"rp"'):
        assert secret not in said


def test_the_command_ends_with_1_where_something_is_wrong():
    code, said = command("check", **{k: v for k, v in SET.items() if k != "SUPABASE_URL"}, SUPABASE_URL=NOWHERE)
    assert code == 1
    assert "items are wrong" in said


def test_the_bucket_gets_its_rules_by_a_command(bucket):
    bucket.s3.create_bucket(Bucket="fresh")
    given = SET | bucket.environment | {"R2_BUCKET_NAME": "fresh", "FISHSERVE_SAAS_APP_URL": "https://app.example.com"}
    assert command("bucket", **given)[0] == 0
    rules = bucket.s3.get_bucket_cors(Bucket="fresh")["CORSRules"]
    assert json.dumps(rules).count("https://app.example.com") == 1


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"mailer_autoconfirm": True}, {"confirmed addresses"}),
        ({"external": {"anonymous_users": True}}, {"anonymous sign-in"}),
        ({}, set()),
    ],
    ids=str,
)
def test_sign_ups_without_an_address_that_is_somebodys_are_found(found, services, monkeypatch, changed, names):
    issuer = services["api"].issuer
    monkeypatch.setattr(issuer, "settings", issuer.settings | changed)
    assert wrong(found()) == names | {"https"}

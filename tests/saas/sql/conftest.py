"""Two servers that the SQL is tried on: Debian's PostgreSQL 15, and the 18 that --embedded runs."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from saas import schema
from saas.embedded.postgres import EmbeddedPostgres


@pytest.fixture(scope="session")
def embedded() -> Iterator[EmbeddedPostgres]:
    folder = Path(tempfile.mkdtemp(prefix="fishserve-embedded-"))
    server = EmbeddedPostgres(folder)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture(scope="session", params=["PostgreSQL 15", "embedded 18"])
def migrated_url(request: pytest.FixtureRequest, postgres) -> str:
    """A database with the schema, as its owner, on either. Whoever uses it rolls back."""
    if request.param == "PostgreSQL 15":
        return postgres.migrated().owner_url
    return request.getfixturevalue("embedded").owner_url


@pytest.fixture(scope="session")
def pgtap_url(migrated_url: str) -> str:
    """The same with pgTAP in a schema of its own that everybody may use. It is SQL alone, so that 18 takes Debian's script for 15."""
    script = next(f for f in Path("/usr/share/postgresql/15/extension").glob("pgtap--*.sql") if f.name.count("--") == 1)
    statements = "".join(line for line in script.read_text().splitlines(keepends=True) if not line.startswith("\\"))
    with psycopg.connect(migrated_url) as connection:
        connection.execute("create schema tap")
        connection.execute("set local search_path = tap")
        connection.execute(statements.encode())
        connection.execute("grant usage on schema tap to public")
        connection.execute("grant execute on all functions in schema tap to public")
    return migrated_url


@pytest.fixture(params=["PostgreSQL 15", "embedded 18"])
def bare(request, postgres):
    """The URL of a database with nothing in it, as its owner, on either."""
    url = postgres.url("postgres") if request.param == "PostgreSQL 15" else request.getfixturevalue("embedded").owner_url
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create database bare")
        info = psycopg.conninfo.conninfo_to_dict(url)
        yield psycopg.conninfo.make_conninfo(**info | {"dbname": "bare"})
        connection.execute("drop database bare with (force)")


def older(monkeypatch, url, last="20261125001200_health"):
    """A database as a revision before the checksums made it."""
    with monkeypatch.context() as then:
        before, files = schema.embedded()[:2], [file for file in schema.migrations() if file.stem <= last]
        then.setattr(schema, "migrations", lambda: files)
        then.setattr(schema, "embedded", lambda: before)
        schema.migrate(url)
    with psycopg.connect(url) as connection:
        connection.execute("alter table embedded.migrations drop column sha256")


def newer(last):
    """The files that `older` leaves out, in the order in which they are applied."""
    known = "20261125001200_health"
    before, later = (
        [file.stem for file in schema.migrations() if (file.stem <= known) == early and file.stem > last] for early in (True, False)
    )
    return before + [file.stem for file in schema.embedded()[2:]] + later


def fill(call):
    """Rows of every kind, by functions as both the first schema and this one have them: users who bought, spoke, cloned and left. Returns their ids."""
    users = {}

    def job(name, key, text="Hello there."):
        given = {"idempotency_key": key, "fingerprint": "f", "text": text, "token_hash": key}
        return call("process_audio_request", user_id=users[name], **given)["job"]["id"]

    for name in ("anna", "ben", "gone"):
        users[name] = call("", email=f"{name}@example.com")
        call("grant_credits", user_id=users[name], credits=1000, reference="gift")
        call("create_api_key", user_id=users[name], name="key", prefix=name, hash="a" * 64, scopes=["speak"])
        voice = call("create_voice", user_id=users[name], name="Me", transcript="Hello.", content_type="audio/wav", bytes=5)["voice"]
        call("confirm_voice", user_id=users[name], voice_id=voice["id"], seconds=2, sha256="a" * 64)
        bought = {"user_id": users[name], "credits": 10_000, "customer": f"cus_{name}"}
        call("apply_stripe_event", event_id=f"bought {name}", type="t", reference=f"pi_{name}", kind="purchase", **bought)
    call("apply_stripe_event", event_id="refund", type="t", reference="pi_ben", kind="refund")
    call("apply_stripe_event", event_id="dispute", type="t", reference="pi_anna", kind="dispute")
    for name, user in users.items():
        made = job(name, "made")
        call("start_job", job_id=made, backend="fishserve")
        call(
            "settle_job",
            job_id=made,
            seconds=0.8,
            frames=17,
            bytes=9,
            sha256="a" * 64,
            object_key=f"results/users/{user}/jobs/{made}.mp3",
        )
        call("refund_job", job_id=job(name, "failed"), status="failed", error="it broke")
        call("cancel_job", user_id=user, job_id=job(name, "cancelled"))
        call("start_job", job_id=job(name, "running"), backend="runpod", backend_id="a")
        job(name, "queued")
    call("close_account", user_id=users["gone"])
    return users

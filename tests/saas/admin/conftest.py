"""The desk's commands, in this process, as their operator sees them."""

import json
from dataclasses import dataclass
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from inference.cli import app
from inference.errors import FishserveError
from saas.settings import Settings, variable

SHA = "a" * 64


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it printed."""

    code: int
    out: str
    words: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def told(data, monkeypatch):
    """The environment of the commands: the database and nothing else."""
    for name in Settings.model_fields:
        monkeypatch.delenv(variable(name), raising=False)
    monkeypatch.setenv("DATABASE_URL", data.url)
    monkeypatch.setenv("COLUMNS", "200")
    return monkeypatch.setenv


@pytest.fixture
def operate(told):
    """Run `fishserve saas ...`."""

    def operate(*arguments, **environment):
        for name, value in environment.items():
            told(name, value)
        ran = CliRunner().invoke(app, ["saas", *map(str, arguments)])
        if isinstance(ran.exception, FishserveError):  # inference.cli.main says it, and exits with 2
            return Said(2, ran.stdout, str(ran.exception))
        assert isinstance(ran.exception, SystemExit | None), ran.exception
        return Said(ran.exit_code, ran.stdout, " ".join(ran.stderr.split()))

    return operate


@pytest.fixture
def desk(operate):
    """Run `fishserve saas admin ...`."""
    return lambda *arguments, **environment: operate("admin", *arguments, **environment)


def queued(database, user, text="Hello there, this is a text.", key=None):
    """A job that waits."""
    taken = database.call(
        "process_audio_request", user_id=user, idempotency_key=key or uuid4().hex, fingerprint="f", text=text, token_hash=SHA
    )
    return taken["job"]["id"]


def paid(database, user, payment, credits=10_000, cents=500, currency="usd"):
    """A payment as its webhook books it."""
    database.call(
        "apply_stripe_event", event_id=f"evt_{payment}", type="checkout.session.completed", user_id=user, credits=credits, reference=payment,
        kind="purchase", cents=cents, currency=currency, pack="small", customer="cus_1",
    )  # fmt: skip


def acts(database, target):
    return database.sql("select actor, action, target, reason, details from admin_actions where target = %s order by id", str(target))

"""What the desk prints: rows as tables, or as JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from saas.books.money import amount

Row = dict[str, Any]
Column = tuple[str, Callable[[Row], Any]]
_PIPED_WIDTH = 240


def show(rows: Iterable[Row], columns: list[Column], title: str = "") -> None:
    """Print rows as a table."""
    console = _console()
    table = Table(title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for heading, _ in columns:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(_text(value(row)) for _, value in columns))
    console.print(table if table.row_count else f"{title + ': ' if title else ''}none")


def show_fields(row: Row, title: str = "") -> None:
    """Print one row, a line for each of its fields that says something."""
    lines = {name.replace("_", " "): _text(value) for name, value in row.items() if value not in (None, {}, [])}
    width = max(map(len, lines), default=0)
    _console().print("\n".join(filter(None, [title, *(f"{name:<{width}}  {text}" for name, text in lines.items())])), soft_wrap=True)


def show_json(value: Any) -> None:
    """Print what the database answered."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def field(name: str) -> Callable[[Row], Any]:
    """A field as it is."""
    return lambda row: row.get(name)


def at(name: str) -> Callable[[Row], Any]:
    """A time, in UTC to the minute."""
    return lambda row: f"{datetime.fromisoformat(row[name]):%Y-%m-%d %H:%M}" if row.get(name) else None


def money(name: str) -> Callable[[Row], Any]:
    """An amount of the row's currency."""
    return lambda row: amount(row[name], row["currency"]) if row.get(name) is not None else None


def number(name: str) -> Callable[[Row], Any]:
    """A number with commas."""
    return lambda row: f"{row[name]:,}" if row.get(name) is not None else None


def _console() -> Console:
    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else _PIPED_WIDTH)


def _text(value: Any) -> str:
    """One line without control characters: a user chose some of it."""
    if value is None:
        return ""
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    elif isinstance(value, dict):
        value = ", ".join(f"{name} {part}" for name, part in value.items())
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value))


USERS: list[Column] = [
    ("user", field("id")), ("email", field("email")), ("balance", number("balance")), ("debt", number("debt")), ("plan", field("plan")),
    ("since", at("created_at")), ("suspended until", at("suspended_until")), ("closed", at("closed_at")),
]  # fmt: skip
LEDGER: list[Column] = [
    ("entry", field("id")), ("at", at("created_at")), ("email", field("email")), ("kind", field("kind")), ("amount", number("amount")),
    ("balance", number("balance_after")), ("for", lambda row: row.get("job_id") or row.get("reference")),
]  # fmt: skip
ENTRIES: list[Column] = [column for column in LEDGER if column[0] != "email"]
JOBS: list[Column] = [
    ("job", field("id")), ("at", at("created_at")), ("email", field("email")), ("status", field("status")), ("characters", number("characters")),
    ("seconds", field("seconds")), ("reserved", number("reserved")), ("charged", number("charged")), ("backend", field("backend")),
    ("tries", field("attempts")), ("error", field("error")),
]  # fmt: skip
PAYMENTS: list[Column] = [
    ("payment", field("reference")), ("at", at("created_at")), ("email", field("email")), ("paid", money("amount_cents")),
    ("returned", money("returned_cents")), ("credits", number("credits")), ("taken back", number("taken")), ("pack", field("pack")),
]  # fmt: skip
RETURNS: list[Column] = [
    ("of", field("reference")), ("id", field("id")), ("kind", field("kind")), ("amount", money("cents")), ("at", at("created_at")), ("undone", field("undone")),
]  # fmt: skip
KEYS: list[Column] = [
    ("key", field("id")), ("name", field("name")), ("prefix", field("prefix")), ("scopes", field("scopes")), ("made", at("created_at")),
    ("used", at("last_used_at")), ("revoked", at("revoked_at")),
]  # fmt: skip
ACTIONS: list[Column] = [
    ("act", field("id")), ("at", at("at")), ("operator", field("actor")), ("did", field("action")), ("to", field("target")), ("reason", field("reason")),
    ("details", field("details")),
]  # fmt: skip
REVENUE: list[Column] = [
    ("day", field("day")), ("payments", number("payments")), ("paid", money("paid_cents")), ("refunded", money("refunded_cents")),
    ("disputed", money("disputed_cents")), ("net", money("net_cents")), ("credits sold", number("credits")),
]  # fmt: skip
WAITING: list[Column] = [
    ("user", field("user_id")), ("email", field("email")), ("waiting", number("waiting")), ("running", number("running")), ("reserved", number("reserved")),
]  # fmt: skip
WORKERS: list[Column] = [
    ("backend", field("backend")), ("running", field("running")), ("lapsed", field("lapsed")), ("succeeded", field("succeeded")),
    ("failed", field("failed")), ("cancelled", field("cancelled")), ("expired", field("expired")), ("retried", field("retried")),
    ("audio seconds", field("audio_seconds")), ("median seconds", field("median_seconds")), ("last success", at("last_success")),
]  # fmt: skip
PRICES: list[Column] = [
    ("price", field("id")), ("name", field("name")), ("credits a second", field("credits_per_second")), ("minimum", number("minimum")),
    ("characters a second", field("characters_per_second")), ("active", field("active")), ("since", at("created_at")),
]  # fmt: skip
BLOCKED: list[Column] = [
    ("voice", field("voice_id")), ("clip (SHA-256)", field("sha256")), ("voices", number("voices")), ("since", at("created_at")),
    ("operator", field("actor")), ("reason", field("reason")),
]  # fmt: skip
REPORTS: list[Column] = [
    ("report", field("id")), ("at", at("created_at")), ("of", field("kind")), ("subject", field("subject")), ("details", field("details")),
    ("contact", field("contact")), ("user", field("user_id")), ("closed", at("closed_at")), ("by", field("closed_by")), ("outcome", field("outcome")),
]  # fmt: skip
PLANS: list[Column] = [
    ("plan", field("id")), ("name", field("name")), ("price", money("amount_cents")), ("a", field("period")), ("credits", number("credits")),
    ("weight", field("weight")), ("running", number("max_running")), ("waiting", number("max_waiting")), ("for sale", lambda row: row["active"] and bool(row["stripe_price"])),
]  # fmt: skip
PACKS: list[Column] = [("pack", field("id")), ("credits", number("credits")), ("price", money("amount_cents")), ("active", field("active"))]

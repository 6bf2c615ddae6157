"""What messages say. Each has a subject, a heading, paragraphs and perhaps a button; plain text and HTML are made of the same words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from html import escape
from pathlib import Path
from string import Template
from typing import Any, Literal, get_args

from saas.books.money import amount

Kind = Literal["credits_low", "receipt", "key_created", "webhook_disabled", "account_closed", "dispute"]
NAME = "fishserve"
"""Who writes, where the sender's address has no name."""
_LAYOUT = Template((Path(__file__).parent / "layout.html").read_text(encoding="utf-8"))
_PARAGRAPH = '<p style="margin: 0 0 12px;">{}</p>\n'
_BUTTON = (
    '<p style="margin: 20px 0 4px;"><a href="{}" style="display: inline-block; padding: 11px 20px; border-radius: 8px; background: #0b6b5d; '
    'color: #ffffff; font-weight: 600; text-decoration: none;">{}</a></p>\n'
)


@dataclass(frozen=True)
class Words:
    """A message before its values are filled in, as `$name`. `button`: its label and its address."""

    subject: str
    heading: str
    paragraphs: tuple[str, ...]
    button: tuple[str, str] | None = None
    footer: str = "You get this message since you have an account at $brand: $app"


WORDS: dict[Kind, Words] = {
    "credits_low": Words(
        "Your credits are running low",
        "$credits credits are left",
        ("When they are used up, speech stops until you get more.",),
        ("Get credits", "$app/credits"),
    ),
    "receipt": Words(
        "Your receipt: $money",
        "Thank you for your payment",
        ("You paid $money for $credits credits. They are in your account.", "Payment: $reference"),
        ("Open the receipt", "$url"),
    ),
    "key_created": Words(
        "A new API key: $name",
        "A new API key was made",
        (
            "The key “$name” (fsk_${prefix}_…) can now speak in your name and spend your credits.",
            "If it was not you, revoke it at once, and set a new password.",
        ),
        ("Look at your keys", "$app/keys"),
    ),
    "webhook_disabled": Words(
        "Your webhook was disabled",
        "Deliveries to your webhook fail",
        (
            "Nothing arrived at $url for three days, or it said that it is gone. Nothing more is sent there.",
            "Once it answers again, send it a test: one that arrives enables it.",
        ),
        ("Look at the log", "$app/settings"),
    ),
    "account_closed": Words(
        "Your account was closed",
        "Your account was closed",
        (
            "Your voices, your speech, your keys and your credits are deleted, and nobody can bring them back.",
            "If it was not you, answer this message.",
        ),
        footer="This is the last message to this address: it is kept no longer.",
    ),
    "dispute": Words(
        "Dispute over $money",
        "A buyer disputes $money",
        (
            "Payment: $reference. Dispute: $dispute. User: $user_id.",
            "The credits of that money were taken back. Answer at Stripe before its deadline; if the dispute is won, they are given again.",
            "To look at the account: fishserve saas admin show $reference",
        ),
        footer="You get this message as the operator of $app",
    ),
}


def compose(
    kind: Kind, data: Mapping[str, Any], *, sender: str, to: str, reply_to: str, app: str, name: str, written_at: datetime
) -> EmailMessage:  # fmt: skip
    """A message, as plain text and as HTML. `name` tells it from all others. `reply_to` is empty where the sender reads answers.

    Raises ValueError for addresses that are none.
    """
    message = EmailMessage()
    message["From"] = sender
    message["To"] = _address(to)
    if reply_to:
        message["Reply-To"] = _address(reply_to)
    values = _values(kind, data) | {"app": app, "brand": brand(message)}
    words = WORDS[kind]
    message["Subject"] = " ".join(Template(words.subject).substitute(values).split())
    message["Date"] = format_datetime(written_at)
    message["Message-ID"] = f"<{name}@{message['From'].addresses[0].domain}>"
    message["Auto-Submitted"] = "auto-generated"  # no answering machine answers
    message.set_content(plain(words, values))
    message.add_alternative(html(words, values), subtype="html")
    return message


def _address(spec: str) -> Address:
    try:
        return Address(addr_spec=spec)
    except (MessageError, IndexError):  # beside ValueError
        raise ValueError("that is no address of a mailbox") from None


def brand(message: EmailMessage) -> str:
    """The name in front of the sender's address."""
    sender: Address = message["From"].addresses[0]
    return sender.display_name or NAME


def plain(words: Words, values: Mapping[str, str]) -> str:
    """A message as text."""
    parts = [words.heading, *words.paragraphs]
    if words.button and _leads_somewhere(words.button, values):
        parts.append(f"{words.button[0]}: {words.button[1]}")
    return "\n\n".join(Template(part).substitute(values) for part in [*parts, f"-- \n{words.footer}"]) + "\n"


def html(words: Words, values: Mapping[str, str]) -> str:
    """A message as HTML. All values are escaped."""
    safe = {name: escape(value) for name, value in values.items()}

    def filled(part: str) -> str:
        return Template(escape(part, quote=False)).substitute(safe)

    button = ""
    if words.button and _leads_somewhere(words.button, values):
        button = _BUTTON.format(filled(words.button[1]), filled(words.button[0]))
    paragraphs = "".join(_PARAGRAPH.format(filled(part)) for part in words.paragraphs)
    return _LAYOUT.substitute(
        subject=filled(words.subject), heading=filled(words.heading), paragraphs=paragraphs, button=button, brand=safe["brand"],
        footer=filled(words.footer),
    )  # fmt: skip


def _leads_somewhere(button: tuple[str, str], values: Mapping[str, str]) -> bool:
    return Template(button[1]).substitute(values) != ""


def _values(kind: Kind, data: Mapping[str, Any]) -> dict[str, str]:
    """What the database says, as people write it. A link is one to Stripe or to the app."""
    values = {name: "" if value is None else str(value) for name, value in data.items()}
    if data.get("credits") is not None:
        values["credits"] = f"{data['credits']:,}"
    if kind in ("receipt", "dispute"):
        values["money"] = amount(data["cents"], data.get("currency"))
    if kind == "receipt" and not values.get("url", "").startswith("https://"):
        values["url"] = ""  # Stripe has not told where it is
    return values


assert set(WORDS) == set(get_args(Kind))

"""Where mail goes: to an SMTP server, or into a folder where there is none."""

from __future__ import annotations

import os
import secrets
import smtplib
import ssl
import time
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from inference.errors import FishserveError

SECONDS = 15
"""How long an SMTP server may take over one of its answers."""


class MailRefused(FishserveError):
    """The message was not accepted. `final`: nor will it be later."""

    def __init__(self, message: str, *, final: bool) -> None:
        super().__init__(message)
        self.final = final


class Transport(Protocol):
    """Takes one message at a time, and blocks until it is taken."""

    def send(self, message: EmailMessage) -> None:
        """Hand a message over. Raises MailRefused."""


@dataclass(frozen=True)
class Smtp:
    """An SMTP server: `smtps://` by TLS from the beginning, `smtp://` by STARTTLS, without which only this machine is spoken to."""

    url: str

    def send(self, message: EmailMessage) -> None:
        try:
            self._send(message)
        except smtplib.SMTPRecipientsRefused as e:
            code = next(iter(e.recipients.values()))[0]
            raise MailRefused(f"the server refuses the recipient ({code})", final=500 <= code < 600) from None
        except smtplib.SMTPResponseException as e:  # its words may quote the address
            raise MailRefused(f"the server answered {e.smtp_code}", final=False) from None
        except (smtplib.SMTPException, OSError) as e:
            raise MailRefused(f"the server cannot be used: {type(e).__name__}", final=False) from None

    def _send(self, message: EmailMessage) -> None:
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        tls = ssl.create_default_context()
        if parts.scheme == "smtps":
            connection: smtplib.SMTP = smtplib.SMTP_SSL(host, parts.port or 465, timeout=SECONDS, context=tls)
        else:
            connection = smtplib.SMTP(host, parts.port or 587, timeout=SECONDS)
        with connection:
            if parts.scheme == "smtp" and host not in ("127.0.0.1", "::1", "localhost"):
                connection.starttls(context=tls)
            if parts.username:
                connection.login(unquote(parts.username), unquote(parts.password or ""))
            connection.send_message(message)


@dataclass(frozen=True)
class Folder:
    """A folder of messages, readable by the server's administrator alone."""

    path: Path

    def send(self, message: EmailMessage) -> None:
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(self.path / f"{time.time_ns()}.eml", message.as_bytes())


def write_private(file: Path, content: bytes) -> None:
    """Write a file that its owner alone can read, whole or not at all."""
    half = file.with_suffix(f".{secrets.token_hex(4)}")
    with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(content)
    half.rename(file)

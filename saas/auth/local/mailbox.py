"""Outgoing mail of embedded mode: there is no mail server, so messages are files in the data folder."""

import os
import secrets
import sys
import time
from email.message import EmailMessage
from pathlib import Path

from saas.auth.local.schemas import Purpose

_MESSAGES: dict[Purpose, tuple[str, str]] = {
    "signup": ("Confirm your address", "Open this link to confirm your address and sign in:"),
    "magiclink": ("Your sign-in link", "Open this link to sign in:"),
    "recovery": ("Choose a new password", "Open this link to sign in and choose a new password:"),
}


class Mailbox:
    """A folder of messages, readable by the server's administrator alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def send_link(self, to: str, purpose: Purpose, link: str) -> None:
        """Send a link that signs in once; on a terminal, print it too."""
        subject, words = _MESSAGES[purpose]
        self.post(to, subject, f"{words}\n\n{link}\n\nIt works once, for one hour.\n")
        if sys.stderr.isatty():  # a stored log must not contain a link that signs in
            print(f"Mail to {to}: {words} {link}", file=sys.stderr, flush=True)

    def post(self, to: str, subject: str, text: str) -> None:
        """Write a message into the folder."""
        message = EmailMessage()
        message["To"], message["Subject"] = to, subject
        message.set_content(text, cte="7bit")  # a long line stays whole, so that its link can be copied from the file
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(self._folder / f"{time.time_ns()}.eml", message.as_bytes())


def write_private(file: Path, content: bytes) -> None:
    """Write a file that its owner alone can read, whole or not at all."""
    half = file.with_suffix(f".{secrets.token_hex(4)}")
    with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(content)
    half.rename(file)

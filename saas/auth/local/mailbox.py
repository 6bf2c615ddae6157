"""Outgoing mail of embedded mode: there is no mail server, so messages are files in the data folder."""

import sys
from email.message import EmailMessage
from pathlib import Path

from saas.auth.local.schemas import Purpose
from saas.mail.transport import Folder

_MESSAGES: dict[Purpose, tuple[str, str]] = {
    "signup": ("Confirm your address", "Open this link to confirm your address and sign in:"),
    "magiclink": ("Your sign-in link", "Open this link to sign in:"),
    "recovery": ("Choose a new password", "Open this link to sign in and choose a new password:"),
}


class Mailbox:
    """Writes messages into a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = Folder(folder)

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
        self._folder.send(message)

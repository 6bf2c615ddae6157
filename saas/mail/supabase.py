"""The messages that Supabase sends by itself, in the layout of ours: `python -m saas.mail.supabase FOLDER NAME` writes them, to be pasted there."""

from __future__ import annotations

import sys
from pathlib import Path

from saas.mail.messages import NAME, Words, html

_UNASKED = "If you did not ask for it, ignore this message."
_ONCE = "The link works once, for one hour, in the browser that asked for it."
WORDS = {
    "confirm-signup": Words(
        "Confirm your address",
        "Confirm your address",
        ("Open this link to confirm your address and sign in.", _ONCE),
        ("Confirm", "{{ .ConfirmationURL }}"),
        _UNASKED,
    ),
    "magic-link": Words(
        "Your sign-in link", "Sign in", ("Open this link to sign in.", _ONCE), ("Sign in", "{{ .ConfirmationURL }}"), _UNASKED
    ),
    "reset-password": Words(
        "Choose a new password",
        "Choose a new password",
        ("Open this link to sign in and choose a new password.", _ONCE),
        ("Choose a password", "{{ .ConfirmationURL }}"),
        _UNASKED,
    ),
    "change-email-address": Words(
        "Confirm your new address",
        "Confirm your new address",
        ("Open this link to change your address from {{ .Email }} to {{ .NewEmail }}.", _ONCE),
        ("Change my address", "{{ .ConfirmationURL }}"),
        _UNASKED,
    ),
    "reauthentication": Words(
        "Your code: {{ .Token }}", "Your code is {{ .Token }}", ("Type it where you were asked for it.",), None, _UNASKED
    ),
}


def write(folder: Path, name: str = NAME) -> None:
    """Write a file for each template of Supabase's dashboard; its title is the subject. `name`: that of the service."""
    folder.mkdir(parents=True, exist_ok=True)
    for template, words in WORDS.items():
        (folder / f"{template}.html").write_text(html(words, {"brand": name}), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]), *sys.argv[2:3])

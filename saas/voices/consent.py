"""The wordings of the consent to imitate a voice. The database keeps the version that a user agreed to, so a wording that was shown never changes."""

from __future__ import annotations

WORDINGS = {"2026-11": "This is my own voice, or its owner has agreed to this use."}
"""By version. A new wording is a new entry, the last one."""
VERSION, WORDING = next(reversed(WORDINGS.items()))
"""The current one."""

"""The browser that tests and pictures use."""

from pathlib import Path

_SHELL = Path("/usr/bin/chromium-headless-shell")
CHROMIUM = str(_SHELL) if _SHELL.exists() else "/usr/bin/chromium"
"""Without a window the shell does the same in half the processor's time."""

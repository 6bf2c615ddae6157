"""Where a running `fishserve saas --embedded` is, for the other commands on this machine. Needs nothing but its data folder."""

from __future__ import annotations

from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path

_ADDRESS = "address"


def remember(directory: Path, url: str) -> None:
    """Store the API's address."""
    (directory / _ADDRESS).write_text(url, encoding="utf-8")


def address(directory: Path) -> str | None:
    """The URL of the API that runs on a data folder, or None if none is running."""
    with suppress(OSError), (directory / "lock").open("r+") as lock:
        try:
            flock(lock, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            return (directory / _ADDRESS).read_text(encoding="utf-8")
    return None


def database_url(directory: Path) -> str | None:
    """The URL of the embedded database while it runs, for the role that may only call functions."""
    if address(directory) is None:
        return None
    with suppress(OSError, IndexError):
        socket = (directory.resolve() / "postgres" / "data" / "postmaster.pid").read_text().splitlines()[4]
        return f"postgresql://fishserve@/fishserve?host={socket}"
    return None

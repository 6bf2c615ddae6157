"""Where a running `fishserve saas --embedded` is, for the other commands on this machine. Needs nothing but its data folder."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path

from pydantic import SecretStr

from inference.errors import RequestError
from saas.settings import Settings

_ADDRESS, _SERVICES = "address", "services.json"
_OPEN = ("r2_endpoint", "r2_access_key_id", "r2_bucket_name", "fishserve_url")
_SECRET = ("r2_secret_access_key", "fishserve_key")


def remember(directory: Path, settings: Settings) -> None:
    """Store the API's address and, for its owner alone, how to reach the bucket and the engine."""
    known = {name: getattr(settings, name) for name in _OPEN} | {name: getattr(settings, name).get_secret_value() for name in _SECRET}
    file = directory / _SERVICES
    file.unlink(missing_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
        json.dump(known, out)
    (directory / _ADDRESS).write_text(settings.public_url, encoding="utf-8")


def reached(settings: Settings) -> Settings:
    """The settings, completed where they name no database by those of the running `--embedded`. Raises RequestError if none runs."""
    if settings.is_configured:
        return settings
    url = database_url(settings.directory)
    if url is None:
        raise RequestError(
            f"no database: start `fishserve saas --embedded` on {settings.directory} (`make saas`) first, "
            "or set DATABASE_URL, or SUPABASE_URL and SUPABASE_SECRET_KEY"
        )
    known = {}
    with suppress(OSError, ValueError):
        known = json.loads((settings.directory / _SERVICES).read_text(encoding="utf-8"))
    known |= {name: SecretStr(known[name]) for name in _SECRET if name in known}
    return settings.model_copy(update=known | {"database_url": SecretStr(url), "environment": "embedded"})


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

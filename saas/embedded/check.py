"""`fishserve saas check` where `fishserve saas --embedded` runs: what that needs, which is less than what customers need."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
from pydantic import SecretStr
from rich.console import Console

from saas import web
from saas.embedded.running import database_url
from saas.go_live_check import SECONDS, Item, database, guarded, show
from saas.settings import Settings


def examine(settings: Settings, url: str, console: Console) -> bool:
    """Check the API at `url`, its database and its app. Returns whether nothing is wrong."""
    console.print(f"Embedded mode at {url}: for trying it out on one machine. docs/go-live.md lists what serving customers takes.")
    return show(asyncio.run(look(settings, url)), console)


async def look(settings: Settings, url: str) -> list[Item]:
    """Check every item."""
    here = settings.model_copy(update={"public_url": url, "database_url": SecretStr(database_url(settings.directory) or "")})
    async with httpx.AsyncClient(timeout=SECONDS, follow_redirects=False, trust_env=False) as http:
        looking = {"API": _api, "database": database, "app": _app}
        return [item for name, one in looking.items() for item in await guarded(name, one, here, http)]


async def _api(settings: Settings, http: httpx.AsyncClient) -> AsyncIterator[Item]:
    ready = await http.get(f"{settings.public_url}/readyz")
    found = f"/readyz answers {ready.status_code}"
    yield Item("API", "ok", found) if ready.is_success else Item("API", "wrong", found, str(ready.json().get("database", "")))


async def _app(settings: Settings, _: httpx.AsyncClient) -> AsyncIterator[Item]:
    if web.is_built():
        yield Item("app", "ok", settings.app)
    else:
        yield Item("app", "look", "not built", "install Node 20.19 or newer, run `make web`, and start again")

"""The database over Supabase's API, by its own client: functions are called by `rpc` with the secret key, tables are never touched."""

from __future__ import annotations

from typing import Any

import httpx
from postgrest.exceptions import APIError
from supabase import AsyncClient, AsyncClientOptions

from saas.database import Unavailable, failure, named, persistently


class SupabaseDatabase:
    """A project, with its address and its secret (or older service_role) key. Raises SupabaseException for an invalid address."""

    def __init__(self, url: str, key: str, connections: int = 20) -> None:
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._http = httpx.AsyncClient(timeout=None, limits=limits)  # a call has its own timeout
        options = AsyncClientOptions(httpx_client=self._http, auto_refresh_token=False, persist_session=False)
        self._client = AsyncClient(url, key, options)

    async def call(self, function: str, **arguments: Any) -> Any:
        async def attempt() -> Any:
            try:
                return (await self._client.rpc(function, named(arguments)).execute()).data
            except APIError as e:
                raise failure(function, e.code, e.message) from None
            except httpx.HTTPError as e:
                raise Unavailable(f"{function}: Supabase cannot be reached ({type(e).__name__})") from None

        return await persistently(function, attempt)

    async def close(self) -> None:
        await self._http.aclose()

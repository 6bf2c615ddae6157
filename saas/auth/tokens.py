"""Sessions: JSON Web Tokens of Supabase, verified here by its public keys."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from uuid import UUID

import httpx
import jwt

from saas.auth.caller import SCOPES, Caller
from saas.errors import ApiError
from saas.settings import Settings

ALGORITHMS = ["ES256", "RS256"]
LIFE = 600.0
"""Seconds after which the public keys are fetched again; from then on, a revoked key verifies no sessions."""
PAUSE = 10.0
"""Seconds between two fetches, even if many tokens name an unknown key."""
SECONDS = 5.0
"""How long the issuer may take to send its keys."""
LEEWAY = 60
"""Seconds that the clocks of the issuer and of this machine may differ."""
_CHALLENGE = {"WWW-Authenticate": "Bearer"}
_CLAIMS = ["exp", "sub", "aud", "iss"]


class SessionExpired(ApiError):
    """A session of ours that has ended. `role`: as Caller's."""

    def __init__(self, role: str | None) -> None:
        super().__init__(401, "this session has expired; sign in again", "session_expired", headers=_CHALLENGE)
        self.role = role


class Tokens:
    """Verifies tokens; keeps the issuer's public keys."""

    def __init__(self, settings: Settings, http: httpx.AsyncClient) -> None:
        self._http, self._issuer, self._audience = http, settings.issuer, settings.jwt_audience
        self._secret = settings.legacy_jwt_secret
        self._keys: dict[str, jwt.PyJWK] = {}
        self._asked = self._got = float("-inf")
        self._asking = asyncio.Lock()

    async def caller(self, token: str) -> Caller:
        """The user whose session it is. Raises ApiError 401 (SessionExpired), or 503 when there are no keys to verify the token with."""
        try:
            claims = self._legacy(token) if self._secret is not None else await self._verified(token)
            if claims.get("role", "authenticated") != "authenticated":
                raise jwt.InvalidTokenError("its role is not authenticated")
            user = UUID(str(claims["sub"]))
        except jwt.ExpiredSignatureError:  # so its signature is good
            raise SessionExpired(_role(jwt.decode(token, options={"verify_signature": False}))) from None
        except (jwt.PyJWTError, ValueError):
            raise ApiError(401, "this is no valid session's token; sign in again", "invalid_session", headers=_CHALLENGE) from None
        email = claims.get("email")
        return Caller(user, None, SCOPES, email if isinstance(email, str) else None, _role(claims), _signed_in_at(claims))

    async def _verified(self, token: str) -> dict[str, Any]:
        """Verify a token with a public key. We choose the allowed algorithms, not the token; none of them uses a shared secret."""
        header = jwt.get_unverified_header(token)
        key = await self._key(str(header.get("kid", "")))
        if key is None or header.get("alg") not in ALGORITHMS:
            raise jwt.InvalidTokenError("its key or algorithm is not known")
        return jwt.decode(token, key, ALGORITHMS, audience=self._audience, issuer=self._issuer, leeway=LEEWAY, options={"require": _CLAIMS})

    def _legacy(self, token: str) -> dict[str, Any]:
        """Verify a token with the shared secret of a project that still signs with one, if the settings name it."""
        assert self._secret is not None
        secret = self._secret.get_secret_value()
        return jwt.decode(
            token, secret, ["HS256"], audience=self._audience, issuer=self._issuer, leeway=LEEWAY, options={"require": _CLAIMS}
        )

    async def _key(self, kid: str) -> jwt.PyJWK | None:
        if self._wanting(kid) or (kid not in self._keys and self._asking.locked()):
            async with self._asking:
                if self._wanting(kid):  # no other request has fetched the keys meanwhile
                    await self._fetch()
        if not self._keys:
            raise ApiError(
                503, "sessions cannot be verified just now; try again in a few seconds", "unavailable", headers={"Retry-After": "5"}
            )
        return self._keys.get(kid)

    def _wanting(self, kid: str) -> bool:
        now = time.monotonic()
        return (kid not in self._keys or now - self._got > LIFE) and now - self._asked > PAUSE

    async def _fetch(self) -> None:
        """Fetch the keys. If that fails, keep the known ones, so that a short outage at Supabase does not sign everybody out."""
        self._asked = time.monotonic()
        try:
            answer = await self._http.get(f"{self._issuer}/.well-known/jwks.json", timeout=SECONDS)
            answer.raise_for_status()
            found = [jwt.PyJWK(entry) for entry in answer.json()["keys"] if entry.get("kid") and entry.get("kty") in ("EC", "RSA")]
        except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError, jwt.PyJWTError):
            return
        self._keys = {str(key.key_id): key for key in found}
        self._got = time.monotonic()


def _role(claims: dict[str, Any]) -> str | None:
    metadata = claims.get("app_metadata")
    role = metadata.get("role") if isinstance(metadata, dict) else None
    return role if isinstance(role, str) else None


def _signed_in_at(claims: dict[str, Any]) -> int | None:
    """The newest of `amr`, https://supabase.com/docs/guides/auth/jwt-fields. `iat` is when the token was last renewed, without a password."""
    found = claims.get("amr")
    entries = [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []
    times = [entry.get("timestamp") for entry in entries if entry.get("method") != "token_refresh"]
    return max((time for time in times if isinstance(time, int)), default=None)

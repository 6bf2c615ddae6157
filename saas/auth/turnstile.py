"""CAPTCHA verification by Cloudflare Turnstile. Anything but a clear yes is a no."""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr

from saas.errors import ApiError
from saas.settings import Settings

HEADER = "cf-turnstile-response"
Action = Literal["create-key", "sign-in", "sign-up", "report"]
"""The action that a widget is for. The app must give its widget the same name (`data-action`)."""
_LONGEST = 2048
SECONDS = 5.0
"""How long to wait for Cloudflare."""


class Turnstile:
    """Verifies tokens with Cloudflare. A token is valid once, for 300 s."""

    def __init__(self, settings: Settings, secret: SecretStr, http: httpx.AsyncClient) -> None:
        self._http, self._secret = http, secret
        self._address = f"{settings.turnstile_base_url}/turnstile/v0/siteverify"
        self._host = urlsplit(settings.app).hostname
        self._is_a_test = settings.turnstile_is_a_test  # for test secrets Cloudflare reports neither the host nor the action

    async def verify(self, token: str | None, action: Action) -> None:
        """Raises ApiError: 403 if the CAPTCHA failed or was for another page or action; 503 if Cloudflare gives no answer."""
        if not token or len(token) > _LONGEST:
            raise ApiError(403, f"the CAPTCHA token is missing; send it as {HEADER}", "turnstile_missing")
        answer = await self._ask(token)
        if answer.get("success") is not True:
            raise ApiError(403, "the CAPTCHA failed or its token was used before; try again", "turnstile_failed")
        if not self._is_a_test and (answer.get("hostname") != self._host or answer.get("action") != action):
            raise ApiError(403, "the CAPTCHA was solved on another page; solve it on this one", "turnstile_failed")

    async def _ask(self, token: str) -> dict[str, Any]:
        try:
            form = {"secret": self._secret.get_secret_value(), "response": token}
            answer = (await self._http.post(self._address, data=form, timeout=SECONDS)).json()
        except (httpx.HTTPError, ValueError):
            answer = None
        if not isinstance(answer, dict):
            raise ApiError(
                503,
                "the CAPTCHA could not be verified; try again in a few seconds",
                "unavailable",
                headers={"Retry-After": "5"},
            )
        return answer

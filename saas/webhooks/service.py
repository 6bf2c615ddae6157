"""Webhooks: tells customers by HTTP of what happened, signed as Standard Webhooks says.

The database writes a delivery in the transaction of what it tells of. Processes share the deliveries that are due; one that dies in the
middle delivers again, so that receivers may get a delivery twice, with the same `webhook-id`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_address
from typing import Any
from urllib.parse import SplitResult, urlsplit
from uuid import UUID

import httpx
from standardwebhooks.webhooks import Webhook as Signer

from inference.http.outbound import Pinned, PrivateHost, UnknownHost, public_address
from saas.database import Database, DatabaseError, Refused
from saas.errors import ApiError
from saas.jobs.loop import again, words
from saas.jobs.outcomes import POLL_SECONDS
from saas.observability import metrics, reports
from saas.settings import Settings
from saas.webhooks.repository import Order, WebhookRepository

log = logging.getLogger(__name__)
SECONDS = 10.0
"""How long an attempt may take, from the name server to the status of the answer."""
LEASE_SECONDS = 60.0
"""How long a process owns a delivery: longer than any attempt."""
AT_ONCE = 64
"""Deliveries under way in one process."""
EXPIRE_SECONDS = 60.0
_RESOLVERS = 16
_SECRET_BYTES = 32


class Webhooks:
    """Deliveries of one process. `run` works until it is cancelled."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.repository, self._loopback = WebhookRepository(database), settings.webhook_loopback
        self._threads = ThreadPoolExecutor(_RESOLVERS, "webhooks")
        self._tasks: set[asyncio.Task[None]] = set()
        for outcome in ("delivered", "retried", "failed"):  # that is 0 at first: a counter that begins at 1 has not grown
            metrics.DELIVERIES.labels(outcome)

    async def run(self) -> None:
        """Make the deliveries that are due, and forget old ones, until cancelled. What is under way then is made again later."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(again(self._deliver, 0))
                group.create_task(again(self._expire, EXPIRE_SECONDS))
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def check(self, url: str) -> None:
        """Raises ApiError 422 for an address that deliveries cannot go to."""
        try:
            async with asyncio.timeout(SECONDS):
                await self._address(url)
        except TimeoutError:
            raise _unfit(f"no name server knew the machine of the address within {SECONDS:g} s") from None
        except (UnknownHost, PrivateHost, ValueError) as e:
            raise _unfit(str(e)) from None

    async def test(self, user_id: UUID, endpoint_id: UUID) -> dict[str, Any]:
        """Try an endpoint now. Returns the fields of `Delivery`. Raises Refused, Unavailable."""
        tried = await self._attempt(await self.repository.test(user_id, endpoint_id, LEASE_SECONDS))
        if tried is None:
            raise Refused(404, f"the webhook {endpoint_id} has been deleted meanwhile")
        return tried

    async def _deliver(self) -> None:
        """Begin what is due, as far as there is room; then wait until something may have changed."""
        free = AT_ONCE - len(self._tasks)
        orders = await self.repository.claim(free, LEASE_SECONDS) if free else []
        for order in orders:
            task = asyncio.create_task(self._try(order))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if self._tasks and (orders or not free):
            await asyncio.wait(self._tasks, timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(POLL_SECONDS)

    async def _try(self, order: Order) -> None:
        try:
            await self._attempt(order)
        except DatabaseError as e:  # its lease ends, and it is made again
            log.warning("what came of the delivery %s could not be recorded: %s", order["id"], words(e))
        except Exception as e:
            log.error("the delivery %s is made again after an error in this program: %s", order["id"], type(e).__name__)
            reports.report(e, loop="webhooks")

    async def _attempt(self, order: Order) -> dict[str, Any] | None:
        begun = time.monotonic()
        status, error = await self._send(order)
        ended = await self.repository.end(order["id"], order["attempts"], status, error, round(1000 * (time.monotonic() - begun)))
        if ended["delivery"]:
            metrics.DELIVERIES.labels(ended["delivery"]["outcome"] or "retried").inc()
        if ended["disabled"]:
            log.warning("the webhook %s of a user was disabled: its deliveries fail", order["endpoint_id"])
        return ended["delivery"]

    async def _send(self, order: Order) -> tuple[int | None, str | None]:
        """Try once. Returns the status of the answer, None without one, and what was wrong, None where it was delivered.

        Of the answer nothing but the status is read: its content is nobody's here.
        """
        try:
            # The only limit: a second one, for parts of this, might end first and be told in another way.
            async with asyncio.timeout(SECONDS):
                transport = Pinned(await self._address(order["url"]))
                async with (
                    httpx.AsyncClient(transport=transport, timeout=None, follow_redirects=False, trust_env=False) as client,
                    client.stream("POST", order["url"], content=(body := _body(order)), headers=_headers(order, body)) as answer,
                ):
                    status = answer.status_code
        except TimeoutError:
            return None, f"no answer within {SECONDS:g} s"
        except (UnknownHost, PrivateHost, ValueError) as e:
            return None, str(e)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as e:
            return None, f"no connection: {type(e).__name__}"
        if 300 <= status < 400:
            return status, f"answered {status}; redirects are not followed"
        return status, None if 200 <= status < 300 else f"answered {status}"

    async def _address(self, url: str) -> str:
        """The IP address to connect to. Raises UnknownHost, PrivateHost, and ValueError for what is no address."""
        parts, port = _split(url)
        assert parts.hostname
        if parts.scheme == "https" or (self._loopback and parts.scheme == "http"):
            address = await public_address(parts.hostname, port, self._threads, loopback=self._loopback)
            if parts.scheme == "https" or ip_address(address).is_loopback:
                return address
        raise ValueError(f"an address begins with {parts.scheme[:20]!r}; it must be https")

    async def _expire(self) -> None:
        while await self.repository.expire():
            pass


def new_secret() -> str:
    """A secret as Standard Webhooks wants it."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def _split(url: str) -> tuple[SplitResult, int]:
    """An address's parts and its port. Raises ValueError for what is no address of a machine, or holds a password."""
    try:
        parts = urlsplit(url)
        port = parts.port or (80 if parts.scheme == "http" else 443)
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL):
        raise ValueError("the address cannot be read; it looks like https://example.com/hook") from None
    if not parts.hostname or parts.username is not None:
        raise ValueError("an address names a machine, and no user: https://example.com/hook")
    return parts, port


def _body(order: Order) -> bytes:
    return json.dumps(order["payload"], separators=(",", ":")).encode()


def _headers(order: Order, body: bytes) -> dict[str, str]:
    now = datetime.now(UTC)
    sign = partial(Signer.sign, msg_id=order["id"], timestamp=now, data=body.decode())
    return {
        "content-type": "application/json",
        "user-agent": "fishserve-webhooks",
        "accept-encoding": "identity",
        "webhook-id": order["id"],
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(sign(Signer(secret)) for secret in order["secrets"]),
    }


def _unfit(message: str) -> ApiError:
    return ApiError(422, f"deliveries cannot go there: {message}", "webhook_refused", "url")

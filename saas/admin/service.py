"""What the desk's commands and its routes have in common: what they show together, and the acts that take more than the database."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx

from inference.errors import ConfigurationError
from saas.admin.repository import ActRepository, DeskRepository, Operator, Row
from saas.billing.refunds import RefundRefused, Refunds
from saas.credits.aloud import aloud
from saas.database import Database, Refused
from saas.jobs.backend import BackendUnavailable, Queued, sha256
from saas.jobs.backend_choice import backend_of
from saas.jobs.servers import DNS
from saas.settings import Settings
from saas.storage.bucket import Bucket

HEALTH_SECONDS = 10


class Desk:
    """`look` and `act` are what the database alone can do. Every act is recorded. Methods raise Refused, Unavailable and what they name."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings, self.look, self.act = settings, DeskRepository(database), ActRepository(database)

    async def users(self, search: str | None, limit: int) -> list[Row]:
        """Users whose address contains `search`, the newest first; where there are none, the one that it names as `look.user` does."""
        found = await self.look.users(search, limit)
        named = await self.look.user(search) if search and not found else None
        return [named] if named else found

    async def user(self, who: str) -> Row:
        """As `look.user`. Raises Refused where there is none."""
        user = await self.look.user(who)
        if user is None:
            raise Refused(404, f"no user has the id, address, customer, key, job or payment {who!r}")
        return user

    async def account(self, who: str, limit: int) -> dict[str, Any]:
        """A user, with so many of the account's entries, jobs and payments, its keys, and what operators did."""
        user = await self.user(who)
        return {
            "user": user, "ledger": await self.look.ledger(user["id"], None, limit), "jobs": await self.look.jobs(user["id"], None, None, limit),
            "payments": await self.look.payments(user["id"], None, limit), "keys": await self.look.keys(user["id"]),
            "actions": await self.look.actions(None, user["id"], None, limit),
        }  # fmt: skip

    async def job(self, job_id: UUID) -> dict[str, Any]:
        """A job, its entries of the ledger, and what operators did to it."""
        return await self.look.job(job_id) | {"actions": await self.look.actions(str(job_id), None, None, 50)}

    async def payment(self, reference: str) -> Row:
        """A payment. Raises Refused where there is none."""
        payment = await self.look.payment(reference)
        if payment is None:
            raise Refused(404, f"there is no payment {reference!r}: refunds need its id, pi_...")
        return payment

    async def revenue(self, days: int) -> list[Row]:
        """Money by day and currency, of so many days up to today (UTC)."""
        today = datetime.now(UTC).date()
        return await self.look.revenue(today - timedelta(days=days - 1), today)

    async def workers(self, minutes: int) -> dict[str, Any]:
        """What became of each backend's jobs in the last minutes, and what the backend says of itself."""
        return {"jobs": await self.look.workers(minutes), "backend": await self.health()}

    async def suspend(self, by: Operator, user_id: str, days: int | None) -> Row:
        """Suspend an account for so many days; None: until it is lifted. Its waiting jobs end."""
        return await self.act.suspend(by, user_id, datetime.now(UTC) + timedelta(days=days) if days else None)

    async def cancel(self, by: Operator, job_id: UUID) -> Row:
        """End a job, and stop RunPod if it speaks it. A fishserve server stops when the API that streams from it next renews its lease."""
        async with httpx.AsyncClient() as http:
            queue = self._queue(http)
            done = await self.act.cancel_job(by, job_id)
            job = done["job"]
            if queue and job["backend"] == queue.name and job["backend_id"]:
                with suppress(BackendUnavailable):  # its worker ends by itself, and its file is deleted
                    await queue.cancel(job["backend_id"])
        return done

    async def retry(self, by: Operator, job_id: UUID) -> Row:
        """Speak the text of a job that ended without its result, as a new job. Its user pays for that one."""
        told = await self.act.job_text(job_id)
        if told["text"] is None:
            raise Refused(410, f"the text of the job {job_id} was deleted")
        read = await asyncio.to_thread(aloud, told["text"])
        async with httpx.AsyncClient() as http:
            queue = self._queue(http)
            token = queue.token(told["user_id"], f"retry {job_id}") if queue else secrets.token_hex(32)
        try:
            return await self.act.retry_job(by, job_id, sha256(token), read.letters, read.silence)
        except Refused as e:
            if e.status in (409, 410, 422):
                raise
            raise Refused(409, f"the job's user is refused it: {e.message}") from None  # in words for that user

    async def refund(self, by: Operator, payment: str, cents: int | None, returned: int | None = None) -> Row:
        """Give money back at Stripe, and take the credits that it bought. `cents` None: all that is left. `returned`: as much as the operator has
        seen to have gone back; where it is another sum by now, perhaps because this was asked for before, nothing is done.

        Raises ConfigurationError, RefundRefused, PaymentError.
        """
        secret = self._settings.stripe_secret_key
        if secret is None:
            raise ConfigurationError("STRIPE_SECRET_KEY is not set: no money can be refunded; it must be allowed to write Refunds")
        if returned is not None and (now := (await self.payment(payment))["returned_cents"]) != returned:
            raise Refused(409, f"{now} of the payment {payment} have gone back by now, not {returned}: look at it again")
        refunds = Refunds(self._settings, secret.get_secret_value())
        try:
            begun = await self.act.begin_refund(by, payment, cents)
            try:
                made = await refunds.make(payment, begun["cents"], begun["action"], again=begun["resumed"])
            except RefundRefused as e:
                await self.act.fail_refund(by, begun["action"], str(e))
                raise
            done = await self.act.end_refund(by, begun["action"], made.id, made.cents)
        finally:
            await refunds.close()
        return done | {"refund": made.id, "cents": made.cents, "currency": begun["currency"]}

    async def health(self) -> dict[str, Any]:
        """What the backend says of itself: `backend`, `answers`, and RunPod's workers and jobs, or the state of each fishserve server."""
        s = self._settings
        async with httpx.AsyncClient(timeout=HEALTH_SECONDS) as http:
            if s.runpod_endpoint_id and s.runpod_api_key:
                headers = {"Authorization": f"Bearer {s.runpod_api_key.get_secret_value()}"}
                return {"backend": "runpod"} | await _told(http, f"{s.runpod_base_url}/{s.runpod_endpoint_id}/health", headers)
            if not s.fishserve_urls:
                return {"backend": None, "answers": "no speech backend is configured here"}
            told = await asyncio.gather(*(_told(http, f"{url.removeprefix(DNS)}/ready") for url in s.fishserve_urls))
            if len(told) == 1:
                return {"backend": "fishserve"} | told[0]
            ready = sum(one["answers"] == "200" for one in told)
            return {"backend": "fishserve", "answers": f"{ready} of {len(told)} are ready"} | dict(zip(s.fishserve_urls, told, strict=True))

    def _queue(self, http: httpx.AsyncClient) -> Queued | None:
        """RunPod, where it is configured here."""
        if not self._settings.runpod_endpoint_id:
            return None
        backend = backend_of(self._settings, http, Bucket.of(self._settings))
        return backend if isinstance(backend, Queued) else None


async def _told(http: httpx.AsyncClient, url: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """What an address answers: the status as `answers`, and its JSON."""
    try:
        answer = await http.get(url, headers=headers)
        told = answer.json()
    except (httpx.HTTPError, ValueError) as e:
        return {"answers": f"does not answer: {type(e).__name__}"}
    return {"answers": str(answer.status_code)} | (told if isinstance(told, dict) else {})

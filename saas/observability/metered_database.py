"""A database wrapper that counts calls: every call that moves credits or ends jobs goes through it."""

from __future__ import annotations

import time
from typing import Any

from saas.database import Database
from saas.observability import metrics


class Counted:
    """Database wrapper that records metrics."""

    def __init__(self, database: Database) -> None:
        self._database = database
        for status in ("queued", "running", "succeeded", "failed", "cancelled", "expired"):
            metrics.JOBS.labels(status)  # that is 0 at first: a counter that begins at 1 has not grown
        for kind in ("purchased", "reserved", "charged", "returned"):
            metrics.CREDITS.labels(kind)

    async def call(self, function: str, **arguments: Any) -> Any:
        began = time.monotonic()
        try:
            answer = await self._database.call(function, **arguments)
        finally:
            metrics.DATABASE_SECONDS.labels(function).observe(time.monotonic() - began)
        _count(function, arguments, answer)
        return answer

    async def close(self) -> None:
        await self._database.close()


def _count(function: str, arguments: dict[str, Any], answer: Any) -> None:
    """Count the changes that a function's answer reports. A repeated call changes nothing and counts nothing."""
    if function == "request_speech" and not answer["replayed"]:
        metrics.JOBS.labels("queued").inc()
        metrics.CREDITS.labels("reserved").inc(answer["job"]["reserved"])
    elif function == "start_job":
        metrics.JOBS.labels("running").inc()
    elif function in ("settle_job", "refund_job", "cancel_job", "give_up_request") and answer["changed"]:
        _ended(answer["job"])
    elif function == "expire_reservations":
        for job in answer:
            _ended(job)
    elif function == "apply_stripe_event" and answer["applied"] and arguments.get("kind") == "purchase":
        metrics.CREDITS.labels("purchased").inc(arguments["credits"])


def _ended(job: dict[str, Any]) -> None:
    charged = job["charged"] or 0
    metrics.JOBS.labels(job["status"]).inc()
    metrics.CREDITS.labels("charged").inc(charged)
    metrics.CREDITS.labels("returned").inc(job["reserved"] - charged)

"""Figures that the database knows, for all processes: how many jobs wait and how long, and the money. Asked for when metrics are."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

from saas.database import Database, DatabaseError
from saas.observability import metrics

KEPT = 5.0
"""Seconds for which the figures are cached: counting them reads whole tables of accounts and payments."""

PUT_OFF_KINDS = ("customer", "object", "reservation", "credits")
"""The kinds of background work that SQL puts off when it fails."""


class Figures:
    """Brings the gauges up to date."""

    def __init__(self) -> None:
        self._asking = asyncio.Lock()
        self._last = float("-inf")

    async def refresh(self, database: Database) -> None:
        """Ask the database, unless it was asked just now. Where it does not answer, the gauges are not a number."""
        async with self._asking:
            if time.monotonic() - self._last <= KEPT:
                return
            try:
                _show(await database.call("operating_figures"))
                metrics.OLDEST_REPORT.set((await database.call("report_figures"))["oldest_seconds"])
                put_off = {row["kind"]: row["items"] for row in await database.call("put_off_figures")}
                for kind in PUT_OFF_KINDS:
                    metrics.PUT_OFF.labels(kind).set(put_off.get(kind, 0))
            except DatabaseError:
                _show(None)
            self._last = time.monotonic()


def _show(figures: dict[str, Any] | None) -> None:
    metrics.DATABASE_UP.set(figures is not None)
    for status in ("queued", "running"):
        metrics.JOBS_NOW.labels(status).set(figures[status] if figures else math.nan)
        metrics.OLDEST.labels(status).set(figures[f"oldest_{status}_seconds"] if figures else math.nan)
    metrics.DELETIONS.set(figures["deletions"] if figures else math.nan)
    metrics.OUTSTANDING.set(figures["credits"] if figures else math.nan)
    for row in figures["money"] if figures else ():
        metrics.MONEY.labels("paid", row["currency"]).set(row["paid"])
        metrics.MONEY.labels("returned", row["currency"]).set(row["returned"])

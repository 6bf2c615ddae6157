"""The audit: what of the ledger, the payments and the bucket does not agree, one sentence a difference."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

from inference.errors import ConfigurationError
from inference.text.captions import KEY_SUFFIX
from saas.admin.repository import DeskRepository
from saas.books.repository import BookRepository
from saas.books.stripe_books import StripeBooks
from saas.database import Database
from saas.settings import Settings
from saas.storage.bucket import RESULTS, VOICES, Bucket

SETTLED_HOURS = 3
"""Younger objects may belong to a job that has not ended: a reservation ends after two hours."""
_PAGE = 1000


class Audit:
    """One look at everything. `left_out` names what could not be compared because it is not configured here."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings, self._database, self._books = settings, database, BookRepository(database)
        self.left_out: list[str] = []

    async def reachable(self) -> None:
        """Raises Unavailable where the database does not answer."""
        await self._books.reachable()

    async def differences(self, days: int) -> AsyncIterator[str]:
        """Sentences, one for each difference. Stripe is asked about the payments of so many days.

        Raises PaymentError, StorageError, Refused, Unavailable.
        """
        for row in await self._books.ledger():
            yield _of_ledger(row)
        for row in await self._books.payments():
            yield _of_payment(row)
        if self._settings.stripe_secret_key is None:
            self.left_out.append("Stripe was not asked: STRIPE_SECRET_KEY is not set")
        else:
            stripe = StripeBooks(self._settings, self._settings.stripe_secret_key.get_secret_value())
            try:
                async for said in stripe.differences(self._books, DeskRepository(self._database), days):
                    yield said
            finally:
                await stripe.close()
        try:
            bucket = Bucket.of(self._settings)
        except ConfigurationError as e:
            self.left_out.append(f"the bucket was not looked at: {e}")
            return
        try:
            for prefix in (RESULTS, VOICES):
                async for said in self._of_bucket(bucket, prefix):
                    yield said
        finally:
            bucket.close()

    async def _of_bucket(self, bucket: Bucket, prefix: str) -> AsyncIterator[str]:
        """Walks both lists side by side, each in the order of its keys. A difference counts if a second look at both sides confirms it."""
        before = datetime.now(UTC) - timedelta(hours=SETTLED_HOURS)
        known = self._known(prefix)
        row = await anext(known, None)
        async for found in bucket.objects(prefix):
            while row is not None and row[0] < found.key:
                if said := await self._missing(bucket, *row):
                    yield said
                row = await anext(known, None)
            if row is not None and row[0] == found.key:
                row = await anext(known, None)
            elif found.changed_at < before and not (await self._books.known_object(found.key.removesuffix(KEY_SUFFIX)))["known"]:
                yield f"the bucket has the object {found.key}, which no job and no voice has"
        while row is not None:
            if said := await self._missing(bucket, *row):
                yield said
            row = await anext(known, None)

    async def _known(self, prefix: str) -> AsyncIterator[tuple[str, bool]]:
        after = prefix
        while rows := await self._books.known_objects(after, _PAGE):
            for row in rows:
                if not row["key"].startswith(prefix):
                    return
                yield row["key"], row["needed"]
            after = rows[-1]["key"]

    async def _missing(self, bucket: Bucket, key: str, needed: bool) -> str | None:
        if needed and await bucket.head(key) is None and (await self._books.known_object(key))["needed"]:
            return f"the bucket lacks the object {key}, which a {'voice' if key.startswith(VOICES) else 'job'} has"
        return None


def _of_ledger(row: dict[str, object]) -> str:
    """audit_ledger names what is wrong by its first key, and two sums."""
    what = next(name for name in row if name not in ("expected", "ledger", "lots", "moves"))
    found = next(name for name in row if name in ("ledger", "lots", "moves"))
    names = {"user_id": "user", "job_id": "job", "lot": "lot of credits", "entry": "entry of the ledger"}
    return f"the {names.get(what, what)} {row[what]} should have {row['expected']} credits, and the {found} {_have(found)} {json.dumps(row[found])}"


def _have(found: str) -> str:
    return "has" if found == "ledger" else "have"


def _of_payment(row: dict[str, object]) -> str:
    reference, expected, found = row["reference"], row["expected"], row["found"]
    if row["wrong"] == "entry":
        return f"the payment {reference} bought {expected} credits, and the ledger's entry of it has {found}"
    if row["wrong"] == "taken":
        return f"of the payment {reference} {expected} credits should be taken back, and {found} are"
    return f"a refund of {expected} of the payment {reference} was begun and has no outcome: `fishserve saas admin refund {reference}` takes it up"

"""Reports as CSV, for accountants: money by day, and the credits that users still have."""

from __future__ import annotations

import csv
from collections.abc import AsyncIterator
from datetime import date
from typing import TextIO

from saas.admin.repository import DeskRepository
from saas.books.money import plain
from saas.books.repository import BookRepository, Row

REVENUE = ("day", "currency", "payments", "paid", "refunded", "disputed", "net", "credits")
CREDITS = ("user_id", "email", "balance", "reserved", "debt", "bought", "given", "spent", "taken")
_PAGE = 1000


async def revenue(desk: DeskRepository, since: date, until: date, out: TextIO) -> None:
    """Money by day (UTC) and currency, in units of the currency."""
    rows = await desk.revenue(since, until)
    write = csv.writer(out, lineterminator="\n")
    write.writerow(REVENUE)
    for row in rows:
        money = [plain(row[f"{name}_cents"], row["currency"]) for name in ("paid", "refunded", "disputed", "net")]
        write.writerow([row["day"], row["currency"], row["payments"], *money, row["credits"]])


async def outstanding(books: BookRepository, out: TextIO) -> None:
    """Credits that users still have, by user, and their sum."""
    write = csv.writer(out, lineterminator="\n")
    write.writerow(CREDITS)
    sums = dict.fromkeys(CREDITS[2:], 0)
    async for row in _users(books):
        write.writerow([row["user_id"], _safe(row["email"] or ""), *(row[name] for name in sums)])
        for name in sums:
            sums[name] += row[name]
    write.writerow(["all", "", *sums.values()])


async def _users(books: BookRepository) -> AsyncIterator[Row]:
    after = None
    while rows := await books.outstanding(after, _PAGE):
        for row in rows:
            yield row
        after = rows[-1]["user_id"]


def _safe(text: str) -> str:
    """A spreadsheet would compute what begins like a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t")) else text

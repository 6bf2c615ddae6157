"""Amounts of money as people write them. Everything else here keeps them in the smallest unit of their currency, as Stripe does."""

from __future__ import annotations

WITHOUT_DECIMALS = frozenset(
    ["bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "ugx", "vnd", "vuv", "xaf", "xof", "xpf"]
)
THREE_DECIMALS = frozenset(["bhd", "jod", "kwd", "omr", "tnd"])
"""Currencies whose smallest unit is not a hundredth: https://docs.stripe.com/currencies#zero-decimal."""


def decimals(currency: str | None) -> int:
    """Digits after the point."""
    return 0 if currency in WITHOUT_DECIMALS else 3 if currency in THREE_DECIMALS else 2


def plain(cents: int, currency: str | None) -> str:
    """`-1234.50`: for a spreadsheet."""
    places = decimals(currency)
    digits = str(abs(cents)).zfill(places + 1)
    return ("-" if cents < 0 else "") + (f"{digits[:-places]}.{digits[-places:]}" if places else digits)


def amount(cents: int, currency: str | None) -> str:
    """`1234.50 USD`: for people."""
    return f"{plain(cents, currency)} {currency.upper() if currency else '(unknown currency)'}"

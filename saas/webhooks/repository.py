"""The database's functions about customers' webhooks."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypedDict
from uuid import UUID

from saas.database import Database


class Order(TypedDict):
    """A delivery that this process has claimed. `secrets`: those that sign it, the newest first."""

    id: str
    endpoint_id: str
    event: str
    payload: dict[str, Any]
    attempts: int
    url: str
    secrets: list[str]


class Ended(TypedDict):
    """What an attempt led to: `delivery` has the fields of `Delivery`, or is None where it was deleted; `disabled`: so is the endpoint now."""

    delivery: dict[str, Any] | None
    disabled: bool


class WebhookRepository:
    """Each method is one transaction. All raise Refused and Unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, user_id: UUID, url: str, events: list[str], secret: str) -> dict[str, Any]:
        """Add an endpoint. Returns the fields of `Endpoint`."""
        made = await self._database.call("create_webhook", user_id=user_id, url=url, events=events, secret=secret)
        row: dict[str, Any] = made["endpoint"]
        return row

    async def endpoints(self, user_id: UUID) -> list[dict[str, Any]]:
        """The fields of `Endpoint` for each endpoint, the oldest first."""
        rows: list[dict[str, Any]] = await self._database.call("list_webhooks", user_id=user_id)
        return rows

    async def delete(self, user_id: UUID, endpoint_id: UUID) -> None:
        """Delete an endpoint with its log."""
        await self._database.call("delete_webhook", user_id=user_id, endpoint_id=endpoint_id)

    async def rotate(self, user_id: UUID, endpoint_id: UUID, secret: str) -> dict[str, Any]:
        """Sign with another secret; the one before it signs for another day. Returns the fields of `Endpoint`."""
        made = await self._database.call("rotate_webhook_secret", user_id=user_id, endpoint_id=endpoint_id, secret=secret)
        row: dict[str, Any] = made["endpoint"]
        return row

    async def deliveries(self, user_id: UUID, endpoint_id: UUID, before: datetime | None) -> list[dict[str, Any]]:
        """The fields of `Delivery` for the endpoint's newest 50 deliveries, or those before a moment."""
        at = before.isoformat() if before else None
        rows: list[dict[str, Any]] = await self._database.call("list_deliveries", user_id=user_id, endpoint_id=endpoint_id, before=at)
        return rows

    async def test(self, user_id: UUID, endpoint_id: UUID, lease_seconds: float) -> Order:
        """A delivery to try an endpoint with, claimed for this process."""
        order: Order = await self._database.call(
            "create_test_delivery", user_id=user_id, endpoint_id=endpoint_id, lease_seconds=lease_seconds
        )
        return order

    async def claim(self, limit: int, lease_seconds: float) -> list[Order]:
        """Deliveries that are due, claimed for this process."""
        orders: list[Order] = await self._database.call("claim_deliveries", limit=limit, lease_seconds=lease_seconds)
        return orders

    async def end(self, delivery_id: str, attempt: int, status: int | None, error: str | None, milliseconds: int) -> Ended:
        """Record what came of an attempt. `error` says why it failed."""
        ended: Ended = await self._database.call(
            "end_delivery", delivery_id=delivery_id, attempt=attempt, status=status, error=error, milliseconds=milliseconds
        )
        return ended

    async def expire(self) -> int:
        """Delete deliveries that have been kept long enough. Returns how many, at most 1000."""
        answer = await self._database.call("expire_deliveries")
        return int(answer["expired"])

"""The database's functions for operators: what the desk shows, and the acts, each of which records who did it and why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, TypedDict
from uuid import UUID

from saas.database import Database

Row = dict[str, Any]


class Retold(TypedDict):
    """What a retry needs of a job: its user, and its text, None where that was deleted."""

    user_id: str
    text: str | None


class BegunRefund(TypedDict):
    """A refund that is recorded and that Stripe is to make. `resumed`: an earlier command recorded it and has no outcome."""

    action: int
    reference: str
    cents: int
    currency: str | None
    resumed: bool


@dataclass(frozen=True)
class Operator:
    """Who acts, and why: a row of admin_actions has both."""

    name: str
    reason: str


class DeskRepository:
    """What operators look at. All methods raise Refused and Unavailable. `before` is of the last row seen."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def users(self, search: str | None, limit: int) -> list[Row]:
        """Users whose address contains `search`, the newest first."""
        rows: list[Row] = await self._database.call("admin_users", search=search, limit=limit)
        return rows

    async def user(self, who: str) -> Row | None:
        """The user with this id, address, Stripe customer, API key, job or payment; None if there is none."""
        row: Row | None = await self._database.call("admin_user", who=who)
        return row

    async def ledger(self, user_id: str | None, before: int | None, limit: int) -> list[Row]:
        """Entries of the ledger, the newest first."""
        rows: list[Row] = await self._database.call("admin_ledger", user_id=user_id, before=before, limit=limit)
        return rows

    async def jobs(self, user_id: str | None, status: str | None, before: datetime | None, limit: int) -> list[Row]:
        """Jobs without their texts, the newest first."""
        rows: list[Row] = await self._database.call("admin_jobs", user_id=user_id, status=status, before=before, limit=limit)
        return rows

    async def job(self, job_id: UUID) -> Row:
        """A job without its text, and its entries of the ledger."""
        row: Row = await self._database.call("admin_job", job_id=job_id)
        return row

    async def payments(self, user_id: str | None, before: datetime | None, limit: int) -> list[Row]:
        """Payments, the newest first, with their refunds and disputes."""
        rows: list[Row] = await self._database.call("admin_payments", user_id=user_id, before=before, limit=limit)
        return rows

    async def keys(self, user_id: str) -> list[Row]:
        """A user's API keys, revoked ones too."""
        rows: list[Row] = await self._database.call("admin_keys", user_id=user_id)
        return rows

    async def payment(self, reference: str) -> Row | None:
        """A payment with its refunds and disputes; None if there is none."""
        rows: list[Row] = await self._database.call("payments_of", references=[reference])
        return rows[0] if rows else None

    async def actions(self, target: str | None, user_id: str | None, before: int | None, limit: int) -> list[Row]:
        """What operators did to one target, or to one user's account, jobs and payments, the newest first."""
        rows: list[Row] = await self._database.call("list_admin_actions", target=target, user_id=user_id, before=before, limit=limit)
        return rows

    async def blocked_voices(self, limit: int) -> list[Row]:
        """Voices and clips that are blocked, by whom and why, the newest first."""
        rows: list[Row] = await self._database.call("admin_blocked_voices", limit=limit)
        return rows

    async def reports(self, closed: bool, limit: int) -> list[Row]:
        """Reports of misuse that are open, the oldest first, and those that are `closed`, the newest first."""
        rows: list[Row] = await self._database.call("admin_reports", closed=closed, limit=limit)
        return rows

    async def queue(self) -> Row:
        """Jobs that wait and run, and whose they are."""
        row: Row = await self._database.call("admin_queue")
        return row

    async def workers(self, minutes: int) -> list[Row]:
        """What became of each backend's jobs in the last minutes."""
        rows: list[Row] = await self._database.call("admin_workers", minutes=minutes)
        return rows

    async def prices(self) -> Row:
        """`prices`, `packs` and `plans`."""
        row: Row = await self._database.call("admin_prices")
        return row

    async def revenue(self, since: date, until: date) -> list[Row]:
        """Money by day and currency, both days included."""
        rows: list[Row] = await self._database.call("revenue_by_day", since=since.isoformat(), until=until.isoformat())
        return rows


class ActRepository:
    """What operators do. Each method is one transaction with its row of admin_actions. All raise Refused and Unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def grant(self, by: Operator, user_id: str, credits: int, reference: str) -> Row:
        """Give credits, once for a reference: `balance`, `applied`."""
        done: Row = await self._database.call(
            "admin_grant", actor=by.name, reason=by.reason, user_id=user_id, credits=credits, reference=reference
        )
        return done

    async def take(self, by: Operator, user_id: str, credits: int, reference: str) -> Row:
        """Take credits, once for a reference: `balance`, `applied`."""
        done: Row = await self._database.call(
            "admin_take", actor=by.name, reason=by.reason, user_id=user_id, credits=credits, reference=reference
        )
        return done

    async def suspend(self, by: Operator, user_id: str, until: datetime | None) -> Row:
        """Suspend an account; its waiting jobs end."""
        done: Row = await self._database.call("admin_suspend", actor=by.name, reason=by.reason, user_id=user_id, until=until)
        return done

    async def unsuspend(self, by: Operator, user_id: str) -> Row:
        """Lift a suspension."""
        done: Row = await self._database.call("admin_unsuspend", actor=by.name, reason=by.reason, user_id=user_id)
        return done

    async def set_plan(self, by: Operator, user_id: str, plan: str) -> Row:
        """The user's plan, until a subscription begins, changes or ends: `plan`, `before`."""
        done: Row = await self._database.call("admin_set_plan", actor=by.name, reason=by.reason, user_id=user_id, plan=plan)
        return done

    async def revoke_keys(self, by: Operator, user_id: str, key_id: UUID | None) -> Row:
        """Revoke one key of a user, or all."""
        done: Row = await self._database.call("admin_revoke_keys", actor=by.name, reason=by.reason, user_id=user_id, key_id=key_id)
        return done

    async def cancel_job(self, by: Operator, job_id: UUID) -> Row:
        """End a job that has not ended."""
        done: Row = await self._database.call("admin_cancel_job", actor=by.name, reason=by.reason, job_id=job_id)
        return done

    async def job_text(self, job_id: UUID) -> Retold:
        """What a retry needs."""
        row: Retold = await self._database.call("job_text", job_id=job_id)
        return row

    async def retry_job(self, by: Operator, job_id: UUID, token_hash: str, letters: float, silence: float) -> Row:
        """Speak the text of a job that ended without a result, as a new job."""
        done: Row = await self._database.call(
            "admin_retry_job", actor=by.name, reason=by.reason, job_id=job_id, token_hash=token_hash, letters=letters, silence=silence
        )
        return done

    async def block_voice(self, by: Operator, voice: str) -> Row:
        """Block a voice by its id, or a clip by its SHA-256, whoever has it: `sha256`, `voices` that are no longer spoken."""
        done: Row = await self._database.call("admin_block_voice", actor=by.name, reason=by.reason, voice=voice)
        return done

    async def unblock_voice(self, by: Operator, voice: str) -> Row:
        """Lift a block: `voices` that may be spoken again."""
        done: Row = await self._database.call("admin_unblock_voice", actor=by.name, reason=by.reason, voice=voice)
        return done

    async def close_report(self, by: Operator, report_id: UUID) -> Row:
        """Close a report of misuse; the operator's reason is its outcome."""
        done: Row = await self._database.call("admin_close_report", actor=by.name, reason=by.reason, report_id=report_id)
        return done

    async def set_price(self, by: Operator, per_second: str, minimum: int | None, name: str | None) -> Row:
        """The price of what is sold from now on."""
        done: Row = await self._database.call(
            "admin_set_price", actor=by.name, reason=by.reason, credits_per_second=per_second, minimum=minimum, name=name
        )
        return done

    async def begin_refund(self, by: Operator, reference: str, cents: int | None) -> BegunRefund:
        """Record a refund that Stripe is to make, or take up one without an outcome."""
        begun: BegunRefund = await self._database.call(
            "admin_begin_refund", actor=by.name, reason=by.reason, reference=reference, cents=cents
        )
        return begun

    async def end_refund(self, by: Operator, action: int, refund: str, cents: int) -> Row:
        """Book a refund that Stripe made; its credits go."""
        done: Row = await self._database.call("admin_end_refund", actor=by.name, action=action, refund=refund, cents=cents)
        return done

    async def fail_refund(self, by: Operator, action: int, error: str) -> None:
        """Record that Stripe refused a refund."""
        await self._database.call("admin_fail_refund", actor=by.name, action=action, error=error)

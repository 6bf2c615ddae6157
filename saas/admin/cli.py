"""`fishserve saas admin`: looks and acts for operators. Imports its packages only when a command runs."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar
from uuid import UUID

import typer

from inference.extras import needs
from saas.admin.operator import Reason, consent, console, operator

if TYPE_CHECKING:
    from saas.admin.repository import Row
    from saas.admin.service import Desk

Answer = TypeVar("Answer")
app = typer.Typer(help="The operator's desk: users, jobs, money, prices. Each act is recorded with its reason.", no_args_is_help=True)

Who = Annotated[str, typer.Argument(metavar="USER", help="An id, an address, a Stripe customer, an API key, a job or a payment.")]
MaybeWho = Annotated[str | None, typer.Argument(metavar="USER", help="As for `show`; without it, all users.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="How many, the newest first.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Actor = Annotated[str | None, typer.Option(help="Your name, for the record; without it, your login.")]
Reference = Annotated[str | None, typer.Option(help="The same reference moves credits once. Without it, each call does.")]
Credits = Annotated[int, typer.Argument(min=1, max=10**12, help="How many.")]
Status = Literal["queued", "running", "succeeded", "failed", "cancelled", "expired"]


def _ask(work: Callable[[Desk], Awaitable[Answer]]) -> Answer:
    """The answer of the database, or the error that ends the command."""
    with needs("saas", "`fishserve saas admin`"):
        from saas.admin.connection import ask
        from saas.admin.service import Desk
        from saas.settings import read

        return asyncio.run(ask(read(), lambda database, settings: work(Desk(settings, database))))


async def _id(desk: Desk, who: str | None) -> str | None:
    return None if who is None else str((await desk.user(who))["id"])


def _print(rows: Any, json: bool, columns: str, title: str = "") -> None:
    from saas.admin import tables

    if json:
        tables.show_json(rows)
    else:
        tables.show(rows, getattr(tables, columns), title)


# -- looks ---------------------------------------------------------------------------------------------------------------------------


@app.command()
def users(
    search: Annotated[str | None, typer.Argument(help="Part of an address, or what names a user.")] = None,
    limit: Limit = 50,
    json: AsJson = False,
) -> None:
    """Users, the newest first."""
    _print(_ask(lambda desk: desk.users(search, limit)), json, "USERS")


@app.command()
def show(
    who: Who, limit: Annotated[int, typer.Option(min=1, max=1000, help="How many rows of each table.")] = 10, json: AsJson = False
) -> None:
    """One user: account, ledger, jobs, payments, keys, and what operators did."""
    found = _ask(lambda desk: desk.account(who, limit))
    from saas.admin import tables

    if json:
        tables.show_json(found)
        return
    first = ("id", "email", "display_name", "plan", "balance", "debt", "reserved")
    tables.show_fields({name: found["user"][name] for name in first} | found["user"])
    for name, columns in (("ledger", "ENTRIES"), ("jobs", "JOBS"), ("payments", "PAYMENTS"), ("keys", "KEYS"), ("actions", "ACTIONS")):
        _print(found[name], False, columns, f"\n{name}")


@app.command()
def ledger(who: MaybeWho = None, before: Annotated[int | None, typer.Option(help="Only entries older than this one.")] = None, limit: Limit = 50, json: AsJson = False) -> None:  # fmt: skip
    """Entries of the ledger."""

    async def entries(desk: Desk) -> list[Row]:
        return await desk.look.ledger(await _id(desk, who), before, limit)

    _print(_ask(entries), json, "LEDGER")


@app.command()
def jobs(who: MaybeWho = None, status: Annotated[Status | None, typer.Option(help="Only these.")] = None, limit: Limit = 50, json: AsJson = False) -> None:  # fmt: skip
    """Jobs, without their texts."""

    async def found(desk: Desk) -> list[Row]:
        return await desk.look.jobs(await _id(desk, who), status, None, limit)

    _print(_ask(found), json, "JOBS")


@app.command()
def job(job_id: Annotated[UUID, typer.Argument(metavar="JOB", help="The job's id.")], json: AsJson = False) -> None:
    """One job, and its entries of the ledger."""
    told = _ask(lambda desk: desk.job(job_id))
    from saas.admin import tables

    if json:
        tables.show_json(told)
        return
    tables.show_fields(told["job"])
    _print(told["ledger"], False, "ENTRIES", "\nledger")
    _print(told["actions"], False, "ACTIONS", "\nactions")


@app.command()
def payments(who: MaybeWho = None, limit: Limit = 50, json: AsJson = False) -> None:
    """Payments, and their refunds and disputes."""

    async def found(desk: Desk) -> list[Row]:
        return await desk.look.payments(await _id(desk, who), None, limit)

    rows = _ask(found)
    _print(rows, json, "PAYMENTS")
    returns = [entry | {"reference": row["reference"], "currency": row["currency"]} for row in rows for entry in row["returns"]]
    if returns and not json:
        _print(returns, False, "RETURNS", "\nrefunds and disputes")


@app.command()
def revenue(
    days: Annotated[int, typer.Option(min=1, max=3660, help="How many days, up to today (UTC).")] = 30, json: AsJson = False
) -> None:
    """Money by day and currency."""
    _print(_ask(lambda desk: desk.revenue(days)), json, "REVENUE")


@app.command()
def queue(json: AsJson = False) -> None:
    """Jobs that wait and run, and whose they are."""
    found = _ask(lambda desk: desk.look.queue())
    from saas.admin import tables

    if json:
        tables.show_json(found)
        return
    tables.show_fields({name: found[name] for name in ("waiting", "running", "lapsed", "oldest_seconds")})
    _print(found["users"], False, "WAITING", "\nusers")


@app.command()
def workers(minutes: Annotated[int, typer.Option(min=1, max=100_000, help="How far to look back.")] = 60, json: AsJson = False) -> None:
    """What became of each backend's jobs, and what the backend says of itself."""
    told = _ask(lambda desk: desk.workers(minutes))
    from saas.admin import tables

    if json:
        tables.show_json(told)
        return
    _print(told["jobs"], False, "WORKERS", f"jobs of the last {minutes} minutes")
    tables.show_fields(told["backend"], "\nthe backend")


@app.command()
def prices(json: AsJson = False) -> None:
    """Every price of a second of speech, the packs of credits, and the plans."""
    found = _ask(lambda desk: desk.look.prices())
    if json:
        _print(found, True, "PRICES")
        return
    _print(found["prices"], False, "PRICES")
    _print(found["packs"], False, "PACKS", "\npacks")
    _print(found["plans"], False, "PLANS", "\nplans")


@app.command("blocked-voices")
def blocked_voices(limit: Limit = 50, json: AsJson = False) -> None:
    """Voices and clips that are blocked."""
    _print(_ask(lambda desk: desk.look.blocked_voices(limit)), json, "BLOCKED")


@app.command()
def reports(
    closed: Annotated[bool, typer.Option("--closed", help="Those that are closed, too.")] = False, limit: Limit = 50, json: AsJson = False
) -> None:
    """Reports of misuse that are open, the oldest first."""
    _print(_ask(lambda desk: desk.look.reports(closed, limit)), json, "REPORTS")


@app.command()
def actions(target: Annotated[str | None, typer.Argument(help="The id of a user, job, payment or price.")] = None, limit: Limit = 50, json: AsJson = False) -> None:  # fmt: skip
    """What operators did, and why."""
    _print(_ask(lambda desk: desk.look.actions(target, None, None, limit)), json, "ACTIONS")


# -- acts ----------------------------------------------------------------------------------------------------------------------------


@app.command()
def grant(who: Who, credits: Credits, reason: Reason, reference: Reference = None, actor: Actor = None, yes: Yes = False, json: AsJson = False) -> None:  # fmt: skip
    """Give a user credits."""
    by, once = operator(actor, reason), reference or f"desk {secrets.token_hex(6)}"
    user = _ask(lambda desk: desk.user(who))
    consent(f"give {credits:,} credits to {_name(user)}, who has {user['balance']:,}", yes)
    done = _ask(lambda desk: desk.act.grant(by, user["id"], credits, once))
    _tell(done, json, _moved(done, f"{_name(user)}: {credits:,} credits given", once))


@app.command()
def take(who: Who, credits: Credits, reason: Reason, reference: Reference = None, actor: Actor = None, yes: Yes = False, json: AsJson = False) -> None:  # fmt: skip
    """Take credits from a user, at most the balance."""
    by, once = operator(actor, reason), reference or f"desk {secrets.token_hex(6)}"
    user = _ask(lambda desk: desk.user(who))
    consent(f"take {credits:,} credits from {_name(user)}, who has {user['balance']:,}", yes)
    done = _ask(lambda desk: desk.act.take(by, user["id"], credits, once))
    _tell(done, json, _moved(done, f"{_name(user)}: {credits:,} credits taken", once))


@app.command()
def refund(
    payment: Annotated[str, typer.Argument(help="Stripe's payment intent, pi_...")], reason: Reason,
    cents: Annotated[int | None, typer.Option(min=1, help="How much, in the currency's smallest unit; without it, all that is left.")] = None,
    actor: Actor = None, yes: Yes = False, json: AsJson = False,
) -> None:  # fmt: skip
    """Give a payment's money back at Stripe, and take the credits that it bought."""
    by = operator(actor, reason)
    found = _ask(lambda desk: desk.payment(payment))
    from saas.books.money import amount

    left = found["amount_cents"] - found["returned_cents"]
    consent(
        f"refund {amount(left if cents is None else cents, found['currency'])} of {payment} to {found['email'] or found['user_id']}", yes
    )
    done = _ask(lambda desk: desk.refund(by, payment, cents))
    debt = f", {done['debt']:,} of them owed" if done["debt"] else ""
    _tell(
        done, json, f"{amount(done['cents'], done['currency'])} of {payment} refunded as {done['refund']}; {done['credits']:,} of its credits are "
        f"taken back{debt}; the balance is {done['balance']:,}",
    )  # fmt: skip


@app.command()
def suspend(
    who: Who, reason: Reason, days: Annotated[int | None, typer.Option(min=1, max=36_500, help="For so long; without it, until it is lifted.")] = None,
    actor: Actor = None, yes: Yes = False, json: AsJson = False,
) -> None:  # fmt: skip
    """Let an account spend nothing; its waiting jobs end and cost nothing."""
    by = operator(actor, reason)
    user = _ask(lambda desk: desk.user(who))
    consent(f"suspend {_name(user)}, whose waiting jobs end", yes)
    done = _ask(lambda desk: desk.suspend(by, user["id"], days))
    _tell(done, json, f"{_name(user)} is suspended until {done['suspended_until'][:10]}; {done['ended_jobs']} waiting jobs ended")


@app.command()
def unsuspend(who: Who, reason: Reason, actor: Actor = None, json: AsJson = False) -> None:
    """Lift a suspension."""
    by = operator(actor, reason)
    user = _ask(lambda desk: desk.user(who))
    _tell(_ask(lambda desk: desk.act.unsuspend(by, user["id"])), json, f"{_name(user)} is not suspended any more")


@app.command("set-plan")
def set_plan(
    who: Who, plan: Annotated[str, typer.Argument(help="The plan's id; `prices` lists them.")], reason: Reason,
    actor: Actor = None, yes: Yes = False, json: AsJson = False,
) -> None:  # fmt: skip
    """Give a user a plan, until a subscription begins, changes or ends."""
    by = operator(actor, reason)
    user = _ask(lambda desk: desk.user(who))
    consent(f"give {_name(user)} the plan {plan} instead of {user['plan']}", yes)
    done = _ask(lambda desk: desk.act.set_plan(by, user["id"], plan))
    _tell(done, json, f"{_name(user)} has the plan {done['plan']} instead of {done['before']}")


@app.command("revoke-keys")
def revoke_keys(
    who: Who, reason: Reason, key: Annotated[UUID | None, typer.Option(help="Only the key with this id.")] = None,
    actor: Actor = None, yes: Yes = False, json: AsJson = False,
) -> None:  # fmt: skip
    """Revoke a user's API keys, at once and for ever."""
    by = operator(actor, reason)
    user = _ask(lambda desk: desk.user(who))
    consent(f"revoke {f'the key {key}' if key else 'all keys'} of {_name(user)}", yes)
    done = _ask(lambda desk: desk.act.revoke_keys(by, user["id"], key))
    _tell(done, json, f"{_name(user)}: revoked {', '.join(done['revoked'])}")


JobId = Annotated[UUID, typer.Argument(metavar="JOB", help="The job's id.")]


@app.command("cancel-job")
def cancel_job(job_id: JobId, reason: Reason, actor: Actor = None, yes: Yes = False, json: AsJson = False) -> None:
    """End a job; its user pays for no more than was heard."""
    by = operator(actor, reason)
    told = _ask(lambda desk: desk.look.job(job_id))["job"]
    consent(f"cancel the job {job_id} of {told['email'] or told['user_id']}, which is {told['status']}", yes)
    done = _ask(lambda desk: desk.cancel(by, job_id))
    _tell(done, json, f"{job_id} is cancelled and cost {done['job']['charged']:,} credits; the balance is {done['balance']:,}")


@app.command("retry-job")
def retry_job(job_id: JobId, reason: Reason, actor: Actor = None, yes: Yes = False, json: AsJson = False) -> None:
    """Speak the text of a job that failed, was cancelled or expired, as a new job that its user pays for."""
    by = operator(actor, reason)
    told = _ask(lambda desk: desk.look.job(job_id))["job"]
    consent(f"speak the {told['status']} job {job_id} again, at the cost of {told['email'] or told['user_id']}", yes)
    done = _ask(lambda desk: desk.retry(by, job_id))
    _tell(done, json, f"{done['job']['id']} is queued and reserves {done['job']['reserved']:,} credits; the balance is {done['balance']:,}")


Voice = Annotated[str, typer.Argument(metavar="VOICE", help="The id of a voice, or the SHA-256 of a clip.")]


@app.command("block-voice")
def block_voice(voice: Voice, reason: Reason, actor: Actor = None, yes: Yes = False, json: AsJson = False) -> None:
    """Block a voice and its clip, whoever has it or adds it: it is not spoken any more."""
    by = operator(actor, reason)
    consent(f"block the voice {voice} and its clip, for all users", yes)
    done = _ask(lambda desk: desk.act.block_voice(by, voice))
    _tell(done, json, f"{voice} is blocked; {len(done['voices'])} voices are not spoken any more")


@app.command("unblock-voice")
def unblock_voice(voice: Voice, reason: Reason, actor: Actor = None, json: AsJson = False) -> None:
    """Lift the block of a voice or clip."""
    by = operator(actor, reason)
    done = _ask(lambda desk: desk.act.unblock_voice(by, voice))
    _tell(done, json, f"{voice} is not blocked any more; {len(done['voices'])} voices may be spoken again")


@app.command("close-report")
def close_report(
    report_id: Annotated[UUID, typer.Argument(metavar="REPORT", help="The report's id.")], reason: Reason, actor: Actor = None, json: AsJson = False
) -> None:  # fmt: skip
    """Close a report of misuse. The reason is its outcome."""
    by = operator(actor, reason)
    done = _ask(lambda desk: desk.act.close_report(by, report_id))
    _tell(done, json, f"the report {report_id} is closed: {done['report']['outcome']}")


@app.command("set-price")
def set_price(
    per_second: Annotated[float, typer.Argument(metavar="CREDITS", min=0, max=1_000_000, help="For a second of speech.")], reason: Reason,
    minimum: Annotated[int | None, typer.Option(min=0, max=10**9, help="The least that a job costs; without it, as before.")] = None,
    name: Annotated[str | None, typer.Option(help="The price's name; without it, as before.")] = None,
    actor: Actor = None, yes: Yes = False, json: AsJson = False,
) -> None:  # fmt: skip
    """Set the price of what is sold from now on. Jobs that wait keep theirs."""
    by = operator(actor, reason)
    now = next((price for price in _ask(lambda desk: desk.look.prices())["prices"] if price["active"]), None)
    before = f" instead of {now['credits_per_second']:g}" if now else ""
    consent(f"sell a second for {per_second:g} credits{before}", yes)
    done = _ask(lambda desk: desk.act.set_price(by, repr(per_second), minimum, name))
    price = done["price"]
    _tell(done, json, f"the price {price['id']}: {price['credits_per_second']:g} credits a second, at least {price['minimum']:,} a job")


def _name(user: Row) -> str:
    return str(user["email"] or user["id"])


def _moved(done: Row, said: str, reference: str) -> str:
    if not done["applied"]:
        said = f"nothing moved: {reference!r} was used before"
    return f"{said}; the balance is {done['balance']:,}"


def _tell(done: Any, json: bool, said: str) -> None:
    from saas.admin import tables

    if json:
        tables.show_json(done)
    else:
        console.print(said)

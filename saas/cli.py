"""`fishserve saas`: serves the SaaS API, checks its setup, keeps its books. Imports its packages only when a command runs."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from inference.errors import RequestError
from inference.extras import needs
from inference.importing import without_collector
from saas.admin.cli import app as admin
from saas.admin.operator import console, operator

app = typer.Typer(help="The SaaS API: sign-in, credits, voices, jobs.", add_completion=False, invoke_without_command=True)
app.add_typer(admin, name="admin")
report = typer.Typer(help="Reports as CSV, for accountants.", no_args_is_help=True)
app.add_typer(report, name="report")


@app.callback()
def saas(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0: any that is free.")] = None,
    embedded: Annotated[bool, typer.Option("--embedded", help="Everything on this machine, with no account anywhere.")] = False,
) -> None:
    """Serve the SaaS API. Environment variables configure it: docs/saas.md."""
    if context.invoked_subcommand is not None:
        return
    with needs("embedded" if embedded else "saas", "`fishserve saas --embedded`" if embedded else "`fishserve saas`"):
        from saas.settings import read

        if embedded:
            from saas.embedded.run import run

            run(read(environment="embedded", host=host, port=port), console)
        else:
            with without_collector():
                from saas.serving import serve

            serve(read(host=host, port=port), console)


@app.command("check")
def check_settings() -> None:
    """Look at everything a production installation needs, item by item. Exit code 1 when something is wrong."""
    with needs("saas", "`fishserve saas check`"):
        from saas.embedded.check import examine as examine_embedded
        from saas.embedded.running import address
        from saas.go_live_check import examine
        from saas.settings import read

        settings = read()
        url = None if settings.is_configured else address(settings.directory)
        if not (examine_embedded(settings, url, console) if url else examine(settings, console)):
            raise typer.Exit(1)


@app.command()
def grant(
    email: Annotated[str, typer.Argument(help="The address of a user who has signed up.")],
    credits: Annotated[int, typer.Argument(min=1, max=10**12, help="How many.")],
    reference: Annotated[
        str | None, typer.Option(help="What they are for; the same reference grants once. Without it, each call grants.")
    ] = None,
) -> None:
    """Give a user credits, here or in the running `fishserve saas --embedded`."""
    with needs("saas", "`fishserve saas grant`"):
        import asyncio

        from saas.grant import grant as give
        from saas.settings import read

        by = operator(None, "fishserve saas grant")
        balance, applied = asyncio.run(give(read(), by, email, credits, reference))
    said = f"{credits:,} credits granted" if applied else f"nothing granted: {reference!r} was granted before"
    console.print(f"{email}: {said}; the balance is {balance:,}")


@app.command()
def reconcile(days: Annotated[int, typer.Option(min=1, max=30, help="How far to look back; Stripe keeps events for 30 days.")] = 3) -> None:
    """Ask Stripe what happened to payments, and book what no webhook brought. For a nightly timer; exit code 1 when a person must look."""
    with needs("saas", "`fishserve saas reconcile`"):
        import asyncio

        from saas.reconcile import reconcile as ask
        from saas.settings import read

        outcomes = asyncio.run(ask(read(), days))
    console.print(
        f"{outcomes.total()} events of {days} days: {outcomes['applied']} booked now, {outcomes['repeated']} were booked, "
        f"{outcomes['ignored']} move nothing, {outcomes['refused']} were refused by the database, {outcomes['failed']} failed"
    )
    if outcomes["refused"] or outcomes["failed"]:
        raise typer.Exit(1)


@app.command()
def audit(days: Annotated[int, typer.Option(min=1, max=3660, help="How far to look back at Stripe.")] = 30) -> None:
    """Compare ledger, payments and bucket, a sentence for each difference. For a nightly timer; exit code 1 when there is one."""
    with needs("saas", "`fishserve saas audit`"):
        import asyncio

        from saas.admin.connection import ask
        from saas.books.audit import Audit
        from saas.database import Database, long_calls
        from saas.settings import Settings, read

        async def look(database: Database, settings: Settings) -> int:
            audit, count = Audit(settings, database), 0
            await audit.reachable()
            with long_calls():
                async for difference in audit.differences(days):
                    typer.echo(difference)
                    count += 1
            for left_out in audit.left_out:
                console.print(left_out, style="yellow")
            return count

        count = asyncio.run(ask(read(), look))
    differences = f"{count:,} difference{'s' if count > 1 else ''}"
    console.print(differences if count else "the books agree", style="bold red" if count else "green")
    if count:
        raise typer.Exit(1)


@report.command()
def revenue(
    since: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="The first day, in UTC; without it, 30 days ago.")] = None,
    until: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="The last day, in UTC; without it, today.")] = None,
) -> None:
    """Money by day and currency."""
    last = (until or datetime.now(UTC)).date()
    first = since.date() if since else last - timedelta(days=29)
    if first > last:
        raise RequestError(f"--since {first} is later than the last day, {last}")
    with needs("saas", "`fishserve saas report`"):
        import asyncio

        from saas.admin.connection import ask
        from saas.admin.repository import DeskRepository
        from saas.books.report import revenue as write
        from saas.settings import read

        asyncio.run(ask(read(), lambda database, _: write(DeskRepository(database), first, last, sys.stdout)))


@report.command("credits")
def outstanding() -> None:
    """Credits that users still have, by user, and their sum."""
    with needs("saas", "`fishserve saas report`"):
        import asyncio

        from saas.admin.connection import ask
        from saas.books.report import outstanding as write
        from saas.books.repository import BookRepository
        from saas.settings import read

        asyncio.run(ask(read(), lambda database, _: write(BookRepository(database), sys.stdout)))


@app.command()
def bucket() -> None:
    """Set the bucket's CORS policy, for the app's origin alone, and the expiry of its objects."""
    with needs("saas", "`fishserve saas bucket`"):
        import asyncio

        from saas.settings import read
        from saas.storage.bucket import Bucket

        settings = read()
        asyncio.run(Bucket.of(settings).apply(settings.app_origin))
    console.print(f"{settings.r2_bucket_name}: pages of {settings.app_origin} may use its addresses; uploads and results end by themselves")

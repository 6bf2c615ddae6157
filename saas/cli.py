"""`fishserve saas`: the SaaS API on a machine without a GPU, and the check of what it is set up with. Imports what it needs when it is asked to run."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from inference.extras import needs

if TYPE_CHECKING:
    from saas.settings import Settings

app = typer.Typer(help="The SaaS API: sign-in, credits, voices, jobs.", add_completion=False, invoke_without_command=True)
console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
LICENCE = (
    "FishSpeech 1.5's weights are licensed CC BY-NC-SA 4.0: you may not sell what they speak, unless Fish Audio permits it or other weights speak. "
    "Say what permits it in FISHSERVE_SAAS_MODEL_LICENCE."
)
"""What a seller must not miss."""


@app.callback()
def saas(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0: any that is free.")] = None,
    embedded: Annotated[bool, typer.Option("--embedded", help="Everything on this machine, with no account anywhere.")] = False,
) -> None:
    """Serve the SaaS API. What it works with is named by the environment: docs/saas.md."""
    if context.invoked_subcommand is not None:
        return
    with needs("embedded" if embedded else "saas", "`fishserve saas --embedded`" if embedded else "`fishserve saas`"):
        from saas.settings import read

        if embedded:
            from saas.embedded.run import run

            run(read(environment="embedded", host=host, port=port), console)
        else:
            serve(read(host=host, port=port))


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

        from saas.credits.grant import grant as give
        from saas.settings import read

        balance, applied = asyncio.run(give(read(), email, credits, reference))
    said = f"{credits:,} credits granted" if applied else f"nothing granted: {reference!r} was granted before"
    console.print(f"{email}: {said}; the balance is {balance:,}")


@app.command()
def bucket() -> None:
    """Give the bucket its CORS policy, for the app's origin alone, and the rules by which what lies there ends by itself."""
    with needs("saas", "`fishserve saas bucket`"):
        import asyncio

        from saas.settings import read
        from saas.storage.bucket import Bucket

        settings = read()
        asyncio.run(Bucket.of(settings).apply(settings.app_origin))
    console.print(f"{settings.r2_bucket_name}: pages of {settings.app_origin} may use its addresses; uploads and results end by themselves")


def serve(settings: Settings, hint: str = "`fishserve saas check` looks whether all is set up") -> None:
    """Serve until SIGTERM or Ctrl-C. Raises RequestError."""
    import uvicorn

    from inference.listening import listen, url_of
    from inference.server.log import quiet_uvicorn
    from inference.server.timeouts import HeaderTimeoutProtocol
    from saas import web
    from saas.app import complete, create_app
    from saas.observability import logs

    if settings.environment == "production" and settings.stripe_secret_key and not settings.model_licence:
        console.print(LICENCE, style="bold red")
    app = create_app(settings)
    complete(settings)
    listening = listen(settings.host, settings.port, "FISHSERVE_SAAS_PORT")
    app_at = web.address(settings)
    console.print(f"{url_of(settings.host, listening.getsockname()[1])}  (the app: {app_at}; {hint}; GET /healthz /readyz)")
    logs.start()
    quiet_uvicorn()
    config = uvicorn.Config(
        app, http=HeaderTimeoutProtocol, log_config=None, log_level="warning", access_log=False, server_header=False, proxy_headers=False, timeout_graceful_shutdown=30,
    )  # fmt: skip
    with suppress(KeyboardInterrupt):  # uvicorn raises it again when all requests have ended
        uvicorn.Server(config).run([listening])

"""`fishserve cluster`: the server on Ray Serve, on this machine or on a running Ray cluster."""

from __future__ import annotations

import json
import signal
import threading
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console

from inference.cluster.options import Options, Routing
from inference.errors import ConfigurationError
from inference.extras import needs

app = typer.Typer(help="Serve speech from many replicas and machines, on Ray Serve.", no_args_is_help=True)
console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)

Checkpoint = Annotated[str | None, typer.Option(help="Model directory or Hugging Face repository; without it the embedded voice.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda.")]
Slots = Annotated[int | None, typer.Option(help="Requests that a replica generates at once.")]
MinReplicas = Annotated[int, typer.Option(help="Fewest engine replicas; 0 lets all of them end while nobody speaks.")]
MaxReplicas = Annotated[int | None, typer.Option(help="Most engine replicas; without it as many as --min-replicas.")]
IdleSeconds = Annotated[float, typer.Option(help="With --min-replicas 0: seconds without a request after which the last replica ends.")]
Doors = Annotated[int, typer.Option(help="Replicas of the HTTP APIs.")]
Gpus = Annotated[float | None, typer.Option(help="GPUs of an engine replica; without it 1 if the device is CUDA, else 0.")]
Cores = Annotated[float, typer.Option(help="CPU cores of an engine replica.")]
Routes = Annotated[Routing, typer.Option(help="voice keeps a voice on few replicas, whose caches hold it.")]
Host = Annotated[str | None, typer.Option(help="Address to listen on: 127.0.0.1 is this machine alone, 0.0.0.0 every address it has.")]
Port = Annotated[int | None, typer.Option()]


@app.command()
def run(
    checkpoint: Checkpoint = None, device: Device = None, slots: Slots = None, min_replicas: MinReplicas = 1, max_replicas: MaxReplicas = None,
    doors: Doors = 1, gpus: Gpus = None, cores: Cores = 1, routing: Routes = "voice",
    idle_seconds: IdleSeconds = 300, host: Host = None, port: Port = None,
) -> None:  # fmt: skip
    """Start Ray on this machine alone and serve until Ctrl-C."""
    from inference.hub import complete, locate
    from inference.listening import listen, url_of
    from inference.settings import read

    with needs("cluster", "`fishserve cluster run`"):
        from inference.cluster.running import alone, end_now, finish
        from inference.server.shutdown import INTERRUPTED
        from inference.serving_checks import check_keys, say_what_speaks

    settings = read(checkpoint=checkpoint, device=device, slots=slots, host=host, port=port)
    listen(settings.host, settings.port, "FISHSERVE_PORT").close()
    check_keys(settings, console)
    if settings.device not in ("auto", "cpu"):  # which need no look, and so no torch in this process
        from inference.engine.device import pick_device

        pick_device(settings.device)
    where = locate(settings.checkpoint)  # downloads and errors come before Ray starts
    complete(where, settings.codec, settings.adapter)
    say_what_speaks(where, console)
    given = settings.model_copy(update={"checkpoint": str(where)}).model_dump(mode="json", exclude_unset=True)
    options = _options(given | {"checkpoint": str(where)}, min_replicas, max_replicas, doors, gpus, cores, routing, idle_seconds)
    ended = threading.Event()

    def end(number: int, _: object) -> None:
        if number == signal.SIGINT and ended.is_set():
            end_now(INTERRUPTED)
        ended.set()

    engines = max(1, min_replicas)
    console.print(f"starting Ray, then {engines} engine {'replicas' if engines > 1 else 'replica'}")
    with alone(options, settings.host, settings.port):
        for number in (signal.SIGINT, signal.SIGTERM):  # now: Ray has set its own handlers, which end nothing in order
            signal.signal(number, end)
        console.print(f"ready: {url_of(settings.host, settings.port)}")
        ended.wait()
        if not finish(console.print):
            end_now(0)  # else Ray prints tracebacks of the streams that break off


@app.command()
def deploy(
    checkpoint: Checkpoint = None, device: Device = None, slots: Slots = None, min_replicas: MinReplicas = 1, max_replicas: MaxReplicas = None,
    doors: Doors = 1, gpus: Gpus = None, cores: Cores = 1, routing: Routes = "voice",
    idle_seconds: IdleSeconds = 300, host: Host = None, port: Port = None,
) -> None:  # fmt: skip
    """Start or upgrade it on the Ray cluster that RAY_ADDRESS names, else on the one that `ray start` started on this machine."""
    from inference.settings import read

    with needs("cluster", "`fishserve cluster deploy`"):
        from inference.cluster.running import deploy as start

    settings = read(checkpoint=checkpoint, device=device, slots=slots, host=host, port=port)
    given = settings.model_dump(mode="json", exclude_unset=True)
    options = _options(given, min_replicas, max_replicas, doors, gpus, cores, routing, idle_seconds)
    start(options, settings.host, settings.port, console.print)
    console.print("ready")


@app.command()
def config(
    checkpoint: Checkpoint = None, device: Device = None, slots: Slots = None, min_replicas: MinReplicas = 1, max_replicas: MaxReplicas = None,
    doors: Doors = 1, gpus: Gpus = None, cores: Cores = 1, routing: Routes = "voice",
    idle_seconds: IdleSeconds = 300, host: Host = "0.0.0.0", port: Port = 8000,
) -> None:  # fmt: skip
    """Print the config file for `serve deploy` and for KubeRay's serveConfigV2, as JSON, which YAML readers read."""
    from inference.settings import read

    settings = {"checkpoint": checkpoint, "device": device, "slots": slots}
    given = {name: value for name, value in settings.items() if value is not None}
    options = _options(given, min_replicas, max_replicas, doors, gpus, cores, routing, idle_seconds)
    application = {
        "name": "fishserve", "route_prefix": "/", "import_path": "inference.cluster.application:build",
        "args": options.model_dump(exclude_defaults=True),
    }  # fmt: skip
    http = {"host": host, "port": port, "keep_alive_timeout_s": read().keep_alive_seconds}
    found = {"proxy_location": "EveryNode", "http_options": http, "applications": [application]}
    typer.echo(json.dumps(found, indent=2))


def _options(
    settings: dict[str, Any],
    min_replicas: int,
    max_replicas: int | None,
    doors: int,
    gpus: float | None,
    cores: float,
    routing: Routing,
    idle_seconds: float,
) -> Options:
    """Raises ConfigurationError."""
    try:
        return Options(
            settings=settings, min_replicas=min_replicas, max_replicas=max_replicas or max(1, min_replicas), doors=doors, gpus=gpus,
            cores=cores, routing=routing, idle_seconds=idle_seconds,
        )  # fmt: skip
    except ValidationError as e:
        raise ConfigurationError(e.errors()[0]["msg"].removeprefix("Value error, ")) from None

"""`fishserve bench`: latency, throughput and cost of speech. Heavy imports stay inside the commands, so that `--help` is instant."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from inference.errors import RequestError

if TYPE_CHECKING:
    from bench.load import Speak
    from bench.record import Record
    from bench.serving import Objective
    from inference.model.checkpoint import Checkpoint as Loaded
    from inference.settings import Settings

app = typer.Typer(help="Measure: latency, throughput, stages, cost.", no_args_is_help=True)
console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)

Checkpoint = Annotated[str | None, typer.Option(help="Model directory or Hugging Face repository; without it the embedded voice.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Out = Annotated[Path | None, typer.Option("-o", "--out", help="JSON file to write; by default in var/bench.")]
Concurrency = Annotated[str, typer.Option(help="Clients at once, one level after the other.")]
Seconds = Annotated[float, typer.Option(min=0.1, help="How long a level lasts.")]
Buckets = Annotated[str, typer.Option(help="Lengths of text: short, medium, long, paragraph.")]
Languages = Annotated[str, typer.Option(help="Languages of the texts: en, de, fr, es, zh, ja.")]
Rate = Annotated[
    float | None, typer.Option(min=0.001, help="First rate of the open loop, requests/s; by default half of what one client got.")
]
FirstAudio = Annotated[float, typer.Option(min=0.001, help="The objective: seconds within which a request is first heard.")]
Share = Annotated[float, typer.Option(min=0, max=1, help="The objective: share of requests heard so soon, and then without a pause.")]
ALL = "short,medium,long,paragraph"


@app.command()
def latency(
    concurrency: Concurrency = "1,2,4",
    seconds: Seconds = 15,
    buckets: Buckets = ALL,
    languages: Languages = "en",
    first_audio: FirstAudio = 1.0,
    share: Share = 0.95,
    checkpoint: Checkpoint = None,
    device: Device = None,
    out: Out = None,
) -> None:
    """Time to first audio, gaps between chunks and real-time factor of the engine in this process."""
    _in_process("latency", concurrency, seconds, buckets, languages, None, first_audio, share, checkpoint, device, out)


@app.command()
def throughput(
    concurrency: Concurrency = "1,2,4,8",
    seconds: Seconds = 15,
    rate: Rate = None,
    buckets: Buckets = ALL,
    languages: Languages = "en",
    first_audio: FirstAudio = 1.0,
    share: Share = 0.95,
    checkpoint: Checkpoint = None,
    device: Device = None,
    out: Out = None,
) -> None:
    """Audio a second at each concurrency, then at growing rates of arrival until the objective breaks; engine in this process."""
    _in_process("throughput", concurrency, seconds, buckets, languages, rate, first_audio, share, checkpoint, device, out)


@app.command()
def http(
    url: Annotated[str, typer.Argument(help="A server, as http://127.0.0.1:8080.")],
    api: Annotated[str, typer.Option(help="openai (/v1/audio/speech) or fish (/v1/tts).")] = "openai",
    what: Annotated[str, typer.Option(help="latency, or throughput with open loops.")] = "throughput",
    concurrency: Concurrency = "1,2,4,8",
    seconds: Seconds = 15,
    rate: Rate = None,
    buckets: Buckets = ALL,
    languages: Languages = "en",
    first_audio: FirstAudio = 1.0,
    share: Share = 0.95,
    voice: Annotated[str | None, typer.Option(help="The server's name for a voice.")] = None,
    model: Annotated[str, typer.Option(help="The server's name for a model, which OpenAI's shape demands.")] = "tts-1",
    out: Out = None,
) -> None:
    """Measure a server: fishserve or any with OpenAI's or Fish Audio's HTTP API. FISHSERVE_BENCH_KEY is its API key."""
    import httpx

    from bench.null import null_server
    from bench.record import facts, recording
    from bench.serving import Objective
    from bench.targets import http_target

    if what not in ("latency", "throughput"):
        raise RequestError(f"what is {what!r}; there are latency and throughput", "what")
    levels, objective = _levels(concurrency), Objective(first_audio, share)
    settings = {
        "url": str(httpx.URL(url).copy_with(userinfo=b"")), "api": api, "what": what, "voice": voice, "model": model, "concurrency": levels,
        "seconds": seconds, "buckets": buckets, "languages": languages, "rate": rate, "objective": vars(objective),
    }  # fmt: skip
    key = os.environ.get("FISHSERVE_BENCH_KEY")

    async def measure(record: Record, null: str) -> None:
        headers, limits = {"Authorization": f"Bearer {key}"} if key else {}, httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(headers=headers, timeout=httpx.Timeout(600, connect=10), limits=limits, trust_env=False) as client:
            speak, idle = http_target(client, url, api, voice, model), http_target(client, null, api)
            # Start numbering from the clock: the server may have cached the prompts of an earlier run.
            await _load(
                speak, idle, record, levels, seconds, buckets, languages, what, rate, objective, first=1000 + int(time.time()) % 8000
            )

    with null_server() as null, _recorded(recording(out, "http", settings, facts(None))) as record:
        asyncio.run(measure(record, null))


@app.command()
def compare(
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            help="reference, compiled (the same through torch.compile), self, or short (ours with a context of 1024); repeatable."
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns that each takes.")] = 6,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of each process; by default one a core.")] = None,
    checkpoint: Checkpoint = None,
    device: Device = None,
    out: Out = None,
) -> None:
    """Compare our decoding with the reference implementation's, or with ours again; needs `make reference`."""
    from bench.compare import compare as run
    from bench.record import facts, recording

    loaded, _ = _checkpoint(checkpoint, device)
    baselines, threads = baseline or ["reference"], threads or os.cpu_count() or 1
    settings = {"baselines": baselines, "rounds": rounds, "threads": threads}
    measured, path, where = facts(loaded), loaded.path, loaded.device
    del loaded  # each process loads its own checkpoint, and there may be three processes
    with _recorded(recording(out, "compare", settings, measured)) as record:
        run(path, where, baselines, rounds, threads, record, _step)


@app.command()
def codec(checkpoint: Checkpoint = None, device: Device = None, out: Out = None) -> None:
    """Encode and decode speed of the codec alone."""
    from bench.codec import measure
    from bench.record import facts, recording

    loaded, _ = _checkpoint(checkpoint, device)
    with _recorded(recording(out, "codec", {}, facts(loaded))) as record:
        measure(loaded, record, _step)


@app.command()
def roofline(
    streams: Annotated[str, typer.Option(help="Numbers of streams.")] = "1,8",
    checkpoint: Checkpoint = None,
    device: Device = None,
    out: Out = None,
) -> None:
    """How far each stage of a frame is from the device's bandwidth and arithmetic."""
    from bench.record import facts, recording
    from bench.roofline import measure

    loaded, settings = _checkpoint(checkpoint, device)
    rows = _levels(streams)
    with _recorded(recording(out, "roofline", {"streams": rows, "weights": settings.weights}, facts(loaded))) as record:
        measure(loaded, settings.weights, rows, record, _step)


@app.command()
def frames(
    streams: Annotated[str, typer.Option(help="Numbers of streams.")] = "1,8",
    checkpoint: Checkpoint = None,
    device: Device = None,
    out: Out = None,
) -> None:
    """Whole frames as the engine makes them; on CUDA also the proof that its graphs are right."""
    from bench.frames import measure
    from bench.record import facts, recording

    loaded, settings = _checkpoint(checkpoint, device)
    rows = _levels(streams)
    chosen = {"streams": rows, "weights": settings.weights, "fast_layers": settings.fast_layers}
    with _recorded(recording(out, "frames", chosen, facts(loaded))) as record:
        measure(loaded, settings.weights, rows, record, _step, settings.fast_layers)


@app.command()
def host(
    rows: Annotated[str, typer.Option(help="Numbers of rows.")] = "1,8,64,128",
    checkpoint: Checkpoint = None,
    out: Out = None,
) -> None:
    """What the engine's own Python takes between two frames, with a device that takes no time."""
    from bench.host import measure
    from bench.record import facts, recording

    loaded, _ = _checkpoint(checkpoint, "cpu")
    levels = _levels(rows)
    with _recorded(recording(out, "host", {"rows": levels}, facts(loaded))) as record:
        measure(loaded, levels, record, _step)


@app.command()
def rounding(
    texts: Annotated[int, typer.Option(min=1, help="Number of texts.")] = 8,
    frames: Annotated[int, typer.Option(min=1, help="Frames of each, at most.")] = 64,
    checkpoint: Checkpoint = None,
    out: Out = None,
) -> None:
    """What rounding does to hidden states, logits and choices: FP16, and 8-bit weights as a GPU and a CPU use them. It takes a CPU alone."""
    from bench.record import facts, recording
    from bench.rounding import measure

    loaded, _ = _checkpoint(checkpoint, "cpu")
    with _recorded(recording(out, "rounding", {"texts": texts, "frames": frames}, facts(loaded))) as record:
        measure(loaded, texts, frames, record, _step)


@app.command()
def soak(
    minutes: Annotated[float, typer.Option(min=0.05, help="How long.")] = 20,
    clients: Annotated[int, typer.Option(min=1, help="Requests in flight.")] = 12,
    slots: Annotated[int, typer.Option("--slots", "--rows", min=1, help="Of which so many are generated at once.")] = 8,
    faults: Annotated[int, typer.Option(min=0, help="It goes on until there were so many, however long that takes.")] = 1,
    seed: Annotated[int, typer.Option(help="Of who leaves and what fails.")] = 0,
    checkpoint: Checkpoint = None,
    device: Device = None,
    out: Out = None,
) -> None:
    """Run mixed lengths, clients that leave and faults for a long time. Fails unless memory is flat and every request ends once."""
    from bench.record import facts, recording
    from bench.soak import soak as run
    from inference.engine.startup import engine_for

    loaded, chosen = _checkpoint(checkpoint, device)
    settings = {"minutes": minutes, "clients": clients, "slots": slots, "faults": faults, "seed": seed, "weights": chosen.weights}
    with (
        _recorded(recording(out, "soak", settings, facts(loaded))) as record,
        engine_for(loaded, chosen, slots) as engine,
    ):
        well = run(engine, 60 * minutes, clients, seed, record, _step, faults)
    if not well:
        raise typer.Exit(1)


@app.command()
def busy(
    neighbours: Annotated[
        int | None, typer.Option(min=1, max=256, help="Programs that want the cores, too; by default one for each core.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Times that it speaks alone and beside the neighbours.")] = 6,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long a round speaks alone.")] = 10,
    checkpoint: Checkpoint = None,
    device: Device = None,
    out: Out = None,
) -> None:
    """Speed beside other programs that keep the cores busy, as a share of the speed alone."""
    from bench.busy import measure
    from bench.record import facts, recording
    from inference.cpu_threads import allowed_cpus
    from inference.engine.startup import engine_for

    loaded, chosen = _checkpoint(checkpoint, device)
    neighbours = neighbours or len(allowed_cpus())
    settings = {"neighbours": neighbours, "rounds": rounds, "seconds": seconds, "weights": chosen.weights}
    with (
        _recorded(recording(out, "busy", settings, facts(loaded))) as record,
        engine_for(loaded, chosen, slots=1) as engine,
    ):
        measure(engine, neighbours, rounds, seconds, record, _step)


@app.command()
def saas(
    url: Annotated[str, typer.Argument(help="An API, as http://127.0.0.1:8090.")],
    rate: Annotated[float, typer.Option(min=0.1, help="Jobs a second, whether or not earlier ones were answered.")] = 150,
    seconds: Seconds = 20,
    out: Out = None,
) -> None:
    """How long a `fishserve saas` takes to take a job. FISHSERVE_BENCH_KEY holds comma-separated keys with credits."""
    from bench.jobs import measure
    from bench.record import facts, recording

    keys = [key for key in os.environ.get("FISHSERVE_BENCH_KEY", "").split(",") if key]
    if not keys:
        raise RequestError("FISHSERVE_BENCH_KEY is not set; it holds API keys of the server that is measured")
    with _recorded(recording(out, "saas", {"rate": rate, "seconds": seconds, "keys": len(keys)}, facts(None))) as record:
        asyncio.run(measure(url, keys, rate, seconds, record, _step))


@app.command()
def attack(
    url: Annotated[str, typer.Argument(help="A server on this machine that nobody needs, as http://127.0.0.1:8080.")],
    quick: Annotated[bool, typer.Option("--quick", help="Only the attacks that take a second or two.")] = False,
    siege: Annotated[float, typer.Option(min=0, help="Minutes of 56 ordinary clients, then as many with 8 attackers beside them.")] = 0,
    out: Out = None,
) -> None:
    """Attack a server of yours, each time with a small input, and say what it took. Fails unless it speaks afterwards. Key: FISHSERVE_BENCH_KEY."""
    from bench.attack import QUICK, Target, attacks_on, measure
    from bench.record import facts, recording
    from bench.siege import ATTACKERS
    from bench.siege import siege as besiege

    target = Target(url, os.environ.get("FISHSERVE_BENCH_KEY"))
    names = tuple(name for name in asyncio.run(attacks_on(target)) if name in QUICK or not quick)
    with _recorded(recording(out, "attack", {"attacks": list(names)}, facts(None))) as record:

        def add(row: dict[str, object]) -> None:
            record.runs.append(row)
            console.print(f"{row['attack']}: {row['answer']}")

        for attackers in (0, ATTACKERS) if siege else ():
            record.runs.append(asyncio.run(besiege(target, 60 * siege, attackers)))
        speaks = asyncio.run(measure(target, () if siege else names, add))
    if not speaks:
        raise RequestError("the server does not speak any more")


@app.command()
def voices(
    url: Annotated[str, typer.Argument(help="A server, as http://127.0.0.1:8080.")],
    directory: Annotated[Path, typer.Option(help="The server's voices directory, where voices of random codes are written first.")],
    number: Annotated[int, typer.Option(min=1, help="Voices.")] = 1000,
    skew: Annotated[float, typer.Option(min=0, help="Voice n is asked for 1 / n^skew times as often as the first.")] = 1.0,
    concurrency: Concurrency = "8",
    seconds: Seconds = 15,
    out: Out = None,
) -> None:
    """How often a server, or a cluster's replicas, have a voice's prompt in their caches."""
    from bench.record import facts, recording
    from bench.voice_mix import make_voices, measure_levels

    settings = {"voices": number, "skew": skew, "seconds": seconds}
    make_voices(directory, number, 6)
    with _recorded(recording(out, "voices", settings, facts(None))) as record:
        record.runs += asyncio.run(measure_levels(url.rstrip("/"), number, skew, _levels(concurrency), seconds))


@app.command()
def fleet(
    result: Annotated[Path, typer.Argument(help="JSON of `http` or `voices` with two levels or more: how long a replica takes.")],
    prefill: Annotated[float, typer.Option(min=0, help="Seconds to compute the prompt of a voice that is in no cache.")] = 0.05,
    replicas: Annotated[str, typer.Option(help="Numbers of replicas, comma-separated.")] = "10,100,1000,10000",
    cached: Annotated[int, typer.Option(min=1, help="Voices that a replica's cache holds.")] = 50,
    check: Annotated[list[str] | None, typer.Option(help="routing=JSON of `voices` of a cluster here, which is simulated, too.")] = None,
    out: Out = None,
) -> None:
    """Simulate clusters: what routing, bursts and cold starts cost. Nothing is measured but on paper."""
    from bench.fleet_cases import simulated
    from bench.record import facts, read, recording

    measured = [(routing, read(Path(path))) for routing, _, path in (words.partition("=") for words in check or ())]
    settings = {"result": result.name, "prefill": prefill, "replicas": replicas, "cached": cached}
    with _recorded(recording(out, "fleet", settings, facts(None))) as record:
        for row in simulated(read(result), prefill, _levels(replicas), cached, measured):
            record.runs.append(row)
            record.write()


@app.command()
def cost(
    result: Annotated[Path, typer.Argument(help="JSON of `throughput`, `latency` or `http`.")],
    price: Annotated[float, typer.Option(min=0, help="What an hour of the machine costs, in any currency.")],
) -> None:
    """Price of an hour of speech at each concurrency, and what idle time makes of it."""
    from bench.record import read
    from bench.tables import cost as table

    body = read(result)
    if "objective" not in body["settings"]:
        raise RequestError(f"{result} is of `{body['command']}`, which has no throughput; give one of `throughput`, `latency` or `http`")
    typer.echo(table(body, price, (1.0, 0.5, 0.25, 0.1)).markdown())


@app.command()
def report(
    results: Annotated[list[Path], typer.Argument(help="JSON files; two of the same command are also compared.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="HTML page to write; the markdown goes beside it.")] = Path(
        "var/bench/report.html"
    ),
) -> None:
    """A markdown table and a page with charts from one result or several."""
    from bench.record import read
    from bench.report import html, markdown

    records = [(path.name, read(path)) for path in results]
    words = markdown(records)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(html(records), encoding="utf-8")
        out.with_suffix(".md").write_text(words, encoding="utf-8")
    except OSError as e:
        raise RequestError(f"cannot write {out}: {e.strerror or e}") from None
    typer.echo(words)
    console.print(f"{out} and {out.with_suffix('.md').name}")


def _in_process(
    command: str, concurrency: str, seconds: float, buckets: str, languages: str, rate: float | None, first_audio: float, share: float,
    checkpoint: str | None, device: str | None, out: Path | None,
) -> None:  # fmt: skip
    from bench.null import NullTarget
    from bench.record import facts, recording
    from bench.serving import Objective
    from bench.targets import engine_target
    from inference.engine.startup import engine_for

    levels, objective = _levels(concurrency), Objective(first_audio, share)
    loaded, chosen = _checkpoint(checkpoint, device)
    settings = {
        "concurrency": levels, "seconds": seconds, "buckets": buckets, "languages": languages, "rate": rate, "objective": vars(objective),
        "rows": max(levels), "weights": chosen.weights, "fast_layers": chosen.fast_layers,
    }  # fmt: skip
    with (
        _recorded(recording(out, command, settings, facts(loaded))) as record,
        engine_for(loaded, chosen, max(levels)) as engine,
    ):
        record.body["graphs"] = engine.graphs
        null = NullTarget()
        try:
            targets = engine_target(engine), engine_target(null)
            asyncio.run(_load(*targets, record, levels, seconds, buckets, languages, command, rate, objective))
        finally:
            null.close()


async def _load(
    speak: Speak, null: Speak, record: Record, levels: list[int], seconds: float, buckets: str, languages: str, what: str,
    rate: float | None, objective: Objective, first: int = 1000,
) -> None:  # fmt: skip
    from bench.prompts import prompts
    from bench.serving import closed_levels, one_client_rate, open_levels, own_cost, warm_up

    texts = prompts(buckets.split(","), languages.split(","), first)
    with _step("the load generator alone", None):
        record.body["client"] = await own_cost(null, max(levels))
    await warm_up(speak, texts, max(levels), record, _step)
    await closed_levels(speak, texts, levels, seconds, record, _step)
    if what == "throughput":
        await open_levels(speak, texts, rate or one_client_rate(record) / 2, seconds, objective, record, _step)


@contextmanager
def _recorded(recording: AbstractContextManager[Record]) -> Iterator[Record]:
    """Measure into a record, then print its tables; Ctrl-C stops the measurement and keeps the results so far."""
    from bench.record import read
    from bench.tables import tables

    stopped = False
    try:
        with recording as record:
            yield record
    except KeyboardInterrupt:
        stopped = True
    for table in tables(read(record.path)):
        typer.echo(table.markdown())
    console.print(f"{record.path}{': stopped, and what was measured until then is kept' if stopped else ''}")
    if stopped:
        raise typer.Exit(130)


def _step(name: str, seconds: float | None) -> AbstractContextManager[None]:
    from bench.progress import step

    return step(console, name, seconds)


def _checkpoint(checkpoint: str | None, device: str | None) -> tuple[Loaded, Settings]:
    from inference.engine.device import use_threads
    from inference.engine.startup import load_checkpoint
    from inference.hub import locate
    from inference.settings import read

    settings = read(checkpoint=checkpoint, device=device)
    where = locate(settings.checkpoint)
    with console.status("loading the model"):
        loaded = load_checkpoint(where, settings)
    use_threads(loaded)  # also without an engine: measure each stage as it runs when serving
    return loaded, settings


def _levels(words: str) -> list[int]:
    """ "1,2,4" -> [1, 2, 4]. Raises RequestError."""
    levels = [int(w) for w in words.split(",") if w.strip().isdecimal()]
    if len(levels) != len(words.split(",")) or not all(levels):
        raise RequestError(f"{words!r} is not a list of whole numbers from 1 on, like 1,2,4")
    return levels

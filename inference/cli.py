"""The `fishserve` command. Heavy imports stay inside the commands, so that `--help` is instant."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from bench.cli import app as bench
from inference import checkpoint_cli, pronunciation_cli, warm_cli
from inference.checkpoint_cli import AdapterOption
from inference.cluster.cli import app as cluster
from inference.cpu_threads import prepare
from inference.errors import FishserveError, RequestError
from inference.extras import explained, needs
from inference.importing import without_collector
from inference.outputs import Outputs, check_writable, save_codes, speak, writing
from inference.pronunciation_cli import DictionaryOption
from saas.cli import app as saas

if TYPE_CHECKING:
    import numpy as np

    from inference import SpeechEngine
    from inference.http.keys import Keys
    from inference.settings import Settings
    from inference.voices.store import VoiceStore

EXTRAS = {"serve": "server", "wyoming": "wyoming", "keys": "server", "bench": "bench", "saas": "saas", "cluster": "cluster"}
"""The extra that each command needs; all others need `engine`."""


class _Commands(TyperGroup):
    """When a command's packages are not installed, name the extra that brings them."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as e:
            raise explained(e, EXTRAS.get(ctx.invoked_subcommand, "engine"), f"`fishserve {ctx.invoked_subcommand}`") from None


app = typer.Typer(
    cls=_Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
app.add_typer(bench, name="bench")
app.add_typer(saas, name="saas")
app.add_typer(cluster, name="cluster")
app.add_typer(checkpoint_cli.app, name="checkpoint")
app.add_typer(pronunciation_cli.app, name="pronunciations")
app.command()(checkpoint_cli.download)
app.command()(checkpoint_cli.random_checkpoint)
app.command()(warm_cli.warm)
voices = typer.Typer(help="The voices that say and serve know by name.", no_args_is_help=True)
app.add_typer(voices, name="voices")
console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)

Checkpoint = Annotated[
    str | None, typer.Option(help="Model directory, file of weights or Hugging Face repository; without it the embedded voice.")
]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")]


def main() -> NoReturn:
    """Run the command. A FishserveError ends it with one sentence and exit code 2."""
    prepare()  # before a command loads torch
    try:
        app()
    except FishserveError as e:
        _stop(str(e))
    raise SystemExit(0)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"fishserve {version('fishserve')}")
        except PackageNotFoundError:
            typer.echo("fishserve (not installed; run from its source tree)")
        raise typer.Exit


@app.callback()
def fishserve(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)] = False,
) -> None:
    """FishSpeech 1.5 text to speech: speak, serve, measure."""


@app.command()
def say(
    text: Annotated[str, typer.Argument(help="What to say; `-` reads it from standard input.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="WAV file to write; `-` writes it to standard output.")] = Path("out.wav"),
    checkpoint: Checkpoint = None,
    adapter: AdapterOption = None,
    device: Device = None,
    voice: Annotated[str | None, typer.Option(help="A voice of the voices directory.")] = None,
    reference: Annotated[Path | None, typer.Option(help="A clip to imitate, 0.5 to 90 s; about 10 s are best.")] = None,
    reference_text: Annotated[str | None, typer.Option(help="What is said in the clip.")] = None,
    seed: Annotated[int | None, typer.Option(help="Fixes every random draw.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 takes the likeliest code each time.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Keep the likeliest codes that make up this share.")] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="Above 1, codes of the last frames become less likely.")] = None,
    normalize: Annotated[
        bool | None, typer.Option(help="Write numbers and signs out as words first; without either, as the model needs it.")
    ] = None,
    chunk_length: Annotated[int, typer.Option(help="Most UTF-8 bytes of text in one segment.")] = 200,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Most frames of one segment, 21.5 a second; 0: all the context has room for.")
    ] = None,
    compat: Annotated[
        Literal["reference"] | None, typer.Option(help="`reference`: the reference implementation's output, oddities included.")
    ] = None,
    codes: Annotated[Path | None, typer.Option(help="Also write the codes, (codebooks, frames), as a .npy file.")] = None,
    srt: Annotated[Path | None, typer.Option(help="Also write captions in SubRip's format.")] = None,
    vtt: Annotated[Path | None, typer.Option(help="Also write captions in WebVTT's format.")] = None,
    words: Annotated[Path | None, typer.Option(help="Also write when each word is heard, as JSON.")] = None,
    dictionary: DictionaryOption = None,
    quality_guard: Annotated[
        bool | None, typer.Option(help="Judge each segment and speak faulty ones anew; without either, as FISHSERVE_QUALITY_GUARD says.")
    ] = None,
) -> None:
    """Speak a text into a WAV file."""
    from inference import SpeechRequest, Voice
    from inference.hub import name_of
    from inference.text.dialogue import voice_names
    from inference.voices.notice import MINNOW, PITCH_ONLY
    from inference.voices.store import DEFAULT

    if voice is not None and reference is not None:
        raise RequestError("--voice and --reference exclude each other")
    if (reference is None) != (reference_text is None):
        raise RequestError("--reference and --reference-text go together: a clip and what is said in it")
    outputs = Outputs(out, codes, srt, vtt, words)
    outputs.check()
    settings = _settings(checkpoint=checkpoint, adapter=adapter, device=device)
    said, store = _text(text), _store(settings)
    names = voice_names(said) if compat is None else []
    for name in [*names, *([] if voice is None else [voice])]:
        store.voice(name, "")  # refuse an unknown voice before loading the model
    request = SpeechRequest(
        said, seed=seed, temperature=temperature, top_p=top_p, repetition_penalty=repetition_penalty, normalize=normalize,
        chunk_length=chunk_length, max_new_tokens=max_new_tokens, compat=compat, words=outputs.need_words,
        voices={name: Voice(name=name) for name in names}, pronunciations=pronunciation_cli.chosen(dictionary, settings),
        quality_guard=quality_guard,
    )  # fmt: skip
    with _engine(settings) as engine:
        if name_of(engine.checkpoint.path) == MINNOW and (reference is not None or {voice, *names} - {None, DEFAULT}):
            console.print(f"{PITCH_ONLY}.", style="yellow")
        if reference is not None:
            request = replace(request, voice=engine.voice(_clip(reference), reference_text or ""))
        elif voice is not None:
            request = replace(request, voice=store.encoded(voice, engine.checkpoint.codec_id, engine.encode))
        request = replace(request, voices={name: store.encoded(name, engine.checkpoint.codec_id, engine.encode) for name in names})
        speak(engine, request, outputs, console)


@app.command("text")
def show_text(
    text: Annotated[str, typer.Argument(help="What would be said; `-` reads it from standard input.")],
    checkpoint: Checkpoint = None,
    normalize: Annotated[
        bool | None, typer.Option(help="Write numbers and signs out as words first; without either, as the model needs it.")
    ] = None,
    chunk_length: Annotated[int, typer.Option(help="Most UTF-8 bytes of text in one segment.")] = 200,
    compat: Annotated[Literal["reference"] | None, typer.Option(help="`reference`: cut as the reference implementation does.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
    dictionary: DictionaryOption = None,
) -> None:
    """Show what would be spoken: the words of each segment and the pauses between them. No model is loaded."""
    from inference import SpeechRequest, Voice
    from inference.hub import locate
    from inference.model.config import GenerationDefaults
    from inference.text.dialogue import voice_names

    said, settings = _text(text), _settings(checkpoint=checkpoint)
    defaults = GenerationDefaults.from_file(locate(settings.checkpoint) / "generation_config.json")
    request = SpeechRequest(
        said, normalize=normalize, chunk_length=chunk_length, compat=compat, voices={name: Voice(name=name) for name in voice_names(said)},
        pronunciations=pronunciation_cli.chosen(dictionary, settings),
    ).resolved(defaults)  # fmt: skip
    lines, last = request.script(defaults)
    if as_json:
        segments = [{"pause": line.silence, "text": line.text} | ({"voice": line.voice} if line.voice else {}) for line in lines]
        typer.echo(json.dumps({"segments": segments, "pause_at_end": last}, ensure_ascii=False))
        return
    for number, line in enumerate(lines, 1):
        if line.silence:
            typer.echo(f"     pause {line.silence:.2f} s")
        typer.echo(f"{number:4} {f'[voice:{line.voice}] ' if line.voice else ''}{line.text}")
    if last:
        typer.echo(f"     pause {last:.2f} s")


@app.command()
def encode(
    clip: Annotated[Path, typer.Argument(help="An audio file.")],
    out: Annotated[Path, typer.Option("-o", "--out", help=".npy file to write, (codebooks, frames).")] = Path("codes.npy"),
    checkpoint: Checkpoint = None,
    device: Device = None,
) -> None:
    """Turn a clip into codes."""
    check_writable(out)
    wave = _clip(clip)
    with _engine(_settings(checkpoint=checkpoint, device=device)) as engine:
        codes = engine.encode(wave)
    save_codes(out, codes)
    console.print(f"{out}: {codes.shape[0]} codebooks, {codes.shape[1]} frames")


@app.command()
def decode(
    codes: Annotated[Path, typer.Argument(help="A .npy file of codes, (codebooks, frames).")],
    out: Annotated[Path, typer.Option("-o", "--out", help="WAV file to write; `-` writes it to standard output.")] = Path("out.wav"),
    checkpoint: Checkpoint = None,
    device: Device = None,
) -> None:
    """Turn codes into sound."""
    from inference.audio.write import wav
    from inference.voices.codes import read_codes

    values = read_codes(codes)
    check_writable(out)
    with _engine(_settings(checkpoint=checkpoint, device=device)) as engine:
        audio = engine.decode(values)
    with writing(out):
        content = wav(audio.samples, audio.sample_rate)
        sys.stdout.buffer.write(content) if str(out) == "-" else out.write_bytes(content)
    console.print(f"{out}: {audio.seconds:.2f} s")


@app.command()
def serve(
    checkpoint: Checkpoint = None,
    adapter: AdapterOption = None,
    device: Device = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on: 127.0.0.1 is this machine alone, 0.0.0.0 every address it has.")
    ] = None,
    port: Annotated[int | None, typer.Option()] = None,
    slots: Annotated[int | None, typer.Option("--slots", "--rows", help="Requests generated at once.")] = None,
    plugin: Annotated[
        Literal["saas"] | None, typer.Option(help="`saas`: sign-in, credits and voices before the engine; docs/saas.md says what it needs.")
    ] = None,
) -> None:
    """Serve speech over HTTP."""
    from inference.hub import complete, locate
    from inference.listening import listen, url_of
    from inference.server.litserve_host import serve as run
    from inference.serving_checks import check_keys, say_what_speaks

    settings = _settings(checkpoint=checkpoint, adapter=adapter, device=device, host=host, port=port, slots=slots)
    listen(settings.host, settings.port, "FISHSERVE_PORT").close()  # before downloading or loading a model
    if plugin is None:
        check_keys(settings, console)
        before, pages = None, "a page to try it on; POST /v1/audio/speech, /v1/tts; GET /ready /metrics /docs"
    else:
        with needs("saas,server", "`fishserve serve --plugin saas`"):
            from saas.plugin import Plugin

            before = Plugin(url_of(settings.host, settings.port))
        pages = f"the app: {before.app}; the API as docs/saas.md describes it; GET /healthz /readyz"
    where = locate(settings.checkpoint)  # downloads and errors come before the server starts
    complete(where, settings.codec, settings.adapter)
    say_what_speaks(where, console)
    if failure := run(settings.model_copy(update={"checkpoint": str(where)}), before, console.print, pages=pages):
        _stop(failure)


Name = Annotated[str, typer.Argument(help="Letters, digits, spaces, - and _.")]


@voices.command("list")
def list_voices() -> None:
    """The voices there are, when each was added, and what is said in its clip."""
    store = _store()
    for name in store.names()[1:]:
        entry = store.entry(name)
        typer.echo(f"{name}\t{entry.created:%Y-%m-%d}\t{' '.join(entry.text.split())}")


@voices.command()
def add(
    name: Name,
    clip: Annotated[Path, typer.Argument(help="Sound or video of 1 to 90 s of speech; about 10 s are best.")],
    text: Annotated[str, typer.Option(help="What is said in the clip; `-` reads it from standard input.")],
) -> None:
    """Add a voice."""
    store = _store()
    store.add(name, clip, _text(text))
    console.print(f"{name} was added to {store.place}")


@voices.command()
def rename(name: Name, new: Name) -> None:
    """Give a voice another name."""
    _store().rename(name, new)


@voices.command()
def delete(name: Name, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Delete a voice's folder, its clip included."""
    _store().entry(name)
    if yes or typer.confirm(f"Delete the voice {name!r} and its clip?", abort=True):
        _store().delete(name)


keys = typer.Typer(help="The keys that serve wants, where FISHSERVE_KEYS_FILE names a file for them.", no_args_is_help=True)
app.add_typer(keys, name="keys")
KeyName = Annotated[str, typer.Argument(help="Whose key it is: letters, digits, points, - and _.")]


@keys.command("list")
def list_keys() -> None:
    """List the names of the API keys."""
    for name in _keys().names():
        typer.echo(name)


@keys.command("add")
def add_key(name: KeyName) -> None:
    """Create an API key and print it. It is shown only this once."""
    typer.echo(_keys().add(name))


@keys.command("delete")
def delete_key(name: KeyName) -> None:
    """Revoke an API key. A running server applies this at once."""
    _keys().delete(name)


@app.command()
def wyoming(
    server: Annotated[str, typer.Option(help="The fishserve that speaks.")] = "http://127.0.0.1:8080",
    host: Annotated[str, typer.Option(help="Address to listen on; 127.0.0.1: this machine alone.")] = "0.0.0.0",
    port: Annotated[int, typer.Option(min=1, max=65_535)] = 10_200,
) -> None:
    """Speak for Home Assistant, by its Wyoming protocol, with a running server. FISHSERVE_KEY is that server's API key."""
    import asyncio
    from contextlib import suppress

    from inference.server.wyoming_server import Fishserve, serve

    speaker = Fishserve(server, os.environ.get("FISHSERVE_KEY"))
    console.print(f"Home Assistant is answered on port {port}; {speaker.url} speaks")
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(speaker, host, port))


@app.command()
def calibrate_times(checkpoint: Checkpoint = None, device: Device = None) -> None:
    """Find the attention heads that say when each word is spoken, for a model that names none, and store them beside the voices.

    The model speaks a few sentences, for up to a minute. Exit code 1 when it has no such heads; word times stay estimates then.
    """
    from inference.engine.calibration import calibrate, store
    from inference.hub import locate
    from inference.model.config import GenerationDefaults
    from inference.model.layout import layout_of

    settings = _settings(checkpoint=checkpoint, device=device)
    named = GenerationDefaults.from_file(layout_of(locate(settings.checkpoint)).defaults).alignment_heads
    if named:
        console.print(f"the model's generation_config.json names {len(named)} heads, and they count; nothing was stored")
        return
    with _engine(settings) as engine:
        choice = calibrate(engine, console.print)
        file = store(settings.voices_dir, engine.checkpoint, choice)
    console.print(f"{choice}; stored in {file}")
    if not choice.heads:
        raise typer.Exit(1)


@app.command()
def doctor(checkpoint: Checkpoint = None, adapter: AdapterOption = None, device: Device = None) -> None:
    """Check the device, the precision, the memory and the checkpoint. Exit code 1 when something is wrong."""
    from inference.doctor import examine

    settings = _settings(checkpoint=checkpoint, adapter=adapter, device=device)
    if not examine(settings, console):
        raise typer.Exit(1)


def _settings(**given: Any) -> Settings:
    from inference.settings import read

    return read(**given)


@contextmanager
def _engine(settings: Settings) -> Iterator[SpeechEngine]:
    with without_collector():
        from inference.engine.startup import engine_for, load_checkpoint
    from inference.hub import locate
    from inference.serving_checks import say_what_speaks

    where = locate(settings.checkpoint)
    say_what_speaks(where, console)
    with console.status("loading the model"):
        engine = engine_for(load_checkpoint(where, settings), settings, slots=1)
    with engine:
        yield engine


def _text(argument: str) -> str:
    if argument != "-":
        return argument
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as e:
        raise RequestError(f"standard input is not UTF-8: byte {e.object[e.start]:#04x} at {e.start}", "text") from None


def _clip(path: Path) -> np.ndarray:
    from inference.audio.subprocess_decoder import decode_in_subprocess

    return decode_in_subprocess(path, fit=False)


def _keys() -> Keys:
    from inference.http.keys import Keys

    path = _settings().keys_file
    if path is None:
        raise RequestError("FISHSERVE_KEYS_FILE is not set; it names the file that holds the keys' hashes")
    return Keys(path)


def _store(settings: Settings | None = None) -> VoiceStore:
    from inference.voices.choice import open_store

    settings = settings or _settings()
    return open_store(settings.voices_dir, settings.voices_bucket)


def _stop(message: str) -> NoReturn:
    console.print(Text.assemble(("error: ", "bold red"), message))
    raise SystemExit(2)


if __name__ == "__main__":
    main()

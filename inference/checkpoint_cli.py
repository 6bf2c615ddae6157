"""The commands `checkpoint`, `download` and `random-checkpoint`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from inference.errors import CheckpointError, RequestError
from inference.outputs import writing

if TYPE_CHECKING:
    from inference.settings import Settings

app = typer.Typer(help="What a checkpoint is, and how to convert it: fine-tunes, LoRA adapters, int8.", no_args_is_help=True)
console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)

Where = Annotated[str, typer.Argument(help="A directory, a file of weights, or a Hugging Face repository.")]
Target = Annotated[Path, typer.Option("-o", "--out", help="Directory to write; it must not exist, or be empty.")]
AdapterOption = Annotated[
    str | None, typer.Option(help="LoRA adapter added to the checkpoint, as PATH or PATH:alpha; alpha is 16 if not given.")
]


@app.command()
def inspect(path: Where, adapter: AdapterOption = None) -> None:
    """Say what a path is, what it lacks, and what will be done. No weights are read. Exit code 1 when it cannot be loaded."""
    from inference.checkpoint_report import report
    from inference.hub import locate

    settings = _settings(adapter)
    findings = report(locate(path), settings.codec, settings.adapter)
    for finding in findings:
        typer.echo(f"{finding.part:<10} {finding.text}")
    if not all(finding.good for finding in findings):
        raise typer.Exit(1)


@app.command()
def merge(
    base: Where,
    adapter: Annotated[str, typer.Argument(help="The LoRA adapter, as PATH or PATH:alpha; alpha is 16 if not given.")],
    out: Target,
) -> None:
    """Add a LoRA adapter to its base and write the result as a checkpoint. What it changes becomes FP32."""
    _convert(base, out, adapter)


@app.command()
def convert(path: Where, out: Target) -> None:
    """Write a checkpoint of any layout in the official one, with safetensors. int8 weights become FP32."""
    _convert(path, out, None)


def download(
    repository: Annotated[str, typer.Argument(help="owner/name or owner/name@revision.")] = "fishaudio/fish-speech-1.5",
) -> None:
    """Fetch a checkpoint from the Hugging Face Hub and print where it lies."""
    from inference.hub import fetch, is_repository

    if not is_repository(repository):
        raise CheckpointError(f"{repository!r} is not a repository name like owner/name")
    typer.echo(fetch(repository))


def random_checkpoint(
    directory: Annotated[Path, typer.Argument(help="Where to write it.")],
    shape: Annotated[str, typer.Option(help="tiny, or full: FishSpeech 1.5's own.")] = "tiny",
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1)] = 0,
) -> None:
    """Write a checkpoint with random weights, for tests and benchmarks."""
    from inference.model.random_checkpoint import SHAPES, write

    if shape not in SHAPES:
        raise RequestError(f"shape is {shape!r}; there are {' and '.join(SHAPES)}")
    with writing(directory):
        write(directory, shape, seed)
    console.print(f"{directory}: random weights of the {shape} shape. They speak noise.")


def _convert(path: str, out: Path, adapter: str | None) -> None:
    from inference.hub import complete, locate
    from inference.model.convert import write

    where = locate(path)
    files = complete(where, _settings().codec, adapter)
    with writing(out), console.status("converting"):
        write(files, out)
    console.print(f"{out}: {sum(file.stat().st_size for file in out.iterdir()) / 1e6:.1f} MB")


def _settings(adapter: str | None = None) -> Settings:
    from inference.settings import read

    return read(adapter=adapter)

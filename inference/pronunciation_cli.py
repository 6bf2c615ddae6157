"""The command `pronunciations`, and what `say` and `text` take of dictionaries and dialogues."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from inference.settings import Settings
    from inference.text.pronunciation import Pronunciations
    from inference.voices.dictionaries import DictionaryStore

app = typer.Typer(help="The pronunciation dictionaries that say and serve know by name.", no_args_is_help=True)
console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)

Name = Annotated[str, typer.Argument(help="Letters, digits, spaces, - and _.")]
DictionaryOption = Annotated[
    list[str] | None, typer.Option("--dictionary", help="A pronunciation dictionary, by name, or its file (.json, .pls); up to three.")
]


@app.command("list")
def list_dictionaries() -> None:
    """The dictionaries there are, and how many rules each has."""
    from inference.errors import DictionaryNotFound

    store = _store()
    for name in store.names():
        try:
            found = store.get(name)
        except DictionaryNotFound as e:  # damaged
            console.print(str(e))
            continue
        typer.echo(f"{name}\t{len(found.rules)} rules\t{found.description}")


@app.command()
def add(
    name: Name,
    file: Annotated[Path, typer.Argument(help="JSON, or PLS with aliases.")],
    replace: Annotated[bool, typer.Option(help="Take the place of the rules of a dictionary with this name.")] = False,
) -> None:
    """Add a dictionary from a file."""
    from inference.voices.lexicon import read_file

    store, rules = _store(), read_file(file)
    found = store.change(name, lambda _: rules) if replace and name in store.names() else store.add(name, rules)
    console.print(f"{name} has {len(found.rules)} rules now")


@app.command()
def show(name: Name) -> None:
    """Print a dictionary's rules as JSON."""
    import json

    typer.echo(json.dumps([rule.fields() for rule in _store().get(name).rules], ensure_ascii=False, indent=1))


@app.command()
def delete(name: Name) -> None:
    """Delete a dictionary."""
    _store().delete(name)


def chosen(names: Sequence[str] | None, settings: Settings) -> Pronunciations:
    """The rules of the dictionaries that `--dictionary` names. Raises RequestError, DictionaryNotFound."""
    from inference.text.pronunciation import Pronunciations
    from inference.voices.lexicon import read_file

    store, found = _store(settings), Pronunciations()
    for name in names or ():
        found += (
            Pronunciations(read_file(Path(name)))
            if Path(name).suffix in (".json", ".pls", ".xml")
            else store.pronunciations([(name, None)])
        )
    return found


def _store(settings: Settings | None = None) -> DictionaryStore:
    from inference.settings import read
    from inference.voices.dictionaries import DictionaryStore

    return DictionaryStore((settings or read()).voices_dir)

"""Who acts, why, and whether it is meant: what every act of the desk asks first."""

from __future__ import annotations

import getpass
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from inference.errors import RequestError

if TYPE_CHECKING:
    from saas.admin.repository import Operator

console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
Reason = Annotated[str, typer.Option(help="Why, for the record.")]
MAX_REASON, MAX_NAME = 500, 100


def operator(actor: str | None, reason: str) -> Operator:
    """The operator, by name or by login. Raises RequestError."""
    from saas.admin.repository import Operator

    try:
        name = actor if actor is not None else os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        raise RequestError("this login has no name: say who you are with --actor NAME") from None
    name, reason = name.strip(), reason.strip()
    if not 1 <= len(name) <= MAX_NAME:
        raise RequestError(f"--actor has {len(name)} characters; a name has 1 to {MAX_NAME}")
    if not 1 <= len(reason) <= MAX_REASON:
        raise RequestError(f"--reason has {len(reason)} characters; a reason has 1 to {MAX_REASON}")
    return Operator(name, reason)


def consent(what: str, yes: bool) -> None:
    """Ask before an act. Raises RequestError where nobody can answer, typer.Exit(1) for a no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise RequestError(f"this would {what}; nobody can be asked here: add --yes to do it")
    if not typer.confirm(f"This will {what}. Go on?", err=True):
        console.print("nothing was done")
        raise typer.Exit(1)

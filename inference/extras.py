"""Which extra brings a package that is not installed, as one sentence with the command that installs it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inference.errors import MissingExtra

_OWN = frozenset(["bench", "fishserve", "inference", "saas", "worker"])
_SOURCE = Path(__file__).parents[1]


@contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """Run code that imports packages of an extra. Raises MissingExtra when one of them is not installed."""
    try:
        yield
    except ModuleNotFoundError as e:
        raise explained(e, extra, what) from None


def explained(error: ModuleNotFoundError, extra: str, what: str) -> Exception:
    """The sentence for a user, or the error itself when the missing module is one of ours."""
    package = (error.name or "").partition(".")[0]
    if not package or package in _OWN:
        return error
    return MissingExtra(f"{what} needs the package {package}, which is not installed; {install_command(extra)} installs it")


def install_command(extra: str) -> str:
    """A pip command that works here: from the source tree this runs in, or from a clone."""
    pip = _shown(Path(sys.prefix) / "bin" / "pip")
    if (_SOURCE / "pyproject.toml").is_file():
        source = "." if Path.cwd() == _SOURCE else _shown(_SOURCE)
        return f"`{pip} install --editable '{source}[{extra}]'`"
    return f"`{pip} install '.[{extra}]'` in a clone of fishserve"


def _shown(path: Path) -> str:
    """The path, relative to the working directory if it lies inside it; in the root directory, where everything does, it stays whole."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) and here != Path(here.anchor) else str(path)

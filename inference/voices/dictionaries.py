"""Pronunciation dictionaries on disk, beside the voices: a JSON file each.

A dictionary's name is its id.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from inference.errors import DictionaryExists, DictionaryNotFound, FishserveError, RequestError
from inference.text.pronunciation import Pronunciations, Rule, checked, rules_from
from inference.voices.lexicon import MAX_FILE_BYTES

MAX_DICTIONARIES, MAX_IN_REQUEST = 100, 3
MAX_DESCRIPTION = 500
_FOLDER = "_pronunciations"
"""In the directory of voices, none of which can have this name."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _-]{0,63}")
_writing = threading.Lock()
"""Of two changes of one dictionary none is lost."""


@dataclass(frozen=True)
class Dictionary:
    """A dictionary on disk. `created` is in seconds of Unix time; `version` changes with the rules."""

    name: str
    rules: tuple[Rule, ...]
    description: str
    created: int

    @property
    def version(self) -> str:
        fields = json.dumps([rule.fields() for rule in self.rules], sort_keys=True)
        return hashlib.sha256(fields.encode()).hexdigest()[:20]


class DictionaryStore:
    """The dictionaries beside the voices of a directory, which need not exist."""

    def __init__(self, voices: Path) -> None:
        self.directory = voices / _FOLDER

    def names(self) -> list[str]:
        """The names of all dictionaries, sorted."""
        return sorted(p.stem for p in self.directory.glob("*.json") if _NAME.fullmatch(p.stem))

    def get(self, name: str, version: str | None = None) -> Dictionary:
        """A dictionary. Raises DictionaryNotFound also when it has not the `version` any more."""
        path = self._path(name)
        try:
            about = path.stat() if path else None
        except OSError:
            about = None
        if path is None or about is None:
            raise self._not_found(name)
        found = _read(path, name, about.st_mtime_ns, about.st_size)
        if version is not None and version != found.version:
            raise DictionaryNotFound(
                f"the pronunciation dictionary {name!r} has no version {version[:80]!r}; its rules are those of version {found.version}",
                "pronunciation_dictionaries",
            )
        return found

    def pronunciations(self, asked: Sequence[tuple[str, str | None]]) -> Pronunciations:
        """The rules of the dictionaries that a request names, each with its version or None; those of the first go first.

        Raises DictionaryNotFound, RequestError.
        """
        if len(asked) > MAX_IN_REQUEST:
            raise RequestError(
                f"{len(asked)} pronunciation dictionaries were named; at most {MAX_IN_REQUEST} are used in one request",
                "pronunciation_dictionaries",
            )
        return sum((Pronunciations(self.get(name, version).rules) for name, version in asked), Pronunciations())

    def add(self, name: str, rules: Sequence[Rule], description: str = "") -> Dictionary:
        """Add a dictionary. Raises RequestError, DictionaryExists."""
        path = self._path(name)
        if path is None:
            raise RequestError(
                f"{name[:80]!r} cannot be a dictionary's name; it has 1 to 64 letters, digits, spaces, - and _, and begins with a letter or digit",
                "name",
            )
        if len(description) > MAX_DESCRIPTION or any("\ud800" <= c <= "\udfff" for c in description):
            raise RequestError(f"a description is Unicode of at most {MAX_DESCRIPTION} characters", "description")
        if len(self.names()) >= MAX_DICTIONARIES:
            raise RequestError(f"there are {MAX_DICTIONARIES} pronunciation dictionaries already; delete some first", "name")
        with _writing:
            if path.exists():
                raise DictionaryExists(
                    f"there is a pronunciation dictionary {name!r} already; delete it first, or choose another name", "name"
                )
            self._write(path, Dictionary(name, checked(rules), description, int(time.time())))
        return self.get(name)

    def change(self, name: str, change: Callable[[tuple[Rule, ...]], Sequence[Rule]]) -> Dictionary:
        """Replace a dictionary's rules by what `change` makes of them. Raises DictionaryNotFound, RequestError."""
        with _writing:
            old = self.get(name)
            self._write(self.directory / f"{name}.json", Dictionary(name, checked(change(old.rules)), old.description, old.created))
        return self.get(name)

    def delete(self, name: str) -> None:
        """Delete a dictionary, which may be damaged. Running requests are unaffected. Raises DictionaryNotFound."""
        path = self._path(name)
        if path is None or not path.exists():
            raise self._not_found(name)
        with _reported():
            path.unlink(missing_ok=True)

    def _not_found(self, name: str) -> DictionaryNotFound:
        known = ", ".join(self.names()[:20]) or "none"
        return DictionaryNotFound(f"there is no pronunciation dictionary {name[:80]!r}; known ones: {known}", "pronunciation_dictionaries")

    def _path(self, name: str) -> Path | None:
        return self.directory / f"{name}.json" if _NAME.fullmatch(name) else None

    def _write(self, path: Path, dictionary: Dictionary) -> None:
        content: dict[str, Any] = {"description": dictionary.description, "created": dictionary.created}
        text = json.dumps(content | {"rules": [rule.fields() for rule in dictionary.rules]}, ensure_ascii=False, indent=1)
        temporary = path.with_name(f".{secrets.token_hex(8)}")
        with _reported():
            self.directory.mkdir(parents=True, exist_ok=True)
            try:
                with temporary.open("w", encoding="utf-8") as file:
                    file.write(text + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(path)
            finally:
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)


@lru_cache(32)
def _read(path: Path, name: str, age: int, size: int) -> Dictionary:
    """The dictionary in a file, read again once the file has changed. Raises DictionaryNotFound."""
    try:
        if size > MAX_FILE_BYTES:
            raise ValueError(f"it has {size:,} bytes")
        found = json.loads(path.read_text(encoding="utf-8"))
        given = found if isinstance(found, dict) else {"rules": found}
        created = given.get("created", age // 10**9)
        return Dictionary(name, rules_from(given.get("rules")), str(given.get("description", "")), int(created))
    except (OSError, ValueError, TypeError, OverflowError, RecursionError, RequestError) as e:
        reason = e.strerror if isinstance(e, OSError) else e
        raise DictionaryNotFound(
            f"the pronunciation dictionary {name!r} is damaged; delete it and add it again: {reason}", "pronunciation_dictionaries"
        ) from None


@contextlib.contextmanager
def _reported() -> Iterator[None]:
    """Raises FishserveError when the disk is full or not writable."""
    try:
        yield
    except OSError as e:
        raise FishserveError(f"the pronunciation dictionaries cannot be written to disk: {e.strerror or e}") from None

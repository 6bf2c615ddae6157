"""Named voices on disk: a folder each, with `codes.npy` (from `fishserve encode`) and `text.txt` (what is said)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from inference.errors import VoiceNotFound
from inference.voices.voice import Reference, Voice

DEFAULT = "default"
"""The name of no reference at all: the model's own voice."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _-]{0,63}")


class VoiceStore:
    """The voices under one directory, which need not exist."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def names(self) -> list[str]:
        """All voices that can be asked for, sorted, after the default one."""
        found = (p.parent.name for p in self._directory.glob("*/codes.npy"))
        return [DEFAULT, *sorted(n for n in found if _NAME.fullmatch(n) and n != DEFAULT)]

    def get(self, name: str) -> Voice:
        """Raises VoiceNotFound, listing the names there are. A name never leads outside the directory."""
        if name == DEFAULT:
            return Voice(name=DEFAULT)
        folder = self._directory / name
        if not _NAME.fullmatch(name) or not (folder / "codes.npy").is_file():
            known = ", ".join(self.names()[:20])
            raise VoiceNotFound(f"there is no voice {name[:80]!r}; known voices: {known}", "voice")
        try:
            codes = np.load(folder / "codes.npy", allow_pickle=False)
            text = (folder / "text.txt").read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as e:
            raise VoiceNotFound(f"voice {name!r} is damaged: {e}", "voice") from None
        return Voice((Reference(codes, text),), name)

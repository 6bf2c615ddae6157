"""Named voices on disk: a folder each, with a clip and `text.txt`, what is said in it.

What a codec makes of a clip is kept beside it, as `codes-<codec>.npy`; it is as old as the clip, to the nanosecond, or it is of another. A folder
may have `codes.npy` instead of a clip, made with the model that is to speak.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from inference.audio.encode import Encoder
from inference.audio.prepare import prepare
from inference.audio.read import read_clip
from inference.errors import AudioError, RequestError, VoiceExists, VoiceNotFound
from inference.voices.codes import read_codes
from inference.voices.voice import Reference, Voice

DEFAULT = "default"
"""The name of no reference at all: the model's own voice."""
MAX_TRANSCRIPT = 2000
"""Characters: more than anyone says in 90 s."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _-]{0,63}")


@dataclass(frozen=True)
class Entry:
    """A voice as it lies on disk. `clip` is None where there are only codes."""

    name: str
    text: str
    created: datetime
    clip: Path | None


class VoiceStore:
    """The voices under one directory, which need not exist."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def names(self) -> list[str]:
        """All voices that can be asked for, sorted, after the default one."""
        found = (p.parent.name for p in self.directory.glob("*/text.txt"))
        return [DEFAULT, *sorted(n for n in found if _NAME.fullmatch(n) and n != DEFAULT)]

    def entry(self, name: str) -> Entry:
        """Raises VoiceNotFound, listing the names there are. A name never leads outside the directory."""
        folder = self.directory / name
        if name == DEFAULT or not _NAME.fullmatch(name) or not (folder / "text.txt").is_file():
            known = ", ".join(self.names()[:20])
            raise VoiceNotFound(f"there is no voice {name[:80]!r}; known voices: {known}", "voice")
        try:
            text = (folder / "text.txt").read_text(encoding="utf-8").strip()
            created = datetime.fromtimestamp((folder / "text.txt").stat().st_mtime, UTC)
            return Entry(name, text, created, next(iter(sorted(folder.glob("clip.*"))), None))
        except (OSError, ValueError) as e:
            raise self._damaged(name, e) from None

    def voice(self, name: str, codec: str) -> Voice | None:
        """A voice in the codes of a codec (`Checkpoint.codec_id`); None when its clip must be encoded first. Raises VoiceNotFound."""
        if name == DEFAULT:
            return Voice(name=DEFAULT)
        entry, folder = self.entry(name), self.directory / name
        codes = folder / (f"codes-{codec}.npy" if entry.clip else "codes.npy")
        try:
            if entry.clip and not (codes.is_file() and codes.stat().st_mtime_ns == entry.clip.stat().st_mtime_ns):
                return None
            return Voice((Reference(read_codes(codes), entry.text),), name)
        except (AudioError, OSError) as e:
            raise self._damaged(name, e) from None

    def clip(self, name: str) -> tuple[np.ndarray, int]:
        """The samples (n,) at 44.1 kHz of a voice's clip, and its age, which `keep` wants. Raises VoiceNotFound."""
        entry = self.entry(name)
        try:
            if entry.clip is None:
                raise AudioError("it has no clip")
            age = entry.clip.stat().st_mtime_ns
            return prepare(read_clip(entry.clip)), age
        except (AudioError, OSError) as e:
            raise self._damaged(name, e) from None

    def keep(self, name: str, codec: str, codes: np.ndarray, age: int) -> Voice:
        """Keep what a codec made of the clip of that age, where the folder can be written to, and give the voice."""
        entry, target = self.entry(name), self.directory / name / f"codes-{codec}.npy"
        with contextlib.suppress(OSError):
            handle, temporary = tempfile.mkstemp(dir=target.parent)
            with os.fdopen(handle, "wb") as file:
                np.save(file, codes.astype(np.int16))
            os.utime(temporary, ns=(age, age))
            Path(temporary).replace(target)
        return Voice((Reference(codes, entry.text),), name)

    def add(self, name: str, audio: Path | bytes, text: str) -> Entry:
        """A new voice from a clip and what is said in it. Raises RequestError, AudioError, VoiceExists."""
        text = text.strip()
        if not 0 < len(text) <= MAX_TRANSCRIPT:
            raise RequestError(f"the text has {len(text)} characters; what is said in the clip, 1 to {MAX_TRANSCRIPT}, is needed", "text")
        target = self._new(name)
        samples = prepare(read_clip(audio))
        self.directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=self.directory, ignore_cleanup_errors=True) as temporary:
            folder = Path(temporary) / "voice"
            folder.mkdir()
            encoder = Encoder("flac")
            (folder / "clip.flac").write_bytes(encoder.encode(samples) + encoder.finish())
            (folder / "text.txt").write_text(text + "\n", encoding="utf-8")
            _move(folder, target)
        return self.entry(name)

    def rename(self, name: str, new: str) -> None:
        """Raises VoiceNotFound, RequestError, VoiceExists."""
        self.entry(name)
        _move(self.directory / name, self._new(new))

    def delete(self, name: str) -> None:
        """Raises VoiceNotFound. Whoever speaks with it goes on."""
        self.entry(name)
        with tempfile.TemporaryDirectory(prefix=".", dir=self.directory, ignore_cleanup_errors=True) as temporary:
            _move(self.directory / name, Path(temporary) / "voice")

    def _new(self, name: str) -> Path:
        if not _NAME.fullmatch(name) or name == DEFAULT:
            raise RequestError(
                f"{name[:80]!r} cannot be a voice's name; it has 1 to 64 letters, digits, spaces, - and _, begins with a letter or digit, "
                f"and is not {DEFAULT!r}",
                "voice",
            )
        if (self.directory / name).exists():
            raise VoiceExists(f"there is a voice {name!r} already; delete it first, or choose another name", "voice")
        return self.directory / name

    def _damaged(self, name: str, error: Exception) -> VoiceNotFound:
        """Without the way to the directory, which is nobody's business."""
        return VoiceNotFound(f"voice {name!r} is damaged: {str(error).replace(f'{self.directory}{os.sep}', '')}", "voice")


def _move(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except FileNotFoundError:
        raise VoiceNotFound(f"there is no voice {source.name!r} any more", "voice") from None
    except OSError:  # someone else was faster
        raise VoiceExists(f"there is a voice {target.name!r} already; delete it first, or choose another name", "voice") from None

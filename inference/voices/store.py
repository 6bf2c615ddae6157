"""Named voices on disk: a folder each, with a clip and its transcript, `text.txt`.

The codes of a clip are cached beside it, as `codes-<codec>.npy`. They are valid only if the file's modification time equals the clip's, to
the nanosecond; they can always be made again. A folder may have `codes.npy` instead of a clip, made with the model that will speak.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from inference.audio.encode import Encoder
from inference.audio.subprocess_decoder import decode_in_subprocess
from inference.errors import AudioError, FishserveError, VoiceNotFound
from inference.voices import names
from inference.voices.codes import read_codes
from inference.voices.voice import Reference, Voice

DEFAULT = names.DEFAULT


@dataclass(frozen=True)
class Entry:
    """A voice in a store: on disk `clip` is None where there are only codes, in a bucket the clip lies under `id`.

    `age` is the clip's modification time in nanoseconds.
    """

    name: str
    text: str
    created: datetime
    clip: Path | None
    age: int
    id: str = ""


class VoiceStore:
    """The voices under one directory, which need not exist. `place` is where they are, for people."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.place = str(directory)

    def start(self) -> None:
        """Prepare for many calls. A directory needs nothing."""

    def close(self) -> None:
        """Free what `start` took."""

    def names(self) -> list[str]:
        """The default voice, then all named voices, sorted."""
        found = (p.parent.name for p in self.directory.glob("*/text.txt"))
        return [DEFAULT, *sorted(filter(names.is_name, found))]

    def entry(self, name: str) -> Entry:
        """A voice's entry. Raises VoiceNotFound, listing known names. A name never leads outside the directory."""
        folder = self.directory / name
        if not names.is_name(name) or not (folder / "text.txt").is_file():
            raise names.not_found(name, self.names())
        try:
            text = (folder / "text.txt").read_text(encoding="utf-8").strip()
            created = datetime.fromtimestamp((folder / "text.txt").stat().st_mtime, UTC)
            clip = next(iter(sorted(folder.glob("clip.*"))), None)
            return Entry(name, text, created, clip, clip.stat().st_mtime_ns if clip else 0)
        except (OSError, ValueError) as e:
            raise self._damaged(name, e) from None

    def voice(self, name: str, codec: str) -> Voice | Entry:
        """A voice in the codes of a codec (`Checkpoint.codec_id`), or its `Entry` where the caller must encode the clip first.

        Raises VoiceNotFound.
        """
        if name == DEFAULT:
            return Voice(name=DEFAULT)
        entry, folder = self.entry(name), self.directory / name
        try:
            if entry.clip is None:
                return Voice((Reference(read_codes(folder / "codes.npy"), entry.text),), name)
            kept = folder / f"codes-{codec}.npy"
            if kept.is_file() and kept.stat().st_mtime_ns == entry.age:
                return Voice((Reference(read_codes(kept), entry.text),), name)
        except (AudioError, OSError) as e:
            if entry.clip is None:
                raise self._damaged(name, e) from None
        return entry

    def encoded(self, name: str, codec: str, encode: Callable[[np.ndarray], np.ndarray]) -> Voice:
        """As `voice`, but encodes a clip that has no codes for this codec yet, with `encode` (`SpeechEngine.encode`), and keeps them.

        Also raises AudioError.
        """
        found = self.voice(name, codec)
        if isinstance(found, Voice):
            return found
        codes = self.kept(found, codec)
        if codes is None:
            codes = encode(self.clip(found))
            self.keep(found, codec, codes)
        return Voice((Reference(codes, found.text),), name)

    def kept(self, entry: Entry, codec: str) -> np.ndarray | None:  # noqa: ARG002 - `voice` has looked on disk already
        """Codes that another process has kept since, or None: then the caller must encode the clip. Blocks."""
        return None

    def clip(self, entry: Entry) -> np.ndarray:
        """The samples (n,) at 44.1 kHz of a voice's clip, prepared as a reference. Raises VoiceNotFound."""
        assert entry.clip is not None
        try:
            return decode_in_subprocess(entry.clip)
        except AudioError as e:
            raise self._damaged(entry.name, e) from None

    def keep(self, entry: Entry, codec: str, codes: np.ndarray) -> None:
        """Keep a codec's codes of a voice's clip, if the voice's folder still exists and is writable."""
        target = self.directory / entry.name / f"codes-{codec}.npy"
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        with contextlib.suppress(OSError):
            try:
                with temporary.open("wb") as file:
                    np.save(file, codes.astype(np.int16))
                os.utime(temporary, ns=(entry.age, entry.age))
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)

    def add(self, name: str, audio: Path | bytes, text: str) -> Entry:
        """Add a voice from a clip and its transcript. Raises RequestError, AudioError, VoiceExists."""
        target, text = self._new(name), names.checked_transcript(text)
        names.check_room(len(self.names()) - 1)
        samples = decode_in_subprocess(audio)
        with _writing(), self._scratch() as scratch:
            folder = scratch / "voice"
            folder.mkdir()
            (folder / "clip.flac").write_bytes(flac_of(samples))
            (folder / "text.txt").write_text(text + "\n", encoding="utf-8")
            _move(folder, target)
        return self.entry(name)

    def rename(self, name: str, new: str) -> None:
        """Rename a voice. Raises VoiceNotFound, RequestError, VoiceExists."""
        self.entry(name)
        with _writing():
            _move(self.directory / name, self._new(new))

    def delete(self, name: str) -> None:
        """Delete a voice. Running requests that use it are unaffected. Raises VoiceNotFound."""
        self.entry(name)
        with _writing(), self._scratch() as scratch:
            _move(self.directory / name, scratch / "voice")

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[Path]:
        """A temporary folder on the same disk, removed afterwards."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=self.directory, ignore_cleanup_errors=True) as scratch:
            yield Path(scratch)

    def _new(self, name: str) -> Path:
        names.check_name(name)
        if (self.directory / name).exists():
            raise names.exists(name)
        return self.directory / name

    def _damaged(self, name: str, error: Exception) -> VoiceNotFound:
        """The error for a damaged voice, without the directory's path, which clients must not see."""
        return VoiceNotFound(f"voice {name!r} is damaged: {str(error).replace(f'{self.directory}{os.sep}', '')}", "voice")


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """Raises FishserveError when the disk is full or not writable."""
    try:
        yield
    except OSError as e:
        raise FishserveError(f"the voices cannot be written to disk: {e.strerror or e}") from None


def _move(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except FileNotFoundError:
        raise names.gone(source.name) from None
    except OSError as e:
        if e.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise
        raise names.exists(target.name) from None


def flac_of(samples: np.ndarray) -> bytes:
    """A prepared clip, samples (n,) at 44.1 kHz, as a FLAC file."""
    encoder = Encoder("flac")
    return encoder.with_true_sizes(encoder.encode(samples) + encoder.finish())

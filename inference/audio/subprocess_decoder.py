"""Decodes clips in a separate process, so that a file which crashes the decoder does not crash the server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import numpy as np

from inference.audio.prepare import prepare
from inference.audio.read import read_clip
from inference.errors import AudioError

SECONDS = 60
"""Longer than decoding takes for the slowest ten minutes of sound."""
_REFUSED = 3


def decode_in_subprocess(source: Path | bytes | IO[bytes], *, fit: bool = True) -> np.ndarray:
    """Run `read_clip` and, unless `fit` is false, `prepare`: samples (n,) float32 at 44.1 kHz. Raises AudioError.

    `source` is a file by its path, its bytes, or an open file on this machine's disk.

    FFmpeg and PyAV are native code, and a file can crash them (PyAV 17.1 to 18.1 frees a channel layout with a custom order twice).
    The separate process takes 0.2 s longer than this one.
    """
    name, path = (source.name, str(source.absolute())) if isinstance(source, Path) else ("the clip", "-")
    given: Any = {"input": source} if isinstance(source, bytes) else {"stdin": subprocess.DEVNULL if isinstance(source, Path) else source}
    command = [sys.executable, "-P", "-m", "inference.audio.subprocess_decoder", path, str(int(fit))]
    try:
        # A separate process group: Ctrl-C lets running requests finish.
        done = subprocess.run(command, **given, capture_output=True, timeout=SECONDS, check=False, process_group=0)
    except subprocess.TimeoutExpired:
        raise AudioError(f"{name} could not be decoded within {SECONDS} s", "reference") from None
    if done.returncode == _REFUSED:
        raise AudioError(done.stdout.decode(), "reference")
    if done.returncode:
        raise AudioError(
            f"{name} broke its decoder (exit code {done.returncode}); convert it to WAV or MP3 in mono and try again", "reference"
        )
    return np.frombuffer(done.stdout, np.float32).copy()  # a copy in writable memory, as torch needs it


def _main(source: str, fit: str) -> None:
    try:
        samples = read_clip(sys.stdin.buffer.read() if source == "-" else Path(source))
        sys.stdout.buffer.write((prepare(samples) if int(fit) else samples).tobytes())
    except AudioError as e:
        sys.stdout.buffer.write(str(e).encode())
        raise SystemExit(_REFUSED) from None


if __name__ == "__main__":
    _main(*sys.argv[1:])

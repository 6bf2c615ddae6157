"""Reads files of codes."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from inference.errors import AudioError


def read_codes(path: Path) -> np.ndarray:
    """Read codes (codebooks, frames) int64, at least one frame, from a .npy file. Raises AudioError."""
    try:
        with path.open("rb") as file:
            return parse_codes(file, str(path))
    except FileNotFoundError:
        raise AudioError(f"{path} does not exist") from None
    except OSError:
        raise AudioError(f"{path} is not a .npy file of codes") from None


def parse_codes(file: IO[bytes], name: str) -> np.ndarray:
    """As `read_codes`, from an open file; `name` is what errors call it. Raises AudioError."""
    try:
        codes = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        raise AudioError(f"{name} is not a .npy file of codes") from None
    if not isinstance(codes, np.ndarray) or codes.dtype.kind not in "iu" or codes.ndim != 2 or not codes.size:
        found = f"{codes.dtype} of shape {codes.shape}" if isinstance(codes, np.ndarray) else "several arrays"
        raise AudioError(f"{name} holds {found}; codes are whole numbers (codebooks, frames)")
    return codes.astype(np.int64)

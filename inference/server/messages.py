"""Messages between the HTTP process and an engine's process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from inference.engine.request import GuardReport, MoreText, SpeechRequest
from inference.text.words import Word

State = dict[str, Any]
"""`status` is loading, ready or failed. A ready engine has `model`, `device`, `codec`, `slots` and `at`, when it said so (`time.monotonic`);
on CUDA also `graphs`, how its kernels run. A failed one has `error`."""
LOADING: State = {"status": "loading"}
"""The state of an engine that has not reported one yet."""


@dataclass(frozen=True)
class LiveRequest:
    """A request whose further text `AppendText` messages will bring."""

    request: SpeechRequest


@dataclass(frozen=True)
class AppendText:
    """The next text of a live request; None means that no more text will come."""

    uid: str
    text: str | MoreText | None


@dataclass(frozen=True)
class Encode:
    """A clip to turn into codes: samples (n,) at 44.1 kHz."""

    wave: np.ndarray


@dataclass(frozen=True)
class Decode:
    """Codes (codebooks, frames) to turn into audio."""

    codes: np.ndarray


@dataclass(frozen=True)
class Chunk:
    """A chunk of audio that has words or a report: samples (n,) int16. One without is its samples alone."""

    samples: np.ndarray
    words: tuple[Word, ...]
    guard: GuardReport | None = None


@dataclass(frozen=True)
class Cancel:
    """The client of a request has disconnected."""

    uid: str


@dataclass(frozen=True)
class WasRead:
    """The client of a request has taken this many chunks more."""

    uid: str
    chunks: int


Message = SpeechRequest | LiveRequest | AppendText | Encode | Decode | Cancel | WasRead

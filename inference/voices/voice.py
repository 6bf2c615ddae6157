"""A voice: the reference clips whose speaker the model imitates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Reference:
    """A clip to imitate: its `codes` (codebooks, frames) int and the `text` spoken in it."""

    codes: np.ndarray
    text: str


@dataclass(frozen=True, eq=False)
class Voice:
    """The speaker to imitate: zero or more references. Without one the model picks a voice itself."""

    references: tuple[Reference, ...] = ()
    name: str = ""

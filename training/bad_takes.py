"""Makes bad takes: good codes damaged, words spoken twice, and minnow with disturbed weights, which goes wrong by itself."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

Damage = Callable[[np.ndarray, np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
"""Makes a faulty take from the codes (codebooks, frames) of a good one, the frames where its words begin, and codes of silence."""


def looped(codes: np.ndarray, starts: np.ndarray, silence: np.ndarray, noise: np.random.Generator) -> np.ndarray:
    """The word in the middle comes again and again."""
    del silence, noise
    middle = len(starts) // 2
    begin, end = int(starts[middle - 1]), int(starts[middle])
    return np.concatenate((codes[:, :end], np.tile(codes[:, begin:end], 60)), axis=1)


def ended_early(codes: np.ndarray, starts: np.ndarray, silence: np.ndarray, noise: np.random.Generator) -> np.ndarray:
    """A quarter of it is there."""
    del starts, silence, noise
    return codes[:, : codes.shape[1] // 4]


def endless(codes: np.ndarray, starts: np.ndarray, silence: np.ndarray, noise: np.random.Generator) -> np.ndarray:
    """After the text, frames of it in any order."""
    del starts, silence
    return np.concatenate((codes, codes[:, noise.integers(0, codes.shape[1], 1024)]), axis=1)


def silenced(codes: np.ndarray, starts: np.ndarray, silence: np.ndarray, noise: np.random.Generator) -> np.ndarray:
    """Three seconds of silence in the middle."""
    del noise
    middle = int(starts[len(starts) // 2])
    return np.concatenate((codes[:, :middle], silence, codes[:, middle:]), axis=1)


def skipped(codes: np.ndarray, starts: np.ndarray, silence: np.ndarray, noise: np.random.Generator) -> np.ndarray:
    """Two words in the middle are left out."""
    del silence, noise
    middle = len(starts) // 2
    return np.concatenate((codes[:, : int(starts[middle - 1])], codes[:, int(starts[middle + 1]) :]), axis=1)


def copied(codes: np.ndarray, starts: np.ndarray, silence: np.ndarray, noise: np.random.Generator) -> np.ndarray:
    """The frames of two words in the middle come twice."""
    del silence, noise
    middle = len(starts) // 2
    return np.concatenate((codes[:, : int(starts[middle + 1])], codes[:, int(starts[middle - 1]) :]), axis=1)


def nearly_copied(codes: np.ndarray, starts: np.ndarray, silence: np.ndarray, noise: np.random.Generator) -> np.ndarray:
    """As `copied`; of the second time a fifth of the codes are those of other frames."""
    middle = len(starts) // 2
    begin, end = int(starts[middle - 1]), int(starts[middle + 1])
    again = copied(codes, starts, silence, noise)
    changed = noise.random((len(codes), end - begin)) < 0.2
    again[:, end : 2 * end - begin][changed] = codes[np.arange(len(codes))[:, None], noise.integers(0, codes.shape[1], changed.shape)][
        changed
    ]
    return again


DAMAGES: tuple[Damage, ...] = (looped, ended_early, endless, silenced, skipped, copied, nearly_copied)


def doubled(text: str, words: int, comma: bool, draw: random.Random) -> str | None:
    """A text with so many neighbouring words said twice, with a comma between or without; None where it has too few."""
    given = text.split()
    if len(given) < words + 2:
        return None
    begin = draw.randint(0, len(given) - words - 1)
    once = given[begin : begin + words]
    first = " ".join(once).rstrip(".,;:!?") + "," * comma
    return " ".join((*given[:begin], first, *once, *given[begin + words :]))


def disturbed(checkpoint: Path, target: Path, noise: float, sharpness: float) -> Path:
    """A copy of a checkpoint with noise in the attention of its slow model, in standard deviations of the weights, or with softer attention.

    Queries are multiplied by `sharpness`, so that below 1 the model looks at more of the text at once and loses its place.
    """
    shutil.copytree(checkpoint, target)
    (file,) = target.glob("model*.safetensors")
    weights, draw = load_file(file), torch.Generator().manual_seed(0)
    for name, weight in sorted(weights.items()):
        if name.startswith("layers.") and ".attention." in name:
            changed = weight.float() + noise * weight.float().std() * torch.randn(weight.shape, generator=draw)
            if "wqkv" in name:
                changed[: weights[name.replace("wqkv", "wo")].shape[1]] *= sharpness
            weights[name] = changed.to(weight.dtype)
    save_file(weights, file)
    return target

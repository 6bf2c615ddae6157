"""Finds the attention heads that follow the text, for a checkpoint whose `generation_config.json` names none, and remembers them.

The checkpoint speaks a few sentences. A head is good if, frame by frame, its attention lies close to one path that moves through the
whole text without going back.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from inference.engine.request import SpeechRequest
from inference.errors import CheckpointError
from inference.model.alignment import monotonic_path, text_attention
from inference.model.card import read_card
from inference.model.checkpoint import Checkpoint
from inference.model.config import AlignmentHead
from inference.model.dual_ar import Span
from inference.model.prompt import PromptBuilder

if TYPE_CHECKING:
    from inference.engine.engine import SpeechEngine

SENTENCES = (
    "The old lighthouse keeper climbed the stairs every evening at sunset.",
    "Please leave your wet shoes by the door, and come in quietly.",
    "My sister wants to learn the violin, but our neighbours would rather she did not.",
    "Nobody remembered who had baked the bread that morning.",
    "If the train is late again, we shall simply walk along the river.",
    "A small brown dog followed us all the way to the market.",
)
"""One segment each, for any model."""
MIN_SCORE = 0.35
"""A worse head is no head that follows the text."""
MAX_HEADS = 6
_ALMOST_AS_GOOD = 0.9
_MAX_APART = 1.0
"""Tokens by which a chosen head may on average be apart from the others: some heads look a little ahead."""
_LEAST = 1e-4


@dataclass(frozen=True)
class Choice:
    """The heads that follow the text best, and the best one's score from 0 to 1. `heads` is empty when no score reaches MIN_SCORE."""

    heads: tuple[AlignmentHead, ...]
    score: float

    def __str__(self) -> str:
        heads = ", ".join(f"layer {layer} head {head}" for layer, head in self.heads)
        return f"score {self.score:.2f}: {heads or 'no head follows the text, so word times stay estimates'}"


def calibrate(engine: SpeechEngine, progress: Callable[[str], None]) -> Choice:
    """Speak SENTENCES and choose heads. `progress` gets each sentence before it is spoken."""
    spoken = []
    for number, sentence in enumerate(SENTENCES):
        progress(sentence)
        codes = engine.generate_codes(SpeechRequest(sentence, seed=number, normalize=False, chunk_length=200))
        spoken.append(_attention(engine.checkpoint, sentence, codes))
    return choose(spoken, engine.checkpoint.config.n_head)


def choose(spoken: Iterable[np.ndarray], heads_a_layer: int) -> Choice:
    """Choose from what all heads of the model, layer by layer, looked at in each text: (heads, frames, tokens)."""
    scores, paths = zip(*(_follow(attention) for attention in spoken), strict=True)
    mean = np.mean(scores, axis=0)
    best = float(mean.max())
    if best < MIN_SCORE:
        return Choice((), best)
    good = np.flatnonzero(mean >= max(MIN_SCORE, _ALMOST_AS_GOOD * best))
    middles = [np.median(path[good], axis=0) for path in paths]
    apart = np.mean([np.abs(path[good] - middle).mean(axis=-1) for path, middle in zip(paths, middles, strict=True)], axis=0)
    together = good[apart <= max(_MAX_APART, apart.min())]
    chosen = sorted(together, key=lambda n: -mean[n])[:MAX_HEADS]
    return Choice(tuple(AlignmentHead(*divmod(int(n), heads_a_layer)) for n in sorted(chosen)), best)


def _follow(attention: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each head's score in one text, (heads,), and its path, (heads, frames).

    The score is the share of attention within a token of the path, less what the path leaves out in one jump or stands still for.
    """
    shares = attention / np.maximum(attention.sum(-1, keepdims=True), _LEAST)
    paths = monotonic_path(np.log(shares + _LEAST))
    frames, tokens = shares.shape[1:]
    padded = np.pad(shares, ((0, 0), (0, 0), (1, 1)))
    near = np.take_along_axis(padded, paths[..., None] + np.arange(3), axis=-1).sum(-1)
    jumps = np.diff(paths, axis=-1, append=tokens - 1).max(-1) / max(tokens - 1, 1)
    stays = np.array([np.bincount(path).max() for path in paths]) / frames
    return near.mean(-1) * (1 - jumps) * (1 - stays), paths


@torch.inference_mode()
def _attention(checkpoint: Checkpoint, text: str, codes: np.ndarray) -> np.ndarray:
    """What every head looked at in the text: (layers * heads, frames, tokens + 1) float64; the last column stands behind the text."""
    builder = PromptBuilder(checkpoint.tokenizer, checkpoint.config.num_codebooks)
    system, segment = builder.system(), builder.segment(text)
    spoken = torch.from_numpy(np.ascontiguousarray(codes))
    prompt = torch.cat((system, segment), dim=1)
    columns = torch.cat((prompt, torch.cat((spoken[:1] + checkpoint.tokenizer.semantic_begin, spoken))), dim=1)[:, :-1]
    columns = columns.to(checkpoint.device)
    cache = checkpoint.lm.new_cache(1, columns.shape[1])
    checkpoint.lm.slow(columns[None], cache, Span.prompt(0, 0, columns.shape[1], checkpoint.device))
    inside, start = builder.text_of(segment), prompt.shape[1] - 1
    where = range(system.shape[1] + inside.start, system.shape[1] + inside.stop + 1)
    heads = [AlignmentHead(*pair) for pair in product(range(checkpoint.config.n_layer), range(checkpoint.config.n_head))]
    return text_attention(checkpoint.lm, cache, 0, columns[:, start:], start, where, heads).double().cpu().numpy()


def store(voices: Path, checkpoint: Checkpoint, choice: Choice) -> Path:
    """Remember a choice beside the voices, for this checkpoint's weights. Returns the file."""
    file = _file(voices)
    known = _read(file) | {_identity(checkpoint): {"heads": [list(head) for head in choice.heads], "score": round(choice.score, 3)}}
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_suffix(f".{os.getpid()}")  # servers with several devices store the same choice at once
    scratch.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    scratch.replace(file)
    return file


def with_stored_heads(checkpoint: Checkpoint, voices: Path) -> Checkpoint:
    """The checkpoint with the heads that were stored for it, if it names none. Raises CheckpointError for a damaged file."""
    file = _file(voices)
    if checkpoint.defaults.alignment_heads or not (known := _read(file)):
        return checkpoint
    found = known.get(_identity(checkpoint), {"heads": []})
    try:
        heads = tuple(AlignmentHead(int(layer), int(head)) for layer, head in found["heads"])
    except (TypeError, ValueError, KeyError):
        raise CheckpointError(f"{file} is damaged; delete it and run `fishserve calibrate-times` again") from None
    return with_heads(checkpoint, heads)


def with_heads(checkpoint: Checkpoint, heads: tuple[AlignmentHead, ...]) -> Checkpoint:
    """The checkpoint with these heads."""
    return replace(checkpoint, defaults=replace(checkpoint.defaults, alignment_heads=heads))


def is_settled(checkpoint: Checkpoint, voices: Path) -> bool:
    """Whether nothing is left to find: the checkpoint names heads, a choice is stored for it, or its weights are random."""
    return bool(checkpoint.defaults.alignment_heads) or read_card(checkpoint.path).random or _identity(checkpoint) in _read(_file(voices))


def _file(voices: Path) -> Path:
    return voices / "alignment-heads.json"


def _read(file: Path) -> dict[str, dict[str, Any]]:
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        known = None
    if not isinstance(known, dict):
        raise CheckpointError(f"{file} is damaged; delete it and run `fishserve calibrate-times` again")
    return known


def _identity(checkpoint: Checkpoint) -> str:
    """16 hexadecimal digits that identify a language model by its norms, which any training changes."""
    digest = hashlib.sha256()
    for name, weight in sorted(checkpoint.lm.state_dict().items()):
        if "norm" in name:
            digest.update(name.encode() + weight.cpu().float().numpy().tobytes())
    return digest.hexdigest()[:16]

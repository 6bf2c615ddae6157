"""When each character of a text was spoken, read from the model's own attention.

While the slow model chooses a frame, some of its heads look at the token that the frame speaks. One pass over the frames computes what
these heads looked at, and a dynamic programme finds the best path through it that never goes back in the text.
Whisper's word timestamps come about in the same way (arXiv:2212.04356), there from text to sound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from inference.model.config import AlignmentHead
from inference.model.dual_ar import Attention, Block, DualAR, KVCache, apply_rope

_LEAST = 1e-4
"""The share of its attention that a frame pays at least to each token, so that one frame astray does not forbid the right path."""
_BEAM = 40.0
"""A path whose sum of logarithms is so far behind the best one's is given up: it looked past the text for more than four frames."""


@torch.inference_mode()
def text_attention(
    lm: DualAR, cache: KVCache, row: int, columns: Tensor, start: int, text: range, heads: Sequence[AlignmentHead]
) -> Tensor:
    """What `heads` looked at in the text while the model chose each frame: (heads, frames, tokens) FP32, weights of a softmax over all columns.

    `columns` (1 + codebooks, frames) int64 are those before each frame: of a whole segment the prompt's last and all frames but the last.
    They stand at `start` and later positions of the cache's row, which holds their keys and values already; the pass reads them and
    writes nothing. `text` are the positions of the text's tokens. It computes no layer behind the last of `heads`.
    """
    positions = torch.arange(start, start + columns.shape[1], device=columns.device)
    end = start + columns.shape[1]
    unseen = torch.arange(end, device=columns.device) > positions[:, None]
    rope, x = lm.rope[start:end], lm.embed(columns[None])
    found: dict[AlignmentHead, Tensor] = {}
    last = max(layer for layer, _ in heads)
    for number, block in enumerate(lm.layers[: last + 1]):
        assert isinstance(block, Block)
        queries = _queries(block.attention, block.attention_norm(x), rope)  # (1, n_head, frames, head_dim)
        keys, values = cache.k[number, row, None, :, :end], cache.v[number, row, None, :, :end]
        group = block.attention.n_head // block.attention.n_kv
        for layer, head in heads:
            if layer == number:
                scores = queries[0, head].float() @ keys[0, head // group].float().T / math.sqrt(block.attention.head_dim)
                weights = scores.masked_fill(unseen, -torch.inf).softmax(-1)
                found[AlignmentHead(layer, head)] = weights[:, text.start : text.stop]
        if number < last:
            y = F.scaled_dot_product_attention(queries, keys, values, attn_mask=~unseen, enable_gqa=True)
            x = x + block.attention.wo(y.transpose(1, 2).flatten(2))
            x = x + block.feed_forward(block.ffn_norm(x))
    return torch.stack([found[head] for head in heads])


def _queries(attention: Attention, x: Tensor, rope: Tensor) -> Tensor:
    """x (1, time, dim) -> (1, n_head, time, head_dim)."""
    rows, bias = attention.n_head * attention.head_dim, attention.wqkv.bias
    q = F.linear(x, attention.wqkv.weight[:rows], None if bias is None else bias[:rows])
    return apply_rope(q.unflatten(-1, (attention.n_head, attention.head_dim)), rope).transpose(1, 2)


def monotonic_path(scores: np.ndarray) -> np.ndarray:
    """The best token of each frame: scores (..., frames, tokens) -> (..., frames) int64.

    The path begins at the first token, never goes back, may leave tokens out, and has the largest sum of scores of all such paths.
    """
    frames, tokens = scores.shape[-2:]
    numbers = np.arange(tokens)
    best = np.where(numbers == 0, scores[..., 0, :], -np.inf)
    came_from = np.zeros(scores.shape, np.int64)
    for frame in range(1, frames):
        highest = np.maximum.accumulate(best, axis=-1)
        came_from[..., frame, :] = np.maximum.accumulate(np.where(best == highest, numbers, 0), axis=-1)
        best = highest + scores[..., frame, :]
    path = np.zeros(scores.shape[:-1], np.int64)
    path[..., -1] = best.argmax(-1)
    for frame in range(frames - 1, 0, -1):
        path[..., frame - 1] = np.take_along_axis(came_from[..., frame, :], path[..., frame, None], axis=-1)[..., 0]
    return path


def gain_of_going_back(scores: np.ndarray, letters: np.ndarray, least: int) -> float:
    """By how much the largest sum of scores grows when the path of `monotonic_path` goes back once.

    `scores` (frames, tokens); `letters` (tokens,) are those before each token, ascending. It goes back by `least` letters or more, at the
    place that is best for it; the gain is negative where no place is good, and minus infinity where there is none.
    """
    frames, tokens = scores.shape
    nearest = np.searchsorted(letters, letters + least)  # the first token from which each can be gone back to
    straight, again = np.where(np.arange(tokens) == 0, scores[0], -np.inf), np.full(tokens, -np.inf)
    for frame in range(1, frames):
        behind = np.append(np.maximum.accumulate(straight[::-1])[::-1], -np.inf)[nearest]
        again = np.maximum(behind, np.maximum.accumulate(again)) + scores[frame]
        straight = np.maximum.accumulate(straight) + scores[frame]
    return float(again.max() - straight.max())


class TextPath:
    """The path of `monotonic_path` through attention that comes frame by frame, and when each token begins in it.

    All paths that may still become the best go through the same tokens up to some frame, usually a few frames ago: until there the path is
    settled, and what `starts` says does not depend on how many frames came at a time.
    """

    def __init__(self, tokens: int) -> None:
        self._numbers = np.arange(tokens)
        self._best = np.where(self._numbers == 0, 0.0, -np.inf)
        self._came_from = np.zeros((0, tokens), np.int64)
        self._shares = np.zeros((0, tokens))
        self._places = np.zeros(0)

    def add(self, attention: np.ndarray) -> None:
        """The attention of the next frames, (heads, frames, tokens)."""
        shares = attention.astype(np.float64).mean(0)
        shares = shares / np.maximum(shares.sum(-1, keepdims=True), _LEAST) + _LEAST
        scores, before = np.log(shares), np.empty_like(shares)
        if not (len(self._places) or len(self._shares)):
            scores[:1, 1:] = -np.inf
        for frame, score in enumerate(scores):
            before[frame] = self._best
            self._best = np.maximum.accumulate(self._best) + score
            self._best[self._best < self._best.max() - _BEAM] = -np.inf
        highest = np.maximum.accumulate(before, axis=1)
        came_from = np.maximum.accumulate(np.where(before == highest, self._numbers, 0), axis=1)
        self._came_from, self._shares = np.concatenate((self._came_from, came_from)), np.concatenate((self._shares, shares))
        alive = np.flatnonzero(self._best > -np.inf)
        self._settle(alive[0], alive[-1])

    def starts(self, *, ended: bool) -> np.ndarray:
        """When each token begins, (tokens,) float64 in frames, ascending from 0; once it has `ended`, up to the number of frames.

        Before that only those that begin in the settled part. A frame that looks at two neighbouring tokens is between them, which tells
        when the second begins more exactly than whole frames do.
        """
        if ended:
            self._settle(self._best.argmax(), self._best.argmax())
        places, frames = self._places, len(self._places)
        reached = self._numbers - 0.5
        after = np.searchsorted(places, reached)
        if not ended:
            after = after[after < frames]
        if not frames:
            return np.zeros(len(after))
        before, last = np.maximum(after - 1, 0), np.minimum(after, frames - 1)
        part = (reached[: len(after)] - places[before]) / np.maximum(places[last] - places[before], _LEAST)
        starts = np.where(after == 0, 0.0, np.where(after == frames, frames, before + 0.5 + part))
        return np.maximum.accumulate(np.clip(starts, 0, frames))

    def _settle(self, first: np.int64, last: np.int64) -> None:
        """Settle the frames up to the last one at which all paths to the tokens from `first` to `last` are at the same token.

        Paths do not cross, so those to these two tell where all are.
        """
        frame = len(self._shares) - 1
        while frame >= 0 and first != last:
            first, last = self._came_from[frame, first], self._came_from[frame, last]
            frame -= 1
        settled = frame + 1
        if not settled:
            return
        path = np.full(settled, first)
        for n in range(frame, 0, -1):
            path[n - 1] = self._came_from[n, path[n]]
        shares = np.pad(self._shares[:settled], ((0, 0), (1, 1)))
        before, at, after = (shares[np.arange(settled), path + n] for n in range(3))
        self._places = np.maximum.accumulate(np.concatenate((self._places, path + (after - before) / (before + at + after))))
        self._came_from, self._shares = self._came_from[settled:], self._shares[settled:]


def token_starts(attention: np.ndarray) -> np.ndarray:
    """When each token begins: attention (heads, frames, tokens) -> (tokens,) float64 in frames, ascending, from 0 to `frames`."""
    path = TextPath(attention.shape[2])
    path.add(attention)
    return path.starts(ended=True)


def character_bounds(text: str, pieces: Sequence[bytes], starts: np.ndarray) -> np.ndarray:
    """When each character begins and the last one ends, (characters + 1,) float64 ascending, in the unit of `starts`.

    `pieces` are the tokens' bytes, together those of `text`; `starts` (tokens + 1,) says when each begins and the last one ends. A token's
    bytes share its time evenly, but white space before its first letter takes none. Of the first starts alone, the result has what they tell.
    """
    sizes = np.array([len(piece) for piece in pieces], np.int64)
    spaces = np.array([len(piece) - len(piece.lstrip()) if piece.strip() else 0 for piece in pieces], np.int64)
    offsets = np.concatenate(([0], sizes.cumsum()))
    characters = np.concatenate(([0], np.cumsum([len(c.encode()) for c in text])))
    if offsets[-1] != characters[-1]:
        raise ValueError(f"the tokens have {offsets[-1]} bytes, the text {characters[-1]}")
    knots = np.concatenate((np.stack((offsets[:-1], offsets[:-1] + spaces), 1).ravel(), offsets[-1:]))[: 2 * len(starts)]
    times = starts.repeat(2)[: len(knots)]
    return np.interp(characters[characters <= knots[-1]], knots, times) if len(knots) else np.zeros(0)

"""Chooses tokens from logits the way FishSpeech 1.5 does: penalty, then top-p, then temperature, then a draw.

It uses few operations: if each draw took forty, the nine draws of a frame would cost more than a small model's layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

TOP_RANKS = 32
"""Number of ids ranked at first: more than top-p keeps of a trained model's distribution, and cheaper than ranking all."""
NONE = -1
"""Marks an empty place in a history."""


class Controls(NamedTuple):
    """How each row of a batch is sampled, FP32: `temperature` (batch, 1), `penalty` (batch, 1) or None where it is 1 for every row.

    `bounds` (batch, TOP_RANKS) limits the sum of probabilities at each rank: top-p, but no limit for the likeliest, which always stays.
    """

    temperature: Tensor
    bounds: Tensor
    penalty: Tensor | None

    @staticmethod
    def of(rows: Tensor, penalised: bool) -> Controls:
        """From (temperature, top_p, penalty) of each row, (batch, 3). Temperature 0 keeps the likeliest id alone, as top_p 0 does."""
        temperature, top_p, penalty = rows.T[:, :, None]
        greedy = temperature == 0
        bounds = top_p.masked_fill(greedy, 0.0).repeat(1, TOP_RANKS)
        bounds[:, 0] = torch.inf
        return Controls(temperature.masked_fill(greedy, 1.0).clamp(min=1e-5), bounds, penalty if penalised else None)


def seen_ids(history: Tensor, width: int) -> Tensor:
    """Which of `width` ids occur in a history (..., n) int64 of ids and NONE: (..., width) bool."""
    seen = torch.zeros(*history.shape[:-1], width + 1, dtype=torch.bool, device=history.device)
    return seen.scatter_(-1, history.remainder(width + 1), True)[..., :width]  # NONE falls into the column that is dropped


def penalise(logits: Tensor, seen: Tensor, penalty: Tensor) -> Tensor:
    """Divide positive and multiply negative logits of seen ids by `penalty`, once each (arXiv:1909.05858)."""
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def rank(logits: Tensor, seen: Tensor | None, controls: Controls, whole: bool = False) -> tuple[Tensor, Tensor]:
    """Scores (batch, ids) FP32 in falling order, and their ids. The softmax of the scores is the distribution to sample from.

    The top-p cut comes before the temperature and, unlike elsewhere, drops the id that crosses it; the likeliest
    always stays. `seen` (batch, ids) bool may be None where nothing is penalised. `whole` ranks all ids without
    checking whether the first TOP_RANKS are enough, since a captured graph cannot check.
    """
    if controls.penalty is not None:
        assert seen is not None
        logits = penalise(logits, seen, controls.penalty)
    p = logits.softmax(-1)
    if not whole:
        ranked, ids = p.topk(min(TOP_RANKS, p.shape[1]))
        cut = ranked.cumsum(-1) > controls.bounds[:, : ranked.shape[1]]
        whole = not cut[:, -1].all()  # more may stay: rare except for flat distributions and top_p 1
    if whole:
        ranked, ids = p.sort(dim=-1, descending=True)
        cut = ranked.cumsum(-1) > controls.bounds[:, 1:2]
        cut[:, 0] = False
    return (logits.gather(-1, ids) / controls.temperature).masked_fill_(cut, -torch.inf), ids


def gumbel(seeds: Tensor, frames: Tensor, draws: Tensor, first: int, count: int) -> Tensor:
    """-log of Exp(1) noise, (batch, draws, count) FP32, for the ranks from `first` on.

    It depends only on each row's seed and frame number, (batch,) int64, and on the number of the draw in the frame, (draws,) int64. So the
    noise of a request does not depend on the requests beside it, and a captured graph can generate it.
    """
    keys = _mixed(_mixed(seeds + frames * _ODD)[:, None] + draws * _ODD)
    ranks = torch.arange(first, first + count, device=seeds.device)
    bits = _mixed(keys[..., None] + ranks * _ODD)
    uniform = ((bits >> 41 & 0x7FFFFF).float() + 0.5) * 2.0**-23  # 23 bits, so that neither 0 nor 1 occurs
    return uniform.log_().neg_().log_().neg_()


_ODD = 0x9E3779B97F4A7C15 - 2**64


def _mixed(x: Tensor) -> Tensor:
    """Mix x (int64) so that every bit of it affects every bit of the result: splitmix64's finisher (Steele, Lea, Flood 2014)."""
    x = (x ^ (x >> 30 & 0x3FFFFFFFF)) * (0xBF58476D1CE4E5B9 - 2**64)
    x = (x ^ (x >> 27 & 0x1FFFFFFFFF)) * (0x94D049BB133111EB - 2**64)
    return x ^ (x >> 31 & 0x1FFFFFFFF)


def sample(logits: Tensor, seen: Tensor | None, controls: Controls, noise: Tensor, rest: Callable[[int], Tensor] | None = None) -> Tensor:
    """Draw one id for each row, (batch,) int64, with Gumbel `noise` (batch, TOP_RANKS). If more ids may stay, `rest(count)` gives their
    noise.

    Without `rest`, `noise` covers all ids. argmax(log p - log Exp(1)) draws from p, as the first of independent exponential clocks of
    rate p does.
    """
    scores, ids = rank(logits, seen, controls, whole=rest is None)
    ranks = scores.shape[1]
    if rest is not None and ranks > TOP_RANKS:
        noise = torch.cat((noise, rest(ranks - TOP_RANKS)), dim=1)
    return ids.gather(-1, scores.add_(noise[:, :ranks]).argmax(-1, keepdim=True))[:, 0]

"""Chooses tokens from logits the way FishSpeech 1.5 does: penalty, then top-p, then temperature, then a draw.

Written for few operations: nine draws a frame cost more than a small model's layers when each takes forty.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

HEAD = 128
"""Ids that are put in order at first: more than top-p keeps of what a trained model says, and cheaper than all."""
NONE = -1
"""Stands in a history for "nothing here"."""


class Controls(NamedTuple):
    """How each row of a batch is sampled; all (batch, 1) FP32. `penalty` is None where it is 1 for every row."""

    temperature: Tensor
    top_p: Tensor
    penalty: Tensor | None

    @staticmethod
    def of(rows: list[tuple[float, float, float]], device: torch.device) -> Controls:
        """From (temperature, top_p, penalty) of each row. Temperature 0 keeps the likeliest id alone, as top_p 0 does."""
        penalised = any(r != 1 for _, _, r in rows)
        rows = [(t or 1.0, p if t else 0.0, r) for t, p, r in rows]
        temperature, top_p, penalty = torch.tensor(rows, dtype=torch.float32, device=device).T[:, :, None]
        return Controls(temperature.clamp(min=1e-5), top_p, penalty if penalised else None)


def seen_ids(history: Tensor, width: int) -> Tensor:
    """Which of `width` ids occur in a history (..., n) int64 of ids and NONE: (..., width) bool."""
    seen = torch.zeros(*history.shape[:-1], width + 1, dtype=torch.bool, device=history.device)
    return seen.scatter_(-1, history.remainder(width + 1), True)[..., :width]  # NONE falls into the column that is dropped


def penalise(logits: Tensor, seen: Tensor, penalty: Tensor) -> Tensor:
    """Divide positive and multiply negative logits of seen ids by `penalty`, once each (arXiv:1909.05858)."""
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def rank(logits: Tensor, seen: Tensor | None, controls: Controls) -> tuple[Tensor, Tensor]:
    """Scores (batch, ids) FP32 in falling order, whose softmax is what is sampled from, and the ids they belong to.

    The top-p cut comes before the temperature and, unlike elsewhere, leaves out the id that crosses it; the likeliest
    always stays. `seen` (batch, ids) bool may be None where nothing is penalised.
    """
    if controls.penalty is not None:
        assert seen is not None
        logits = penalise(logits, seen, controls.penalty)
    p = logits.softmax(-1)
    ranked, ids = p.topk(min(HEAD, p.shape[1]))
    cumulative = ranked.cumsum(-1)
    if (cumulative[:, -1:] <= controls.top_p).any():  # rare but for flat distributions and top_p 1
        ranked, ids = p.sort(dim=-1, descending=True)
        cumulative = ranked.cumsum(-1)
    cut = cumulative > controls.top_p
    cut[:, 0] = False
    return (logits.gather(-1, ids) / controls.temperature).masked_fill(cut, -torch.inf), ids


def sample(logits: Tensor, seen: Tensor | None, controls: Controls, gumbel: Tensor) -> Tensor:
    """Draw one id for each row, (batch,) int64. `gumbel` (batch, ids) is -log of Exp(1) noise.

    argmax(log p - log Exp(1)) draws from p, as the first of independent exponential clocks of rate p does.
    """
    scores, ids = rank(logits, seen, controls)
    return ids.gather(-1, (scores + gumbel[:, : scores.shape[1]]).argmax(-1, keepdim=True))[:, 0]

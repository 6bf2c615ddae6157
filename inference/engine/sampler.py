"""Chooses tokens from logits the way FishSpeech 1.5 does: penalty, then top-p, then temperature, then a draw."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

NONE = -1
"""Stands in a history for "nothing here"."""


class Controls(NamedTuple):
    """How each row of a batch is sampled; all (batch,) FP32."""

    temperature: Tensor
    top_p: Tensor
    penalty: Tensor

    def rows(self, rows: list[int]) -> Controls:
        return Controls(self.temperature[rows], self.top_p[rows], self.penalty[rows])


def probabilities(logits: Tensor, history: Tensor, controls: Controls) -> Tensor:
    """FP32 probabilities (batch, ids) of FP32 logits (batch, ids).

    `history` (batch, n) int64 holds ids to penalise, once each however often they occur, or NONE. The top-p cut comes
    before the temperature and, unlike elsewhere, leaves out the token that crosses it; the likeliest always stays.
    """
    temperature, top_p, penalty = controls
    logits = penalise(logits, history, penalty)
    ranked, order = logits.sort(dim=-1, descending=True)
    keep = ranked.softmax(-1).cumsum(-1) <= top_p[:, None]
    keep[:, 0] = True
    keep = torch.zeros_like(keep).scatter(-1, order, keep)
    return (logits / temperature.clamp(min=1e-5)[:, None]).masked_fill(~keep, -torch.inf).softmax(-1)


def penalise(logits: Tensor, history: Tensor, penalty: Tensor) -> Tensor:
    """Divide positive and multiply negative logits of the ids in `history` by `penalty` (arXiv:1909.05858)."""
    spare = torch.zeros_like(logits[:, :1], dtype=torch.bool)  # NONE writes into one column more, which is dropped
    seen = torch.cat((torch.zeros_like(logits, dtype=torch.bool), spare), dim=-1)
    seen = seen.scatter(-1, history.where(history != NONE, logits.shape[-1]), True)[:, :-1]
    r = penalty[:, None]
    return torch.where(seen, torch.where(logits < 0, logits * r, logits / r), logits)


def sample(logits: Tensor, history: Tensor, controls: Controls, noise: Tensor) -> Tensor:
    """Draw one id for each row, (batch,) int64. `noise` (batch, ids) is Exp(1); temperature 0 takes the likeliest id.

    argmax(p / Exp(1)) draws from p, as the smallest of independent exponential clocks of rate p does.
    """
    drawn = (probabilities(logits, history, controls) / noise).argmax(-1)
    likeliest = penalise(logits, history, controls.penalty).argmax(-1)
    return torch.where(controls.temperature == 0, likeliest, drawn)

"""Chooses tokens from logits the way FishSpeech 1.5 does: penalty, then top-p, then temperature, then a draw.

Written for few operations: nine draws a frame cost more than a small model's layers when each takes forty.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

HEAD = 128
"""Ids that are put in order at first: more than top-p keeps of what a trained model says, and cheaper than all."""
NOISE_FRAMES = 32
"""Frames whose noise is drawn at once."""
NONE = -1
"""Stands in a history for "nothing here"."""


class Controls(NamedTuple):
    """How each row of a batch is sampled, FP32: `temperature` (batch, 1), `penalty` (batch, 1) or None where it is 1 for every row.

    `bounds` (batch, HEAD) is what the sum of probabilities may reach at each rank: top-p, but no bound for the likeliest, which always stays.
    """

    temperature: Tensor
    bounds: Tensor
    penalty: Tensor | None

    @staticmethod
    def of(rows: Sequence[tuple[float, float, float]], device: torch.device) -> Controls:
        """From (temperature, top_p, penalty) of each row. Temperature 0 keeps the likeliest id alone, as top_p 0 does."""
        penalised = any(r != 1 for _, _, r in rows)
        rows = [(t or 1.0, p if t else 0.0, r) for t, p, r in rows]
        temperature, top_p, penalty = torch.tensor(rows, dtype=torch.float32, device=device).T[:, :, None]
        bounds = top_p.repeat(1, HEAD)
        bounds[:, 0] = torch.inf
        return Controls(temperature.clamp(min=1e-5), bounds, penalty if penalised else None)


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
    cut = ranked.cumsum(-1) > controls.bounds[:, : ranked.shape[1]]
    if not cut[:, -1].all():  # more may stay: rare but for flat distributions and top_p 1
        ranked, ids = p.sort(dim=-1, descending=True)
        cut = ranked.cumsum(-1) > controls.bounds[:, 1:2]
        cut[:, 0] = False
    return (logits.gather(-1, ids) / controls.temperature).masked_fill_(cut, -torch.inf), ids


class Noise:
    """-log of Exp(1) noise of one sequence, frame by frame: for the first HEAD ranks of each draw, and for the others if they are asked for."""

    def __init__(self, generator: torch.Generator, draws: int) -> None:
        """`generator` is of the CPU, `draws` is how many there are in a frame."""
        self._generator, self._draws = generator, draws
        self._frames, self._at, self._seed = torch.empty(0), 0, 0

    def frame(self) -> Tensor:
        """The next frame's, (draws, HEAD) FP32."""
        self._at += 1
        if self._at >= len(self._frames):
            self._frames, self._at = _gumbel((NOISE_FRAMES, self._draws, HEAD), self._generator), 0
            self._seed = int(torch.randint(2**31, (), generator=self._generator))
        return self._frames[self._at]

    def rest(self, draw: int, count: int) -> Tensor:
        """What follows the first HEAD of one draw of that frame, (count,) FP32: the same whenever it is asked for."""
        return _gumbel((count,), torch.Generator().manual_seed(self._seed + self._at * self._draws + draw))


def _gumbel(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator).log_().neg_().log_().neg_()


def sample(logits: Tensor, seen: Tensor | None, controls: Controls, gumbel: Tensor, rest: Callable[[int], Tensor]) -> Tensor:
    """Draw one id for each row, (batch,) int64, by `gumbel` noise (batch, HEAD) and, if more ids may stay, by as much again of the `rest`.

    argmax(log p - log Exp(1)) draws from p, as the first of independent exponential clocks of rate p does.
    """
    scores, ids = rank(logits, seen, controls)
    ranks = scores.shape[1]
    if ranks > HEAD:
        gumbel = torch.cat((gumbel, rest(ranks - HEAD)), dim=1)
    return ids.gather(-1, scores.add_(gumbel[:, :ranks]).argmax(-1, keepdim=True))[:, 0]

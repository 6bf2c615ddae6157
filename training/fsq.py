"""Training view of the project's quantizer: all groups at once, straight-through rounding, batch norm before the bound.

Finite scalar quantization (arXiv:2309.15505) as FishSpeech 1.5 has it: the bound is applied twice. Batch norm without
parameters keeps every digit in use from the first step; it is folded into `project_in` before anything is exported.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from inference.model.codec import Quantizer
from inference.model.config import FSQ_LEVELS

PLACES = tuple(math.prod(FSQ_LEVELS[:i]) for i in range(len(FSQ_LEVELS)))
"""Place value of each digit in a code: 1, 8, 40, 200."""
_MOMENTUM, _EPS = 0.05, 1e-5


def digits(codes: Tensor) -> Tensor:
    """Codes (...) -> digits (..., 4)."""
    return torch.stack([codes // place % level for place, level in zip(PLACES, FSQ_LEVELS, strict=True)], dim=-1)


def join_digits(parts: Tensor) -> Tensor:
    """Digits (..., 4) -> codes (...)."""
    return (parts * torch.tensor(PLACES).to(parts.device)).sum(-1)


def nudge(codes: Tensor) -> Tensor:
    """Every digit moved by -1, 0 or 1 at random, within its range."""
    moved = digits(codes) + torch.randint(-1, 2, (*codes.shape, len(PLACES)), device=codes.device)
    return join_digits(torch.minimum(moved.clamp(min=0), torch.tensor(FSQ_LEVELS).to(codes.device) - 1))


class GroupedFSQ(nn.Module):
    """Quantises (batch, frames, dim) with the weights of a `Quantizer`, differentiably."""

    levels: Tensor
    mean: Tensor
    var: Tensor

    def __init__(self, quantizer: Quantizer, scale: float) -> None:
        super().__init__()
        self._projections = [(rvq.project_in, rvq.project_out) for rvq in quantizer.residual_fsq.rvqs]
        self.scale: float | None = scale
        groups = len(self._projections)
        self.register_buffer("levels", torch.tensor(FSQ_LEVELS, dtype=torch.float32))
        self.register_buffer("mean", torch.zeros(groups, len(FSQ_LEVELS)))
        self.register_buffer("var", torch.ones(groups, len(FSQ_LEVELS)))

    @property
    def half(self) -> Tensor:
        """The middle level of each digit."""
        return self.levels // 2

    def forward(self, z: Tensor, group_dropout: float = 0.0) -> tuple[Tensor, Tensor]:
        """z (batch, frames, dim) -> features (batch, frames, dim), codes (batch, frames, groups).

        With probability `group_dropout` a sample keeps only its first k groups, k uniform: group 0 learns to carry most.
        """
        bounded = self.bounded(z)
        rounded = bounded.round()
        codes = join_digits((rounded + self.half).long())
        straight = bounded + (rounded - bounded).detach()
        features = self._project_out(straight / self.half)
        if group_dropout > 0 and self.training:
            features = features * self._kept_groups(z, group_dropout)[:, None, :, None]
        return features.flatten(-2), codes

    def bounded(self, z: Tensor) -> Tensor:
        """z (batch, frames, dim) -> digits before they are rounded, around 0, (batch, frames, groups, 4)."""
        return self._bound(self._bound(self._normalise(self._project_in(z))))

    def features(self, codes: Tensor) -> Tensor:
        """Codes (batch, frames, groups) -> features (batch, frames, dim)."""
        return self._project_out((digits(codes) - self.half) / self.half).flatten(-2)

    @torch.no_grad()
    def fold(self) -> None:
        """Move the batch norm into `project_in`; encoding is unchanged."""
        if self.scale is None:
            return
        gain = self.scale / (self.var + _EPS).sqrt()
        for (project_in, _), g, mean in zip(self._projections, gain, self.mean, strict=True):
            project_in.weight.mul_(g[:, None])
            project_in.bias.copy_((project_in.bias - mean) * g)
        self.scale = None

    def _project_in(self, z: Tensor) -> Tensor:
        weight = torch.stack([p.weight for p, _ in self._projections])
        bias = torch.stack([p.bias for p, _ in self._projections])
        return torch.einsum("btgd,gkd->btgk", z.unflatten(-1, (len(weight), -1)), weight) + bias

    def _project_out(self, values: Tensor) -> Tensor:
        weight = torch.stack([p.weight for _, p in self._projections])
        bias = torch.stack([p.bias for _, p in self._projections])
        return torch.einsum("btgk,gdk->btgd", values, weight) + bias

    def _normalise(self, x: Tensor) -> Tensor:
        if self.scale is None:
            return x
        mean, var = self.mean, self.var
        if self.training:
            mean, var = x.mean((0, 1)), x.var((0, 1))
            self.mean.lerp_(mean.detach(), _MOMENTUM)
            self.var.lerp_(var.detach(), _MOMENTUM)
        return (x - mean) / (var + _EPS).sqrt() * self.scale

    def _bound(self, x: Tensor) -> Tensor:
        half_width = (self.levels - 1) * 1.001 / 2
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        return torch.tanh(x + torch.atanh(offset / half_width)) * half_width - offset

    def _kept_groups(self, z: Tensor, probability: float) -> Tensor:
        groups, shape = len(self._projections), (len(z), 1)
        kept = torch.randint(1, groups + 1, shape, device=z.device)
        kept = torch.where(torch.rand(shape, device=z.device) < probability, kept, groups)
        return (torch.arange(groups, device=z.device)[None] < kept).float()

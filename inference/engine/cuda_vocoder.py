"""The vocoder's head in few CUDA kernels, one for each convolution: the sound of the plain one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from inference.engine.vocoder_kernels import READERS, Kernel, convolve, keep_input, sound
from inference.model.codec import CausalConv, CausalTransposedConv, Head, ParallelBlocks, ResBlock


@dataclass(frozen=True)
class _Stage:
    """A transposed convolution, and the branches behind it: each a list of pairs."""

    up: Kernel
    branches: list[list[tuple[Kernel, Kernel]]]


class FusedHead:
    """`head` over passes of any shape. `first` is where its layers' pasts begin in those of a stream, in the order in which they run; with
    them the stream's pasts have `values`.
    """

    def __init__(self, head: Head, first: int) -> None:
        self.values = first
        self._pre = self._conv(head.conv_pre)
        self._stages = []
        ups, resblocks = cast(Iterable[CausalTransposedConv], head.ups), cast(Iterable[ParallelBlocks], head.resblocks)
        for up, parallel in zip(ups, resblocks, strict=True):
            blocks = cast(list[ResBlock], [*parallel.blocks])
            if len(blocks) > READERS:
                raise ValueError(f"a block of the codec has {len(blocks)} branches; these kernels take {READERS} at most")
            self._stages.append(_Stage(self._transposed(up), [self._branch(block) for block in blocks]))
        self._post = self._conv(head.conv_post)

    def _branch(self, block: ResBlock) -> list[tuple[Kernel, Kernel]]:
        firsts, seconds = cast(Iterable[CausalConv], block.convs1), cast(Iterable[CausalConv], block.convs2)
        return [(self._conv(a), self._conv(b)) for a, b in zip(firsts, seconds, strict=True)]

    def _conv(self, layer: CausalConv) -> Kernel:
        conv = layer.conv
        outer, inner, taps = conv.weight.shape
        matrix = conv.weight.detach().permute(2, 1, 0).reshape(taps * inner, outer).contiguous()
        return self._kernel(matrix, conv.bias, inner, taps, conv.dilation[0], 1)

    def _transposed(self, layer: CausalTransposedConv) -> Kernel:
        """Of one position and the `reach` before it become `stride` samples: the first taps reach the oldest position last."""
        weight, stride, taps = layer.conv.weight.detach(), layer.stride, layer.reach + 1
        inner, outer, length = weight.shape
        padded = weight.new_zeros(inner, outer, taps * stride)
        padded[..., :length] = weight
        matrix = padded.view(inner, outer, taps, stride).flip(2).permute(2, 0, 3, 1).reshape(taps * inner, stride * outer).contiguous()
        return self._kernel(matrix, layer.conv.bias, inner, taps, 1, stride)

    def _kernel(self, matrix: Tensor, bias: Tensor | None, inner: int, taps: int, dilation: int, samples: int) -> Kernel:
        assert bias is not None
        kernel = Kernel(matrix, bias.detach(), inner, taps, dilation, samples, self.values)
        self.values += kernel.reach * inner
        return kernel

    def run(self, features: Tensor, pasts: Tensor, kept: Tensor) -> Tensor:
        """features (rows, time, dim) -> samples (rows, 512 * time) FP32, after the pasts (rows, values) of all layers; `kept` gets the next.

        A pass must be no shorter than any layer's past: 4 frames are 16 positions, where the first layer's past is 12.
        """
        rows = len(features)
        keep_input(self._pre, features, kept)
        active = self._like(features, 1, len(self._pre.bias))
        convolve(self._pre, features, pasts, kept, active=active, readers=[self._stages[0].up])
        for stage, behind in zip(self._stages, self._behind(), strict=True):
            active = self._run_stage(stage, active, pasts, kept, behind)
        samples = torch.empty(rows, active.shape[1], dtype=torch.float32, device=active.device)
        sound(self._post, active, pasts, samples)
        return samples

    def _behind(self) -> Iterator[Kernel]:
        """What reads each stage's result."""
        yield from (stage.up for stage in self._stages[1:])
        yield self._post

    def _run_stage(self, stage: _Stage, x: Tensor, pasts: Tensor, kept: Tensor, behind: Kernel) -> Tensor:
        up, branches = stage.up, stage.branches
        begun, opened = (self._like(x, up.samples, len(up.bias)) for _ in range(2))
        convolve(up, x, pasts, kept, out=begun, active=opened, readers=[branch[0][0] for branch in branches])
        total, ended = torch.empty_like(begun), torch.empty_like(begun)
        for n, branch in enumerate(branches):
            own, active = begun, opened
            for (first, second), following in zip(branch, [*branch[1:], None], strict=True):
                middle = torch.empty_like(begun)
                convolve(first, active, pasts, kept, active=middle, readers=[second])
                if following:
                    branch_sum, active = torch.empty_like(begun), torch.empty_like(begun)
                    convolve(second, middle, pasts, kept, out=branch_sum, active=active, readers=[following[0]], add=own)
                    own = branch_sum
                elif n < len(branches) - 1:
                    convolve(second, middle, pasts, kept, out=total, add=own, more=total if n else None)
                else:
                    more, mean = total if n else None, 1 / len(branches)
                    convolve(second, middle, pasts, kept, active=ended, readers=[behind], add=own, more=more, scale=mean)
        return ended

    @staticmethod
    def _like(x: Tensor, samples: int, channels: int) -> Tensor:
        return x.new_empty(x.shape[0], x.shape[1] * samples, channels)

"""The convolutions of the vocoder on CUDA, in Triton: each, with the stream's past, is one kernel.

With the library's a layer is five kernels: the past is put before silu(x), convolved, and the bias and the layer's own input are added. Here
a convolution is a product of matrices whose left one lies in the signal itself: row t holds what the kernel sees at time t. Signals are
(rows, time, channels). A convolution stores its sum, silu of it for the convolution behind it, or both, and the end of the latter where the
next pass looks for the past.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from inference.engine.launching import launch, on_gpu, power

TILES = ((64, 128), (64, 64), (64, 32))
"""Positions and columns of a program. The first are taken that give all processors one: a small pass has small programs."""
PROCESSORS = 132
"""Of an H100 or H200."""
INNER, STAGES = 64, 3
"""Taps' channels that a program multiplies at a time, and how many loads of them are in flight."""
READERS = 3
"""How many convolutions may read a signal, each with a reach of its own: the branches of a block."""


@triton.jit
def _window(x, past, t, j, there, taps, dilation, CHANNELS: tl.constexpr, ALIGNED: tl.constexpr, PAST: tl.constexpr):
    """Columns `j` of the matrix's rows `t`: at tap j / CHANNELS channel j % CHANNELS."""
    reach = (taps - 1) * dilation
    tap, channel = j // CHANNELS, j % CHANNELS
    if ALIGNED:
        channel = tl.max_contiguous(tl.multiple_of(channel, 8), 8)
    time = t[:, None] - reach + (tap * dilation)[None, :]
    inside = there & (tap < taps)[None, :]
    new = tl.load(x + time * CHANNELS + channel[None, :], mask=inside & (time >= 0) if PAST else inside, other=0)
    if PAST:
        new += tl.load(past + (time + reach) * CHANNELS + channel[None, :], mask=inside & (time < 0), other=0)
    return new


@triton.jit
def _product(x, past, weight, t, n, T, taps, dilation, CHANNELS: tl.constexpr, N: tl.constexpr, ALIGNED: tl.constexpr, PAST: tl.constexpr,
             PRECISION: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    there, columns, k = (t < T)[:, None], (n < N)[None, :], tl.arange(0, BLOCK_K)
    y = tl.zeros((BLOCK_T, BLOCK_N), tl.float32)
    for begin in range(0, taps * CHANNELS, BLOCK_K):
        j = begin + k
        seen = _window(x, past, t, j, there, taps, dilation, CHANNELS, ALIGNED, PAST)
        w = tl.load(weight + j[:, None] * N + n[None, :], mask=(j < taps * CHANNELS)[:, None] & columns, other=0)
        y = tl.dot(seen, w, y, input_precision=PRECISION)
    return y


@triton.jit
def _convolve(x, pasts, weight, bias, add, more, out, active, kept, stride, at, kept0, reach0, kept1, reach1, kept2, reach2,
              T, taps, dilation, scale,
              CHANNELS: tl.constexpr, N: tl.constexpr, OUTER: tl.constexpr, READERS: tl.constexpr, ADD: tl.constexpr, MORE: tl.constexpr,
              OUT: tl.constexpr, ACTIVE: tl.constexpr, ALIGNED: tl.constexpr, PRECISION: tl.constexpr,
              BLOCK_T: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    row, first = tl.program_id(2).to(tl.int64), tl.program_id(0) * BLOCK_T
    t, n = first + tl.arange(0, BLOCK_T), tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    x += row * T * CHANNELS
    past = pasts + row * stride + at
    there, columns = (t < T)[:, None], (n < N)[None, :]
    if first < (taps - 1) * dilation:
        y = _product(x, past, weight, t, n, T, taps, dilation, CHANNELS, N, ALIGNED, True, PRECISION, BLOCK_T, BLOCK_N, BLOCK_K)
    else:
        y = _product(x, past, weight, t, n, T, taps, dilation, CHANNELS, N, ALIGNED, False, PRECISION, BLOCK_T, BLOCK_N, BLOCK_K)
    # Where a convolution makes several samples of one, its columns are these samples' channels: the same memory, with more rows.
    channel, here = n % OUTER, there & columns
    kind = out.dtype.element_ty
    y += tl.load(bias + channel, mask=n < N, other=0).to(tl.float32)[None, :]
    place = t[:, None] * N + n[None, :]
    whole = row * T * N
    if ADD:
        y += tl.load(add + whole + place, mask=here, other=0).to(tl.float32)
    if MORE:
        y += tl.load(more + whole + place, mask=here, other=0).to(tl.float32)
    y *= scale
    if OUT:
        tl.store(out + whole + place, y.to(kind), mask=here)
    if ACTIVE:
        a = (y * tl.sigmoid(y)).to(kind)
        tl.store(active + whole + place, a, mask=here)
        # The end of it, where the next pass looks for the past of what reads it.
        kept += row * stride
        left = T * (N // OUTER) - place // OUTER  # positions from here to the end
        if READERS > 0:
            tl.store(kept + kept0 + (reach0 - left) * OUTER + channel[None, :], a, mask=here & (left <= reach0))
        if READERS > 1:
            tl.store(kept + kept1 + (reach1 - left) * OUTER + channel[None, :], a, mask=here & (left <= reach1))
        if READERS > 2:
            tl.store(kept + kept2 + (reach2 - left) * OUTER + channel[None, :], a, mask=here & (left <= reach2))


@triton.jit
def _keep_input(x, kept, stride, at, T, REACH: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):
    row, i = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    last = tl.load(x + row * T * CHANNELS + (T - REACH) * CHANNELS + i, mask=i < REACH * CHANNELS, other=0)
    tl.store(kept + row * stride + at + i, last, mask=i < REACH * CHANNELS)


@triton.jit
def _sound(x, pasts, weight, bias, out, stride, at, T, CHANNELS: tl.constexpr, TAPS: tl.constexpr, ALIGNED: tl.constexpr,
           BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    row, t, j = tl.program_id(1), tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T), tl.arange(0, BLOCK_K)
    x += row.to(tl.int64) * T * CHANNELS
    past = pasts + row.to(tl.int64) * stride + at
    seen = _window(x, past, t, j, (t < T)[:, None], TAPS, 1, CHANNELS, ALIGNED, True).to(tl.float32)
    w = tl.load(weight + j, mask=j < TAPS * CHANNELS, other=0).to(tl.float32)
    y = tl.sum(seen * w[None, :], axis=1) + tl.load(bias).to(tl.float32)
    # Rounded as the model rounds it, before and after the hyperbolic tangent.
    y = 2 * tl.sigmoid(2 * y.to(x.dtype.element_ty).to(tl.float32)) - 1
    tl.store(out + row.to(tl.int64) * T + t, y.to(x.dtype.element_ty).to(tl.float32), mask=t < T)


# -- launchers -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kernel:
    """A convolution's weights as a matrix (taps * channels, samples * outer channels), the oldest tap first, and its bias (outer,).

    `samples` are made of each one of the input. Its past, (taps - 1) * dilation positions, begins at `past` in those of a stream.
    """

    weight: Tensor
    bias: Tensor
    channels: int
    taps: int
    dilation: int
    samples: int
    past: int

    @property
    def reach(self) -> int:
        return (self.taps - 1) * self.dilation


def convolve(
    kernel: Kernel, x: Tensor, pasts: Tensor, kept: Tensor, *,
    out: Tensor | None = None, active: Tensor | None = None, readers: Sequence[Kernel] = (), add: Tensor | None = None,
    more: Tensor | None = None, scale: float = 1.0,
) -> None:  # fmt: skip
    """x (rows, time, channels), after each row's past, convolved: y (rows, samples * time, outer channels).

    y = (x * kernel + bias + `add` + `more`) * `scale` goes to `out`, silu(y) to `active`. pasts (rows, values) are those of all layers. The
    end of silu(y) that each of the `readers` will see before the next pass goes to `kept`, which is as `pasts`; it is no longer than the
    pass, else ValueError is raised. Sums are FP32.
    """
    rows, time, _ = x.shape
    n = kernel.weight.shape[1]
    _check_reach(readers, time * kernel.samples)
    block_t, block_n, block_k, warps, stages = _tiles(kernel, rows * time)
    ends = [number for reader in readers for number in (reader.past, reader.reach)] + [0, 0] * (READERS - len(readers))
    options = {"num_warps": warps, "num_stages": stages} if on_gpu(x) else {}
    launch(
        _convolve, (triton.cdiv(time, block_t), triton.cdiv(n, block_n), rows),
        x, pasts, kernel.weight, kernel.bias, x if add is None else add, x if more is None else more, x if out is None else out,
        x if active is None else active, kept, pasts.stride(0), kernel.past, *ends, time, kernel.taps, kernel.dilation, scale,
        CHANNELS=kernel.channels, N=n, OUTER=len(kernel.bias), READERS=len(readers), ADD=add is not None, MORE=more is not None,
        OUT=out is not None, ACTIVE=active is not None, ALIGNED=kernel.channels % 8 == 0,
        PRECISION="ieee" if x.dtype == torch.float32 else "tf32", BLOCK_T=block_t, BLOCK_N=block_n, BLOCK_K=block_k, **options,
    )  # fmt: skip


def keep_input(kernel: Kernel, x: Tensor, kept: Tensor) -> None:
    """Store the end of x (rows, time, channels) that `kernel` will see before the next pass."""
    rows, time, channels = x.shape
    _check_reach([kernel], time)
    block = 1024
    launch(
        _keep_input, (rows, triton.cdiv(kernel.reach * channels, block)),
        x, kept, kept.stride(0), kernel.past, time, REACH=kernel.reach, CHANNELS=channels, BLOCK=block,
    )  # fmt: skip


def sound(kernel: Kernel, x: Tensor, pasts: Tensor, out: Tensor) -> None:
    """The samples that a convolution to one channel makes of x (rows, time, channels): out (rows, time) FP32, in [-1, 1]."""
    rows, time, _ = x.shape
    block_t, block_k = 64, power(kernel.taps * kernel.channels)
    launch(
        _sound, (triton.cdiv(time, block_t), rows),
        x, pasts, kernel.weight, kernel.bias, out, pasts.stride(0), kernel.past, time, CHANNELS=kernel.channels, TAPS=kernel.taps,
        ALIGNED=kernel.channels % 8 == 0, BLOCK_T=block_t, BLOCK_K=block_k,
    )  # fmt: skip


def _check_reach(readers: Sequence[Kernel], positions: int) -> None:
    """A pass keeps the end of its own signals alone, so it must be as long as what each reader looks back."""
    if far := next((reader.reach for reader in readers if reader.reach > positions), 0):
        raise ValueError(f"a convolution of the codec looks back {far} positions, more than the {positions} of a pass")


def _tiles(kernel: Kernel, positions: int) -> tuple[int, int, int, int, int]:
    """Positions, columns and taps' channels of a program, its warps, and how many loads are in flight."""
    n = kernel.weight.shape[1]
    for block_t, most_n in TILES:
        block_n = min(most_n, power(n, 16))
        if positions // block_t * triton.cdiv(n, block_n) >= PROCESSORS:
            break
    return block_t, block_n, INNER if kernel.channels >= INNER else 32, 8 if block_t * block_n > 8192 else 4, STAGES

"""Products of a few rows with a weight on CUDA, by tensor cores, with their norms and gates: a layer of a frame takes five kernels.

A product reads far more weights than inputs, so the weight's rows take the wide side of the tensor cores' tiles. Each warp sums a part of
the inputs' width, as a frame of few rows waits for long chains of sums rather than for arithmetic.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from inference.engine.launch_kernels import after_the_last, ask_for, now
from inference.engine.launching import launch, on_gpu, options, power

LEAST_ROWS, MOST_ROWS = 8, 32
"""Tensor cores multiply at least so many rows; of fewer, the rest are zeros. A program takes at most so many."""
OUTPUTS, INPUTS = 16, 1024
"""Rows of the weight that a program multiplies, and how many values of each at a time."""
LEAST_WIDTH = 16
"""The least that a warp sums at a time."""


@triton.jit
def _weights(weight, n, k, K: tl.constexpr, N: tl.constexpr, WHOLE: tl.constexpr):
    """Rows `n` of a weight at inputs `k` (parts, width): (parts, n, width)."""
    at = weight + n[None, :, None] * K + k[:, None, :]
    if WHOLE:
        return tl.load(at)
    return tl.load(at, mask=(n < N)[None, :, None] & (k < K)[:, None, :], other=0)


@triton.jit
def _inputs(x, stride, r, k, rows, K: tl.constexpr):
    """Rows `r` of x at inputs `k` (parts, width): (parts, width, r). Beyond the last row there are zeros."""
    return tl.load(x + r[None, None, :] * stride + k[:, :, None], mask=(r < rows)[None, None, :] & (k < K)[:, :, None], other=0)


@triton.jit
def _squares(v, WIDTH: tl.constexpr, ROWS: tl.constexpr):
    f = tl.reshape(v.to(tl.float32), (WIDTH, ROWS))
    return tl.sum(f * f, axis=0)


@triton.jit(do_not_specialize=["rows"])
def _dot(x, x_stride, weight, scale, out, bias, gain, add, rows, eps, K: tl.constexpr, N: tl.constexpr, ROWS: tl.constexpr,
         BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, PARTS: tl.constexpr, SCALED: tl.constexpr, NORM: tl.constexpr, GATED: tl.constexpr,
         BIAS: tl.constexpr, ADD: tl.constexpr, PROGRAMS: tl.constexpr, GPU: tl.constexpr, PDL: tl.constexpr):  # fmt: skip
    width: tl.constexpr = BLOCK_K // PARTS
    steps: tl.constexpr = (K + BLOCK_K - 1) // BLOCK_K
    whole: tl.constexpr = K % BLOCK_K == 0 and N % BLOCK_N == 0
    n, r = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N), tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    k = tl.arange(0, PARTS)[:, None] * width + tl.arange(0, width)[None, :]
    w = _weights(weight, n, k, K, N, whole)
    u = _weights(weight + N * K, n, k, K, N, whole) if GATED else w
    if steps > 1 and GPU:  # noqa: SIM102 - decided when the kernel is compiled
        if tl.program_id(1) == 0:
            ask_for(weight, tl.program_id(0), N * K * (1 + GATED), PROGRAMS)
    if SCALED:
        s = tl.load(scale + n, mask=n < N, other=0)
        t = tl.load(scale + N + n, mask=n < N, other=0) if GATED else s
    g = tl.load(gain + k, mask=k < K, other=0) if NORM else k
    b = tl.load(bias + n, mask=n < N, other=0).to(tl.float32) if BIAS else n
    after_the_last(PDL)
    here = (n < N)[:, None] & (r < rows)[None, :]
    at = r[None, :] * N + n[:, None]
    v = _inputs(x, x_stride, r, k, rows, K)
    if ADD:
        before = tl.load(add + at, mask=here, other=0).to(tl.float32)
    if NORM:
        squares = _squares(v, BLOCK_K, ROWS)
        for step in tl.static_range(1, steps):
            squares += _squares(_inputs(x, x_stride, r, k + step * BLOCK_K, rows, K), BLOCK_K, ROWS)
        length = tl.rsqrt(squares / K + eps)[None, None, :]
    y = tl.zeros((PARTS, BLOCK_N, ROWS), tl.float32)
    z = y
    for step in tl.static_range(steps):
        last_v, last_w, last_u, last_gain = v, w, u, g
        if step + 1 < steps:  # asked for a step before they are needed
            further = k + (step + 1) * BLOCK_K
            v = _inputs(x, x_stride, r, further, rows, K)
            w = _weights(weight, n, further, K, N, whole)
            if GATED:
                u = _weights(weight + N * K, n, further, K, N, whole)
            if NORM:
                g = tl.load(gain + further, mask=further < K, other=0)
        f = now(last_v, GPU)
        if NORM:
            f = (f.to(tl.float32) * length).to(f.dtype) * last_gain[:, :, None]
        y = tl.dot(now(last_w, GPU).to(f.dtype), f, y, input_precision="ieee")
        if GATED:
            z = tl.dot(now(last_u, GPU).to(f.dtype), f, z, input_precision="ieee")
    y, z = tl.sum(y, axis=0), tl.sum(z, axis=0)
    if SCALED:
        y *= s[:, None]
        z *= t[:, None]
    if GATED:
        y = y * tl.sigmoid(y) * z
    if BIAS:
        y += b[:, None]
    if ADD:
        y += now(before, GPU)
    tl.store(out + at, y.to(out.dtype.element_ty), mask=here)


def dot(
    x: Tensor, weight: Tensor, out: Tensor, *, scale: Tensor | None = None,
    bias: Tensor | None = None, norm: tuple[Tensor, float] | None = None, gated: bool = False, add: Tensor | None = None,
) -> None:  # fmt: skip
    """As `inference.engine.kernels.linear`, by tensor cores."""
    rows, k, n = len(x), x.shape[1], out.shape[1]
    gain, eps = norm or (x, 0.0)
    block_k, together = min(power(k, LEAST_WIDTH), INPUTS), min(power(rows, LEAST_ROWS), MOST_ROWS)
    warps = 4 if together == LEAST_ROWS and k <= INPUTS and not gated else 8
    programs = triton.cdiv(n, OUTPUTS)
    launch(
        _dot, (programs, triton.cdiv(rows, together)),
        x, x.stride(0), weight, x if scale is None else scale, out, x if bias is None else bias, gain, x if add is None else add, rows, eps,
        K=k, N=n, ROWS=together, BLOCK_N=OUTPUTS, BLOCK_K=block_k, PARTS=min(warps, block_k // LEAST_WIDTH), SCALED=scale is not None,
        NORM=norm is not None, GATED=gated, BIAS=bias is not None, ADD=add is not None, PROGRAMS=programs, GPU=on_gpu(x), **options(x, warps),
    )  # fmt: skip

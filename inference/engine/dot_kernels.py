"""Products of a few rows with a weight on CUDA, by tensor cores, with their norms and gates: a layer of a frame takes five kernels.

A product reads far more weights than inputs, so the weight's rows take the wide side of the tensor cores' tiles. Each warp sums a part of
the inputs' width, as a frame of few rows waits for long chains of sums rather than for arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from inference.engine.launch_kernels import after_the_last, ask_for
from inference.engine.launching import launch, on_gpu, options, power

LEAST_ROWS = 8
"""Tensor cores multiply at least so many rows; of fewer, the rest are zeros."""
LEAST_WIDTH = 16
"""The least that a warp sums at a time."""


@dataclass(frozen=True)
class Tiles:
    """How a product is divided: a program has `outputs` rows of the weight, `inputs` of whose values it reads at a time, and multiplies them
    with `times` blocks of `rows` rows, one after the other.

    With `stages`, weights and inputs stream through shared memory, so many steps at once; else a step's lie in registers, the weights since
    before the wait. With `parts`, each warp sums a part of the inputs; else warps share the outputs.
    """

    outputs: int
    inputs: int
    rows: int
    times: int
    warps: int
    stages: int = 0
    parts: bool = True


PLAIN = {8: Tiles(16, 1024, 8, 1, 8), 16: Tiles(16, 1024, 16, 1, 8), 32: Tiles(16, 256, 32, 1, 8, 4), 64: Tiles(16, 256, 32, 1, 8, 4)}
GATED = {
    8: Tiles(16, 1024, 8, 1, 8),
    16: Tiles(32, 128, 16, 1, 4, 4, parts=False),
    32: Tiles(32, 128, 32, 1, 4, 4, parts=False),
    64: Tiles(32, 128, 64, 1, 4, 3, parts=False),
}
LONG = {8: Tiles(16, 1024, 8, 1, 8), 16: Tiles(16, 1024, 16, 1, 8), 32: Tiles(16, 512, 32, 1, 8, 3), 64: Tiles(16, 512, 32, 1, 8, 3)}
LONGEST = 2048
"""Rows of a weight that are longer are multiplied in several steps, with the tiles of LONG."""


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
def _here(v, GPU: tl.constexpr):
    """`v`, which is not waited for before this line: the compiler would bring it to shared memory as soon as it is loaded."""
    if GPU:
        pack: tl.constexpr = 32 // v.dtype.primitive_bitwidth
        return tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [v], dtype=v.dtype, is_pure=False, pack=pack)
    return v


@triton.jit
def _squares(v, WIDTH: tl.constexpr, ROWS: tl.constexpr):
    f = tl.reshape(v.to(tl.float32), (WIDTH, ROWS))
    return tl.sum(f * f, axis=0)


@triton.jit(do_not_specialize=["rows"])
def _dot(x, x_stride, weight, out, bias, gain, add, rows, eps, K: tl.constexpr, N: tl.constexpr, ROWS: tl.constexpr, TIMES: tl.constexpr,
         BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, PARTS: tl.constexpr, NORM: tl.constexpr, GATED: tl.constexpr, BIAS: tl.constexpr,
         ADD: tl.constexpr, PROGRAMS: tl.constexpr, GPU: tl.constexpr, PDL: tl.constexpr):  # fmt: skip
    width: tl.constexpr = BLOCK_K // PARTS
    steps: tl.constexpr = (K + BLOCK_K - 1) // BLOCK_K
    whole: tl.constexpr = K % BLOCK_K == 0 and N % BLOCK_N == 0
    n, row = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, ROWS)
    k = tl.arange(0, PARTS)[:, None] * width + tl.arange(0, width)[None, :]
    first_w = _weights(weight, n, k, K, N, whole)
    first_u = _weights(weight + N * K, n, k, K, N, whole) if GATED else first_w
    if steps > 1 and GPU:  # noqa: SIM102 - decided when the kernel is compiled
        if tl.program_id(1) == 0:
            ask_for(weight, tl.program_id(0), N * K * (1 + GATED), PROGRAMS)
    first_gain = tl.load(gain + k, mask=k < K, other=0) if NORM else k
    b = tl.load(bias + n, mask=n < N, other=0).to(tl.float32) if BIAS else n
    after_the_last(PDL)
    r = tl.program_id(1) * TIMES * ROWS + row
    first_v = _inputs(x, x_stride, r, k, rows, K)
    for time in tl.static_range(TIMES):
        here = (n < N)[:, None] & (r < rows)[None, :]
        at = r[None, :] * N + n[:, None]
        v, w, u, g = first_v, first_w, first_u, first_gain
        if time + 1 < TIMES:
            first_v = _inputs(x, x_stride, r + ROWS, k, rows, K)
        if NORM:
            squares = _squares(v, BLOCK_K, ROWS)
            for step in tl.static_range(1, steps):
                squares += _squares(_inputs(x, x_stride, r, k + step * BLOCK_K, rows, K), BLOCK_K, ROWS)
            scale = tl.rsqrt(squares / K + eps)[None, None, :]
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
            if ADD and step == 0:
                before = tl.load(add + at, mask=here, other=0).to(tl.float32)
            f = _here(last_v, GPU)
            if NORM:
                f = (f.to(tl.float32) * scale).to(f.dtype) * last_gain[:, :, None]
            y = tl.dot(_here(last_w, GPU), f, y, input_precision="ieee")
            if GATED:
                z = tl.dot(_here(last_u, GPU), f, z, input_precision="ieee")
        y = tl.sum(y, axis=0)
        if GATED:
            y = y * tl.sigmoid(y) * tl.sum(z, axis=0)
        if BIAS:
            y += b[:, None]
        if ADD:
            y += _here(before, GPU)
        tl.store(out + at, y.to(out.dtype.element_ty), mask=here)
        r += ROWS


@triton.jit(do_not_specialize=["rows"])
def _wide_dot(x, x_stride, weight, out, bias, gain, add, rows, eps, K: tl.constexpr, N: tl.constexpr, ROWS: tl.constexpr,
              BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, PARTS: tl.constexpr, STAGES: tl.constexpr, NORM: tl.constexpr, GATED: tl.constexpr,
              BIAS: tl.constexpr, ADD: tl.constexpr, PROGRAMS: tl.constexpr, GPU: tl.constexpr, PDL: tl.constexpr):  # fmt: skip
    width: tl.constexpr = BLOCK_K // PARTS
    whole: tl.constexpr = K % BLOCK_K == 0 and N % BLOCK_N == 0
    n, r = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N), tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    k = tl.arange(0, PARTS)[:, None] * width + tl.arange(0, width)[None, :]
    if GPU:  # noqa: SIM102 - decided when the kernel is compiled
        if tl.program_id(1) == 0:
            ask_for(weight, tl.program_id(0), N * K * (1 + GATED), PROGRAMS)
    b = tl.load(bias + n, mask=n < N, other=0).to(tl.float32) if BIAS else n
    next_gain = tl.load(gain + k, mask=k < K, other=0) if NORM else k
    # Tensor cores sum the squares too, in two parts: in bfloat16 no FP16 number's square is too large. Triton's interpreter has no such product.
    brief: tl.constexpr = GPU and x.dtype.element_ty != tl.float32
    ones = tl.full((PARTS, 16, width), 1, tl.float32).to(tl.bfloat16 if brief else tl.float32)
    after_the_last(PDL)
    here = (n < N)[:, None] & (r < rows)[None, :]
    at = r[None, :] * N + n[:, None]
    y = tl.zeros((PARTS, BLOCK_N, ROWS), tl.float32)
    z, squares = y, tl.zeros((PARTS, 16, ROWS), tl.float32)
    for first in tl.range(0, K, BLOCK_K, num_stages=STAGES):
        v = _inputs(x, x_stride, r, k + first, rows, K)
        w = _weights(weight, n, k + first, K, N, whole)
        if GATED:
            u = _weights(weight + N * K, n, k + first, K, N, whole)
        if NORM:  # rows are scaled at the end, when their squares are summed
            g, after = next_gain[:, None, :], k + first + BLOCK_K
            next_gain = tl.load(gain + after, mask=after < K, other=0)
            w *= g
            if GATED:
                u *= g
            f = v.to(tl.float32)
            f *= f
            high = f.to(ones.dtype)
            squares = tl.dot(ones, high, squares, input_precision="ieee")
            squares = tl.dot(ones, (f - high.to(tl.float32)).to(ones.dtype), squares, input_precision="ieee")
        y = tl.dot(w, v, y, input_precision="ieee")
        if GATED:
            z = tl.dot(u, v, z, input_precision="ieee")
    y = tl.sum(y, axis=0)
    if GATED:
        z = tl.sum(z, axis=0)
    if NORM:
        scale = tl.rsqrt(tl.sum(tl.max(squares, axis=1), axis=0) / K + eps)[None, :]  # all outputs have the same
        y *= scale
        if GATED:
            z *= scale
    if GATED:
        y = y * tl.sigmoid(y) * z
    if BIAS:
        y += b[:, None]
    if ADD:
        y += tl.load(add + at, mask=here, other=0).to(tl.float32)
    tl.store(out + at, y.to(out.dtype.element_ty), mask=here)


@triton.jit(do_not_specialize=["rows"])
def _square_dot(x, x_stride, weight, out, bias, gain, add, rows, eps, K: tl.constexpr, N: tl.constexpr, ROWS: tl.constexpr,
                BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, STAGES: tl.constexpr, NORM: tl.constexpr, GATED: tl.constexpr,
                BIAS: tl.constexpr, ADD: tl.constexpr, PROGRAMS: tl.constexpr, GPU: tl.constexpr, PDL: tl.constexpr):  # fmt: skip
    i, k = tl.arange(0, BLOCK_N * (1 + GATED)), tl.arange(0, BLOCK_K)
    n, r = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N), tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    own = tl.program_id(0) * BLOCK_N + i % BLOCK_N  # rows of the first weight, then the same ones of the second
    if GPU:  # noqa: SIM102 - decided when the kernel is compiled
        if tl.program_id(1) == 0:
            ask_for(weight, tl.program_id(0), N * K * (1 + GATED), PROGRAMS)
    b = tl.load(bias + n, mask=n < N, other=0).to(tl.float32) if BIAS else n
    next_gain = tl.load(gain + k, mask=k < K, other=0) if NORM else k
    after_the_last(PDL)
    here = (n < N)[:, None] & (r < rows)[None, :]
    at = r[None, :] * N + n[:, None]
    y, squares = tl.zeros((BLOCK_N * (1 + GATED), ROWS), tl.float32), tl.zeros((BLOCK_K // 8, ROWS), tl.float32)
    for first in tl.range(0, K, BLOCK_K, num_stages=STAGES):
        now = k + first
        v = tl.load(x + r[None, :] * x_stride + now[:, None], mask=(r < rows)[None, :] & (now < K)[:, None], other=0)
        place = weight + (own + i // BLOCK_N * N)[:, None] * K + now[None, :]
        if K % BLOCK_K == 0 and N % BLOCK_N == 0:
            w = tl.load(place)
        else:
            w = tl.load(place, mask=(own < N)[:, None] & (now < K)[None, :], other=0)
        if NORM:
            w *= next_gain[None, :]
            next_gain = tl.load(gain + now + BLOCK_K, mask=now + BLOCK_K < K, other=0)
            f = v.to(tl.float32)
            squares += tl.sum(tl.reshape(f * f, (BLOCK_K // 8, 8, ROWS)), axis=1)
        y = tl.dot(w, v, y, input_precision="ieee")
    if NORM:
        y *= tl.rsqrt(tl.sum(squares, axis=0) / K + eps)[None, :]
    if GATED:
        y, z = tl.split(tl.permute(tl.reshape(y, (2, BLOCK_N, ROWS)), (1, 2, 0)))
        y = y * tl.sigmoid(y) * z
    if BIAS:
        y += b[:, None]
    if ADD:
        y += tl.load(add + at, mask=here, other=0).to(tl.float32)
    tl.store(out + at, y.to(out.dtype.element_ty), mask=here)


def tiles_of(rows: int, k: int, gated: bool) -> Tiles:
    """The tiles of a product of `rows` rows of `k` values."""
    table = LONG if k > LONGEST else GATED if gated else PLAIN
    return table[min(power(rows, LEAST_ROWS), max(table))]


def dot(
    x: Tensor, weight: Tensor, out: Tensor, *,
    bias: Tensor | None = None, norm: tuple[Tensor, float] | None = None, gated: bool = False, add: Tensor | None = None,
    tiles: Tiles | None = None,
) -> None:  # fmt: skip
    """As `inference.engine.kernels.linear`, by tensor cores. `tiles` takes the place of the table's."""
    rows, k, n = len(x), x.shape[1], out.shape[1]
    tiles = tiles or tiles_of(rows, k, gated)
    gain, eps = norm or (x, 0.0)
    block_k = min(power(k, LEAST_WIDTH), tiles.inputs)
    programs = triton.cdiv(n, tiles.outputs)
    shared = {
        "K": k, "N": n, "ROWS": tiles.rows, "BLOCK_N": tiles.outputs, "BLOCK_K": block_k,
        "NORM": norm is not None, "GATED": gated, "BIAS": bias is not None, "ADD": add is not None, "PROGRAMS": programs, "GPU": on_gpu(x),
        **options(x, tiles.warps),
    }  # fmt: skip
    arguments = x, x.stride(0), weight, out, x if bias is None else bias, gain, x if add is None else add, rows, eps
    grid = programs, triton.cdiv(rows, tiles.rows * tiles.times)
    parts = min(tiles.warps, block_k // LEAST_WIDTH)
    if not tiles.parts:
        launch(_square_dot, grid, *arguments, STAGES=tiles.stages, **shared)
    elif tiles.stages:
        launch(_wide_dot, grid, *arguments, PARTS=parts, STAGES=tiles.stages, **shared)
    else:
        launch(_dot, grid, *arguments, PARTS=parts, TIMES=tiles.times, **shared)

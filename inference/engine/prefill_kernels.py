"""The attention of prompts on CUDA, in Triton: several prompts' columns in one pass.

Each prompt attends to its own row of the cache.

A pass's columns lie in blocks, each of one prompt. Where a block's columns go is read on the device, so one graph serves any prompts.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl
from torch import Tensor

from inference.engine.attention_kernels import NOWHERE, rope_of, seen_more, turned
from inference.engine.launch_kernels import after_the_last
from inference.engine.launching import launch, options, power

BLOCK_COLUMNS = 16
"""Columns of a block: the fewest rows that a tensor core's product takes."""
KEYS = 64
"""Keys that attention reads at a time."""


@triton.jit
def _write(qkv, cache, values, row_stride, head_stride, blocks, turns,
           D: tl.constexpr, HEADS: tl.constexpr, KV: tl.constexpr, HALF: tl.constexpr, COLUMNS: tl.constexpr, PDL: tl.constexpr):  # fmt: skip
    block, head = tl.program_id(0), tl.program_id(1)
    row, first, count = tl.load(blocks + 3 * block), tl.load(blocks + 3 * block + 1), tl.load(blocks + 3 * block + 2)
    t, j, d = tl.arange(0, COLUMNS), tl.arange(0, HALF), tl.arange(0, 2 * HALF)
    there, place = (t < count)[:, None], (first + t)[:, None] * D
    new = qkv + ((block * COLUMNS + t) * (HEADS + 2) * KV * D + (HEADS * KV + head) * D)[:, None]
    keys = cache + row * row_stride + head * head_stride
    inside = there & (d < D)[None, :]
    cos, sin = rope_of(turns + place, j, D, there)
    after_the_last(PDL)
    tl.store(keys + place + d[None, :], turned(new, cos, sin, j, D, there), mask=inside)
    tl.store(keys + values + place + d[None, :], tl.load(new + KV * D + d[None, :], mask=inside, other=0), mask=inside)


@triton.jit
def _attend_prompts(qkv, cache, values, row_stride, head_stride, blocks, turns, out, scale,
                    D: tl.constexpr, HEADS: tl.constexpr, KV: tl.constexpr, TOGETHER: tl.constexpr, HALF: tl.constexpr,
                    COLUMNS: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr):  # fmt: skip
    block, group = tl.program_id(0), tl.program_id(1)
    row, first, count = tl.load(blocks + 3 * block), tl.load(blocks + 3 * block + 1), tl.load(blocks + 3 * block + 2)
    j, d, i = tl.arange(0, HALF), tl.arange(0, 2 * HALF), tl.arange(0, COLUMNS * TOGETHER)
    t, query = i // TOGETHER, group * TOGETHER + i % TOGETHER
    column, asked = block * COLUMNS + t, (t < count)[:, None]
    keys = cache + row * row_stride + group * TOGETHER // HEADS * head_stride
    cos, sin = rope_of((turns + (first + t) * D)[:, None], j, D, asked)
    after_the_last(PDL)
    q = turned((qkv + column * (HEADS + 2) * KV * D + query * D)[:, None], cos, sin, j, D, asked)
    most, total = tl.full((COLUMNS * TOGETHER,), NOWHERE, tl.float32), tl.zeros((COLUMNS * TOGETHER,), tl.float32)
    y = tl.zeros((COLUMNS * TOGETHER, 2 * HALF), tl.float32)
    end = first + count
    for s in range(0, end, BLOCK):
        p = s + tl.arange(0, BLOCK)
        inside = (p < end)[:, None] & (d < D)[None, :]
        k = tl.load(keys + p[:, None] * D + d[None, :], mask=inside, other=0)
        v = tl.load(keys + values + p[:, None] * D + d[None, :], mask=inside, other=0)
        most, total, y = seen_more(q, k, v, p[None, :] <= (first + t)[:, None], scale, most, total, y)
    target = out + (column * KV * HEADS + query)[:, None] * D + d[None, :]
    tl.store(target, (y / total[:, None]).to(out.dtype.element_ty), mask=asked & (d < D)[None, :])


def attend_prompts(qkv: Tensor, cache: Tensor, turns: Tensor, blocks: Tensor, out: Tensor, *, n_head: int, kv_heads: int) -> None:
    """qkv (columns, (heads + 2 kv) * size) of the next positions of several cache rows -> out (columns, heads * size).

    blocks (columns / BLOCK_COLUMNS, 3) int64 say of each block of columns: its row of `cache` (2, rows, kv, positions, size), the position
    of its first column, and how many of its columns count. All keys and values are written before any is read, so a prompt may take several
    blocks. turns (positions, size / 2, 2) FP32.
    """
    per_kv = n_head // kv_heads
    size = out.shape[1] // n_head
    together = math.gcd(per_kv, 4)
    where = qkv, cache, cache.stride(0), cache.stride(1), cache.stride(2), blocks, turns
    shape = {"D": size, "HEADS": per_kv, "KV": kv_heads, "HALF": power(size // 2, 8), "COLUMNS": BLOCK_COLUMNS}
    launch(_write, (len(blocks), kv_heads), *where, **shape, **options(qkv, 4))
    launch(
        _attend_prompts, (len(blocks), n_head // together), *where, out, size**-0.5, TOGETHER=together, BLOCK=KEYS, **shape, **options(qkv, 4)
    )  # fmt: skip

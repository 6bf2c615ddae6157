"""Attention of a frame's new positions on CUDA, in Triton.

What earlier frames wrote, and what never changes, is asked for before the wait for the previous kernel. After it everything else is asked
for at once: a new key is read where its projection lies, not from the cache that it is written to.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from inference.engine.launch_kernels import after_the_last
from inference.engine.launching import launch, options, power

MAX_SPLITS = 8
"""Programs that share the keys of one row."""
NOWHERE = tl.constexpr(-1e30)
"""The largest score where none has been seen. It is finite, as -inf - -inf is no number."""


@triton.jit
def rope_of(turn, j, D: tl.constexpr, seen):
    """Cosines and sines of the positions at `turn` (n, 1): (n, j) each."""
    inside = seen & (j < D // 2)[None, :]
    return tl.load(turn + 2 * j[None, :], mask=inside, other=0), tl.load(turn + 2 * j[None, :] + 1, mask=inside, other=0)


@triton.jit
def turned(base, cos, sin, j, D: tl.constexpr, seen, CACHE: tl.constexpr = ""):
    """Interleaved pairs at `base` (n, 1), rotated in FP32: (n, 2 j). `CACHE` is the loads' cache modifier."""
    inside = seen & (j < D // 2)[None, :]
    a = tl.load(base + 2 * j[None, :], mask=inside, other=0, cache_modifier=CACHE)
    b = tl.load(base + 2 * j[None, :] + 1, mask=inside, other=0, cache_modifier=CACHE)
    af, bf = a.to(tl.float32), b.to(tl.float32)
    return tl.interleave((af * cos - bf * sin).to(a.dtype), (bf * cos + af * sin).to(a.dtype))


@triton.jit
def seen_more(q, k, v, seen, scale, most, total, y):
    """Attention of queries (n, d) that have seen keys (m, d) more, of which `seen` (n or 1, m) count: the largest score (n,), the sum of
    weights (n,) and the weighted values (n, d).
    """
    scores = tl.where(seen, tl.dot(q, tl.trans(k), input_precision="ieee") * scale, float("-inf"))
    higher = tl.maximum(most, tl.max(scores, axis=1))
    shrunk = tl.exp(most - higher)
    weights = tl.exp(scores - higher[:, None])
    y = y * shrunk[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
    return higher, total * shrunk + tl.sum(weights, axis=1), y


@triton.jit
def _rope_at(turn, d, D: tl.constexpr):
    """Cosines of one position's rotation for each of its values `d` (1, n), and sines with the sign of the pair's other value."""
    inside = d < D
    cos = tl.load(turn + d // 2 * 2, mask=inside, other=0)
    sin = tl.load(turn + d // 2 * 2 + 1, mask=inside, other=0)
    return cos, tl.where(d % 2 == 0, -sin, sin)


@triton.jit
def _position(new, cos, sin, to_value, d, D: tl.constexpr):
    """The rotated key at `new` and the value `to_value` behind it, (1, n)."""
    inside = d < D
    own, other = tl.load(new + d, mask=inside, other=0), tl.load(new + (d ^ 1), mask=inside, other=0)
    key = own.to(tl.float32) * cos + other.to(tl.float32) * sin
    return key.to(own.dtype), tl.load(new + to_value + d, mask=inside, other=0)


@triton.jit
def _with_new(k, v, p, place, key, value):
    """Keys and values of positions `p` with those of one new position, which the cache does not hold yet."""
    here = (p == place)[:, None]
    return tl.where(here, key, k), tl.where(here, value, v)


@triton.jit(do_not_specialize=["position"])
def _attend(qkv, cache, values, row_stride, head_stride, positions, turns, numbers, stride, length_at, position, active, out, partial, counters,
            scale, D: tl.constexpr, HEADS: tl.constexpr, KV: tl.constexpr, TIME: tl.constexpr, QUERIES: tl.constexpr, HALF: tl.constexpr,
            BLOCK: tl.constexpr, SPLITS: tl.constexpr, RAGGED: tl.constexpr, PDL: tl.constexpr):  # fmt: skip
    row, head, split = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    length, count = position, row + 1
    if RAGGED:  # both were written before this frame began
        length = tl.minimum(tl.load(numbers + row * stride + length_at).to(tl.int32), positions - TIME)
        count = tl.load(active).to(tl.int64)
    end = length + TIME
    chunk = tl.cdiv(tl.cdiv(end, SPLITS), BLOCK) * BLOCK
    start = split * chunk
    stop = tl.minimum(start + chunk, end)
    i, j, d = tl.arange(0, QUERIES), tl.arange(0, HALF), tl.arange(0, 2 * HALF)[None, :]
    time, query = i // HEADS, i % HEADS
    asking = (i < TIME * HEADS)[:, None]
    width = (HEADS + 2) * KV * D
    keys = cache + row * row_stride + head * head_stride
    new = qkv + row * TIME * width + (HEADS * KV + head) * D
    cos, sin = rope_of((turns + (length + time) * D)[:, None], j, D, asking)
    new_cos, new_sin = _rope_at(turns + length * D, d, D)
    last_cos, last_sin = _rope_at(turns + (length + TIME - 1) * D, d, D)
    p = start + tl.arange(0, BLOCK)
    at, old = p[:, None] * D + d, (p < tl.minimum(stop, length))[:, None] & (d < D)
    if RAGGED:  # earlier frames wrote them
        k, v = tl.load(keys + at, mask=old, other=0), tl.load(keys + values + at, mask=old, other=0)
    after_the_last(PDL)
    if row >= count:
        return
    if not RAGGED:
        k, v = tl.load(keys + at, mask=old, other=0), tl.load(keys + values + at, mask=old, other=0)
    q = turned((qkv + (row * TIME + time) * width + (head * HEADS + query) * D)[:, None], cos, sin, j, D, asking)
    new_key, new_value = _position(new, new_cos, new_sin, KV * D, d, D)
    last_key, last_value = _position(new + (TIME - 1) * width, last_cos, last_sin, KV * D, d, D)
    # The split that sees a new position writes it. Nobody reads it from there in this frame.
    mine = (d < D) & (length >= start) & (length < stop)
    tl.store(keys + length * D + d, new_key, mask=mine)
    tl.store(keys + values + length * D + d, new_value, mask=mine)
    if TIME == 2:
        mine = (d < D) & (length + 1 >= start) & (length + 1 < stop)
        tl.store(keys + (length + 1) * D + d, last_key, mask=mine)
        tl.store(keys + values + (length + 1) * D + d, last_value, mask=mine)
    most, total = tl.full((QUERIES,), NOWHERE, tl.float32), tl.zeros((QUERIES,), tl.float32)
    y = tl.zeros((QUERIES, 2 * HALF), tl.float32)
    k, v = _with_new(k, v, p, length, new_key, new_value)
    if TIME == 2:
        k, v = _with_new(k, v, p, length + 1, last_key, last_value)
    seen = (p[None, :] <= length + time[:, None]) & (p < stop)[None, :]
    most, total, y = seen_more(q, k, v, seen, scale, most, total, y)
    if RAGGED:  # of which there is one position at a time; without, one block has them all
        for s in range(start + BLOCK, stop, BLOCK):
            place = s + tl.arange(0, BLOCK)
            there = (place < tl.minimum(stop, length))[:, None] & (d < D)
            older = keys + place[:, None] * D + d
            k_there, v_there = tl.load(older, mask=there, other=0), tl.load(older + values, mask=there, other=0)
            k_there, v_there = _with_new(k_there, v_there, place, length, new_key, new_value)
            most, total, y = seen_more(q, k_there, v_there, (place < stop)[None, :], scale, most, total, y)
    d = tl.arange(0, 2 * HALF)
    target = out + ((row * TIME + time) * KV * HEADS + head * HEADS + query)[:, None] * D + d[None, :]
    if SPLITS == 1:
        tl.store(target, (y / total[:, None]).to(out.dtype.element_ty), mask=asking & (d < D)[None, :])
    else:  # each split stores its partial result, and the last to finish combines them
        size: tl.constexpr = QUERIES * (2 * HALF + 2)
        parts = partial + (row * KV + head) * SPLITS * size
        grid = i[:, None] * 2 * HALF + d[None, :]
        tl.store(parts + split * size + grid, y)
        tl.store(parts + split * size + QUERIES * 2 * HALF + i, most)
        tl.store(parts + split * size + QUERIES * (2 * HALF + 1) + i, total)
        tl.debug_barrier()
        if tl.atomic_add(counters + row * KV + head, 1, sem="acq_rel") == SPLITS - 1:
            tl.store(counters + row * KV + head, 0)
            most, total = tl.full((QUERIES,), NOWHERE, tl.float32), tl.zeros((QUERIES,), tl.float32)
            y = tl.zeros((QUERIES, 2 * HALF), tl.float32)
            for part in tl.static_range(SPLITS):
                theirs = tl.load(parts + part * size + QUERIES * 2 * HALF + i, cache_modifier=".cg")
                highest = tl.maximum(most, theirs)
                ours_now, theirs_now = tl.exp(most - highest), tl.exp(theirs - highest)
                total = total * ours_now + theirs_now * tl.load(parts + part * size + QUERIES * (2 * HALF + 1) + i, cache_modifier=".cg")
                y = y * ours_now[:, None] + theirs_now[:, None] * tl.load(parts + part * size + grid, cache_modifier=".cg")
                most = highest
            tl.store(target, (y / total[:, None]).to(out.dtype.element_ty), mask=asking & (d < D)[None, :])


@triton.jit
def seen_and_new(q, k, v, seen, new_key, new_value, scale):
    """Attention of each head's query (heads, d) over keys and values (keys, heads, d), of which `seen` (keys,) count, and over a new
    position's (heads, d): (heads, d) FP32.
    """
    f = q.to(tl.float32) * scale
    scores = tl.where(seen[:, None], tl.sum(k.to(tl.float32) * f[None, :, :], axis=2), float("-inf"))
    score = tl.sum(new_key.to(tl.float32) * f, axis=1)
    most = tl.maximum(tl.max(scores, axis=0), score)
    weights, last = tl.exp(scores - most[None, :]), tl.exp(score - most)
    y = tl.sum(weights[:, :, None] * v.to(tl.float32), axis=0) + last[:, None] * new_value.to(tl.float32)
    return y / (tl.sum(weights, axis=0) + last)[:, None]


@triton.jit(do_not_specialize=["position"])
def _attend_and_add(qkv, cache, values, head_stride, turns, position, weight, weight_scale, x, scale,
                    D: tl.constexpr, HEADS: tl.constexpr, KV: tl.constexpr, HALF: tl.constexpr, ALL: tl.constexpr, KEYS: tl.constexpr,
                    N: tl.constexpr, BLOCK_N: tl.constexpr, SCALED: tl.constexpr, PDL: tl.constexpr):  # fmt: skip
    n, h, j = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, ALL), tl.arange(0, HALF)
    d, p = tl.arange(0, 2 * HALF), tl.arange(0, KEYS)
    there = (h < KV * HEADS)[:, None]
    inside = there & (d < D)[None, :]
    w = tl.load(
        weight + n[:, None, None] * KV * HEADS * D + h[None, :, None] * D + d[None, None, :],
        mask=(n < N)[:, None, None] & inside[None, :, :],
        other=0,
    )
    if SCALED:
        s = tl.load(weight_scale + n, mask=n < N, other=0)
    cos, sin = rope_of(turns + position * D + h[:, None] * 0, j, D, there)
    after_the_last(PDL)
    own = (h // HEADS)[:, None]  # the key/value head of each head
    q = turned(qkv + h[:, None] * D, cos, sin, j, D, there)
    new = qkv + (HEADS * KV + own) * D
    new_key = turned(new, cos, sin, j, D, there)
    new_value = tl.load(new + KV * D + d[None, :], mask=inside, other=0)
    at = (own * head_stride + d[None, :])[None, :, :] + p[:, None, None] * D
    old = (p < position)[:, None, None] & inside[None, :, :]
    k = tl.load(cache + at, mask=old, other=0).to(tl.float32)
    v = tl.load(cache + values + at, mask=old, other=0).to(tl.float32)
    before = tl.load(x + n, mask=n < N, other=0).to(tl.float32)
    to = own * head_stride + position * D + d[None, :]
    mine = inside & (h % HEADS == 0)[:, None] & (tl.program_id(0) == 0)
    tl.store(cache + to, new_key, mask=mine)
    tl.store(cache + values + to, new_value, mask=mine)
    y = seen_and_new(q, k, v, p < position, new_key, new_value, scale).to(x.dtype.element_ty).to(tl.float32)
    product = tl.sum(tl.sum(w.to(tl.float32) * y[None, :, :], axis=2), axis=1)
    if SCALED:
        product *= s
    tl.store(x + n, (before + product).to(x.dtype.element_ty), mask=n < N)


class Attention:
    """Attention of one key/value head's queries over one layer's cache, for up to `rows` rows of a model of this shape.

    Where the context is long and rows are few, several programs each read a part of it.
    """

    def __init__(self, rows: int, n_head: int, kv_heads: int, head_dim: int, device: torch.device) -> None:
        self._kv, self._per_kv, self._size = kv_heads, n_head // kv_heads, head_dim
        self._half = power(head_dim // 2, 8)
        queries = power(self._per_kv, 16)
        self._partial = torch.empty(rows * kv_heads * MAX_SPLITS * queries * (2 * self._half + 2), dtype=torch.float32, device=device)
        self._counters = torch.zeros(rows * kv_heads, dtype=torch.int32, device=device)

    def __call__(
        self, qkv: Tensor, cache: Tensor, turns: Tensor, out: Tensor, numbers: Tensor, length_at: int, active: Tensor, *,
        time: int = 1, position: int | None = None,
    ) -> None:  # fmt: skip
        """qkv (rows * time, (heads + 2 kv) * size) of the `time` next positions of rows 0, 1, ... -> out (rows * time, heads * size).

        The new keys and values are written to `cache` (2, rows, kv, positions, size). Each row already holds `position` positions. If that
        is None, column `length_at` of `numbers` says how many, and only the first `active` rows count. turns (positions, size / 2, 2) FP32.
        """
        rows = len(qkv) // time
        splits = 1 if position is not None else max(1, min(MAX_SPLITS, 32 // (rows * self._kv)))
        launch(
            _attend, (rows, self._kv, splits),
            qkv, cache, cache.stride(0), cache.stride(1), cache.stride(2), cache.shape[3], turns, numbers, numbers.stride(0), length_at,
            position or 0, active, out, self._partial, self._counters, self._size**-0.5,
            D=self._size, HEADS=self._per_kv, KV=self._kv, TIME=time, QUERIES=power(self._per_kv * time, 16), HALF=self._half,
            BLOCK=64 if position is None else 16, SPLITS=splits, RAGGED=position is None, **options(qkv, 4),
        )  # fmt: skip

    def add(self, qkv: Tensor, cache: Tensor, turns: Tensor, position: int, weight: Tensor, x: Tensor, scale: Tensor | None = None) -> None:
        """x (1, n) += the attention of one row's next position, as of a call, times weight (n, heads * size): one kernel where keys are few.
        `scale` is as of `inference.engine.kernels.linear`.

        Every program computes the whole attention anew, for which there must be at most some dozens of positions.
        """
        heads, block = self._kv * self._per_kv, 8
        launch(
            _attend_and_add, (triton.cdiv(len(weight), block),),
            qkv, cache, cache.stride(0), cache.stride(2), turns, position, weight, x if scale is None else scale, x, self._size**-0.5,
            D=self._size, HEADS=self._per_kv, KV=self._kv, HALF=self._half, ALL=power(heads), KEYS=power(cache.shape[3]), N=len(weight),
            BLOCK_N=block, SCALED=scale is not None, **options(qkv, 8),
        )  # fmt: skip

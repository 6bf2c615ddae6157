"""The kernels of a frame on CUDA, in Triton: five a layer instead of fifteen, and one for a whole draw.

A frame of one stream reads 1.7 GB of weights in steps of 2 to 17 MB. A step takes a few microseconds, so speed depends on how soon a
kernel's reads begin. A kernel therefore requests its weights first and only then waits for the previous kernel, which on Hopper and later
is still running (programmatic dependent launch). The tests run each kernel on a CPU, in Triton's interpreter, against the plain PyTorch it
replaces.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

NARROW = 8
"""Up to this many rows we use our own matrix product, which multiplies rows one by one; the library's is built for more.

Nobody has measured where the two cross.
"""


@triton.jit
def _after_the_last(PDL: tl.constexpr):
    """Let the next kernel start, and wait for the writes of the previous one."""
    if PDL:
        gdc_launch_dependents()
        gdc_wait()


@triton.jit
def _embed(numbers, stride, tokens, codes, x, semantic_begin, semantic_end, code_size, code_step,
           DIM: tl.constexpr, BLOCK: tl.constexpr, CODEBOOKS: tl.constexpr):  # fmt: skip
    row, i = tl.program_id(0), tl.arange(0, BLOCK)
    token = tl.load(numbers + row * stride)
    spoken = tl.zeros((BLOCK,), tl.float32)
    for n in tl.static_range(CODEBOOKS):
        code = tl.minimum(tl.load(numbers + row * stride + 1 + n), code_size - 1) + n * code_step
        spoken += tl.load(codes + code * DIM + i, mask=i < DIM, other=0).to(tl.float32)
    kind = x.dtype.element_ty
    spoken = tl.where((token >= semantic_begin) & (token < semantic_end), spoken.to(kind).to(tl.float32), 0.0)
    embedded = tl.load(tokens + token * DIM + i, mask=i < DIM, other=0).to(tl.float32)
    tl.store(x + row * DIM + i, (embedded + spoken).to(kind), mask=i < DIM)


@triton.jit
def _normalised(v, gain, eps, K: tl.constexpr):
    f = v.to(tl.float32)
    return (f * tl.rsqrt(tl.sum(f * f, axis=0) / K + eps)).to(v.dtype) * gain


@triton.jit
def _linear(x, x_stride, weight, out, bias, gain, add, rows, eps, K: tl.constexpr, N: tl.constexpr, ROWS: tl.constexpr, BLOCK_K: tl.constexpr,
            BLOCK_N: tl.constexpr, NORM: tl.constexpr, GATED: tl.constexpr, BIAS: tl.constexpr, ADD: tl.constexpr, PDL: tl.constexpr):  # fmt: skip
    n, k = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_K)
    at = n[:, None] * K + k[None, :]
    if K == BLOCK_K and N % BLOCK_N == 0:
        w = tl.load(weight + at)
        u = tl.load(weight + N * K + at) if GATED else w
    else:
        fits = (n < N)[:, None] & (k < K)[None, :]
        w = tl.load(weight + at, mask=fits, other=0)
        u = tl.load(weight + N * K + at, mask=fits, other=0) if GATED else w
    g = tl.load(gain + k, mask=k < K, other=0) if NORM else k
    b = tl.load(bias + n, mask=n < N, other=0).to(tl.float32) if BIAS else n
    _after_the_last(PDL)
    first = tl.program_id(1) * ROWS
    for r in tl.static_range(ROWS):
        row = first + r
        v = tl.load(x + row * x_stride + k, mask=(k < K) & (row < rows), other=0)
        if NORM:
            v = _normalised(v, g, eps, K)
        f = v.to(tl.float32)[None, :]
        y = tl.sum(w.to(tl.float32) * f, axis=1)
        if GATED:
            y = y * tl.sigmoid(y) * tl.sum(u.to(tl.float32) * f, axis=1)
        if BIAS:
            y += b
        here = (n < N) & (row < rows)
        if ADD:
            y += tl.load(add + row * N + n, mask=here, other=0).to(tl.float32)
        tl.store(out + row * N + n, y.to(out.dtype.element_ty), mask=here)


@triton.jit
def _norm(x, gain, out, eps, K: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr):
    row, k = tl.program_id(0), tl.arange(0, BLOCK)
    g = tl.load(gain + k, mask=k < K, other=0)
    _after_the_last(PDL)
    tl.store(out + row * K + k, _normalised(tl.load(x + row * K + k, mask=k < K, other=0), g, eps, K), mask=k < K)


@triton.jit
def _gate(both, out, N: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr):
    row, n = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    _after_the_last(PDL)
    gate = tl.load(both + row * 2 * N + n, mask=n < N, other=0).to(tl.float32)
    up = tl.load(both + row * 2 * N + N + n, mask=n < N, other=0).to(tl.float32)
    tl.store(out + row * N + n, (gate * tl.sigmoid(gate) * up).to(out.dtype.element_ty), mask=n < N)


@triton.jit
def _turned(base, turn, j, D: tl.constexpr, seen):
    """Interleaved pairs at `base` (n, 1), rotated in FP32: (n, 2 j)."""
    inside = seen & (j < D // 2)[None, :]
    a = tl.load(base + 2 * j[None, :], mask=inside, other=0)
    b = tl.load(base + 2 * j[None, :] + 1, mask=inside, other=0)
    cos, sin = tl.load(turn + 2 * j[None, :], mask=inside, other=0), tl.load(turn + 2 * j[None, :] + 1, mask=inside, other=0)
    af, bf = a.to(tl.float32), b.to(tl.float32)
    return tl.interleave((af * cos - bf * sin).to(a.dtype), (bf * cos + af * sin).to(a.dtype))


@triton.jit(do_not_specialize=["position"])
def _attend(qkv, cache, values, row_stride, head_stride, positions, turns, numbers, stride, length_at, position, active, out, partial, counters,
            scale, D: tl.constexpr, HEADS: tl.constexpr, KV: tl.constexpr, TIME: tl.constexpr, QUERIES: tl.constexpr, HALF: tl.constexpr,
            BLOCK: tl.constexpr, SPLITS: tl.constexpr, RAGGED: tl.constexpr, PDL: tl.constexpr):  # fmt: skip
    row, head, split = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    _after_the_last(PDL)
    length = position
    if RAGGED:
        if row >= tl.load(active):
            return
        length = tl.minimum(tl.load(numbers + row * stride + length_at).to(tl.int32), positions - TIME)
    end = length + TIME
    chunk = tl.cdiv(tl.cdiv(end, SPLITS), BLOCK) * BLOCK
    start = split * chunk
    stop = tl.minimum(start + chunk, end)
    j, d = tl.arange(0, HALF), tl.arange(0, 2 * HALF)
    width = (HEADS + 2) * KV * D
    keys = cache + row * row_stride + head * head_stride
    values_ = keys + values
    for t in tl.static_range(TIME):  # the split that reads a new position also writes it
        place = length + t
        mine = (place >= start) & (place < stop)
        new = qkv + (row * TIME + t) * width + (HEADS * KV + head) * D
        one = tl.zeros((1, 1), tl.int32)
        new_key = tl.reshape(_turned(new + one, turns + place * D + one, j, D, one == 0), (2 * HALF,))
        new_value = tl.load(new + KV * D + d, mask=d < D, other=0)
        tl.store(keys + place * D + d, new_key, mask=(d < D) & mine)
        tl.store(values_ + place * D + d, new_value, mask=(d < D) & mine)
    tl.debug_barrier()
    i = tl.arange(0, QUERIES)
    time, query = i // HEADS, i % HEADS
    asked = (i < TIME * HEADS)[:, None]
    q = _turned(
        (qkv + (row * TIME + time) * width + (head * HEADS + query) * D)[:, None], (turns + (length + time) * D)[:, None], j, D, asked
    )
    most = tl.full((QUERIES,), float("-inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    y = tl.zeros((QUERIES, 2 * HALF), tl.float32)
    for s in range(start, stop, BLOCK):
        p = s + tl.arange(0, BLOCK)
        inside = (p < stop)[:, None] & (d < D)[None, :]
        k = tl.load(keys + p[:, None] * D + d[None, :], mask=inside, other=0)
        v = tl.load(values_ + p[:, None] * D + d[None, :], mask=inside, other=0)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        scores = tl.where((p[None, :] <= length + time[:, None]) & (p < stop)[None, :], scores, float("-inf"))
        higher = tl.maximum(most, tl.max(scores, axis=1))
        shrunk = tl.exp(most - higher)
        weights = tl.exp(scores - higher[:, None])
        total = total * shrunk + tl.sum(weights, axis=1)
        y = y * shrunk[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        most = higher
    target = out + ((row * TIME + time) * KV * HEADS + head * HEADS + query)[:, None] * D + d[None, :]
    if SPLITS == 1:
        tl.store(target, (y / total[:, None]).to(out.dtype.element_ty), mask=asked & (d < D)[None, :])
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
            most = tl.full((QUERIES,), float("-inf"), tl.float32)
            total = tl.zeros((QUERIES,), tl.float32)
            y = tl.zeros((QUERIES, 2 * HALF), tl.float32)
            for part in tl.static_range(SPLITS):
                theirs = tl.load(parts + part * size + QUERIES * 2 * HALF + i, cache_modifier=".cg")
                highest = tl.maximum(most, theirs)
                ours_now, theirs_now = tl.exp(most - highest), tl.exp(theirs - highest)
                total = total * ours_now + theirs_now * tl.load(parts + part * size + QUERIES * (2 * HALF + 1) + i, cache_modifier=".cg")
                y = y * ours_now[:, None] + theirs_now[:, None] * tl.load(parts + part * size + grid, cache_modifier=".cg")
                most = highest
            tl.store(target, (y / total[:, None]).to(out.dtype.element_ty), mask=asked & (d < D)[None, :])


@triton.jit
def _mixed(x):
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


@triton.jit
def _allowed(logits, i, frame, history, penalty, inside, FIRST: tl.constexpr, WINDOW: tl.constexpr):
    """Logits of ids `i`, after the penalty; the first frame is never the end token."""
    x = tl.load(logits + i, mask=inside, other=float("-inf"))
    if FIRST:
        x = tl.where((i == 0) & (frame == 0), float("-inf"), x)
    seen = i < 0
    for j in tl.static_range(WINDOW):
        seen = seen | (i == tl.load(history + j))
    return tl.where(seen, tl.where(x < 0, x * penalty, x / penalty), x)


@triton.jit(do_not_specialize=["n"])
def _draw(n, logits, numbers, stride, sampling, hidden, frames, ids, embeddings, x, active, semantic_begin, code_size,
          N: tl.constexpr, BLOCK: tl.constexpr, CODEBOOKS: tl.constexpr, WINDOW: tl.constexpr, FIRST: tl.constexpr, DIM: tl.constexpr,
          BLOCK_DIM: tl.constexpr, PDL: tl.constexpr):  # fmt: skip
    row, i, d = tl.program_id(0), tl.arange(0, BLOCK), tl.arange(0, BLOCK_DIM)
    _after_the_last(PDL)
    if row >= tl.load(active):
        return
    row_numbers, frame_at = numbers + row * stride, frames + row * (CODEBOOKS + 3)
    seed, frame = tl.load(row_numbers + CODEBOOKS + 2), tl.load(row_numbers + CODEBOOKS + 3)
    history = row_numbers + CODEBOOKS + 4 + n * WINDOW
    temperature, top_p, penalty = tl.load(sampling + row * 3), tl.load(sampling + row * 3 + 1), tl.load(sampling + row * 3 + 2)
    greedy = temperature == 0
    top_p = tl.where(greedy, 0.0, top_p)
    temperature = tl.where(greedy, 1.0, tl.maximum(temperature, 1e-5))

    raw = tl.load(logits + row * N + i, mask=i < N, other=0)
    well = tl.sum(((raw - raw) != 0).to(tl.int32), axis=0) == 0
    scores = _allowed(logits + row * N, i, frame, history, penalty, i < N, FIRST, WINDOW)
    p = tl.exp(scores - tl.max(scores, axis=0))
    p = tl.where(i < N, p / tl.sum(p, axis=0), 0.0)
    # Probabilities are not negative, so their bit patterns sort in the same order; on ties the lower id comes first.
    keys = (p.to(tl.int32, bitcast=True).to(tl.int64) << 32) | (BLOCK - 1 - i).to(tl.int64)
    keys = tl.sort(keys, descending=True)
    ranked = (BLOCK - 1 - (keys & 0xFFFFFFFF)).to(tl.int32)
    p = (keys >> 32).to(tl.int32).to(tl.float32, bitcast=True)
    kept = ((tl.cumsum(p, axis=0) <= top_p) | (i == 0)) & (ranked < N)
    scores = _allowed(logits + row * N, ranked, frame, history, penalty, ranked < N, FIRST, WINDOW) / temperature
    odd = -0x61C8864680B583EB
    key = _mixed(_mixed(seed + frame * odd) + n * odd)
    bits = _mixed(key + i.to(tl.int64) * odd)
    uniform = (((bits >> 41) & 0x7FFFFF).to(tl.float32) + 0.5) * 1.1920928955078125e-07
    scores = tl.where(kept, scores - tl.log(-tl.log(uniform)), float("-inf"))
    choice = tl.sum(tl.where(i == tl.argmax(scores, axis=0), ranked, 0), axis=0)
    choice = tl.minimum(choice, N - 1)  # a valid index even where NaN logits led past the end

    if FIRST:
        token = tl.load(ids + choice)
        code = tl.minimum(tl.maximum(token - semantic_begin, 0), code_size - 1)
        tl.store(frame_at, token)
        tl.store(frame_at + 1, code)
        tl.store(frame_at + CODEBOOKS + 1, choice.to(tl.int64))
        tl.store(frame_at + CODEBOOKS + 2, well.to(tl.int64))
        tl.store(x + 2 * row * DIM + d, tl.load(hidden + row * DIM + d, mask=d < DIM, other=0), mask=d < DIM)
        tl.store(x + (2 * row + 1) * DIM + d, tl.load(embeddings + code * DIM + d, mask=d < DIM, other=0), mask=d < DIM)
    else:
        tl.store(frame_at + 1 + n, choice.to(tl.int64))
        tl.store(frame_at + CODEBOOKS + 2, tl.load(frame_at + CODEBOOKS + 2) & well.to(tl.int64))
        tl.store(x + row * DIM + d, tl.load(embeddings + choice * DIM + d, mask=d < DIM, other=0), mask=d < DIM)


@triton.jit
def _advance(numbers, stride, frames, active, CODEBOOKS: tl.constexpr, WINDOW: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr):
    row, i = tl.program_id(0), tl.arange(0, BLOCK)
    _after_the_last(PDL)
    if row >= tl.load(active):
        return
    here, frame = numbers + row * stride, frames + row * (CODEBOOKS + 3)
    number = tl.load(here + CODEBOOKS + 3)
    tl.store(here + i, tl.load(frame + i, mask=i <= CODEBOOKS, other=0), mask=i <= CODEBOOKS)
    tl.store(here + CODEBOOKS + 1, tl.load(here + CODEBOOKS + 1) + 1)
    tl.store(here + CODEBOOKS + 3, number + 1)
    # The first frame never enters the window. After it the window is full of zeros, except for tokens, where zero means something else.
    history, w = here + CODEBOOKS + 4, tl.arange(0, WINDOW)
    if number == 0:
        for n in tl.static_range(1, CODEBOOKS):
            tl.store(history + n * WINDOW + w, tl.zeros((WINDOW,), tl.int64))
    else:
        slot = number % WINDOW
        tl.store(history + slot, tl.load(frame + CODEBOOKS + 1))
        for n in tl.static_range(1, CODEBOOKS):
            tl.store(history + n * WINDOW + slot, tl.load(frame + 1 + n))


# -- launchers -----------------------------------------------------------------------------------------------------


def _power(n: int, least: int = 1) -> int:
    return max(least, triton.next_power_of_2(n))


_overlap = True
"""Whether a kernel may begin before the last one has ended."""
_compiled_for: tuple[int, int] | None = None
"""The compute capability for which kernels are compiled instead of launched."""


def overlap(allowed: bool) -> None:
    """Let kernels overlap (programmatic dependent launch) where the device can, or not: for the whole process, as it is for the driver."""
    global _overlap  # noqa: PLW0603
    _overlap = allowed


@contextmanager
def compiling_for(capability: tuple[int, int]) -> Iterator[None]:
    """In this block kernels are compiled for GPUs of this compute capability, and none is launched."""
    global _compiled_for  # noqa: PLW0603
    _compiled_for = capability
    try:
        yield
    finally:
        _compiled_for = None


def _launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
    if _compiled_for is None:
        kernel[grid](*arguments, **options)
    else:
        kernel.warmup(*arguments, grid=grid, **options)


def _how(x: Tensor, warps: int) -> dict[str, Any]:
    """Options of a launch. Programmatic dependent launch needs Hopper."""
    if _compiled_for is None and x.device.type != "cuda":
        return {"PDL": False}  # Triton's interpreter
    pdl = _overlap and (_compiled_for or torch.cuda.get_device_capability(x.device)) >= (9, 0)
    return {"PDL": pdl, "num_warps": warps, **({"launch_pdl": True} if pdl else {})}


def embed(
    numbers: Tensor, tokens: Tensor, codes: Tensor, x: Tensor, *, codebooks: int, semantic: tuple[int, int], code_size: int, code_step: int
) -> None:
    """Embed the column at the start of each row of `numbers`: x (rows, dim).

    `semantic` is the first semantic token and the one after the last; `code_step` is the distance between two codebooks in rows of `codes`.
    Only this kernel waits until all earlier work has ended, so no kernel of a frame overlaps one of the previous frame.
    """
    dim = x.shape[1]
    _launch(
        _embed, (len(x),),
        numbers, numbers.stride(0), tokens, codes, x, *semantic, code_size, code_step, DIM=dim, BLOCK=_power(dim), CODEBOOKS=codebooks, num_warps=8
    )  # fmt: skip


def linear(
    x: Tensor, weight: Tensor, out: Tensor, *,
    bias: Tensor | None = None, norm: tuple[Tensor, float] | None = None, gated: bool = False, add: Tensor | None = None,
) -> None:  # fmt: skip
    """out (rows, n) = x (rows, k) times weight (n, k), plus `bias` (n,) and `add` (rows, n).

    If `gated`, weight is two weights (2 n, k), and silu(first product) * second product takes the product's place. With `norm` (gain, eps),
    x is normalised first. Products are summed in FP32 and rounded once.
    """
    rows, k, n = len(x), x.shape[1], out.shape[1]
    gain, eps = norm or (x, 0.0)
    at_once = min(rows, NARROW)
    block_k = _power(k)
    block_n = 8 if gated or block_k > 2048 else 4
    warps = 8 if block_k > 2048 else 4
    _launch(
        _linear, (triton.cdiv(n, block_n), triton.cdiv(rows, at_once)),
        x, x.stride(0), weight, out, x if bias is None else bias, gain, x if add is None else add, rows, eps, K=k, N=n, ROWS=at_once, BLOCK_K=block_k,
        BLOCK_N=block_n, NORM=norm is not None, GATED=gated, BIAS=bias is not None, ADD=add is not None, **_how(x, warps),
    )  # fmt: skip


def norm(x: Tensor, gain: Tensor, eps: float, out: Tensor) -> None:
    """RMSNorm of x (rows, k), as `inference.model.dual_ar.RMSNorm`."""
    _launch(_norm, (len(x),), x, gain, out, eps, K=x.shape[1], BLOCK=_power(x.shape[1]), **_how(x, 4))


def gate(both: Tensor, out: Tensor) -> None:
    """out (rows, n) = silu(first half) * second half of both (rows, 2 n)."""
    n = out.shape[1]
    block = min(_power(n), 1024)
    _launch(_gate, (len(out), triton.cdiv(n, block)), both, out, N=n, BLOCK=block, **_how(out, 4))


class Attention:
    """Attention of one key/value head's queries over one layer's cache, for up to `rows` rows of a model of this shape.

    Where the context is long and rows are few, several programs each read a part of it.
    """

    def __init__(self, rows: int, n_head: int, kv_heads: int, head_dim: int, device: torch.device) -> None:
        self._kv, self._per_kv, self._size = kv_heads, n_head // kv_heads, head_dim
        self._half = _power(head_dim // 2, 8)
        queries = _power(self._per_kv, 16)
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
        queries = _power(self._per_kv * time, 16)
        _launch(
            _attend, (rows, self._kv, splits),
            qkv, cache, cache.stride(0), cache.stride(1), cache.stride(2), cache.shape[3], turns, numbers, numbers.stride(0), length_at,
            position or 0, active, out, self._partial, self._counters, self._size**-0.5, D=self._size, HEADS=self._per_kv, KV=self._kv, TIME=time, QUERIES=queries,
            HALF=self._half, BLOCK=64 if position is None else 16, SPLITS=splits, RAGGED=position is None, **_how(qkv, 4),
        )  # fmt: skip


MAX_SPLITS = 8


def draw(
    n: int, logits: Tensor, numbers: Tensor, sampling: Tensor, hidden: Tensor, frames: Tensor, ids: Tensor, embeddings: Tensor, x: Tensor,
    active: Tensor, *, codebooks: int, window: int, semantic_begin: int, code_size: int,
) -> None:  # fmt: skip
    """Make the nth draw of a frame for the first `active` rows, as `inference.engine.sampler.sample` does: logits (rows, ids) FP32 ->
    frames (rows, 1 + codebooks + 2).

    It also writes the fast layers' next input to x: after the first draw `hidden` and the code's embedding, alternating; later the
    embedding alone. `numbers` are as `inference.engine.graphs.Graphs` keeps them.
    """
    dim, count = embeddings.shape[1], logits.shape[1]
    _launch(
        _draw, (len(logits),),
        n, logits, numbers, numbers.stride(0), sampling, hidden, frames, ids, embeddings, x, active, semantic_begin, code_size,
        N=count, BLOCK=_power(count), CODEBOOKS=codebooks, WINDOW=window, FIRST=n == 0, DIM=dim, BLOCK_DIM=_power(dim), **_how(x, 8),
    )  # fmt: skip


def advance(numbers: Tensor, frames: Tensor, active: Tensor, *, codebooks: int, window: int) -> None:
    """Advance the first `active` rows of `numbers` to the frame after `frames`."""
    _launch(
        _advance,
        (len(frames),),
        numbers,
        numbers.stride(0),
        frames,
        active,
        CODEBOOKS=codebooks,
        WINDOW=window,
        BLOCK=_power(1 + codebooks),
        **_how(numbers, 1),
    )

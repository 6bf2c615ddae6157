"""The kernels of a frame on CUDA but for attention, in Triton: products of one row, norms, and one for a whole draw.

A frame of one stream reads 1.7 GB of weights in steps of 2 to 17 MB. A step takes a few microseconds, so speed depends on how soon a
kernel's reads begin. A kernel therefore requests its weights first and only then waits for the previous kernel, which on Hopper and later
is still running (programmatic dependent launch). The tests run each kernel on a CPU, in Triton's interpreter, against the plain PyTorch it
replaces.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from inference.engine.dot_kernels import dot
from inference.engine.launch_kernels import after_the_last, now
from inference.engine.launching import launch, options, power


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
def normalised(v, gain, eps, K: tl.constexpr):
    """RMSNorm of `v`, which has K values and zeros behind them."""
    f = v.to(tl.float32)
    return (f * tl.rsqrt(tl.sum(f * f, axis=0) / K + eps)).to(v.dtype) * gain


@triton.jit
def _linear(x, weight, scale, out, bias, gain, add, eps, K: tl.constexpr, N: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr,
            SCALED: tl.constexpr, NORM: tl.constexpr, GATED: tl.constexpr, BIAS: tl.constexpr, ADD: tl.constexpr, PDL: tl.constexpr):  # fmt: skip
    n, k = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_K)
    at = n[:, None] * K + k[None, :]
    if K == BLOCK_K and N % BLOCK_N == 0:
        w = tl.load(weight + at)
        u = tl.load(weight + N * K + at) if GATED else w
    else:
        fits = (n < N)[:, None] & (k < K)[None, :]
        w = tl.load(weight + at, mask=fits, other=0)
        u = tl.load(weight + N * K + at, mask=fits, other=0) if GATED else w
    if SCALED:
        s = tl.load(scale + n, mask=n < N, other=0)
        t = tl.load(scale + N + n, mask=n < N, other=0) if GATED else s
    g = tl.load(gain + k, mask=k < K, other=0) if NORM else k
    b = tl.load(bias + n, mask=n < N, other=0).to(tl.float32) if BIAS else n
    after_the_last(PDL)
    if SCALED:  # else the compiler turns weights into FP32 before the wait, and holds four times the registers
        w = now(w, PDL)
        u = now(u, PDL) if GATED else w
    v = tl.load(x + k, mask=k < K, other=0)
    if NORM:
        v = normalised(v, g, eps, K)
    f = v.to(tl.float32)[None, :]
    y = tl.sum(w.to(tl.float32) * f, axis=1)
    z = tl.sum(u.to(tl.float32) * f, axis=1) if GATED else y
    if SCALED:
        y *= s
        z *= t
    if GATED:
        y = y * tl.sigmoid(y) * z
    if BIAS:
        y += b
    if ADD:
        y += tl.load(add + n, mask=n < N, other=0).to(tl.float32)
    tl.store(out + n, y.to(out.dtype.element_ty), mask=n < N)


@triton.jit
def _norm(x, gain, out, eps, K: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr):
    row, k = tl.program_id(0), tl.arange(0, BLOCK)
    g = tl.load(gain + k, mask=k < K, other=0)
    after_the_last(PDL)
    tl.store(out + row * K + k, normalised(tl.load(x + row * K + k, mask=k < K, other=0), g, eps, K), mask=k < K)


@triton.jit
def _gate(both, out, N: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr):
    row, n = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    after_the_last(PDL)
    gate = tl.load(both + row * 2 * N + n, mask=n < N, other=0).to(tl.float32)
    up = tl.load(both + row * 2 * N + N + n, mask=n < N, other=0).to(tl.float32)
    tl.store(out + row * N + n, (gate * tl.sigmoid(gate) * up).to(out.dtype.element_ty), mask=n < N)


@triton.jit
def _mixed(x):
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


@triton.jit
def _seen(history, i, WINDOW: tl.constexpr):
    """Which of the ids `i` the penalty sees."""
    seen = i < 0
    for j in tl.static_range(WINDOW):
        seen = seen | (i == tl.load(history + j))
    return seen


@triton.jit
def _allowed(x, i, seen, frame, penalty, FIRST: tl.constexpr):
    """Logits `x` of ids `i`, after the penalty; the first frame is never the end token."""
    if FIRST:
        x = tl.where((i == 0) & (frame == 0), float("-inf"), x)
    return tl.where(seen, tl.where(x < 0, x * penalty, x / penalty), x)


@triton.jit
def _advance(here, frame, number, CODEBOOKS: tl.constexpr, WINDOW: tl.constexpr, BLOCK: tl.constexpr):
    """Advance a row's numbers `here` to the frame after `frame`."""
    i = tl.arange(0, BLOCK)
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


@triton.jit(do_not_specialize=["n"])
def _draw(n, logits, numbers, stride, sampling, hidden, frames, ids, embeddings, x, active, semantic_begin, code_size,
          N: tl.constexpr, BLOCK: tl.constexpr, CODEBOOKS: tl.constexpr, WINDOW: tl.constexpr, FIRST: tl.constexpr,
          DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, COLUMNS: tl.constexpr, PDL: tl.constexpr):  # fmt: skip
    row, i, d = tl.program_id(0), tl.arange(0, BLOCK), tl.arange(0, BLOCK_DIM)
    # What a row's numbers and sampling say was written before this frame began: it can be read before the wait.
    row_numbers, frame_at = numbers + row * stride, frames + row * (CODEBOOKS + 3)
    seed, frame, count = tl.load(row_numbers + CODEBOOKS + 2), tl.load(row_numbers + CODEBOOKS + 3), tl.load(active)
    history = row_numbers + CODEBOOKS + 4 + n * WINDOW
    temperature, top_p, penalty = tl.load(sampling + row * 3), tl.load(sampling + row * 3 + 1), tl.load(sampling + row * 3 + 2)
    greedy = temperature == 0
    top_p = tl.where(greedy, 0.0, top_p)
    temperature = tl.where(greedy, 1.0, tl.maximum(temperature, 1e-5))
    odd = -0x61C8864680B583EB
    noise = _mixed(_mixed(seed + frame * odd) + n * odd)
    seen = _seen(history, i, WINDOW)
    after_the_last(PDL)
    if row >= count:
        return

    mine = logits + row * N
    raw = tl.load(mine + i, mask=i < N, other=0)
    well = tl.sum((raw - raw != 0).to(tl.int32), axis=0) == 0
    scores = _allowed(tl.where(i < N, raw, float("-inf")), i, seen, frame, penalty, FIRST)
    p = tl.exp(scores - tl.max(scores, axis=0))
    p = tl.where(i < N, p / tl.sum(p, axis=0), 0.0)
    # Probabilities are not negative, so their bit patterns sort in the same order; on ties the lower id comes first.
    keys = (p.to(tl.int32, bitcast=True).to(tl.int64) << 32) | (BLOCK - 1 - i).to(tl.int64)
    keys = tl.sort(keys, descending=True)
    ranked = (BLOCK - 1 - (keys & 0xFFFFFFFF)).to(tl.int32)
    p = (keys >> 32).to(tl.int32).to(tl.float32, bitcast=True)
    kept = ((tl.cumsum(p, axis=0) <= top_p) | (i == 0)) & (ranked < N)
    raw = tl.load(mine + ranked, mask=ranked < N, other=0)
    scores = _allowed(raw, ranked, _seen(history, ranked, WINDOW), frame, penalty, FIRST) / temperature
    bits = _mixed(noise + i.to(tl.int64) * odd)
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
    if n == CODEBOOKS - 1:
        tl.debug_barrier()  # what other threads of the program have written of the frame is read, and what they have read is written
        _advance(row_numbers, frame_at, frame, CODEBOOKS, WINDOW, COLUMNS)


# -- launchers -----------------------------------------------------------------------------------------------------


def embed(
    numbers: Tensor, tokens: Tensor, codes: Tensor, x: Tensor, *, codebooks: int, semantic: tuple[int, int], code_size: int, code_step: int
) -> None:
    """Embed the column at the start of each row of `numbers`: x (rows, dim).

    `semantic` is the first semantic token and the one after the last; `code_step` is the distance between two codebooks in rows of `codes`.
    Only this kernel waits until all earlier work has ended, so no kernel of a frame overlaps one of the previous frame.
    """
    dim = x.shape[1]
    launch(
        _embed, (len(x),),
        numbers, numbers.stride(0), tokens, codes, x, *semantic, code_size, code_step, DIM=dim, BLOCK=power(dim), CODEBOOKS=codebooks, num_warps=8
    )  # fmt: skip


def linear(
    x: Tensor, weight: Tensor, out: Tensor, *, scale: Tensor | None = None,
    bias: Tensor | None = None, norm: tuple[Tensor, float] | None = None, gated: bool = False, add: Tensor | None = None,
) -> None:  # fmt: skip
    """out (rows, n) = x (rows, k) times weight (n, k), plus `bias` (n,) and `add` (rows, n).

    If `gated`, weight is two weights (2 n, k), and silu(first product) * second product takes the product's place. With `norm` (gain, eps),
    x is normalised first. Products are summed in FP32 and rounded once. An int8 weight comes with `scale`, FP32 for each of its rows, by
    which sums are multiplied.
    """
    if len(x) > 1:
        dot(x, weight, out, scale=scale, bias=bias, norm=norm, gated=gated, add=add)
        return
    k, n = x.shape[1], out.shape[1]
    gain, eps = norm or (x, 0.0)
    block_k = power(k)
    block_n = 8 if gated or block_k > 2048 else 4
    warps = 8 if block_k > 2048 else 4
    launch(
        _linear, (triton.cdiv(n, block_n),),
        x, weight, x if scale is None else scale, out, x if bias is None else bias, gain, x if add is None else add, eps,
        K=k, N=n, BLOCK_K=block_k, BLOCK_N=block_n, SCALED=scale is not None, NORM=norm is not None, GATED=gated, BIAS=bias is not None, ADD=add is not None, **options(x, warps),
    )  # fmt: skip


def norm(x: Tensor, gain: Tensor, eps: float, out: Tensor) -> None:
    """RMSNorm of x (rows, k), as `inference.model.dual_ar.RMSNorm`."""
    launch(_norm, (len(x),), x, gain, out, eps, K=x.shape[1], BLOCK=power(x.shape[1]), **options(x, 4))


def gate(both: Tensor, out: Tensor) -> None:
    """out (rows, n) = silu(first half) * second half of both (rows, 2 n)."""
    n = out.shape[1]
    block = min(power(n), 1024)
    launch(_gate, (len(out), triton.cdiv(n, block)), both, out, N=n, BLOCK=block, **options(out, 4))


def draw(
    n: int, logits: Tensor, numbers: Tensor, sampling: Tensor, hidden: Tensor, frames: Tensor, ids: Tensor, embeddings: Tensor, x: Tensor,
    active: Tensor, *, codebooks: int, window: int, semantic_begin: int, code_size: int,
) -> None:  # fmt: skip
    """Make the nth draw of a frame for the first `active` rows, as `inference.engine.sampler.sample` does: logits (rows, ids) FP32 ->
    frames (rows, 1 + codebooks + 2).

    It also writes the fast layers' next input to x: after the first draw `hidden` and the code's embedding, alternating; later the
    embedding alone. `numbers` are as `inference.engine.graphs.Graphs` keeps them; the last draw advances them to the next frame.
    """
    dim, count = embeddings.shape[1], logits.shape[1]
    launch(
        _draw, (len(logits),),
        n, logits, numbers, numbers.stride(0), sampling, hidden, frames, ids, embeddings, x, active, semantic_begin, code_size,
        N=count, BLOCK=power(count), CODEBOOKS=codebooks, WINDOW=window, FIRST=n == 0, DIM=dim, BLOCK_DIM=power(dim),
        COLUMNS=power(1 + codebooks), **options(logits, 8),
    )  # fmt: skip

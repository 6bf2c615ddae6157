"""All fast layers of one codebook position, and its logits, in one kernel: an experiment that no GPU has timed.

The programs of the kernel are as many as the device has multiprocessors. Each computes its share of a product's outputs, and all meet at a
barrier before the next product: four barriers a layer, where separate kernels would be four launches.

**No program waits for ever.** A barrier needs every program to have begun.

* The launch is cooperative: the driver refuses it if the programs do not fit on the device at once, as when MPS leaves a process fewer
  multiprocessors than it asks for. Then capturing fails, and frames take separate kernels. A slice of MIG is a device of its size.
* It does not overlap the kernel before, so no program of an earlier kernel of the stream is left.
* The next kernel may begin once every program has passed the last barrier, and no program waits after that.
* Kernels of other streams, as the vocoder's, end without waiting for this one, and leave their places to it: its stream has priority.
  Two such kernels at once, of two engines on one device, are both cooperative: each begins with all of its programs.

**What is written before a barrier is seen after it.** In each program a barrier of its threads comes before one atomic addition with release
semantics; an addition of zero with acquire semantics finds all of these, and a barrier of threads follows. All additions are of one chain of
atomic operations, so the reader comes after every writer (PTX ISA, memory consistency model). An acquire also empties the multiprocessor's
first-level cache; loads of what other programs have written go past that cache all the same (".cg"), so that none depends on it.

While a program waits, its first weights of the next product are on their way: they are asked for after its addition, which would otherwise
wait for them, and before it looks for the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents

from inference.engine.attention_kernels import rope_of, seen_and_new, turned
from inference.engine.kernels import normalised
from inference.engine.launching import launch, power, resident

if TYPE_CHECKING:
    from inference.engine.cuda_decode_step import Layer

WARPS = 8
HELD = 16384
"""Weights of a product that a program asks for at a time: 32 KiB, so 4 MB on 132 multiprocessors, a microsecond of their memory."""
WQKV, WO, W13, W2, BEFORE, AFTER, BIAS = (tl.constexpr(n) for n in range(7))
"""Columns of the table of addresses. Behind the layers' rows one more has the head at WQKV and the last norm at BEFORE."""
COLUMNS = tl.constexpr(8)


@triton.jit
def _arrive(counter):
    """Say that what this program writes before a barrier is written."""
    tl.debug_barrier()
    tl.atomic_add(counter, 1, sem="release")


@triton.jit
def _wait_for(counter, arrivals):
    """Wait until programs have arrived so many times. To add nothing is to load, and so it is compiled."""
    while tl.atomic_add(counter, 0, sem="acquire") < arrivals:
        pass


@triton.jit
def _address(table, layer, column, like):
    """An address of the table, as a pointer of the type of `like`."""
    pointer = tl.load(table + layer * COLUMNS + column).to(tl.pointer_type(like.dtype.element_ty))
    return tl.multiple_of(pointer, 16)


@triton.jit
def _share(N: tl.constexpr):
    """The first of N outputs that are this program's, and the one after the last."""
    each = tl.cdiv(N, tl.num_programs(0))
    first = tl.minimum(tl.program_id(0) * each, N)
    return first, tl.minimum(first + each, N)


@triton.jit
def _rows(weight, n, end, k, inside, K: tl.constexpr):
    """Rows `n` of a weight before row `end`, at inputs `k`, of which `inside` are some: (n, k)."""
    return tl.load(weight + n[:, None] * K + k[None, :], mask=(n < end)[:, None] & inside[None, :], other=0)


@triton.jit
def _multiply(v, w, u, weight, out, bias, first, end, k, inside, K: tl.constexpr, N: tl.constexpr, ROWS: tl.constexpr,
              GATED: tl.constexpr, BIASED: tl.constexpr, ADD: tl.constexpr):  # fmt: skip
    """Outputs `first` to `end` of v (k,) times a weight, whose first ROWS rows there are `w`, and `u` of the second matrix if GATED."""
    f = v.to(tl.float32)[None, :]
    for start in range(first, end, ROWS):
        n = start + tl.arange(0, ROWS)
        here = n < end
        more_w = _rows(weight, n + ROWS, end, k, inside, K)
        more_u = _rows(weight + N * K, n + ROWS, end, k, inside, K) if GATED else more_w
        if ADD:
            before = tl.load(out + n, mask=here, other=0, cache_modifier=".cg").to(tl.float32)
        y = tl.sum(w.to(tl.float32) * f, axis=1)
        if GATED:
            y = y * tl.sigmoid(y) * tl.sum(u.to(tl.float32) * f, axis=1)
        if BIASED:
            y += tl.load(bias + n, mask=here, other=0).to(tl.float32)
        if ADD:
            y += before
        tl.store(out + n, y.to(out.dtype.element_ty), mask=here)
        w, u = more_w, more_u


@triton.jit(do_not_specialize=["position", "layers"])
def _fast_layers(x, qkv, h, logits, table, cache, layer_stride, values, head_stride, turns, position, layers, counter, eps, scale,
                 DIM: tl.constexpr, D: tl.constexpr, HEADS: tl.constexpr, KV: tl.constexpr, WIDE: tl.constexpr,
                 CODES: tl.constexpr, KEYS: tl.constexpr, BLOCK: tl.constexpr, BLOCK_WIDE: tl.constexpr, HALF: tl.constexpr,
                 ALL: tl.constexpr, ROWS: tl.constexpr, ROWS_ADD: tl.constexpr, ROWS_GATED: tl.constexpr, ROWS_WIDE: tl.constexpr,
                 BIASED: tl.constexpr, PDL: tl.constexpr):  # fmt: skip
    width: tl.constexpr = (HEADS + 2) * KV * D
    inputs: tl.constexpr = KV * HEADS * D
    programs = tl.num_programs(0)
    from_qkv, to_qkv = _share(width)
    from_dim, to_dim = _share(DIM)
    from_wide, to_wide = _share(WIDE)
    from_code, to_code = _share(CODES)
    k, wide = tl.arange(0, BLOCK), tl.arange(0, BLOCK_WIDE)
    in_k, in_wide = k < DIM, wide < WIDE
    # The attention's heads lie one after the other, each in a block of 2 * HALF values.
    y_at = tl.arange(0, ALL * 2 * HALF)
    in_y = (y_at // (2 * HALF) < KV * HEADS) & (y_at % (2 * HALF) < D)
    y_at = y_at // (2 * HALF) * D + y_at % (2 * HALF)
    head, j, d, p = tl.arange(0, ALL), tl.arange(0, HALF), tl.arange(0, 2 * HALF), tl.arange(0, KEYS)
    there = (head < KV * HEADS)[:, None]
    inside = there & (d < D)[None, :]
    own = (head // HEADS)[:, None]  # the key/value head of each head
    cos, sin = rope_of(turns + position * D + head[:, None] * 0, j, D, there)
    at = (own * head_stride + d[None, :])[None, :, :] + p[:, None, None] * D
    old = (p < position)[:, None, None] & inside[None, :, :]
    new_at = own * head_stride + position * D + d[None, :]
    first_to_write = inside & (head % HEADS == 0)[:, None] & (tl.program_id(0) == 0)

    weight = _address(table, 0, WQKV, x)
    start, end, arrivals = from_qkv, to_qkv, programs
    w = _rows(weight, start + tl.arange(0, ROWS), end, k, in_k, DIM)
    gain = tl.load(_address(table, 0, BEFORE, x) + k, mask=in_k, other=0)
    for layer in range(layers):
        output, wide_weight, last_weight = _address(table, layer, WO, x), _address(table, layer, W13, x), _address(table, layer, W2, x)
        after = _address(table, layer, AFTER, x)
        next_weight, next_gain = _address(table, layer + 1, WQKV, x), _address(table, layer + 1, BEFORE, x)
        v = normalised(tl.load(x + k, mask=in_k, other=0, cache_modifier=".cg"), gain, eps, DIM)
        bias = _address(table, layer, BIAS, x) if BIASED else x
        _multiply(v, w, w, weight, qkv, bias, start, end, k, in_k, DIM, width, ROWS, False, BIASED, False)

        _arrive(counter)
        w_add = _rows(output, from_dim + tl.arange(0, ROWS_ADD), to_dim, y_at, in_y, inputs)
        here = cache + layer * layer_stride
        keys = tl.load(here + at, mask=old, other=0)  # earlier kernels wrote them
        old_values = tl.load(here + values + at, mask=old, other=0)
        _wait_for(counter, arrivals)
        q = turned(qkv + head[:, None] * D, cos, sin, j, D, there, ".cg")
        new = qkv + (HEADS * KV + own) * D
        new_key = turned(new, cos, sin, j, D, there, ".cg")
        new_value = tl.load(new + KV * D + d[None, :], mask=inside, other=0, cache_modifier=".cg")
        tl.store(here + new_at, new_key, mask=first_to_write)
        tl.store(here + values + new_at, new_value, mask=first_to_write)
        y = seen_and_new(q, keys, old_values, p < position, new_key, new_value, scale).to(x.dtype.element_ty)
        y = tl.reshape(tl.where(inside, y, 0.0), (ALL * 2 * HALF,))
        _multiply(y, w_add, w_add, output, x, x, from_dim, to_dim, y_at, in_y, inputs, DIM, ROWS_ADD, False, False, True)

        _arrive(counter)
        n = from_wide + tl.arange(0, ROWS_GATED)
        gate = _rows(wide_weight, n, to_wide, k, in_k, DIM)
        up = _rows(wide_weight + WIDE * DIM, n, to_wide, k, in_k, DIM)
        gain = tl.load(after + k, mask=in_k, other=0)
        _wait_for(counter, arrivals + programs)
        v = normalised(tl.load(x + k, mask=in_k, other=0, cache_modifier=".cg"), gain, eps, DIM)
        _multiply(v, gate, up, wide_weight, h, x, from_wide, to_wide, k, in_k, DIM, WIDE, ROWS_GATED, True, False, False)

        _arrive(counter)
        w_wide = _rows(last_weight, from_dim + tl.arange(0, ROWS_WIDE), to_dim, wide, in_wide, WIDE)
        _wait_for(counter, arrivals + 2 * programs)
        v_wide = tl.load(h + wide, mask=in_wide, other=0, cache_modifier=".cg")
        _multiply(v_wide, w_wide, w_wide, last_weight, x, x, from_dim, to_dim, wide, in_wide, WIDE, DIM, ROWS_WIDE, False, False, True)

        _arrive(counter)
        if layer == layers - 1:
            start, end = from_code, to_code
        weight = next_weight
        w = _rows(weight, start + tl.arange(0, ROWS), end, k, in_k, DIM)
        gain = tl.load(next_gain + k, mask=in_k, other=0)
        _wait_for(counter, arrivals + 3 * programs)
        arrivals += 4 * programs

    if PDL:
        gdc_launch_dependents()
    v = normalised(tl.load(x + k, mask=in_k, other=0, cache_modifier=".cg"), gain, eps, DIM)
    _multiply(v, w, w, weight, logits, x, start, end, k, in_k, DIM, CODES, ROWS, False, False, False)
    # The last program to come here finds that none waits any more, and leaves the counter as it was.
    if tl.atomic_add(counter, 1) == arrivals - 1:
        tl.store(counter, 0)


class FastLayers:
    """The fast layers of one row, and the head behind them, in one kernel of `programs` programs (None: one for each multiprocessor).

    `norm` is the gain and epsilon of the norm before `head` (codes, dim). cache (layers, 2, rows, kv, positions, size) and turns
    (positions, size / 2, 2) FP32 are the fast layers' own. Weights are in the precision of `head`.
    """

    def __init__(
        self, layers: list[Layer], norm: tuple[Tensor, float], head: Tensor, cache: Tensor, turns: Tensor, n_head: int,
        programs: int | None = None,
    ) -> None:  # fmt: skip
        self._layers, self._norm, self._head, self._cache, self._turns = (
            layers,
            norm,
            head,
            cache,
            turns,
        )  # also kept, as the table has addresses
        if programs is None:
            programs = torch.cuda.get_device_properties(head.device).multi_processor_count if head.is_cuda else 1
        self._programs, self._n_head, self._wide = programs, n_head, layers[0].w2.ours.shape[1]
        self._biased = layers[0].bias is not None
        rows = [(one.wqkv.ours, one.wo.ours, one.w13.ours, one.w2.ours, one.before[0], one.after[0], one.bias) for one in layers]
        last = (head, None, None, None, norm[0], None, None)
        addresses = [[0 if t is None else t.data_ptr() for t in (*row, None)] for row in (*rows, last)]
        self._table = torch.tensor(addresses, dtype=torch.int64, device=head.device)
        self._qkv, self._h = head.new_zeros(len(layers[0].wqkv.ours)), head.new_zeros(self._wide)
        self._counter = torch.zeros(1, dtype=torch.int32, device=head.device)

    def __call__(self, x: Tensor, position: int, logits: Tensor) -> None:
        """x (1, dim), the input at `position`, of which there are fewer in the cache -> logits (1, codes) FP32. x is overwritten."""
        dim, (layers, _, _, kv, positions, size) = x.shape[1], self._cache.shape
        half, every = power(size // 2), power(self._n_head)
        block, wide = power(dim), power(self._wide)
        launch(
            _fast_layers, (self._programs,),
            x, self._qkv, self._h, logits, self._table, self._cache, self._cache.stride(0), self._cache.stride(1), self._cache.stride(3),
            self._turns, position, layers, self._counter, self._norm[1], size**-0.5,
            DIM=dim, D=size, HEADS=self._n_head // kv, KV=kv, WIDE=self._wide, CODES=len(self._head), KEYS=power(positions),
            BLOCK=block, BLOCK_WIDE=wide, HALF=half, ALL=every, ROWS=_rows_of(block), ROWS_ADD=min(8, _rows_of(every * 2 * half)),
            ROWS_GATED=_rows_of(2 * block), ROWS_WIDE=_rows_of(wide), BIASED=self._biased, **resident(x, WARPS),
        )  # fmt: skip


def _rows_of(width: int) -> int:
    """Rows of a weight of this width that a program holds: at most 16."""
    return min(16, max(1, HELD // width))

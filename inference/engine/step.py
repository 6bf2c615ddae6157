"""One position of the Dual-AR model for a batch of rows, with as few operations as it takes.

The arithmetic is `inference.model.dual_ar`'s and is proved equal to it in the tests. What differs is layout: weights stand
as (in, out) or rounded to 8 bits, gate and up projections are one matrix, the queries of a key/value head are its batch of queries, a rotation
is one complex product, and the first two codebook positions, both known once the token is drawn, are one pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from inference.engine.matrix import Matrix, Weights, lay_out
from inference.model.dual_ar import Block, DualAR, KVCache, RMSNorm, Span


@dataclass(frozen=True)
class Slots:
    """One layer's cache in a pass: where new keys and values go, and all that attention reads, (batch, kv, end, head_dim).

    `at` is None where the new ones go into views; else (rows, positions) (batch,) int64, one position in each row.
    """

    new_keys: Tensor
    new_values: Tensor
    keys: Tensor
    values: Tensor
    at: tuple[Tensor, Tensor] | None = None

    @staticmethod
    def same(cache: KVCache, rows: int, position: int) -> list[Slots]:
        """For each layer: one new position, the same in rows 0, 1, ... New ones are (batch, kv, head_dim)."""
        new = (c[:, :rows, :, position].unbind(0) for c in (cache.k, cache.v))
        read = (c[:, :rows, :, : position + 1].unbind(0) for c in (cache.k, cache.v))
        return [Slots(*layer) for layer in zip(*new, *read, strict=True)]

    @staticmethod
    def pair(cache: KVCache, rows: int) -> list[Slots]:
        """For each layer: positions 0 and 1. New ones are (batch, 2, kv, head_dim)."""
        new = (c[:, :rows, :, :2].transpose(2, 3).unbind(0) for c in (cache.k, cache.v))
        read = (c[:, :rows, :, :2].unbind(0) for c in (cache.k, cache.v))
        return [Slots(*layer) for layer in zip(*new, *read, strict=True)]

    @staticmethod
    def ragged(cache: KVCache, positions: Tensor, end: int) -> list[Slots]:
        """For each layer: one new position in each of rows 0, 1, ..., `positions` (batch,). New ones are (batch, kv, head_dim)."""
        at = torch.arange(len(positions), device=positions.device), positions
        return [Slots(k, v, k[:, :, :end], v[:, :, :end], at) for k, v in cache.layers(len(positions))]

    def write(self, keys: Tensor, values: Tensor) -> None:
        """Put the new ones where they belong."""
        if self.at is None:
            self.new_keys.copy_(keys)
            self.new_values.copy_(values)
        else:
            rows, positions = self.at
            self.new_keys[rows, :, positions] = keys
            self.new_values[rows, :, positions] = values


@dataclass(frozen=True)
class Norm:
    """RMSNorm. In FP32 as x / hypot(||x||, sqrt(n eps)) * sqrt(n) weight: half the operations, which for few rows is half the time."""

    norm: RMSNorm
    root: Tensor
    gain: Tensor

    @staticmethod
    def of(norm: RMSNorm) -> Norm:
        n = len(norm.weight)
        return Norm(norm, torch.tensor(math.sqrt(n * norm.eps), device=norm.weight.device), norm.weight * math.sqrt(n))

    def __call__(self, x: Tensor) -> Tensor:
        """x (rows, n) -> the same."""
        if x.dtype == torch.float32:
            return x / torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True), self.root) * self.gain
        return F.rms_norm(x, self.norm.weight.shape, self.norm.weight, self.norm.eps)


@dataclass(frozen=True)
class PackedBlock:
    """The weights of one layer as a pass reads them."""

    attention_norm: Norm
    wqkv: Matrix
    wo: Matrix
    ffn_norm: Norm
    w13: Matrix
    w2: Matrix
    n_head: int
    n_kv: int

    @staticmethod
    def pack(block: Block, weights: Weights) -> PackedBlock:
        """Lay the weights out anew."""
        a, f = block.attention, block.feed_forward
        wqkv, wo, w13, w2 = (lay_out(weights, *linears) for linears in ((a.wqkv,), (a.wo,), (f.w1, f.w3), (f.w2,)))
        return PackedBlock(Norm.of(block.attention_norm), wqkv, wo, Norm.of(block.ffn_norm), w13, w2, a.n_head, a.n_kv)

    def __call__(self, x: Tensor, turn: Tensor, slots: Slots, mask: Tensor | None = None, time: int = 1) -> Tensor:
        """x (batch * time, dim), the positions of a row together -> the same.

        turn (batch or 1, 1, head_dim / 2) complex, with (time,) before the 1 if several. `mask` (broadcast over batch, kv heads,
        queries, end) is True where a key may be seen, None when all may.
        """
        size, turned_heads, per_kv = slots.keys.shape[3], self.n_head + self.n_kv, self.n_head // self.n_kv
        rows = (-1,) if time == 1 else (-1, time)
        qkv = self.wqkv.times(self.attention_norm(x)).view(*rows, turned_heads + self.n_kv, size)
        turned = _rotate(qkv.narrow(-2, 0, turned_heads), turn)
        slots.write(turned.narrow(-2, self.n_head, self.n_kv), qkv.narrow(-2, turned_heads, self.n_kv))
        # The queries of a kv head, of one position or of several, are one batch of queries to it.
        q = turned.narrow(-2, 0, self.n_head).unflatten(-2, (self.n_kv, per_kv))
        if time > 1:
            q = q.transpose(1, 2).flatten(2, 3)
        y = F.scaled_dot_product_attention(q, slots.keys, slots.values, attn_mask=mask)
        if time > 1:
            y = y.unflatten(2, (time, per_kv)).transpose(1, 2)
        x = self.wo.added(x, y.reshape(x.shape))
        gate, up = self.w13.times(self.ffn_norm(x)).chunk(2, dim=-1)
        return self.w2.added(x, F.silu(gate) * up)


class Step:
    """A model packed for decoding up to `rows` rows, with the cache of its fast layers. Packing changes none of the model's values."""

    def __init__(self, model: DualAR, rows: int, weights: Weights = "native") -> None:
        self._model = model
        self._slow = [PackedBlock.pack(b, weights) for b in model.layers if isinstance(b, Block)]
        self._fast = [PackedBlock.pack(b, weights) for b in model.fast_layers if isinstance(b, Block)]
        self._norm, self._fast_norm = Norm.of(model.norm), Norm.of(model.fast_norm)
        self._fast_cache = model.new_fast_cache(rows)
        self._fast_slots: dict[tuple[int, int], list[Slots]] = {}  # by rows and position: they are the same in every frame
        self._turns = torch.view_as_complex(model.rope)  # (positions, head_dim / 2)
        self._fast_turns = torch.view_as_complex(model.fast_rope)
        per_kv = model.config.fast_n_head // model.config.fast_n_local_heads
        causal = torch.tensor([[True, False], [True, True]], device=model.rope.device)
        self._pair_mask = causal.repeat_interleave(per_kv, dim=0)  # queries of position 0, then of position 1

    def slow(self, columns: Tensor, cache: KVCache, lengths: list[int]) -> Tensor:
        """The next column (batch, 1 + codebooks) of rows 0, 1, ... -> hidden states before the final norm, (batch, dim)."""
        span = Span.step(lengths, columns.device)
        if span.mask is None:
            turn, layers = self._turns[lengths[0]], Slots.same(cache, len(lengths), lengths[0])
        else:
            positions = span.positions[:, 0]
            turn, layers = self._turns[positions], Slots.ragged(cache, positions, span.end)
        x, turn = self._model.embed(columns[:, :, None])[:, 0], turn.view(-1, 1, self._turns.shape[1])
        for block, slots in zip(self._slow, layers, strict=True):
            x = block(x, turn, slots, span.mask)
        return x

    def fast_pair(self, hidden: Tensor, code: Tensor) -> Tensor:
        """Codebook positions 0, of hidden (batch, fast_dim), and 1, of code (batch,); the state of position 1, (batch, fast_dim)."""
        rows = len(code)
        if (rows, 1) not in self._fast_slots:
            self._fast_slots[rows, 1] = Slots.pair(self._fast_cache, rows)
        x = torch.stack((hidden, self._model.fast_embeddings(code)), dim=1).flatten(0, 1)
        turn = self._fast_turns[:2].view(1, 2, 1, -1)
        for block, slots in zip(self._fast, self._fast_slots[rows, 1], strict=True):
            x = block(x, turn, slots, self._pair_mask, time=2)
        return x[1::2]

    def fast(self, code: Tensor, position: int) -> Tensor:
        """One later codebook position, of code (batch,) -> (batch, fast_dim)."""
        rows = len(code)
        if (rows, position) not in self._fast_slots:
            self._fast_slots[rows, position] = Slots.same(self._fast_cache, rows, position)
        x, turn = self._model.fast_embeddings(code), self._fast_turns[position].view(1, 1, -1)
        for block, slots in zip(self._fast, self._fast_slots[rows, position], strict=True):
            x = block(x, turn, slots)
        return x

    def token_logits(self, hidden: Tensor, head: Tensor) -> Tensor:
        """FP32 logits of slow hidden states (batch, dim) over the rows of `head` (ids, dim) FP32."""
        return F.linear(self._norm(hidden).float(), head)

    def code_logits(self, x: Tensor, head: Tensor) -> Tensor:
        """FP32 logits of fast states (batch, fast_dim) over the rows of `head` (codes, fast_dim) FP32."""
        return F.linear(self._fast_norm(x).float(), head)


def _rotate(x: Tensor, turn: Tensor) -> Tensor:
    """Turn interleaved pairs of x (..., heads, head_dim) in FP32."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turn).flatten(-2).to(x.dtype)

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
class Where:
    """The positions a pass writes, and what it may read.

    `positions` is one number when all rows write the same position, a slice when each writes several, else (batch,) int64,
    one for each of `rows`. Attention reads up to `end`; `mask` (broadcast over batch, kv heads, queries, end) is True where
    a key may be seen, None when all may.
    """

    positions: int | slice | Tensor
    end: int
    mask: Tensor | None
    rows: Tensor | None = None

    @staticmethod
    def after(lengths: list[int], device: torch.device) -> Where:
        """The next position of rows 0, 1, ..., which hold `lengths` already."""
        span = Span.step(lengths, device)
        if span.mask is None:
            return Where(lengths[0], span.end, None)
        return Where(span.positions[:, 0], span.end, span.mask, torch.arange(len(lengths), device=device))

    def write(self, cache: Tensor, new: Tensor) -> None:
        """Put new (batch, time, kv, head_dim) into cache (batch, kv, positions, head_dim)."""
        if isinstance(self.positions, Tensor):
            cache[self.rows, :, self.positions] = new[:, 0]
        elif isinstance(self.positions, slice):
            cache[:, :, self.positions] = new.transpose(1, 2)
        else:
            cache.select(2, self.positions).copy_(new[:, 0])


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

    def __call__(self, x: Tensor, turn: Tensor, keys: Tensor, values: Tensor, where: Where, time: int = 1) -> Tensor:
        """x (batch * time, dim), the positions of a row together -> the same.

        turn (batch or 1, time, 1, head_dim / 2) complex; keys and values (batch, kv, positions, head_dim) are this layer's cache.
        """
        size, turned_heads, per_kv = keys.shape[3], self.n_head + self.n_kv, self.n_head // self.n_kv
        qkv = self.wqkv.times(self.attention_norm(x)).view(-1, time, turned_heads + self.n_kv, size)
        turned = _rotate(qkv[:, :, :turned_heads], turn)
        where.write(keys, turned[:, :, self.n_head :])
        where.write(values, qkv[:, :, turned_heads:])
        q = turned[:, :, : self.n_head]
        # The queries of a kv head, of one position or of several, are one batch of queries to it.
        if time == 1:
            q = q.reshape(-1, self.n_kv, per_kv, size)
        else:
            q = q.unflatten(2, (self.n_kv, per_kv)).transpose(1, 2).flatten(2, 3)
        y = F.scaled_dot_product_attention(q, keys[:, :, : where.end], values[:, :, : where.end], attn_mask=where.mask)
        if time > 1:
            y = y.unflatten(2, (time, per_kv)).transpose(1, 2)
        x = self.wo.added(x, y.reshape(x.shape))
        gate, up = self.w13.times(self.ffn_norm(x)).chunk(2, dim=-1)
        return self.w2.added(x, F.silu(gate) * up)


class Step:
    """A model packed for decoding. Packing changes none of the model's values; it goes on working."""

    def __init__(self, model: DualAR, weights: Weights = "native") -> None:
        self._model = model
        self._slow = [PackedBlock.pack(b, weights) for b in model.layers if isinstance(b, Block)]
        self._fast = [PackedBlock.pack(b, weights) for b in model.fast_layers if isinstance(b, Block)]
        self._norm, self._fast_norm = Norm.of(model.norm), Norm.of(model.fast_norm)
        self._turns = torch.view_as_complex(model.rope)  # (positions, head_dim / 2)
        self._fast_turns = torch.view_as_complex(model.fast_rope)
        per_kv = model.config.fast_n_head // model.config.fast_n_local_heads
        causal = torch.tensor([[True, False], [True, True]], device=model.rope.device)
        self._pair_mask = causal.repeat_interleave(per_kv, dim=0)  # queries of position 0, then of position 1

    def slow(self, columns: Tensor, cache: KVCache, lengths: list[int]) -> Tensor:
        """The next column (batch, 1 + codebooks) of rows 0, 1, ... -> hidden states before the final norm, (batch, dim)."""
        where = Where.after(lengths, columns.device)
        x = self._model.embed(columns[:, :, None])[:, 0]
        turn = self._turns[where.positions].view(-1, 1, 1, self._turns.shape[1])
        for block, (keys, values) in zip(self._slow, cache.layers(len(lengths)), strict=True):
            x = block(x, turn, keys, values, where)
        return x

    def fast_pair(self, hidden: Tensor, code: Tensor, cache: KVCache) -> Tensor:
        """Codebook positions 0, of hidden (batch, fast_dim), and 1, of code (batch,); the state of position 1, (batch, fast_dim)."""
        x = torch.stack((hidden, self._model.fast_embeddings(code)), dim=1).flatten(0, 1)
        turn = self._fast_turns[:2].view(1, 2, 1, -1)
        where = Where(slice(0, 2), 2, self._pair_mask)
        for block, (keys, values) in zip(self._fast, cache.layers(len(code)), strict=True):
            x = block(x, turn, keys, values, where, time=2)
        return x[1::2]

    def fast(self, code: Tensor, cache: KVCache, position: int) -> Tensor:
        """One later codebook position, of code (batch,) -> (batch, fast_dim)."""
        x = self._model.fast_embeddings(code)
        turn = self._fast_turns[position].view(1, 1, 1, -1)
        where = Where(position, position + 1, None)
        for block, (keys, values) in zip(self._fast, cache.layers(len(code)), strict=True):
            x = block(x, turn, keys, values, where)
        return x

    def token_logits(self, hidden: Tensor, head: Tensor) -> Tensor:
        """FP32 logits of slow hidden states (batch, dim) over the rows of `head` (ids, dim) FP32."""
        return F.linear(self._norm(hidden).float(), head)

    def code_logits(self, x: Tensor, head: Tensor) -> Tensor:
        """FP32 logits of fast states (batch, fast_dim) over the rows of `head` (codes, fast_dim) FP32."""
        return F.linear(self._fast_norm(x).float(), head)


def _rotate(x: Tensor, turn: Tensor) -> Tensor:
    """Turn interleaved pairs of x (batch, time, heads, head_dim) in FP32."""
    pairs = torch.view_as_complex(x.float().view(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turn).flatten(-2).to(x.dtype)

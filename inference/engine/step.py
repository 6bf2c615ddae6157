"""One position of the Dual-AR model for a batch of rows, with as few operations as it takes.

The arithmetic is `inference.model.dual_ar`'s and is proved equal to it in the tests. What differs is layout: gate and up
projections are one matrix, queries of a key/value head are its batch of queries, rotation is one complex product.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from inference.model.dual_ar import Block, DualAR, KVCache, RMSNorm, Span


@dataclass(frozen=True)
class PackedBlock:
    """The weights of one layer as the step reads them."""

    attention_norm: RMSNorm
    wqkv: Tensor
    bias: Tensor | None
    wo: Tensor
    ffn_norm: RMSNorm
    w13: Tensor
    w2: Tensor
    n_head: int
    n_kv: int

    @staticmethod
    def pack(block: Block) -> PackedBlock:
        """Make gate and up one matrix, of which the module's own weights become views."""
        a, f = block.attention, block.feed_forward
        w13 = torch.cat((f.w1.weight, f.w3.weight))
        f.w1.weight.data, f.w3.weight.data = w13.chunk(2)
        return PackedBlock(
            block.attention_norm, a.wqkv.weight, a.wqkv.bias, a.wo.weight, block.ffn_norm, w13, f.w2.weight, a.n_head, a.n_kv
        )

    def __call__(self, x: Tensor, turn: Tensor, keys: Tensor, values: Tensor, where: Where) -> Tensor:
        """x (batch, dim); turn (batch or 1, 1, head_dim / 2) complex; keys, values (batch, kv, positions, head_dim) of this layer."""
        batch, dim = x.shape
        size = dim // self.n_head
        qkv = F.linear(_norm(x, self.attention_norm), self.wqkv, self.bias).view(batch, -1, size)
        turned = _rotate(qkv[:, : self.n_head + self.n_kv], turn)
        q, k = turned[:, : self.n_head], turned[:, self.n_head :]
        where.write(keys, k)
        where.write(values, qkv[:, self.n_head + self.n_kv :])
        q = q.reshape(batch, self.n_kv, self.n_head // self.n_kv, size)
        y = F.scaled_dot_product_attention(q, keys[:, :, : where.end], values[:, :, : where.end], attn_mask=where.mask)
        x = x + F.linear(y.reshape(batch, dim), self.wo)
        gate, up = F.linear(_norm(x, self.ffn_norm), self.w13).chunk(2, dim=-1)
        return x + F.linear(F.silu(gate) * up, self.w2)


@dataclass(frozen=True)
class Where:
    """The positions a step writes: `rows` and `positions` (batch,) int64, or one number when they are all the same.

    `mask` (batch, 1, 1, end) hides what a row has not written; None when all rows are equally long.
    """

    rows: Tensor
    positions: Tensor | int
    end: int
    mask: Tensor | None

    @staticmethod
    def after(lengths: list[int], device: torch.device) -> Where:
        """The next position of rows 0, 1, ..., which hold `lengths` already."""
        span = Span.step(lengths, device)
        rows = torch.arange(len(lengths), device=device)
        return Where(rows, lengths[0] if span.mask is None else span.positions[:, 0], span.end, span.mask)

    def write(self, cache: Tensor, new: Tensor) -> None:
        """Put new (batch, kv, head_dim) into cache (batch, kv, positions, head_dim)."""
        if isinstance(self.positions, int):
            cache[:, :, self.positions] = new
        else:
            cache[self.rows, :, self.positions] = new


class Step:
    """A model packed for decoding. Packing changes no value; the model goes on working."""

    def __init__(self, model: DualAR) -> None:
        self._model = model
        self._slow = [PackedBlock.pack(b) for b in model.layers]  # type: ignore[arg-type]
        self._fast = [PackedBlock.pack(b) for b in model.fast_layers]  # type: ignore[arg-type]
        self._turns = torch.view_as_complex(model.rope)  # (positions, head_dim / 2)
        self._fast_turns = torch.view_as_complex(model.fast_rope)

    def slow(self, columns: Tensor, cache: KVCache, lengths: list[int]) -> Tensor:
        """The next column (batch, 1 + codebooks) of rows 0, 1, ... -> hidden states before the final norm, (batch, dim)."""
        batch = len(lengths)
        where = Where.after(lengths, columns.device)
        x = self._model.embed(columns[:, :, None])[:, 0]
        turn = self._turns[where.positions].view(-1, 1, self._turns.shape[1])
        for i, block in enumerate(self._slow):
            x = block(x, turn, cache.k[i, :batch], cache.v[i, :batch], where)
        return x

    def fast(self, x: Tensor, cache: KVCache, position: int, rows: Tensor) -> Tensor:
        """One codebook position: x (batch, fast_dim) -> (batch, fast_dim)."""
        where = Where(rows, position, position + 1, None)
        turn = self._fast_turns[position].view(1, 1, -1)
        for i, block in enumerate(self._fast):
            x = block(x, turn, cache.k[i, : len(rows)], cache.v[i, : len(rows)], where)
        return x


def _norm(x: Tensor, norm: RMSNorm) -> Tensor:
    return F.rms_norm(x, norm.weight.shape, norm.weight, norm.eps)


def _rotate(x: Tensor, turn: Tensor) -> Tensor:
    """Turn interleaved pairs of x (batch, heads, head_dim) in FP32."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turn).flatten(-2).to(x.dtype)

"""One position of the Dual-AR model for a batch of rows, with as few operations as it takes.

The arithmetic is that of `inference.model.dual_ar`; the tests prove the two equal. Only the layout differs. Weights are stored as (in, out)
or rounded to 8 bits, and the gate and up projections are one matrix. The queries that share a key/value head form one batch, and a rotation
is one complex product. One pass computes the first two codebook positions, both known once the token is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inference.engine.weight_layouts import Layouts, Matrix, Weights
from inference.model.config import AlignmentHead
from inference.model.dual_ar import Block, DualAR, KVCache, RMSNorm


class Slots(NamedTuple):
    """One layer's cache in a pass: where new keys and values go, and the keys and values that attention reads.

    `keys` and `values` hold one tensor for each group of rows that attention handles at once, (group's rows * kv, 1, end, head_dim).
    Without `at`, a pass's keys and values fill `new` whole. With `at`, rows and positions (batch,) int64, they go to those places
    of `new`, (rows, 2, kv, positions, head_dim).
    """

    new: Tensor
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    at: tuple[Tensor, Tensor] | None = None

    @staticmethod
    def same(cache: KVCache, rows: int, position: int) -> list[Slots]:
        """For each layer: one new position, the same in rows 0, 1, ...; new keys and values are (batch, 2, kv, head_dim)."""
        return _slots(_columns(cache, rows, position), [_read(cache, 0, rows, position + 1)])

    @staticmethod
    def pair(cache: KVCache, rows: int) -> list[Slots]:
        """For each layer: positions 0 and 1; new keys and values are (batch, time, 2, kv, head_dim)."""
        new = cache.both[:, :, :rows, :, :2].permute(0, 2, 4, 1, 3, 5)
        return _slots(new, [_read(cache, 0, rows, 2)])

    @staticmethod
    def ragged(cache: KVCache, positions: Tensor, end: int) -> list[Slots]:
        """For each layer: one new position in each of rows 0, 1, ..., at `positions` (batch,); new keys and values are (batch, 2, kv,
        head_dim).
        """
        at = torch.arange(len(positions), device=positions.device), positions
        return _slots(cache.both.transpose(1, 2), [_read(cache, 0, len(positions), end)], at)

    @staticmethod
    def each(cache: KVCache, rows: Seq[int], lengths: list[int]) -> list[Slots]:
        """As `ragged` for any rows, but attention reads each row separately, up to its own length, so that it sums in the same order as for
        the row alone.
        """
        read = [_read(cache, row, row + 1, length + 1) for row, length in zip(rows, lengths, strict=True)]
        if min(lengths) == max(lengths) and rows == range(len(lengths)):
            return _slots(_columns(cache, len(lengths), lengths[0]), read)
        at = torch.tensor(rows), torch.tensor(lengths)
        return _slots(cache.both.transpose(1, 2), read, at)

    @staticmethod
    def run(cache: KVCache, row: int, start: int, end: int) -> list[Slots]:
        """For each layer: positions `start` to `end` of one row; new keys and values are (1, time, 2, kv, head_dim)."""
        new = cache.both[:, :, row, :, start:end].permute(0, 3, 1, 2, 4)[:, None]
        return _slots(new, [_read(cache, row, row + 1, end)])

    def flat(self) -> Slots:
        """For one batched product: keys (rows * kv, head_dim, end) and values (rows * kv, end, head_dim) of the only group."""
        return self._replace(keys=(self.keys[0][:, 0].transpose(1, 2),), values=(self.values[0][:, 0],))

    def write(self, keys_and_values: Tensor) -> None:
        """Write the new keys and values to their places."""
        if self.at is None:
            self.new.copy_(keys_and_values)
        else:
            rows, positions = self.at
            self.new[rows, :, :, positions] = keys_and_values


def _slots(new: Tensor, read: list[tuple[tuple[Tensor, ...], tuple[Tensor, ...]]], at: tuple[Tensor, Tensor] | None = None) -> list[Slots]:
    """One `Slots` for each layer, from `new` (layers, ...) and the results of `_read` for each group of rows."""
    keys, values = (zip(*parts, strict=True) for parts in zip(*read, strict=True))
    return [Slots(*layer, at) for layer in zip(new.unbind(0), keys, values, strict=True)]


def _columns(cache: KVCache, rows: int, position: int) -> Tensor:
    """One position of rows 0, 1, ..., (layers, rows, 2, kv, head_dim)."""
    return cache.both[:, :, :rows, :, position].transpose(1, 2)


def _read(cache: KVCache, first: int, last: int, end: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Keys and values of every layer and of rows `first` to `last`, up to `end`, each (rows * kv, 1, end, head_dim)."""
    merged = cache.both[:, :, first:last].flatten(2, 3)[:, :, :, None, :end]
    return merged[:, 0].unbind(0), merged[:, 1].unbind(0)


def _attend(q: Tensor, slots: Slots, mask: Tensor | None) -> Tensor:
    """Queries (batch * kv, 1, queries, head_dim) -> the same shape, each group of rows separately."""
    if len(slots.keys) == 1:
        return F.scaled_dot_product_attention(q, slots.keys[0], slots.values[0], attn_mask=mask)
    parts = zip(q.chunk(len(slots.keys)), slots.keys, slots.values, strict=True)
    return torch.cat([F.scaled_dot_product_attention(part, keys, values) for part, keys, values in parts])


def _attend_in_one(q: Tensor, slots: Slots, mask: Tensor | None) -> Tensor:
    """As `_attend`, for few keys in the form of `Slots.flat`: two batched products over all rows.

    A row's part does not depend on their number.
    """
    bias, beta = (_UNREAD, 0) if mask is None else (mask, 1)
    scores = torch.baddbmm(bias, q[:, 0], slots.keys[0], beta=beta, alpha=1 / math.sqrt(q.shape[3]))
    return torch.bmm(scores.softmax(-1), slots.values[0])


_UNREAD = torch.zeros(1)


def _pad(x: Tensor, rows: int) -> Tensor:
    """x (n, ...) with rows of zeros behind it, so that there are `rows`."""
    return x if len(x) == rows else F.pad(x, (0, 0) * (x.ndim - 1) + (0, rows - len(x)))


@dataclass(frozen=True)
class Norm:
    """RMSNorm. In FP32 as x / sqrt(||x||^2 + n eps) * sqrt(n) weight: half the operations, and for few rows half the time.

    None of these operations depends on the number of rows; torch's hypot, for example, rounds differently in vectors of eight.
    """

    norm: RMSNorm
    offset: Tensor
    gain: Tensor

    @staticmethod
    def of(norm: RMSNorm) -> Norm:
        n = len(norm.weight)
        return Norm(norm, torch.tensor(n * norm.eps, device=norm.weight.device), norm.weight * math.sqrt(n))

    def __call__(self, x: Tensor) -> Tensor:
        """x (rows, n) -> the same."""
        if x.dtype == torch.float32:
            length = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().add_(self.offset).sqrt_()
            return (x / length).mul_(self.gain)
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

    attend: Callable[[Tensor, Slots, Tensor | None], Tensor]

    @staticmethod
    def pack(block: Block, layouts: Layouts, few_keys: bool = False) -> PackedBlock:
        """Pack the layer's weights in the layouts that `layouts` chooses."""
        a, f = block.attention, block.feed_forward
        wqkv, wo, w13, w2 = (layouts.lay_out(*linears) for linears in ((a.wqkv,), (a.wo,), (f.w1, f.w3), (f.w2,)))
        attend = _attend_in_one if few_keys else _attend
        return PackedBlock(Norm.of(block.attention_norm), wqkv, wo, Norm.of(block.ffn_norm), w13, w2, a.n_head, a.n_kv, attend)

    def __call__(self, x: Tensor, turn: Tensor, slots: Slots, mask: Tensor | None = None, rows: int = 1, time: int = 1) -> Tensor:
        """x (batch * time or more, dim), the positions of a row adjacent, padding at the end -> the same shape.

        turn (batch * time or 1, 1, head_dim / 2) complex. `mask` (broadcast over batch * kv, 1, queries, end) is added to the scores, or is
        True where a key may be seen; None when every key may be seen.
        """
        n_head, n_kv, size = self.n_head, self.n_kv, slots.values[0].shape[-1]
        qkv = self.wqkv.times(self.attention_norm(x)).view(-1, n_head + 2 * n_kv, size)
        qkv = qkv if len(qkv) == rows * time else qkv[: rows * time]
        _rotate(qkv.narrow(1, 0, n_head + n_kv), turn)
        q, kv = qkv.split((n_head, 2 * n_kv), dim=1)
        # All queries of a kv head, for one position or several, form one batch of queries.
        if time == 1:
            slots.write(kv.view(-1, 2, n_kv, size))
            y = self.attend(q.reshape(-1, 1, n_head // n_kv, size), slots, mask)
        else:
            slots.write(kv.view(-1, time, 2, n_kv, size))
            q = q.view(-1, time, n_kv, n_head // n_kv, size).transpose(1, 2).reshape(-1, 1, time * n_head // n_kv, size)
            y = self.attend(q, slots, mask).view(-1, n_kv, time, n_head // n_kv, size).transpose(1, 2)
        return self.feed_forward(self.wo.added(x, _pad(y.reshape(rows * time, -1), len(x))))

    def attention_to(
        self, x: Tensor, turn: Tensor, keys: Tensor, values: Tensor, unseen: Tensor, *, goes_on: bool
    ) -> tuple[Tensor, Tensor]:
        """Positions x (time, dim) whose keys and values are there already: `keys`, `values` (kv, end, head_dim) are all up to them.

        Returns x after the layer, if that `goes_on`, and the weights (n_head, time, end) FP32; `unseen` (time, end) is True where they are 0.
        """
        (n_kv, end, size), time = keys.shape, len(x)
        qkv = self.wqkv.times(self.attention_norm(x)).view(time, -1, size)
        q = qkv[:, : self.n_head].contiguous()
        _rotate(q, turn)
        q = q.transpose(0, 1).reshape(n_kv, -1, size)
        scores = (q.float() @ keys.float().mT).view(self.n_head, time, end).div_(math.sqrt(size))
        weights = scores.masked_fill_(unseen, -torch.inf).softmax(-1)
        if goes_on:
            y = (weights.to(x.dtype).view(n_kv, -1, end) @ values).view(self.n_head, time, size).transpose(0, 1)
            x = self.feed_forward(self.wo.added(x, y.reshape(time, -1)))
        return x, weights

    def feed_forward(self, x: Tensor) -> Tensor:
        """The second half of the layer, x (rows, dim) -> the same shape."""
        gate, up = self.w13.times(self.ffn_norm(x)).chunk(2, dim=-1)
        return self.w2.added(x, F.silu(gate, inplace=True).mul_(up))


@dataclass(frozen=True)
class Head:
    """The ids that may be sampled: token `ids` (n,), scored by the matrix `tokens`, and the codes 0..`codes` - 1 of later codebooks,
    scored by the matrix `scores`.
    """

    ids: Tensor
    tokens: Matrix
    codes: int
    scores: Matrix


class Step:
    """A model packed for decoding up to `rows` rows, with the cache of its fast layers. Packing changes none of the model's values,
    but that 8-bit weights on CUDA are the model's own from then on.

    On a CPU (`exact`) a row gets the same bits alone and in a batch: `layouts` ensures it for products, and attention reads each row separately.
    """

    def __init__(self, model: DualAR, rows: int, weights: Weights = "native") -> None:
        self.model, self.codebooks = model, model.config.num_codebooks
        like = model.embeddings.weight
        self.exact = like.device.type == "cpu" and like.dtype == torch.float32
        self.layouts = layouts = Layouts(weights, 2 * rows)  # two positions of each row are one pass
        self.heads = Layouts("native", rows)  # rounded logits would tie, and draws go by rank
        self.slow_blocks = [PackedBlock.pack(b, layouts) for b in model.layers if isinstance(b, Block)]
        self.fast_blocks = [PackedBlock.pack(b, layouts, few_keys=self.exact) for b in model.fast_layers if isinstance(b, Block)]
        project = model.fast_project_in
        self.project = layouts.lay_out(project) if isinstance(project, nn.Linear) else None
        self._norm, self._fast_norm = Norm.of(model.norm), Norm.of(model.fast_norm)
        self._fast_cache = model.new_fast_cache(self._frame_rows(rows))
        self._fast_slots: dict[tuple[int, int], list[Slots]] = {}  # by rows and position: they are the same in every frame
        self._fast_embeddings = model.fast_embeddings.weight
        self._turns = torch.view_as_complex(model.rope)  # (positions, head_dim / 2)
        self._fast_turns = torch.view_as_complex(model.fast_rope)
        per_kv = model.config.fast_n_head // model.config.fast_n_local_heads
        later = torch.tensor([[0.0, -torch.inf], [0.0, 0.0]], device=model.rope.device, dtype=self._fast_embeddings.dtype)
        self._pair_mask = later.repeat_interleave(per_kv, dim=0)  # queries of position 0, then of position 1

    def slow(self, columns: Tensor, cache: KVCache, lengths: list[int], rows: Seq[int] | None = None) -> Tensor:
        """The next column (batch, 1 + codebooks) of rows 0, 1, ... -> hidden states before the final norm, (batch, dim).

        `rows` are other rows of the cache; only an `exact` step can leave some out.
        """
        if self.exact:
            turn = self._turns[torch.tensor(lengths)]
            return self._slow_layers(columns, turn, Slots.each(cache, rows or range(len(lengths)), lengths), None)
        if min(lengths) != max(lengths):
            return self.slow_at(columns, cache, torch.tensor(lengths, device=columns.device), max(lengths) + 1)
        return self._slow_layers(columns, self._turns[lengths[0]], Slots.same(cache, len(lengths), lengths[0]), None)

    def slow_at(self, columns: Tensor, cache: KVCache, positions: Tensor, end: int) -> Tensor:
        """As `slow`, for rows that hold `positions` (batch,) int64, all less than `end`; reads nothing back from the device."""
        rows, kv_heads = len(positions), cache.k.shape[2]
        seen = torch.arange(end, device=positions.device) <= positions[:, None]
        mask = seen[:, None].expand(rows, kv_heads, end).reshape(rows * kv_heads, 1, 1, end)
        return self._slow_layers(columns, self._turns[positions], Slots.ragged(cache, positions, end), mask)

    def prompt(self, columns: Tensor, cache: KVCache, row: int, start: int) -> Tensor:
        """New columns (1, 1 + codebooks, time) of one row that holds `start` positions -> hidden states before the final norm, (1, time, dim).

        It takes a third of the model's operations, which matters where launching an operation takes longer than running it.
        """
        end = start + columns.shape[2]
        seen = torch.arange(end, device=columns.device) <= torch.arange(start, end, device=columns.device)[:, None]
        mask = seen.repeat_interleave(self.model.config.n_head // self.model.config.n_local_heads, dim=0)
        x, turn = self.model.embed(columns)[0], self._turns[start:end, None]
        for block, slots in zip(self.slow_blocks, Slots.run(cache, row, start, end), strict=True):
            x = block(x, turn, slots, mask, time=end - start)
        return x[None]

    def text_attention(self, columns: Tensor, cache: KVCache, row: int, start: int, text: range, heads: Seq[AlignmentHead]) -> Tensor:
        """As `inference.model.alignment.text_attention`, on a CPU in half its time; `columns` (1 + codebooks, frames) stand from `start` on."""
        time, last = columns.shape[1], max(layer for layer, _ in heads)
        end = start + time
        unseen = torch.arange(end, device=columns.device) > torch.arange(start, end, device=columns.device)[:, None]
        x, turn = self.model.embed(columns[None])[0], self._turns[start:end, None]
        found: dict[AlignmentHead, Tensor] = {}
        for number, block in enumerate(self.slow_blocks[: last + 1]):
            keys, values = cache.k[number, row, :, :end], cache.v[number, row, :, :end]
            x, weights = block.attention_to(x, turn, keys, values, unseen, goes_on=number < last)
            found |= {head: weights[head.head, :, text.start : text.stop] for head in heads if head.layer == number}
        return torch.stack([found[head] for head in heads])

    def _slow_layers(self, columns: Tensor, turn: Tensor, layers: list[Slots], mask: Tensor | None) -> Tensor:
        rows = len(columns)
        x, turn = self._padded(self.model.embed(columns[:, :, None])[:, 0]), turn.view(-1, 1, self._turns.shape[1])
        for block, slots in zip(self.slow_blocks, layers, strict=True):
            x = block(x, turn, slots, mask, rows)
        return x[:rows]

    def _padded(self, x: Tensor) -> Tensor:
        return _pad(x, self.layouts.padded(len(x)))

    def frame(self, hidden: Tensor, head: Head, pick: Callable[[int, Tensor], Tensor]) -> Tensor:
        """Generate a frame for each row from slow hidden states (batch, dim): (batch, 1 + codebooks + 2) int64.

        A frame holds the token, its codes, the token's index in the head's ids, and whether all states were finite. `pick` chooses from
        the logits (batch, ids) of the nth draw: draw 0 is the token's, draw n is codebook n's.
        """
        config, rows = self.model.config, len(hidden)
        size = self._frame_rows(rows)
        choices = pick(0, self.token_logits(hidden, head.tokens))
        tokens = head.ids[choices]
        # The reference implementation fails when a token past the code tables is drawn; we take the last code.
        codes = [(tokens - self.model.semantic_begin).clamp(0, config.codebook_size - 1)]
        states = []
        for i in range(1, config.num_codebooks):
            code = _pad(codes[-1], size)
            x = self.fast_pair(_pad(self.projected(hidden), size), code) if i == 1 else self.fast(code, i)
            states.append(x)
            codes.append(pick(i, self.code_logits(x, head.scores)[:rows]))
        healthy = torch.cat((hidden, *(x[:rows] for x in states)), dim=1).float().sum(-1).isfinite()
        return torch.stack((tokens, *codes, choices, healthy.long()), dim=1)

    def _frame_rows(self, rows: int) -> int:
        """The number of rows to which the fast layers' passes are padded; their first pass has two positions of each row."""
        while self.layouts.padded(rows) != rows or self.layouts.padded(2 * rows) != 2 * rows:
            rows += 1
        return rows

    def projected(self, hidden: Tensor) -> Tensor:
        """Slow hidden states (batch, dim) as the fast layers take them, (batch, fast_dim)."""
        return hidden if self.project is None else self.project.times(self._padded(hidden))[: len(hidden)]

    def fast_pair(self, hidden: Tensor, code: Tensor) -> Tensor:
        """Run codebook positions 0, hidden (batch, fast_dim), and 1, code (batch,), in one pass -> the state of position 1, (batch,
        fast_dim).
        """
        rows = len(code)
        x = torch.stack((hidden, self._fast_embeddings.index_select(0, code)), dim=1).flatten(0, 1)
        turn = self._fast_turns[:2, None].repeat(rows, 1, 1)
        for block, slots in zip(self.fast_blocks, self._slots_of(rows, 1), strict=True):
            x = block(x, turn, slots, self._pair_mask, rows, time=2)
        return x[1::2]

    def fast(self, code: Tensor, position: int) -> Tensor:
        """Run one later codebook position: code (batch,) -> (batch, fast_dim)."""
        rows = len(code)
        x, turn = self._fast_embeddings.index_select(0, code), self._fast_turns[position].view(1, 1, -1)
        for block, slots in zip(self.fast_blocks, self._slots_of(rows, position), strict=True):
            x = block(x, turn, slots, None, rows)
        return x

    def _slots_of(self, rows: int, position: int) -> list[Slots]:
        """The fast layers' slots for a position: position 1 means the pair 0 and 1."""
        if (rows, position) not in self._fast_slots:
            slots = Slots.pair(self._fast_cache, rows) if position == 1 else Slots.same(self._fast_cache, rows, position)
            self._fast_slots[rows, position] = [layer.flat() for layer in slots] if self.exact else slots
        return self._fast_slots[rows, position]

    def token_logits(self, hidden: Tensor, head: Matrix) -> Tensor:
        """FP32 logits (batch, ids) of slow hidden states (batch, dim)."""
        return self._logits(self._norm(hidden).float(), head)

    def code_logits(self, x: Tensor, head: Matrix) -> Tensor:
        """FP32 logits (batch, codes) of fast states (batch, fast_dim)."""
        return self._logits(self._fast_norm(x).float(), head)

    def _logits(self, x: Tensor, head: Matrix) -> Tensor:
        padded = _pad(x, self.heads.padded(len(x)))
        return head.times(padded)[: len(x)]


def _rotate(heads: Tensor, turn: Tensor) -> None:
    """Rotate interleaved pairs of heads (rows, heads, head_dim) in place, in FP32."""
    if heads.dtype == torch.float32:
        heads.view(torch.complex64).mul_(turn)
    else:
        heads.copy_(torch.view_as_real(heads.float().view(torch.complex64) * turn).flatten(-2))

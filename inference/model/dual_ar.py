"""The Dual-AR transformer of FishSpeech 1.5: a slow model over time, a fast one over a frame's codebooks.

Plain PyTorch with the official parameter names. It knows nothing of requests, sampling or audio.
A *column* is one position of the sequence: a token id and, under it, `num_codebooks` codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from inference.model.config import SEMANTIC_TOKENS, DualARConfig


class KVCache:
    """Keys and values of every layer for a fixed number of rows, allocated once.

    `both` is (layers, 2, rows, kv_heads, positions, head_dim); `k` and `v`, without the 2, are views of it. Zeroed, not merely
    allocated: attention masks unwritten positions with weight 0, and 0 x NaN would still be NaN.
    """

    def __init__(
        self, layers: int, rows: int, kv_heads: int, positions: int, head_dim: int, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.both = torch.zeros((layers, 2, rows, kv_heads, positions, head_dim), dtype=dtype, device=device)
        self.k, self.v = self.both.unbind(1)

    @property
    def rows(self) -> int:
        return self.k.shape[1]

    @property
    def positions(self) -> int:
        return self.k.shape[3]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of one row over another's."""
        self.both[:, :, target, :, :length] = self.both[:, :, source, :, :length]

    def clear(self, row: int) -> None:
        """Forget a row whose values may be non-finite."""
        self.both[:, :, row].zero_()


@dataclass(frozen=True)
class Span:
    """Where new positions go: rows `first_row ...` of the cache, `positions` (batch, time) int64.

    Queries read the cache up to `end`; `mask` (batch, 1, time, end) is True where a key may be seen,
    None when every key before `end` may (or, for a prompt from position 0, when it is plainly causal).
    """

    first_row: int
    positions: Tensor
    end: int
    mask: Tensor | None
    causal: bool = False

    @staticmethod
    def prompt(row: int, start: int, time: int, device: torch.device) -> Span:
        """`time` new positions of one row, the first of them at `start`."""
        positions = torch.arange(start, start + time, device=device)[None]
        if start == 0 or time == 1:
            return Span(row, positions, start + time, None, causal=start == 0 and time > 1)
        return Span(row, positions, start + time, _visible(positions, start + time))

    @staticmethod
    def step(lengths: list[int], device: torch.device) -> Span:
        """One new position for each of rows 0, 1, ...; `lengths` are the numbers of positions that they already hold."""
        positions = torch.tensor(lengths, device=device)[:, None]
        end = max(lengths) + 1
        uniform = min(lengths) + 1 == end
        return Span(0, positions, end, None if uniform else _visible(positions, end))


def _visible(positions: Tensor, end: int) -> Tensor:
    keys = torch.arange(end, device=positions.device)
    return (keys <= positions[:, :, None])[:, None]  # (batch, 1, time, end)


class RMSNorm(nn.Module):
    """x * rsqrt(mean(x^2) + eps) in FP32, cast back, then scaled (arXiv:1910.07467)."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps)
        return y.to(x.dtype) * self.weight


class Attention(nn.Module):
    """Grouped-query attention (arXiv:2305.13245); query head j reads kv head j // (n_head / n_kv)."""

    def __init__(self, dim: int, n_head: int, n_kv: int, bias: bool) -> None:
        super().__init__()
        self.n_head, self.n_kv, self.head_dim = n_head, n_kv, dim // n_head
        self.wqkv = nn.Linear(dim, (n_head + 2 * n_kv) * self.head_dim, bias=bias)
        self.wo = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, rope: Tensor, layer: int, cache: KVCache | None, span: Span | None) -> Tensor:
        """x (batch, time, dim). Without a cache the sequence is whole and causal."""
        batch, time, dim = x.shape
        qkv = self.wqkv(x).view(batch, time, self.n_head + 2 * self.n_kv, self.head_dim)
        q, k, v = qkv.split((self.n_head, self.n_kv, self.n_kv), dim=2)
        q, k = apply_rope(q, rope), apply_rope(k, rope)
        if cache is None or span is None:
            k, v = k.transpose(1, 2), v.transpose(1, 2)
            mask, causal = None, True
        else:
            k, v = self.update_kv(k, v, layer, cache, span)
            mask, causal = span.mask, span.causal
        y = F.scaled_dot_product_attention(q.transpose(1, 2), k, v, attn_mask=mask, is_causal=causal, enable_gqa=True)
        return self.wo(y.transpose(1, 2).reshape(batch, time, dim))

    @staticmethod
    def update_kv(k: Tensor, v: Tensor, layer: int, cache: KVCache, span: Span) -> tuple[Tensor, Tensor]:
        """Write the new keys and values; return all that is written, (batch, kv_heads, end, head_dim)."""
        rows = slice(span.first_row, span.first_row + k.shape[0])
        batch = torch.arange(k.shape[0], device=k.device)[:, None]
        keys, values = cache.k[layer, rows], cache.v[layer, rows]
        keys[batch, :, span.positions] = k
        values[batch, :, span.positions] = v
        return keys[:, :, : span.end], values[:, :, : span.end]


class FeedForward(nn.Module):
    """SwiGLU (arXiv:2002.05202)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(dim, hidden, bias=False)
        self.w3 = nn.Linear(dim, hidden, bias=False)
        self.w2 = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, dim: int, n_head: int, n_kv: int, hidden: int, eps: float, bias: bool) -> None:
        super().__init__()
        self.attention = Attention(dim, n_head, n_kv, bias)
        self.feed_forward = FeedForward(dim, hidden)
        self.ffn_norm = RMSNorm(dim, eps)
        self.attention_norm = RMSNorm(dim, eps)

    def forward(self, x: Tensor, rope: Tensor, layer: int, cache: KVCache | None, span: Span | None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), rope, layer, cache, span)
        return x + self.feed_forward(self.ffn_norm(x))


class WithoutInitialisation(TorchFunctionMode):
    """Skips torch.nn.init. On the meta device its normal_ imports torch._dynamo: 2 s and 140 MB in each process that loads a checkpoint."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        return kwargs["tensor"] if getattr(function, "__module__", None) == "torch.nn.init" else function(*args, **kwargs)


class DualAR(nn.Module):
    """The language model. `semantic_begin` is the tokenizer's id of `<|semantic:0|>`."""

    rope: Tensor
    fast_rope: Tensor
    code_offsets: Tensor

    @classmethod
    def without_values(cls, config: DualARConfig, semantic_begin: int) -> DualAR:
        """A model on the meta device; the caller assigns its tensors."""
        with torch.device("meta"), WithoutInitialisation():
            return cls(config, semantic_begin)

    def __init__(self, config: DualARConfig, semantic_begin: int) -> None:
        super().__init__()
        c = config
        self.config, self.semantic_begin = c, semantic_begin
        self.embeddings = nn.Embedding(c.vocab_size, c.dim)
        self.codebook_embeddings = nn.Embedding(c.codebook_size * c.num_codebooks, c.dim)
        self.layers = nn.ModuleList(
            Block(c.dim, c.n_head, c.n_local_heads, c.intermediate_size, c.norm_eps, c.attention_qkv_bias) for _ in range(c.n_layer)
        )
        self.norm = RMSNorm(c.dim, c.norm_eps)
        self.output = None if c.tie_word_embeddings else nn.Linear(c.dim, c.vocab_size, bias=False)
        self.fast_project_in = nn.Identity() if c.fast_dim == c.dim else nn.Linear(c.dim, c.fast_dim)
        self.fast_embeddings = nn.Embedding(c.codebook_size, c.fast_dim)
        self.fast_layers = nn.ModuleList(
            Block(c.fast_dim, c.fast_n_head, c.fast_n_local_heads, c.fast_intermediate_size, c.norm_eps, c.fast_attention_qkv_bias)
            for _ in range(c.n_fast_layer)
        )
        self.fast_norm = RMSNorm(c.fast_dim, c.norm_eps)
        self.fast_output = nn.Linear(c.fast_dim, c.codebook_size, bias=False)
        offsets = torch.arange(c.num_codebooks, device="cpu") * (c.codebook_size if c.share_codebook_embeddings else 0)
        self.register_buffer("code_offsets", offsets, persistent=False)
        self.register_buffer("rope", rope_table(c.max_seq_len, c.head_dim, c.rope_base), persistent=False)
        self.register_buffer("fast_rope", rope_table(c.num_codebooks, c.fast_head_dim, c.rope_base), persistent=False)

    @property
    def output_weight(self) -> Tensor:
        """(vocab_size, dim) of the slow head."""
        return self.embeddings.weight if self.output is None else self.output.weight

    def new_cache(self, rows: int, positions: int) -> KVCache:
        """A cache for the slow layers of `rows` sequences of up to `positions` columns."""
        c, w = self.config, self.embeddings.weight
        return KVCache(c.n_layer, rows, c.n_local_heads, positions, c.head_dim, dtype=w.dtype, device=w.device)

    def new_fast_cache(self, rows: int) -> KVCache:
        """A cache for the fast layers of `rows` frames; a frame overwrites the last one's."""
        c, w = self.config, self.embeddings.weight
        return KVCache(c.n_fast_layer, rows, c.fast_n_local_heads, c.num_codebooks, c.fast_head_dim, dtype=w.dtype, device=w.device)

    def embed(self, columns: Tensor) -> Tensor:
        """(batch, 1 + codebooks, time) int -> (batch, time, dim). Codes count only under a semantic token."""
        tokens, codes = columns[:, 0], columns[:, 1:]
        semantic = (tokens >= self.semantic_begin) & (tokens < self.semantic_begin + SEMANTIC_TOKENS)
        codes = codes.clamp(max=self.config.codebook_size - 1) + self.code_offsets[:, None]
        spoken = self.codebook_embeddings(codes).sum(1)
        return self.embeddings(tokens) + spoken.masked_fill(~semantic[..., None], 0)

    def slow(self, columns: Tensor, cache: KVCache | None = None, span: Span | None = None) -> Tensor:
        """Run the slow layers over new columns (batch, 1 + codebooks, time).

        Returns the hidden state *before* the final norm, (batch, time, dim), which is the fast model's input.
        """
        x = self.embed(columns)
        rope = self.rope[: x.shape[1]] if span is None else self.rope[span.positions]
        for i, layer in enumerate(self.layers):
            x = layer(x, rope, i, cache, span)
        return x

    def token_logits(self, hidden: Tensor) -> Tensor:
        """FP32 logits of hidden states (..., dim) over the vocabulary."""
        return F.linear(self.norm(hidden).float(), self.output_weight.float())

    def fast(self, x: Tensor, cache: KVCache, position: int) -> Tensor:
        """One codebook position of the fast model for rows 0..batch-1: x (batch, fast_dim) -> (batch, fast_dim)."""
        positions = torch.full((x.shape[0], 1), position, device=x.device)
        span = Span(0, positions, position + 1, None)
        return self._fast_layers(x[:, None], self.fast_rope[position : position + 1], cache, span)[:, 0]

    def code_logits(self, x: Tensor) -> Tensor:
        """FP32 logits of fast hidden states (..., fast_dim) over all codes."""
        return F.linear(self.fast_norm(x).float(), self.fast_output.weight.float())

    def forward(self, columns: Tensor, next_codes: Tensor) -> tuple[Tensor, Tensor]:
        """Teacher-forced pass over whole sequences, for training and for tests.

        columns (batch, 1 + codebooks, time); next_codes (batch, codebooks, time) are the codes of column t + 1.
        Returns logits of the next token (batch, time, vocab_size) and of its codes
        (batch, time, codebooks, codebook_size); codebook 0 of the latter is unused at inference.
        """
        hidden = self.slow(columns)
        codes = self.fast_embeddings(next_codes[:, :-1]).permute(0, 2, 1, 3)  # (batch, time, codebooks - 1, fast_dim)
        x = torch.cat((self.fast_project_in(hidden)[:, :, None], codes), dim=2)
        x = self._fast_layers(x.flatten(0, 1), self.fast_rope, None, None)
        return self.token_logits(hidden), self.code_logits(x).unflatten(0, hidden.shape[:2])

    def _fast_layers(self, x: Tensor, rope: Tensor, cache: KVCache | None, span: Span | None) -> Tensor:
        for i, layer in enumerate(self.fast_layers):
            x = layer(x, rope, i, cache, span)
        return x


def rope_table(positions: int, head_dim: int, base: float) -> Tensor:
    """cos and sin of pos * base^(-2i / head_dim), (positions, head_dim / 2, 2) FP32 (arXiv:2104.09864).

    Rounded to BF16, as in the released model's training: exact tables change greedy results.
    """
    device = torch.device("cpu")
    freqs = 1.0 / base ** (torch.arange(0, head_dim, 2, device=device).float() / head_dim)
    angles = torch.outer(torch.arange(positions, device=device).float(), freqs)
    return torch.stack((angles.cos(), angles.sin()), dim=-1).to(torch.bfloat16).float()


def apply_rope(x: Tensor, rope: Tensor) -> Tensor:
    """Rotate interleaved pairs (2i, 2i + 1) of x (batch, time, heads, head_dim); rope (batch?, time, head_dim / 2, 2)."""
    pairs = x.float().unflatten(-1, (-1, 2))
    a, b = pairs.unbind(-1)
    cos, sin = rope.unsqueeze(-3).unbind(-1)
    return torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2).to(x.dtype)

"""The decode step in few CUDA kernels: computes the same as `inference.engine.decode_step`.

Up to `NARROW` rows, a layer takes five kernels; beyond that, the library multiplies the matrices. A step reads nothing back and allocates
nothing. It takes row lengths only from `numbers`, so one graph serves every length.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from inference.engine import kernels
from inference.engine.attention_kernels import Attention
from inference.engine.decode_step import Head, PackedBlock, Step
from inference.engine.device import FastLayerKernels
from inference.engine.fast_layers_kernels import FastLayers
from inference.engine.launching import NARROW
from inference.engine.weight_layouts import Dense, Int8Gpu, Matrix
from inference.model.config import SEMANTIC_TOKENS
from inference.model.dual_ar import Block, DualAR, KVCache


class Weight(NamedTuple):
    """A weight (out, in): as the library multiplies it, and as our kernels do. That is the same, or its 8 bits with their `scale`."""

    whole: Tensor
    ours: Tensor
    scale: Tensor | None

    @staticmethod
    def of(matrix: Matrix, *linears: nn.Linear) -> Weight:
        """The linear layers' weights concatenated; taken from `matrix` where it holds them in this form."""
        whole = matrix.weight.t().contiguous() if isinstance(matrix, Dense) else torch.cat([linear.weight for linear in linears])
        return Weight(whole, matrix.rounded, matrix.scale) if isinstance(matrix, Int8Gpu) else Weight(whole, whole, None)


@dataclass(frozen=True)
class Layer:
    """A layer's norms (gain, eps) and weights."""

    before: tuple[Tensor, float]
    wqkv: Weight
    bias: Tensor | None
    wo: Weight
    after: tuple[Tensor, float]
    w13: Weight
    w2: Weight

    @staticmethod
    def of(packed: PackedBlock, block: Block) -> Layer:
        """Take the step's own weights. On CUDA they already have the layout needed here, so nothing is stored twice."""
        before, after = ((norm.norm.weight, norm.norm.eps) for norm in (packed.attention_norm, packed.ffn_norm))
        a, f = block.attention, block.feed_forward
        wqkv, wo, w2 = Weight.of(packed.wqkv, a.wqkv), Weight.of(packed.wo, a.wo), Weight.of(packed.w2, f.w2)
        return Layer(before, wqkv, a.wqkv.bias, wo, after, Weight.of(packed.w13, f.w1, f.w3), w2)

    @staticmethod
    def slow(step: Step) -> list[Layer]:
        """The slow layers of a step."""
        return _layers(step.slow_blocks, step.model.layers)

    @staticmethod
    def fast(step: Step) -> list[Layer]:
        """The fast layers of a step."""
        return _layers(step.fast_blocks, step.model.fast_layers)


def _layers(blocks: list[PackedBlock], layers: nn.ModuleList) -> list[Layer]:
    return [Layer.of(packed, block) for packed, block in zip(blocks, layers, strict=True) if isinstance(block, Block)]


def embed(model: DualAR, columns: Tensor, x: Tensor) -> None:
    """Embed the column (1 + codebooks,) at the start of each row of `columns` (rows, ...) int64: x (rows, dim)."""
    c, begin = model.config, model.semantic_begin
    kernels.embed(
        columns, model.embeddings.weight, model.codebook_embeddings.weight, x, codebooks=c.num_codebooks,
        semantic=(begin, begin + SEMANTIC_TOKENS), code_size=c.codebook_size, code_step=c.codebook_size if c.share_codebook_embeddings else 0,
    )  # fmt: skip


def widest(model: DualAR) -> int:
    """The most values that a layer computes for a row at a time."""
    c = model.config
    return max(
        c.dim, (c.n_head + 2 * c.n_local_heads) * c.head_dim, 2 * c.intermediate_size,
        c.fast_dim, (c.fast_n_head + 2 * c.fast_n_local_heads) * c.fast_head_dim, 2 * c.fast_intermediate_size,
    )  # fmt: skip


class LayerBuffers:
    """Runs a model's layers over up to `rows` rows, in buffers that every run overwrites."""

    def __init__(self, model: DualAR, rows: int) -> None:
        like = model.embeddings.weight
        self._normed, self._qkv, self._y, self._both, self._h = (like.new_zeros(rows * widest(model)) for _ in range(5))

    def run(self, layer: Layer, x: Tensor, attend: Callable[..., None], attend_and_add: Callable[..., None] | None = None) -> None:
        """One layer over x (rows, dim), in place. `attend` takes qkv and out; where there is `attend_and_add`, it takes qkv, the output's weight
        and its scale, and x.
        """
        rows, dim = x.shape
        (wqkv, our_wqkv, wqkv_scale), (wo, our_wo, wo_scale) = layer.wqkv, layer.wo
        (w13, our_w13, w13_scale), (w2, our_w2, w2_scale) = layer.w13, layer.w2
        qkv, both = _part(self._qkv, rows, len(wqkv)), _part(self._both, rows, len(w13))
        y, h, normed = (_part(buffer, rows, width) for buffer, width in ((self._y, dim), (self._h, len(w13) // 2), (self._normed, dim)))
        if rows <= NARROW:
            kernels.linear(x, our_wqkv, qkv, scale=wqkv_scale, bias=layer.bias, norm=layer.before)
            if attend_and_add:
                attend_and_add(qkv=qkv, weight=our_wo, scale=wo_scale, x=x)
            else:
                attend(qkv=qkv, out=y)
                kernels.linear(y, our_wo, x, scale=wo_scale, add=x)
            kernels.linear(x, our_w13, h, scale=w13_scale, norm=layer.after, gated=True)
            kernels.linear(h, our_w2, x, scale=w2_scale, add=x)
            return
        kernels.norm(x, *layer.before, normed)
        torch.mm(normed, wqkv.t(), out=qkv) if layer.bias is None else torch.addmm(layer.bias, normed, wqkv.t(), out=qkv)
        attend(qkv=qkv, out=y)
        x.addmm_(y, wo.t())
        kernels.norm(x, *layer.after, normed)
        torch.mm(normed, w13.t(), out=both)
        kernels.gate(both, h)
        x.addmm_(h, w2.t())


class FusedStep:
    """`step` for frames of up to `rows` rows, drawing from the ids of `head`. Every frame overwrites its buffers.

    With `fast_layers` "persistent" frames of one row take `FastLayers` behind the first pass over the fast layers.
    """

    def __init__(self, step: Step, head: Head, rows: int, window: int, fast_layers: FastLayerKernels = "separate") -> None:
        model = step.model
        c, like, most = model.config, model.embeddings.weight, 2 * rows * widest(model)
        self._model, self._window, self._ids = model, window, head.ids
        self._token_head = model.output_weight[head.ids].contiguous()
        self._code_head = model.fast_output.weight[: head.codes].contiguous()
        self._slow, self._fast = Layer.slow(step), Layer.fast(step)
        project = model.fast_project_in
        self._project = (Weight.of(step.project, project), project.bias) if isinstance(project, nn.Linear) and step.project else None
        self._fast_cache = model.new_fast_cache(rows).both
        self._slow_attention = Attention(rows, c.n_head, c.n_local_heads, c.head_dim, like.device)
        self._fast_attention = Attention(rows, c.fast_n_head, c.fast_n_local_heads, c.fast_head_dim, like.device)
        self._in_one = None
        if fast_layers == "persistent":
            norm = model.fast_norm.weight, model.fast_norm.eps
            self._in_one = FastLayers(self._fast, norm, self._code_head, self._fast_cache, model.fast_rope, c.fast_n_head)
        # Two rows for each sequence, for the pass over two codebook positions.
        self._buffers = LayerBuffers(model, 2 * rows)
        self._x, self._fast_x, self._hidden = (like.new_zeros(most) for _ in range(3))
        self._logits = torch.zeros(rows * len(head.ids), dtype=torch.float32, device=like.device)

    @torch.inference_mode()
    def frame(self, numbers: Tensor, sampling: Tensor, active: Tensor, cache: KVCache, frames: Tensor) -> None:
        """Write the next frame of cache rows 0, 1, ... into frames (rows, 1 + codebooks + 2) int64, in the format of
        `inference.engine.decode_step.Step.frame`.

        numbers (rows, ...) int64 and sampling (rows, 3) FP32 are as `inference.engine.graphs.Graphs` keeps them. `active` (1,) int32 is a
        number of rows: the first `active` rows advance, and the others stay as they are.
        """
        c, model, rows = self._model.config, self._model, len(frames)
        codebooks, begin = c.num_codebooks, self._model.semantic_begin
        x = _part(self._x, rows, c.dim)
        slow, fast = (
            partial(attention, numbers=numbers, length_at=codebooks + 1, active=active)
            for attention in (self._slow_attention, self._fast_attention)
        )
        embed(model, numbers, x)
        for layer, kv in zip(self._slow, cache.both, strict=True):
            self._buffers.run(layer, x, partial(slow, cache=kv, turns=model.rope))
        logits = _part(self._logits, rows, len(self._ids))
        kernels.linear(x, self._token_head, logits, norm=(model.norm.weight, model.norm.eps))
        hidden = x
        if self._project is not None:
            hidden = _part(self._hidden, rows, c.fast_dim)
            weight, bias = self._project
            kernels.linear(x, weight.ours, hidden, scale=weight.scale, bias=bias)
        for n in range(codebooks):
            time = 2 if n == 0 else 1  # positions 0 (the hidden state) and 1 (the first code) are known together
            x = _part(self._fast_x, rows * time, c.fast_dim)
            kernels.draw(
                n, logits, numbers, sampling, hidden, frames, self._ids, model.fast_embeddings.weight, x, active,
                codebooks=codebooks, window=self._window, semantic_begin=begin, code_size=c.codebook_size,
            )  # fmt: skip
            if n == codebooks - 1:
                break
            logits = _part(self._logits, rows, len(self._code_head))
            if self._in_one is not None and len(x) == 1:
                self._in_one(x, n + 1, logits)
                continue
            for layer, kv in zip(self._fast, self._fast_cache, strict=True):
                attend = partial(fast, cache=kv, turns=model.fast_rope, time=time, position=n + 1 if n else 0)
                add = partial(self._fast_attention.add, cache=kv, turns=model.fast_rope, position=n + 1)
                self._buffers.run(layer, x, attend, add if len(x) == 1 else None)
            kernels.linear(x[time - 1 :: time], self._code_head, logits, norm=(model.fast_norm.weight, model.fast_norm.eps))


def _part(buffer: Tensor, rows: int, width: int) -> Tensor:
    return buffer[: rows * width].view(rows, width)

"""A pass over several prompts in few CUDA kernels, with the results of the eager step for each.

The eager one is `inference.engine.decode_step.Step.prompt`.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from inference.engine import prefill_kernels
from inference.engine.cuda_decode_step import Layer, LayerBuffers, embed
from inference.engine.decode_step import Step
from inference.model.dual_ar import KVCache


class FusedPrefill:
    """The slow layers of `step` over up to `columns` columns. Every pass overwrites its buffers."""

    def __init__(self, step: Step, columns: int) -> None:
        self._model = step.model
        self._layers = Layer.slow(step)
        self._buffers = LayerBuffers(step.model, columns)

    @torch.inference_mode()
    def run(self, columns: Tensor, blocks: Tensor, cache: KVCache, hidden: Tensor) -> None:
        """See `inference.engine.prefill.PrefillStep`."""
        model, c = self._model, self._model.config
        embed(model, columns, hidden)
        attend = partial(prefill_kernels.attend_prompts, turns=model.rope, blocks=blocks, n_head=c.n_head, kv_heads=c.n_local_heads)
        for layer, kv in zip(self._layers, cache.both, strict=True):
            self._buffers.run(layer, hidden, partial(attend, cache=kv))

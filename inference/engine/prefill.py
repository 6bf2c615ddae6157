"""Passes over the prompts of several requests at once, each a CUDA graph.

A prompt is hundreds of kernels, which launch slower than they run.

A pass takes pieces of prompts, each for its own row of the cache, behind one another in blocks of columns. There is one graph for each
number of columns, in powers of two. Where nothing can be captured, the runner computes prompts eagerly, one after the other.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from inference.engine.captured import GRAPHS, Captured, capture_first
from inference.engine.decode_step import Step
from inference.engine.device import HIGH_PRIORITY
from inference.engine.graphs import capture
from inference.model.dual_ar import KVCache

PREFILL = 256
"""Prompt columns computed between two frames of the running slots."""
BLOCK = 16
"""Columns of a block, which all belong to one prompt: `inference.engine.prefill_kernels.BLOCK_COLUMNS`."""
SIZES = (32, 64, 128, PREFILL)
"""Columns of the captured passes."""
WRONG = 0.05
"""How much the states of a captured pass may differ from the eager step's, as a part of these; FP16 rounds by far less."""
log = logging.getLogger("fishserve")


class PrefillStep(Protocol):
    """What `PrefillGraphs` captures: see `inference.engine.cuda_prefill.FusedPrefill`."""

    def run(self, columns: Tensor, blocks: Tensor, cache: KVCache, hidden: Tensor) -> None:
        """Run the slow layers over columns (n, 1 + codebooks) int64; write their states before the final norm to hidden (n, dim).

        blocks (n / BLOCK, 3) int64 say of each block its row of the cache, the position of its first column, and how many of its columns
        count. The keys and values of these are written to the cache; the states of the others may be anything.
        """
        ...


@dataclass(frozen=True)
class Piece:
    """Columns (1 + codebooks, n) int64 on the CPU that go to cache row `row`, which holds `start` positions."""

    columns: Tensor
    row: int
    start: int

    @property
    def padded(self) -> int:
        """Columns that it takes in a pass."""
        return -(-self.columns.shape[1] // BLOCK) * BLOCK


class PrefillGraphs:
    """Runs pieces of prompts that together take at most PREFILL columns."""

    def __init__(self, step: PrefillStep, cache: KVCache, codebooks: int, like: Tensor) -> None:
        self._step, self._cache, self._width = step, cache, 1 + codebooks
        self._blocks_end = PREFILL // BLOCK * 3
        # One buffer, so that one copy brings all that a pass must know: its blocks, then its columns.
        self._input = torch.zeros(self._blocks_end + PREFILL * self._width, dtype=torch.int64, device=like.device)
        self._hidden = like.new_zeros(PREFILL, like.shape[1])
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}

    @staticmethod
    def size(pieces: Iterable[Piece]) -> int:
        """The columns of the pass that these pieces fit in."""
        taken = sum(piece.padded for piece in pieces)
        return next(n for n in SIZES if n >= taken)

    def launch(self, pieces: Sequence[Piece]) -> list[Tensor]:
        """Start a pass; the states of each piece, (n, dim), which the next pass overwrites."""
        size = self.size(pieces)
        sent = torch.zeros(self._blocks_end + size * self._width, dtype=torch.int64)
        blocks, columns = sent[: self._blocks_end].view(-1, 3), sent[self._blocks_end :].view(size, self._width)
        found, at = [], 0
        for piece in pieces:
            count = piece.columns.shape[1]
            columns[at : at + count] = piece.columns.T
            firsts = torch.arange(0, count, BLOCK)
            mine = blocks[at // BLOCK :][: len(firsts)]
            mine[:, 0], mine[:, 1], mine[:, 2] = piece.row, piece.start + firsts, (count - firsts).clamp(max=BLOCK)
            found.append(self._hidden[at : at + count])
            at += piece.padded
        with torch.cuda.device_of(self._input):
            self._input[: len(sent)].copy_(sent.pin_memory() if self._input.is_cuda else sent, non_blocking=True)
            if graph := self._graphs.get(size):
                graph.replay()
            else:
                self.run_eagerly(size)
        return found

    def run_eagerly(self, size: int) -> None:
        """Compute a pass of so many columns without a graph."""
        blocks = self._input[: self._blocks_end].view(-1, 3)[: size // BLOCK]
        columns = self._input[self._blocks_end :][: size * self._width].view(size, self._width)
        self._step.run(columns, blocks, self._cache, self._hidden[:size])

    def capture(self) -> None:
        """Capture a graph for each size. No row of the cache changes meanwhile."""
        started, stream, pool = time.monotonic(), torch.cuda.Stream(priority=HIGH_PRIORITY), torch.cuda.graph_pool_handle()
        for size in reversed(SIZES):
            self._graphs[size], _ = capture(partial(self.run_eagerly, size), stream, pool)
        log.info("captured %d graphs of prompts in %.1f s", len(self._graphs), time.monotonic() - started)

    @torch.inference_mode()
    def check(self, step: Step) -> None:
        """Run two passes of every size over several rows, the second behind the first. Raises RuntimeError if states, keys or values differ
        from those that `step` computes.
        """
        rows, codes, device = self._cache.rows, step.model.config.codebook_size, self._cache.both.device
        for size in SIZES:
            lengths = _lengths(size // BLOCK, min(rows, 5))
            starts = [0] * len(lengths)
            for _ in range(2):
                pieces = []
                for row, n in enumerate(lengths):
                    columns = torch.arange(n * self._width).view(self._width, n) * (7 + row) % codes
                    columns[0] += step.model.semantic_begin
                    pieces.append(Piece(columns, row, starts[row]))
                ours = [states.clone() for states in self.launch(pieces)]
                for piece, states in zip(pieces, ours, strict=True):
                    written = self._cache.both[:, :, piece.row, :, piece.start : piece.start + piece.columns.shape[1]]
                    kept = written.clone()
                    theirs = step.prompt(piece.columns[None].to(device), self._cache, piece.row, piece.start)[0]
                    if not (_far(states, theirs) <= WRONG and _far(kept, written) <= WRONG):
                        raise RuntimeError(f"graph of {size} prompt columns: other states than the eager step's")
                starts = [start + n for start, n in zip(starts, lengths, strict=True)]
        self._cache.both.zero_()


def _lengths(blocks: int, pieces: int) -> list[int]:
    """Numbers of columns of at most so many pieces that fill so many blocks, not all to the end."""
    pieces = min(pieces, blocks)
    own = [blocks // pieces + (n < blocks % pieces) for n in range(pieces)]
    return [BLOCK * n - (3 * i) % BLOCK for i, n in enumerate(own)]


def _far(ours: Tensor, theirs: Tensor) -> float:
    """The distance of two tensors as a part of the second."""
    return float((ours.float() - theirs.float()).norm() / theirs.float().norm())


def capture_prefill(step: Step, cache: KVCache, frames: bool) -> Captured[PrefillGraphs]:
    """Captured and checked passes; none without the graphs of frames, which take the same kernels. Call it while no row is in use."""
    device = cache.both.device

    def passes() -> PrefillGraphs:
        if not frames:
            raise RuntimeError("frames have no graphs")
        from inference.engine.cuda_prefill import FusedPrefill
        from inference.engine.kernel_cache import compile_at_once

        with torch.cuda.device(device):
            model = step.model
            captured = PrefillGraphs(FusedPrefill(step, PREFILL), cache, step.codebooks, model.embeddings.weight)
            compile_at_once(captured.run_eagerly, SIZES[:1], torch.cuda.get_device_capability(device))  # the same kernels for all
            captured.capture()
            captured.check(step)
        return captured

    return capture_first("prefill", "prompts are computed one after the other, and slower", device, [(GRAPHS, passes)], cache.both.zero_)

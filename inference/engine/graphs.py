"""A whole frame as one CUDA graph: a frame is over a thousand small kernels, and asking for each takes longer than running it.

Everything a frame depends on comes in two small tensors, and it leaves in one. There is one graph for each number of rows and each reach
of attention, powers of two, all captured when the engine starts. The same function runs eagerly where there is nothing to capture with: on a CPU,
where the tests hold it against the runner's own way.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from inference.engine.sampler import NONE, Controls, gumbel, sample, seen_ids
from inference.engine.step import Head, Step
from inference.model.dual_ar import KVCache

LEAST_REACH = 256
"""Positions that attention always looks at; fewer would save little."""
log = logging.getLogger("fishserve")


class Row(NamedTuple):
    """What a frame of one sequence depends on: its last column (1 + codebooks,), how many positions its cache holds, its seed, the number of the
    frame, what the penalty sees (1 + codebooks, window), and temperature, top-p and penalty.
    """

    column: Tensor
    length: int
    seed: int
    frame: int
    history: Tensor
    sampling: tuple[float, float, float]


@dataclass
class Program:
    """One graph and the tensors it reads and writes. `graph` is None where it runs eagerly."""

    numbers: Tensor
    sampling: Tensor
    reach: int
    frames: Tensor
    graph: torch.cuda.CUDAGraph | None = None


class Graphs:
    """The frames of up to `rows` sequences that may draw what `head` says. Holds the cache's rows 0, 1, ... in its hands while it runs."""

    def __init__(self, step: Step, head: Head, cache: KVCache, rows: int, window: int, *, capture: bool) -> None:
        self._step, self._head, self._cache, self._window = step, head, cache, window
        self._columns = 1 + step.codebooks
        self._draws = torch.arange(step.codebooks, device=cache.both.device)
        self._sizes, self._reaches = _powers(1, rows), _powers(min(LEAST_REACH, cache.positions), cache.positions)
        self._programs: dict[tuple[int, int], Program] = {}
        if capture:
            with torch.cuda.device(cache.both.device):
                self._capture_all()

    def run(self, rows: Sequence[Row]) -> Tensor:
        """A frame for cache rows 0, 1, ..., as `Step.frame` gives it, on the CPU. Each writes its column's keys and values on the way."""
        size = next(n for n in self._sizes if n >= len(rows))
        reach = next(n for n in self._reaches if n > max(row.length for row in rows))
        program = self._programs.get((size, reach)) or self._program(size, reach)
        numbers = [torch.cat((r.column, torch.tensor((r.length, r.seed, r.frame)), r.history.flatten())) for r in rows]
        program.numbers[: len(rows)].copy_(torch.stack(numbers))
        program.numbers[len(rows) :, : self._columns + 1] = 0  # nobody's rows go back to position 0, which whoever comes writes first
        program.sampling[: len(rows)].copy_(torch.tensor([r.sampling for r in rows], dtype=torch.float32))
        if program.graph is None:
            program.frames = self._frame(program)
        else:
            with torch.cuda.device(self._cache.both.device):
                program.graph.replay()
        return program.frames[: len(rows)].cpu()

    def _frame(self, program: Program) -> Tensor:
        column, (length, seed, frame) = program.numbers[:, : self._columns], program.numbers[:, self._columns :].T[:3]
        history = program.numbers[:, self._columns + 3 :].view(-1, self._columns, self._window)
        controls = Controls.of(program.sampling, penalised=True)

        def pick(draw: int, logits: Tensor) -> Tensor:
            noise = gumbel(seed, frame, self._draws[draw : draw + 1], 0, logits.shape[1])[:, 0]
            seen = history[:, draw if draw == 0 else draw + 1]  # row 0 is of tokens, row n + 1 of codebook n
            return sample(logits, seen_ids(seen, logits.shape[1]), controls, noise)

        hidden = self._step.slow_at(column, self._cache, length, program.reach)
        return self._step.frame(hidden, self._head, pick)

    def _program(self, size: int, reach: int) -> Program:
        """Rows that nobody fills stand at position 0 of free cache rows, where what they write harms nobody."""
        device = self._cache.both.device
        numbers = torch.zeros(size, self._columns * (1 + self._window) + 3, dtype=torch.int64, device=device)
        numbers[:, self._columns + 3 :] = NONE
        program = Program(numbers, torch.ones(size, 3, device=device), reach, torch.empty(0))
        self._programs[size, reach] = program
        return program

    def _capture_all(self) -> None:
        started, pool, side = time.monotonic(), torch.cuda.graph_pool_handle(), torch.cuda.Stream()
        for size in reversed(self._sizes):  # the largest first, so that the others find its memory
            for reach in reversed(self._reaches):
                program, graph = self._program(size, reach), torch.cuda.CUDAGraph()
                side.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(side):  # what libraries set up at a first call cannot be captured
                    self._frame(program)
                torch.cuda.current_stream().wait_stream(side)
                with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                    program.frames = self._frame(program)
                # Tried on what it was not captured with, so that a graph of nothing is found out.
                program.numbers[:, self._columns + 1] = torch.arange(size)
                graph.replay()
                if not torch.equal(program.frames.clone(), self._frame(program)):
                    raise RuntimeError(f"the graph of {size} rows and {reach} positions gives other frames than what it was captured from")
                program.graph = graph
        log.info("captured %d CUDA graphs in %.1f s", len(self._programs), time.monotonic() - started)


def captured(step: Step, head: Head, cache: KVCache, rows: int, window: int) -> Graphs | None:
    """Graphs where the device has them; None on a CPU, and where they cannot be captured, which is logged: frames then run eagerly."""
    if cache.both.device.type != "cuda":
        return None
    try:
        return Graphs(step, head, cache, rows, window, capture=True)
    except RuntimeError as e:
        log.warning("CUDA graphs are not used, so that frames take several times as long: %s", e)
        return None


def _powers(least: int, most: int) -> list[int]:
    """least, 2 least, 4 least ... and `most`."""
    found = []
    while least < most:
        found.append(least)
        least *= 2
    return [*found, most]

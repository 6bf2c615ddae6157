"""A whole frame as one CUDA graph: a frame is hundreds of small kernels, and asking for each takes longer than running it.

The state behind a sequence's next frame stays on the device and advances there, so a step can start before the runner has read the last
step's frames. There is one graph for each number of rows, in powers of two, all captured when the engine starts. Where nothing can be
captured, the same step runs eagerly: the tests compare it this way with the runner's own step.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from inference.engine.captured import GRAPHS, Captured, capture_first
from inference.engine.decode_step import Head, Step
from inference.engine.device import HIGH_PRIORITY, FastLayerKernels
from inference.engine.sampler import NONE
from inference.model.dual_ar import KVCache

FAR = 0.3
"""How far a graph's choice may lie behind the likeliest id, in standard deviations of the logits. FP16 rounds by about a hundredth of one;
nearly all choices of a faulty step lie more than one behind.
"""
T = TypeVar("T")
log = logging.getLogger("fishserve")


class FrameStep(Protocol):
    """What `Graphs` captures: see `inference.engine.cuda_decode_step.FusedStep`."""

    def frame(self, numbers: Tensor, sampling: Tensor, active: Tensor, cache: KVCache, frames: Tensor) -> None:
        """Write the next frame of cache rows 0, 1, ... and advance the first `active` rows of `numbers`."""
        ...


@dataclass(frozen=True)
class PendingFrames:
    """Frames on their way to host memory; the copy is complete once the event `arrived` has occurred."""

    frames: Tensor
    arrived: torch.cuda.Event | None

    def wait(self) -> Tensor:
        """Wait for the frames; return them on the CPU, in the format of `Step.frame`."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.frames.clone()  # the frames after the next will overwrite this memory


class Graphs:
    """Generates the frames of cache rows 0, 1, ..., each from the state that `place` or `move` last gave it.

    A row of `numbers` holds its next column (1 + codebooks), the number of positions in its cache, its seed, the number of the next frame,
    and the ids that the penalty of each draw sees (codebooks, window), frame number n at n % window. A row of `sampling` holds temperature,
    top-p and penalty.
    """

    def __init__(self, step: FrameStep, cache: KVCache, rows: int, codebooks: int, window: int) -> None:
        device = cache.both.device
        self._step, self._cache, self._codebooks, self._window = step, cache, codebooks, window
        self._numbers = torch.zeros(rows, codebooks + 4 + codebooks * window, dtype=torch.int64, device=device)
        self._numbers[:, codebooks + 4 :] = NONE
        self._sampling = torch.ones(rows, 3, device=device)
        self._active = torch.zeros(1, dtype=torch.int32, device=device)
        self._counted = 0
        self._frames = torch.zeros(rows, codebooks + 3, dtype=torch.int64, device=device)
        # Two, as one is read while the next is written.
        self._landing = [torch.zeros(rows, codebooks + 3, dtype=torch.int64, pin_memory=device.type == "cuda") for _ in range(2)]
        self.sizes = powers(rows)
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}

    def place(
        self, row: int, column: Tensor, length: int, seed: int, frame: int, history: Tensor, sampling: tuple[float, float, float]
    ) -> None:
        """Set the state of a row's next frame: column (1 + codebooks,) and history (codebooks, window), the latest last, both int64 on the
        CPU.
        """
        ring = history.roll(frame % self._window, dims=1)
        self._numbers[row].copy_(self._sent(torch.cat((column, torch.tensor((length, seed, frame)), ring.flatten()))), non_blocking=True)
        self._sampling[row].copy_(self._sent(torch.tensor(sampling, dtype=torch.float32)), non_blocking=True)

    def move(self, source: int, target: int) -> None:
        """Copy the state of row `source` to row `target`."""
        self._numbers[target] = self._numbers[source]
        self._sampling[target] = self._sampling[source]

    def launch(self, rows: int) -> PendingFrames:
        """Start the next frame of the first `rows` rows."""
        with torch.cuda.device_of(self._numbers):
            if rows != self._counted:
                self._active.fill_(rows)
                self._counted = rows
            size = next(n for n in self.sizes if n >= rows)
            if graph := self._graphs.get(size):
                graph.replay()
            else:
                self.run_eagerly(size)
            self._landing.reverse()
            landing = self._landing[0][:rows]
            landing.copy_(self._frames[:rows], non_blocking=True)
            return PendingFrames(landing, torch.cuda.current_stream().record_event() if self._frames.is_cuda else None)

    def _sent(self, x: Tensor) -> Tensor:
        return x.pin_memory() if self._numbers.is_cuda else x

    def run_eagerly(self, size: int) -> None:
        """Compute the next frame of the first `size` rows, without a graph."""
        self._step.frame(self._numbers[:size], self._sampling[:size], self._active, self._cache, self._frames[:size])

    def capture(self) -> None:
        """Capture a graph for each number of rows. No row advances meanwhile."""
        # Kernels of a graph keep the priority of the stream that they were captured on.
        started, stream, pool = time.monotonic(), torch.cuda.Stream(priority=HIGH_PRIORITY), torch.cuda.graph_pool_handle()
        for size in reversed(self.sizes):  # the largest first, so that the others can reuse its memory
            self._graphs[size], _ = capture(partial(self.run_eagerly, size), stream, pool)
        log.info("captured %d graphs of a frame in %.1f s", len(self._graphs), time.monotonic() - started)

    @torch.inference_mode()
    def check(self, step: Step, head: Head) -> float:
        """Run two greedy frames for every number of rows on a random KV cache. Raises RuntimeError if a graph chooses an id that `step`
        finds unlikely.

        Step and graphs round differently, so they may choose differently where two ids are close. Returns how far, at most, a choice lay
        behind the likeliest id, in standard deviations of the logits.
        """
        furthest = 0.0
        codes, device = head.codes, self._cache.both.device
        generator = torch.Generator(device).manual_seed(0)  # the same check at every start
        for rows in self.sizes:
            lengths = [(37 * row + 150) % min(200, self._cache.positions - 2) for row in range(rows)]
            past = self._cache.both[:, :, :rows, :, : max(lengths) + 2]
            past.normal_(generator=generator)
            columns = torch.arange(rows * self._codebooks).view(rows, -1) * 7 % codes
            columns = torch.cat((head.ids[1 + columns[:, :1].to(device)].cpu(), columns), dim=1)
            nothing = torch.full((self._codebooks, self._window), NONE)
            for row, length in enumerate(lengths):
                self.place(row, columns[row], length, 0, 1, nothing, (0.0, 1.0, 1.0))
            for n in range(2):
                frames = self.launch(rows).wait()
                positions = torch.tensor(lengths, device=device) + n
                hidden = step.slow_at(columns.to(device), self._cache, positions, max(lengths) + n + 1)
                behind = _behind(step, hidden, head, frames)
                if not behind <= FAR or not frames[:, -1].all():
                    raise RuntimeError(
                        f"graph of {rows} rows: an id was chosen that is {behind:.2g} standard deviations behind the likeliest"
                    )
                furthest, columns = max(furthest, behind), frames[:, : 1 + self._codebooks]
            past.zero_()
        return furthest


def _behind(step: Step, hidden: Tensor, head: Head, frames: Tensor) -> float:
    """How far, at most, the ids of `frames` (in the format of `Step.frame`) lie behind those that `step` finds likeliest."""
    choices = torch.cat((frames[:, -2:-1], frames[:, 2:-2]), dim=1).to(hidden.device)
    distances = []

    def pick(draw: int, logits: Tensor) -> Tensor:
        chosen = choices[:, draw]
        distances.append((logits.max(-1).values - logits.gather(1, chosen[:, None])[:, 0]) / logits.std(-1))
        return chosen

    step.frame(hidden, head, pick)
    return float(torch.stack(distances).max())


def capture(work: Callable[[], T], stream: torch.cuda.Stream, pool: Any) -> tuple[torch.cuda.CUDAGraph, T]:
    """Capture `work` as a graph; return the graph and the result of `work`: tensors that each replay overwrites, as do other graphs of the
    pool.

    Graphs that may run at the same time need separate pools and streams: libraries keep scratch memory for each stream they are captured
    on.
    """
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # the first call compiles and sets up, which cannot be captured
        work()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
        result = work()
    torch.cuda.current_stream().wait_stream(stream)
    return graph, result


def capture_frames(
    step: Step, head: Head, cache: KVCache, rows: int, window: int, fast_layers: FastLayerKernels = "separate"
) -> Captured[Graphs]:
    """Captured and checked graphs of a frame. Where a driver refuses kernels that overlap, they run one after the other instead.

    Where `fast_layers` asks for one kernel and it fails, the fast layers take separate kernels instead.
    """
    device = cache.both.device

    def graphs(overlapping: bool, fast_layers: FastLayerKernels) -> Graphs:
        from inference.engine import launching  # Triton comes with torch for CUDA, and nothing else needs it
        from inference.engine.cuda_decode_step import FusedStep
        from inference.engine.kernel_cache import compile_at_once

        launching.overlap(overlapping)
        with torch.cuda.device(device):
            captured = Graphs(FusedStep(step, head, rows, window, fast_layers), cache, rows, step.codebooks, window)
            started = time.monotonic()
            compile_at_once(captured.run_eagerly, captured.sizes, torch.cuda.get_device_capability(device))
            log.info("compiled the kernels of a frame in %.1f s", time.monotonic() - started)
            captured.capture()
            captured.check(step, head)
        return captured

    separate = "graphs of separate kernels for the fast layers" if fast_layers == "persistent" else GRAPHS
    ways = [(separate, partial(graphs, True, "separate")), ("graphs of kernels that do not overlap", partial(graphs, False, "separate"))]
    if fast_layers == "persistent":
        ways.insert(0, (GRAPHS, partial(graphs, True, fast_layers)))
    return capture_first("frames", "frames take several times as long", device, ways, cache.both.zero_)


def powers(most: int) -> list[int]:
    """1, 2, 4 ... and `most`."""
    return [*(2**n for n in range((most - 1).bit_length())), most]

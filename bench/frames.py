"""Measures whole frames as the engine generates them, at several batch sizes, against the device's lower bound.

On CUDA it also proves the results right: graphs against the eager step, one seed twice, draws against the sampler's, and the codec's
graphs.
"""

from __future__ import annotations

import time

import numpy as np
import torch

from bench.record import Record
from bench.roofline import POSITIONS, arithmetic, bandwidth, frame, weight_size_of
from bench.serving import Step as Shown
from bench.timing import now, timed
from inference import SpeechRequest
from inference.engine.device import FastLayerKernels, affordable_slots
from inference.engine.graphs import Graphs
from inference.engine.runner import WINDOW, Runner, Sequence
from inference.engine.sampler import NONE, Controls, gumbel, sample, seen_ids
from inference.engine.vocoder import Passes, Vocoder
from inference.engine.weight_layouts import Weights
from inference.errors import RequestError
from inference.model.checkpoint import Checkpoint, precision
from inference.model.config import CODES_PER_GROUP, GenerationDefaults

SECONDS, MAX_FRAMES = 4.0, 400
COMPARED = 32
"""Number of frames that are compared between two ways of generating."""


@torch.inference_mode()
def measure(
    checkpoint: Checkpoint, weights: Weights, streams: list[int], record: Record, step: Shown, fast_layers: FastLayerKernels = "separate"
) -> None:
    """Time frames at each number of streams that fits in memory.

    A run holds the seconds of each frame, of frames on the device alone, and of the start with that many rows. Raises RequestError when
    graphs could not be captured on CUDA.
    """
    device, dtype = checkpoint.device, precision(checkpoint.device)
    with step("bandwidth and arithmetic", None):
        fastest = max(bandwidth(device)), max(arithmetic(device, weights))
    record.body |= {"bytes_per_second": fastest[0], "flops_per_second": fastest[1]}
    for n in (n for n in streams if affordable_slots(checkpoint, n, None) == n):
        with step(f"{n} stream{'s'[: n > 1]}", None):
            started = now(device)
            runner = Runner(checkpoint, n, weights, fast_layers)
            start = now(device) - started
            proof = _proof(checkpoint, runner, n) if runner._graphs is not None else {}
            seconds, device_seconds = _frames(checkpoint, runner, n)
        needed = frame(checkpoint.config, n, POSITIONS, dtype.itemsize, _weight_size(checkpoint, weights, runner, n))
        limit = sum(work.seconds(*fastest) for work in needed.values())
        run = {
            "case": "frame",
            "streams": n,
            "graphs": runner._graphs is not None,
            "how": runner.how,
            "start_seconds": start,
            "proof": proof,
        }
        record.runs.append(run | {"frames": n, "limit_seconds": limit, "seconds": seconds, "device_seconds": device_seconds})
        record.write()
        if device.type == "cuda" and runner._graphs is None:
            raise RequestError(f"frames of {n} streams are not those of graphs, so nothing more is measured: {runner.how}")
        del runner
    started = now(device)
    passes = Vocoder(checkpoint.codec)._passes
    if passes is not None:
        record.body["codec_start_seconds"] = now(device) - started
        for rows, frames in sorted(passes._passes):
            _decode(checkpoint, passes, rows, frames, record, step)


def _weight_size(checkpoint: Checkpoint, weights: Weights, runner: Runner, n: int) -> int | None:
    """As `weight_size_of`; graphs of few rows read 8-bit weights."""
    if runner._graphs is None:
        return weight_size_of(checkpoint, weights)
    from inference.engine.launching import NARROW

    return 1 if weights == "int8" and n <= NARROW else None


def _prompt(checkpoint: Checkpoint, seed: int) -> torch.Tensor:
    """A prompt of noise, (1 + codebooks, POSITIONS)."""
    codes = min(CODES_PER_GROUP, checkpoint.config.codebook_size)
    columns = torch.randint(0, codes, (1 + checkpoint.config.num_codebooks, POSITIONS), generator=torch.Generator().manual_seed(seed))
    columns[0] = columns[1] + checkpoint.tokenizer.semantic_begin
    return columns


def _add(checkpoint: Checkpoint, runner: Runner, seeds: range, temperature: float = 0.7) -> list[Sequence]:
    request = SpeechRequest("x", temperature=temperature).resolved(GenerationDefaults())
    sequences = [Sequence(request, _prompt(checkpoint, seed), MAX_FRAMES, seed) for seed in seeds]
    for s in sequences:
        runner.stage(s)
        while s.slot < 0:
            runner.prefill()
    return sequences


def _frames(checkpoint: Checkpoint, runner: Runner, n: int) -> tuple[list[float], list[float]]:
    """Seconds of each frame, and of frames on the device alone. A finished row keeps running: the arithmetic is the same."""
    sequences = _add(checkpoint, runner, range(n))
    seconds: list[float] = []
    for _ in range(3):
        runner.step()
    most, until = min(MAX_FRAMES, checkpoint.config.max_seq_len - POSITIONS - 8), now(checkpoint.device) + SECONDS
    while len(seconds) < most and (len(seconds) < 5 or time.perf_counter() < until):
        started = time.perf_counter()  # without waiting for the device: the runner reads a frame while the device computes the next
        runner.step()
        seconds.append(time.perf_counter() - started)
    device_seconds = _device_seconds(runner._graphs, n) if checkpoint.device.type == "cuda" and runner._graphs else []
    for s in sequences:
        runner.remove(s)
    return seconds, device_seconds


def _device_seconds(graphs: Graphs, n: int) -> list[float]:
    """Seconds of a frame of `n` rows without the host's work: ten graphs in a row, a few times."""
    seconds = []
    for _ in range(20):
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        for _ in range(10):
            graphs.launch(n)
        ended.record()
        ended.synchronize()
        seconds.append(began.elapsed_time(ended) / 10_000)
    return seconds


def _columns(checkpoint: Checkpoint, runner: Runner, seeds: range, temperature: float) -> torch.Tensor:
    """The first frames of sequences that run together, (sequences, COMPARED, 1 + codebooks)."""
    sequences = _add(checkpoint, runner, seeds, temperature)
    while len(sequences[-1].frames) < COMPARED:
        runner.step()
    for s in list(runner.sequences):
        runner.remove(s)
    return torch.from_numpy(np.stack([s.frames[:COMPARED] for s in sequences]))


def _proof(checkpoint: Checkpoint, runner: Runner, n: int) -> dict[str, float]:
    """How far, at most, the graphs' greedy choices lie behind the eager step's likeliest id, in standard deviations; then four shares of
    equal results.

    The shares compare greedy frames with the eager step's, sampled frames with a repeat and with the same sequences alone, and draws with
    the sampler's. The first and the third depend on rounding: after one close draw goes the other way, all later frames differ.
    """
    assert runner._graphs is not None
    behind = runner._graphs.check(runner._step, runner._speakable)
    ours = _columns(checkpoint, runner, range(n), 0.0)
    twice = [_columns(checkpoint, runner, range(n), 0.7) for _ in range(2)]
    alone = _columns(checkpoint, runner, range(1), 0.7)
    captured = runner._graphs, runner._prefill_graphs
    runner._graphs = runner._prefill_graphs = None
    eager = _columns(checkpoint, runner, range(n), 0.0)
    runner._graphs, runner._prefill_graphs = captured
    return {
        "behind": behind, "as_eager": _share(ours, eager), "as_again": _share(*twice), "as_alone": _share(twice[0][:1], alone),
        "draws": _draws(checkpoint.device, n),
    }  # fmt: skip


def _share(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a == b).all(-1).float().mean())


def _draws(device: torch.device, rows: int, ids: int = 1001, codebooks: int = 2) -> float:
    """Share of draws from random logits in which the kernel and the sampler agree."""
    from inference.engine import kernels

    generator, same = torch.Generator().manual_seed(0), []
    settings = torch.tensor([(0.7, 0.7, 1.2), (1.0, 1.0, 1.5), (0.0, 1.0, 1.3), (1.5, 0.95, 1.0)]).repeat(rows, 1)[:rows]
    for scale in (1.0, 4.0):
        for n in range(codebooks):
            logits = (scale * torch.randn(rows, ids, generator=generator)).to(device)
            history = torch.randint(NONE, ids, (rows, codebooks, WINDOW), generator=generator)
            facts = torch.tensor([[9, 2**61 + row, row + 1] for row in range(rows)])
            numbers = torch.cat((torch.zeros(rows, 1 + codebooks, dtype=torch.int64), facts, history.flatten(1)), dim=1).to(device)
            frames = torch.zeros(rows, codebooks + 3, dtype=torch.int64, device=device)
            scratch, active = torch.zeros(2 * rows, 16, device=device), torch.tensor([rows], dtype=torch.int32, device=device)
            kernels.draw(
                n, logits, numbers, settings.to(device), scratch, frames, torch.arange(ids, device=device), torch.zeros(ids, 16, device=device),
                scratch.clone(), active, codebooks=codebooks, window=WINDOW, semantic_begin=0, code_size=ids,
            )  # fmt: skip
            noise = gumbel(facts[:, 1], facts[:, 2], torch.tensor([n]), 0, ids)[:, 0].to(device)
            controls = Controls.of(settings.to(device), penalised=True)
            theirs = sample(logits, seen_ids(history[:, n].to(device), ids), controls, noise)
            same.append((frames[:, 1 + n] == theirs).float().mean())
    return float(torch.stack(same).mean())


def _decode(checkpoint: Checkpoint, passes: Passes, rows: int, frames: int, record: Record, step: Shown) -> None:
    codes = torch.randint(0, CODES_PER_GROUP, (rows, checkpoint.codec.config.groups, frames))
    streams = [checkpoint.codec.stream() for _ in range(rows)]
    with step(f"decode, {rows} streams, {frames} frames", None):
        seconds = timed(lambda: passes.decode(streams, codes), checkpoint.device, seconds=0.5)
    record.runs.append({"case": f"decode, chunks of {frames}", "streams": rows, "frames": rows * frames, "seconds": seconds})
    record.write()
